"""
Unix sockets: where they are, whose they are, and who is at the other end.

Every socket is non-blocking. A forked child closes those of its parent, which thereby stay the
parent's alone. Where the system has no Unix sockets, this module can be imported all the same, and
says so when it is used.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat
import struct
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from .exceptions import UnsupportedPlatform

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "RETRIED",
    "Closable",
    "Listener",
    "allowed_user",
    "check_platform",
    "close_in_children",
    "connect",
    "jitter",
    "peer_is_gone",
    "peer_process",
    "peer_user",
    "remove_stale",
]

RETRIED = frozenset((errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN, errno.ECONNRESET, errno.EINTR))
"""Errors of :func:`connect` that may pass: nobody serves yet, or too many connect at a time."""

_BACKLOG = 4096
_LONGEST_PATH = 107 if sys.platform == "linux" else 103
_LOCK_SECONDS = 5.0
_REFUSED_IS_STALE = sys.platform == "linux"  # elsewhere a full backlog refuses, too


class Closable(Protocol):
    """Hold a file descriptor."""

    def close(self) -> None:
        """Give it up."""


_inherited: weakref.WeakSet[Closable] = weakref.WeakSet()


def close_in_children(thing: Closable) -> None:
    """Let children that are forked from now on close what is their parent's alone."""
    _inherited.add(thing)


def _close_inherited() -> None:
    for thing in list(_inherited):
        thing.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_inherited)


def check_platform(action: str) -> None:
    """Raise UnsupportedPlatform where the system has no Unix sockets."""
    # On Windows, a Python may have the constant, and nothing else that is needed here.
    if sys.platform == "win32" or not hasattr(socket, "AF_UNIX"):
        raise UnsupportedPlatform(action)


def _make_socket(action: str) -> socket.socket:
    check_platform(action)
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)


def _check_path(path: Path) -> str:
    """Return the path of a socket as text, or raise where it is longer than a socket's may be."""
    size = len(os.fsencode(path))
    if size > _LONGEST_PATH:
        reason = (
            f"the path of a Unix socket has at most {_LONGEST_PATH} bytes, this one has {size}: "
            "choose a shorter name, or a directory with a shorter path"
        )
        raise OSError(errno.ENAMETOOLONG, reason, str(path))
    return str(path)


def connect(path: Path) -> socket.socket:
    """
    Connect to the socket at a path, without waiting.

    :raise OSError: where that is not possible now; see :data:`RETRIED`
    :raise UnsupportedPlatform: where the system has no Unix sockets
    """
    sock = _make_socket(f"connect to {path}")
    try:
        sock.setblocking(False)
        sock.connect(_check_path(path))
    except BaseException:
        sock.close()
        raise
    close_in_children(sock)
    return sock


def jitter() -> float:
    """Return by what to multiply a pause, so that not everybody tries again at the same moment."""
    return 0.5 + os.urandom(1)[0] / 255


def peer_user(sock: socket.socket) -> int | None:
    """Return the user id of the process at the other end, or None where the system cannot tell."""
    if sys.platform == "linux":
        size = struct.calcsize("3i")
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        user: int = struct.unpack("3i", credentials)[1]
        return user & 0xFFFFFFFF
    if sys.platform == "darwin" or "bsd" in sys.platform:
        # struct xucred: version, user id, number of groups, groups
        credentials = sock.getsockopt(0, 1, struct.calcsize("IIh16I"))
        user = struct.unpack_from("II", credentials)[1]
        return user
    return None


def peer_process(sock: socket.socket) -> int | None:
    """Return the id of the process at the other end, or None where the system cannot tell."""
    try:
        if sys.platform == "linux":
            size = struct.calcsize("3i")
            credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
            pid: int = struct.unpack("3i", credentials)[0]
        elif sys.platform == "darwin":
            (pid,) = struct.unpack("i", sock.getsockopt(0, 2, 4))  # LOCAL_PEERPID
        else:
            return None
    except OSError:
        return None
    return pid or None  # 0, where it is of another namespace of processes


def allowed_user(user: int | None, allowed: frozenset[int]) -> bool:
    """Return whether a process of the user may be talked to: root, oneself, and those allowed."""
    return user is None or user in (0, os.geteuid()) or user in allowed


def peer_is_gone(sock: socket.socket) -> bool:
    """Return whether the other end is closed, even where something is still to be read."""
    if sock.fileno() < 0:
        return True
    hangup = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)
    poll = select.poll()
    poll.register(sock.fileno(), hangup)
    return any(events & hangup for _, events in poll.poll(0))


