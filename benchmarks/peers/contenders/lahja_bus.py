"""
lahja, and its last release before this one, upstream's ``lahja==0.17.0``.

Both run the code below, with its public names only, in every respect with their defaults. Each
receiver serves on a Unix socket, the sender connects to all of them. Events are dataclasses. The
receiver reads a stream, whose events it counts and compares with what is due. A sender broadcasts
in a loop, and waits for each broadcast; an asker sends its requests to one endpoint by name, and
the other side takes them from a stream and broadcasts the answers.

This checkout comes as the folder ``lahja`` itself, with the extension that was built in it for the
interpreter that runs the benchmark; upstream as the wheel from PyPI. They never see python-snappy,
unless their names end in ``snappy``: then both have the same release of it. Upstream runs with the
trio of today. Its ``connect_to_endpoints`` waits for the socket to be there, and fails where nobody
listens on it yet, which happens when processes start at the same time; it is then called again.
"""

from __future__ import annotations

import asyncio
import platform
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lahja
from lahja import AsyncioEndpoint, BaseEvent, BaseRequestResponseEvent, BroadcastConfig
from lahja import ConnectionConfig as Config

from ..work import Node, now

__all__ = [
    "ROLES",
    "Event",
    "WarmedUp",
    "about",
    "config_of",
    "confirm",
    "connect",
    "finish",
    "on_loop",
]

_BATCH = 1000  # events that are made before they are broadcast, where only the latter counts


@dataclass
class Event(BaseEvent):
    number: int
    sent_at: float
    payload: bytes


@dataclass
class Answer(BaseEvent):
    number: int
    sent_at: float
    payload: bytes


@dataclass
class Question(BaseRequestResponseEvent[Answer]):
    number: int
    sent_at: float
    payload: bytes

    @staticmethod
    def expected_response_type() -> type[Answer]:
        return Answer


@dataclass
class Finished(BaseEvent):
    pass


@dataclass
class WarmedUp(BaseRequestResponseEvent[Finished]):
    """Ask whether everything has arrived that does not count."""

    @staticmethod
    def expected_response_type() -> type[Finished]:
        return Finished


@dataclass
class Finish(WarmedUp):
    """Ask whether everything has arrived."""


def _version(distribution: str) -> str:
    """Return which release is installed, without what takes as long to import as asyncio."""
    name = distribution.replace("-", "_")
    for folder in sys.path:
        for path in Path(folder).glob(f"{name}-*.dist-info"):
            return path.stem.removeprefix(f"{name}-")
    raise LookupError(f"{distribution} is not installed")


def about(node: Node) -> dict[str, Any]:
    """Return which lahja this process runs."""
    if hasattr(lahja, "LahjaError"):
        from lahja.framing import IMPLEMENTATION

        versions = {"lahja": lahja.__version__}
        implementation = IMPLEMENTATION
    else:
        implementation = "upstream"
        versions = {"lahja": _version("lahja")}
    if node.backend != "asyncio":
        versions[node.backend] = _version(node.backend)
    has_snappy: bool = AsyncioEndpoint.has_snappy_support
    if has_snappy:
        versions["python-snappy"] = _version("python-snappy")
    return {
        "python": platform.python_version(),
        "implementation": implementation,
        "snappy": has_snappy,
        "versions": versions,
    }


def _run(function: Callable[[Any, Node], Any], node: Node) -> None:
    if node.backend == "trio":
        import trio

        from lahja import TrioEndpoint

        trio.run(function, TrioEndpoint, node)
    elif node.backend == "uvloop":
        import uvloop

        uvloop.run(function(AsyncioEndpoint, node))
    else:
        asyncio.run(function(AsyncioEndpoint, node))


def config_of(node: Node, name: str) -> Config:
    """Return where an endpoint of the run serves."""
    return Config(name, Path(node.path(name)))


async def connect(endpoint: Any, node: Node, names: Iterable[str]) -> None:
    """Connect to endpoints that serve, or will do so soon."""
    sleep = asyncio.sleep
    if node.backend == "trio":
        from trio import sleep
    for name in names:
        while not endpoint.is_connected_to(name):
            try:
                await endpoint.connect_to_endpoints(config_of(node, name))
            except ConnectionRefusedError:
                await sleep(0.01)
            else:
                break  # and never again: by now it may have done its work, and left


async def finish(endpoint: Any, names: Iterable[str], what: type[WarmedUp] = Finish) -> None:
    """Wait until all of these have got everything."""
    for name in names:
        await endpoint.wait_until_endpoint_subscribed_to(name, what)
        await endpoint.request(what(), BroadcastConfig(filter_endpoint=name))


async def confirm(endpoint: Any, what: type[WarmedUp] = Finish) -> None:
    """Answer the one who waits for that."""
    async for request in endpoint.stream(what, num_events=1):
        await endpoint.broadcast(Finished(), request.broadcast_config())


# -- Events ----------------------------------------------------------------------------------


