"""
The other processes of the benchmarks between processes: those that receive, and those that do not.

They run the lahja of this process, on the same event loop. Each receiver says, when it is asked,
how many events have arrived, and which implementation it runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import anyio.from_thread

from lahja import (
    AsyncioEndpoint,
    BaseEvent,
    BaseRequestResponseEvent,
    BroadcastConfig,
    ConnectionConfig,
    TrioEndpoint,
)
from lahja.base import BaseEndpoint, EndpointAPI
from lahja.framing import IMPLEMENTATION

__all__ = ["BACKENDS", "Call", "Count", "Event", "HowMany", "Others", "flood"]

BACKENDS: dict[str, tuple[str, dict[str, Any], type[BaseEndpoint]]] = {
    "asyncio": ("asyncio", {"use_uvloop": False}, AsyncioEndpoint),
    "uvloop": ("asyncio", {"use_uvloop": True}, AsyncioEndpoint),
    "trio": ("trio", {}, TrioEndpoint),
}
SECONDS = 30  # that a process may take to leave


@dataclass
class Event(BaseEvent):
    number: int
    time: float
    payload: bytes


@dataclass
class Count(BaseEvent):
    events: int
    framing: str


@dataclass
class HowMany(BaseRequestResponseEvent[Count]):
    """Ask how many events have arrived since the last time."""

    @staticmethod
    def expected_response_type() -> type[Count]:
        return Count


class Leave(BaseEvent):
    pass


# -- What the other processes do -------------------------------------------------------------


async def _receive(endpoint_class: type[BaseEndpoint], folder: str, name: str, types: int) -> None:
    async with endpoint_class.serve(ConnectionConfig(name, Path(folder, name))) as server:
        received = 0

        def count(event: Event) -> None:
            nonlocal received
            received += 1

        def answer(request: HowMany) -> None:
            nonlocal received
            response = Count(received, IMPLEMENTATION)
            server.broadcast_nowait(response, request.broadcast_config())
            received = 0

        for number in range(types):
            server.subscribe(type(f"Other{number}", (BaseEvent,), {}), lambda event: None)
        server.subscribe(Event, count)
        server.subscribe(HowMany, answer)
        await server.wait_for(Leave)


async def _idle(endpoint_class: type[BaseEndpoint], folder: str, name: str, count: int) -> None:
    async with AsyncExitStack() as stack:
        for number in range(count):
            endpoint = await stack.enter_async_context(endpoint_class(f"{name}{number}").run())
            await endpoint.connect_to_endpoints(ConnectionConfig("client", Path(folder, "client")))
        await endpoint.wait_for(Leave)  # the last one


def be(role: str, backend: str, folder: str, name: str, number: int) -> None:
    """Receive, or be idle, until told to leave; this is what the other processes call."""
    library, options, endpoint_class = BACKENDS[backend]
    function = {"receiver": _receive, "idle": _idle}[role]
    anyio.run(
        function, endpoint_class, folder, name, number, backend=library, backend_options=options
    )


@contextmanager
def _process(*arguments: Any) -> Iterator[None]:
    boot = f"from benchmarks.processes import be; be(*{arguments!r})"
    folders = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    process = subprocess.Popen([sys.executable, "-c", boot], env=environment)
    try:
        yield
        assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.wait()


# -- What this process does with them --------------------------------------------------------

Call = Callable[[Callable[[EndpointAPI], Awaitable[Any]]], Any]
"""Call a coroutine function with the endpoint of this process, and return its result."""


@dataclass(frozen=True)
class Others:
    """
    Be the other processes.

    :param backend: their event loop, and that of this process
    :param receivers: how many processes receive
    :param types: further types to which each receiver subscribes
    :param idle: endpoints that are connected, and want nothing; they share one process
    """

    backend: str
    receivers: int = 1
    types: int = 0
    idle: int = 0

    @property
    def names(self) -> Sequence[str]:
        """The names of those that receive."""
        return [f"receiver{number}" for number in range(self.receivers)]

    @contextmanager
    def call(self) -> Iterator[Call]:
        """Start them, and return what calls a function with an endpoint connected to all."""
        library, options, endpoint_class = BACKENDS[self.backend]
        with TemporaryDirectory(prefix="lahja") as folder, ExitStack() as stack:
            for name in self.names:
                stack.enter_context(_process("receiver", self.backend, folder, name, self.types))
            portal = stack.enter_context(anyio.from_thread.start_blocking_portal(library, options))
            own = ConnectionConfig("client", Path(folder, "client"))
            client = stack.enter_context(
                portal.wrap_async_context_manager(endpoint_class.serve(own))
            )
            if self.idle:
                stack.enter_context(_process("idle", self.backend, folder, "idle", self.idle))
            portal.call(self._connect, client, folder)
            try:
                yield lambda function: portal.call(function, client)
            finally:
                portal.call(client.broadcast, Leave())

    async def _connect(self, client: EndpointAPI, folder: str) -> None:
        configs = [ConnectionConfig(name, Path(folder, name)) for name in self.names]
        await client.connect_to_endpoints(*configs)
        for name in self.names:
            await client.wait_until_endpoint_subscribed_to(name, HowMany)
            await client.wait_until_endpoint_subscribed_to(name, Leave)
        while len(client.get_connected_endpoints_and_subscriptions()) < (
            1 + self.receivers + self.idle
        ):
            await client.wait_until_connections_change()
        if self.idle:
            await client.wait_until_endpoint_subscribed_to(f"idle{self.idle - 1}", Leave)


async def flood(
    client: EndpointAPI, receivers: Iterable[str], count: int, payload: bytes
) -> list[Count]:
    """Broadcast events, and return what the receivers say when they have them all."""
    for number in range(count):
        await client.broadcast(Event(number, 1.5, payload))
    return [
        await client.request(HowMany(), BroadcastConfig(filter_endpoint=name)) for name in receivers
    ]
