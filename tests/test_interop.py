"""
Processes that differ share one bus: in their event loop, their framing, and in having snappy.

The same conversation is held in all cases. Each participant sends every other one events of plain
and of pickled values, small and large, and asks it questions; each checks all that it gets, and
none leaves before the others have finished. What compression does to the bytes is read from a relay
between two of them.
"""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import permutations
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
from framing_helpers import HAS_COMPILED
from process_helpers import BACKENDS, Worker, backend_name, calling, endpoint_class, run_on

import lahja.framing
from lahja import BaseEvent, BaseRequestResponseEvent, BroadcastConfig, ConnectionConfig, wire
from lahja.base import EndpointAPI

pytestmark = pytest.mark.anyio

NOTES = 80
QUESTIONS = 10
COMPRESSIBLE = b"lahja " * 20_000
INCOMPRESSIBLE = random.Random(1).randbytes(100_000)
VALUES = (
    None,
    "text",
    [1, 2.5, {"key": (True, b"\0")}],
    Decimal("1.20"),
    {"pickled": {Decimal(3), Path("folder")}},
    COMPRESSIBLE,
    INCOMPRESSIBLE,
    [Decimal(4), COMPRESSIBLE],
)


@dataclass
class Note(BaseEvent):
    number: int
    value: Any


@dataclass
class Answer(BaseEvent):
    text: str


@dataclass
class Question(BaseRequestResponseEvent[Answer]):
    text: str

    @staticmethod
    def expected_response_type() -> type[Answer]:
        return Answer


@dataclass
class Done(BaseEvent):
    pass


async def converse(endpoint: EndpointAPI, *others: str) -> None:
    """Hold the conversation with endpoints that are connected, or will connect."""
    notes = endpoint.stream(Note, num_events=NOTES * len(others))
    done = endpoint.stream(Done, num_events=len(others))

    async def answer(question: Question) -> None:
        text = f"{endpoint.name}: {question.text}"
        await endpoint.broadcast(Answer(text), question.broadcast_config())

    endpoint.subscribe(Question, answer)
    for other in others:
        for event_type in (Note, Done, Question):
            await endpoint.wait_until_endpoint_subscribed_to(other, event_type)
    to_others = [BroadcastConfig(filter_endpoint=other) for other in others]
    async with anyio.create_task_group() as tasks:

        async def send() -> None:
            for number in range(NOTES):
                for config in to_others:
                    await endpoint.broadcast(Note(number, VALUES[number % len(VALUES)]), config)

        async def ask() -> None:
            for number in range(QUESTIONS):
                for config in to_others:
                    response = await endpoint.request(Question(f"{number}?"), config)
                    assert response == Answer(f"{config.filter_endpoint}: {number}?")
                    assert response.get_origin() == config.filter_endpoint

        tasks.start_soon(send)
        tasks.start_soon(ask)
        numbers = dict.fromkeys(others, 0)
        async for note in notes:
            number = numbers[note.get_origin()]
            numbers[note.get_origin()] += 1
            assert note == Note(number, VALUES[number % len(VALUES)])
    assert set(numbers.values()) == {NOTES}
    for config in to_others:
        await endpoint.broadcast(Done(), config)
    assert sorted([event.get_origin() async for event in done]) == sorted(others)


def _take_part(
    backend: str, name: str, folder: str, others: str, framing: str, has_snappy: str
) -> None:
    """Serve, connect to those of the others that come before in the alphabet, and converse."""
    assert framing == lahja.framing.IMPLEMENTATION
    assert lahja.AsyncioEndpoint.has_snappy_support is (has_snappy == "snappy")

    async def take_part() -> None:
        async with endpoint_class(backend).serve(
            ConnectionConfig.from_name(name, Path(folder))
        ) as endpoint:
            for other in filter(name.__gt__, others.split()):
                config = ConnectionConfig.from_name(other, Path(folder))
                await endpoint.connect_to_endpoints(config)
            await converse(endpoint, *others.split())

    run_on(backend, take_part)


def _participant(
    backend: str,
    name: str,
    folder: Path,
    *others: str,
    framing: str = lahja.framing.IMPLEMENTATION,
    has_snappy: bool = True,
) -> Worker:
    """Return a process that takes part in the conversation."""
    snappy = "snappy" if has_snappy else "no snappy"
    arguments = (backend, name, str(folder), " ".join(others), framing, snappy)
    without = None if has_snappy else "snappy"
    return Worker(
        *calling(_take_part, *arguments, without=without), environment={"LAHJA_FRAMING": framing}
    )


# -- Event loops -----------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(permutations(BACKENDS))[::5], ids=" ".join)
def test_different_event_loops_share_a_bus(order: tuple[str, ...], ipc_dir: Path) -> None:
    with (
        _participant(order[0], "a", ipc_dir, "b", "c"),
        _participant(order[1], "b", ipc_dir, "a", "c"),
        _participant(order[2], "c", ipc_dir, "a", "b"),
    ):
        pass


