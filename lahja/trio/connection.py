"""What trio makes of a socket, and of a task that waits."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from ..channels import Channel, ChannelOwner, MakeConnection

__all__ = ["TrioChannel", "TrioWaiter"]

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
