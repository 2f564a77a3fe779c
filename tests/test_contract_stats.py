"""What an endpoint says of itself by ``stats()``, in the same words on every event loop."""

from __future__ import annotations

import functools
import json
import os
import time
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from fault_helpers import Blob
from helpers import (
    Answer,
    Bus,
    Marker,
    Number,
    Question,
    Text,
    answer_questions,
    raw_peer,
    take,
    until,
)
from process_helpers import backend_name

import lahja
from lahja import (
    BroadcastConfig,
    EndpointStats,
    LifecycleError,
    NoSubscribers,
    RemoteDisconnected,
    RequestTimeout,
    StreamOverflow,
    UnexpectedResponse,
    wire,
)
from lahja.base import BaseEndpoint
from lahja.framing import IMPLEMENTATION
from lahja.stats import PeerStats, SubscriptionStats, TypeStats

pytestmark = pytest.mark.anyio


class Spoilt(bytes):
    """Fail when it is unpickled."""

    def __reduce__(self) -> Any:
        return divmod, (1, 0)


def real(path: Path) -> str:
    """Return the path as statistics have it."""
    return os.path.realpath(path)


def of_type(stats: EndpointStats, name: str) -> TypeStats:
    """Return the row of an event type, by the name of its class."""
    (row,) = [row for row in stats.types if row.name.endswith(f":{name}")]
    return row


def of_peer(endpoint: BaseEndpoint, name: str) -> PeerStats:
    """Return the row of a peer."""
    (row,) = [row for row in endpoint.stats().peers if row.name == name]
    return row


def only_subscription(endpoint: BaseEndpoint) -> SubscriptionStats:
    """Return the row of the only handler or stream."""
    (row,) = endpoint.stats().subscriptions
    return row


# -- Who it is -----------------------------------------------------------------------------------


async def test_an_endpoint_says_who_it_is(bus: Bus, anyio_backend: Any) -> None:
    before = time.time()
    async with bus.serve("server") as server:
        stats = server.stats()
        assert (stats.name, stats.pid, stats.state) == ("server", os.getpid(), "running")
        assert stats.path == real(server.ipc_path)
        assert stats.backend == backend_name(anyio_backend)
        assert (stats.framing, stats.version) == (IMPLEMENTATION, lahja.__version__)
        assert before <= stats.taken_at <= time.time()
        assert 0 <= stats.uptime < 60
        assert (stats.peers, stats.types, stats.subscriptions) == ((), (), ())
        assert (stats.observers, stats.left_out) == (0, 0)
        assert stats.requests.failures == {}
        assert stats.instance == server._router.hello.instance.hex()
        assert server.stats().uptime >= stats.uptime


async def test_stats_work_before_and_after(bus: Bus) -> None:
    endpoint = bus.endpoint_class("alone")
    endpoint.subscribe(Number, print)
    new = endpoint.stats()
    assert (new.state, new.uptime, new.path) == ("new", 0.0, None)
    assert [row.type for row in new.subscriptions] == ["helpers:Number"]
    async with endpoint.run():
        await endpoint.broadcast(Text("x"))
        assert endpoint.stats().state == "running"
    stopped = endpoint.stats()
    assert stopped.state == "stopped"
    assert stopped.uptime > 0
    assert of_type(stopped, "Text").broadcasts == 1
    assert endpoint.stats().uptime == stopped.uptime
    assert stopped.instance == new.instance


