"""
Real processes join, crash, come back, and come all at once.

The peers run on asyncio, uvloop and trio in turn, so that every bus in here is a mixed one. What
joining means within one event loop is in ``test_contract_joining.py``.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from fault_helpers import Home, Peer, Peers, assert_nothing_waits
from helpers import Bus, Number, complaints, take, until
from process_helpers import BACKENDS, Worker, backend_name, calling, endpoint_class, run_on

import lahja.joining as joining_module
from lahja import BroadcastConfig, MembershipReason, Stream
from lahja.base import BaseEndpoint

pytestmark = pytest.mark.anyio

NOBODY = 65534  # a user id that no process of the tests has on its own
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
NEEDS_LINUX = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere, a server whose backlog is full looks dead, too"
)
WATCHES = ["inotify", "poll"] if sys.platform == "linux" else ["poll"]


@pytest.fixture
def peers() -> Iterator[Peers]:
    """Return what starts processes."""
    with Peers() as started:
        yield started


@pytest.fixture
def backend(anyio_backend: tuple[str, dict[str, Any]]) -> str:
    """Return the name of the event loop that the test runs on, for processes that use it, too."""
    return backend_name(anyio_backend)


class Complaints(logging.Handler):
    """Keep what a peer logs at WARNING and above."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []
        logging.getLogger("lahja").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


async def take_part(
    home: Home, name: str, directory: Path, allowed_uids: tuple[int, ...] = ()
) -> None:
    """Join, say which Numbers come, and do as the test says."""
    logged = Complaints()
    join = home.endpoint_class.join
    async with join(name, directory, allowed_uids=allowed_uids) as endpoint:
        endpoint.subscribe(Number, lambda event: home.say([event.get_origin(), event.value]))
        home.say("joined")
        while (command := await home.hear()) != "leave":
            if isinstance(command, list):  # the names of others
                await endpoint.wait_until_all_of(command, subscribed_to=Number, timeout=50)
                home.say("together")
            elif isinstance(command, int):
                await endpoint.broadcast(Number(command), BroadcastConfig(filter_endpoint="test"))
            elif command == "count":
                home.say(len(endpoint._peering._channels))
            else:
                home.say(logged.texts)


async def joined(peers: Peers, directory: Path, name: str) -> Peer:
    """Start a process that joins."""
    peer = peers.start(take_part, name, directory)
    await peer.expect("joined")
    return peer


@asynccontextmanager
async def listening(bus: Bus) -> AsyncIterator[tuple[BaseEndpoint, Stream[Number]]]:
    """Join as the endpoint of the test, and listen."""
    async with bus.join("test") as endpoint:
        yield endpoint, endpoint.stream(Number)


async def check_delivery(endpoint: BaseEndpoint, stream: Stream[Number], peers: list[Peer]) -> None:
    """Check that every peer gets an event of the test, and the test one of each."""
    for peer in peers:
        peer.say(["test"])
        await peer.expect("together")
    for number, peer in enumerate(peers):
        peer.say(number)
    assert sorted(event.value for event in await take(stream, len(peers))) == [*range(len(peers))]
    await endpoint.broadcast(Number(7))
    assert (await anext(stream)).value == 7
    for peer in peers:
        await peer.expect(["test", 7])


# -- Many at once ----------------------------------------------------------------------------


@pytest.mark.timeout(120)
async def test_fifty_processes_that_join_at_once_are_all_connected_and_nobody_complains(
    bus: Bus, peers: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"member{number}" for number in range(50)]
    async with listening(bus) as (endpoint, stream):
        members = [peers.start(take_part, name, bus.directory) for name in names]
        for member in members:
            member.say([*names, "test"])
        await endpoint.wait_until_all_of(names, subscribed_to=Number)
        for member in members:
            await member.expect("joined")
            await member.expect("together")
        await check_delivery(endpoint, stream, members)
        for member in members:
            member.say("count")
            await member.expect(50)
            member.say("complaints")
            await member.expect([])
        for member in members:
            member.say("leave")
        for member in members:
            await member.finished()
        await until(lambda: not endpoint._router.peers)
        assert_nothing_waits(endpoint)
    assert not complaints(caplog)
    assert list(bus.directory.iterdir()) == []


# -- Crashes ---------------------------------------------------------------------------------


async def test_a_process_that_crashes_is_gone_and_may_come_back(bus: Bus, peers: Peers) -> None:
    async with listening(bus) as (endpoint, stream):
        witness = await joined(peers, bus.directory, "witness")
        await endpoint.wait_until_connected_to("witness")
        changes = endpoint.membership()
        assert (await anext(changes)).name == "witness"
        for _ in range(3):
            peer = await joined(peers, bus.directory, "crashing")
            await endpoint.wait_until_all_of({"crashing", "witness"}, subscribed_to=Number)
            witness.say(["crashing", "test"])
            await witness.expect("together")
            await check_delivery(endpoint, stream, [peer, witness])
            peer.kill()
            reasons = [await anext(changes), await anext(changes)]
            assert [(change.name, change.reason) for change in reasons] == [
                ("crashing", MembershipReason.CONNECTED),
                ("crashing", MembershipReason.CRASHED),
            ]
            assert not endpoint.is_connected_to("crashing")
        witness.say("complaints")
        await witness.expect([])
        assert_nothing_waits(endpoint)


