"""
What a peer can make an endpoint spend: connections, memory, names, time.

What cannot be seen from outside (memory, and thousands of random conversations) is tried on a
:class:`~proxy.Side`, an endpoint without I/O.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import random
import re
import resource
import socket
import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import anyio
import anyio.lowlevel
import psutil
import pytest
from attacks import (
    COMPLETE,
    EVENTS,
    PEERS,
    PLAIN_TEXT,
    TEXT,
    announce,
    cases,
    event,
    hello,
    nothing_goes_off,
    one_line,
    random_frame,
    undisturbed,
    varint,
)
from helpers import (
    Bus,
    Number,
    Question,
    Text,
    complaints,
    raw_connection,
    raw_frame,
    raw_peer,
    until,
)
from proxy import Link, Side

from lahja import BaseEvent, EncodeError, Stream, wire
from lahja.compression import has_snappy
from lahja.framing import encode_value
from lahja.protocol import control_frame

if has_snappy():
    snappy: Any = importlib.import_module("snappy")


@pytest.fixture(autouse=True)
def harmless() -> Iterator[None]:
    """Make sure that no bomb went off."""
    with nothing_goes_off():
        yield


# -- Floods ----------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_half_frames_and_silence_are_held_no_longer_than_the_hello_may_take(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    halves = [b"", b"\1", hello()[:-1], hello(), hello() + COMPLETE[:9]]
    async with undisturbed(bus, hello_timeout=0.2) as server:
        with ExitStack() as stack:
            peers = [stack.enter_context(raw_connection(server.ipc_path)) for _ in halves]
            for peer, half in zip(peers, halves, strict=True):
                await peer.send(half)
            for peer in peers:
                await peer.closed()
        lines = complaints(caplog)
        assert len(lines) == len(halves), lines
        assert all("no hello within 0.2 s" in line for line in lines)


@pytest.mark.anyio
async def test_half_frames_of_peers_may_be_held_for_hours(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    """A frame of 256 MiB, of which a byte came: it costs what came."""
    async with undisturbed(bus) as server, raw_peer(server, "mallory") as peer:
        await peer.send(struct.pack("<IB", wire.MAX_FRAME_SIZE, wire.EVENT))
        connection = server._router.peers["mallory"]
        await until(lambda: connection.reader.pending == 5)
        with connection.reader.get_buffer() as room:
            assert len(room) <= 64 * 1024
    assert len(complaints(caplog)) == 1
    assert "268435455 bytes were still to come" in complaints(caplog)[0]


@pytest.mark.anyio
async def test_ten_thousand_connections_that_say_nothing(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    count = 10_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    held = count if hard == resource.RLIM_INFINITY else min(count, hard - 2000)
    silent: list[socket.socket] = []
    caplog.handler.setFormatter(logging.Formatter("%(message)s"))
    memory = psutil.Process().memory_info().rss
    try:
        async with undisturbed(bus, hello_timeout=5) as server:
            for number in range(count):
                sock = socket.socket(socket.AF_UNIX)
                sock.setblocking(False)
                silent.append(sock)
                while sock.connect_ex(str(server.ipc_path)):  # noqa: ASYNC110 - its backlog
                    await anyio.sleep(0.001)
                if len(silent) > held:
                    silent.pop(0).close()
                if number % 64 == 0:
                    assert len(server._peering._strangers) <= 256
                    await anyio.lowlevel.checkpoint()
                if number % 2500 == 2499:  # those who have something to say get in meanwhile
                    async with bus.connect(f"newcomer {number}", "server") as newcomer:
                        assert (await newcomer.request(Question(number))).value == number
            # The last ones have until hello_timeout; whoever hangs up is not complained about.
            await until(lambda: not server._peering._strangers)
        lines = complaints(caplog)
        assert len(lines) < 100
        assert all("connections that say nothing" in line or "no hello" in line for line in lines)
        more = [int(match[1]) for line in lines if (match := re.match(r"server: (\d+) more", line))]
        assert count - 256 <= len(lines) - len(more) + sum(more) <= count
    finally:
        for sock in silent:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    gc.collect()
    assert psutil.Process().memory_info().rss - memory < 120_000_000  # and the log is part of it


@pytest.mark.anyio
async def test_without_file_descriptors_the_silent_make_room_for_the_others(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    process = psutil.Process()
    with ExitStack() as stack:
        async with undisturbed(bus) as server:
            newcomer = bus.endpoint_class("newcomer")
            async with newcomer.run():
                for _ in range(20):
                    stack.enter_context(raw_connection(server.ipc_path))
                await until(lambda: len(server._peering._strangers) == 20)
                stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
                # Just enough for the connecting side of the newcomer.
                resource.setrlimit(resource.RLIMIT_NOFILE, (_lowest_free() + 1, hard))
                await newcomer.connect_to_endpoints(bus.config("server"))
                assert (await newcomer.request(Question(1))).value == 1
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert process.is_running()
    lines = complaints(caplog)
    assert any("Too many open files" in line for line in lines), lines
    assert len(lines) <= 3, lines


def _lowest_free() -> int:
    """Return the file descriptor that the process would get next."""
    descriptor = os.dup(0)
    os.close(descriptor)
    return descriptor


@pytest.mark.anyio
async def test_floods_of_announcements_and_subscriptions_are_limited(
    bus: Bus, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "MAX_TYPES", 50)
    monkeypatch.setattr(wire, "MAX_NAMES_SIZE", 20_000)
    many = [f"type {i}" for i in range(60)]
    long = ["x" * 3000 + str(i) for i in range(10)]
    floods = {
        "announced more than 50 types": [announce(i, n) for i, n in enumerate(many)],
        "names of more than 20000 bytes": [announce(i, n) for i, n in enumerate(long)],
        "more than 50 types": [control_frame(wire.SUBSCRIBE, {n: None}, (), True) for n in many],
        "of more than 20000 bytes": [
            control_frame(wire.SUBSCRIBE, {n: None}, (), True) for n in long
        ],
    }
    async with undisturbed(bus) as server:
        for line, flood in floods.items():
            async with raw_peer(server, "mallory") as peer:
                await peer.send(*flood)
                await peer.closed()
            one_line(caplog, line, "'mallory'")
            caplog.clear()
            assert not server._router._interest.keys() & {*many, *long}
        async with raw_peer(server, "mallory") as peer:  # who takes back what it said may go on
            for name in many + long:
                await peer.send(control_frame(wire.SUBSCRIBE, {name: None}, (), True))
                await peer.send(control_frame(wire.SUBSCRIBE, {}, (name,), True))
            await peer.send(announce(0, TEXT), event(0, PLAIN_TEXT))
            await anext(server.stream(Text))
    assert not complaints(caplog)


@pytest.mark.anyio
async def test_whoever_reads_nothing_from_the_first_moment_is_disconnected(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    """The endpoint's own hello is more than the system takes for a peer."""
    async with undisturbed(bus, stall_timeout=0.2) as server:
        many = [type(f"Type{i}{'x' * 3000}", (BaseEvent,), {}) for i in range(300)]
        streams: list[Stream[Any]] = [server.stream(cls) for cls in many]
        with raw_connection(server.ipc_path) as peer:
            await peer.send(hello(), COMPLETE)
            await server.wait_until_connected_to("mallory")
            await until(lambda: not server.is_connected_to("mallory"))
        for stream in streams:
            await stream.aclose()
        one_line(caplog, "'mallory': it took nothing for 0.2 s, while .* waited for it", "server")


