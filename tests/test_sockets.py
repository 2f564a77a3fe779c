"""Unix sockets: whose they are, what is done about what is in the way, and where there are none."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lahja import sockets
from lahja.sockets import (
    Listener,
    connect,
    peer_is_gone,
    peer_process,
    peer_user,
    remove_stale,
)


@pytest.fixture
def path(ipc_dir: Path) -> Path:
    """Return where a socket may be."""
    return ipc_dir / "server.ipc"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Return what closes sockets at the end."""
    with ExitStack() as stack:
        yield stack


def listen(path: Path, stack: ExitStack) -> Listener:
    """Return a listener that is closed at the end."""
    listener = Listener(path)
    stack.callback(listener.close)
    return listener


# -- Listening -------------------------------------------------------------------------------


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_the_file_is_for_its_user_alone_on_every_system(
    path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    umask = os.umask(0o022)
    stack.callback(os.umask, umask)
    monkeypatch.setattr(sys, "platform", platform)
    listener = listen(path, stack)
    monkeypatch.undo()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.umask(0o022) == 0o022  # as it was
    stack.enter_context(connect(path))
    accepted = listener.accept()
    assert accepted is not None
    accepted.close()


def test_a_socket_of_another_kind_is_left_alone(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(OSError, match=r"wrong type for socket") as raised:
            Listener(path)
    assert raised.value.errno == errno.EPROTOTYPE
    assert path.is_socket()


def test_connections_that_were_given_up_are_passed_over(path: Path, stack: ExitStack) -> None:
    listener = listen(path, stack)
    stack.enter_context(connect(path))
    real = listener.socket
    stack.callback(setattr, listener, "socket", real)

    class Hasty:
        """Tell of a connection that was reset before it was accepted, and of a signal."""

        failures: tuple[type[OSError], ...] = (ConnectionAbortedError, InterruptedError)

        def accept(self) -> Any:
            if self.failures:
                failure, *self.failures = self.failures  # type: ignore[assignment]
                raise failure
            return real.accept()

    listener.socket = Hasty()  # type: ignore[assignment]
    accepted = listener.accept()
    assert accepted is not None
    accepted.close()
    assert listener.accept() is None


def test_closing_twice_removes_one_file(path: Path) -> None:
    listener = Listener(path)
    listener.close()
    assert not path.exists()
    path.write_text("somebody else's")
    listener.close()
    assert path.read_text() == "somebody else's"


def test_closing_removes_nothing_where_the_directory_is_gone(path: Path) -> None:
    listener = Listener(path)
    shutil.rmtree(path.parent)
    listener.close()
    assert listener.socket.fileno() < 0


def test_a_forked_child_leaves_the_file_to_its_parent(
    path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = listen(path, stack)
    monkeypatch.setattr(os, "getpid", lambda: listener._owner + 1)
    listener.close()
    monkeypatch.undo()
    assert path.is_socket()
    path.unlink()


def test_a_forked_child_closes_what_was_its_parents(
    path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "_inherited", weakref.WeakSet())
    listener = listen(path, stack)
    ends = [connect(path), listener.accept()]
    sockets._close_inherited()  # what a child does first of all
    assert listener.socket.fileno() < 0
    assert all(end is not None and end.fileno() < 0 for end in ends)


def test_a_server_waits_for_another_one_that_looks_at_the_directory(
    path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptor = os.open(path.parent, os.O_RDONLY)
    stack.callback(os.close, descriptor)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    seen: list[bool] = []

    def sleep(seconds: float) -> None:
        seen.append(path.exists())
        if len(seen) == 3:
            fcntl.flock(descriptor, fcntl.LOCK_UN)

    monkeypatch.setattr(time, "sleep", sleep)
    listen(path, stack)
    assert seen == [False] * 3
    assert path.is_socket()


def test_a_server_does_not_wait_for_ever(
    path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptor = os.open(path.parent, os.O_RDONLY)
    stack.callback(os.close, descriptor)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    monkeypatch.setattr(sockets, "_LOCK_SECONDS", -1.0)
    listen(path, stack)
    assert path.is_socket()
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def test_only_what_is_surely_stale_is_removed(path: Path, stack: ExitStack) -> None:
    assert remove_stale(path)  # nothing is there
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        assert not remove_stale(path)
    path.unlink()
    listener = listen(path, stack)
    assert not remove_stale(path)
    listener.socket.close()
    descriptor = os.open(path.parent, os.O_RDONLY)
    stack.callback(os.close, descriptor)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert not remove_stale(path)
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    assert remove_stale(path)
    assert not path.exists()


# -- The other end ---------------------------------------------------------------------------


def test_the_user_at_the_other_end() -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert peer_user(one) == os.geteuid()


@pytest.mark.parametrize("platform", ["darwin", "freebsd15"])
def test_the_user_at_the_other_end_on_systems_of_bsd(
    monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    class Peer:
        def getsockopt(self, level: int, option: int, size: int) -> bytes:
            assert (level, option) == (0, 1)  # SOL_LOCAL, LOCAL_PEERCRED
            groups = (20, *range(1, 16))
            return struct.pack("IIh16I", 0, 501, len(groups), *groups)[:size]

    monkeypatch.setattr(sys, "platform", platform)
    assert peer_user(Peer()) == 501  # type: ignore[arg-type]


def test_the_user_at_the_other_end_where_nobody_can_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "haiku")
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert peer_user(one) is None


def test_the_process_at_the_other_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Peer:
        pid = 4321

        def getsockopt(self, level: int, option: int, size: int) -> bytes:
            if not self.pid:
                raise OSError(errno.ENOTCONN, "not connected")
            assert (level, option) == (0, 2)  # SOL_LOCAL, LOCAL_PEERPID
            return struct.pack("i", self.pid)

    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert peer_process(one) == os.getpid()
        monkeypatch.setattr(sys, "platform", "haiku")
        assert peer_process(one) is None
    monkeypatch.setattr(sys, "platform", "darwin")
    peer: Any = Peer()
    assert peer_process(peer) == 4321
    peer.pid = 0
    assert peer_process(peer) is None


def test_whether_the_other_end_is_gone() -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        other.send(b"last words")
        assert not peer_is_gone(one)
        other.close()
        assert peer_is_gone(one)  # though there is still something to read
        assert one.recv(100) == b"last words"
        one.close()
        assert peer_is_gone(one)


# -- Where there are no Unix sockets ---------------------------------------------------------

WITHOUT = """
import asyncio, os, select, signal, socket, sys, trio
import multiprocessing.connection, multiprocessing.popen_fork
pair, family = socket.socketpair, socket.AF_UNIX
socket.socketpair = lambda: pair(family)  # the event loops need one, and have their own elsewhere
for module, names in {
    os: "register_at_fork geteuid getuid fork O_CLOEXEC fchmod",
    select: "poll",
    signal: "SIGKILL",
    socket: "AF_UNIX SO_PEERCRED MSG_NOSIGNAL",
    socket.socket: "sendmsg",
}.items():
    for name in names.split():
        if module is socket.socket:
            setattr(module, name, property())
        else:
            vars(module).pop(name, None)
sys.modules["fcntl"] = sys.modules["resource"] = None
"""

USE = """
import importlib, pathlib, pkgutil
import lahja

for module in pkgutil.walk_packages(lahja.__path__, "lahja."):
    if sys.platform != "win32" and not module.name.endswith(("._framing", ".__main__")):
        importlib.import_module(module.name)


class Event(lahja.BaseEvent):
    pass


async def main(endpoint_class):
    config = lahja.ConnectionConfig("other", pathlib.Path("other.ipc"))
    try:
        async with endpoint_class.serve(config):
            raise AssertionError
    except lahja.UnsupportedPlatform as error:
        assert isinstance(error, NotImplementedError)
        print(error)
    try:
        endpoint_class.join("member")
    except lahja.UnsupportedPlatform as error:
        print(error)
    async with endpoint_class("alone").run() as endpoint:
        try:
            await endpoint.connect_to_endpoints(config)
        except lahja.UnsupportedPlatform as error:
            print(error)
        stream = endpoint.stream(Event, num_events=1)
        await endpoint.broadcast(Event())
        print([event.get_origin() async for event in stream])


asyncio.run(main(lahja.AsyncioEndpoint))
trio.run(main, lahja.TrioEndpoint)
"""


WINDOWS = """
import asyncio, multiprocessing.connection, pathlib, subprocess, sys, trio
sys.platform = "win32"
"""


@pytest.mark.parametrize("hidden", [WITHOUT, WINDOWS], ids=["without", "windows"])
def test_lahja_says_what_does_not_work_where_there_are_no_unix_sockets(
    hidden: str, ipc_dir: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", hidden + USE],
        env={**os.environ, "PYTHONPATH": str(Path(sockets.__file__).parents[1])},
        cwd=ipc_dir,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    because = (
        "endpoints talk to each other through Unix sockets, "
        "which Python does not have on this system "
        f"({'win32' if hidden == WINDOWS else sys.platform})"
    )
    said = [
        f"cannot serve at other.ipc: {because}",
        f"cannot join as 'member': {because}",
        f"cannot connect to other.ipc: {because}",
        "['alone']",
    ]
    assert done.stdout.splitlines() == 2 * said
    assert not done.stderr
    assert not [*ipc_dir.iterdir()]
