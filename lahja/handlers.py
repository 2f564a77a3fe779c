"""
Subscribed handlers: functions, coroutine functions, or anything else that can be called.

A handler gets its events one after the other. As long as it returns at once it is called where the
event is received, without a task; if it returns an awaitable, later events wait until that is done.
Events that its own endpoint broadcasts reach it in the event loop's next turn, so that handlers
which broadcast cannot nest without end. They are numbered, so that an endpoint that leaves knows
which of its own broadcasts are still to be handled.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from .counting import TURN_SECONDS, Stopwatch
from .flow import Gate

if TYPE_CHECKING:
    from .loops import Scheduler

__all__ = ["Handler"]

_EVENTS_PER_TURN = 64


class Handler:
    """
    Be one subscription.

    :param function: called with each event
    :param scheduler: the event loop
    :param logger: where exceptions of the function are reported
    :param owner: the name of the endpoint
    :param stopwatch: takes the time of the function; started before events are delivered
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        scheduler: Scheduler,
        logger: logging.Logger,
        owner: str,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        self.slowest = 0.0  # seconds that one event took at most, until it was awaited
        self.peak = 0  # the most events that ever waited
        self.failures = 0
        self._stopwatch = Stopwatch() if stopwatch is None else stopwatch
        self._begun: float | None = None  # when the function began with what is awaited
        self._function = self._given = function
        self._scheduler = scheduler
        self._logger = logger
        self._owner = owner
        self._waiting: deque[Any] = deque()
        self._busy = False
        self._active = True
        self._queued = self._taken = self._done = 0  # the last event that waited, and what of it
        self._own = 0  # the last of them that the endpoint itself broadcast
        self._finished: Gate | None = None  # opens once that one is done
        self._unstarted: Awaitable[Any] | None = None  # what a task was started for

    def deliver(self, event: Any, local: bool) -> None:
        """Call the function with the event, now or when its turn comes."""
        if not self._active:
            return
        if self._busy or local:
            self._wait(event)
            if local:
                self._own = self._queued
            return
        self._busy = True
        is_awaitable = False
        try:
            result = self._function(event)
            is_awaitable = result is not None and inspect.isawaitable(result)
        except BaseException as error:
            if not self._is_failure(error):  # as where a handler is interrupted from the keyboard
                self._go_on()
                raise
            self._report(event, error)
        stopwatch = self._stopwatch
        if is_awaitable:
            self._begun = stopwatch.last
            self._start(event, result)
            return
        if stopwatch.is_on:
            # One look at the clock for each: it began when what was called before it ended.
            begun = stopwatch.last
            now = stopwatch.last = stopwatch.clock()
            if now - begun > self.slowest:
                self.slowest = now - begun
        if self._waiting:
            self._go_on()
        else:
            self._busy = False

    @property
    def function(self) -> Callable[[Any], Any]:
        """What was subscribed."""
        return self._given

    def wrap(self, call: Callable[[Callable[[Any], Any], Any], Any]) -> None:
        """Let something else call the function: it gets that, and the event."""
        self._function = functools.partial(call, self._given)

    @property
    def waiting(self) -> int:
        """How many events wait for their turn."""
        return len(self._waiting)

    @property
    def busy_for(self) -> float:
        """Seconds since the function began with the event that it awaits; 0.0 where it does not."""
        begun = self._begun
        return 0.0 if begun is None else self._stopwatch.clock() - begun

    @property
    def unfinished(self) -> int:
        """How many events are to be done up to the last one that the endpoint itself broadcast."""
        return max(0, self._own - self._done) if self._active else 0

    def finishing(self) -> Gate:
        """Return what opens once these are done, where there are some."""
        self._finished = Gate()
        return self._finished

    def stop(self) -> None:
        """Call the function no more."""
        self._active = False
        self._waiting.clear()
        self._say_if_finished()
        unstarted, self._unstarted = self._unstarted, None
        if isinstance(unstarted, Coroutine):
            unstarted.close()

    def _wait(self, event: Any) -> None:
        """Let the event wait for its turn."""
        self._queued += 1
        self._waiting.append(event)
        self.peak = max(self.peak, len(self._waiting))
        if not self._busy:
            self._busy = True
            self._scheduler.call_soon(self._resume)

    def _go_on(self) -> None:
        """Let the events that wait follow in the event loop's next turn."""
        if self._waiting:
            self._scheduler.call_soon(self._resume)
        else:
            self._busy = False

    def _resume(self) -> None:
        awaitable = None
        clock = self._stopwatch.clock
        ends = clock() + TURN_SECONDS
        try:
            for _ in range(_EVENTS_PER_TURN):
                if not self._waiting:
                    break
                event = self._take()
                awaitable = self._begin(event)
                if awaitable is not None:
                    self._start(event, awaitable)
                    break
                if clock() >= ends:
                    break
        finally:
            if awaitable is None:
                self._go_on()

    def _take(self) -> Any:
        """Return the event whose turn it is."""
        self._taken += 1
        return self._waiting.popleft()

    def _begin(self, event: Any) -> Awaitable[Any] | None:
        """Call the function; return what is left to be awaited."""
        clock = self._stopwatch.clock
        begun = clock()
        result = None
        try:
            result = self._function(event)
        except BaseException as error:
            if not self._is_failure(error):
                raise
            self._report(event, error)
        if result is not None and inspect.isawaitable(result):
            self._begun = begun
            return result
        self.slowest = max(self.slowest, clock() - begun)
        self._done = self._taken
        self._say_if_finished()
        return None

    def _ended(self) -> None:
        """Take note that what was awaited is over."""
        self.slowest = max(self.slowest, self.busy_for)
        self._begun = None
        self._done = self._taken
        self._say_if_finished()

    def _say_if_finished(self) -> None:
        if self._finished is not None and not self.unfinished:
            finished, self._finished = self._finished, None
            finished.open()

    def _start(self, event: Any, awaitable: Awaitable[Any]) -> None:
        self._unstarted = awaitable
        self._scheduler.start_soon(self._await, event)

    async def _await(self, event: Any) -> None:
        remaining, self._unstarted = self._unstarted, None
        try:
            await self._await_all(event, remaining)
        finally:  # also where a handler cancels the task
            self._ended()
            self._go_on()

    async def _await_all(self, event: Any, remaining: Awaitable[Any] | None) -> None:
        """Finish one event after the other, until none waits."""
        turns = 0
        clock = self._stopwatch.clock
        ends = clock() + TURN_SECONDS
        while True:
            if remaining is not None:
                try:
                    await remaining
                except BaseException as error:
                    if not self._is_failure(error):
                        raise
                    self._report(event, error)
                self._ended()
            turns += 1
            if self._waiting and (turns % _EVENTS_PER_TURN == 0 or clock() >= ends):
                await self._scheduler.checkpoint()
                ends = clock() + TURN_SECONDS
            if not self._waiting:
                return
            event = self._take()
            remaining = self._begin(event)

    def _is_failure(self, error: BaseException) -> bool:
        """Return whether it is the handler's own, and nothing that is meant for its task."""
        return isinstance(error, Exception) or self._scheduler.is_stray(error)

    def _report(self, event: Any, error: BaseException) -> None:
        self.failures += 1
        self._logger.error(
            "%s: handler %r failed with an event of type %s",
            self._owner,
            self._function,
            type(event).__qualname__,
            exc_info=error,
        )