@pytest.mark.anyio
async def test_the_least_max_frame_size_holds_any_handshake(bus: Bus) -> None:
    async with (
        bus.serve("server", max_frame_size=1024) as server,
        bus.connect("client", "server", max_frame_size=1024) as client,
    ):
        types = [type(f"Type{i}", (BaseEvent,), {}) for i in range(500)]
        streams: list[Stream[Any]] = [server.stream(cls) for cls in types]
        streams += [client.stream(cls) for cls in types]
        async with bus.connect("newcomer", "server", max_frame_size=1024) as newcomer:
            streams += [newcomer.stream(cls) for cls in types]
            await server.wait_until_endpoint_subscribed_to("newcomer", types[-1])
            assert newcomer.are_all_endpoints_subscribed_to(types[0])
            streams.append(server.stream(Text))
            await newcomer.wait_until_endpoint_subscribed_to("server", Text)
            with pytest.raises(EncodeError, match="accepts 1024"):
                await newcomer.broadcast(Text("x" * 1100))
        for stream in streams:
            await stream.aclose()


# -- Without I/O: memory, and many random conversations --------------------------------------


def established(**options: Any) -> Side:
    """Return an endpoint without I/O that a raw peer, to be played by the test, is connected to."""
    side = Side("server", **options)
    side.subscribe(Text, Number, Question)
    side.open()
    side.hear(hello() + COMPLETE + announce(9, TEXT))
    side.said()
    return side


