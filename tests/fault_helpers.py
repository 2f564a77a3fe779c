"""
Processes to be killed, stopped and restarted, for the fault tests.

A :class:`Peer` is a real process that runs one coroutine function of a test module. Starting an
interpreter and importing everything takes most of a second, so peers are forked from a *nursery*:
one process that has all of it imported, runs no event loop, and does nothing else. Test and peer
talk through a socket, in lines of JSON. A peer that fails reports its traceback there; whatever a
peer writes to its standard error fails the test, too.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import itertools
import json
import logging
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import psutil
from process_helpers import BACKENDS, endpoint_class, run_on

import lahja
from lahja import BaseEvent
from lahja.base import BaseEndpoint

__all__ = [
    "Blob",
    "Home",
    "Peer",
    "Peers",
    "assert_nothing_waits",
    "open_files",
    "resident_size",
    "unfinished",
]

_NURSERY = "import fault_helpers; fault_helpers._be_the_nursery({})"

Role = Callable[..., Coroutine[Any, Any, None]]


@dataclass
class Blob(BaseEvent):
    """Be as long as a test likes; what cannot be compressed stays long."""

    data: bytes


# -- Between a test and its peers ------------------------------------------------------------


class Line:
    """
    Send and receive JSON values, one a line.

    :param sock: a connected socket, which the line owns from now on
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self._received = b""

    def say(self, value: object) -> None:
        """Send a value, a small one: nothing waits for room."""
        self.socket.sendall(json.dumps(value).encode() + b"\n")

    async def hear(self) -> Any:
        """
        Return the next value.

        :raise EOFError: where the other side is gone
        """
        while not self._is_there():
            await anyio.wait_readable(self.socket)
        return self._next()

    def hear_now(self) -> Any:
        """Do the same, while the event loop stands still."""
        while not self._is_there():
            select.select([self.socket], [], [])
        return self._next()

    def _is_there(self) -> bool:
        """Read what there is; return whether it makes a line."""
        try:
            while b"\n" not in self._received and (data := self.socket.recv(1 << 16)):
                self._received += data
        except BlockingIOError:
            return False
        except ConnectionResetError:
            pass
        if b"\n" not in self._received:
            raise EOFError("the other side is gone")
        return True

    def _next(self) -> Any:
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line)


class Home(Line):
    """
    Be the test, as seen from a peer.

    :param endpoint_class: the class of the endpoints for the event loop that the peer runs in
    """

    def __init__(self, sock: socket.socket, endpoint_class: type[BaseEndpoint]) -> None:
        super().__init__(sock)
        self.endpoint_class = endpoint_class


class Peer(Line):
    """Be a process, as seen from the test that started it."""

    def __init__(self, sock: socket.socket, pid: int) -> None:
        super().__init__(sock)
        self.pid = pid

    async def hear(self) -> Any:
        """
        Return the next value that the peer says.

        :raise EOFError: where it ended, or was killed
        :raise AssertionError: where its function failed
        """
        return await super().hear()

    def _next(self) -> Any:
        value = super()._next()
        if isinstance(value, dict) and "failed" in value:
            raise AssertionError(f"peer {self.pid} failed:\n{value['failed']}")
        return value

    async def expect(self, expected: object) -> None:
        """Make sure what the peer says next."""
        value = await self.hear()
        assert value == expected, f"peer {self.pid} said {value!r} instead of {expected!r}"

    async def finished(self) -> None:
        """Wait until the function of the peer has returned."""
        while await self.hear() != {"returned": True}:
            pass

    def kill(self) -> None:
        """End the process at once: it has no chance to say anything. It is dead on return."""
        os.kill(self.pid, signal.SIGKILL)
        self._wait_for(psutil.STATUS_ZOMBIE)

    def stop(self) -> None:
        """Let the process do nothing until it is continued; it is stopped on return."""
        os.kill(self.pid, signal.SIGSTOP)
        self._wait_for(psutil.STATUS_STOPPED)

    def go_on(self) -> None:
        """Continue the process."""
        os.kill(self.pid, signal.SIGCONT)

    def _wait_for(self, status: str) -> None:
        process = psutil.Process(self.pid)
        while process.status() not in (status, psutil.STATUS_ZOMBIE):
            time.sleep(0.0005)


