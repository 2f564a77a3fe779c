"""
What lahja asks of an event loop.

An endpoint has one object for it, and hands that on to its parts; each kind of event loop has a
class of its own. An endpoint class itself has nothing of it, so that those who derive from it may
give their methods any names.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import socket

    from .channels import Channel, ChannelOwner, MakeConnection
    from .flow import Gate
    from .typing import HasFileno

__all__ = ["EventLoop", "Scheduler", "Waiter"]


class Waiter(Protocol):
    """Suspend one task until somebody wakes it."""

    def wake(self) -> None:
        """Let the task go on; may be called before it waits, and more than once."""

    def wait(self) -> Awaitable[None]:
        """Return what is awaited, by the task that calls this, until it is woken."""


class Scheduler(Protocol):
    """Run things in the event loop of the endpoint: all that handlers need."""

    @abstractmethod
    def call_soon(self, function: Callable[[], None]) -> None:
        """Call the function in the loop's next turn, if the endpoint still runs then."""

    @abstractmethod
    def start_soon(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        """Start a task of the endpoint, which ends with it."""

    @abstractmethod
    def is_stray(self, error: BaseException) -> bool:
        """Return whether a cancellation came out of what was awaited, not from outside."""

    @abstractmethod
    async def checkpoint(self) -> None:
        """Give everybody else a turn."""


class EventLoop(Scheduler, Protocol):
    """Be the event loop of one endpoint, from :meth:`begin` to :meth:`end`."""

    is_active: bool = False
    """Whether the endpoint runs."""

    library: str = ""
    """What the event loop is one of: ``"asyncio"`` or ``"trio"``."""

    running_key: str | None = None
    """See ``running_key`` of the event table, in :mod:`lahja.framing`."""

    @staticmethod
    @abstractmethod
    def current() -> object:
        """Return the event loop that runs in this thread, or None."""

    @property
    def backend(self) -> str:
        """The name of the event loop's kind, as statistics have it."""
        return self.library

    @abstractmethod
    def begin(self) -> None:
        """
        Take note that the endpoint runs from now on, in the event loop that runs here.

        :raise RuntimeError: where none of the library does
        """

    @abstractmethod
    def end(self) -> None:
        """Start nothing any more, and cancel the tasks of the endpoint. Idempotent."""

    @abstractmethod
    def is_paused_here(self) -> bool:
        """Return whether nothing runs in this thread, not even the event loop that belongs here."""

    @abstractmethod
    def make_waiter(self) -> Waiter:
        """Return what suspends the running task."""

    @abstractmethod
    def call_soon_from_anywhere(self, function: Callable[[], None]) -> None:
        """Call it soon from a finalizer, which may run in any thread and at any moment."""

    @abstractmethod
    def call_later(self, seconds: float, function: Callable[[], None]) -> Callable[[], None]:
        """Call the function after some time, if the endpoint runs; return what cancels that."""

    @abstractmethod
    def time(self) -> float:
        """Return the time by the event loop's clock, in seconds."""

    @abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Wait for some time."""

    @abstractmethod
    def deadline(self, seconds: float) -> AbstractAsyncContextManager[Callable[[], bool]]:
        """
        Cancel what is in the context when the time is over; leaving it then raises nothing.

        The context is a function that returns whether it was cancelled.
        """

    @abstractmethod
    async def gather(self, functions: Iterable[Callable[[], Coroutine[Any, Any, None]]]) -> None:
        """Run the functions at the same time; where one fails, cancel the others and raise it."""

    @abstractmethod
    def open_channel(
        self, sock: socket.socket, owner: ChannelOwner, make: MakeConnection
    ) -> Channel:
        """Return the channel of this event loop for a connected socket."""

    @abstractmethod
    def watch_readable(self, thing: HasFileno, ready: Callable[[], float]) -> None:
        """Call the function when the thing is readable; it returns how long to pause then."""

    @abstractmethod
    def unwatch_readable(self, thing: HasFileno) -> None:
        """Call that function no more."""

    async def pass_gate(self, gate: Gate) -> None:
        """Wait until the gate is open."""
        if gate.is_open:
            return
        waiter = self.make_waiter()
        gate.wakers.append(waiter.wake)
        try:
            await waiter.wait()
        finally:
            if not gate.is_open:
                gate.wakers.remove(waiter.wake)
