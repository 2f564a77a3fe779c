"""
One process of a soak; :mod:`benchmarks.soak` starts it, and tells it what to do.

It connects to all others, again and again. To them it broadcasts events of two kinds at full speed,
one of which the others take by a handler, and the other one by a stream that blocks; and it asks
them, several at a time. What it sent to whom it writes into a file at once, because it may be
killed at any moment; what it got it keeps, because nobody asks after that.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import gc
import json
import logging
import os
import random
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import psutil

from lahja import (
    AsyncioEndpoint,
    BaseEvent,
    BaseRequestResponseEvent,
    BroadcastConfig,
    ConnectionAttemptRejected,
    ConnectionConfig,
    ConnectTimeout,
    LifecycleError,
    NoSubscribers,
    RemoteDisconnected,
)
from lahja.base import BaseEndpoint
from lahja.framing import IMPLEMENTATION
from lahja.names import name_of

from .soak_ledger import Book, Epoch, Runs

ASKERS = 4
FLOW_BOUND = 50
MASK = 0x5A5A5A5A5A5A5A5A


@dataclass
class Tick(BaseEvent):
    """Be taken by a handler."""

    life: str
    number: int
    data: bytes


@dataclass
class Flow(BaseEvent):
    """Be taken by a stream that blocks."""

    life: str
    number: int
    data: bytes


@dataclass
class Reply(BaseEvent):
    number: int
    data: bytes


@dataclass
class Ask(BaseRequestResponseEvent[Reply]):
    number: int
    data: bytes

    @staticmethod
    def expected_response_type() -> type[Reply]:
        return Reply


KINDS: dict[str, type[Tick | Flow]] = {"tick": Tick, "flow": Flow}


class Log(logging.Handler):
    """Hand every line at WARNING and above to the ledger, where a kill cannot reach it."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(logging.WARNING)
        self._ledger = ledger

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "asyncio" and record.getMessage().startswith("Executing "):
            return  # its debug mode finds that a turn took long, as it may at full speed
        self._ledger.write(log=self.format(record), level=record.levelname)


