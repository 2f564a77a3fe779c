"""
What the contract tests share: a few events, a bus within one process, and a peer made by hand.

All endpoints of a :class:`Bus` run in the event loop of the test, and talk through real sockets. A
:class:`RawPeer` writes and reads single frames, so that it can do what no endpoint would.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import anyio
import pytest
import trio

from lahja import BaseEvent, BaseRequestResponseEvent, ConnectionConfig, Stream, wire
from lahja.base import BaseEndpoint
from lahja.framing import Shape, decode_value, encode_value
from lahja.names import name_of
from lahja.protocol import control_frame

TEvent = TypeVar("TEvent", bound=BaseEvent)

# -- Events ----------------------------------------------------------------------------------


@dataclass
class Number(BaseEvent):
    """Be told from others of its kind."""

    value: int


@dataclass
class Text(BaseEvent):
    """Be of another type, and of any size."""

    text: str


class Marker(BaseEvent):
    """Follow what was sent before."""


@dataclass
class Answer(BaseEvent):
    """Be the response to a Question."""

    value: int


@dataclass
class BetterAnswer(Answer):
    """Be a response to a Question, too."""


@dataclass
class Question(BaseRequestResponseEvent[Answer]):
    """Ask for an Answer."""

    value: int

    @staticmethod
    def expected_response_type() -> type[Answer]:
        return Answer


# -- Endpoints -------------------------------------------------------------------------------


class Bus:
    """
    Make endpoints that can find each other.

    :param endpoint_class: their class
    :param directory: where their sockets are
    """

    def __init__(self, endpoint_class: type[BaseEndpoint], directory: Path) -> None:
        self.endpoint_class = endpoint_class
        self.directory = directory

    def config(self, name: str) -> ConnectionConfig:
        """Return where the endpoint of the name serves."""
        return ConnectionConfig.from_name(name, self.directory)

    def serve(self, name: str, **options: Any) -> AbstractAsyncContextManager[BaseEndpoint]:
        """Return a context in which an endpoint serves."""
        return self.endpoint_class.serve(self.config(name), **options)

    def join(self, name: str, **options: Any) -> AbstractAsyncContextManager[BaseEndpoint]:
        """Return a context in which an endpoint is connected to all that serve."""
        return self.endpoint_class.join(name, self.directory, **options)

    @asynccontextmanager
    async def run(self, name: str = "alone", **options: Any) -> AsyncIterator[BaseEndpoint]:
        """Run an endpoint that does not serve."""
        endpoint = self.endpoint_class(name, **options)
        async with endpoint.run():
            yield endpoint

    @asynccontextmanager
    async def connect(self, name: str, *others: str, **options: Any) -> AsyncIterator[BaseEndpoint]:
        """Run an endpoint that is connected to others, which serve."""
        endpoint = self.endpoint_class(name, **options)
        async with endpoint.run():
            await endpoint.connect_to_endpoints(*map(self.config, others))
            yield endpoint

    @asynccontextmanager
    async def pair(self, **options: Any) -> AsyncIterator[tuple[BaseEndpoint, BaseEndpoint]]:
        """Run ``server`` and ``client``, which is connected to it."""
        async with (
            self.serve("server", **options) as server,
            self.connect("client", "server", **options) as client,
        ):
            await server.wait_until_connected_to("client")
            yield server, client


def answer_questions(endpoint: BaseEndpoint) -> None:
    """Let an endpoint respond to every Question, by the value that it came with."""

    async def respond(question: Question) -> None:
        await endpoint.broadcast(Answer(question.value), question.broadcast_config())

    endpoint.subscribe(Question, respond)


async def take(stream: Stream[TEvent], count: int) -> list[TEvent]:
    """Return the next events of a stream."""
    return [await anext(stream) for _ in range(count)]


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds that nobody tells of."""
    while not condition():  # noqa: ASYNC110 - nobody would set an event
        await anyio.sleep(0.001)


async def turns(count: int) -> None:
    """Let the event loop turn a few times."""
    for _ in range(count):
        await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def heartbeat() -> AsyncIterator[list[int]]:
    """Count the turns of the event loop in the only element of a list."""
    beats = [0]

    async def beat() -> None:
        while True:
            beats[0] += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(beat)
        yield beats
        tasks.cancel_scope.cancel()


