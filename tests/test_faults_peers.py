"""
Peers come and go, and not everybody gets in.

The endpoint under test runs in the event loop of the test. Its peers are real processes, which are
killed, stopped and restarted, come all at once, belong to another user, or serve where it wants to.
"""

from __future__ import annotations

import os
import random
import select
import socket
import stat
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from fault_helpers import Home, Peer, Peers, assert_nothing_waits, unfinished
from helpers import Bus, Number, RawServer, Text, complaints, raw_connection, take, until

import lahja.peering
import lahja.sockets
from lahja import (
    BroadcastConfig,
    ConnectionAttemptRejected,
    ConnectionConfig,
    ConnectTimeout,
    NoSubscribers,
    Stream,
    wire,
)
from lahja.base import BaseEndpoint
from lahja.protocol import control_frame

pytestmark = pytest.mark.anyio

NOBODY = 65534  # a user id that no process of the tests has on its own
TO_OTHERS = BroadcastConfig(filter_endpoint="server")
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def peers() -> Iterator[Peers]:
    """Return what starts processes."""
    with Peers() as started:
        yield started


async def visit(home: Home, server: ConnectionConfig, name: str) -> None:
    """Connect, say which Numbers come, and broadcast as many as the test says."""
    endpoint = home.endpoint_class(name)
    async with endpoint.run():
        endpoint.subscribe(Number, lambda event: home.say(event.value))
        home.say("connecting")
        try:
            await endpoint.connect_to_endpoints(server)
        except ConnectionAttemptRejected as error:
            home.say(str(error))
            return
        await endpoint.wait_until_connected_to(server.name)
        home.say("connected")
        while True:
            first, last = await home.hear()
            await endpoint.wait_until_endpoint_subscribed_to(server.name, Number)
            for number in range(first, last):
                endpoint.broadcast_nowait(Number(number), TO_OTHERS)
            await until(lambda: not endpoint._router.peers[server.name].outlet.size)
            home.say("sent")


async def serve(home: Home, config: ConnectionConfig, backlog: int = 4096) -> None:
    """Serve, and do as the test says."""
    lahja.sockets._BACKLOG = backlog
    async with home.endpoint_class.serve(config) as endpoint:
        stream = endpoint.stream(Number)
        home.say("serving")
        while (command := await home.hear()) != "leave":
            if command == "be busy":
                home.say("busy")
                time.sleep(1.5)  # noqa: ASYNC251 - that is the point
            elif command == "count":
                home.say(len(endpoint.get_connected_endpoints_and_subscriptions()) - 1)
            else:
                home.say((await anext(stream)).value)


async def connected(endpoint: BaseEndpoint, peers: Peers, name: str = "peer") -> Peer:
    """Start a process that visits an endpoint, and wait until it is connected."""
    peer = peers.start(visit, ConnectionConfig(endpoint.name, endpoint.ipc_path), name)
    await endpoint.wait_until_endpoint_subscribed_to(name, Number)
    await peer.expect("connecting")
    await peer.expect("connected")
    return peer


# -- A peer dies -----------------------------------------------------------------------------


async def test_a_dead_peer_is_gone_at_once_from_every_query_and_every_wait(
    bus: Bus, peers: Peers
) -> None:
    async with bus.serve("server") as endpoint:
        peer = await connected(endpoint, peers)
        waits: list[Callable[[], Coroutine[Any, Any, None]]] = [
            endpoint.wait_until_connections_change,
            endpoint.wait_until_endpoint_subscriptions_change,
            # The peer is the one that is not subscribed.
            partial(endpoint.wait_until_all_endpoints_subscribed_to, Text, include_self=False),
        ]
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                for wait in waits:
                    tasks.start_soon(wait)
                await until(lambda: unfinished(endpoint) == {"waits for a state": 3})
                peer.kill()
        assert not endpoint.is_connected_to("peer")
        assert not endpoint.is_endpoint_subscribed_to("peer", Number)
        assert endpoint.get_connected_endpoints_and_subscriptions() == (("server", set()),)
        with pytest.raises(NoSubscribers, match="'peer' may, which is not connected"):
            await endpoint.broadcast(
                Number(1), BroadcastConfig(filter_endpoint="peer", require_subscriber=True)
            )
        assert_nothing_waits(endpoint)