async def test_stats_may_be_asked_for_in_any_thread(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        stream = server.stream(Number)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        await client.broadcast(Number(1))
        await anext(stream)
        stats = await anyio.to_thread.run_sync(server.stats)
        assert of_type(stats, "Number").received == 1
        assert [peer.name for peer in stats.peers] == ["client"]


async def test_stats_are_plain_values(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        answer_questions(server)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        await client.request(Question(1))
        stats = client.stats()
        assert EndpointStats.from_dict(json.loads(json.dumps(stats.to_dict()))) == stats


# -- Peers ---------------------------------------------------------------------------------------


async def test_peers_are_counted_alike_on_both_sides(bus: Bus) -> None:
    before = time.time()
    async with bus.pair() as (server, client):
        stream = server.stream(Text)
        await client.wait_until_endpoint_subscribed_to("server", Text)
        for number in range(10):
            await client.broadcast(Text("x" * number))
        await take(stream, 10)
        await client.broadcast(Number(1))  # which the server does not want
        there, here = of_peer(client, "server"), of_peer(server, "client")
        assert there.pid == here.pid == os.getpid()
        assert before - 1 <= here.connected_at <= time.time() + 1
        assert (there.path, here.path) == (real(server.ipc_path), None)
        assert there.events_sent == here.events_received == 10
        assert there.events_received == here.events_sent == 0
        assert there.bytes_sent == here.bytes_received > 100
        assert there.bytes_received == here.bytes_sent > 0
        assert there.queue_bytes == here.queue_bytes == there.stalls == here.stalls == 0
        assert there.stalled_for == here.stalled_for == 0.0
        assert there.last_error is here.last_error is None
        assert there.subscriptions == ("helpers:Text",)
        assert here.subscriptions == ()


async def test_peers_are_sorted_and_forgotten_when_they_leave(bus: Bus) -> None:
    async with bus.serve("server") as server:
        async with bus.connect("zoe", "server"), bus.connect("ann", "server"):
            assert [peer.name for peer in server.stats().peers] == ["ann", "zoe"]
        await until(lambda: not server.stats().peers)


async def test_a_peer_that_does_not_read_stalls(bus: Bus) -> None:
    async with bus.serve("server") as server, raw_peer(server, "raw", {Blob: None}) as peer:
        size = 0
        while not server._peering.channel_of(server._router.peers["raw"]).blocked:  # type: ignore[union-attr]
            server.broadcast_nowait(Blob(bytes(100_000)))
            size += 100_000
            await anyio.lowlevel.checkpoint()
        await until(lambda: of_peer(server, "raw").stalled_for > 0.1)
        row = of_peer(server, "raw")
        assert 0 < row.queue_bytes < size + 1000
        assert row.queue_bytes + row.bytes_sent > size
        for _ in range(size // 100_000):
            await peer.read_kind(wire.EVENT)
        await until(lambda: not of_peer(server, "raw").queue_bytes)
        row = of_peer(server, "raw")
        assert (row.stalls, row.stalled_for) == (1, 0.0)
        assert row.bytes_sent > size


async def test_events_held_for_want_of_credit_are_shown(bus: Bus) -> None:
    async with bus.serve("server") as server, raw_peer(server, "raw", {Number: 2}) as peer:
        for value in range(5):
            server.broadcast_nowait(Number(value))
        assert of_peer(server, "raw").held_events == 3
        assert of_peer(server, "raw").events_sent == 2
        assert of_type(server.stats(), "Number").sent == 2
        await peer.grant(Number, 2)
        await until(lambda: of_peer(server, "raw").held_events == 1)
        assert of_type(server.stats(), "Number").sent == 4
        assert of_type(server.stats(), "Number").broadcasts == 5


async def test_the_last_error_outlives_the_connection(bus: Bus) -> None:
    async with bus.serve("server") as server:
        async with raw_peer(server, "raw") as peer:
            await peer.send(b"\xff\xff\xff\xff")
            await peer.closed()
        async with raw_peer(server, "raw"):
            error = of_peer(server, "raw").last_error
            assert error is not None
            assert "closed the connection to 'raw': a frame of 4294967295 bytes" in error


# -- Types ---------------------------------------------------------------------------------------


async def test_types_are_counted(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        stream = server.stream(Number)
        server.subscribe(Number, lambda event: None)
        client.subscribe(Number, lambda event: None)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        for value in range(3):
            await client.broadcast(Number(value))
        await client.broadcast(Number(3), BroadcastConfig(internal=True))
        await client.broadcast(Number(4), BroadcastConfig(filter_endpoint="server"))
        await take(stream, 4)
        sent, received = of_type(client.stats(), "Number"), of_type(server.stats(), "Number")
        assert sent == TypeStats("helpers:Number", 5, 4, 0, 4, 0, 0)
        assert received == TypeStats("helpers:Number", 0, 0, 4, 8, 0, 0)


async def test_requests_and_responses_are_events_too(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        answer_questions(server)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        for value in range(3):
            await client.request(Question(value))
        assert of_type(client.stats(), "Question") == TypeStats(
            "helpers:Question", 3, 3, 0, 0, 0, 0
        )
        assert of_type(server.stats(), "Question") == TypeStats(
            "helpers:Question", 0, 0, 3, 3, 0, 0
        )
        assert of_type(server.stats(), "Answer") == TypeStats("helpers:Answer", 3, 3, 0, 0, 0, 0)
        assert of_type(client.stats(), "Answer") == TypeStats("helpers:Answer", 0, 0, 3, 3, 0, 0)
        assert of_peer(client, "server").events_received == of_peer(server, "client").events_sent


async def test_a_request_within_an_endpoint_is_counted(bus: Bus) -> None:
    async with bus.run() as endpoint:
        answer_questions(endpoint)
        await endpoint.request(Question(1))
        stats = endpoint.stats()
        assert of_type(stats, "Question") == TypeStats("helpers:Question", 1, 0, 0, 1, 0, 0)
        assert of_type(stats, "Answer") == TypeStats("helpers:Answer", 1, 0, 0, 1, 0, 0)


async def test_events_that_do_not_decode_are_counted(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        stream = server.stream(Blob)
        await client.wait_until_endpoint_subscribed_to("server", Blob)
        for _ in range(20):
            await client.broadcast(Blob(Spoilt()))
        await client.broadcast(Blob(b"good"))
        await anext(stream)
        row = of_type(server.stats(), "Blob")
        assert (row.received, row.delivered, row.undecodable) == (1, 1, 20)
        error = of_peer(server, "client").last_error
        assert error is not None
        assert "ZeroDivisionError" in error


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest", "latest", "raise"])
async def test_events_that_are_dropped_are_counted(bus: Bus, overflow: Any) -> None:
    bound = None if overflow == "latest" else 3
    room = 1 if overflow == "latest" else 3
    async with bus.run() as endpoint:
        stream = endpoint.stream(Number, max_queue=bound, overflow=overflow)
        for value in range(10):
            await endpoint.broadcast(Number(value))
        row = only_subscription(endpoint)
        assert (row.kind, row.name) == ("stream", overflow)
        assert (row.queue, row.queue_max, row.bound) == (room, room, room)
        assert row.dropped == 10 - room
        wanted = TypeStats("helpers:Number", 10, 0, 0, room, 10 - room, 0)
        assert of_type(endpoint.stats(), "Number") == wanted
        if overflow == "raise":
            with pytest.raises(StreamOverflow):
                await anext(stream)
        await stream.aclose()
        assert endpoint.stats().subscriptions == ()
        assert of_type(endpoint.stats(), "Number") == wanted  # also when the stream is closed


# -- Handlers and streams ------------------------------------------------------------------------


async def test_streams_show_their_queues(bus: Bus) -> None:
    async with bus.run() as endpoint:
        stream = endpoint.stream(Number)
        for value in range(5):
            await endpoint.broadcast(Number(value))
        await take(stream, 4)
        row = only_subscription(endpoint)
        assert row == SubscriptionStats(
            type="helpers:Number",
            kind="stream",
            name="unbounded",
            queue=1,
            queue_max=5,
            bound=None,
            dropped=0,
            failures=0,
            slowest=0.0,
            busy_for=0.0,
        )
        await stream.aclose()
        async with endpoint.stream(Number, max_queue=7):
            assert only_subscription(endpoint).bound == 7
            assert only_subscription(endpoint).name == "block"


async def test_a_slow_handler_is_found(bus: Bus) -> None:
    def slow(event: Number) -> None:
        time.sleep(event.value / 1000)

    def quick(event: Number) -> None:
        pass

    async with bus.pair() as (server, client):
        server.subscribe(Number, quick)
        server.subscribe(Number, slow)
        server.subscribe(Number, functools.partial(quick))
        marker = server.stream(Marker)
        await client.wait_until_endpoint_subscribed_to("server", Marker)
        for value in (1, 300, 2):
            await client.broadcast(Number(value))
        await client.broadcast(Marker())
        await anext(marker)
        rows = {row.name: row for row in server.stats().subscriptions if row.kind == "handler"}
        assert len(rows) == 2  # the partial goes by the name of its function
        (slow_name,) = [name for name in rows if name.endswith("<locals>.slow")]
        assert slow_name.startswith(f"{__name__}:")
        slowest = rows.pop(slow_name).slowest
        assert 0.3 <= slowest < 30
        assert rows.popitem()[1].slowest < slowest


async def test_a_handler_that_awaits_is_timed_to_its_end(bus: Bus) -> None:
    release = anyio.Event()

    async def wait(event: Number) -> None:
        await release.wait()

    async with bus.run() as endpoint:
        endpoint.subscribe(Number, wait)
        for value in range(3):
            await endpoint.broadcast(Number(value))
        await until(lambda: only_subscription(endpoint).busy_for > 0.02)
        row = only_subscription(endpoint)
        assert (row.queue, row.queue_max) == (2, 3)
        assert row.slowest >= 0.02
        release.set()
        await until(lambda: only_subscription(endpoint).queue == 0)
        await until(lambda: not only_subscription(endpoint).busy_for)
        assert only_subscription(endpoint).slowest >= row.busy_for


async def test_failures_of_handlers_are_counted(bus: Bus) -> None:
    def fail(event: Number) -> None:
        raise ValueError

    async def fail_later(event: Number) -> None:
        await anyio.lowlevel.checkpoint()
        raise ValueError

    class Callable:
        def __call__(self, event: Number) -> None:
            raise ValueError

    async with bus.run() as endpoint:
        for handler in (fail, fail_later, Callable()):
            endpoint.subscribe(Number, handler)
        for value in range(4):
            await endpoint.broadcast(Number(value))
        await until(lambda: [row.failures for row in endpoint.stats().subscriptions] == [4, 4, 4])
        names = [row.name.rpartition(".")[2] for row in endpoint.stats().subscriptions]
        assert sorted(names) == ["Callable", "fail", "fail_later"]


# -- Requests ------------------------------------------------------------------------------------


async def test_requests_are_timed(bus: Bus) -> None:
    slept = 0.0  # an event loop's timers may be early by a millisecond

    async def respond(question: Question) -> None:
        nonlocal slept
        before = time.perf_counter()
        await anyio.sleep(0.05 if question.value == 7 else 0)
        slept = max(slept, time.perf_counter() - before)
        await endpoint.broadcast(Answer(question.value), question.broadcast_config())

    async with bus.run() as endpoint:
        endpoint.subscribe(Question, respond)
        for value in range(20):
            await endpoint.request(Question(value))
        requests = endpoint.stats().requests
        assert (requests.in_flight, requests.oldest, requests.answered) == (0, 0.0, 20)
        assert requests.p50 is not None
        assert requests.p99 is not None
        assert 0 < requests.p50 < requests.p99
        assert requests.p99 >= slept > 0.04


async def test_requests_in_flight_are_shown(bus: Bus) -> None:
    async with bus.run() as endpoint, anyio.create_task_group() as tasks:
        questions = endpoint.stream(Question)
        tasks.start_soon(endpoint.request, Question(1))
        question = await anext(questions)
        await until(lambda: endpoint.stats().requests.oldest > 0.01)
        requests = endpoint.stats().requests
        assert (requests.in_flight, requests.answered, requests.p50) == (1, 0, None)
        await endpoint.broadcast(Answer(1), question.broadcast_config())


async def test_failures_of_requests_are_counted_by_kind(bus: Bus) -> None:
    async with bus.serve("server") as server:
        with pytest.raises(NoSubscribers):
            await server.request(Question(1))
        async with raw_peer(server, "raw", {Question: None}):
            for _ in range(2):
                with pytest.raises(RequestTimeout):
                    await server.request(Question(1), timeout=0)
            with anyio.move_on_after(0.01):
                await server.request(Question(1))

            async def ask() -> None:
                with pytest.raises(RemoteDisconnected):
                    await server.request(Question(1))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                await until(lambda: server.stats().requests.in_flight)
                server._peering.channel_of(server._router.peers["raw"]).close()  # type: ignore[union-attr]

        async def mock(question: Question) -> None:
            await server.broadcast(Text("no"), question.broadcast_config())

        server.subscribe(Question, mock)
        with pytest.raises(UnexpectedResponse):
            await server.request(Question(1))
        assert server.stats().requests.failures == {
            "NoSubscribers": 1,
            "RequestTimeout": 2,
            "cancelled": 1,
            "RemoteDisconnected": 1,
            "UnexpectedResponse": 1,
        }
        assert server.stats().requests.answered == 0


async def test_a_request_that_ends_with_its_endpoint_is_a_failure(bus: Bus) -> None:
    async def ask_in_vain() -> None:
        with pytest.raises(LifecycleError):
            await endpoint.request(Question(1))

    async with anyio.create_task_group() as tasks, bus.serve("server") as endpoint:
        questions = endpoint.stream(Question)
        tasks.start_soon(ask_in_vain)
        await anext(questions)
    assert endpoint.stats().requests.failures == {"LifecycleError": 1}
