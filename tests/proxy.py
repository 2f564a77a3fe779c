"""
Two ways to stand between two endpoints, and to spoil what they say to each other.

A :class:`Link` joins two endpoints without any I/O: each :class:`Side` is a router and its
connection, and bytes are handed over by a function call, so that thousands of conversations take
seconds. A :class:`Proxy` does the same between real endpoints, on real sockets.

What is spoiled, and where, is a :class:`Spoiler`: a byte of one direction, counted from the
beginning of the conversation, and what happens there.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import anyio
import anyio.abc

from lahja import wire
from lahja.exceptions import ProtocolError
from lahja.framing import Mailbox
from lahja.protocol import Connection, State
from lahja.routing import Router

__all__ = ["FORWARD", "BACKWARD", "Link", "Proxy", "Side", "Spoiler", "ended_well"]

FORWARD = 0
"""From the side that connects."""

BACKWARD = 1
"""From the side that is connected to."""


@dataclass
class Spoiler:
    """
    Spoil the bytes of one direction.

    ``cut`` ends the conversation before the byte, ``stall`` holds back everything from it on until
    :meth:`release`, ``flip`` changes it, ``drop`` leaves it out, ``repeat`` sends it twice.
    """

    direction: int = FORWARD
    position: int = 1 << 62
    how: Literal["cut", "stall", "flip", "drop", "repeat"] = "cut"
    mask: int = 0xFF
    counts: list[int] = field(default_factory=lambda: [0, 0])
    is_cut: bool = False
    is_stalled: bool = False
    held: bytes = b""

    def pass_on(self, direction: int, data: bytes) -> bytes:
        """Return what arrives of some bytes."""
        at = self.position - self.counts[direction]
        self.counts[direction] += len(data)
        if direction != self.direction:
            return data
        if self.is_stalled:
            self.held += data
            return b""
        if not 0 <= at < len(data):
            return data
        before, byte, after = data[:at], data[at : at + 1], data[at + 1 :]
        if self.how == "cut":
            self.is_cut = True
            return before
        if self.how == "stall":
            self.is_stalled = True
            self.held = byte + after
            return before
        if self.how == "flip":
            byte = bytes((byte[0] ^ self.mask,))
        return before + byte * {"flip": 1, "drop": 0, "repeat": 2}[self.how] + after

    def release(self) -> bytes:
        """Stall no more; return what was held back."""
        self.is_stalled, self.position = False, 1 << 62
        held, self.held = self.held, b""
        return held


class _Lines(logging.Handler):
    """Keep what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


class Side:
    """
    Be an endpoint without I/O: a router, and at most one connection.

    :param name: the name of the endpoint
    :param options: those of the router
    """

    def __init__(
        self, name: str, allow_pickle: bool = True, max_frame_size: int = wire.MAX_FRAME_SIZE
    ) -> None:
        self._lines = _Lines()
        logger = logging.Logger(name, logging.WARNING)  # noqa: LOG001 - of this side alone
        logger.addHandler(self._lines)
        self.router = Router(name, allow_pickle, max_frame_size, logger)
        self.connection: Connection | None = None
        self.error: ProtocolError | None = None
        self.mailboxes: dict[type, Mailbox] = {}
        self.received: list[Any] = []  # events of the other side, in their order
        self.own: list[Any] = []  # events that it broadcast itself

    @property
    def lines(self) -> list[str]:
        """What was logged, at WARNING or above."""
        return [record.getMessage() for record in self._lines.records]

    def subscribe(self, *types: type) -> None:
        """Keep the events of some types."""
        for cls in types:
            self.router.add_consumer(self.router.table.topic(cls), self)

    def unsubscribe(self, *types: type) -> None:
        """Keep them no more."""
        for cls in types:
            self.router.remove_consumer(self.router.table.topic(cls), self)

    def deliver(self, event: Any, local: bool) -> None:
        """Keep an event."""
        (self.own if local else self.received).append(event)

    def open(self, to: str | None = None, high_water: int = 1 << 20) -> Connection:
        """Begin a connection; to a name, where this is the connecting side."""
        router = self.router
        connection = Connection(
            router, router.hello, router.own_subscriptions, lambda: None, high_water, to
        )
        self.connection, self.error = connection, None
        if to is not None:
            router.connecting[to] = connection
            connection.start()
        return connection

    def said(self) -> bytes:
        """Take what this side has to say."""
        assert self.connection is not None  # nobody asks before
        outlet = self.connection.outlet
        data = b"".join(outlet.take())
        outlet.size = 0
        self.router.written(outlet)
        return data

    def hear(self, data: bytes) -> None:
        """Take what the other side said."""
        connection = self.connection
        assert connection is not None  # nobody speaks before
        view = memoryview(data)
        while view and not connection.ended:
            room = connection.reader.get_buffer()
            count = min(len(room), len(view))
            room[:count] = view[:count]
            room.release()
            view = view[count:]
            try:
                connection.receive(count)
            except ProtocolError as error:
                self._end(error)
        if connection.state in (State.LEFT, State.REFUSED):
            self._end(None)

    def lose(self) -> None:
        """Take note that the other side is gone."""
        connection = self.connection
        if connection is None:
            return
        try:
            connection.end()
        except ProtocolError as error:
            self._end(error)
        else:
            self._end(None)

    def _end(self, error: ProtocolError | None) -> None:
        connection = self.connection
        if connection is not None:
            if self.error is None:
                self.error = error
            if connection.to is not None:
                self.router.connecting.pop(connection.to, None)
            self.router.remove(connection)
            if connection.state is not State.REFUSED:
                self.connection = None


