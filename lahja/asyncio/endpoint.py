"""The endpoint for asyncio: what its event loop makes different, and nothing else."""

from __future__ import annotations

import asyncio
import functools
import math
import socket
import sys
import threading
from asyncio import _get_running_loop as running_loop
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from ..base import BaseEndpoint
from ..channels import Channel, ChannelOwner, MakeConnection
from ..exceptions import NoSuchAttribute
from .connection import AsyncioChannel, AsyncioWaiter

if TYPE_CHECKING:
    from ..typing import EndpointOptions, HasFileno

__all__ = ["AsyncioEndpoint", "TFunc"]

TFunc = TypeVar("TFunc", bound=Callable[..., Any])
"""The type of a method that is decorated."""


_NOWHERE: Any = object()

# Before 3.12 to ask for the running loop is to ask the system which process this is.
_RUNNING_KEY = "__asyncio_running_event_loop__" if sys.version_info < (3, 12) else None


class AsyncioEndpoint(BaseEndpoint):
    """
    Communicate by events, in an asyncio program.

    See :class:`lahja.base.BaseEndpoint` for the parameters, and :class:`lahja.base.EndpointAPI`
    for what every method promises.
    """

    def __init__(self, name: str, **options: Unpack[EndpointOptions]) -> None:
        super().__init__(name, **options)
        self._table.running_key = _RUNNING_KEY
        self._loop: asyncio.AbstractEventLoop = _NOWHERE  # where the endpoint runs, or ran
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = 0  # the one in which it runs

    @property
    def event_loop(self) -> asyncio.AbstractEventLoop:
        """
        The event loop in which the endpoint runs.

        :raise NoSuchAttribute: where it does not run
        """
        if not self._running:
            self._misused(NoSuchAttribute)
        return self._loop

    def _is_paused_here(self) -> bool:
        # As between two calls of run_until_complete(), where nothing else can be going on.
        return (
            self._running
            and running_loop() is None
            and not self._loop.is_running()
            and threading.get_ident() == self._thread
        )

    def check_event_loop(target: Any) -> Any:
        """
        Make sure that a method is called from the event loop of its endpoint.

        Called as a method, check it at once. As a decorator of a method, of a subclass for
        example, check it at each call.

        :raise LifecycleError: where it is called from elsewhere
        """
        if isinstance(target, AsyncioEndpoint):
            target._check()
            return None

        @functools.wraps(target)
        def checked(self: AsyncioEndpoint, *args: Any, **kwargs: Any) -> Any:
            self._check()
            return target(self, *args, **kwargs)

        return checked

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Self]:
        self._begin()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        try:
            yield self
        except BaseException as error:
            await self._leave(error)
            raise
        else:
            await self._leave(None)

    async def _leave(self, error: BaseException | None) -> None:
        try:
            await self._finish(error)
        finally:
            if not isinstance(error, GeneratorExit):  # then nothing may be awaited any more
                await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- What asyncio makes different --------------------------------------------------------

    current_loop = staticmethod(running_loop)

    @property
    def backend(self) -> str:
        return "uvloop" if type(self._loop).__module__.startswith("uvloop") else "asyncio"

    def make_waiter(self) -> AsyncioWaiter:
        return AsyncioWaiter(self._loop if self._running else asyncio.get_running_loop())

    def start_soon(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        if not self._running:
            return
        task = self._loop.create_task(function(*args))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cancel_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()

    def call_soon(self, function: Callable[[], None]) -> None:
        self._loop.call_soon(function)

    def call_soon_from_anywhere(self, function: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            pass  # the loop was closed: nobody gets events any more

    def call_later(self, seconds: float, function: Callable[[], None]) -> Callable[[], None]:
        return self._loop.call_later(seconds, function).cancel

    def time(self) -> float:
        return self._loop.time()

    def is_stray(self, error: BaseException) -> bool:
        task = asyncio.current_task()
        return isinstance(error, asyncio.CancelledError) and not (task and task.cancelling())

    async def checkpoint(self) -> None:
        await asyncio.sleep(0)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    @asynccontextmanager
    async def deadline(self, seconds: float) -> AsyncIterator[Callable[[], bool]]:
        scope = asyncio.timeout(None if math.isinf(seconds) else seconds)
        try:
            async with scope:
                yield scope.expired
        except TimeoutError:
            if not scope.expired():
                raise

    async def gather(self, functions: Iterable[Callable[[], Coroutine[Any, Any, None]]]) -> None:
        # Not by a TaskGroup: before Python 3.13 it may leave its caller marked as being cancelled.
        tasks = [self._loop.create_task(function()) for function in functions]
        if not tasks:
            return
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            failures = [error for task in done if (error := _failure_of(task)) is not None]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if failures:
            raise failures[0]

    def open_channel(
        self, sock: socket.socket, owner: ChannelOwner, make: MakeConnection
    ) -> Channel:
        return AsyncioChannel(self._loop, sock, owner, make)

    def watch_readable(self, thing: HasFileno, ready: Callable[[], float]) -> None:
        def look() -> None:
            pause = ready()
            if pause and thing.fileno() >= 0:
                self.unwatch_readable(thing)
                self.call_later(pause, resume)

        def resume() -> None:
            if self._running and thing.fileno() >= 0:
                self._loop.add_reader(thing.fileno(), look)

        resume()

    def unwatch_readable(self, thing: HasFileno) -> None:
        if thing.fileno() >= 0:  # a forked child has closed it
            self._loop.remove_reader(thing.fileno())


def _failure_of(task: asyncio.Task[None]) -> BaseException | None:
    return asyncio.CancelledError() if task.cancelled() else task.exception()
