"""
Throughput and round trip between two real processes, on every event loop.

The other process receives and answers. A round of the throughput ends when it has confirmed, by a
response, that all events have arrived. Which framing ran is part of each result's name, and the
other process is asked whether it runs the same.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from lahja import (
    AsyncioEndpoint,
    BaseEvent,
    BaseRequestResponseEvent,
    ConnectionConfig,
    TrioEndpoint,
)
from lahja.base import BaseEndpoint, EndpointAPI
from lahja.framing import IMPLEMENTATION

BACKENDS: dict[str, tuple[str, dict[str, Any], type[BaseEndpoint]]] = {
    "asyncio": ("asyncio", {"use_uvloop": False}, AsyncioEndpoint),
    "uvloop": ("asyncio", {"use_uvloop": True}, AsyncioEndpoint),
    "trio": ("trio", {}, TrioEndpoint),
}
EVENTS = {"100 bytes": 10_000, "10 kB": 3_000, "1 MB": 30}
SIZES = {"100 bytes": 100, "10 kB": 10_000, "1 MB": 1_000_000}
REQUESTS = 500


@dataclass
class Event(BaseEvent):
    number: int
    time: float
    payload: bytes


@dataclass
class Count(BaseEvent):
    events: int
    framing: str


@dataclass
class HowMany(BaseRequestResponseEvent[Count]):
    """Ask how many events have arrived since the last time."""

    @staticmethod
    def expected_response_type() -> type[Count]:
        return Count


class Leave(BaseEvent):
    pass


async def _serve(endpoint_class: type[BaseEndpoint], path: str) -> None:
    async with endpoint_class.serve(ConnectionConfig("server", Path(path))) as server:
        received = 0

        def count(event: Event) -> None:
            nonlocal received
            received += 1

        def answer(request: HowMany) -> None:
            nonlocal received
            response = Count(received, IMPLEMENTATION)
            server.broadcast_nowait(response, request.broadcast_config())
            received = 0

        server.subscribe(Event, count)
        server.subscribe(HowMany, answer)
        await server.wait_for(Leave)


def serve(backend: str, path: str) -> None:
    """Receive and answer until told to leave; this is what the other process calls."""
    library, options, endpoint_class = BACKENDS[backend]
    anyio.run(_serve, endpoint_class, path, backend=library, backend_options=options)


@contextmanager
def _server(backend: str, path: Path) -> Iterator[None]:
    boot = f"from benchmarks.test_endpoints import serve; serve({backend!r}, {str(path)!r})"
    folders = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    process = subprocess.Popen([sys.executable, "-c", boot], env=environment)
    try:
        yield
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


Call = Callable[[Callable[[EndpointAPI], Awaitable[Any]]], Any]


@pytest.fixture(params=BACKENDS)
def call(request: pytest.FixtureRequest) -> Iterator[Call]:
    """Return what calls a coroutine function with an endpoint that is connected to the server."""
    library, options, endpoint_class = BACKENDS[request.param]
    with (
        tempfile.TemporaryDirectory(prefix="lahja") as folder,
        _server(request.param, Path(folder) / "ipc"),
        anyio.from_thread.start_blocking_portal(library, options) as portal,
        portal.wrap_async_context_manager(endpoint_class("client").run()) as client,
    ):
        config = ConnectionConfig("server", Path(folder) / "ipc")
        portal.call(client.connect_to_endpoints, config)
        portal.call(client.wait_until_endpoint_subscribed_to, "server", HowMany)
        yield lambda function: portal.call(function, client)
        portal.call(client.broadcast, Leave())


# The name of a result says which implementation ran; LAHJA_FRAMING=cython fails without it.
with_framing = pytest.mark.parametrize("framing", [IMPLEMENTATION])


@with_framing
@pytest.mark.parametrize("size", SIZES)
def test_throughput(benchmark: BenchmarkFixture, call: Call, size: str, framing: str) -> None:
    benchmark.group = f"{EVENTS[size]} events of {size} to another process"
    payload = random.Random(1).randbytes(SIZES[size])  # zeros would be compressed

    async def send(client: EndpointAPI) -> Count:
        for number in range(EVENTS[size]):
            await client.broadcast(Event(number, 1.5, payload))
        return await client.request(HowMany())

    count = benchmark.pedantic(call, (send,), rounds=10, warmup_rounds=2)  # type: ignore[no-untyped-call]
    assert count == Count(EVENTS[size], framing)
    benchmark.extra_info["framing"] = framing
    if benchmark.stats is not None:
        rate = EVENTS[size] / benchmark.stats.stats.median
        benchmark.extra_info["events per second"] = round(rate)


@with_framing
def test_round_trip(benchmark: BenchmarkFixture, call: Call, framing: str) -> None:
    benchmark.group = f"{REQUESTS} requests to another process, one after the other"

    async def ask(client: EndpointAPI) -> Count:
        for _ in range(REQUESTS):
            count = await client.request(HowMany())
        return count

    count = benchmark.pedantic(call, (ask,), rounds=10, warmup_rounds=2)  # type: ignore[no-untyped-call]
    assert count == Count(0, framing)
    benchmark.extra_info["framing"] = framing
    if benchmark.stats is not None:
        seconds = benchmark.stats.stats.median / REQUESTS
        benchmark.extra_info["microseconds per request"] = round(seconds * 1e6)