# -- Framings --------------------------------------------------------------------------------

if HAS_COMPILED:  # without it there is nothing to mix

    @pytest.mark.parametrize(
        ("server_framing", "client_framing"), [("cython", "python"), ("python", "cython")]
    )
    def test_compiled_and_pure_processes_share_a_bus(
        server_framing: str, client_framing: str, ipc_dir: Path
    ) -> None:
        with (
            _participant("asyncio", "a", ipc_dir, "b", "c", framing=server_framing),
            _participant("trio", "b", ipc_dir, "a", "c", framing=client_framing),
            _participant("uvloop", "c", ipc_dir, "a", "b", framing=client_framing),
        ):
            pass


# -- Compression -----------------------------------------------------------------------------


def test_processes_with_and_without_snappy_share_a_bus(ipc_dir: Path) -> None:
    with (
        _participant("asyncio", "a", ipc_dir, "b", "c"),
        _participant("uvloop", "b", ipc_dir, "a", "c"),
        _participant("trio", "c", ipc_dir, "a", "b", has_snappy=False),
    ):
        pass


@contextlib.asynccontextmanager
async def _relay(path: Path, target: Path) -> AsyncIterator[dict[str, bytearray]]:
    """Listen on a path, pass all on to another one, and keep what went in both directions."""
    recorded = {"there": bytearray(), "back": bytearray()}

    async def pump(
        source: anyio.abc.ByteReceiveStream, sink: anyio.abc.ByteSendStream, record: bytearray
    ) -> None:
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            async for part in source:
                record += part
                await sink.send(part)

    async def serve(client: anyio.abc.SocketStream) -> None:
        async with (
            client,
            await anyio.connect_unix(target) as server,
            anyio.create_task_group() as pumps,
        ):
            pumps.start_soon(pump, client, server, recorded["there"])
            await pump(server, client, recorded["back"])
            pumps.cancel_scope.cancel()

    async with (
        await anyio.create_unix_listener(path) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, serve)
        yield recorded
        tasks.cancel_scope.cancel()


def _bodies(recorded: bytes | bytearray) -> list[bytes]:
    bodies = []
    at = 0
    while at < len(recorded):
        (size,) = struct.unpack_from("<I", recorded, at)
        bodies.append(bytes(recorded[at + 4 : at + 4 + size]))
        at += 4 + size
    assert at == len(recorded)
    return bodies


def _connect_and_echo(backend: str, path: str, count: str) -> None:
    async def connect() -> None:
        async with endpoint_class(backend)("client").run() as client:
            notes = client.stream(Note, num_events=int(count))
            await client.connect_to_endpoints(ConnectionConfig("server", Path(path)))
            async for note in notes:
                echo = Note(note.number, note.value)
                await client.broadcast(echo, note.broadcast_config())

    run_on(backend, connect)


SMALL = b"lahja " * 100
PICKLED = [Decimal(1), COMPRESSIBLE.decode()]


@pytest.mark.parametrize(
    ("anyio_backend", "client_has_snappy"),
    [(BACKENDS[name], has_snappy) for name in ("asyncio", "trio") for has_snappy in (True, False)],
    ids=["asyncio with", "asyncio without", "trio with", "trio without"],
    indirect=["anyio_backend"],
)
async def test_large_events_are_compressed_where_both_sides_can_and_it_helps(
    anyio_backend: tuple[str, dict[str, Any]], client_has_snappy: bool, config: ConnectionConfig
) -> None:
    backend = backend_name(anyio_backend)
    values = (SMALL, COMPRESSIBLE, PICKLED, INCOMPRESSIBLE)
    relay_path = config.path.with_name("relay")
    without = None if client_has_snappy else "snappy"
    arguments = (backend, str(relay_path), str(len(values)))
    with Worker(*calling(_connect_and_echo, *arguments, without=without)) as worker:
        async with (
            endpoint_class(backend).serve(config) as server,
            _relay(relay_path, config.path) as recorded,
            server.stream(Note) as echoes,
        ):
            await server.wait_until_endpoint_subscribed_to("client", Note)
            to_client = BroadcastConfig(filter_endpoint="client")
            for number, value in enumerate(values):
                await server.broadcast(Note(number, value), to_client)
                assert await anext(echoes) == Note(number, value)
            await worker.ended()
    for record in recorded.values():
        small, compressible, pickled, incompressible = (
            body for body in _bodies(record) if body[0] in (wire.EVENT, wire.COMPRESSED)
        )
        assert small[0] == incompressible[0] == wire.EVENT
        assert SMALL in small
        assert INCOMPRESSIBLE in incompressible
        if client_has_snappy:
            assert compressible[0] == pickled[0] == wire.COMPRESSED
            assert max(len(compressible), len(pickled)) < len(COMPRESSIBLE) // 10
        else:
            assert compressible[0] == pickled[0] == wire.EVENT
            assert COMPRESSIBLE in compressible
            assert COMPRESSIBLE in pickled