@contextlib.contextmanager
def _locked(directory: Path, seconds: float = _LOCK_SECONDS) -> Iterator[bool]:
    """
    Keep other servers from looking at the directory's sockets in the same moment.

    :param seconds: how long to wait for one that does so
    :return: whether that was possible
    """
    import fcntl  # not at the top: Windows has none

    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # not readable: then without
        yield False
        return
    try:
        deadline = time.monotonic() + seconds
        is_locked = False
        while not is_locked:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_locked = True
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES) or time.monotonic() >= deadline:
                    break  # no locks here, or somebody keeps it: better without than never
                time.sleep(0.001)
        yield is_locked
    finally:
        os.close(descriptor)


def remove_stale(path: Path) -> bool:
    """
    Remove a socket on which nobody listens; return whether it is gone.

    It stays where there is any doubt: where somebody uses the lock under which servers replace
    sockets, or on a system that refuses connections to a live server, too.
    """
    with _locked(path.parent, 0.0) as is_locked:
        try:
            connect(path).close()
        except FileNotFoundError:
            return True
        except ConnectionRefusedError:
            if is_locked and _REFUSED_IS_STALE:
                with contextlib.suppress(OSError):
                    os.unlink(path)
                    return True
        except OSError:
            pass
    return False


class Listener:
    """
    Listen on a path: replace a stale socket, respect a live one, remove only one's own.

    :param look: called with the device and the inode of the socket when others can connect, and
        before any other server can begin in the same directory
    :raise OSError: where another endpoint serves there, or something else is in the way
    :raise UnsupportedPlatform: where the system has no Unix sockets
    """

    def __init__(self, path: Path, look: Callable[[tuple[int, int]], None] | None = None) -> None:
        from pathlib import Path  # see ConnectionConfig.from_name()

        self.path = Path(path)
        self._file = self.path.absolute()  # where it is, when the current directory has changed
        self.socket = _make_socket(f"serve at {path}")
        try:
            self.socket.setblocking(False)
            address = _check_path(self.path)
            with _locked(self.path.parent):
                self._make_room()
                try:
                    self._bind(address)
                except OSError as error:  # it says what is wrong, and not with which file
                    raise OSError(error.errno, error.strerror, address) from None
                status = os.lstat(self.path)
                self.identity = (status.st_dev, status.st_ino)  # its alone while it listens
                self.socket.listen(_BACKLOG)
                if look is not None:
                    look(self.identity)
        except BaseException:
            self.socket.close()
            raise
        self._owner = os.getpid()
        close_in_children(self.socket)

    def _make_room(self) -> None:
        try:
            mode = os.lstat(self.path).st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            reason = "what is there is not a socket; remove it, or serve somewhere else"
            raise OSError(errno.EEXIST, reason, str(self.path))
        try:
            connect(self.path).close()
        except ConnectionRefusedError:
            os.unlink(self.path)  # nobody listens
            return
        except OSError as error:
            if error.errno != errno.EAGAIN:  # its backlog is full: somebody listens
                raise
        reason = "another endpoint serves there; stop it, or serve somewhere else"
        raise OSError(errno.EADDRINUSE, reason, str(self.path))

    def _bind(self, address: str) -> None:
        """Bind with mode 0600 from the first moment."""
        if sys.platform == "linux":
            os.fchmod(self.socket.fileno(), 0o600)  # the file takes its mode from the socket
            self.socket.bind(address)
        else:
            umask = os.umask(0o177)
            try:
                self.socket.bind(address)
            finally:
                os.umask(umask)

    def accept(self) -> socket.socket | None:
        """
        Return the next connection, or None where there is none now.

        :raise OSError: where the process or the system has no room for another one
        """
        while True:
            try:
                sock, _ = self.socket.accept()
            except BlockingIOError:
                return None
            except (ConnectionAbortedError, InterruptedError):
                continue
            sock.setblocking(False)
            close_in_children(sock)
            return sock

    def close(self) -> None:
        """Stop listening, and remove the file where it is still this listener's. Idempotent."""
        if self.socket.fileno() < 0:
            return
        if self._owner == os.getpid():
            # Before the socket is closed: after that, another file may get its identity.
            with _locked(self._file.parent), contextlib.suppress(OSError):
                status = os.lstat(self._file)
                if (status.st_dev, status.st_ino) == self.identity:
                    os.unlink(self._file)
        self.socket.close()
