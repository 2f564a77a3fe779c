"""What asyncio makes of a socket, of a task that waits, and of all else that lahja asks it for."""

from __future__ import annotations

import asyncio
import math
import socket
import sys
import threading
from asyncio import _get_running_loop as running_loop
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from ..channels import Channel, ChannelOwner, MakeConnection
from ..loops import EventLoop

if TYPE_CHECKING:
    from ..typing import HasFileno

__all__ = ["AsyncioChannel", "AsyncioLoop", "AsyncioWaiter"]

_NOWHERE: Any = object()


class AsyncioWaiter:
    """Suspend one task until somebody wakes it."""

    __slots__ = ("_future",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._future: asyncio.Future[None] = loop.create_future()

    def wake(self) -> None:
        """Let the task go on; may be called before it waits, and more than once."""
        if not self._future.done():
            self._future.set_result(None)

    def wait(self) -> asyncio.Future[None]:
        """Return what is awaited until woken."""
        return self._future


class AsyncioChannel(Channel):
    """Watch a socket by the event loop's readers and writers."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        owner: ChannelOwner,
        make: MakeConnection,
    ) -> None:
        super().__init__(sock, owner, make)
        self._loop = loop
        self._descriptor = sock.fileno()
        self._is_watching = False  # whether the loop says when the socket takes more

    def watch_readable(self) -> None:
        self._loop.add_reader(self._descriptor, self.on_readable)

    def watch_writable(self) -> None:
        if not self._is_watching:
            self._is_watching = True
            self._loop.add_writer(self._descriptor, self._on_writable)

    def _on_writable(self) -> None:
        self.on_writable()
        if not (self.blocked or self.closed):
            self._is_watching = False
            self._loop.remove_writer(self._descriptor)

    def release(self) -> None:
        self._loop.remove_reader(self._descriptor)
        self._loop.remove_writer(self._descriptor)


class AsyncioLoop(EventLoop):
    """Be asyncio's event loop, or uvloop, for one endpoint."""

    library = "asyncio"

    # Before 3.12 to ask for the running loop is to ask the system which process this is.
    running_key = "__asyncio_running_event_loop__" if sys.version_info < (3, 12) else None

    def __init__(self) -> None:
        self.event_loop: asyncio.AbstractEventLoop = _NOWHERE  # in which it runs, or ran
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = 0  # the one in which it runs

    current = staticmethod(running_loop)

    @property
    def backend(self) -> str:
        return "uvloop" if type(self.event_loop).__module__.startswith("uvloop") else self.library

    def begin(self) -> None:
        self.event_loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self.is_active = True

    def end(self) -> None:
        self.is_active = False
        for task in self._tasks:
            task.cancel()

    async def wait_ended(self) -> None:
        """Wait until the tasks are over that were cancelled."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def is_paused_here(self) -> bool:
        # As between two calls of run_until_complete(), where nothing else can be going on.
        return (
            self.is_active
            and running_loop() is None
            and not self.event_loop.is_running()
            and threading.get_ident() == self._thread
        )

    def make_waiter(self) -> AsyncioWaiter:
        return AsyncioWaiter(self.event_loop if self.is_active else asyncio.get_running_loop())

    def start_soon(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        if not self.is_active:
            return
        task = self.event_loop.create_task(function(*args))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def call_soon(self, function: Callable[[], None]) -> None:
        self.event_loop.call_soon(function)

    def call_soon_from_anywhere(self, function: Callable[[], None]) -> None:
        try:
            self.event_loop.call_soon_threadsafe(function)
        except RuntimeError:
            pass  # the loop was closed: nobody gets events any more

    def call_later(self, seconds: float, function: Callable[[], None]) -> Callable[[], None]:
        return self.event_loop.call_later(seconds, function).cancel

    def time(self) -> float:
        return self.event_loop.time()

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
        tasks = [self.event_loop.create_task(function()) for function in functions]
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
        return AsyncioChannel(self.event_loop, sock, owner, make)

    def watch_readable(self, thing: HasFileno, ready: Callable[[], float]) -> None:
        def look() -> None:
            pause = ready()
            if pause and thing.fileno() >= 0:
                self.unwatch_readable(thing)
                self.call_later(pause, resume)

        def resume() -> None:
            if self.is_active and thing.fileno() >= 0:
                self.event_loop.add_reader(thing.fileno(), look)

        resume()

    def unwatch_readable(self, thing: HasFileno) -> None:
        if thing.fileno() >= 0:  # a forked child has closed it
            self.event_loop.remove_reader(thing.fileno())


def _failure_of(task: asyncio.Task[None]) -> BaseException | None:
    return asyncio.CancelledError() if task.cancelled() else task.exception()
