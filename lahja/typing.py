"""Types that several parts of lahja, and programs that use it, share."""

from __future__ import annotations

from typing import Any, Protocol, TypedDict

from .common import RequestID

__all__ = ["ConditionAPI", "EndpointOptions", "EventAPI", "HasFileno", "LockAPI", "RequestID"]


class EndpointOptions(TypedDict, total=False):
    """
    Name the keyword parameters of everything that makes an endpoint.

    They are documented, with their defaults, at :class:`lahja.base.BaseEndpoint`.
    """

    connect_timeout: float
    drain_timeout: float
    stall_timeout: float | None
    hello_timeout: float
    high_water: int
    max_frame_size: int
    allow_pickle: bool
    allowed_uids: frozenset[int] | set[int] | tuple[int, ...]


class HasFileno(Protocol):
    """Describe what an event loop can wait for: a socket, for example."""

    def fileno(self) -> int:
        """Return the file descriptor, or -1 where it is closed."""


class LockAPI(Protocol):
    """Describe the lock of either event loop."""

    def locked(self) -> bool:
        """Return whether somebody holds the lock."""

    async def acquire(self) -> Any:
        """Wait for the lock and take it."""

    def release(self) -> None:
        """Give the lock back."""


class EventAPI(Protocol):
    """Describe the event flag of either event loop."""

    def is_set(self) -> bool:
        """Return whether the flag is set."""

    def set(self) -> None:
        """Set the flag and wake everybody who waits for it."""

    async def wait(self) -> Any:
        """Wait until the flag is set."""


class ConditionAPI(LockAPI, Protocol):
    """Describe the condition variable of either event loop."""

    async def wait(self) -> Any:
        """Wait until notified."""

    def notify_all(self) -> None:
        """Wake everybody who waits."""