async def test_a_restarted_peer_rejoins_under_its_name(bus: Bus, peers: Peers) -> None:
    async with bus.serve("server") as endpoint:
        stream = endpoint.stream(Number)
        for number in range(5):
            peer = await connected(endpoint, peers)
            peer.say((number, number + 1))
            assert (await anext(stream)).value == number
            await endpoint.broadcast(Number(number), BroadcastConfig(filter_endpoint="peer"))
            await peer.expect("sent")
            await peer.expect(number)
            peer.kill()
            await until(lambda: not endpoint.is_connected_to("peer"))
        assert_nothing_waits(endpoint)


@pytest.mark.parametrize("first", ["the end of the old one", "the new one"])
async def test_a_restarted_peer_rejoins_before_the_end_of_its_old_connection_was_handled(
    bus: Bus, peers: Peers, first: str
) -> None:
    count = 10_000  # more than is read in one go
    async with bus.serve("server") as endpoint:
        stream = endpoint.stream(Number)
        old = await connected(endpoint, peers)

        # The event loop stands still, so that all of this is news to it.
        new = None
        if first == "the new one":
            new = start_meanwhile(endpoint, peers)
        old.say((0, count))
        assert old.hear_now() == "sent"
        old.kill()
        new = new or start_meanwhile(endpoint, peers)

        with anyio.fail_after(10):
            await new.expect("connected")
            assert endpoint.is_connected_to("peer")
            new.say((count, 2 * count))
            assert [event.value for event in await take(stream, 2 * count)] == [*range(2 * count)]
        assert_nothing_waits(endpoint)


async def test_a_restarted_server_is_connected_to_before_the_end_of_the_old_one_was_handled(
    bus: Bus, peers: Peers
) -> None:
    config = bus.config("server")
    server = peers.start(serve, config)
    await server.expect("serving")
    async with bus.connect("client", "server") as client:
        server.kill()
        server = peers.start(serve, config)
        assert server.hear_now() == "serving"
        assert client.is_connected_to("server")  # as far as it knows
        await client.connect_to_endpoints(config)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        await client.broadcast(Number(1))
        server.say("read")
        await server.expect(1)
        assert_nothing_waits(client)


async def test_an_endpoint_comes_back_before_the_end_of_its_own_old_connection_was_handled(
    bus: Bus,
) -> None:
    introduction = control_frame(wire.HELLO, wire.PROTOCOL_VERSION, "raw", bytes(16), {})
    async with bus.serve("server") as endpoint:
        endpoint.stream(Number)
        with raw_connection(endpoint.ipc_path) as old:
            await old.send(introduction, control_frame(wire.SUBSCRIBE, {}, (), True))
            await endpoint.wait_until_connected_to("raw")
            # The event loop stands still, so that all of this is news to it.
            with raw_connection(endpoint.ipc_path) as new:
                new.socket.send(introduction + control_frame(wire.SUBSCRIBE, {}, (), True))
                old.socket.close()
                await new.subscribed()
                assert endpoint.is_connected_to("raw")
                assert_nothing_waits(endpoint)


def start_meanwhile(endpoint: BaseEndpoint, peers: Peers) -> Peer:
    """Start a process that visits an endpoint, and return when it has knocked."""
    assert endpoint._peering.listener is not None
    peer = peers.start(visit, ConnectionConfig(endpoint.name, endpoint.ipc_path), "peer")
    assert peer.hear_now() == "connecting"
    assert select.select([endpoint._peering.listener.socket], [], [], 5)[0]
    return peer


# -- The files of sockets --------------------------------------------------------------------


async def test_the_stale_file_of_a_killed_server_is_replaced(bus: Bus, peers: Peers) -> None:
    config = bus.config("server")
    server = peers.start(serve, config)
    await server.expect("serving")
    server.kill()
    assert stat.S_ISSOCK(config.path.stat().st_mode)
    async with bus.serve("server") as endpoint:
        assert endpoint.is_serving
        await connected(endpoint, peers)
    assert not config.path.exists()


