"""
How endpoints find each other, and what stands in the way: on every backend.

Real processes that die, other users and hostile peers are in tests of their own; here everything
runs in one event loop, or in two of them in two threads.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import stat
import struct
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
import uvloop
from helpers import (
    Bus,
    Marker,
    Number,
    RawServer,
    Text,
    complaints,
    raw_connection,
    raw_frame,
    raw_peer,
    take,
    turns,
    until,
)

from lahja import (
    AsyncioEndpoint,
    ConnectionAttemptRejected,
    ConnectionConfig,
    ConnectTimeout,
    TrioEndpoint,
    wire,
)
from lahja.base import BaseEndpoint
from lahja.protocol import control_frame
from lahja.sockets import allowed_user

pytestmark = pytest.mark.anyio


def leaves_nothing(endpoint: BaseEndpoint) -> bool:
    """Return whether no attempt to connect left anything behind."""
    peering, router = endpoint._peering, endpoint._router
    return not (peering._channels or peering._attempts or router.connecting or router.peers)


# -- Connecting ------------------------------------------------------------------------------


async def test_connect_to_endpoints_returns_when_all_are_connected(bus: Bus) -> None:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(bus.serve(name)) for name in "abc"]
        async with bus.run("client") as client:
            await client.connect_to_endpoints(*(bus.config(name) for name in "abc"))
            assert all(client.is_connected_to(name) for name in "abc")
            first, *others = client.get_connected_endpoints_and_subscriptions()
            assert first[0] == "client"
            assert sorted(name for name, _ in others) == ["a", "b", "c"]
            for server in servers:
                await server.wait_until_connected_to("client")
            await client.connect_to_endpoints()


async def test_subscriptions_of_a_server_are_known_when_it_is_connected(bus: Bus) -> None:
    async with bus.serve("server") as server, bus.run("client") as client:
        server.subscribe(Number, print)
        client.subscribe(Text, print)
        await client.connect_to_endpoints(bus.config("server"))
        assert client.is_endpoint_subscribed_to("server", Number)
        await server.wait_until_connected_to("client")
        assert server.is_endpoint_subscribed_to("client", Text)


async def test_the_first_broadcast_after_connecting_arrives(bus: Bus) -> None:
    async with bus.serve("server") as server, bus.run("client") as client:
        stream = server.stream(Number)
        await client.connect_to_endpoints(bus.config("server"))
        await client.broadcast(Number(1))
        assert (await anext(stream)).value == 1


async def test_connecting_waits_for_a_server_that_does_not_serve_yet(bus: Bus) -> None:
    async with bus.run("client") as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.connect_to_endpoints, bus.config("server"))
        await turns(5)
        assert not client.is_connected_to("server")
        async with bus.serve("server"):
            await client.wait_until_connected_to("server")


async def test_connecting_waits_while_the_socket_refuses(bus: Bus) -> None:
    config = bus.config("server")
    RawServer(config.path).socket.close()  # its file stays, and nobody listens
    async with bus.run("client") as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.connect_to_endpoints, config)
        await turns(5)
        assert not client.is_connected_to("server")
        async with bus.serve("server"):
            await client.wait_until_connected_to("server")


async def test_connecting_waits_while_the_backlog_is_full(bus: Bus) -> None:
    config = bus.config("server")
    with RawServer(config.path, backlog=0), raw_connection(config.path):
        async with bus.run("client", connect_timeout=0.05) as client:
            with pytest.raises(ConnectTimeout, match=r"within 0.05 s: .*temporarily unavailable"):
                await client.connect_to_endpoints(config)
            assert leaves_nothing(client)


async def test_connecting_again_to_a_server_that_closed_at_once(bus: Bus) -> None:
    config = bus.config("server")
    async with bus.run("client") as client, anyio.create_task_group() as tasks:
        with RawServer(config.path) as server:
            tasks.start_soon(client.connect_to_endpoints, config)
            for _ in range(3):
                (await server.accept()).socket.close()
        config.path.unlink()
        async with bus.serve("server"):
            await client.wait_until_connected_to("server")


# -- Connecting that fails -------------------------------------------------------------------


async def test_a_missing_socket_fails_with_its_name_path_and_reason(bus: Bus) -> None:
    config = bus.config("server")
    async with bus.run("client", connect_timeout=0.02) as client:
        with pytest.raises(ConnectTimeout) as caught:
            await client.connect_to_endpoints(config)
        error = caught.value
        assert isinstance(error, TimeoutError)
        assert (error.name, error.path, error.seconds) == ("server", str(config.path), 0.02)
        assert str(error) == (
            f"no connection to endpoint 'server' at {config.path} within 0.02 s: "
            "[Errno 2] No such file or directory"
        )
        assert leaves_nothing(client)


async def test_a_refusing_socket_fails_with_its_name_path_and_reason(bus: Bus) -> None:
    config = bus.config("server")
    RawServer(config.path).socket.close()
    async with bus.run("client", connect_timeout=0.02) as client:
        with pytest.raises(ConnectTimeout, match=r"'server' at .*server.ipc .*Connection refused"):
            await client.connect_to_endpoints(config)
        assert leaves_nothing(client)


async def test_a_server_that_never_says_hello_fails_with_its_name_path_and_reason(
    bus: Bus,
) -> None:
    config = bus.config("server")
    with RawServer(config.path):
        async with bus.run("client", connect_timeout=0.02) as client:
            with pytest.raises(ConnectTimeout, match=r"server.ipc within 0.02 s: it has not said"):
                await client.connect_to_endpoints(config)
            assert leaves_nothing(client)


async def test_a_server_that_closes_without_hello_fails_with_its_reason(bus: Bus) -> None:
    config = bus.config("server")
    with RawServer(config.path) as server:
        async with bus.run("client", connect_timeout=0.05) as client:

            async def close() -> None:
                while True:
                    (await server.accept()).socket.close()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(close)
                reason = await client._peering._attempt("server", config.path)
                assert reason == "it closed the connection before it said hello"
                with pytest.raises(ConnectTimeout):
                    await client.connect_to_endpoints(config)
                tasks.cancel_scope.cancel()
            assert leaves_nothing(client)


async def test_a_path_that_cannot_be_a_socket_fails_at_once(bus: Bus) -> None:
    async with bus.run("client") as client:
        (bus.directory / "file").touch()
        for path, reason in (
            (bus.directory / ("x" * 200), "at most 107 bytes"),
            (bus.directory / "file" / "socket", "Not a directory"),
        ):
            with pytest.raises((ConnectionAttemptRejected, OSError), match=reason):
                await client.connect_to_endpoints(ConnectionConfig("server", path))
        assert leaves_nothing(client)


async def test_an_endpoint_does_not_connect_to_itself(bus: Bus) -> None:
    async with bus.serve("server") as server, bus.run("server") as namesake:
        for endpoint in (server, namesake):
            with pytest.raises(
                ConnectionAttemptRejected, match=r"'server' cannot connect to itself"
            ):
                await endpoint.connect_to_endpoints(bus.config("server"))
        assert leaves_nothing(namesake)
        assert leaves_nothing(server)
        with pytest.raises(ConnectionAttemptRejected, match=r"the endpoint there is|this endpoint"):
            await server.connect_to_endpoints(ConnectionConfig("alias", server.ipc_path))
        assert leaves_nothing(server)


async def test_a_name_that_is_connected_is_refused_on_the_connecting_side(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        async with bus.run("client") as namesake:
            with pytest.raises(
                ConnectionAttemptRejected,
                match=r"'server' at .*server.ipc refused the connection: "
                r"another endpoint of the name 'client' is connected",
            ):
                await namesake.connect_to_endpoints(bus.config("server"))
            assert leaves_nothing(namesake)
        assert server.is_connected_to("client")
        stream = server.stream(Number)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        await client.broadcast(Number(1))
        assert (await anext(stream)).value == 1


async def test_connecting_twice_is_refused(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        with pytest.raises(ConnectionAttemptRejected, match=r"'server' is connected already"):
            await client.connect_to_endpoints(bus.config("server"))
        assert client.is_connected_to("server")
        assert server.is_connected_to("client")


async def test_connecting_to_an_endpoint_that_has_connected_already_succeeds_at_once(
    bus: Bus,
) -> None:
    async with bus.serve("a") as a, bus.serve("b") as b:
        await b.connect_to_endpoints(bus.config("a"))
        await a.wait_until_connected_to("b")
        await a.connect_to_endpoints(bus.config("b"))
        await check_one_connection(a, b)
        with pytest.raises(ConnectionAttemptRejected, match=r"'b' is connected already"):
            await a.connect_to_endpoints(bus.config("b")._replace(path=bus.directory / "other"))
    async with bus.serve("a") as a, bus.connect("b", "a"):
        await a.wait_until_connected_to("b")
        with pytest.raises(ConnectionAttemptRejected, match=r"'b' is connected already"):
            await a.connect_to_endpoints(bus.config("b"))


async def test_connecting_to_one_name_twice_at_a_time_is_refused(bus: Bus) -> None:
    async with bus.serve("server"), bus.run("client") as client:
        with pytest.raises(ConnectionAttemptRejected, match=r"'server' is being connected to"):
            await client.connect_to_endpoints(bus.config("server"), bus.config("server"))
        await until(lambda: not client._peering._attempts)


async def test_an_endpoint_of_another_name_at_the_path_is_refused(bus: Bus) -> None:
    async with bus.serve("server") as server, bus.run("client") as client:
        with pytest.raises(
            ConnectionAttemptRejected,
            match=r"'other' at .*server.ipc refused the connection: "
            r"this endpoint is 'server', not 'other'",
        ):
            await client.connect_to_endpoints(ConnectionConfig("other", server.ipc_path))
        assert leaves_nothing(client)
        assert leaves_nothing(server)


async def test_a_server_with_another_name_than_was_asked_for_is_refused(bus: Bus) -> None:
    config = bus.config("server")
    with RawServer(config.path) as server:
        async with bus.run("client") as client, anyio.create_task_group() as tasks:

            async def say_hello() -> None:
                peer = await server.accept()
                await peer.hello("impostor")
                await peer.closed()
                peer.socket.close()

            tasks.start_soon(say_hello)
            with pytest.raises(ConnectionAttemptRejected, match=r"is 'impostor', not 'server'"):
                await client.connect_to_endpoints(config)
        assert leaves_nothing(client)


HELLO_OF_THE_OLD_LAHJA = struct.pack("<I", 30) + b"\x80\x05\x95" + b"x" * 27

STRANGE_SERVERS: dict[str, tuple[bytes, str]] = {
    "old format": (HELLO_OF_THE_OLD_LAHJA, "format of lahja 0.x"),
    "HTTP": (b"HTTP/1.1 400 Bad Request\r\n", "over the limit"),
    "an empty frame": (bytes(8), "a frame is empty"),
    "no hello": (control_frame(wire.GOODBYE), "a GOODBYE frame came while waiting"),
    "another version": (control_frame(wire.HELLO, 2, "much", {}, "more"), "version 2 .* meets 1"),
    "a broken hello": (control_frame(wire.HELLO, 1, "server", b"", {}), "does not have the fields"),
    "not a hello": (raw_frame(wire.HELLO, b"?"), "0x3f is not the tag"),
}


@pytest.mark.parametrize("kind", STRANGE_SERVERS)
async def test_a_server_that_speaks_something_else_is_refused_at_once(bus: Bus, kind: str) -> None:
    data, said = STRANGE_SERVERS[kind]
    said = said.replace("meets 1", "meets version 1")
    config = bus.config("server")
    with RawServer(config.path) as server:
        async with bus.run("client") as client, anyio.create_task_group() as tasks:

            async def answer() -> None:
                peer = await server.accept()
                await peer.send(data)
                await peer.closed()
                peer.socket.close()

            tasks.start_soon(answer)
            with pytest.raises(ConnectionAttemptRejected, match=said):
                await client.connect_to_endpoints(config)
        assert leaves_nothing(client)


async def test_a_rejection_is_raised_with_the_reason_of_the_server(bus: Bus) -> None:
    config = bus.config("server")
    with RawServer(config.path) as server:
        async with bus.run("client") as client, anyio.create_task_group() as tasks:

            async def reject() -> None:
                peer = await server.accept()
                await peer.send(control_frame(wire.REJECT, "some code", "I do not like you"))
                await peer.closed()
                peer.socket.close()

            tasks.start_soon(reject)
            with pytest.raises(
                ConnectionAttemptRejected,
                match=r"'server' at .* refused the connection: I do not like you",
            ):
                await client.connect_to_endpoints(config)


async def test_another_user_is_refused_unless_it_is_allowed(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("lahja.peering.peer_user", lambda sock: 12345)
    async with bus.serve("server") as server, bus.run("client") as client:
        with pytest.raises(
            ConnectionAttemptRejected,
            match=r"'server' at .* is served by user 12345; see allowed_uids",
        ):
            await client.connect_to_endpoints(bus.config("server"))
        assert leaves_nothing(client)
        async with bus.run("client", allowed_uids={12345}) as trusting:
            with pytest.raises(
                ConnectionAttemptRejected,
                match=r"refused the connection: processes of user 12345 may not connect",
            ):
                await trusting.connect_to_endpoints(bus.config("server"))
            assert leaves_nothing(trusting)
        assert leaves_nothing(server)
        assert set(complaints(caplog)) == {
            "server: refused a process of user 12345; see allowed_uids"
        }
    async with bus.pair(allowed_uids=[12345]) as (server, client):
        assert server.is_connected_to("client")


def test_root_and_oneself_always_get_in() -> None:
    for user in (0, os.geteuid(), None):  # None where the system cannot tell
        assert allowed_user(user, frozenset())
    assert not allowed_user(12345, frozenset({54321}))
    assert allowed_user(12345, frozenset({12345}))


async def test_one_failure_gives_up_the_other_attempts_and_keeps_what_is_connected(
    bus: Bus,
) -> None:
    async with bus.serve("good"), bus.serve("other") as other, bus.run("client") as client:
        await client.connect_to_endpoints(bus.config("good"))
        with pytest.raises(ConnectionAttemptRejected, match=r"this endpoint is 'other'"):
            await client.connect_to_endpoints(
                bus.config("missing"), ConnectionConfig("wrong", other.ipc_path)
            )
        assert client.is_connected_to("good")
        assert not client._peering._attempts
        assert not client._router.connecting


async def test_an_attempt_that_is_cancelled_leaves_nothing_behind(bus: Bus) -> None:
    config = bus.config("server")
    async with bus.run("client") as client:
        with anyio.move_on_after(0.01) as scope:
            await client.connect_to_endpoints(config)
        assert scope.cancelled_caught
        assert leaves_nothing(client)
        with RawServer(config.path) as server:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.connect_to_endpoints, config)
                peer = await server.accept()
                await peer.read_kind(wire.HELLO)
                tasks.cancel_scope.cancel()
            await peer.closed()
            peer.socket.close()
        assert leaves_nothing(client)


async def test_an_endpoint_that_stops_ends_its_attempts(bus: Bus) -> None:
    config = bus.config("server")
    with RawServer(config.path) as server:
        async with bus.run("client") as client:
            client._loop.start_soon(client.connect_to_endpoints, config)
            peer = await server.accept()
            await peer.read_kind(wire.HELLO)
        await peer.closed()
        peer.socket.close()
        assert leaves_nothing(client)


# -- Two endpoints, one connection -----------------------------------------------------------


async def test_endpoints_that_connect_to_each_other_at_once_end_with_one_connection(
    bus: Bus,
) -> None:
    for _ in range(30):
        async with bus.serve("a") as a, bus.serve("b") as b:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(a.connect_to_endpoints, bus.config("b"))
                tasks.start_soon(b.connect_to_endpoints, bus.config("a"))
            await check_one_connection(a, b)


async def check_one_connection(a: BaseEndpoint, b: BaseEndpoint) -> None:
    """Check that two endpoints are connected once, and get every event once."""
    for endpoint, other in ((a, b), (b, a)):
        assert endpoint.is_connected_to(other.name)
        async with endpoint.stream(Number) as numbers, endpoint.stream(Marker) as markers:
            await other.wait_until_endpoint_subscribed_to(endpoint.name, Marker)
            await other.broadcast(Number(1))
            await other.broadcast(Marker())
            await anext(markers)
            assert len(numbers.mailbox.events) == 1
    await until(lambda: len(a._peering._channels) == len(b._peering._channels) == 1)


async def test_three_endpoints_may_all_connect_to_each_other_at_once(bus: Bus) -> None:
    names = "abc"
    for _ in range(5):
        async with AsyncExitStack() as stack:
            endpoints = [await stack.enter_async_context(bus.serve(name)) for name in names]
            async with anyio.create_task_group() as tasks:
                for endpoint in endpoints:
                    others = [bus.config(name) for name in names if name != endpoint.name]
                    tasks.start_soon(endpoint.connect_to_endpoints, *others)
            for endpoint in endpoints:
                assert all(endpoint.is_connected_to(name) for name in names)


def in_two_threads(
    first: Callable[[], Coroutine[Any, Any, None]],
    second: Callable[[], Coroutine[Any, Any, None]],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None,
) -> None:
    """Run one function in asyncio, and another one in trio, at the same time."""

    def run_first() -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(first())

    with ThreadPoolExecutor(2) as threads:
        for future in [threads.submit(run_first), threads.submit(trio.run, second)]:
            future.result()


@pytest.mark.parametrize("loop_factory", [None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_asyncio_and_trio_connect_to_each_other_at_once(
    ipc_dir: Path, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None
) -> None:
    barrier = threading.Barrier(2, timeout=20)

    async def meet(kind: type[BaseEndpoint], own: str, other: str) -> None:
        async with kind.serve(ConnectionConfig.from_name(own, ipc_dir)) as endpoint:
            stream = endpoint.stream(Number)
            await anyio.to_thread.run_sync(barrier.wait)
            await endpoint.connect_to_endpoints(ConnectionConfig.from_name(other, ipc_dir))
            await endpoint.wait_until_endpoint_subscribed_to(other, Number)
            for value in range(3):
                await endpoint.broadcast(Number(value))
            received = await take(stream, 6)
            for name in (own, other):
                values = [event.value for event in received if event.get_origin() == name]
                assert values == [0, 1, 2]
            await anyio.to_thread.run_sync(barrier.wait)
            assert not stream.mailbox.events

    def half(kind: type[BaseEndpoint], own: str, other: str) -> Callable[[], Any]:
        async def run() -> None:
            try:
                for turn in range(20):
                    await meet(kind, f"{own}{turn}", f"{other}{turn}")
            except BaseException:
                barrier.abort()
                raise

        return run

    in_two_threads(half(AsyncioEndpoint, "a", "b"), half(TrioEndpoint, "b", "a"), loop_factory)


# -- Peers that leave and come back ----------------------------------------------------------


async def test_a_peer_that_is_gone_is_removed_at_once(bus: Bus) -> None:
    async with bus.serve("server") as server:
        for polite in (True, False):
            async with bus.run("witness"), AsyncExitStack() as stack:
                peer = await stack.enter_async_context(raw_peer(server, "raw", {Number: None}))
                assert server.is_endpoint_subscribed_to("raw", Number)
                if polite:
                    await peer.send(control_frame(wire.GOODBYE))
                else:
                    await stack.aclose()
                await until(lambda: not server.is_connected_to("raw"))
                assert not server.is_any_endpoint_subscribed_to(Number)
                assert leaves_nothing(server)


async def test_a_peer_may_rejoin_under_its_name(bus: Bus) -> None:
    async with bus.serve("server") as server:
        stream = server.stream(Number)
        for value in range(5):
            async with bus.connect("client", "server") as client:
                await client.broadcast(Number(value))
        assert [event.value for event in await take(stream, 5)] == [0, 1, 2, 3, 4]


async def test_a_peer_may_rejoin_before_its_old_connection_was_noticed_to_be_gone(
    bus: Bus,
) -> None:
    async with bus.serve("server") as server:
        async with raw_peer(server, "client") as old:
            assert server.is_connected_to("client")
            old.socket.shutdown(socket.SHUT_RDWR)
            with raw_connection(server.ipc_path) as new:
                await new.hello("client", {Number: None})
                await new.subscribed()
                await server.wait_until_endpoint_subscribed_to("client", Number)
        await until(lambda: leaves_nothing(server))


async def test_a_server_may_restart_and_be_connected_to_again(bus: Bus) -> None:
    async with bus.run("client") as client:
        for value in range(3):
            async with bus.serve("server") as server:
                await client.connect_to_endpoints(bus.config("server"))
                stream = server.stream(Number)
                await client.wait_until_endpoint_subscribed_to("server", Number)
                await client.broadcast(Number(value))
                assert (await anext(stream)).value == value


async def test_leaving_says_goodbye(bus: Bus) -> None:
    async with AsyncExitStack() as stack:
        async with bus.serve("server") as server:
            peer = await stack.enter_async_context(raw_peer(server))
        assert await peer.read_kind(wire.GOODBYE)
        await peer.closed()


async def test_a_peer_that_leaves_is_not_worth_a_warning(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.serve("server") as server:
        async with bus.connect("client", "server"):
            pass
        async with raw_peer(server):
            pass
        await until(lambda: leaves_nothing(server))
    assert not complaints(caplog)


# -- Serving ---------------------------------------------------------------------------------


async def test_the_socket_is_for_its_user_alone_and_is_removed(bus: Bus) -> None:
    path = bus.config("server").path
    umask = os.umask(0)
    try:
        async with bus.serve("server") as server:
            status = path.stat()
            assert stat.S_ISSOCK(status.st_mode)
            assert stat.S_IMODE(status.st_mode) == 0o600
            assert server.ipc_path == path
    finally:
        os.umask(umask)
    assert not path.exists()


async def test_a_stale_socket_is_replaced(bus: Bus) -> None:
    path = bus.config("server").path
    RawServer(path).socket.close()
    stale = path.stat().st_ino
    async with bus.serve("server"), bus.connect("client", "server") as client:
        assert path.stat().st_ino != stale or client.is_connected_to("server")
    assert not path.exists()


async def test_a_live_socket_is_an_error_that_says_so(bus: Bus) -> None:
    path = bus.config("server").path
    async with bus.pair() as (server, client):
        with pytest.raises(OSError, match=r"another endpoint serves there.*server.ipc"):
            await bus.serve("server").__aenter__()
        assert server.is_serving
        assert client.is_connected_to("server")
        assert path.exists()
        async with bus.connect("another", "server"):
            pass
    with (
        RawServer(path, backlog=0),
        raw_connection(path),  # it is live, and its backlog is full
        pytest.raises(OSError, match=r"another endpoint serves there"),
    ):
        await bus.serve("server").__aenter__()


@pytest.mark.parametrize("kind", ["file", "directory", "link to a file", "fifo"])
async def test_what_is_not_a_socket_is_left_alone(bus: Bus, kind: str) -> None:
    path = bus.config("server").path
    target = bus.directory / "precious"
    target.write_text("precious")
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(target)
    with pytest.raises(OSError, match=r"not a socket.*server.ipc"):
        await bus.serve("server").__aenter__()
    assert target.read_text() == "precious"
    assert path.is_dir() or path.is_fifo() or path.read_text() == "precious"


async def test_a_path_that_is_too_long_or_has_no_directory_is_an_error(bus: Bus) -> None:
    for path, said in (
        (bus.directory / ("x" * 108), "at most 107 bytes, this one has"),
        (bus.directory / "missing" / "server.ipc", "No such file or directory"),
    ):
        with pytest.raises(OSError, match=said):
            await bus.endpoint_class.serve(ConnectionConfig("server", path)).__aenter__()


async def test_the_longest_path_works(bus: Bus) -> None:
    directory = bus.directory / ("x" * (107 - len(str(bus.directory)) - len("//s.ipc")))
    directory.mkdir()
    longest = Bus(bus.endpoint_class, directory)
    assert len(str(longest.config("s").path)) == 107
    async with longest.serve("s"), longest.connect("client", "s") as client:
        assert client.is_connected_to("s")


async def test_stopping_removes_only_its_own_file(bus: Bus) -> None:
    path = bus.config("server").path
    async with bus.serve("server"):
        path.unlink()
        path.write_text("somebody else's")
    assert path.read_text() == "somebody else's"
    path.unlink()
    async with bus.serve("server"):
        path.unlink()
    assert not path.exists()


async def test_only_a_serving_endpoint_serves(bus: Bus) -> None:
    async with bus.serve("server") as server, bus.run("client") as client:
        assert server.is_serving
        assert not server.is_server_stopped
        assert not client.is_serving
        assert not client.is_server_stopped
    assert not server.is_serving
    assert server.is_server_stopped
    assert not client.is_server_stopped


async def test_an_endpoint_that_leaves_accepts_nobody_more(bus: Bus) -> None:
    config = bus.config("server")
    async with AsyncExitStack() as stack:
        async with bus.serve("server", drain_timeout=0.05) as server:
            await stack.enter_async_context(raw_peer(server, "slow", {Text: None}))
            for _ in range(20):
                server.broadcast_nowait(Text("x" * 100_000))
            stack.callback(lambda: None)
        assert not config.path.exists()
        with pytest.raises(FileNotFoundError):
            await anyio.to_thread.run_sync(lambda: raw_connection(config.path).__enter__())


# -- Strangers and bad peers -----------------------------------------------------------------


async def test_a_stranger_that_says_nothing_is_closed_after_hello_timeout(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.serve("server", hello_timeout=0.1) as server:
        with raw_connection(server.ipc_path) as silent, raw_connection(server.ipc_path) as half:
            await half.send(control_frame(wire.HELLO, 1, "half", bytes(16), {}))
            await silent.closed()
            await half.closed()
        async with raw_peer(server) as peer:
            await anyio.sleep(0.15)
            assert server.is_connected_to("raw")
            assert peer.socket.fileno() >= 0
        assert len(complaints(caplog)) == 2
        assert all(re.search(r"no hello within 0.1 s", text) for text in complaints(caplog))


async def test_a_stranger_is_not_connected_before_its_handshake_is_over(bus: Bus) -> None:
    async with bus.serve("server") as server, raw_peer(server, "witness", {Number: None}):
        with raw_connection(server.ipc_path) as peer:
            await peer.send(control_frame(wire.HELLO, 1, "slow", bytes(16), {}))
            await until(lambda: len(server._peering._channels) == 2)
            await turns(5)
            assert not server.is_connected_to("slow")
            await peer.send(control_frame(wire.SUBSCRIBE, {}, (), False))
            await turns(5)
            assert not server.is_connected_to("slow")
            await peer.send(control_frame(wire.SUBSCRIBE, {}, (), True))
            await server.wait_until_connected_to("slow")


BAD_STRANGERS: dict[str, tuple[bytes, str]] = {
    "garbage": (b"GET / HTTP/1.1\r\n\r\n", "over the limit of 65536"),
    "an oversized frame": (struct.pack("<IB", 2**32 - 1, 1), "a frame of 4294967295 bytes"),
    "the old format": (HELLO_OF_THE_OLD_LAHJA, "speaks the format of lahja 0.x"),
    "another first message": (control_frame(wire.CREDIT, "x", 1), "a CREDIT frame came while"),
    "an unknown kind": (raw_frame(0x77), "0x77 is not a kind of frame"),
}


@pytest.mark.parametrize("kind", BAD_STRANGERS)
async def test_a_bad_stranger_ends_with_one_line_and_nobody_else_notices(
    bus: Bus, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    data, said = BAD_STRANGERS[kind]
    async with bus.pair() as (server, client):
        stream = server.stream(Number)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        with raw_connection(server.ipc_path) as stranger:
            await stranger.send(data)
            await stranger.closed()
        await client.broadcast(Number(1))
        assert (await anext(stream)).value == 1
        assert len(complaints(caplog)) == 1
        assert complaints(caplog)[0].startswith("server: closed the connection to a stranger: ")
        assert said in complaints(caplog)[0]


async def test_a_truncated_frame_of_a_peer_ends_with_one_line(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.serve("server") as server:
        async with raw_peer(server) as peer:
            await peer.send(raw_frame(wire.EVENT, b"x" * 100)[:50])
        await until(lambda: complaints(caplog))
        assert complaints(caplog) == [
            "server: closed the connection to 'raw': "
            "the connection ended in a frame of which 55 bytes were still to come"
        ]


async def test_an_event_that_does_not_decode_is_lost_alone(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.serve("server") as server, raw_peer(server) as peer:
        stream = server.stream(Number)
        await peer.send_event(Number(1))
        await peer.send(raw_frame(wire.EVENT, b"\0\0\0\0\0?"))
        await peer.send_event(Number(2))
        assert [event.value for event in await take(stream, 2)] == [1, 2]
        assert len(complaints(caplog)) == 1
        assert "server: lost an event of type helpers:Number from raw: " in complaints(caplog)[0]


async def test_serving_where_that_is_impossible_names_the_path(bus: Bus) -> None:
    config = ConnectionConfig.from_name("a")._replace(path=bus.directory / "missing" / "a.ipc")
    with pytest.raises(FileNotFoundError) as raised:
        async with bus.endpoint_class.serve(config):
            pass
    assert raised.value.filename == str(config.path)


async def test_the_socket_is_removed_though_the_working_directory_has_changed(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bus.directory)
    async with bus.endpoint_class.serve(ConnectionConfig.from_name("a")):
        assert (bus.directory / "a.ipc").is_socket()
        monkeypatch.chdir("/")
    assert not (bus.directory / "a.ipc").exists()


async def test_to_serve_and_to_connect_take_configurations(bus: Bus) -> None:
    wrong: Any = "server"
    async with bus.run() as endpoint:
        with pytest.raises(TypeError, match=r"takes a ConnectionConfig, which 'server' is not"):
            await endpoint.connect_to_endpoints(wrong)
    with pytest.raises(TypeError, match=r"takes a ConnectionConfig, which 'server' is not"):
        bus.endpoint_class.serve(wrong)
