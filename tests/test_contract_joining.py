"""
Joining a bus, and whatever stands in the way: on every backend.

Everything here runs in one event loop. What only real processes show, such as a crash, is in
``test_joining_processes.py``; who comes and goes, and waits for somebody, is in
``test_contract_membership.py``.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

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
    living_tasks,
    raw_connection,
    take,
    turns,
    until,
)

from lahja import BroadcastConfig, ConnectionAttemptRejected, ConnectionConfig, wire
from lahja.base import BaseEndpoint
from lahja.directory import Identity, default_directory
from lahja.joining import _Member
from lahja.protocol import control_frame

pytestmark = pytest.mark.anyio

WATCHES = ["inotify", "poll"] if sys.platform == "linux" else ["poll"]


@pytest.fixture(params=WATCHES)
def watch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return how the directory is watched, and let it be so from the beginning."""
    for name, seconds in {"_UNWATCHED": 0.0, "_POLL": 0.05, "_GRACE": 0.1}.items():
        monkeypatch.setattr(f"lahja.joining.{name}", seconds)
    if request.param == "poll":
        monkeypatch.setattr("lahja.joining.watch_directory", lambda path: None)
    return str(request.param)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what failed be tried again and again without a pause to speak of."""
    monkeypatch.setattr("lahja.joining._FIRST_DELAY", 0.002)
    monkeypatch.setattr("lahja.joining._SLOWEST", 0.004)


@asynccontextmanager
async def joined(bus: Bus, *names: str, **options: object) -> AsyncIterator[list[BaseEndpoint]]:
    """Let endpoints join, one after the other, and wait until all are connected."""
    async with AsyncExitStack() as stack:
        endpoints = [await stack.enter_async_context(bus.join(name, **options)) for name in names]
        await all_connected(*endpoints)
        yield endpoints


async def all_connected(*endpoints: BaseEndpoint) -> None:
    """Wait until all endpoints are connected to each other, by one connection each."""
    for endpoint in endpoints:
        await endpoint.wait_until_all_of(each.name for each in endpoints)
    await until(
        lambda: all(len(each._peering._channels) == len(endpoints) - 1 for each in endpoints)
    )


def real(path: Path) -> str:
    """Return a path as an endpoint that serves there tells it."""
    return str(path.resolve())


async def check_delivery(*endpoints: BaseEndpoint) -> None:
    """Check that every endpoint gets one event from each."""
    streams = [endpoint.stream(Number) for endpoint in endpoints]
    names = [endpoint.name for endpoint in endpoints]
    for endpoint in endpoints:
        await endpoint.wait_until_all_of(names, subscribed_to=Number)
    for number, endpoint in enumerate(endpoints):
        await endpoint.broadcast(Number(number))
    for stream in streams:
        events = await take(stream, len(endpoints))
        assert sorted((each.get_origin(), each.value) for each in events) == sorted(
            (name, number) for number, name in enumerate(names)
        )
        assert not stream.mailbox.events
        await stream.aclose()


# -- Everybody is connected ------------------------------------------------------------------


async def test_all_that_join_are_connected_to_each_other_once(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with joined(bus, *"abcde") as endpoints:
        await check_delivery(*endpoints)
        for endpoint in endpoints:
            assert endpoint.is_serving
            assert endpoint.ipc_path == bus.config(endpoint.name).path
    assert list(bus.directory.iterdir()) == []
    assert not complaints(caplog)


async def test_all_that_join_at_the_same_time_are_connected_to_each_other_once(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"member {number}" for number in range(12)]
    ready, done = anyio.Event(), anyio.Event()
    endpoints: list[BaseEndpoint] = []

    async def take_part(name: str) -> None:
        await ready.wait()
        async with bus.join(name) as endpoint:
            endpoints.append(endpoint)
            await done.wait()

    async with anyio.create_task_group() as tasks:
        for name in names:
            tasks.start_soon(take_part, name)
        ready.set()
        await until(lambda: len(endpoints) == len(names))
        await all_connected(*endpoints)
        await check_delivery(*endpoints)
        done.set()
    assert not complaints(caplog)


async def test_who_comes_later_connects_and_nobody_has_to_look(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lahja.joining._GRACE", 1e9)
    monkeypatch.setattr("lahja.joining._POLL", 1e9)
    async with joined(bus, "a", "b"), bus.join("c") as c:
        await c.wait_until_all_of({"a", "b"})
        by_c = [channel.connection.to for channel in c._peering._channels.values()]
        assert sorted(map(str, by_c)) == ["a", "b"]


async def test_joining_does_not_wait_for_anybody(bus: Bus) -> None:
    with RawServer(bus.config("silent").path):
        async with bus.join("a") as endpoint:
            assert not endpoint.is_connected_to("silent")
            async with bus.join("b") as other:
                await other.wait_until_connected_to("a")


async def test_requests_and_subscriptions_work_between_those_that_joined(bus: Bus) -> None:
    async with joined(bus, "a", "b") as (a, b):
        answer_questions(b)
        await a.wait_until_endpoint_subscribed_to("b", Question)
        assert (await a.request(Question(5), timeout=20)).value == 5
        subscription = a.subscribe(Text, print)
        await b.wait_until_endpoint_subscribed_to("a", Text)
        subscription.unsubscribe()
        await until(lambda: not b.is_endpoint_subscribed_to("a", Text))


async def test_who_leaves_is_gone_and_may_come_back(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.join("here") as here:
        stream = here.stream(Number)
        for number in range(5):
            async with bus.join("guest") as guest:
                guest.subscribe(Text, print)
                await guest.wait_until_endpoint_subscribed_to("here", Number)
                await here.wait_until_endpoint_subscribed_to("guest", Text)
                await guest.broadcast(Number(number))
            assert (await anext(stream)).value == number
            await until(lambda: not here.is_connected_to("guest"))
    assert not complaints(caplog)


async def test_joining_anew_while_the_old_endpoint_of_the_name_still_leaves(bus: Bus) -> None:
    may_leave = anyio.Event()

    async def be_the_old_one() -> None:
        async with bus.join("guest"):
            await may_leave.wait()

    async with bus.join("here") as here, anyio.create_task_group() as tasks:
        tasks.start_soon(be_the_old_one)
        await here.wait_until_connected_to("guest")
        bus.config("guest").path.unlink()  # as it does when it begins to leave
        async with bus.join("guest") as new:
            await turns(5)
            may_leave.set()
            await new.wait_until_connected_to("here")
            await check_delivery(new, here)


async def test_a_connection_that_breaks_is_made_again(bus: Bus) -> None:
    async with joined(bus, *"abc") as (a, b, c):
        for broken in (a, b, c):
            for channel in list(broken._peering._channels.values()):
                channel.close()
            assert not broken._router.peers
            await all_connected(a, b, c)
        await check_delivery(a, b, c)


async def test_a_relative_directory_outlives_a_change_of_the_working_directory(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bus.directory.parent)
    async with bus.endpoint_class.join("a", bus.directory.name) as a:
        monkeypatch.chdir("/")
        async with bus.join("b"):
            await a.wait_until_connected_to("b")
    assert list(bus.directory.iterdir()) == []


async def test_without_a_directory_it_is_that_of_user_and_application(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(bus.directory))
    join = bus.endpoint_class.join
    async with join("a") as a, join("b") as b, join("a", app="other") as other:
        await all_connected(a, b)
        assert a.ipc_path == default_directory() / "a.ipc"
        assert other.ipc_path == default_directory("other") / "a.ipc"
        await turns(20)
        assert not other._router.peers


# -- Beside explicit connections -------------------------------------------------------------


async def test_an_endpoint_that_only_serves_in_the_directory_is_connected_to(
    bus: Bus, watch: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.serve("first") as first, bus.join("member") as member:
        await all_connected(first, member)
        async with bus.serve("second") as second:
            await member.wait_until_all_of({"first", "second"})
            assert not first.is_connected_to("second")
            await check_delivery(second, member)
        await until(lambda: not member.is_connected_to("second"))
    assert not complaints(caplog)


async def test_a_change_in_the_same_moment_as_the_last_one_is_not_missed(
    bus: Bus, watch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lahja.joining.BusDirectory.stamp", lambda self: (1, 2, 3))
    async with bus.join("member") as member:
        await turns(10)
        async with bus.serve("server"):
            await member.wait_until_connected_to("server")


async def test_an_endpoint_connects_to_one_that_joined(bus: Bus) -> None:
    async with bus.join("member") as member, bus.connect("client", "member") as client:
        await member.wait_until_connected_to("client")
        await check_delivery(member, client)


async def test_an_endpoint_that_joined_connects_to_one_outside(bus: Bus) -> None:
    elsewhere = bus.directory / "elsewhere"
    elsewhere.mkdir()
    config = ConnectionConfig.from_name("outside", elsewhere)
    async with (
        bus.endpoint_class.serve(config) as outside,
        joined(bus, "a", "b") as (a, b),
    ):
        await a.connect_to_endpoints(config)
        assert a.is_connected_to("outside")
        assert not b.is_connected_to("outside")
        with pytest.raises(ConnectionAttemptRejected, match=r"'outside' is connected already"):
            await a.connect_to_endpoints(config)
        await check_delivery(outside, a)


async def test_connecting_to_what_join_has_connected_succeeds_at_once(bus: Bus) -> None:
    async with joined(bus, "a", "b") as (a, b):
        for _ in range(2):
            await a.connect_to_endpoints(bus.config("b"))
            await b.connect_to_endpoints(bus.config("a"))
        other = bus.config("a")._replace(path=bus.directory / "other")
        for endpoint, config in ((b, other), (a, other._replace(name="b"))):
            with pytest.raises(ConnectionAttemptRejected, match=r"is connected already"):
                await endpoint.connect_to_endpoints(config)
        await all_connected(a, b)


async def test_connecting_while_join_does_so_waits_for_it(bus: Bus) -> None:
    config = bus.config("server")
    with RawServer(config.path) as server:
        async with bus.join("member") as member, anyio.create_task_group() as tasks:
            peer = await server.accept()
            await peer.read_kind(wire.HELLO)
            assert member._peering.is_connecting_to("server")
            tasks.start_soon(member.connect_to_endpoints, config)
            await turns(10)
            with pytest.raises(ConnectionAttemptRejected, match=r"is being connected to already"):
                await member.connect_to_endpoints(config)
            await peer.hello("server", path=real(config.path))
            await member.wait_until_connected_to("server")
            with pytest.raises(BlockingIOError):
                server.socket.accept()
        await peer.closed()
        peer.socket.close()


async def test_connecting_goes_on_where_join_has_failed(bus: Bus, impatient: None) -> None:
    config = bus.config("server")
    with RawServer(config.path) as server:
        async with bus.join("member") as member, anyio.create_task_group() as tasks:
            peer = await server.accept()
            await peer.read_kind(wire.HELLO)
            tasks.start_soon(member.connect_to_endpoints, config)
            await turns(10)
            await peer.send(control_frame(wire.REJECT, "some code", "not yet"))
            await peer.closed()
            peer.socket.close()
            second = await server.accept()
            await second.hello("server", path=real(config.path))
            await member.wait_until_connected_to("server")
        await second.closed()
        second.socket.close()


async def test_join_leaves_alone_what_is_being_connected_to(bus: Bus, watch: str) -> None:
    config = bus.config("server")
    async with bus.join("member") as member, anyio.create_task_group() as tasks:
        tasks.start_soon(member.connect_to_endpoints, config)
        await turns(5)
        with RawServer(config.path) as server:
            peer = await server.accept()
            await until(lambda: "server" in member._joining._members)  # type: ignore[union-attr]
            await anyio.sleep(0.3)  # join would connect now
            with pytest.raises(BlockingIOError):
                server.socket.accept()
            await peer.hello("server")
            await member.wait_until_connected_to("server")
            tasks.cancel_scope.cancel()
    await peer.closed()
    peer.socket.close()


# -- Sockets that nobody needs ---------------------------------------------------------------


def leave_stale(path: Path) -> None:
    """Leave a socket behind, as a process does that is killed."""
    RawServer(path).socket.close()
    assert path.is_socket()


NEEDS_LINUX = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere, a server whose backlog is full looks dead, too"
)


@NEEDS_LINUX
async def test_a_stale_socket_is_removed(
    bus: Bus, watch: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = bus.config("dead").path
    leave_stale(path)
    async with bus.join("a"):
        await until(lambda: not path.exists())
        assert f"a: removed {path}, a socket that 'dead' left behind" in caplog.messages
        leave_stale(path)
        await until(lambda: not path.exists())
        assert bus.config("a").path.exists()
    assert not complaints(caplog)


@NEEDS_LINUX
async def test_a_stale_socket_is_not_removed_while_somebody_holds_the_lock(
    bus: Bus, impatient: None
) -> None:
    import fcntl

    path = bus.config("dead").path
    leave_stale(path)
    async with bus.join("a") as endpoint:
        descriptor = os.open(bus.directory, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        member = endpoint._joining._members["dead"]  # type: ignore[union-attr]
        await until(lambda: member.delay > 0.003)
        await turns(20)
        assert path.exists()
        os.close(descriptor)
        await until(lambda: not path.exists())


async def test_where_a_live_server_may_refuse_connections_no_socket_is_removed(
    bus: Bus, impatient: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("lahja.sockets._REFUSED_IS_STALE", False)
    path = bus.config("dead").path
    leave_stale(path)
    async with bus.join("a") as a:
        member = a._joining._members["dead"]  # type: ignore[union-attr]
        await until(lambda: member.delay > 0.003)
        await turns(20)
        assert path.exists()
        async with bus.join("dead") as risen:
            await all_connected(a, risen)
    assert not complaints(caplog)


async def test_the_socket_of_a_server_with_a_full_backlog_is_kept(
    bus: Bus, impatient: None, caplog: pytest.LogCaptureFixture
) -> None:
    config = bus.config("busy")
    with RawServer(config.path, backlog=0) as server, raw_connection(config.path):
        async with bus.join("a", connect_timeout=0.05) as endpoint:
            member = endpoint._joining._members["busy"]  # type: ignore[union-attr]
            await until(lambda: member.delay > 0.003)
            assert config.path.exists()
            (await server.accept()).socket.close()
            peer = await server.accept()
            await peer.hello("busy")
            await endpoint.wait_until_connected_to("busy")
        peer.socket.close()


async def test_a_dead_socket_is_replaced_by_its_own_endpoint(bus: Bus) -> None:
    leave_stale(bus.config("a").path)
    async with joined(bus, "a", "b") as endpoints:
        await check_delivery(*endpoints)


async def test_a_name_that_is_taken_is_an_error_and_harms_nobody(bus: Bus) -> None:
    async with joined(bus, "a", "b") as (a, b):
        for name in ("a", "b"):
            with pytest.raises(OSError, match=r"another endpoint serves there.*\.ipc"):
                await bus.join(name).__aenter__()
        await check_delivery(a, b)
    assert list(bus.directory.iterdir()) == []


# -- What cannot be joined -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a/b", "../a", "a\0b"])
async def test_a_name_that_is_no_file_name_is_a_value_error_at_the_call(
    bus: Bus, name: str
) -> None:
    with pytest.raises(ValueError, match=r"choose a name without '/'"):
        bus.join(name)
    with pytest.raises(ValueError, match=r"it names a directory"):
        bus.endpoint_class.join("a", app=name)
    with pytest.raises(ValueError, match=r"give one of them, not both"):
        bus.endpoint_class.join("a", bus.directory, app="trading")
    assert list(bus.directory.iterdir()) == []


async def test_a_path_that_is_too_long_is_an_error_that_says_what_to_do(bus: Bus) -> None:
    with pytest.raises(OSError, match=r"has at most 10\d bytes, this one has .*: choose a shorter"):
        await bus.join("x" * 108).__aenter__()
    assert list(bus.directory.iterdir()) == []


async def test_a_default_directory_that_is_not_safe_is_an_error(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(bus.directory))
    async with bus.endpoint_class.join("a"):
        pass
    default_directory().chmod(0o777)
    with pytest.raises(PermissionError, match=r"others may write to it \(mode 0777\)"):
        await bus.endpoint_class.join("a").__aenter__()
    assert list(default_directory().iterdir()) == []


async def test_a_directory_that_is_given_is_made(bus: Bus) -> None:
    directory = bus.directory / "bus"
    join = bus.endpoint_class.join
    async with join("a", directory) as a, join("b", str(directory)) as b:
        await all_connected(a, b)
    with pytest.raises(FileNotFoundError, match=r"make it first"):
        await join("a", directory / "x" / "y").__aenter__()


# -- Others that are in the way --------------------------------------------------------------


class Nuisance:
    """
    Serve in the directory, but never as an endpoint that others can connect to.

    :param answer: what whoever connects gets for an answer
    """

    def __init__(self, config: ConnectionConfig, answer: bytes) -> None:
        self.config = config
        self.answer = answer
        self.visits = 0

    async def serve(self) -> None:
        with RawServer(self.config.path) as server:
            while True:
                peer = await server.accept()
                self.visits += 1
                await self._receive(peer)

    async def _receive(self, peer: RawPeer) -> None:
        try:
            await peer.send(self.answer)
            await peer.closed()
        except OSError:
            pass
        finally:
            peer.socket.close()


NUISANCES: dict[str, tuple[bytes, str]] = {
    "one that refuses": (
        control_frame(wire.REJECT, "some code", "I do not like you"),
        "'nuisance' at {path} refused the connection: I do not like you",
    ),
    "one that speaks something else": (
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        "what serves 'nuisance' at {path} does not speak our protocol: ",
    ),
    "one of another version": (
        control_frame(wire.REJECT, wire.REJECT_VERSION, "version 2 meets version 1"),
        "'nuisance' at {path} refused the connection: version 2 meets version 1",
    ),
}


@pytest.mark.parametrize("kind", NUISANCES)
async def test_who_cannot_be_connected_to_is_reported_once_and_tried_again(
    bus: Bus, kind: str, impatient: None, caplog: pytest.LogCaptureFixture
) -> None:
    answer, said = NUISANCES[kind]
    nuisance = Nuisance(bus.config("nuisance"), answer)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(nuisance.serve)
        await until(nuisance.config.path.exists)
        async with joined(bus, "a") as (a,):
            await until(lambda: nuisance.visits > 5)
            async with bus.join("b") as b:
                await until(lambda: len(complaints(caplog)) == 2)
                await check_delivery(a, b)  # everything else goes on
                visits = nuisance.visits
                await until(lambda: nuisance.visits > visits + 10)
        tasks.cancel_scope.cancel()
    for name, complaint in zip("ab", complaints(caplog), strict=True):
        assert complaint.startswith(f"{name}: {said.format(path=nuisance.config.path)}")
        assert complaint.endswith(" (it is tried again)")


async def test_who_gives_way_in_the_end_is_connected_to(bus: Bus, impatient: None) -> None:
    nuisance = Nuisance(bus.config("nuisance"), NUISANCES["one that refuses"][0])
    async with bus.join("a") as a, anyio.create_task_group() as tasks:
        tasks.start_soon(nuisance.serve)
        await until(lambda: nuisance.visits > 2)
        tasks.cancel_scope.cancel()
        nuisance.config.path.unlink(missing_ok=True)
        async with bus.serve("nuisance"):
            await a.wait_until_connected_to("nuisance")


async def test_who_never_says_hello_is_reported_once(
    bus: Bus, impatient: None, caplog: pytest.LogCaptureFixture
) -> None:
    config = bus.config("silent")
    with RawServer(config.path, backlog=100) as server:
        async with bus.join("a", connect_timeout=0.02) as endpoint:
            for _ in range(4):
                peer = await server.accept()
                await peer.closed()
                peer.socket.close()
            assert complaints(caplog) == [
                f"a: no connection to endpoint 'silent' at {config.path} within 0.02 s: "
                f"it has not said hello ({config.path} exists) (it is tried again)"
            ]
            assert not endpoint.is_connected_to("silent")


async def test_a_member_of_another_user_is_reported_once_and_does_not_disturb(
    bus: Bus, impatient: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = bus.config("foreign").path

    def peer_user(sock: socket.socket) -> int:
        return 12345 if sock.getpeername() == str(foreign) else os.geteuid()

    monkeypatch.setattr("lahja.peering.peer_user", peer_user)
    with RawServer(foreign) as server:
        async with joined(bus, "a") as (a,):
            for _ in range(5):
                peer = await server.accept()
                await peer.closed()
                peer.socket.close()
            async with bus.join("b") as b:
                await check_delivery(a, b)
                await until(lambda: len(complaints(caplog)) == 2)
    said = f"'foreign' at {foreign} is served by user 12345; see allowed_uids (it is tried again)"
    assert complaints(caplog) == [f"a: {said}", f"b: {said}"]


async def test_an_endpoint_under_the_file_of_another_name_is_reported_once(
    bus: Bus, impatient: None, caplog: pytest.LogCaptureFixture
) -> None:
    config = ConnectionConfig("real", bus.config("alias").path)
    async with bus.endpoint_class.serve(config), bus.join("a") as endpoint:
        await until(lambda: complaints(caplog))
        await until(lambda: endpoint._joining._members["alias"].delay > 0.003)  # type: ignore[union-attr]
        own = [text for text in complaints(caplog) if text.startswith("a: ")]
        assert own == [
            f"a: 'alias' at {config.path} refused the connection: "
            "this endpoint is 'real', not 'alias' (it is tried again)"
        ]


async def test_a_member_that_breaks_the_protocol_again_and_again_is_tried_more_and_more_rarely(
    bus: Bus,
) -> None:
    config = bus.config("faulty")
    with RawServer(config.path) as server:
        async with bus.join("a") as endpoint:
            member = endpoint._joining._members["faulty"]  # type: ignore[union-attr]
            delays = []
            for _ in range(3):
                peer = await server.accept()
                await peer.hello("faulty")
                await endpoint.wait_until_connected_to("faulty")
                await peer.send(b"\xff" * 10)
                await peer.closed()
                peer.socket.close()
                await until(lambda: not endpoint.is_connected_to("faulty"))
                delays.append(member.delay)
            assert delays == [0.2, 0.4, 0.8]


async def test_a_connection_that_lasted_is_no_bad_sign_when_it_breaks(
    bus: Bus, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lahja.joining._LASTING", -1.0)
    async with joined(bus, "a", "b") as (a, b):
        member = b._joining._members["a"]  # type: ignore[union-attr]
        for _ in range(3):
            for channel in list(b._peering._channels.values()):
                channel.close()
            assert member.delay == 0.004  # twice the first one, and not more
            await all_connected(a, b)


# -- The directory changes -------------------------------------------------------------------


async def test_a_directory_that_is_deleted_is_reported_once_and_its_return_mends_it(
    bus: Bus, watch: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    gone = f"{bus.directory} is gone: until it is there again, nobody else can join"
    async with joined(bus, "a", "b") as (a, b):
        for turn in range(2):
            caplog.clear()
            shutil.rmtree(bus.directory)
            await until(lambda: len(complaints(caplog)) == 2)
            await check_delivery(a, b)  # who is connected stays so
            assert sorted(complaints(caplog)) == [f"a: {gone}", f"b: {gone}"]
            with pytest.raises(FileNotFoundError):
                await bus.endpoint_class.join("c", bus.directory / "x").__aenter__()
            bus.directory.mkdir()
            async with bus.join(f"c{turn}") as c:
                await until(lambda: a.ipc_path.exists() and b.ipc_path.exists())
                await all_connected(a, b, c)
                await check_delivery(a, b, c)
                back = {f"{each.name}: it is in {each.ipc_path} again" for each in (a, b)}
                await until(lambda: back <= set(caplog.messages))  # noqa: B023 - at once
            await until(lambda: len(a._router.peers) == 1)
        assert len(complaints(caplog)) == 2
    assert list(bus.directory.iterdir()) == []


async def test_a_directory_that_is_replaced_by_another_one_is_followed(
    bus: Bus, watch: str
) -> None:
    async with joined(bus, "a", "b") as (a, b):
        aside = bus.directory.with_name(f"{bus.directory.name}-aside")
        bus.directory.rename(aside)
        bus.directory.mkdir()
        async with bus.join("c") as c:
            await all_connected(a, b, c)
        assert sorted(path.name for path in aside.iterdir()) == ["a.ipc", "b.ipc"]
        shutil.rmtree(aside)


async def test_a_file_in_the_place_of_the_directory_is_reported_once(
    bus: Bus, watch: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with joined(bus, "a", "b") as (a, b):
        shutil.rmtree(bus.directory)
        bus.directory.touch()
        await until(lambda: len(complaints(caplog)) >= 2)
        await check_delivery(a, b)
        assert any("cannot look into" in text for text in complaints(caplog))
        bus.directory.unlink()
        bus.directory.mkdir()
        async with bus.join("c") as c:
            await all_connected(a, b, c)


async def test_a_socket_that_somebody_removed_is_made_anew(
    bus: Bus, watch: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with joined(bus, "a", "b") as (a, b):
        a.ipc_path.unlink()
        await until(a.ipc_path.exists)
        assert complaints(caplog) == [
            f"a: somebody removed its socket, {a.ipc_path}; it serves anew"
        ]
        assert a.is_serving
        async with bus.join("c") as c:
            await all_connected(a, b, c)
    assert list(bus.directory.iterdir()) == []


async def test_a_socket_that_somebody_took_over_is_reported_once_and_left_alone(
    bus: Bus, watch: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with joined(bus, "a", "b") as (a, b):
        a.ipc_path.unlink()
        with RawServer(a.ipc_path):
            await until(lambda: complaints(caplog))
            await anyio.sleep(0.3)  # it looks again, and says nothing more
            mine = [text for text in complaints(caplog) if text.startswith("a: ")]
            assert len(mine) == 1
            assert "it cannot serve anew: [Errno" in mine[0]
            assert "another endpoint serves there" in mine[0]
            await check_delivery(a, b)
        a.ipc_path.unlink()
        async with bus.join("c") as c:
            await all_connected(a, b, c)


@pytest.mark.parametrize("fault", ["_look", "_connect_due"])
async def test_a_fault_of_lahja_itself_is_logged_and_ends_nothing(
    bus: Bus, fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: object, now: float) -> None:
        raise ZeroDivisionError("a fault")

    async with joined(bus, "a", "b") as (a, b):
        with monkeypatch.context() as patch:
            patch.setattr(f"lahja.joining.Joining.{fault}", fail)
            a._joining._wake()  # type: ignore[union-attr]
            await until(lambda: complaints(caplog))
            assert complaints(caplog)[0] == f"a: cannot look after {a.ipc_path}"
            await check_delivery(a, b)
        async with bus.serve("c"):
            await a.wait_until_connected_to("c")


# -- Leaving ---------------------------------------------------------------------------------


async def test_nothing_is_left_when_an_endpoint_has_left(bus: Bus, watch: str) -> None:
    before = living_tasks()
    with RawServer(bus.config("silent").path):
        leave_stale(bus.config("dead").path)
        async with bus.join("a") as a, bus.join("b"):
            await a.wait_until_connected_to("b")
        await until(lambda: living_tasks() == before)
        assert a._joining is not None
        assert a._joining._watch is None
        assert not a._router.observers
        assert a.is_server_stopped
        assert not bus.config("a").path.exists()


async def test_who_leaves_connects_to_nobody_any_more(bus: Bus) -> None:
    async with AsyncExitStack() as stack:
        slow = bus.config("slow").path
        async with bus.join("a", drain_timeout=0.7) as a:
            server = stack.enter_context(RawServer(slow))
            peer = await server.accept()
            stack.callback(peer.socket.close)
            await peer.hello("slow", {Text: None})
            await a.wait_until_endpoint_subscribed_to("slow", Text)
            for _ in range(20):
                a.broadcast_nowait(Text("x" * 100_000), BroadcastConfig(filter_endpoint="slow"))
            late = stack.enter_context(RawServer(bus.config("late").path))
        with pytest.raises(BlockingIOError):
            late.socket.accept()


async def test_an_endpoint_that_fails_leaves_as_any_other(bus: Bus) -> None:
    async with bus.join("a") as a:
        failing = bus.join("b")
        await failing.__aenter__()
        await a.wait_until_connected_to("b")
        error = ZeroDivisionError()
        assert not await failing.__aexit__(ZeroDivisionError, error, None)
        await until(lambda: not a.is_connected_to("b"))
        with anyio.CancelScope() as scope:
            async with bus.join("b"):
                await a.wait_until_connected_to("b")
                scope.cancel()
                await anyio.sleep_forever()
        await until(lambda: not a.is_connected_to("b"))
    assert list(bus.directory.iterdir()) == []


async def test_news_of_the_directory_that_come_after_the_end_are_no_trouble(bus: Bus) -> None:
    async with bus.endpoint_class.join("member", bus.directory) as member:
        joining = member._joining
        assert joining is not None
    assert joining._noticed() > 0


async def test_a_directory_in_which_nothing_changed_is_not_read_again(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bus.endpoint_class.join("member", bus.directory) as member:
        joining = member._joining
        assert joining is not None
        joining._end_watch()
        joining._look(member._loop.time())
        joining._watch_due, joining._is_news = math.inf, False
        read: list[bool] = []
        members = joining._directory.members

        def count() -> dict[str, Identity]:
            read.append(True)
            return members()

        monkeypatch.setattr(joining._directory, "members", count)
        joining._look(joining._unsettled_until)  # the stamp of a change may not be the last one
        assert len(read) == 1
        joining._is_news = False
        joining._look(joining._unsettled_until + 0.1)
        assert len(read) == 1


async def test_who_has_gone_before_it_is_connected_to_is_forgotten(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.endpoint_class.join("member", bus.directory) as member:
        joining = member._joining
        assert joining is not None
        gone = joining._members["gone"] = _Member(Identity(1, 2, 3), math.inf)
        await joining._connect("gone", gone)
        assert "gone" not in joining._members
    assert not complaints(caplog)