async def test_a_client_waits_out_the_restart_of_a_killed_server(bus: Bus, peers: Peers) -> None:
    config = bus.config("server")
    server = peers.start(serve, config)
    await server.expect("serving")
    server.kill()
    async with bus.endpoint_class("client").run() as client:
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.connect_to_endpoints, config)
                await until(lambda: unfinished(client))
                server = peers.start(serve, config)
        assert client.is_connected_to("server")
        assert_nothing_waits(client)


@pytest.mark.parametrize(
    "state",
    [
        "running",
        "stopped",
        pytest.param(
            "with a full backlog",
            marks=pytest.mark.skipif(
                sys.platform != "linux", reason="elsewhere it looks as if nobody listened"
            ),
        ),
    ],
)
async def test_a_live_server_is_not_replaced_and_the_error_names_the_path(
    bus: Bus, peers: Peers, state: str
) -> None:
    config = bus.config("server")
    server = peers.start(serve, config, 1)
    await server.expect("serving")
    async with AsyncExitStack() as stack:
        if state != "running":
            server.stop()
        if state == "with a full backlog":
            fill_backlog(config.path, stack)
        with pytest.raises(OSError, match="another endpoint serves there") as error:
            async with bus.serve("server"):
                pass
        assert str(config.path) in str(error.value)
        server.go_on()
        async with bus.connect("client", "server") as client:
            assert client.is_connected_to("server")


def fill_backlog(path: Path, stack: AsyncExitStack) -> int:
    """Connect until the system takes no more, and say nothing; return how often."""
    count = 0
    while True:
        sock = stack.enter_context(socket.socket(socket.AF_UNIX))
        sock.setblocking(False)
        try:
            sock.connect(str(path))
        except (BlockingIOError, ConnectionRefusedError):
            return count
        count += 1


async def test_only_ones_own_file_is_removed_on_exit(bus: Bus, peers: Peers) -> None:
    config = bus.config("server")
    async with bus.serve("server"):
        config.path.unlink()
        other = peers.start(serve, config)
        await other.expect("serving")
    assert config.path.exists()
    async with bus.connect("client", "server") as client:
        assert client.is_connected_to("server")
        other.say("leave")
        await other.finished()
    assert not config.path.exists()


# -- Names -----------------------------------------------------------------------------------


async def test_a_duplicate_name_is_refused_on_the_connecting_side(bus: Bus, peers: Peers) -> None:
    async with bus.serve("server") as endpoint:
        first = await connected(endpoint, peers)
        second = peers.start(visit, bus.config("server"), "peer")
        await second.expect("connecting")
        reason = "another endpoint of the name 'peer' is connected"
        path = endpoint.ipc_path
        await second.expect(f"'server' at {path} refused the connection: {reason}")
        await second.finished()
        await endpoint.broadcast(Number(1))
        await first.expect(1)
        assert_nothing_waits(endpoint)


async def meet(home: Home, directory: Path, rounds: int) -> None:
    """Serve anew in each round, connect to the other side, and count what comes from it."""
    for number in range(rounds):
        own, other = (ConnectionConfig.from_name(f"{x}{number}", directory) for x in "ba")
        async with home.endpoint_class.serve(own) as endpoint:
            stream = endpoint.stream(Number)
            home.say("ready")
            time.sleep(await home.hear())  # noqa: ASYNC251 - the shortest way to sleep a little
            await endpoint.connect_to_endpoints(other)
            home.say(await exchange(endpoint, stream, other.name))
            await home.hear()


async def exchange(endpoint: BaseEndpoint, stream: Stream[Number], other: str) -> list[int]:
    """Send three numbers to another endpoint, and return those that come from it."""
    await endpoint.wait_until_endpoint_subscribed_to(other, Number)
    for value in range(3):
        await endpoint.broadcast(Number(value), BroadcastConfig(filter_endpoint=other))
    return [event.value for event in await take(stream, 3)]


