"""
Handlers without an event loop: when the function is called, and what is left to others.

:class:`Loop` runs nothing by itself; each test says when the next turn comes, and when a task runs.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

import pytest
from helpers import Number

from lahja.counting import Stopwatch
from lahja.handlers import Handler

LOGGER = logging.getLogger("lahja.test")


class Pause:
    """Suspend a task until it is resumed."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class Loop:
    """Keep what it is asked to run."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []
        self.tasks: list[Coroutine[Any, Any, None]] = []
        self.checkpoints = 0
        self.strays: tuple[type[BaseException], ...] = ()

    def call_soon(self, function: Callable[[], None]) -> None:
        self.soon.append(function)

    def start_soon(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        self.tasks.append(function(*args))

    def is_stray(self, error: BaseException) -> bool:
        return isinstance(error, self.strays)

    async def checkpoint(self) -> None:
        self.checkpoints += 1
        await Pause()

    def turn(self) -> None:
        """Call what is due."""
        due, self.soon = self.soon, []
        for function in due:
            function()

    def step(self) -> bool:
        """Let the only task go on; return whether it is still there."""
        (task,) = self.tasks
        try:
            task.send(None)
        except StopIteration:
            self.tasks.clear()
            return False
        except BaseException:
            self.tasks.clear()
            raise
        return True


class Stray(BaseException):
    """Stand for a cancellation."""


@pytest.fixture
def loop() -> Loop:
    """Return an event loop that runs nothing by itself."""
    return Loop()


@pytest.fixture
def values() -> list[int]:
    """Return where handlers note what they were called with."""
    return []


def handle_with(function: Callable[[Any], Any], loop: Loop) -> Handler:
    """Return a handler."""
    return Handler(function, loop, LOGGER, "alone")


# -- Functions -------------------------------------------------------------------------------


def test_an_event_from_elsewhere_is_handled_at_once(loop: Loop, values: list[int]) -> None:
    handler = handle_with(lambda event: values.append(event.value), loop)
    for value in range(3):
        handler.deliver(Number(value), False)
    assert values == [0, 1, 2]
    assert not loop.soon
    assert not loop.tasks


def test_an_event_from_here_is_handled_in_the_next_turn(loop: Loop, values: list[int]) -> None:
    handler = handle_with(lambda event: values.append(event.value), loop)
    for value in range(3):
        handler.deliver(Number(value), True)
    assert values == []
    loop.turn()
    assert values == [0, 1, 2]
    assert not loop.soon


def test_an_event_from_elsewhere_does_not_overtake_one_from_here(
    loop: Loop, values: list[int]
) -> None:
    handler = handle_with(lambda event: values.append(event.value), loop)
    handler.deliver(Number(0), True)
    handler.deliver(Number(1), False)
    assert values == []
    loop.turn()
    assert values == [0, 1]


def test_events_that_come_while_one_is_handled_wait(loop: Loop, values: list[int]) -> None:
    def function(event: Number) -> None:
        values.append(event.value)
        if event.value < 3:
            handler.deliver(Number(event.value + 1), local=event.value % 2 == 0)
            values.append(-event.value)

    handler = handle_with(function, loop)
    handler.deliver(Number(1), False)
    assert values == [1, -1]
    loop.turn()
    assert values == [1, -1, 2, -2, 3]
    assert not loop.soon


def test_a_flood_is_handled_in_portions(loop: Loop, values: list[int]) -> None:
    handler = handle_with(lambda event: values.append(event.value), loop)
    for value in range(200):
        handler.deliver(Number(value), True)
    turns = 0
    while loop.soon:
        loop.turn()
        turns += 1
    assert values == list(range(200))
    assert turns == 4


def test_a_handler_that_stopped_is_called_no_more(loop: Loop, values: list[int]) -> None:
    handler = handle_with(lambda event: values.append(event.value), loop)
    handler.deliver(Number(0), True)
    handler.stop()
    handler.deliver(Number(1), False)
    loop.turn()
    handler.deliver(Number(2), True)
    assert values == []
    assert not loop.soon
    handler.stop()


@pytest.mark.parametrize("local", [True, False])
def test_a_failure_is_logged_and_the_next_event_handled(
    loop: Loop, values: list[int], local: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def function(event: Number) -> None:
        values.append(event.value)
        raise ValueError(event.value)

    handler = handle_with(function, loop)
    for value in range(2):
        handler.deliver(Number(value), local)
        loop.turn()
    assert values == [0, 1]
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    message = caplog.records[0].getMessage()
    assert repr(function) in message
    assert "an event of type Number" in message


@pytest.mark.parametrize("local", [True, False])
def test_an_interruption_goes_through_and_the_next_event_is_handled(
    loop: Loop, values: list[int], local: bool
) -> None:
    def function(event: Number) -> None:
        values.append(event.value)
        if event.value == 0:
            raise KeyboardInterrupt

    handler = handle_with(function, loop)

    def deliver() -> None:
        handler.deliver(Number(0), local)
        handler.deliver(Number(1), local)
        loop.turn()

    with pytest.raises(KeyboardInterrupt):
        deliver()
    loop.turn()
    if not local:
        handler.deliver(Number(1), local)
    assert values == [0, 1]


# -- What is awaited -------------------------------------------------------------------------


def pausing(values: list[int]) -> Callable[[Number], Awaitable[None]]:
    """Return a coroutine function that pauses once."""

    async def function(event: Number) -> None:
        values.append(event.value)
        await Pause()
        values.append(-event.value)

    return function


@pytest.mark.parametrize("local", [True, False])
def test_one_task_awaits_one_event_after_the_other(
    loop: Loop, values: list[int], local: bool
) -> None:
    handler = handle_with(pausing(values), loop)
    for value in (1, 2):
        handler.deliver(Number(value), local)
    loop.turn()
    assert len(loop.tasks) == 1
    assert values == []
    assert loop.step()
    assert values == [1]
    assert loop.step()
    assert values == [1, -1, 2]
    handler.deliver(Number(3), local)
    assert loop.step()
    assert not loop.step()
    assert values == [1, -1, 2, -2, 3, -3]
    assert not loop.soon
    handler.deliver(Number(4), False)
    assert loop.step()
    assert not loop.step()
    assert values[-2:] == [4, -4]


def test_a_flood_that_is_awaited_gives_others_a_turn(loop: Loop, values: list[int]) -> None:
    async def function(event: Number) -> None:
        values.append(event.value)

    handler = handle_with(function, loop)
    for value in range(200):
        handler.deliver(Number(value), False)
    while loop.step():
        pass
    assert values == list(range(200))
    assert loop.checkpoints == 3


def slow_stopwatch(values: list[int]) -> Stopwatch:
    """Return a stopwatch by which each event takes ten milliseconds."""
    return Stopwatch(lambda: len(values) / 100)


def test_a_function_that_takes_long_gives_others_a_turn(loop: Loop, values: list[int]) -> None:
    def function(event: Number) -> None:
        values.append(event.value)

    handler = Handler(function, loop, LOGGER, "alone", slow_stopwatch(values))
    for value in range(5):
        handler.deliver(Number(value), True)
    for done in (2, 4, 5):
        assert len(loop.soon) == 1
        loop.turn()
        assert values == list(range(done))
    assert not loop.soon


def test_a_coroutine_that_takes_long_gives_others_a_turn(loop: Loop, values: list[int]) -> None:
    async def function(event: Number) -> None:
        values.append(event.value)

    handler = Handler(function, loop, LOGGER, "alone", slow_stopwatch(values))
    for value in range(5):
        handler.deliver(Number(value), False)
    for done in (2, 4):
        assert loop.step()
        assert values == list(range(done))
    assert not loop.step()
    assert values == list(range(5))
    assert loop.checkpoints == 2
    handler.deliver(Number(5), False)
    assert not loop.step()
    assert loop.checkpoints == 2  # there is no need, as long as nothing waits


def test_stopping_before_the_task_began_closes_the_coroutine(loop: Loop, values: list[int]) -> None:
    handler = handle_with(pausing(values), loop)
    handler.deliver(Number(1), False)
    handler.stop()
    assert not loop.step()
    assert values == []


def test_stopping_before_the_task_began_leaves_other_awaitables_alone(loop: Loop) -> None:
    handler = handle_with(lambda event: Pause(), loop)
    handler.deliver(Number(1), False)
    handler.stop()
    assert not loop.step()


def test_stopping_lets_what_has_begun_end(loop: Loop, values: list[int]) -> None:
    handler = handle_with(pausing(values), loop)
    for value in (1, 2):
        handler.deliver(Number(value), False)
    assert loop.step()
    handler.stop()
    assert not loop.step()
    assert values == [1, -1]


@pytest.mark.parametrize("error", [ValueError, Stray])
def test_a_failure_that_is_awaited_is_logged_and_the_next_event_handled(
    loop: Loop,
    values: list[int],
    error: type[BaseException],
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop.strays = (Stray,)

    async def function(event: Number) -> None:
        values.append(event.value)
        await Pause()
        raise error

    handler = handle_with(function, loop)
    for value in range(2):
        handler.deliver(Number(value), False)
    while loop.step():
        pass
    assert values == [0, 1]
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2


def test_a_cancellation_ends_the_task_and_the_next_event_gets_another_one(
    loop: Loop, values: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    async def function(event: Number) -> None:
        values.append(event.value)
        if event.value == 0:
            raise Stray

    handler = handle_with(function, loop)
    for value in range(2):
        handler.deliver(Number(value), False)
    with pytest.raises(Stray):
        loop.step()
    assert not loop.tasks
    loop.turn()
    assert not loop.step()
    assert values == [0, 1]
    assert not caplog.records
