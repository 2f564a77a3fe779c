"""What trio makes of a socket, of a task that waits, and of all else that lahja asks it for."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import trio

from ..channels import Channel, ChannelOwner, MakeConnection
from ..loops import EventLoop

if TYPE_CHECKING:
    from ..typing import HasFileno

__all__ = ["TrioChannel", "TrioLoop", "TrioWaiter", "besides_cancellation"]

_StartSoon = Callable[..., None]


class TrioWaiter:
    """Suspend one task until somebody wakes it."""

    __slots__ = ("_is_woken", "_task")

    def __init__(self) -> None:
        self._is_woken = False
        self._task: trio.lowlevel.Task | None = None

    def wake(self) -> None:
        """Let the task go on; may be called before it waits, and more than once."""
        self._is_woken = True
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    def wait(self) -> Awaitable[None]:
        """Return what is awaited until woken."""
        if self._is_woken:
            return trio.lowlevel.cancel_shielded_checkpoint()  # noqa: ASYNC105 - who waits does
        self._task = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(self._abort)  # noqa: ASYNC105

    def _abort(self, raise_cancel: Any) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


class TrioChannel(Channel):
    """Watch a socket by one task that reads, and another one while the system takes no more."""

    def __init__(
        self,
        start_soon: _StartSoon,
        sock: socket.socket,
        owner: ChannelOwner,
        make: MakeConnection,
    ) -> None:
        super().__init__(sock, owner, make)
        self._start_soon = start_soon
        self._has_writer = False  # whether the other task is there

    def watch_readable(self) -> None:
        self._start_soon(self._read)

    async def _read(self) -> None:
        while not self.closed:
            try:
                await trio.lowlevel.wait_readable(self.socket.fileno())
            except trio.ClosedResourceError:
                return
            self.on_readable()

    def watch_writable(self) -> None:
        if not self._has_writer:
            self._has_writer = True
            self._start_soon(self._wait_writable)

    async def _wait_writable(self) -> None:
        while self.blocked and not self.closed:
            try:
                await trio.lowlevel.wait_writable(self.socket.fileno())
            except trio.ClosedResourceError:
                return
            self.on_writable()
        self._has_writer = False

    def release(self) -> None:
        trio.lowlevel.notify_closing(self.socket.fileno())


class TrioLoop(EventLoop):
    """Be trio's event loop for one endpoint, whose tasks are in a nursery."""

    library = "trio"

    def __init__(self) -> None:
        self._token: trio.lowlevel.TrioToken | None = None  # of the run in which it runs
        self._nursery: trio.Nursery | None = None
        self._soon: deque[Callable[[], None]] = deque()
        self._caller: trio.lowlevel.Task | None = None  # while it has nothing to call
        self._watches: dict[HasFileno, trio.CancelScope] = {}

    @staticmethod
    def current() -> object:
        try:
            return trio.lowlevel.current_trio_token()
        except RuntimeError:  # called from outside of trio
            return None

    def begin(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self.is_active = True

    def live_in(self, nursery: trio.Nursery) -> None:
        """Start all tasks there, from now on."""
        self._nursery = nursery
        nursery.start_soon(self._call_what_is_due)

    def end(self) -> None:
        self.is_active = False
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()
        self._token = None

    def is_paused_here(self) -> bool:
        return False  # trio runs until everything is over

    def make_waiter(self) -> TrioWaiter:
        return TrioWaiter()

    def start_soon(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        if self.is_active and self._nursery is not None:
            self._nursery.start_soon(function, *args)

    def call_soon(self, function: Callable[[], None]) -> None:
        self._soon.append(function)
        task, self._caller = self._caller, None
        if task is not None:
            trio.lowlevel.reschedule(task)

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
            failure = besides_cancellation(group)
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


def besides_cancellation(error: BaseException) -> BaseException | None:
    """Return the first exception in a group that is not a cancellation, if there is one."""
    if isinstance(error, BaseExceptionGroup):
        found = (besides_cancellation(each) for each in error.exceptions)
        return next((each for each in found if each is not None), None)
    return None if isinstance(error, trio.Cancelled) else error