async def test_endpoints_that_connect_to_each_other_at_the_same_moment_get_one_connection(
    bus: Bus, peers: Peers
) -> None:
    rounds = 40
    chance = random.Random(0)
    peer = peers.start(meet, bus.directory, rounds)
    for number in range(rounds):
        async with bus.serve(f"a{number}") as endpoint:
            stream = endpoint.stream(Number)
            await peer.expect("ready")
            peer.say(chance.random() / 1000)
            time.sleep(chance.random() / 1000)  # noqa: ASYNC251 - as above
            with anyio.fail_after(5):
                await endpoint.connect_to_endpoints(bus.config(f"b{number}"))
                assert await exchange(endpoint, stream, f"b{number}") == [0, 1, 2]
            await peer.expect([0, 1, 2])
            assert_nothing_waits(endpoint)
            assert len(endpoint._peering._channels) == 1
            assert not stream.mailbox.events
            peer.say("next")
    await peer.finished()


# -- Many come at once -----------------------------------------------------------------------


async def connect_a_hundred(bus: Bus, server: Peer) -> None:
    """Let endpoints connect all at once, and make sure that all of them are in."""
    endpoints = [bus.endpoint_class(f"client{number}") for number in range(100)]
    async with AsyncExitStack() as stack:
        for endpoint in endpoints:
            await stack.enter_async_context(endpoint.run())
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                for endpoint in endpoints:
                    tasks.start_soon(endpoint.connect_to_endpoints, bus.config("server"))
            for number, endpoint in enumerate(endpoints):
                await endpoint.wait_until_endpoint_subscribed_to("server", Number)
                await endpoint.broadcast(Number(number))
            heard = []
            for _ in endpoints:
                server.say("read")
                heard.append(await server.hear())
            assert sorted(heard) == [*range(100)]
            server.say("count")
            await server.expect(100)
        for endpoint in endpoints:
            assert_nothing_waits(endpoint)


async def test_a_hundred_endpoints_that_connect_at_once_all_get_in(bus: Bus, peers: Peers) -> None:
    server = peers.start(serve, bus.config("server"))
    await server.expect("serving")
    await connect_a_hundred(bus, server)


async def test_a_hundred_endpoints_get_into_a_server_that_is_busy_for_seconds(
    bus: Bus, peers: Peers
) -> None:
    server = peers.start(serve, bus.config("server"))
    await server.expect("serving")
    server.say("be busy")
    await server.expect("busy")
    await connect_a_hundred(bus, server)


async def test_a_hundred_endpoints_get_into_a_server_whose_backlog_is_full(
    bus: Bus, peers: Peers
) -> None:
    server = peers.start(serve, bus.config("server"), 4)
    await server.expect("serving")
    server.stop()
    async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
        assert fill_backlog(bus.config("server").path, stack) < 10
        tasks.start_soon(connect_a_hundred, bus, server)
        await anyio.sleep(0.2)  # all of them find it full, some more than once
        server.go_on()


@pytest.mark.parametrize("silent", ["a stopped server", "something that only listens"])
async def test_a_server_that_never_says_hello_fails_the_connect_after_connect_timeout(
    bus: Bus, peers: Peers, silent: str
) -> None:
    config = bus.config("server")
    with nullcontext() if silent == "a stopped server" else RawServer(config.path):
        if silent == "a stopped server":
            server = peers.start(serve, config)
            await server.expect("serving")
            server.stop()
        async with bus.endpoint_class("client", connect_timeout=0.2).run() as client:
            began = anyio.current_time()
            with pytest.raises(ConnectTimeout) as caught:
                await client.connect_to_endpoints(config)
            assert 0.19 < anyio.current_time() - began < 2  # uvloop rounds to milliseconds
            assert str(caught.value) == (
                f"no connection to endpoint 'server' at {config.path} within 0.2 s: "
                f"it has not said hello ({config.path} exists)"
            )
            assert_nothing_waits(client)


# -- Who gets in -----------------------------------------------------------------------------


