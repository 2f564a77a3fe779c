"""
Clean exit: nothing that was accepted is lost in silence, and cancellation leaves nothing behind.

First, endpoints leave while their peers, which are processes, are slow, stopped or fine. Then a
whole life of an endpoint, and each of its methods, is cancelled: at its first checkpoint, at its
second, and so on, until there is none left to be cancelled at.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import time
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
import trio
from fault_helpers import Blob, Home, Peer, Peers, assert_nothing_waits, open_files, unfinished
from helpers import (
    Bus,
    Number,
    Question,
    RawServer,
    Text,
    answer_questions,
    complaints,
    living_tasks,
    until,
)

from lahja import BroadcastConfig, ConnectionConfig
from lahja.base import BaseEndpoint

pytestmark = pytest.mark.anyio

DATA = os.urandom(100_000)
MOST_OF_IT = re.compile(r"server: dropped (1[5-9]|2\d)\d{5} bytes, ")  # of 3 MB


@pytest.fixture
def peers() -> Iterator[Peers]:
    """Return what starts processes."""
    with Peers() as started:
        yield started


# -- Leaving ---------------------------------------------------------------------------------


async def receive(home: Home, server: ConnectionConfig, name: str) -> None:
    """Say what came until the server left; be busy, or ask a question, in between."""
    numbers: list[int] = []
    sizes: list[int] = []
    async with home.endpoint_class(name).run() as endpoint, anyio.create_task_group() as tasks:
        endpoint.subscribe(Number, lambda event: numbers.append(event.value))
        endpoint.subscribe(Blob, lambda event: sizes.append(len(event.data)))
        await endpoint.connect_to_endpoints(server)
        home.say("connected")

        async def obey() -> None:
            while (command := await home.hear()) != "leave":
                if command == "be busy":
                    home.say("busy")
                    time.sleep(0.3)  # noqa: ASYNC251 - that is the point
                else:
                    home.say((await endpoint.request(Question(5))).value)
            tasks.cancel_scope.cancel()

        tasks.start_soon(obey)
        await until(lambda: not endpoint.is_connected_to(server.name))
        home.say([numbers, sum(sizes)])


async def come(peers: Peers, endpoint: BaseEndpoint, *names: str) -> list[Peer]:
    """Start processes that connect to an endpoint and receive, and wait until they do."""
    config = ConnectionConfig(endpoint.name, endpoint.ipc_path)
    started = [peers.start(receive, config, name) for name in names]
    for peer, name in zip(started, names, strict=True):
        await peer.expect("connected")
        await endpoint.wait_until_endpoint_subscribed_to(name, Blob)
    return started


@pytest.mark.parametrize("nowait", [False, True], ids=["broadcast", "broadcast_nowait"])
async def test_leaving_flushes_all_that_was_accepted(bus: Bus, peers: Peers, nowait: bool) -> None:
    async with bus.serve("server", high_water=1 << 30) as endpoint:
        fast, slow = await come(peers, endpoint, "fast", "slow")
        slow.say("be busy")
        await slow.expect("busy")
        for value in range(1000):
            for event in (Number(value), *(Blob(DATA) for _ in range(value % 20 == 0))):
                if nowait:
                    endpoint.broadcast_nowait(event)
                else:
                    await endpoint.broadcast(event)
        assert endpoint._router.peers["slow"].outlet.size > 1 << 20
    for peer in (fast, slow):
        await peer.expect([[*range(1000)], 50 * len(DATA)])


async def test_leaving_reports_per_peer_what_it_did_not_take_within_drain_timeout(
    bus: Bus, peers: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.serve("server", drain_timeout=0.5) as endpoint:
        first, good, second = await come(peers, endpoint, "first", "good", "second")
        first.stop()
        second.stop()
        for _ in range(30):
            endpoint.broadcast_nowait(Blob(DATA))
        began = anyio.current_time()
    assert 0.49 < anyio.current_time() - began < 1  # in all, and not for each peer
    await good.expect([[], 30 * len(DATA)])
    assert len(complaints(caplog)) == 2
    for name, text in zip(("first", "second"), sorted(complaints(caplog), key=len), strict=True):
        assert MOST_OF_IT.match(text), text
        assert text.endswith(f"bytes, which {name!r} did not take within 0.5 s")
    assert unfinished(endpoint) == {}


async def test_requests_are_answered_as_long_as_an_endpoint_waits_for_slow_peers(
    bus: Bus, peers: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.serve("server", drain_timeout=0.5) as endpoint:
        answer_questions(endpoint)
        stopped, good = await come(peers, endpoint, "stopped", "good")
        stopped.stop()
        for _ in range(30):
            endpoint.broadcast_nowait(Blob(DATA))
        good.say("ask")
    await good.expect(5)
    await good.expect([[], 30 * len(DATA)])
    assert len(complaints(caplog)) == 1


async def test_a_cancelled_body_waits_for_nobody_and_still_loses_nothing_in_silence(
    bus: Bus, peers: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    with anyio.CancelScope() as scope:
        async with bus.serve("server", drain_timeout=100) as endpoint:
            stopped, good = await come(peers, endpoint, "stopped", "good")
            to_good = BroadcastConfig(filter_endpoint="good")
            stopped.stop()
            for _ in range(30):
                endpoint.broadcast_nowait(Blob(DATA), BroadcastConfig(filter_endpoint="stopped"))
            for value in range(100):  # few enough for the system to take them at once
                endpoint.broadcast_nowait(Number(value), to_good)
            scope.cancel()
            began = anyio.current_time()
            await anyio.sleep_forever()
    assert anyio.current_time() - began < 1
    await good.expect([[*range(100)], 0])
    (complaint,) = complaints(caplog)
    assert MOST_OF_IT.match(complaint), complaint
    assert complaint.endswith("bytes, which 'stopped' had not taken yet")


async def test_an_error_in_the_body_comes_out_as_itself_after_the_flush(
    bus: Bus, peers: Peers
) -> None:
    started = []

    async def fail() -> None:
        async with bus.serve("server") as endpoint:
            started.extend(await come(peers, endpoint, "peer"))
            for _ in range(30):
                endpoint.broadcast_nowait(Blob(DATA))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    await started[0].expect([[], 30 * len(DATA)])


# -- Cancellation ----------------------------------------------------------------------------

Scenario = Callable[[], Coroutine[Any, Any, None]]


@types.coroutine
def stepping(
    coroutine: Coroutine[Any, Any, None], number: int, cancel: Callable[[], object]
) -> Generator[Any, Any, None]:
    """Run a coroutine; when it suspends for the given time, cancel it."""
    resume: Callable[[Any], Any] = coroutine.send
    argument: Any = None
    for count in itertools.count(1):
        try:
            trap = resume(argument)
        except StopIteration:
            return
        if count == number:
            cancel()
        try:
            resume, argument = coroutine.send, (yield trap)
        except BaseException as error:
            resume, argument = coroutine.throw, error


async def cancelled_at_suspension(number: int, scenario: Scenario) -> bool:
    """Cancel a scenario when it suspends for the given time; return whether it came to that."""
    reached = False

    def reach() -> None:
        nonlocal reached
        reached = True
        cancel()

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        with trio.CancelScope() as scope:
            cancel: Callable[[], object] = scope.cancel
            await stepping(scenario(), number, reach)
        assert scope.cancelled_caught is reached
    else:

        async def run() -> None:
            await stepping(scenario(), number, reach)

        task = loop.create_task(run())
        cancel = task.cancel
        await asyncio.wait([task])
        assert task.cancelled() is reached
        if not reached:
            task.result()
    return reached


async def cancelled_after_turns(number: int, scenario: Scenario) -> bool:
    """Cancel a scenario after some turns of the event loop; return whether it came to that."""
    finished = False

    async def run() -> None:
        nonlocal finished
        await scenario()
        finished = True

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        for _ in range(number):
            await anyio.lowlevel.checkpoint()
            if finished:
                return False
        tasks.cancel_scope.cancel()
    return not finished


WAYS = pytest.mark.parametrize(
    "cancelled",
    [
        pytest.param(cancelled_at_suspension, id="at each suspension"),
        pytest.param(cancelled_after_turns, id="in each turn of the event loop"),
    ],
)


@asynccontextmanager
async def serving(bus: Bus) -> AsyncIterator[BaseEndpoint]:
    """Run a server that answers questions, takes one text at a time, and says a number to each."""
    async with bus.serve("server") as server, anyio.create_task_group() as tasks:
        answer_questions(server)
        server.subscribe(Blob, lambda event: None)

        async def respond() -> None:
            async for text in server.stream(Text, max_queue=1):
                await anyio.lowlevel.checkpoint()
                await server.broadcast(Number(len(text.text)))

        tasks.start_soon(respond)
        yield server
        tasks.cancel_scope.cancel()


async def live(bus: Bus) -> None:
    """Use most of what an endpoint can do, once."""
    client = bus.endpoint_class("client", high_water=1000)
    async with client.run(), client.stream(Number) as numbers:
        await client.connect_to_endpoints(bus.config("server"))
        await client.wait_until_endpoint_subscribed_to("server", Text)
        await client.request(Question(1), timeout=5)
        await client.broadcast(Blob(bytes(1 << 20)))  # waits for room
        for text in ("a", "aa", "aaa"):
            await client.broadcast(Text(text))  # waits for credit
        for _ in range(3):
            await anext(numbers)
        client.broadcast_nowait(Text("aaaa"))
        await client.wait_for(Number)
        client.broadcast_nowait(Blob(bytes(1 << 20)))


@WAYS
async def test_a_life_cancelled_at_any_point_leaves_nothing_behind(
    bus: Bus, cancelled: Callable[[int, Scenario], Awaitable[bool]]
) -> None:
    async with serving(bus) as server:
        await live(bus)
        await until(lambda: not server.is_connected_to("client"))
        tasks, files = living_tasks(), open_files()
        for number in itertools.count(1):
            was_cancelled = await cancelled(number, lambda: live(bus))
            with anyio.fail_after(5):
                await until(lambda: not server.is_connected_to("client"))
                await until(lambda: not unfinished(server))
                await until(lambda: (living_tasks(), open_files()) == (tasks, files))
            if not was_cancelled:
                break
        assert number > 5  # there was much to be cancelled
        await live(bus)  # and the server goes on


async def host(bus: Bus, visitor: BaseEndpoint) -> None:
    """Serve, be visited, and leave."""
    async with bus.serve("host") as endpoint:
        await visitor.connect_to_endpoints(bus.config("host"))
        await endpoint.wait_until_endpoint_subscribed_to("visitor", Question)
        await endpoint.request(Question(1))
        for _ in range(20):
            endpoint.broadcast_nowait(Blob(bytes(1 << 18)))


@WAYS
async def test_a_server_cancelled_at_any_point_leaves_nothing_behind(
    bus: Bus, cancelled: Callable[[int, Scenario], Awaitable[bool]]
) -> None:
    async with bus.endpoint_class("visitor").run() as visitor:
        answer_questions(visitor)
        visitor.subscribe(Blob, lambda event: None)
        await host(bus, visitor)
        await until(lambda: not visitor.is_connected_to("host"))
        tasks, files = living_tasks(), open_files()
        for number in itertools.count(1):
            was_cancelled = await cancelled(number, lambda: host(bus, visitor))
            assert not bus.config("host").path.exists()
            with anyio.fail_after(5):
                await until(lambda: not visitor.is_connected_to("host"))
                await until(lambda: not unfinished(visitor))
                await until(lambda: (living_tasks(), open_files()) == (tasks, files))
            if not was_cancelled:
                break
        assert number > 5
        await host(bus, visitor)


WAITS: dict[str, Callable[[BaseEndpoint], Awaitable[object]]] = {
    "a broadcast that waits for room": lambda e: e.broadcast(Blob(DATA)),
    "a broadcast that waits for credit": lambda e: e.broadcast(Text("x")),
    "a request that nobody answers": lambda e: e.request(Question(1)),
    "a request with a timeout": lambda e: e.request(Question(1), timeout=50),
    "wait_for": lambda e: e.wait_for(Number),
    "a stream": lambda e: anext(e.stream(Number)),
    "a stream with a bound": lambda e: anext(e.stream(Number, max_queue=1)),
    "wait_until_connected_to": lambda e: e.wait_until_connected_to("nobody"),
    "wait_until_connections_change": lambda e: e.wait_until_connections_change(),
    "wait_until_endpoint_subscribed_to": lambda e: e.wait_until_endpoint_subscribed_to("x", Number),
    "wait_until_any_endpoint_subscribed_to": (
        lambda e: e.wait_until_any_endpoint_subscribed_to(Number)
    ),
    "wait_until_all_endpoints_subscribed_to": (
        lambda e: e.wait_until_all_endpoints_subscribed_to(Number)
    ),
    "wait_until_endpoint_subscriptions_change": (
        lambda e: e.wait_until_endpoint_subscriptions_change()
    ),
    "connecting where nobody serves": (
        lambda e: e.connect_to_endpoints(ConnectionConfig("none", e.ipc_path.parent / "none"))
    ),
    "connecting to what never says hello": (
        lambda e: e.connect_to_endpoints(ConnectionConfig("mute", e.ipc_path.parent / "mute"))
    ),
    "connecting to several": (
        lambda e: e.connect_to_endpoints(
            *(ConnectionConfig(name, e.ipc_path.parent / name) for name in ("none", "mute"))
        )
    ),
}


async def take_nothing(home: Home, server: ConnectionConfig) -> None:
    """Subscribe to everything, answer nothing, and give no credit."""
    async with home.endpoint_class("peer").run() as endpoint:
        endpoint.subscribe(Question, lambda event: None)
        endpoint.subscribe(Blob, lambda event: None)
        texts = endpoint.stream(Text, max_queue=1)
        await endpoint.connect_to_endpoints(server)
        home.say("connected")
        await home.hear()
        del texts


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS.keys())
async def test_a_wait_cancelled_in_any_turn_leaves_nothing_behind(
    bus: Bus, peers: Peers, wait: Callable[[BaseEndpoint], Awaitable[object]]
) -> None:
    async with bus.serve("server", high_water=0, drain_timeout=0) as endpoint:
        peer = peers.start(take_nothing, bus.config("server"))
        await peer.expect("connected")
        await endpoint.wait_until_endpoint_subscribed_to("peer", Text)
        peer.stop()
        endpoint.broadcast_nowait(Text("all that it gives credit for"))
        channel = endpoint._peering._channels[endpoint._router.peers["peer"]]
        while not channel.blocked:
            endpoint.broadcast_nowait(Blob(DATA))
            await anyio.lowlevel.checkpoint()
        with RawServer(bus.directory / "mute", backlog=100):
            tasks, files = living_tasks(), open_files()
            for number in range(12):

                async def scenario() -> None:
                    await wait(endpoint)

                assert await cancelled_after_turns(number, scenario)
                assert_nothing_waits(endpoint)
                assert endpoint.get_subscribed_events() == set()
                with anyio.fail_after(5):
                    await until(lambda: (living_tasks(), open_files()) == (tasks, files))
        peer.go_on()
        with anyio.fail_after(5):
            await endpoint.broadcast(Blob(b""))
        assert_nothing_waits(endpoint)
        assert endpoint.is_connected_to("peer")
