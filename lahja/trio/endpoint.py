"""The endpoint for trio: what its event loop makes different, and nothing else."""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Self, Unpack

import trio

from ..api import TResponse, TStreamEvent, TSubscribeEvent
from ..base import BaseEndpoint
from ..channels import Channel, ChannelOwner, MakeConnection
from .connection import TrioChannel, TrioWaiter

if TYPE_CHECKING:
    from ..typing import EndpointOptions, HasFileno

__all__ = ["TrioEndpoint"]


class TrioEndpoint(BaseEndpoint):
    """
    Communicate by events, in a trio program.

    See :class:`lahja.base.BaseEndpoint` for the parameters, and :class:`lahja.base.EndpointAPI`
    for what every method promises.
    """

    logger = logging.getLogger("lahja.trio.TrioEndpoint")

    TResponse = TResponse
    TStreamEvent = TStreamEvent
    TSubscribeEvent = TSubscribeEvent

    def __init__(self, name: str, **options: Unpack[EndpointOptions]) -> None:
        super().__init__(name, **options)
        self._token: trio.lowlevel.TrioToken | None = None  # of the run in which it runs
        self._nursery: trio.Nursery | None = None
        self._soon: deque[Callable[[], None]] = deque()
        self._caller: trio.lowlevel.Task | None = None  # while it has nothing to call
        self._watches: dict[HasFileno, trio.CancelScope] = {}

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Self]:
        self._begin()
        self._token = trio.lowlevel.current_trio_token()
        failure: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._call_what_is_due)
                try:
                    yield self
                except BaseException as error:
                    failure = error  # to be raised as itself, not by the nursery
                await self._finish(failure)
        except BaseException as error:
            failure = _besides_cancellation(error) or failure or error
        finally:
            self._close()
            self._token = None
        if failure is not None:
            raise failure

    async def _call_what_is_due(self) -> None:
        def abort(raise_cancel: Any) -> trio.lowlevel.Abort:
            self._caller = None
            return trio.lowlevel.Abort.SUCCEEDED

        while True:
            if self._soon:
                for _ in range(len(self._soon)):
                    self._soon.popleft()()
                await trio.lowlevel.checkpoint()
            else:
                self._caller = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(abort)

    # -- What trio makes different -----------------------------------------------------------

    @staticmethod
    def current_loop() -> object:
        try:
            return trio.lowlevel.current_trio_token()
        except RuntimeError:  # called from outside of trio
            return None

    @property
    def backend(self) -> str:
        return "trio"

    def make_waiter(self) -> TrioWaiter:
        return TrioWaiter()

    def start_soon(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        if self._running and self._nursery is not None:
            self._nursery.start_soon(function, *args)

    def cancel_tasks(self) -> None:
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    def call_soon(self, function: Callable[[], None]) -> None:
        self._soon.append(function)
        task, self._caller = self._caller, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    def call_soon_from_anywhere(self, function: Callable[[], None]) -> None:
        if self._token is not None:
            with suppress(trio.RunFinishedError):  # then nobody gets events any more
                self._token.run_sync_soon(function)

    def call_later(self, seconds: float, function: Callable[[], None]) -> Callable[[], None]:
        scope = trio.CancelScope()

        async def wait() -> None:
            with scope:
                await trio.sleep(seconds)
                function()

        self.start_soon(wait)
        return scope.cancel

    def time(self) -> float:
        return trio.current_time()

    def is_stray(self, error: BaseException) -> bool:
        return False  # no task of trio's is cancelled but by a scope around it

    async def checkpoint(self) -> None:
        await trio.lowlevel.checkpoint()

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    @asynccontextmanager
    async def deadline(self, seconds: float) -> AsyncIterator[Callable[[], bool]]:
        with trio.move_on_after(seconds) as scope:
            yield lambda: scope.cancelled_caught

    async def gather(self, functions: Iterable[Callable[[], Coroutine[Any, Any, None]]]) -> None:
        failure: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                for function in functions:
                    nursery.start_soon(function)
        except BaseExceptionGroup as group:
            failure = _besides_cancellation(group)
            if failure is None:
                raise
        if failure is not None:
            raise failure

    def open_channel(
        self, sock: socket.socket, owner: ChannelOwner, make: MakeConnection
    ) -> Channel:
        return TrioChannel(self.start_soon, sock, owner, make)

    def watch_readable(self, thing: HasFileno, ready: Callable[[], float]) -> None:
        scope = self._watches[thing] = trio.CancelScope()
        self.start_soon(self._wait_readable, thing, ready, scope)

    async def _wait_readable(
        self, thing: HasFileno, ready: Callable[[], float], scope: trio.CancelScope
    ) -> None:
        with scope:
            while not scope.cancel_called:
                await trio.lowlevel.wait_readable(thing.fileno())
                await trio.sleep(ready())

    def unwatch_readable(self, thing: HasFileno) -> None:
        self._watches.pop(thing).cancel()


def _besides_cancellation(error: BaseException) -> BaseException | None:
    """Return the first exception in a group that is not a cancellation, if there is one."""
    if isinstance(error, BaseExceptionGroup):
        found = (_besides_cancellation(each) for each in error.exceptions)
        return next((each for each in found if each is not None), None)
    return None if isinstance(error, trio.Cancelled) else error
