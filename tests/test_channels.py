"""Channels and what owns them, in the moments that hardly ever come: on every backend."""

from __future__ import annotations

import errno
import gc
import itertools
import logging
import os
import socket
import struct
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from helpers import (
    Bus,
    Number,
    Question,
    RawPeer,
    RawServer,
    Text,
    answer_questions,
    complaints,
    raw_connection,
    raw_frame,
    raw_peer,
    take,
    until,
)

from lahja import AsyncioEndpoint, MembershipReason, Stream, channels, peering, survey, wire
from lahja.base import BaseEndpoint
from lahja.channels import Channel
from lahja.framing import encode_value
from lahja.protocol import control_frame

pytestmark = pytest.mark.anyio

HOURS = 10_000.0  # seconds


def channel_of(endpoint: BaseEndpoint, name: str) -> Channel:
    """Return the channel to a peer."""
    return endpoint._peering._channels[endpoint._router.peers[name]]


class Clock:
    """Be the clock of an endpoint, from now on: time goes by when the test says so."""

    def __init__(self, endpoint: BaseEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        monkeypatch.setattr(endpoint._loop, "call_later", self.call_later)
        monkeypatch.setattr(endpoint._loop, "time", lambda: self.now)

    def call_later(self, seconds: float, function: Callable[[], None]) -> Callable[[], None]:
        timer = (self.now + seconds, function)
        if seconds < HOURS:
            self.timers.append(timer)

        def cancel() -> None:
            if timer in self.timers:
                self.timers.remove(timer)

        return cancel

    def next(self) -> None:
        """Let time go by until the only timer is due."""
        ((self.now, function),) = self.timers
        self.timers.clear()
        function()


# -- Channels --------------------------------------------------------------------------------


async def test_what_is_broadcast_to_a_peer_that_has_just_gone_is_dropped(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.serve("server") as server, bus.connect("other", "server") as other:
        texts = other.stream(Text)
        await server.wait_until_endpoint_subscribed_to("other", Text)
        async with raw_peer(server, "raw", {Text: None}) as peer:
            outlet = channel_of(server, "raw").connection.outlet
            peer.socket.close()
            for _ in range(20):  # in the same turn: nobody has noticed yet
                server.broadcast_nowait(Text("x" * 30_000))
            assert server.is_connected_to("raw")
            assert outlet.size < 20 * 30_000
            await until(lambda: not server.is_connected_to("raw"))
        assert len(await take(texts, 20)) == 20
    assert not complaints(caplog)


class SlowSocket:
    """Be the socket of a channel, by which each write takes ten microseconds."""

    def __init__(self, sock: socket.socket, clock: list[float]) -> None:
        self.socket = sock
        self.clock = clock
        self.writes = 0

    def send(self, data: bytes, flags: int) -> int:
        self.clock[0] += 10e-6
        self.writes += 1
        return self.socket.send(data, flags)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.socket, name)


async def test_what_many_peers_want_is_gathered_as_what_one_wants(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bus.serve("server") as server, AsyncExitStack() as stack:
        names = [f"raw{number}" for number in range(16)]
        for name in names:
            await stack.enter_async_context(raw_peer(server, name, {Number: None}))
        clock = [time.monotonic() + 1]
        fake = SimpleNamespace(monotonic=lambda: clock[0], time=time.time)
        monkeypatch.setattr("lahja.channels.time", fake)
        sockets = []
        for name in names:
            channel = channel_of(server, name)
            sockets.append(SlowSocket(channel.socket, clock))
            monkeypatch.setattr(channel, "socket", sockets[-1])
        for value in range(100):  # all others are written to between two writes to one of them
            server.broadcast_nowait(Number(value))
        assert [each.writes for each in sockets] == [1] * 16
        await until(
            lambda: not any(channel_of(server, each).connection.outlet.size for each in names)
        )
        assert [each.writes for each in sockets] == [2] * 16
        clock[0] += 1
        server.broadcast_nowait(Number(100))
        assert [each.writes for each in sockets] == [3] * 16


async def test_a_socket_that_takes_more_again_when_it_is_closed_is_left_alone(bus: Bus) -> None:
    async with bus.serve("server") as server, raw_peer(server, "raw", {Text: None}) as peer:
        channel = channel_of(server, "raw")
        while not channel.blocked:
            server.broadcast_nowait(Text("x" * 100_000))
        channel.close()
        channel.on_writable()
        channel._wake()
        assert channel.blocked
        assert not channel.on_readable()
        await peer.closed()


async def test_the_system_is_asked_for_a_longer_buffer_when_there_are_long_events(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    for least, grows in ((channels._SEND_BUFFER, True), (1, False)):
        monkeypatch.setattr(channels, "_SEND_BUFFER", least)
        async with bus.serve("server") as server, raw_peer(server, "raw", {Text: None}) as peer:
            channel = channel_of(server, "raw")
            channel.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
            before = channel.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            while not channel.blocked:
                server.broadcast_nowait(Text("x" * 30_000))
            assert channel.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == before
            server.broadcast_nowait(Text("x" * 100_000))
            while channel.connection.outlet.size:
                await peer.read()
            after = channel.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            assert (after > before) is grows


async def test_a_peer_that_reads_by_fits_and_starts_gets_everything(bus: Bus) -> None:
    """The socket is full again and again, and in between everything is written."""
    values = [bytes((number,)) * 3_000_000 for number in range(5)]
    async with bus.serve("server") as server, raw_peer(server, "raw", {Number: None}) as peer:
        channel = channel_of(server, "raw")
        for value in values:
            server.broadcast_nowait(Number(value))  # type: ignore[arg-type]
            assert channel.blocked
            body = await peer.read_kind(wire.EVENT)
            assert body.endswith(value)
            assert channel.connection.outlet.size == 0
            await until(lambda: not channel.blocked)
        server.broadcast_nowait(Number(values[0]))  # type: ignore[arg-type]
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        channel.close()  # while somebody waits until the socket takes more
        await peer.closed()


class SlowHandler:
    """Handle numbers, each of which takes ten milliseconds by the clock of a channel's reader."""

    def __init__(self, endpoint: BaseEndpoint, name: str) -> None:
        self.seconds = 0.0
        self.values: list[int] = []
        self.channel = channel_of(endpoint, name)
        self.channel.connection.reader.clock = lambda: self.seconds
        endpoint.subscribe(Number, self.handle)

    def handle(self, event: Number) -> None:
        self.values.append(event.value)
        self.seconds += 0.01


async def numbers_from(peer: RawPeer, count: int) -> bytes:
    """Return the frames of numbered events, whose type is announced."""
    type_id = struct.pack("<I", await peer.announce(Number(0)))
    payloads = [bytes((wire.PLAIN,)) + encode_value(value) for value in range(count)]
    return b"".join(raw_frame(wire.EVENT, type_id + payload) for payload in payloads)


async def test_a_handler_that_blocks_leaves_turns_to_everybody_else(bus: Bus) -> None:
    async with bus.serve("server") as server, raw_peer(server) as peer:
        handler = SlowHandler(server, "raw")
        done_by_turn: list[int] = []

        async def take_turns() -> None:
            while len(handler.values) < 40:
                done_by_turn.append(len(handler.values))
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take_turns)
            await peer.send(await numbers_from(peer, 40))
        assert handler.values == [*range(40)]
        assert len({*done_by_turn}) >= 5
        done = itertools.pairwise(done_by_turn)
        assert max(after - before for before, after in done) <= 16  # in trio's turns: two of them
        texts = server.stream(Text)
        await peer.send(await numbers_from(peer, 5))
        await peer.send_event(Text("in its turn"))
        await take(texts, 1)
        assert handler.values == [*range(40), *range(5)]


async def test_what_a_peer_said_before_it_left_is_handled_before_it_is_gone(bus: Bus) -> None:
    async with bus.serve("server") as server, raw_peer(server) as peer:
        handler = SlowHandler(server, "raw")
        changes = server.membership()
        done: list[int] = []
        await peer.send(await numbers_from(peer, 30), control_frame(wire.GOODBYE))
        peer.socket.close()
        async for change in changes:
            if not change.joined:
                done.append(len(handler.values))
                assert change.reason is MembershipReason.GOODBYE
                break
        assert done == [30]


async def test_what_a_dead_peer_said_is_handled_before_its_successor_says_anything(
    bus: Bus,
) -> None:
    async with bus.serve("server") as server, raw_peer(server) as peer:
        handler = SlowHandler(server, "raw")
        await peer.send(await numbers_from(peer, 30))
        peer.socket.close()
        assert handler.channel.on_readable()
        assert 0 < len(handler.values) < 30
        assert server._peering._is_peer_gone(handler.channel.connection)
        assert handler.values == [*range(30)]
        assert handler.channel.closed


async def test_what_a_peer_said_is_handled_in_turns_where_writing_to_it_fails(bus: Bus) -> None:
    async with bus.serve("server") as server, raw_peer(server, "raw", {Text: None}) as peer:
        handler = SlowHandler(server, "raw")
        data = await numbers_from(peer, 200)
        peer.socket.send(data)
        peer.socket.close()
        server.broadcast_nowait(Text("to nobody"))  # in the same turn
        assert not handler.values
        seen: list[int] = []
        while server.is_connected_to("raw"):
            seen.append(len(handler.values))
            await anyio.lowlevel.checkpoint()
        assert handler.values == [*range(200)]
        assert len({*seen}) >= 3


async def test_what_waits_for_another_turn_is_dropped_when_the_endpoint_stops(bus: Bus) -> None:
    async with bus.serve("server") as server, raw_peer(server) as peer:
        handler = SlowHandler(server, "raw")
        await peer.send(await numbers_from(peer, 30))
        assert handler.channel.on_readable()
        handler.channel.close()
        count = len(handler.values)
        assert 0 < count < 30
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        assert len(handler.values) == count


async def test_a_fault_of_lahja_itself_ends_one_connection_and_says_where_it_was(
    bus: Bus, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bus.serve("server") as server, bus.connect("other", "server") as other:
        answer_questions(server)
        await other.wait_until_endpoint_subscribed_to("server", Question)
        async with raw_peer(server) as peer:
            connection = channel_of(server, "raw").connection

            def receive(count: int) -> None:
                raise MemoryError("no room")

            monkeypatch.setattr(connection, "receive", receive)
            await peer.send(raw_frame(wire.GOODBYE))
            await peer.closed()
        assert not server.is_connected_to("raw")
        assert (await other.request(Question(1))).value == 1
    (record,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert record.levelno == logging.ERROR
    assert record.getMessage() == "server: closed the connection to 'raw'"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], MemoryError)


@pytest.mark.parametrize("is_early", [False, True])
async def test_a_peer_is_disconnected_when_it_took_nothing_since_it_last_took_something(
    bus: Bus, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, is_early: bool
) -> None:
    """``is_early`` where the peer reads nothing from the beginning."""
    async with bus.serve("server", stall_timeout=10, hello_timeout=HOURS) as server:
        clock = Clock(server, monkeypatch)
        types = [type(f"{'x' * 3000}{number}", (Number,), {}) for number in range(100 * is_early)]
        streams: list[Stream[Any]] = [server.stream(each) for each in types]
        with raw_connection(server.ipc_path) as peer:
            await peer.hello("raw", {Text: None})
            await server.wait_until_connected_to("raw")
            if not is_early:
                await peer.subscribed()
            channel = channel_of(server, "raw")
            while not channel.blocked:
                assert not is_early
                server.broadcast_nowait(Text("x" * 50_000))
            assert [when for when, _ in clock.timers] == [1]  # when it is worth a line
            clock.next()
            assert channel.is_stalled
            assert [when for when, _ in clock.timers] == [10]

            clock.now = 6
            while channel.blocked:
                await peer.read()
            while not channel.blocked:
                server.broadcast_nowait(Text("x" * 50_000))
            clock.next()
            assert [when for when, _ in clock.timers] == [16]  # it took something at 6

            peer.socket.recv(1 << 20)  # in this very turn: the event loop does not know
            clock.next()
            assert [when for when, _ in clock.timers] == [26]

            clock.next()
            assert channel.closed
            assert not server.is_connected_to("raw")
        assert not clock.timers
        for stream in streams:
            await stream.aclose()
    (line,) = complaints(caplog)
    assert line.startswith("server: closed the connection to 'raw': it took nothing for 10 s, ")


async def test_without_a_stall_timeout_a_stall_is_noticed_once_and_waited_for(
    bus: Bus, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    async with (
        bus.serve("server", stall_timeout=None) as server,
        raw_peer(server, "raw", {Text: None}) as peer,
    ):
        clock = Clock(server, monkeypatch)
        channel = channel_of(server, "raw")
        while not channel.blocked:
            server.broadcast_nowait(Text("x" * 50_000))
        clock.next()
        assert clock.now == 1
        assert not clock.timers
        assert [text for text in caplog.messages if "has taken nothing for 1.0 s" in text]
        while channel.blocked:
            await peer.read()
        channel.close()


async def test_a_peer_that_has_taken_everything_is_watched_no_more(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bus.serve("server") as server, raw_peer(server, "raw", {Text: None}) as peer:
        clock = Clock(server, monkeypatch)
        channel = channel_of(server, "raw")
        for _ in range(2):
            while not channel.blocked:
                server.broadcast_nowait(Text("x" * 50_000))
            assert channel.is_watched
            while channel.blocked:
                await peer.read()
            clock.next()
            assert not channel.is_watched
            assert not clock.timers
        channel.close()


async def test_a_peer_that_takes_nothing_again_is_watched_from_then_on(
    bus: Bus, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    async with bus.serve("server") as server, raw_peer(server, "raw", {Text: None}) as peer:
        clock = Clock(server, monkeypatch)
        channel = channel_of(server, "raw")
        for clock.now in (0.0, 0.5):
            while channel.blocked:
                await peer.read()
            while not channel.blocked:
                server.broadcast_nowait(Text("x" * 50_000))
        assert [when for when, _ in clock.timers] == [1]
        clock.next()
        assert not channel.is_stalled
        assert [when for when, _ in clock.timers] == [1.5]
        assert not [text for text in caplog.messages if "has taken nothing" in text]
        clock.next()
        assert channel.is_stalled
        assert [text for text in caplog.messages if "has taken nothing for 1.0 s" in text]
        while channel.blocked:
            await peer.read()
        channel.close()


# -- Serving ---------------------------------------------------------------------------------


async def test_a_server_that_cannot_accept_tries_again_after_a_pause(
    bus: Bus, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peering, "_PAUSE_WHEN_FULL", 0.01)
    async with bus.serve("server") as server:
        listener = server._peering.listener
        assert listener is not None
        accept, failures = listener.accept, [errno.ENOBUFS, errno.EMFILE]

        def accept_later() -> socket.socket | None:
            if failures:
                number = failures.pop()
                raise OSError(number, os.strerror(number))
            return accept()

        monkeypatch.setattr(listener, "accept", accept_later)
        async with bus.connect("client", "server") as client:
            assert client.is_connected_to("server")
    lines = complaints(caplog)
    for line, number in zip(lines, (errno.EMFILE, errno.ENOBUFS), strict=True):
        reason = OSError(number, os.strerror(number))
        assert line.startswith(f"server: cannot accept connections for a moment: {reason}")


@pytest.mark.parametrize("when", ["while it pauses", "when it begins to pause"])
async def test_a_server_may_leave_while_it_cannot_accept(
    bus: Bus, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr(peering, "_PAUSE_WHEN_FULL", 100)
    async with bus.serve("server") as server:
        clock = Clock(server, monkeypatch)
        listener = server._peering.listener
        assert listener is not None
        refused: list[bool] = []

        def refuse() -> None:
            refused.append(True)
            if when == "when it begins to pause":
                server._stop_listening()
            raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))

        monkeypatch.setattr(listener, "accept", refuse)
        with raw_connection(server.ipc_path):
            await until(lambda: refused)
    # trio cancels a pause, asyncio's comes to its end.
    if bus.endpoint_class is AsyncioEndpoint and when == "while it pauses":
        clock.next()
    assert not clock.timers
    assert len(refused) == len(complaints(caplog)) == 1


async def test_many_that_connect_at_once_are_taken_in_turns(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peering, "_ACCEPTED_PER_TURN", 2)
    async with bus.serve("server") as server, AsyncExitStack() as stack:
        for _ in range(5):
            stack.enter_context(raw_connection(server.ipc_path))
        for count in (2, 4, 5, 5):
            assert server._peering._accept() == 0
            assert len(server._peering._strangers) == count


async def test_strangers_make_room_where_there_is_none(
    bus: Bus, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peering, "_MOST_STRANGERS", 2)
    async with bus.serve("server") as server, AsyncExitStack() as stack:
        strangers = [stack.enter_context(raw_connection(server.ipc_path)) for _ in range(3)]
        await strangers[0].closed()
        listener = server._peering.listener
        assert listener is not None
        accept, failures = listener.accept, [errno.EMFILE]

        def accept_later() -> socket.socket | None:
            if failures:
                raise OSError(failures.pop(), "too many open files")
            return accept()

        monkeypatch.setattr(listener, "accept", accept_later)
        async with bus.connect("client", "server") as client:
            assert client.is_connected_to("server")
        await strangers[1].closed()
        assert len(server._peering._strangers) == 1
    assert complaints(caplog) == [
        "server: closed the connection to a stranger: too many connections that say nothing",
        "server: closed the connection to a stranger: "
        "it says nothing, while there are too many open files",
    ]


async def test_a_server_that_listens_no_more_accepts_nobody(bus: Bus) -> None:
    async with bus.serve("server") as server:
        with raw_connection(server.ipc_path):  # it waits in the backlog
            server._stop_listening()
            assert server._peering._accept() == 0.0
            assert not server._peering._strangers
        assert not server.is_serving
        assert server.is_server_stopped


async def test_who_has_left_before_it_was_asked_for_its_user_is_not_let_in(
    bus: Bus, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def peer_user(sock: socket.socket) -> int:
        asked.append(sock)
        if len(asked) == 1:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))  # as macOS does
        return os.geteuid()

    monkeypatch.setattr(peering, "peer_user", peer_user)
    async with bus.serve("server") as server:
        with raw_connection(server.ipc_path) as peer:
            await peer.closed()
        assert asked[0].fileno() < 0
        asked.clear()
        async with bus.connect("client", "server") as client:  # which has to try twice
            assert client.is_connected_to("server")
        assert len(asked) == 4
    assert not complaints(caplog)


async def test_a_hello_that_has_come_is_read_before_a_stranger_is_closed(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.serve("server") as server:
        with raw_connection(server.ipc_path) as peer:
            await until(lambda: server._peering._strangers)
            (channel,) = server._peering._strangers
            await peer.hello()
            server._peering._expect_hello(channel)  # the time is over, in a server that was busy
            assert server.is_connected_to("raw")
            await peer.subscribed()
            await peer.send(control_frame(wire.GOODBYE))
            await peer.closed()
    assert not complaints(caplog)


# -- Connecting ------------------------------------------------------------------------------


async def test_who_was_connected_to_in_the_last_moment_is_connected(bus: Bus) -> None:
    """The endpoint there never answers, but connects by itself when the time is over."""
    config = bus.config("raw")
    async with bus.serve("client", connect_timeout=0.2) as client:
        with RawServer(config.path) as silent, raw_connection(client.ipc_path) as peer:
            connected = anyio.Event()

            async def connect() -> None:
                await client.connect_to_endpoints(config)
                connected.set()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(connect)
                attempt = await silent.accept()
                await attempt.read_kind(wire.HELLO)
                client._router.hello = client._router.hello._replace(instance=bytes(16))
                await peer.hello("raw")  # of a greater instance: this connection is kept
                await peer.subscribed()
                await client.wait_until_connected_to("raw")
                assert not connected.is_set()
                await connected.wait()
            attempt.socket.close()
            assert client.is_connected_to("raw")


async def test_who_is_refused_because_the_other_side_connects_waits_for_that(bus: Bus) -> None:
    config = bus.config("raw")
    async with bus.serve("client") as client, AsyncExitStack() as stack:
        server = stack.enter_context(RawServer(config.path))
        peer = stack.enter_context(raw_connection(client.ipc_path))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.connect_to_endpoints, config)
            attempt = await server.accept()
            await attempt.read_kind(wire.HELLO)
            client._router.hello = client._router.hello._replace(instance=bytes(16))
            await attempt.send(control_frame(wire.REJECT, wire.REJECT_SIMULTANEOUS, "me first"))
            await attempt.closed()
            attempt.socket.close()
            await peer.hello("raw")
            await peer.subscribed()
        assert client.is_connected_to("raw")


async def test_whether_a_peer_is_gone_whose_connection_was_closed_already(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        connection = server._router.peers["client"]
        assert not server._peering._is_peer_gone(connection)
        channel_of(server, "client").close()
        assert server._peering._is_peer_gone(connection)
        assert survey._peer(server._router, server._peering, connection) is None
        await until(lambda: not client.is_connected_to("server"))


# -- What the event loops make different -----------------------------------------------------


async def test_a_timeout_of_the_body_is_not_taken_for_the_deadline(bus: Bus) -> None:
    async with bus.run() as endpoint:
        with pytest.raises(TimeoutError, match="of its own"):
            async with endpoint._loop.deadline(1000):
                raise TimeoutError("of its own")
        async with endpoint._loop.deadline(0.001) as is_over:
            await anyio.sleep(1000)
        assert is_over()


async def test_who_was_woken_before_it_waits_does_not_wait(bus: Bus) -> None:
    async with bus.run() as endpoint:
        waiter = endpoint._loop.make_waiter()
        waiter.wake()
        waiter.wake()
        await waiter.wait()


async def test_cancelling_the_tasks_of_an_endpoint_that_never_ran_is_nothing(bus: Bus) -> None:
    bus.endpoint_class("alone")._loop.end()


async def test_a_forked_child_does_not_watch_the_listener_of_its_parent(bus: Bus) -> None:
    if bus.endpoint_class is not AsyncioEndpoint:
        return  # trio knows the listener by its object
    async with bus.serve("server") as server:
        watched: list[bool] = []
        server.event_loop.call_soon(watched.append, True)  # type: ignore[attr-defined]
        with socket.socket() as closed:
            pass
        server._loop.unwatch_readable(closed)
        await until(lambda: watched)
        async with bus.connect("client", "server"):
            pass


async def test_a_stream_may_be_dropped_while_another_one_is_told_of_the_end(bus: Bus) -> None:
    streams: dict[str, Stream[Number]] = {}
    told: list[str] = []

    def add(name: str, other: str) -> None:
        streams[name] = endpoint.stream(Number)

        def end() -> None:
            told.append(name)
            del streams[other]
            gc.collect()  # both are part of a cycle

        streams[name].end = end  # type: ignore[method-assign]

    async with bus.run() as endpoint:
        add("one", "other")
        add("other", "one")
    assert len(told) == 1