async def send(endpoint_class: Any, node: Node) -> None:
    """Broadcast events to all receivers."""
    names = [f"receiver{index}" for index in range(node.work.receivers)]
    payload = node.payload()
    async with endpoint_class.serve(config_of(node, "sender")) as endpoint:
        await connect(endpoint, node, names)
        for name in names:
            await endpoint.wait_until_endpoint_subscribed_to(name, Event)
        for index in range(node.work.idle):
            await endpoint.wait_until_connected_to(f"idle{index}")
        for number in range(node.work.warm_up):
            await endpoint.broadcast(Event(number, time.time(), payload))
        await finish(endpoint, names, WarmedUp)
        begin, worked = now(), time.process_time()
        for number in range(node.work.warm_up, node.total):
            await endpoint.broadcast(Event(number, time.time(), payload))
        worked = time.process_time() - worked
        await finish(endpoint, names)
    node.report(begin=begin, worked=worked)


def further_types(number: int) -> list[type[BaseEvent]]:
    """Return so many event types."""
    return [type(f"Further{index}", (BaseEvent,), {}) for index in range(number)]


async def receive(endpoint_class: Any, node: Node) -> None:
    """Take the events from a stream."""
    name = f"receiver{node.index}"
    async with endpoint_class.serve(config_of(node, name)) as endpoint:
        for further in further_types(node.work.types):
            endpoint.subscribe(further, print)
        due = 0
        async for event in endpoint.stream(Event, num_events=node.total):
            assert event.number == due, f"{event.number} came instead of {due}"
            due += 1
            if due == node.work.warm_up:
                await confirm(endpoint, WarmedUp)
        end = now()
        assert len(event.payload) == node.work.size
        await confirm(endpoint)
    node.report(end=end)


async def broadcast_unheard(endpoint_class: Any, node: Node) -> None:
    """Broadcast what the only other endpoint did not subscribe to; making it does not count."""
    payload = node.payload()
    config = None
    if node.about["implementation"] == "upstream":
        config = BroadcastConfig(require_subscriber=False)  # it raises otherwise

    async def broadcast(count: int) -> float:
        seconds = 0.0
        for first in range(0, count, _BATCH):
            batch = [Event(first, time.time(), payload) for _ in range(min(_BATCH, count - first))]
            begin = now()
            for event in batch:
                await endpoint.broadcast(event, config)
            seconds += now() - begin
        return seconds

    async with endpoint_class("sender").run() as endpoint:
        await connect(endpoint, node, ["bystander"])
        await endpoint.wait_until_endpoint_subscribed_to("bystander", Finish)
        await broadcast(node.work.warm_up)
        seconds = await broadcast(node.count)
        await finish(endpoint, ["bystander"])
    node.report(rate=node.count / seconds)


async def stand_by(endpoint_class: Any, node: Node) -> None:
    """Be connected."""
    async with endpoint_class.serve(config_of(node, "bystander")) as endpoint:
        await confirm(endpoint)
    node.report()


# -- Requests --------------------------------------------------------------------------------


async def ask(endpoint_class: Any, node: Node) -> None:
    """Send requests, one after the other or several at once, and note how long each takes."""
    payload = node.payload()
    to_answerer = BroadcastConfig(filter_endpoint="answerer")
    times: list[float] = []

    async def ask_several(numbers: range) -> None:
        for number in numbers:
            asked = now()
            answer = await endpoint.request(Question(number, time.time(), payload), to_answerer)
            times.append(now() - asked)
            assert answer.number == number, f"{answer.number} came instead of {number}"

    async with endpoint_class("asker").run() as endpoint:
        await connect(endpoint, node, ["answerer"])
        await endpoint.wait_until_endpoint_subscribed_to("answerer", Question)
        await ask_several(range(node.work.warm_up))
        times.clear()
        begin = now()
        if node.work.in_flight == 1:
            await ask_several(range(node.count))
        else:
            parts = [
                range(first, node.count, node.work.in_flight)
                for first in range(node.work.in_flight)
            ]
            await asyncio.gather(*map(ask_several, parts))
        end = now()
        await finish(endpoint, ["answerer"])
    node.report(begin=begin, end=end, times=times)


async def answer(endpoint_class: Any, node: Node) -> None:
    """Answer the requests."""
    async with endpoint_class.serve(config_of(node, "answerer")) as endpoint:
        async for question in endpoint.stream(Question, num_events=node.total):
            response = Answer(question.number, question.sent_at, question.payload)
            await endpoint.broadcast(response, question.broadcast_config())
        await confirm(endpoint)
    node.report()


# -- A mesh ----------------------------------------------------------------------------------


async def join(endpoint_class: Any, node: Node) -> None:
    """Serve, connect to those that were started before, and wait for those that come after."""
    names = [f"member{index}" for index in range(node.work.processes)]
    name = names[node.index]

    async with endpoint_class.serve(config_of(node, name)) as endpoint:
        await asyncio.gather(*(connect(endpoint, node, [other]) for other in names[: node.index]))
        for other in names:
            if other != name:
                await endpoint.wait_until_connected_to(other)
        node.report(end=now())
        await endpoint.wait_for(Finished)  # never: the run ends when all have reported


def on_loop(function: Callable[[Any, Node], Any]) -> Callable[[Node], None]:
    """Return what runs a role on the event loop of its contender."""
    return lambda node: _run(function, node)


ROLES = {
    (kind, role): on_loop(function)
    for kind, role, function in (
        ("stream", "sender", send),
        ("stream", "receiver", receive),
        ("unheard", "sender", broadcast_unheard),
        ("unheard", "bystander", stand_by),
        ("ask", "asker", ask),
        ("ask", "answerer", answer),
        ("mesh", "member", join),
    )
}