@pytest.mark.parametrize(("attack", "line"), cases(PEERS) + cases(EVENTS))
def test_memory_is_bounded_by_what_was_sent(attack: bytes, line: str) -> None:
    side = established()
    attack = bytes(attack)
    if not tracemalloc.is_tracing():
        tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        side.hear(attack)
        used = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert used < 400_000 + 5 * len(attack)
    assert line in str(side.error) or any(line in text for text in side.lines)


@pytest.mark.skipif(not has_snappy(), reason="needs the extra snappy")
def test_a_compressed_frame_costs_its_real_size() -> None:
    """Snappy makes three bytes of 64 at best; what claims more is refused before it is unpacked."""
    side = established(max_frame_size=2_000_000)
    body = event(9, b"\0" + encode_value("a" * 1_900_000))[4:]
    packed = snappy.compress(body)
    assert len(packed) < 100_000
    side.hear(raw_frame(wire.COMPRESSED, packed))
    assert [e.text for e in side.received] == ["a" * 1_900_000]
    side.hear(raw_frame(wire.COMPRESSED, varint(2_000_001) + packed[3:]))
    assert "2000001 bytes is over the limit" in str(side.error)


def test_a_hundred_thousand_types_and_no_more() -> None:
    side = established()
    flood = b"".join(announce(100 + i, f"m:{i}", 0, ()) for i in range(wire.MAX_TYPES - 1))
    side.hear(flood)
    assert side.error is None
    side.hear(announce(1, "m:one too many"))
    assert "announced more than 100000 types" in str(side.error)


def test_random_valid_looking_frames_end_a_connection_at_worst() -> None:
    rng = random.Random(20_261_122)
    endings = set()
    for number in range(1500):
        side = established() if number % 3 else Side("server")
        if not number % 3:
            side.open()
            side.hear(hello() if number % 2 else b"")
        frames = [random_frame(rng) for _ in range(rng.randrange(1, 30))]
        spoilt = bytearray(b"".join(frames))
        if number % 2:
            for _ in range(rng.randrange(4)):
                spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
        for event_sent in range(3):
            if side.connection is not None:
                side.router.broadcast(Text(str(event_sent)), None, False)
                side.hear(bytes(spoilt[event_sent::1][:100]) if event_sent else bytes(spoilt))
        side.lose()
        endings.add(str(side.error)[:12])
        assert not side.router.peers
        assert len(side.lines) <= len(spoilt) // 5
        assert all(line.isprintable() for line in side.lines)
        assert all(type(e) in (Text, Number, Question) for e in side.received)
    assert len(endings) > 10


def test_two_ends_that_are_honest_have_nothing_to_complain_about() -> None:
    """The control of the tests without I/O."""
    client, server = Side("client"), Side("server")
    server.subscribe(Text)
    link = Link(client, server)
    link.carry()
    client.router.broadcast(Text("hello"), None, True)
    link.carry()
    assert [text.text for text in server.received] == ["hello"]
    assert not client.lines + server.lines
    assert isinstance(server.received[0], Text)
