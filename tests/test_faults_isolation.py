"""
One bad part stops nothing else.

Peers that are stopped, busy, deaf, slow or killed half-way are real processes; a good one beside
them answers questions and gets its events as if they were not there. Then there are the bad parts
within a process: handlers, and streams that nobody reads. What a bad part costs is bounded.
"""

from __future__ import annotations

import gc
import logging
import os
import socket
import struct
import time
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
from fault_helpers import Blob, Home, Peer, Peers, assert_nothing_waits, resident_size, unfinished
from helpers import (
    Answer,
    Bus,
    Number,
    Question,
    RawPeer,
    Text,
    answer_questions,
    complaints,
    take,
    until,
)

from lahja import BroadcastConfig, ConnectionConfig, Stream, StreamOverflow, wire
from lahja.base import BaseEndpoint
from lahja.streams import Overflow

pytestmark = pytest.mark.anyio

MEGABYTE = 1 << 20


@pytest.fixture
def peers() -> Iterator[Peers]:
    """Return what starts processes."""
    with Peers() as started:
        yield started


@pytest.fixture
def traced() -> Iterator[Callable[[], int]]:
    """Return what tells how many bytes were allocated since the beginning, and are in use."""
    gc.collect()
    gc.disable()  # nothing is left to it
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    gc.enable()


def to(name: str) -> BroadcastConfig:
    """Return what sends an event to one endpoint."""
    return BroadcastConfig(filter_endpoint=name)


# -- Peers -----------------------------------------------------------------------------------


async def take_part(home: Home, server: ConnectionConfig, name: str) -> None:
    """Take numbers and blobs, answer questions, and do as the test says."""
    numbers: list[int] = []
    sizes: list[int] = []
    sent = 0
    endpoint = home.endpoint_class(name)
    endpoint.subscribe(Number, lambda event: numbers.append(event.value))
    endpoint.subscribe(Blob, lambda event: sizes.append(len(event.data)))
    answer_questions(endpoint)

    async def broadcast(first: int, last: int) -> None:
        nonlocal sent
        for value in range(first, last):
            await endpoint.broadcast(Number(value), to(server.name))
            sent += 1
        await endpoint.broadcast(Text("done"))

    async with endpoint.run(), anyio.create_task_group() as tasks:
        await endpoint.connect_to_endpoints(server)
        home.say("connected")
        while True:
            match await home.hear():
                case "what came?":
                    home.say([numbers, sizes])
                case "how many sent?":
                    home.say(sent)
                case "be busy":
                    time.sleep(0.3)  # noqa: ASYNC251 - that is the point
                case "say something":
                    await endpoint.broadcast(Text("something"))
                case [first, last]:
                    tasks.start_soon(broadcast, first, last)