async def test_a_socket_has_mode_0600_from_the_moment_it_exists(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []

    class WatchedSocket(socket.socket):
        def bind(self, address: str) -> None:  # type: ignore[override]
            super().bind(address)
            modes.append(stat.S_IMODE(os.stat(address).st_mode))

    monkeypatch.setattr("lahja.sockets.socket.socket", WatchedSocket)
    umask = os.umask(0)
    try:
        async with bus.serve("server") as endpoint:
            modes.append(stat.S_IMODE(endpoint.ipc_path.stat().st_mode))
    finally:
        os.umask(umask)
    assert modes == [0o600, 0o600]


def become_nobody() -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


async def visit_as_nobody(home: Home, server: ConnectionConfig) -> None:
    become_nobody()
    await visit(home, server, "peer")


async def serve_as_nobody(home: Home, config: ConnectionConfig, allowed: tuple[int, ...]) -> None:
    become_nobody()
    async with home.endpoint_class.serve(config, allowed_uids=allowed):
        home.say("serving")
        await home.hear()


def widen(path: Path) -> None:
    """Let everybody use a socket, as far as the file system has a say."""
    path.chmod(0o666)
    path.parent.chmod(0o777)


@NEEDS_ROOT
async def test_another_user_is_refused_even_where_the_mode_was_widened(
    bus: Bus, peers: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.serve("server") as endpoint:
        widen(endpoint.ipc_path)
        peer = peers.start(visit_as_nobody, bus.config("server"))
        await peer.expect("connecting")
        reason = f"processes of user {NOBODY} may not connect; see allowed_uids"
        path = endpoint.ipc_path
        await peer.expect(f"'server' at {path} refused the connection: {reason}")
        await peer.finished()
        assert not endpoint.is_connected_to("peer")
        assert complaints(caplog) == [
            f"server: refused a process of user {NOBODY}; see allowed_uids"
        ]
        assert_nothing_waits(endpoint)


@NEEDS_ROOT
async def test_another_user_is_kept_out_by_the_mode_alone(bus: Bus, peers: Peers) -> None:
    async with bus.serve("server", allowed_uids={NOBODY}) as endpoint:
        endpoint.ipc_path.parent.chmod(0o777)
        peer = peers.start(visit_as_nobody, bus.config("server"))
        await peer.expect("connecting")
        assert "Permission denied" in await peer.hear()
        await peer.finished()


@NEEDS_ROOT
async def test_an_allowed_user_gets_in(bus: Bus, peers: Peers) -> None:
    async with bus.serve("server", allowed_uids={NOBODY}) as endpoint:
        widen(endpoint.ipc_path)
        stream = endpoint.stream(Number)
        peer = peers.start(visit_as_nobody, bus.config("server"))
        await peer.expect("connecting")
        await peer.expect("connected")
        peer.say((5, 6))
        assert (await anext(stream)).value == 5
        await peer.expect("sent")
        await endpoint.broadcast(Number(6), BroadcastConfig(filter_endpoint="peer"))
        await peer.expect(6)


@NEEDS_ROOT
async def test_a_server_of_another_user_is_not_talked_to_unless_it_is_allowed(
    bus: Bus, peers: Peers
) -> None:
    bus.directory.chmod(0o777)
    config = bus.config("server")
    server = peers.start(serve_as_nobody, config, ())
    await server.expect("serving")
    async with bus.endpoint_class("client").run() as client:
        text = f"'server' at {config.path} is served by user {NOBODY}; see allowed_uids"
        with pytest.raises(ConnectionAttemptRejected) as caught:
            await client.connect_to_endpoints(config)
        assert str(caught.value) == text
        assert_nothing_waits(client)
    async with bus.connect("client", "server", allowed_uids={NOBODY}) as client:
        assert client.is_connected_to("server")  # and root gets in everywhere


async def test_the_user_is_asked_of_the_system_on_both_sides(
    bus: Bus, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = bus.config("server")
    server = peers.start(serve, config)
    await server.expect("serving")
    async with (
        bus.endpoint_class("client").run() as client,
        bus.serve("own") as own,
    ):
        monkeypatch.setattr(lahja.peering, "peer_user", lambda sock: NOBODY)
        with pytest.raises(ConnectionAttemptRejected, match=f"is served by user {NOBODY}"):
            await client.connect_to_endpoints(config)
        with raw_connection(own.ipc_path) as stranger:
            body = await stranger.read_kind(wire.REJECT)
            assert b"may not connect" in body
            await stranger.closed()
        assert_nothing_waits(own)
        assert_nothing_waits(client)