class Peers:
    """Start peers, on all event loops in turn; leaving the context kills those that are left."""

    def __init__(self) -> None:
        self._backends = itertools.cycle(BACKENDS)
        self._peers: list[Peer] = []
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for peer in self._peers:
            peer.kill()  # it may be dead; its id is its own until the nursery is asked to reap it
            peer.socket.close()
        if self._peers:
            _ask(("reap", [peer.pid for peer in self._peers]))
        self._errors.seek(0)
        errors = self._errors.read().decode(errors="replace")
        self._errors.close()
        assert not errors, f"a peer wrote:\n{errors}"

    def start(self, role: Role, *args: Any) -> Peer:
        """
        Start a process that runs a coroutine function.

        :param role: a function of a module in ``tests``; called with its Home, the line to the test
        :param args: what else it is called with; picklable
        """
        ours, theirs = socket.socketpair()
        module = role.__module__.rpartition(".")[2]
        request = ("start", module, role.__qualname__, args, next(self._backends))
        with theirs:
            peer = Peer(ours, _ask(request, theirs.fileno(), self._errors.fileno()))
        self._peers.append(peer)
        return peer


# -- The nursery -----------------------------------------------------------------------------


@functools.cache
def _nursery() -> socket.socket:
    """Start the nursery, once, and return the socket that it takes requests from."""
    ours, theirs = socket.socketpair()
    path = (str(Path(lahja.__file__).parents[1]), str(Path(__file__).parent))
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    variables.pop("PYTHONDEVMODE", None)  # it makes everything slow
    variables.pop("PYTEST_CURRENT_TEST", None)
    with theirs:
        process = subprocess.Popen(
            (sys.executable, "-W", "error", "-c", _NURSERY.format(theirs.fileno())),
            env=variables,
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
        )

    @atexit.register
    def end() -> None:
        ours.close()
        process.wait()

    return ours


def _ask(request: tuple[Any, ...], *descriptors: int) -> int:
    """Let the nursery do something, and return the number that it answers with."""
    data = pickle.dumps(request)
    nursery = _nursery()
    socket.send_fds(nursery, [struct.pack("<I", len(data))], descriptors)
    nursery.sendall(data)
    number: int = struct.unpack("<I", nursery.recv(4))[0]
    return number


def _be_the_nursery(descriptor: int) -> None:
    """Fork a peer for each request, until the other side is gone."""
    requests = socket.socket(fileno=descriptor)
    for name in ("helpers", "uvloop", "anyio._backends._asyncio", "anyio._backends._trio"):
        importlib.import_module(name)
    logging.getLogger().addHandler(logging.NullHandler())
    gc.freeze()
    living: set[int] = set()
    while True:
        header, descriptors, _, _ = socket.recv_fds(requests, 4, 2)
        if not header:
            break
        size = struct.unpack("<I", header)[0]
        what, *request = pickle.loads(requests.recv(size, socket.MSG_WAITALL))
        if what == "reap":
            for pid in request[0]:
                os.waitpid(pid, 0)
                living.remove(pid)
            requests.send(struct.pack("<I", 0))
            continue
        pid = os.fork()
        if not pid:
            requests.close()
            module, role, args, backend = request
            _be_a_peer(descriptors[0], descriptors[1], module, role, args, backend)
        living.add(pid)
        requests.send(struct.pack("<I", pid))
        for descriptor in descriptors:
            os.close(descriptor)
    requests.close()
    for pid in living:
        os.kill(pid, signal.SIGKILL)


def _be_a_peer(
    descriptor: int, errors: int, module: str, name: str, args: tuple[Any, ...], backend: str
) -> None:
    os.dup2(errors, 2)
    os.close(errors)
    line = Home(socket.socket(fileno=descriptor), endpoint_class(backend))
    try:
        role = getattr(importlib.import_module(module), name)
        run_on(backend, role, line, *args)
        gc.collect()  # what is reported in a finalizer is reported now
        line.say({"returned": True})
    except BaseException:
        line.say({"failed": traceback.format_exc()[-8000:]})
    finally:
        sys.stderr.flush()
        os._exit(0)


# -- What tests check ------------------------------------------------------------------------


def unfinished(endpoint: BaseEndpoint) -> dict[str, int]:
    """Return what of an endpoint's bookkeeping waits for something, with how many."""
    router, peering = endpoint._router, endpoint._peering
    held = [gate for peer in router.peers.values() for gate in router.held_gates(peer)]
    counts = {
        "pending requests": len(router.pending),
        "waits for room": sum(len(gate.wakers) for gate in router.gates.values()),
        "waits for credit": sum(len(gate.wakers) for gate in held),
        "waits for a state": len(router._watchers),
        "attempts to connect": len(peering._attempts) + len(router.connecting),
        "connections without hello": len(peering._strangers),
        "channels beside those of peers": len(peering._channels) - len(router.peers),
    }
    return {what: count for what, count in counts.items() if count}


def assert_nothing_waits(endpoint: BaseEndpoint) -> None:
    """Make sure that nothing in the endpoint waits."""
    assert unfinished(endpoint) == {}


def open_files() -> int:
    """Return how many file descriptors this process has open."""
    number: int = psutil.Process().num_fds()
    return number


def resident_size(pid: int | None = None) -> int:
    """Return the memory that a process takes, in bytes."""
    size: int = psutil.Process(pid).memory_info().rss
    return size
