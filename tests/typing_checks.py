"""
What type checkers make of lahja: read by them, never run.

``test_typing.py`` has mypy and pyright check this file, as strict as they get: they must accept it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import assert_type

import lahja.tools.drivers.driver
from lahja import (
    AsyncioEndpoint,
    BaseEvent,
    BaseRequestResponseEvent,
    BroadcastConfig,
    ConnectionConfig,
    EndpointAPI,
    Membership,
    MembershipChange,
    MembershipReason,
    Stream,
    Subscription,
    TrioEndpoint,
)
from lahja.asyncio.endpoint import AsyncioEndpoint as AsyncioEndpointByPath
from lahja.base import BaseEndpoint
from lahja.tools import drivers as d
from lahja.tools.engine import AsyncioEngine, Driver, EngineAPI
from lahja.tools.runners import AsyncioRunner, IsolatedHeterogenousRunner, TrioRunner
from lahja.trio.endpoint import TrioEndpoint as TrioEndpointByPath
from lahja.typing import EndpointOptions, RequestID


@dataclass
class Ping(BaseEvent):
    number: int


@dataclass
class Pong(BaseEvent):
    text: str


@dataclass(frozen=True)
class Ask(BaseRequestResponseEvent[Pong]):
    question: str

    @staticmethod
    def expected_response_type() -> type[Pong]:
        return Pong


class MyEndpoint(AsyncioEndpoint):
    """Be an endpoint of a user."""

    def mine(self) -> str:
        return "mine"


CONFIG = ConnectionConfig.from_name("server", Path("run"))

# -- One's own endpoint class comes back -------------------------------------------------------


async def asyncio_classes() -> None:
    async with AsyncioEndpoint("name").run() as endpoint:
        assert_type(endpoint, AsyncioEndpoint)
    async with AsyncioEndpoint.serve(CONFIG) as endpoint:
        assert_type(endpoint, AsyncioEndpoint)
    async with AsyncioEndpoint.join("name", "run", stall_timeout=None) as endpoint:
        assert_type(endpoint, AsyncioEndpoint)
    by_path: type[AsyncioEndpoint] = AsyncioEndpointByPath
    del by_path


async def trio_classes() -> None:
    async with TrioEndpoint("name").run() as endpoint:
        assert_type(endpoint, TrioEndpoint)
    async with TrioEndpoint.serve(CONFIG) as endpoint:
        assert_type(endpoint, TrioEndpoint)
    async with TrioEndpoint.join("name", app="trading") as endpoint:
        assert_type(endpoint, TrioEndpoint)
    by_path: type[TrioEndpoint] = TrioEndpointByPath
    del by_path


async def own_classes() -> None:
    async with MyEndpoint("name").run() as endpoint:
        assert_type(endpoint, MyEndpoint)
        assert_type(endpoint.mine(), str)
    async with MyEndpoint.serve(CONFIG) as endpoint:
        assert_type(endpoint, MyEndpoint)
    async with MyEndpoint.join("name", Path("run")) as endpoint:
        assert_type(endpoint, MyEndpoint)


async def any_class(endpoint_class: type[BaseEndpoint]) -> None:
    async with endpoint_class("name").run() as endpoint:
        assert_type(endpoint, BaseEndpoint)
    async with endpoint_class.serve(CONFIG) as endpoint:
        assert_type(endpoint, BaseEndpoint)
    async with endpoint_class.join("name") as endpoint:
        assert_type(endpoint, BaseEndpoint)


# -- What events come back ---------------------------------------------------------------------


async def with_asyncio(endpoint: AsyncioEndpoint) -> None:
    assert_type(await endpoint.wait_for(Ping), Ping)
    assert_type(endpoint.stream(Ping), Stream[Ping])
    generator: AsyncGenerator[Ping, None] = endpoint.stream(Ping, num_events=1)
    async for event in generator:
        assert_type(event, Ping)
    async with endpoint.stream(Ping, max_queue=3, overflow="drop_oldest") as stream:
        async for event in stream:
            assert_type(event, Ping)
    assert_type(await endpoint.request(Ask("?")), Pong)
    assert_type(await endpoint.request(Ask("?"), BroadcastConfig("server"), timeout=1), Pong)
    await endpoint.broadcast(Ping(1), BroadcastConfig(filter_endpoint="server"))
    endpoint.broadcast_nowait(Ping(1))
    endpoint.check_event_loop()


async def with_trio(endpoint: TrioEndpoint) -> None:
    assert_type(await endpoint.wait_for(Ping), Ping)
    assert_type(endpoint.stream(Ping), Stream[Ping])
    async for event in endpoint.stream(Ping, 1):
        assert_type(event, Ping)
    assert_type(await endpoint.request(Ask("?")), Pong)
    await endpoint.wait_started()


async def with_any_endpoint(endpoint: EndpointAPI) -> None:
    assert_type(await endpoint.wait_for(Ping), Ping)
    async for event in endpoint.stream(Ping):
        assert_type(event, Ping)
    assert_type(await endpoint.request(Ask("?")), Pong)
    assert_type(endpoint.get_subscribed_events(), set[type[BaseEvent]])
    assert_type(
        endpoint.get_connected_endpoints_and_subscriptions(),
        tuple[tuple[str, set[type[BaseEvent]]], ...],
    )
    async with endpoint.run() as running:
        assert_type(running, EndpointAPI)


async def who_is_there(endpoint: EndpointAPI) -> None:
    await endpoint.wait_until_all_of({"db", "net"})
    await endpoint.wait_until_all_of(["db"], subscribed_to=Ping, timeout=1)
    await endpoint.wait_until_all_of(("db", "net"), subscribed_to=(Ping, Pong), timeout=None)
    assert_type(endpoint.membership(), Membership)
    async with endpoint.membership() as changes:
        async for change in changes:
            assert_type(change, MembershipChange)
            assert_type(change.name, str)
            assert_type(change.joined, bool)
            assert_type(change.reason, MembershipReason)
            assert_type(change.detail, str)


# -- Handlers get what was subscribed to -------------------------------------------------------


def handle_ping(event: Ping) -> None: ...


async def handle_ping_later(event: Ping) -> None: ...


def handle_any_event(event: BaseEvent) -> int:
    return 1


class Handler:
    def __call__(self, event: Ping) -> None: ...

    async def method(self, event: Ping) -> None: ...


def handlers(endpoint: AsyncioEndpoint | TrioEndpoint) -> None:
    assert_type(endpoint.subscribe(Ping, handle_ping), Subscription)
    endpoint.subscribe(Ping, handle_ping_later)
    endpoint.subscribe(Ping, handle_any_event)
    endpoint.subscribe(Ping, Handler())
    endpoint.subscribe(Ping, Handler().method)
    endpoint.subscribe(Ping, lambda event: print(event.number)).unsubscribe()


# -- Common ------------------------------------------------------------------------------------


def common(event: Ping, options: EndpointOptions) -> None:
    name, path = CONFIG
    assert_type(name, str)
    assert_type(path, Path)
    assert_type(event.is_bound, bool)
    assert_type(event.get_origin(), str)
    assert_type(event.broadcast_config(internal=True), BroadcastConfig)
    assert_type(Ask.expected_response_type(), type[Pong])
    BroadcastConfig("server", RequestID(b""), internal=False, require_subscriber=True)
    AsyncioEndpoint("name", **options)
    TrioEndpoint.serve(CONFIG, connect_timeout=1, stall_timeout=None, allowed_uids={1000})


class Shouting(AsyncioEndpoint):
    @AsyncioEndpoint.check_event_loop
    def shout(self, text: str) -> str:
        return text.upper()


# -- The testing API ---------------------------------------------------------------------------


def on_ping(endpoint: EndpointAPI, event: Ping) -> None: ...


async def on_pong(endpoint: EndpointAPI, event: Pong) -> None: ...


def answer(endpoint: EndpointAPI, request: Ask) -> Pong:
    return Pong(request.question)


def testing() -> None:
    here, there = d.checkpoint("here")
    server = d.driver(
        d.serve_endpoint(CONFIG, high_water=1000),
        d.wait_for(Ping, on_event=on_ping),
        d.serve_request(Ask, answer),
        here,
    )
    client: Driver = d.driver(
        d.run_endpoint(ConnectionConfig("client", Path())),
        d.connect_to_endpoints(CONFIG),
        d.wait_any_then_broadcast(Ping(1)),
        d.throws(d.request(Ask("?"), on_response=on_pong), ValueError),
        there,
    )
    AsyncioRunner()(server, client)
    IsolatedHeterogenousRunner(AsyncioRunner(), TrioRunner(), start_method="spawn")(server, client)


class MyEngine(AsyncioEngine):
    endpoint_class = MyEndpoint


async def engine(engine: EngineAPI, own: MyEngine) -> None:
    await engine.run_with_timeout(engine.sleep, 1.0, timeout=2)
    await engine.run_drivers(lahja.tools.drivers.driver(d.run_endpoint("me")))