@NEEDS_LINUX
async def test_what_a_crashed_process_leaves_behind_is_removed_by_the_others(
    bus: Bus, peers: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"member{number}" for number in range(6)]
    async with listening(bus) as (endpoint, _):
        members = [await joined(peers, bus.directory, name) for name in names]
        await endpoint.wait_until_all_of(names)
        for member in members[:3]:
            member.kill()
        await until(lambda: len(list(bus.directory.iterdir())) == 4)
        await until(lambda: len(endpoint._router.peers) == 3)
        for member in members[3:]:
            member.say("complaints")
            await member.expect([])
    assert not complaints(caplog)


async def test_what_crashed_processes_left_behind_is_in_nobodys_way(
    bus: Bus, peers: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b", "c"):
        peer = await joined(peers, bus.directory, name)
        peer.kill()
    async with listening(bus) as (endpoint, stream):
        members = [await joined(peers, bus.directory, name) for name in ("b", "c", "d")]
        await endpoint.wait_until_all_of({"b", "c", "d"}, subscribed_to=Number)
        for member in members:
            member.say(["b", "c", "d", "test"])
            await member.expect("together")
        await check_delivery(endpoint, stream, members)
    assert not complaints(caplog)


@pytest.mark.timeout(120)
async def test_a_member_that_stands_still_holds_up_nobody_and_is_there_when_it_goes_on(
    bus: Bus, peers: Peers
) -> None:
    still = await joined(peers, bus.directory, "still")
    still.stop()
    async with listening(bus) as (endpoint, stream):
        other = await joined(peers, bus.directory, "other")
        await endpoint.wait_until_connected_to("other")
        await check_delivery(endpoint, stream, [other])
        assert bus.config("still").path.exists()
        still.go_on()
        await endpoint.wait_until_all_of({"still", "other"}, subscribed_to=Number)
        other.say(["still", "test"])
        await other.expect("together")
        await check_delivery(endpoint, stream, [still, other])


# -- Without a directory ---------------------------------------------------------------------


def _meet(backend: str, own: str, other: str) -> None:
    """Join the bus of the user and the application, and wait for somebody else."""

    async def meet() -> None:
        async with endpoint_class(backend).join(own, app="meeting") as endpoint:
            stream = endpoint.stream(Number)
            await endpoint.wait_until_all_of({other}, subscribed_to=Number)
            await endpoint.broadcast(Number(1), BroadcastConfig(filter_endpoint=other))
            print((await anext(stream)).get_origin(), endpoint.ipc_path, flush=True)

    run_on(backend, meet)


@pytest.mark.parametrize("variable", ["XDG_RUNTIME_DIR", "TMPDIR"])
def test_processes_of_an_application_find_each_other_without_a_directory(
    backend: str, variable: str, ipc_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {"XDG_RUNTIME_DIR": None, variable: str(ipc_dir)}
    with (
        Worker(*calling(_meet, backend, "a", "b"), environment=environment) as a,
        Worker(*calling(_meet, "trio", "b", "a"), environment=environment) as b,
    ):
        lines = [a.read_line(), b.read_line()]
    if variable == "XDG_RUNTIME_DIR":
        directory = ipc_dir / "lahja" / "meeting"
    else:
        directory = ipc_dir / f"lahja-{os.geteuid()}" / "meeting"
    assert lines == [f"b {directory}/a.ipc", f"a {directory}/b.ipc"]
    assert directory.stat().st_mode & 0o777 == directory.parent.stat().st_mode & 0o777 == 0o700


# -- Other users -----------------------------------------------------------------------------


async def take_part_as_nobody(home: Home, name: str, directory: Path, *allowed: int) -> None:
    become_nobody()
    await take_part(home, name, directory, allowed)


def become_nobody() -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


@NEEDS_ROOT
async def test_a_member_of_another_user_is_reported_once_and_everything_else_goes_on(
    bus: Bus, peers: Peers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bus.directory.chmod(0o777)
    foreign = peers.start(take_part_as_nobody, "foreign", bus.directory)
    await foreign.expect("joined")
    async with listening(bus) as (endpoint, stream):
        other = await joined(peers, bus.directory, "other")
        await endpoint.wait_until_connected_to("other")
        await check_delivery(endpoint, stream, [other])
        await until(lambda: complaints(caplog))
        path = bus.config("foreign").path
        said = f"'foreign' at {path} is served by user {NOBODY}; see allowed_uids"
        assert complaints(caplog) == [f"test: {said} (it is tried again)"]
        await anyio.sleep(1)
        assert len(complaints(caplog)) == 1
        foreign.say("complaints")
        kept_out = await foreign.hear()
        assert len(kept_out) == len(set(kept_out))
        assert all("Permission denied" in text for text in kept_out)


@NEEDS_ROOT
async def test_users_that_allow_each_other_share_a_bus(bus: Bus, peers: Peers) -> None:
    bus.directory.chmod(0o777)
    foreign = peers.start(take_part_as_nobody, "foreign", bus.directory, NOBODY)
    await foreign.expect("joined")
    async with bus.join("test", allowed_uids=[NOBODY]) as endpoint:
        stream = endpoint.stream(Number)
        await endpoint.wait_until_all_of({"foreign"}, subscribed_to=Number)
        await check_delivery(endpoint, stream, [foreign])


async def join_the_default(home: Home, runtime: Path) -> None:
    """Try to join a bus that others have prepared."""
    become_nobody()
    os.environ["XDG_RUNTIME_DIR"] = "/"
    os.environ["TMPDIR"] = str(runtime)
    try:
        async with home.endpoint_class.join("a"):
            pass
    except OSError as error:
        home.say(str(error))
    else:
        home.say("joined")


@NEEDS_ROOT
async def test_a_default_directory_that_another_user_has_made_is_refused(
    bus: Bus, peers: Peers
) -> None:
    bus.directory.chmod(0o777)
    path = bus.directory / f"lahja-{NOBODY}"
    path.mkdir(mode=0o700)
    peer = peers.start(join_the_default, bus.directory)
    said = await peer.hear()
    assert "it belongs to user 0: remove it, or name a directory to join" in said
    assert str(path) in said
    path.rmdir()
    peer = peers.start(join_the_default, bus.directory)
    await peer.expect("joined")
    assert path.stat().st_uid == NOBODY


# -- What it costs ---------------------------------------------------------------------------


def _be_idle(backend: str, watch: str, directory: str, seconds: str) -> None:
    """Join with two others and do nothing, and tell how much of a core that takes."""
    if watch == "poll":
        sys.modules["inotify_simple"] = None  # type: ignore[assignment]
    join = endpoint_class(backend).join

    async def be_idle() -> None:
        async with AsyncExitStack() as stack:
            names = ("a", "b", "c")
            members = [await stack.enter_async_context(join(name, directory)) for name in names]
            for member in members:
                await member.wait_until_all_of(names)
            await anyio.sleep(3)  # until what has changed is settled
            watches = [each._joining and each._joining._watch for each in members]
            assert watches.count(None) == (len(members) if watch == "poll" else 0)
            used, began = time.process_time(), time.monotonic()
            await anyio.sleep(float(seconds))
            used = time.process_time() - used
            print(used / (time.monotonic() - began) / len(members), flush=True)

    run_on(backend, be_idle)


@pytest.mark.parametrize("watch", WATCHES)
def test_an_idle_member_takes_less_than_a_thousandth_of_a_core(watch: str, ipc_dir: Path) -> None:
    with ExitStack() as stack:
        workers = []
        for backend in BACKENDS:
            (ipc_dir / backend).mkdir()
            command = calling(_be_idle, backend, watch, str(ipc_dir / backend), "4")
            workers.append(stack.enter_context(Worker(*command, strict=False)))
        shares = [float(worker.read_line()) for worker in workers]
    assert max(shares) < 0.001, dict(zip(BACKENDS, shares, strict=True))


# -- Forks -----------------------------------------------------------------------------------


async def join_and_fork(home: Home, directory: Path) -> None:
    """Have a child, which keeps nothing of its parent."""
    joining_module._UNWATCHED = 0.0
    async with home.endpoint_class.join("parent", directory) as endpoint:
        home.say("joined")
        await home.hear()
        child = os.fork()
        if not child:
            assert endpoint._joining is not None
            watch = endpoint._joining._watch
            is_closed = sys.platform != "linux" or (watch is not None and watch.fileno() < 0)
            home.say(["the child has closed its watch", is_closed])
            signal.pause()
        home.say(child)
        await home.hear()


async def test_a_forked_child_keeps_nothing_of_a_member(bus: Bus, peers: Peers) -> None:
    async with listening(bus) as (endpoint, _):
        parent = peers.start(join_and_fork, bus.directory)
        await parent.expect("joined")
        await endpoint.wait_until_connected_to("parent")
        parent.say("fork")
        said = [await parent.hear(), await parent.hear()]
        child = next(each for each in said if isinstance(each, int))
        try:
            assert ["the child has closed its watch", True] in said
            parent.kill()
            await until(lambda: not endpoint.is_connected_to("parent"))
            os.kill(child, 0)  # it lives
            async with bus.join("parent"):
                await endpoint.wait_until_connected_to("parent")
        finally:
            os.kill(child, signal.SIGKILL)
