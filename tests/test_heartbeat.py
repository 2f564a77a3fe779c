"""
The promise that nobody starves: a heartbeat is never delayed for long, whatever floods an endpoint.

What is measured is the processor time of the thread between two beats, and not the time that
passes, because a machine may have other things to do. The other end of the flood is in a thread of
its own, whose time is not counted. The garbage collector, which stops everybody, is off meanwhile.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import pytest
from helpers import Bus, Number, Text, until

from lahja import AsyncioEndpoint, BaseEvent, ConnectionConfig
from lahja.base import BaseEndpoint

pytestmark = pytest.mark.anyio

LONGEST = 0.020  # seconds
EVENTS = 60_000
LARGE = 100  # events of half a megabyte


@pytest.fixture(autouse=True)
def no_garbage_collection() -> Iterator[None]:
    """Collect before the test, and after it, and not meanwhile."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Heart:
    """Beat as often as the event loop lets it, and measure what comes between."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.beats = 0
        self._last = time.thread_time()

    def beat(self) -> None:
        """Take note of the time."""
        now = time.thread_time()
        self.longest = max(self.longest, now - self._last)
        self.beats += 1
        self._last = now

    async def go_on(self) -> None:
        """Beat for ever."""
        while True:
            self.beat()
            await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def heartbeat() -> AsyncIterator[None]:
    """Make sure that a heartbeat is not delayed, within the context."""
    heart = Heart()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(heart.go_on)
        yield
        heart.beat()  # it may not have had a turn at all
        tasks.cancel_scope.cancel()
    assert heart.longest < LONGEST, f"{heart.longest * 1e3:.1f} ms, in {heart.beats:,} beats"


@contextmanager
def elsewhere(main: Callable[[], Coroutine[Any, Any, None]]) -> Iterator[None]:
    """Run a program in another thread, and wait for its end."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    assert not errors, errors


@contextmanager
def flood(config: ConnectionConfig, count: int, make: Callable[[int], BaseEvent]) -> Iterator[None]:
    """Send events from another thread, as fast as they are taken."""

    async def main() -> None:
        async with AsyncioEndpoint("flood").run() as endpoint:
            await endpoint.connect_to_endpoints(config)
            await endpoint.wait_until_endpoint_subscribed_to(config.name, type(make(0)))
            for value in range(count):
                await endpoint.broadcast(make(value))

    with elsewhere(main):
        yield


async def buffers_are_full(server: BaseEndpoint) -> None:
    """Keep the event loop from its work, until everything has arrived that finds room."""
    await server.wait_until_connected_to("flood")
    time.sleep(0.1)  # noqa: ASYNC251 - nobody would tell; if it was not long enough, it is easier


async def test_a_stream_that_is_flooded_delays_no_heartbeat(bus: Bus) -> None:
    async with bus.serve("server") as server:
        stream = server.stream(Number, num_events=EVENTS)
        with flood(bus.config("server"), EVENTS, Number):
            await buffers_are_full(server)
            async with heartbeat():
                read = [event.value async for event in stream]
        assert read == list(range(EVENTS))


@pytest.mark.parametrize("kind", ["function", "coroutine function"])
async def test_a_handler_that_is_flooded_delays_no_heartbeat(bus: Bus, kind: str) -> None:
    read: list[int] = []

    def handle(event: Number) -> None:
        read.append(event.value)

    async def handle_in_a_coroutine(event: Number) -> None:
        read.append(event.value)

    async with bus.serve("server") as server:
        server.subscribe(Number, handle if kind == "function" else handle_in_a_coroutine)
        with flood(bus.config("server"), EVENTS, Number):
            await buffers_are_full(server)
            async with heartbeat():
                await until(lambda: len(read) == EVENTS)
        assert read == list(range(EVENTS))


async def test_a_task_that_floods_others_delays_no_heartbeat(bus: Bus) -> None:
    received: list[int] = []
    ready = threading.Event()
    config = bus.config("server")

    async def receive() -> None:
        async with AsyncioEndpoint.serve(config) as server:
            stream = server.stream(Number, num_events=EVENTS)
            ready.set()
            received.extend([event.value async for event in stream])

    with elsewhere(receive):
        async with bus.run("client") as client:
            await client.connect_to_endpoints(config)
            await client.wait_until_endpoint_subscribed_to("server", Number)
            async with heartbeat():
                for value in range(EVENTS):
                    await client.broadcast(Number(value))
    assert received == list(range(EVENTS))


@pytest.mark.parametrize("kind", ["stream", "handler"])
async def test_a_task_that_floods_its_own_endpoint_delays_no_heartbeat(bus: Bus, kind: str) -> None:
    read: list[int] = []
    async with bus.run() as endpoint:
        if kind == "handler":
            endpoint.subscribe(Number, lambda event: read.append(event.value))
        else:
            stream = endpoint.stream(Number, num_events=EVENTS)
        async with heartbeat():
            for value in range(EVENTS):
                await endpoint.broadcast(Number(value))
            if kind == "stream":
                read = [event.value async for event in stream]
            else:
                await until(lambda: len(read) == EVENTS)
        assert read == list(range(EVENTS))


async def test_large_events_delay_no_heartbeat(bus: Bus) -> None:
    async with bus.serve("server") as server:
        stream = server.stream(Text, num_events=LARGE)
        with flood(bus.config("server"), LARGE, lambda _: Text("x" * 500_000)):
            await buffers_are_full(server)
            async with heartbeat():
                sizes = [len(event.text) async for event in stream]
        assert sizes == [500_000] * LARGE