class Link:
    """
    Join two sides.

    :param client: the one that connects
    :param server: the one that is connected to
    :param spoiler: what happens on the way
    """

    def __init__(self, client: Side, server: Side, spoiler: Spoiler | None = None) -> None:
        self.client = client
        self.server = server
        self.spoiler = spoiler or Spoiler()
        self.recorded: list[tuple[int, bytes]] = []
        server.open()
        client.open(server.router.name)

    @property
    def is_open(self) -> bool:
        """Whether both sides have a connection."""
        return self.client.connection is not None and self.server.connection is not None

    def carry(self) -> None:
        """Let both sides talk until neither has anything to say."""
        ways = ((FORWARD, self.client, self.server), (BACKWARD, self.server, self.client))
        said_something = True
        while said_something and self.is_open and not self.spoiler.is_cut:
            said_something = False
            for direction, source, target in ways:
                if source.connection is None or target.connection is None:
                    break
                data = source.said()
                if not data:
                    continue
                said_something = True
                self.recorded.append((direction, data))
                arrived = self.spoiler.pass_on(direction, data)
                if arrived:
                    target.hear(arrived)
                if self.spoiler.is_cut:
                    break
        if self.spoiler.is_cut or not self.is_open:
            self.hang_up()

    def release(self) -> None:
        """Let what was held back arrive."""
        target = self.server if self.spoiler.direction == FORWARD else self.client
        data = self.spoiler.release()
        if data and target.connection is not None:
            target.hear(data)
        self.carry()

    def hang_up(self) -> None:
        """End the conversation without a word."""
        self.client.lose()
        self.server.lose()


def ended_well(router: Router) -> bool:
    """Return whether nothing is left of any peer of a router."""
    return not (
        router.peers
        or router.connecting
        or router.pending
        or router._connections
        or router._interest
        or router.gates
        or len(router.observed_by)
        or router.observed_by.taps
        or router.observed_by.shut
        or any(
            topic.outlets or topic.windows for topics in router._topics.values() for topic in topics
        )
    )


class Proxy:
    """
    Stand between real endpoints.

    :param path: where it listens
    :param target: where the endpoint really is
    """

    def __init__(self, path: Path, target: Path) -> None:
        self.path = path
        self.target = target
        self.spoiler = Spoiler()
        self.connections = 0
        self._released = anyio.Event()
        self._tasks: anyio.abc.TaskGroup
        self._listener = socket.socket(socket.AF_UNIX)

    @classmethod
    @asynccontextmanager
    async def between(cls, path: Path, target: Path) -> AsyncIterator[Proxy]:
        """Run a proxy that spoils nothing yet."""
        proxy = cls(path, target)
        with proxy._listener as listener:
            listener.setblocking(False)
            listener.bind(str(path))
            listener.listen()
            async with anyio.create_task_group() as proxy._tasks:
                proxy._tasks.start_soon(proxy._accept)
                yield proxy
                proxy._tasks.cancel_scope.cancel()

    def spoil(self, spoiler: Spoiler) -> None:
        """Spoil the next connection."""
        self.spoiler = spoiler
        self._released = anyio.Event()

    def release(self) -> None:
        """Let what was stalled go on."""
        self._released.set()

    async def _accept(self) -> None:
        while True:
            await anyio.wait_readable(self._listener)
            with contextlib.suppress(BlockingIOError):
                near = self._listener.accept()[0]
                self.connections += 1
                spoiler, self.spoiler = self.spoiler, Spoiler()  # each is used once
                self._tasks.start_soon(self._connect, near, spoiler)

    async def _connect(self, near: socket.socket, spoiler: Spoiler) -> None:
        with near, socket.socket(socket.AF_UNIX) as far:
            near.setblocking(False)
            far.setblocking(False)
            far.connect(str(self.target))
            async with anyio.create_task_group() as pumps:
                stop = pumps.cancel_scope.cancel
                pumps.start_soon(self._pump, near, far, FORWARD, spoiler, stop)
                pumps.start_soon(self._pump, far, near, BACKWARD, spoiler, stop)

    async def _pump(
        self,
        source: socket.socket,
        target: socket.socket,
        direction: int,
        spoiler: Spoiler,
        stop: Callable[[], None],
    ) -> None:
        try:
            while not spoiler.is_cut:
                await anyio.wait_readable(source)
                try:
                    data = source.recv(1 << 16)
                except BlockingIOError:
                    continue
                if not data:
                    break
                await self._write(target, spoiler.pass_on(direction, data))
                if spoiler.is_stalled and direction == spoiler.direction:
                    await self._released.wait()
                    await self._write(target, spoiler.release())
        except OSError:
            pass  # one of the two has closed it
        stop()

    async def _write(self, target: socket.socket, data: bytes) -> None:
        while data:
            await anyio.wait_writable(target)
            data = data[target.send(data) :]
