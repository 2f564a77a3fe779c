"""What asyncio makes of a socket, and of a task that waits."""

from __future__ import annotations

import asyncio
import socket

from ..channels import Channel, ChannelOwner, MakeConnection

__all__ = ["AsyncioChannel", "AsyncioWaiter"]


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