class Ledger:
    """Write lines of JSON that outlive a kill."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, **values: object) -> None:
        """Write a line."""
        os.write(self._descriptor, json.dumps({**values, "at": time.monotonic()}).encode() + b"\n")

    def write_epoch(self, kind: str, epoch: Epoch) -> None:
        """Write how an epoch is now; the last line about it counts."""
        self.write(kind=kind, peer=epoch.peer, first=epoch.first, end=epoch.end)

    def clear(self) -> None:
        """Forget all of it."""
        os.ftruncate(self._descriptor, 0)

    def close(self) -> None:
        """Write no more."""
        os.close(self._descriptor)


class Node:
    """
    Be one process of the soak.

    :param options: what the supervisor says on the command line
    :param control: the socket to the supervisor
    """

    def __init__(self, options: dict[str, Any], control: socket.socket) -> None:
        self.name: str = options["name"]
        self.life: str = options["life"]
        self.directory = Path(options["directory"])
        self.others: list[str] = [name for name in options["names"] if name != self.name]
        self.sabotage: list[str] = options["sabotage"]  # what to do wrong, in this order
        self.wrong: set[str] = set()  # what of it is to be done wrong now, each once
        self.chance = random.Random(f"{options['seed']} {self.life}")
        self.control = control
        self.ledger = Ledger(options["ledger"])
        self.stall_timeout: float = options["stall_timeout"]
        self.endpoint: BaseEndpoint  # once it runs
        self.books = {kind: Book() for kind in KINDS}
        self.runs: dict[str, dict[str, Runs]] = {kind: {} for kind in KINDS}
        self.pausing = False
        self.resume = anyio.Event()
        self.resting = 0
        self.waiting: dict[str, float] = {}  # since when each asker has waited
        self.replies = 0
        self.disconnected = 0
        self.rejected = 0
        self.slowest = 0.0
        self.complaints: list[str] = []
        self.data = [self.chance.randbytes(size) for size in (20, 100, 100, 1000, 10_000, 50_000)]
        self.large = self.chance.randbytes(2_000_000)

    async def run(self, endpoint_class: type[BaseEndpoint]) -> None:
        """Take part until told to leave."""
        async with endpoint_class.serve(
            ConnectionConfig.from_name(self.name, self.directory),
            drain_timeout=self.stall_timeout,
            stall_timeout=self.stall_timeout,
        ) as self.endpoint:
            self.endpoint.subscribe(Tick, self.receive)
            self.endpoint.subscribe(Ask, self.answer)
            async with anyio.create_task_group() as tasks:
                for name in self.others:
                    tasks.start_soon(self.stay_connected, name)
                for kind in KINDS:
                    tasks.start_soon(self.broadcast, kind)
                for number in range(ASKERS):
                    tasks.start_soon(self.ask, f"asker {number}")
                tasks.start_soon(self.consume)
                await self.obey()
                tasks.cancel_scope.cancel()
            for kind in KINDS:
                self.look(kind)
        self.ledger.write(left={kind: book.number for kind, book in self.books.items()})
        self.ledger.close()

    # -- What the supervisor says ------------------------------------------------------------

    async def obey(self) -> None:
        """Do as the supervisor says, and answer each command with a line."""
        self.say({"ready": endpoint_instance(self.endpoint), "framing": IMPLEMENTATION})
        received = b""
        while True:
            await anyio.wait_readable(self.control)
            received += self.control.recv(1 << 20)
            *lines, received = received.split(b"\n")
            for line in lines:
                command = json.loads(line)
                if command["do"] == "leave":
                    return
                self.say(await getattr(self, f"do_{command['do']}")(command))

    def say(self, value: object) -> None:
        """Send a line to the supervisor, which waits for it."""
        self.control.setblocking(True)
        self.control.sendall(json.dumps(value).encode() + b"\n")
        self.control.setblocking(False)

    async def do_count(self, command: dict[str, Any]) -> object:
        """Say how many of the others are connected and subscribed to everything."""
        return {"receivers": min(len(self.receivers(kind)) for kind in KINDS)}

    async def do_pause(self, command: dict[str, Any]) -> object:
        """Send nothing more; that is done when everybody has what it waits for."""
        self.pausing = True
        with anyio.move_on_after(command["seconds"]):
            while self.waiting or self.resting < len(KINDS) + ASKERS:  # noqa: ASYNC110
                await anyio.sleep(0.01)
        now = time.monotonic()
        return {"hung": {whom: now - since for whom, since in self.waiting.items()}}

    async def do_forget(self, command: dict[str, Any]) -> object:
        """Open new books; what happened so far was compared."""
        self.ledger.clear()
        for kind, book in self.books.items():
            book.forget()
            for epoch in book.epochs:
                self.ledger.write_epoch(kind, epoch)
            for runs in self.runs[kind].values():
                runs.forget()
        return {}

    async def do_resume(self, command: dict[str, Any]) -> object:
        """Go on."""
        self.pausing = False
        self.wrong, self.sabotage = set(self.sabotage), []
        self.resume.set()
        self.resume = anyio.Event()
        return {}

    async def do_position(self, command: dict[str, Any]) -> object:
        """Say how many events were sent, and how far those of the others have come."""
        return {
            "sent": {kind: book.number for kind, book in self.books.items()},
            "got": {
                kind: {life: runs.next for life, runs in lives.items()}
                for kind, lives in self.runs.items()
            },
        }

    async def do_report(self, command: dict[str, Any]) -> object:
        """Say everything that counts."""
        for lives in self.runs.values():
            for life, runs in lives.items():
                self.complaints += [f"{self.life}: from {life}, {it}" for it in runs.complaints]
                runs.complaints.clear()
        complaints, self.complaints = self.complaints, []
        for kind in KINDS:
            self.look(kind)
        return {
            "epochs": {
                kind: [vars(epoch) for epoch in book.epochs] for kind, book in self.books.items()
            },
            "runs": {
                kind: {life: runs.runs for life, runs in lives.items()}
                for kind, lives in self.runs.items()
            },
            "complaints": complaints,
            "replies": self.replies,
            "disconnected": self.disconnected,
            "rejected": self.rejected,
            "slowest": self.slowest,
        }

    async def do_measure(self, command: dict[str, Any]) -> object:
        """Say what this process holds, which is the same whenever all is quiet."""
        gc.collect()
        release_memory()
        process = psutil.Process()
        router, peering = self.endpoint._router, self.endpoint._peering
        return {
            "memory": process.memory_info().rss,
            "files": process.num_fds(),
            "tasks": living_tasks(),
            "threads": process.num_threads(),
            "channels": len(peering._channels),
            "strangers": len(peering._strangers),
            "requests": len(router.pending),
            "waits": len(router._watchers),
            "gates": len(router.gates),
            "bytes to write": sum(peer.outlet.size for peer in router.peers.values()),
        }

    # -- What it does of its own -------------------------------------------------------------

    async def stay_connected(self, name: str) -> None:
        """Connect to another one whenever it is not connected; it does the same."""
        config = ConnectionConfig.from_name(name, self.directory)
        while True:
            while self.endpoint.is_connected_to(name):
                await self.endpoint.wait_until_connections_change()
            try:
                await self.endpoint.connect_to_endpoints(config)
            except ConnectTimeout as error:  # nobody is away for so long
                self.complaints.append(f"{self.life}: {error}")
            except ConnectionAttemptRejected:
                self.rejected += 1
                await anyio.sleep(0.05)

    def do_wrong(self, what: str) -> bool:
        """Return whether to do something wrong now."""
        if what not in self.wrong:
            return False
        self.wrong.remove(what)
        return True

    async def rest(self) -> None:
        """Wait where there is a pause."""
        while self.pausing:
            self.resting += 1
            await self.resume.wait()
            self.resting -= 1

    def receivers(self, kind: str) -> dict[str, tuple[object, str]]:
        """Return who gets an event of a kind that is broadcast now: connection and instance."""
        wanted = name_of(KINDS[kind])
        return {
            name: (peer, peer.instance.hex())
            for name, peer in self.endpoint._router.peers.items()
            if wanted in peer.subscriptions
        }

    def look(self, kind: str) -> None:
        """Note who gets the next event of a kind."""
        for epoch in self.books[kind].look(self.receivers(kind), time.monotonic()):
            self.ledger.write_epoch(kind, epoch)

    async def broadcast(self, kind: str) -> None:
        """Broadcast at full speed."""
        cls, book, router = KINDS[kind], self.books[kind], self.endpoint._router
        version = -1
        while True:
            await self.rest()
            data = self.chance.choice(self.data)
            if kind == "flow" and book.number % 500 == 0:
                data = self.large
            if version != router.subscriptions_version:
                version = router.subscriptions_version
                self.look(kind)
            number = book.number
            book.number += 1
            if self.do_wrong("lose"):
                continue
            if self.do_wrong("leak"):
                os.dup(0)
            await self.endpoint.broadcast(cls(self.life, number, data))

    def receive(self, event: Tick | Flow) -> None:
        """Take note of an event."""
        lives = self.runs["tick" if type(event) is Tick else "flow"]
        runs = lives.get(event.life)
        if runs is None:
            runs = lives[event.life] = Runs()
        runs.note(event.number)
        if self.do_wrong("repeat"):
            runs.note(event.number)

    async def consume(self) -> None:
        """Read the stream that blocks, and now and then ask the very one that it holds back."""
        async for event in self.endpoint.stream(Flow, max_queue=FLOW_BOUND):
            self.receive(event)
            if event.number % 100 == 0:
                await self.request("consumer", event.get_origin())

    def answer(self, event: Ask) -> None:
        """Respond to a request."""
        self.endpoint.broadcast_nowait(
            Reply(event.number ^ MASK, event.data), event.broadcast_config()
        )

    async def ask(self, whom: str) -> None:
        """Ask one after the other."""
        while True:
            await self.rest()
            if self.do_wrong("hang"):
                self.waiting[whom] = time.monotonic()
                await anyio.sleep_forever()
            names = [n for n in self.others if self.endpoint.is_endpoint_subscribed_to(n, Ask)]
            if names:
                await self.request(whom, self.chance.choice(names))
            else:
                await anyio.sleep(0.01)

    async def request(self, whom: str, name: str) -> None:
        """Ask one of the others, and check what it says."""
        number, data = self.chance.getrandbits(63), self.chance.choice(self.data)
        began = self.waiting[whom] = time.monotonic()
        try:
            reply = await self.endpoint.request(
                Ask(number, data), BroadcastConfig(filter_endpoint=name)
            )
        except (RemoteDisconnected, NoSubscribers):
            self.disconnected += 1
        except LifecycleError:
            return  # it leaves
        else:
            self.replies += 1
            if (reply.number, reply.data, reply.get_origin()) != (number ^ MASK, data, name):
                self.complaints.append(f"{self.life}: {name} answered another question")
        finally:
            del self.waiting[whom]
        self.slowest = max(self.slowest, time.monotonic() - began)


def endpoint_instance(endpoint: BaseEndpoint) -> str:
    """Return the instance id of an endpoint, as hex."""
    instance: bytes = endpoint._router.hello.instance
    return instance.hex()


def living_tasks() -> int:
    """Return how many tasks there are in the running event loop."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        import trio

        return trio.lowlevel.current_statistics().tasks_living


@functools.cache
def _trimmer() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


def release_memory() -> None:
    """Give free memory back to the system, where the C library knows how."""
    trim = _trimmer()
    if trim is not None:
        trim(0)


def main() -> None:
    """Run one process, as its command line says."""
    options = json.loads(sys.argv[1])
    control = socket.socket(fileno=options["control"])
    control.setblocking(False)

    endpoint_class: type[BaseEndpoint] = AsyncioEndpoint
    library, extra = "asyncio", {"use_uvloop": options["backend"] == "uvloop"}
    if options["backend"] == "trio":
        from lahja import TrioEndpoint

        endpoint_class, library, extra = TrioEndpoint, "trio", {}

    async def run() -> None:
        node = Node(options, control)
        logging.getLogger().addHandler(Log(node.ledger))
        await node.run(endpoint_class)

    anyio.run(run, backend=library, backend_options=extra)
    control.close()


if __name__ == "__main__":
    main()
