"""
Threads: each has endpoints of its own, and what they share, classes, names and values, holds.

The compiled module does not declare that it can do without the GIL: the statistics of an endpoint
may be asked for in any thread, while its own one replaces what they are read from. So a
free-threaded Python turns the GIL on when it loads the module, and says so.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import anyio
import framing_helpers
import pytest
from framing_helpers import Event, Link, Plain, Slotted, state_of
from helpers import Bus, Question, answer_questions

from lahja import AsyncioEndpoint, EndpointStats, TrioEndpoint

THREADS = 4
ROUNDS = 1000
CLASSES = (AsyncioEndpoint, TrioEndpoint)


@pytest.fixture(params=framing_helpers.IMPLEMENTATIONS)
def framing(request: pytest.FixtureRequest) -> ModuleType:
    """Return one of the framing implementations."""
    return framing_helpers.load(request.param)


@pytest.fixture(autouse=True)
def hasty() -> Iterator[None]:
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def at_once(*functions: Callable[[], Any]) -> list[Any]:
    """Call functions in threads that begin in the same moment, and return their results."""
    barrier = threading.Barrier(len(functions))

    def run(function: Callable[[], Any]) -> Any:
        barrier.wait()
        return function()

    with ThreadPoolExecutor(len(functions)) as threads:
        return [future.result() for future in [threads.submit(run, each) for each in functions]]


def test_links_of_their_own_do_not_disturb_each_other(framing: ModuleType) -> None:
    values: list[Any] = [1, "text", {"a": [1, 2, (3, None)]}, {4, 5}, b"x" * 2000, 1 << 80, 1.5]

    def talk() -> int:
        link = Link(framing)
        for number in range(ROUNDS):
            value = values[number % len(values)]
            for event in (Plain(number, "text", b"data"), Slotted(number), Event(value=value)):
                sent = state_of(event)
                (received,) = link.carry(event)
                assert type(received) is type(event)
                assert {**state_of(received), "_origin": None} == {**sent, "_origin": None}
        return ROUNDS

    assert at_once(*[talk] * THREADS) == [ROUNDS] * THREADS


def test_a_value_that_another_thread_changes_is_sent_whole_or_is_an_error(
    framing: ModuleType,
) -> None:
    numbers: list[Any] = [*range(20)]
    mapping: dict[Any, Any] = {number: [number] for number in range(20)}
    complaints: set[str] = set()
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            numbers.append((1, "x"))
            mapping[len(mapping)] = "y" * 50
            numbers.pop()
            mapping.popitem()

    def encode() -> int:
        fine = 0
        try:
            for _ in range(ROUNDS):
                for value in (numbers, mapping):
                    try:
                        encoded = framing.encode_value(value)
                    except RuntimeError as error:
                        complaints.add(str(error).partition(" ")[2])
                        continue
                    decoded, end = framing.decode_value(encoded)
                    assert end == len(encoded)
                    assert len(decoded) in (20, 21)
                    fine += 1
        finally:
            done.set()
        return fine

    assert at_once(change, encode)[1] > 0
    assert complaints <= {"changed size during iteration", "keys changed during iteration"}


def test_endpoints_in_threads_talk_while_others_ask_for_their_statistics(bus: Bus) -> None:
    """Both event loops at a time, each in a thread of its own, and one that watches them all."""
    serving, seen, finished = threading.Event(), threading.Event(), threading.Event()
    endpoints: list[Any] = []

    def run(endpoint_class: Any, main: Callable[[Bus], Any]) -> Any:
        backend = "trio" if endpoint_class is TrioEndpoint else "asyncio"
        return anyio.run(main, Bus(endpoint_class, bus.directory), backend=backend)

    async def serve(own: Bus) -> None:
        async with own.serve("server") as endpoint:
            answer_questions(endpoint)
            endpoints.append(endpoint)
            serving.set()
            while not finished.is_set():  # noqa: ASYNC110 - it is another thread that sets it
                await anyio.sleep(0.01)

    async def ask(own: Bus) -> list[int]:
        async with own.connect(f"client of {own.endpoint_class.__name__}", "server") as endpoint:
            endpoints.append(endpoint)
            values = [(await endpoint.request(Question(value))).value for value in range(ROUNDS)]
            while not seen.is_set():  # noqa: ASYNC110 - the same
                await anyio.sleep(0.001)
            return values

    def ask_both() -> list[list[int]]:
        serving.wait()
        try:
            return at_once(*(lambda cls=each: run(cls, ask) for each in CLASSES))
        finally:
            finished.set()

    def watch() -> int:
        most = 0
        while not finished.is_set():
            for endpoint in endpoints:
                stats = endpoint.stats()
                assert EndpointStats.from_dict(stats.to_dict()) == stats
                most = max(most, len(stats.peers))
                if most:
                    seen.set()
        return most

    _, answers, most = at_once(lambda: run(bus.endpoint_class, serve), ask_both, watch)
    assert answers == [list(range(ROUNDS))] * 2
    assert 1 <= most <= 2