async def be_deaf(home: Home, server: ConnectionConfig, name: str, *pace: float) -> None:
    """Ask for numbers and blobs, and read nothing of them; or so many bytes, then a pause."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(server.path))
        raw = RawPeer(sock)
        await raw.hello(name, {Blob: None, Number: None})
        await raw.subscribed()
        home.say("connected")
        if not pace:
            await home.hear()
        size, pause = pace
        while True:
            await anyio.sleep(pause)
            await anyio.wait_readable(sock)
            sock.recv(int(size))


async def be_present(home: Home, server: ConnectionConfig, name: str) -> None:
    """Be connected, and want nothing."""
    async with home.endpoint_class(name).run() as endpoint:
        await endpoint.connect_to_endpoints(server)
        home.say("connected")
        await home.hear()


async def begin_an_event(home: Home, server: ConnectionConfig, name: str, size: int) -> None:
    """Send half of an event."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(server.path))
        raw = RawPeer(sock)
        await raw.hello(name)
        await raw.subscribed()
        home.say("connected")
        type_id = await raw.announce(Blob(b""))
        header = struct.pack("<IBIBcI", size + 11, wire.EVENT, type_id, wire.PLAIN, b"Y", size)
        await raw.send(header, bytes(size // 2))
        home.say("half")
        await home.hear()


async def come(
    peers: Peers, endpoint: BaseEndpoint, role: object, name: str, *args: object
) -> Peer:
    """Start a process that connects to an endpoint, and wait until it has."""
    config = ConnectionConfig(endpoint.name, endpoint.ipc_path)
    peer = peers.start(role, config, name, *args)  # type: ignore[arg-type]
    await peer.expect("connected")
    await endpoint.wait_until_connected_to(name)
    return peer


async def what_came(peer: Peer) -> tuple[list[int], list[int]]:
    """Return the numbers, and the sizes of the blobs, that a process got."""
    peer.say("what came?")
    numbers, sizes = await peer.hear()
    return numbers, sizes


async def assert_undelayed(endpoint: BaseEndpoint, name: str) -> None:
    """Make sure that a peer answers at once, many times."""
    with anyio.fail_after(5):
        for value in range(100):
            assert (await endpoint.request(Question(value), to(name))).value == value


# -- A bad peer ------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["stopped", "busy", "deaf"])
async def test_a_peer_that_takes_nothing_does_not_delay_the_events_of_others(
    bus: Bus, peers: Peers, fault: str
) -> None:
    async with bus.serve("server") as endpoint:
        good = await come(peers, endpoint, take_part, "good")
        bad = await come(peers, endpoint, be_deaf if fault == "deaf" else take_part, "bad")
        await endpoint.wait_until_all_endpoints_subscribed_to(Blob, include_self=False)
        if fault == "stopped":
            bad.stop()
        elif fault == "busy":
            bad.say("be busy")
        queued = 0

        async def broadcast() -> None:
            nonlocal queued
            for _ in range(50):
                queued += 1
                await endpoint.broadcast(Blob(os.urandom(100_000)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(broadcast)
            await until(lambda: "waits for room" in unfinished(endpoint))
            await assert_undelayed(endpoint, "good")
            # The broadcast that waits for the bad one went to the good one.
            await until_came(good, queued)
            if fault != "busy":
                assert queued < 50
            bad.go_on()
            if fault == "deaf":
                bad.kill()
        await until_came(good, 50)
        if fault != "deaf":
            await until_came(bad, 50)  # and nothing was lost
        assert_nothing_waits(endpoint)


async def until_came(peer: Peer, blobs: int = 0, numbers: int = 0) -> None:
    """Wait until a peer has got so many events."""
    while True:
        values, sizes = await what_came(peer)
        if len(values) >= numbers and len(sizes) >= blobs:
            return


async def test_a_peer_killed_in_the_middle_of_its_50_mb_event_does_not_delay_others(
    bus: Bus, peers: Peers, caplog: pytest.LogCaptureFixture, traced: Callable[[], int]
) -> None:
    size = 50_000_000
    async with bus.serve("server") as endpoint:
        blobs = endpoint.stream(Blob)
        numbers = endpoint.stream(Number)
        good = await come(peers, endpoint, take_part, "good")
        bad = await come(peers, endpoint, begin_an_event, "bad", size)
        await until(lambda: endpoint._router.peers["bad"].reader.pending > size // 2)
        await bad.expect("half")
        await assert_undelayed(endpoint, "good")
        assert size // 2 < traced() < 2 * size  # room for a frame grows as it arrives
        bad.kill()
        await until(lambda: not endpoint.is_connected_to("bad"))
        good.say((0, 100))
        assert [event.value for event in await take(numbers, 100)] == [*range(100)]
        assert complaints(caplog) == [
            "server: closed the connection to 'bad': the connection ended in a frame "
            f"of which {size // 2} bytes were still to come"
        ]
        assert not blobs.mailbox.events
        assert traced() < MEGABYTE
        assert_nothing_waits(endpoint)


async def test_a_peer_killed_in_the_middle_of_a_50_mb_event_to_it_does_not_delay_others(
    bus: Bus, peers: Peers, caplog: pytest.LogCaptureFixture, traced: Callable[[], int]
) -> None:
    size = 50_000_000
    async with bus.serve("server") as endpoint:
        good = await come(peers, endpoint, take_part, "good")
        bad = await come(peers, endpoint, take_part, "bad")
        await endpoint.wait_until_all_endpoints_subscribed_to(Blob, include_self=False)
        bad.stop()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(endpoint.broadcast, Blob(os.urandom(size)))
            await until(lambda: "waits for room" in unfinished(endpoint))
            await until_came(good, 1)
            await assert_undelayed(endpoint, "good")
            assert endpoint._router.peers["bad"].outlet.size > size // 2
            bad.kill()
        assert (await what_came(good))[1] == [size]
        assert not endpoint.is_connected_to("bad")
        assert complaints(caplog) == []
        assert traced() < MEGABYTE
        assert_nothing_waits(endpoint)


async def test_stall_timeout_disconnects_exactly_the_peer_that_takes_nothing(
    bus: Bus, peers: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.serve("server", stall_timeout=0.3) as endpoint:
        good = await come(peers, endpoint, take_part, "good")
        idle = await come(peers, endpoint, be_present, "idle")
        stalled = await come(peers, endpoint, take_part, "stalled")
        for name in ("good", "stalled"):
            await endpoint.wait_until_endpoint_subscribed_to(name, Blob)
        idle.stop()  # nothing waits for it
        stalled.stop()
        with anyio.fail_after(5):
            began = anyio.current_time()
            for _ in range(50):  # it goes on when the stalled one is gone
                await endpoint.broadcast(Blob(os.urandom(100_000)))
            assert anyio.current_time() - began > 0.2
        assert not endpoint.is_connected_to("stalled")
        assert endpoint.is_connected_to("idle")
        (complaint,) = complaints(caplog)
        assert complaint.startswith(
            "server: closed the connection to 'stalled': it took nothing for 0.3 s, while "
        )
        await until_came(good, 50)
        assert_nothing_waits(endpoint)
        # It notices when it goes on, and may come back.
        stalled.go_on()
        stalled.kill()
        await come(peers, endpoint, take_part, "stalled")


async def test_a_peer_that_takes_little_is_not_disconnected(bus: Bus, peers: Peers) -> None:
    async with bus.serve("server", stall_timeout=0.5, drain_timeout=0) as endpoint:
        # 200 kB a second; the system says that it takes more when some 160 kB were read.
        await come(peers, endpoint, be_deaf, "slow", 4000, 0.02)
        await endpoint.wait_until_endpoint_subscribed_to("slow", Blob)
        with anyio.move_on_after(1.2):
            while True:
                await endpoint.broadcast(Blob(os.urandom(100_000)))
        assert endpoint.is_connected_to("slow")


async def test_an_endpoint_that_was_busy_itself_does_not_disconnect_its_peers(
    bus: Bus, peers: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.serve("server", stall_timeout=0.2) as endpoint:
        good = await come(peers, endpoint, take_part, "good")
        await endpoint.wait_until_endpoint_subscribed_to("good", Blob)
        data = os.urandom(100_000)
        for _ in range(3):
            for _ in range(50):
                endpoint.broadcast_nowait(Blob(data))
            await anyio.sleep(0.005)
            time.sleep(0.25)  # noqa: ASYNC251 - that is the point
        await until_came(good, 150)
        lahja = [text for text in complaints(caplog) if "server: " in text]
        assert lahja == []


@pytest.mark.parametrize(
    "config",
    [None, BroadcastConfig(internal=True), BroadcastConfig(filter_endpoint="nobody")],
    ids=["to all", "internal", "to one that is not there"],
)
async def test_a_loop_that_broadcasts_to_nobody_lets_others_run(
    bus: Bus, config: BroadcastConfig | None
) -> None:
    async with bus.serve("server") as endpoint:
        with anyio.move_on_after(0.05) as scope:
            while anyio.current_time() < scope.deadline + 5:
                await endpoint.broadcast(Number(1), config)
        assert scope.cancelled_caught


async def test_without_stall_timeout_a_peer_may_take_nothing_for_ever(
    bus: Bus, peers: Peers
) -> None:
    async with bus.serve("server", stall_timeout=None, drain_timeout=0) as endpoint:
        bad = await come(peers, endpoint, take_part, "bad")
        await endpoint.wait_until_endpoint_subscribed_to("bad", Blob)
        bad.stop()
        with anyio.move_on_after(0.3) as scope:
            while True:
                await endpoint.broadcast(Blob(os.urandom(100_000)))
        assert scope.cancelled_caught
        bad.go_on()
        with anyio.fail_after(5):
            await endpoint.broadcast(Blob(b""))
            await assert_undelayed(endpoint, "bad")


async def test_memory_for_a_peer_that_takes_nothing_is_bounded_by_the_high_water_mark(
    bus: Bus, peers: Peers
) -> None:
    high_water, size, callers = 256 * 1024, 100_000, 10
    async with bus.serve("server", high_water=high_water, drain_timeout=0) as endpoint:
        bad = await come(peers, endpoint, take_part, "bad")
        await endpoint.wait_until_endpoint_subscribed_to("bad", Blob)
        bad.stop()
        outlet = endpoint._router.peers["bad"].outlet
        waiting = 0

        async def broadcast() -> None:
            nonlocal waiting
            while True:
                waiting += 1
                await endpoint.broadcast(Blob(os.urandom(size)))
                waiting -= 1

        async with anyio.create_task_group() as tasks:
            for _ in range(callers):
                tasks.start_soon(broadcast)
            await until(lambda: waiting == callers and outlet.size > high_water)
            before = resident_size()
            await anyio.sleep(0.2)  # time to take more, for whoever does not wait
            assert waiting == callers
            assert high_water < outlet.size <= high_water + (callers + 1) * size
            assert resident_size() - before < 2 * MEGABYTE
            tasks.cancel_scope.cancel()
        bad.kill()


async def test_memory_for_what_comes_to_a_stream_that_blocks_is_bounded(
    bus: Bus, peers: Peers
) -> None:
    async with bus.serve("server") as endpoint, endpoint.stream(Blob, max_queue=10) as stream:
        sender = await come(peers, endpoint, send_blobs, "sender")
        await until(lambda: len(stream.mailbox.events) == 10)
        before, before_there = resident_size(), resident_size(sender.pid)
        for _ in range(1000):  # 100 MB
            assert len((await anext(stream)).data) == 100_000
            assert len(stream.mailbox.events) <= 10
        assert resident_size() - before < 20 * MEGABYTE
        assert resident_size(sender.pid) - before_there < 20 * MEGABYTE


async def send_blobs(home: Home, server: ConnectionConfig, name: str) -> None:
    """Broadcast blobs without end."""
    data = os.urandom(100_000)
    async with home.endpoint_class(name).run() as endpoint:
        await endpoint.connect_to_endpoints(server)
        home.say("connected")
        await endpoint.wait_until_endpoint_subscribed_to(server.name, Blob)
        while True:
            await endpoint.broadcast(Blob(data))


@pytest.mark.parametrize("how", ["goodbye", "killed", "killed in a frame"])
async def test_a_connection_that_ended_leaves_no_garbage(
    bus: Bus, peers: Peers, how: str, traced: Callable[[], int]
) -> None:
    async with bus.serve("server") as endpoint:
        if how == "killed in a frame":
            peer = await come(peers, endpoint, begin_an_event, "peer", MEGABYTE)
            await peer.expect("half")
        else:
            peer = await come(peers, endpoint, be_present, "peer")
        connection = endpoint._router.peers["peer"]
        left: list[weakref.ref[Any]] = [
            weakref.ref(connection),
            weakref.ref(endpoint._peering._channels[connection]),
        ]
        del connection
        if how == "goodbye":
            peer.say("leave")
        else:
            peer.kill()
        await until(lambda: not endpoint.is_connected_to("peer"))
        await until(lambda: not any(reference() for reference in left))
        assert not gc.isenabled()


# -- A bad handler ---------------------------------------------------------------------------


async def test_no_handler_is_noticed_by_anything_else(
    bus: Bus, peers: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    count = 500
    async with bus.serve("server") as endpoint:
        answers: list[int] = []
        calls: list[str] = []

        async def be_slow(event: Number) -> None:
            calls.append("slow")
            await anyio.sleep_forever()

        def fail(event: Number) -> None:
            raise ZeroDivisionError

        async def fail_later(event: Number) -> None:
            await anyio.lowlevel.checkpoint()
            raise ZeroDivisionError

        async def ask(event: Number) -> None:
            answers.append((await endpoint.request(Question(event.value), to("peer"))).value)

        def leave(event: Number) -> None:
            calls.append("self")
            own.unsubscribe()

        def end_others(event: Number) -> None:
            calls.append("others")
            others.unsubscribe()
            victim.unsubscribe()

        first = endpoint.stream(Number)
        endpoint.subscribe(Number, be_slow)
        endpoint.subscribe(Number, fail)
        own = endpoint.subscribe(Number, leave)
        endpoint.subscribe(Number, fail_later)
        others = endpoint.subscribe(Number, end_others)
        victim = endpoint.subscribe(Number, lambda event: calls.append("victim"))
        endpoint.subscribe(Number, ask)
        endpoint.stream(Number)  # abandoned at once
        abandoned = endpoint.stream(Number)
        last = endpoint.stream(Number)
        texts = endpoint.stream(Text)
        peer = await come(peers, endpoint, take_part, "peer")
        await endpoint.wait_until_endpoint_subscribed_to("peer", Question)

        peer.say((0, count))
        with anyio.fail_after(10):
            assert [event.value for event in await take(first, count)] == [*range(count)]
            assert [event.value for event in await take(last, count)] == [*range(count)]
            assert (await anext(texts)).text == "done"
            await until(lambda: len(answers) == count)
            await assert_undelayed(endpoint, "peer")
        assert answers == [*range(count)]
        assert sorted(calls) == ["others", "self", "slow"]
        assert len(abandoned.mailbox.events) == count
        await until(lambda: len(complaints(caplog)) == 2 * count)
        assert all(
            "failed with an event of type Number" in text and "server: handler" in text
            for text in complaints(caplog)
        )
        assert_nothing_waits(endpoint)


# -- A bad stream ----------------------------------------------------------------------------


async def flood(stream: Stream[Number], sender: Peer, texts: Stream[Text]) -> None:
    """Let a thousand numbers come for a stream that nobody reads."""
    sender.say((0, 1000))
    assert (await anext(texts)).text == "done"


@pytest.mark.parametrize(
    ("overflow", "bound", "kept"),
    [
        ("drop_oldest", 10, [*range(990, 1000)]),
        ("drop_newest", 10, [*range(10)]),
        ("latest", None, [999]),
    ],
)
async def test_drops_are_counted_and_logged_once_per_burst(
    bus: Bus,
    peers: Peers,
    caplog: pytest.LogCaptureFixture,
    overflow: Overflow,
    bound: int | None,
    kept: list[int],
) -> None:
    caplog.set_level(logging.DEBUG, "lahja")
    async with bus.serve("server") as endpoint:
        texts = endpoint.stream(Text)
        stream = endpoint.stream(Number, max_queue=bound, overflow=overflow)
        sender = await come(peers, endpoint, take_part, "sender")
        for burst in (1, 2, 3):
            await flood(stream, sender, texts)
            assert stream.dropped == burst * (1000 - len(kept))
            assert sum("is full with" in record.getMessage() for record in caplog.records) == burst
            assert [event.value for event in await take(stream, len(kept))] == kept
        await assert_undelayed(endpoint, "sender")


async def test_a_burst_is_over_when_its_stream_was_read_and_not_when_one_event_was(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.serve("server") as endpoint:
        stream = endpoint.stream(Number, max_queue=10, overflow="drop_oldest")
        for value in range(1000):  # twice as many as are read
            await endpoint.broadcast(Number(2 * value))
            await endpoint.broadcast(Number(2 * value + 1))
            await anext(stream)
        assert stream.dropped == 991
        assert len(complaints(caplog)) == 1


async def test_a_stream_that_overflows_with_raise_raises_and_disturbs_nobody(
    bus: Bus, peers: Peers
) -> None:
    async with bus.serve("server") as endpoint:
        texts = endpoint.stream(Text)
        stream = endpoint.stream(Number, max_queue=10, overflow="raise")
        other = endpoint.stream(Number)
        sender = await come(peers, endpoint, take_part, "sender")
        await flood(stream, sender, texts)
        assert len(stream.mailbox.events) == 10
        with pytest.raises(StreamOverflow, match="was full: 10 events were waiting"):
            await anext(stream)
        assert [event.value for event in await take(other, 1000)] == [*range(1000)]
        await assert_undelayed(endpoint, "sender")


async def test_a_stream_that_blocks_holds_back_neither_other_types_nor_responses(
    bus: Bus, peers: Peers
) -> None:
    async with bus.serve("server") as endpoint:
        stream = endpoint.stream(Number, max_queue=10)
        texts = endpoint.stream(Text)
        sender = await come(peers, endpoint, take_part, "sender")
        await endpoint.wait_until_endpoint_subscribed_to("sender", Question)
        sender.say((0, 1000))
        await until(lambda: len(stream.mailbox.events) == 10)
        for _ in range(10):
            sender.say("say something")
            assert (await anext(texts)).text == "something"
        await assert_undelayed(endpoint, "sender")
        sender.say("how many sent?")
        await sender.expect(10)
        assert len(stream.mailbox.events) == 10

        # A consumer may ask the very peer that it holds back.
        for value in range(1000):
            assert (await anext(stream)).value == value
            assert len(stream.mailbox.events) <= 10
            if value % 10 == 0:
                with anyio.fail_after(5):
                    answer = await endpoint.request(Question(value), to("sender"))
                assert answer == Answer(value)
        assert (await anext(texts)).text == "done"
        assert_nothing_waits(endpoint)


@pytest.mark.parametrize("way", ["dropped", "closed"])
async def test_an_abandoned_stream_that_blocks_lets_its_senders_go(
    bus: Bus, peers: Peers, way: str
) -> None:
    async with bus.serve("server") as endpoint:
        texts = endpoint.stream(Text)
        streams = [endpoint.stream(Number, max_queue=10)]
        sender = await come(peers, endpoint, take_part, "sender")
        sender.say((0, 1000))
        await until(lambda: len(streams[0].mailbox.events) == 10)
        if way == "closed":
            await streams[0].aclose()
        else:
            streams.clear()
        with anyio.fail_after(5):
            assert (await anext(texts)).text == "done"
        assert_nothing_waits(endpoint)


class Spoilt:
    """Be pickled, and nothing more."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _never_load, ()


def _never_load() -> None:
    raise ZeroDivisionError


async def test_events_that_do_not_decode_use_up_no_credit(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.pair() as (server, client), server.stream(Blob, max_queue=10) as stream:
        await client.wait_until_endpoint_subscribed_to("server", Blob)
        with anyio.fail_after(5):
            for _ in range(50):
                await client.broadcast(Blob(Spoilt()))  # type: ignore[arg-type]
            await client.broadcast(Blob(b"good"))
            assert (await anext(stream)).data == b"good"
    *written, summary = complaints(caplog)  # not fifty lines of one kind about one peer
    assert len(written) == 5
    assert summary.startswith("server: 45 more like this about client in 10 s, the last one: lost")


async def hold_back(home: Home, server: ConnectionConfig, name: str) -> None:
    """Stream numbers, ten at a time, and read none."""
    async with home.endpoint_class(name).run() as endpoint, endpoint.stream(Number, max_queue=10):
        await endpoint.connect_to_endpoints(server)
        home.say("connected")
        await home.hear()


async def test_a_consumer_that_is_killed_holds_its_senders_back_no_longer(
    bus: Bus, peers: Peers
) -> None:
    async with bus.serve("server") as endpoint:
        consumer = await come(peers, endpoint, hold_back, "consumer")
        good = await come(peers, endpoint, take_part, "good")
        for name in ("consumer", "good"):
            await endpoint.wait_until_endpoint_subscribed_to(name, Number)
        sent = 0

        async def broadcast() -> None:
            nonlocal sent
            for value in range(1000):
                await endpoint.broadcast(Number(value))
                sent += 1

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(broadcast)
                await until(lambda: sent == 10)
                await assert_undelayed(endpoint, "good")
                assert sent == 10
                await until_came(good, numbers=11)  # the one that waits went to the good one
                consumer.kill()
        await until_came(good, numbers=1000)
        assert (await what_came(good))[0] == [*range(1000)]
        assert_nothing_waits(endpoint)
