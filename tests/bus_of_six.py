"""
A real bus for the commands that observe: six processes, three on asyncio (one on uvloop), three on
trio, each of which outlives the death of any other.

Each tells the others of its heartbeat, asks one of them now and then, and broadcasts what nobody
wants; ``ann`` has a slow handler, and ``bob`` a stream that it never reads.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from process_helpers import Worker, calling, endpoint_class, run_on

from lahja import BaseEvent, BaseRequestResponseEvent, BroadcastConfig, ConnectionConfig, LahjaError

__all__ = ["BACKENDS", "BusOfSix", "bus_of_six"]

BACKENDS = {
    "ann": "asyncio",
    "bob": "asyncio",
    "cat": "uvloop",
    "dan": "trio",
    "eve": "trio",
    "fay": "trio",
}
_STOP = "stop"
_PAUSE = 0.02


@dataclass(frozen=True)
class Tick(BaseEvent):
    number: int
    symbol: str
    price: float


@dataclass(frozen=True)
class Answer(BaseEvent):
    number: int


@dataclass(frozen=True)
class Ask(BaseRequestResponseEvent[Answer]):
    number: int

    @staticmethod
    def expected_response_type() -> type[Answer]:
        return Answer


@dataclass(frozen=True)
class Weather(BaseEvent):
    """Be of no interest to anybody, and no plain value."""

    report: Any


@dataclass(frozen=True)
class Burst(BaseEvent):
    """Be more than a stream has room for."""

    number: int


def participate(name: str, directory: str) -> None:
    """Be one of the six."""
    run_on(BACKENDS[name], _participate, name, Path(directory))


async def _participate(name: str, directory: Path) -> None:
    backend = BACKENDS[name]
    own = ConnectionConfig.from_name(name, directory)
    async with endpoint_class(backend).serve(own) as endpoint:

        async def answer(question: Ask) -> None:
            await endpoint.broadcast(Answer(question.number), question.broadcast_config())

        def slow(tick: Tick) -> None:
            if tick.number == 3:
                time.sleep(0.15)

        endpoint.subscribe(Tick, slow if name == "ann" else lambda tick: None)
        endpoint.subscribe(Ask, answer)
        if name == "bob":
            unread = endpoint.stream(Burst, overflow="latest")
        for other in BACKENDS:
            if other > name:
                await endpoint.connect_to_endpoints(ConnectionConfig.from_name(other, directory))
        for other in BACKENDS:
            await endpoint.wait_until_endpoint_subscribed_to(other, Ask)
        print("ready", flush=True)
        number = 0
        while not (directory / _STOP).exists():
            await endpoint.broadcast(Tick(number, "LAHJA", number / 4))
            await endpoint.broadcast(Weather({"wind": 1j}))
            if number < 10:
                await endpoint.broadcast(Burst(number))
            asked = BroadcastConfig(filter_endpoint="fay" if name != "fay" else "eve")
            with contextlib.suppress(LahjaError):
                await endpoint.request(Ask(number), asked, timeout=5)
            number += 1
            await anyio.sleep(_PAUSE)
        if name == "bob":
            await unread.aclose()


class BusOfSix:
    """Be the bus, in a directory."""

    def __init__(self, directory: Path, workers: dict[str, Worker]) -> None:
        self.directory = directory
        self.workers = workers

    def pid(self, name: str) -> int:
        """Return the id of a process."""
        return self.workers[name].process.pid


@contextmanager
def bus_of_six(directory: Path) -> Iterator[BusOfSix]:
    """Run the six, all of them connected and at work; leaving the context ends them."""
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(Worker(*calling(participate, name, str(directory))))
            for name in BACKENDS
        }
        try:
            for worker in workers.values():
                assert worker.read_line() == "ready", worker.errors
            yield BusOfSix(directory, workers)
        finally:
            (directory / _STOP).touch()