def living_tasks() -> int:
    """Return how many tasks there are in the running event loop."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return trio.lowlevel.current_statistics().tasks_living


async def collect_garbage() -> None:
    """Run all finalizers, and what they left to the event loop."""
    gc.collect()
    await turns(3)


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged at WARNING and above; asyncio's debug mode warns of slow machines."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= (logging.ERROR if record.name == "asyncio" else logging.WARNING)
    ]


# -- A peer made by hand ---------------------------------------------------------------------


class RawPeer:
    """
    Be the other end of a connection, frame by frame.

    :param sock: a connected socket
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.received = b""
        self._types: dict[type[BaseEvent], int] = {}

    async def send(self, *frames: bytes) -> None:
        """Send frames, or any other bytes."""
        data = b"".join(frames)
        while data:
            await anyio.wait_writable(self.socket)
            data = data[self.socket.send(data) :]

    async def read(self) -> tuple[int, bytes] | None:
        """Return kind and body of the next frame, or None where the connection is closed."""
        while (size := self._size_of_next()) is None:
            await anyio.wait_readable(self.socket)
            try:
                data = self.socket.recv(1 << 16)
            except BlockingIOError:
                continue
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self.received += data
        body, self.received = self.received[4:size], self.received[size:]
        return body[0], body

    def _size_of_next(self) -> int | None:
        if len(self.received) < 4:
            return None
        size: int = 4 + struct.unpack_from("<I", self.received)[0]
        return size if size <= len(self.received) else None

    async def read_kind(self, kind: int) -> bytes:
        """Return the next body of a kind; others are passed over."""
        while (frame := await self.read()) is not None:
            if frame[0] == kind:
                return frame[1]
        raise AssertionError(f"the connection was closed before any {wire.KIND_NAMES[kind]}")

    async def read_values(self, kind: int) -> tuple[Any, ...]:
        """Return what the next control frame of a kind holds; others are passed over."""
        values: tuple[Any, ...] = decode_value(await self.read_kind(kind), 1)[0]
        return values

    async def closed(self) -> None:
        """Wait until the other side has closed the connection."""
        while await self.read() is not None:
            pass

    async def hello(
        self,
        name: str = "raw",
        subscriptions: Mapping[type[BaseEvent], int | None] | None = None,
        **options: Any,
    ) -> None:
        """Introduce oneself, as the connecting side does."""
        names = {name_of(cls): window for cls, window in (subscriptions or {}).items()}
        instance = os.urandom(wire.INSTANCE_SIZE)
        await self.send(
            control_frame(wire.HELLO, wire.PROTOCOL_VERSION, name, instance, options),
            control_frame(wire.SUBSCRIBE, names, (), True),
        )

    async def subscribed(self) -> None:
        """Read what the other side says up to the end of its handshake."""
        while not (await self.read_values(wire.SUBSCRIBE))[2]:
            pass

    async def grant(self, event_type: type[BaseEvent], count: int) -> None:
        """Allow the other side to send further events of a type."""
        await self.send(control_frame(wire.CREDIT, name_of(event_type), count))

    async def announce(self, event: BaseEvent) -> int:
        """Announce the type of an event, once, and return its id."""
        if type(event) not in self._types:
            type_id = self._types[type(event)] = len(self._types)
            fields = tuple(name for name in vars(event) if name not in ("_origin", "_id"))
            shape = Shape(type_id, name_of(type(event)), wire.LAYOUT_FIELDS, fields)
            await self.send(shape.announcement)
        return self._types[type(event)]

    async def send_event(
        self, event: BaseEvent, kind: int = wire.EVENT, request_id: bytes = b""
    ) -> None:
        """Send an event whose attributes are plain values."""
        type_id = await self.announce(event)
        fields = [value for name, value in vars(event).items() if name not in ("_origin", "_id")]
        payload = bytes((wire.PLAIN,)) + b"".join(map(encode_value, fields))
        await self.send(raw_frame(kind, struct.pack("<I", type_id) + request_id + payload))


def raw_frame(kind: int, rest: bytes = b"") -> bytes:
    """Return a frame of any kind."""
    return struct.pack("<IB", len(rest) + 1, kind) + rest


@contextlib.contextmanager
def raw_connection(path: Path) -> Iterator[RawPeer]:
    """Connect to a server at a path."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        yield RawPeer(sock)


@asynccontextmanager
async def raw_peer(
    endpoint: BaseEndpoint,
    name: str = "raw",
    subscriptions: Mapping[type[BaseEvent], int | None] | None = None,
    **options: Any,
) -> AsyncIterator[RawPeer]:
    """Be connected to an endpoint that serves, with the handshake done."""
    with raw_connection(endpoint.ipc_path) as peer:
        await peer.hello(name, subscriptions, **options)
        await peer.subscribed()
        await endpoint.wait_until_connected_to(name)
        yield peer


@asynccontextmanager
async def raw_observer(
    endpoint: BaseEndpoint, name: str = "observer", *patterns: str, **options: Any
) -> AsyncIterator[RawPeer]:
    """Observe an endpoint that serves, with the handshake done."""
    with raw_connection(endpoint.ipc_path) as peer:
        before = endpoint.stats().observers
        await peer.hello(name, observe=True, **options)
        await peer.subscribed()
        assert endpoint.stats().observers == before + 1
        if patterns:
            await peer.send(control_frame(wire.SUBSCRIBE, dict.fromkeys(patterns), (), True))
            await peer.send(control_frame(wire.ASK_STATS, 0))
            await peer.read_kind(wire.STATS)  # it has seen the patterns by now
        yield peer


class RawServer:
    """
    Listen where an endpoint would, and accept one connection after the other.

    :param path: where to listen
    :param backlog: how many connections may wait
    """

    def __init__(self, path: Path, backlog: int = 16) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.setblocking(False)
        self.socket.bind(str(path))
        self.socket.listen(backlog)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.socket.close()

    async def accept(self) -> RawPeer:
        """Return the next connection; whoever gets it closes its socket."""
        await anyio.wait_readable(self.socket)
        return RawPeer(self.socket.accept()[0])
