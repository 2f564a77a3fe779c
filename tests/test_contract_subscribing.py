"""
Who is subscribed to what, who knows of it, and how one waits for it: on every backend.

That includes the queries and waits about connections and subscriptions, which see an endpoint
itself as one that is connected.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
from helpers import (
    Bus,
    Marker,
    Number,
    Text,
    collect_garbage,
    complaints,
    raw_frame,
    raw_peer,
    take,
    turns,
    until,
)

from lahja import BaseEvent, LifecycleError, wire
from lahja.base import BaseEndpoint
from lahja.protocol import control_frame

pytestmark = pytest.mark.anyio


# -- From when on one is subscribed ----------------------------------------------------------


async def test_a_stream_is_subscribed_from_the_call(bus: Bus) -> None:
    async with bus.run() as endpoint:
        stream = endpoint.stream(Number)
        assert endpoint.get_subscribed_events() == {Number}
        await endpoint.broadcast(Number(1))
        await endpoint.broadcast(Number(2))
        assert [event.value for event in await take(stream, 2)] == [1, 2]


async def test_wait_for_is_subscribed_from_the_call(bus: Bus) -> None:
    async with bus.run() as endpoint:
        waiting = endpoint.wait_for(Number)
        assert endpoint.get_subscribed_events() == {Number}
        await endpoint.broadcast(Number(1))
        assert endpoint.get_subscribed_events() == set()
        await endpoint.broadcast(Number(2))
        assert (await waiting).value == 1


async def test_wait_for_that_is_never_awaited_does_not_stay_subscribed(bus: Bus) -> None:
    async with bus.run() as endpoint:
        waiting = endpoint.wait_for(Number)
        assert endpoint.is_any_endpoint_subscribed_to(Number)
        waiting.close()
        del waiting
        await collect_garbage()
        assert not endpoint.is_any_endpoint_subscribed_to(Number)


async def test_wait_for_that_is_cancelled_does_not_stay_subscribed(bus: Bus) -> None:
    async with bus.run() as endpoint:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(endpoint.wait_for, Number)
            await turns(3)
            assert endpoint.is_any_endpoint_subscribed_to(Number)
            tasks.cancel_scope.cancel()
        assert not endpoint.is_any_endpoint_subscribed_to(Number)
        with anyio.move_on_after(0.01) as scope:
            await endpoint.wait_for(Number)
        assert scope.cancelled_caught
        assert not endpoint.is_any_endpoint_subscribed_to(Number)


async def test_several_may_wait_for_the_same_event(bus: Bus) -> None:
    async with bus.run() as endpoint:
        received: list[Number] = []

        async def wait() -> None:
            received.append(await endpoint.wait_for(Number))

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(wait)
            await turns(3)
            event = Number(1)
            await endpoint.broadcast(event)
        assert all(each is event for each in received)
        assert len(received) == 3


async def test_subscribing_before_run_is_allowed(bus: Bus) -> None:
    handled: list[Number] = []
    async with bus.serve("server") as server:
        client = bus.endpoint_class("client")
        client.subscribe(Number, handled.append)
        stream = client.stream(Number)
        dropped = client.stream(Text)
        ended = client.subscribe(Marker, print)
        ended.unsubscribe()
        assert client.get_subscribed_events() == {Number, Text}
        del dropped
        assert client.get_subscribed_events() == {Number}
        async with client.run():
            await client.connect_to_endpoints(bus.config("server"))
            await server.wait_until_endpoint_subscribed_to("client", Number)
            await server.broadcast(Number(1))
            event = await anext(stream)
            assert event.value == 1
            await until(lambda: handled == [event])


async def test_more_subscriptions_than_one_frame_holds_are_told(bus: Bus) -> None:
    kinds = [type(f"Kind{index}", (BaseEvent,), {}) for index in range(450)]
    async with bus.serve("server") as server:
        client, both = bus.endpoint_class("client"), (server,)
        for kind in kinds:
            client.subscribe(kind, print)
            server.subscribe(kind, print)
        async with client.run():
            await client.connect_to_endpoints(bus.config("server"))
            for kind in kinds:
                assert client.is_endpoint_subscribed_to("server", kind)
            await server.wait_until_connected_to("client")
            assert all(server.is_endpoint_subscribed_to("client", kind) for kind in kinds)
        assert both


# -- Peers are told --------------------------------------------------------------------------


async def test_peers_are_told_of_every_change(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        assert not client.is_endpoint_subscribed_to("server", Number)
        first, second = server.subscribe(Number, print), server.stream(Number)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        first.unsubscribe()
        server.subscribe(Text, print)
        await client.wait_until_endpoint_subscribed_to("server", Text)
        assert client.is_endpoint_subscribed_to("server", Number)
        second.close()
        server.subscribe(Marker, print)
        await client.wait_until_endpoint_subscribed_to("server", Marker)
        assert not client.is_endpoint_subscribed_to("server", Number)


async def test_peers_are_told_once_however_many_subscriptions_there_are(bus: Bus) -> None:
    async with bus.serve("server") as server, raw_peer(server) as peer:
        subscriptions = [server.subscribe(Number, print) for _ in range(3)]
        added, removed, complete = await peer.read_values(wire.SUBSCRIBE)
        assert (list(added.values()), removed, complete) == ([None], (), True)
        for subscription in subscriptions:
            subscription.unsubscribe()
        added, removed, complete = await peer.read_values(wire.SUBSCRIBE)
        assert (added, removed, complete) == ({}, ("helpers:Number",), True)


async def test_a_change_during_the_handshake_is_not_lost(bus: Bus) -> None:
    for _ in range(20):
        async with bus.serve("server") as server, bus.run("client") as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.connect_to_endpoints, bus.config("server"))
                for kind in (Number, Text, Marker):
                    client.subscribe(kind, print)
                    server.subscribe(kind, print)
                    await turns(1)
            await server.wait_until_connected_to("client")
            for kind in (Number, Text, Marker):
                await server.wait_until_endpoint_subscribed_to("client", kind)
                await client.wait_until_endpoint_subscribed_to("server", kind)


# -- Unsubscribing ---------------------------------------------------------------------------


async def test_unsubscribe_may_be_called_twice(bus: Bus) -> None:
    handled: list[Number] = []
    async with bus.run() as endpoint:
        first = endpoint.subscribe(Number, handled.append)
        endpoint.subscribe(Number, handled.append)
        first.unsubscribe()
        first.unsubscribe()
        await endpoint.broadcast(Number(1))
        await until(lambda: len(handled) == 1)
        await turns(5)
        assert len(handled) == 1


async def test_a_subscription_outlives_its_object(bus: Bus) -> None:
    handled: list[Number] = []
    async with bus.run() as endpoint:
        endpoint.subscribe(Number, handled.append)
        await collect_garbage()
        await endpoint.broadcast(Number(1))
        await until(lambda: handled)


async def test_unsubscribe_takes_effect_at_once(bus: Bus) -> None:
    handled: list[int] = []
    async with bus.pair() as (server, client):
        subscription = server.subscribe(Number, lambda event: handled.append(event.value))
        marker = server.stream(Marker)
        await client.wait_until_endpoint_subscribed_to("server", Marker)
        for endpoint in (client, server):  # from elsewhere, and from here
            await endpoint.broadcast(Number(1))
            if endpoint is server:
                subscription.unsubscribe()  # before the turn in which the handler is called
        await client.broadcast(Number(2))
        await client.broadcast(Marker())
        await anext(marker)
        await turns(3)
        assert set(handled) <= {1}
        assert len(handled) <= 1


@pytest.mark.parametrize("local", [True, False], ids=["local", "remote"])
async def test_unsubscribing_in_a_handler_skips_nobody_else(bus: Bus, local: bool) -> None:
    called: list[str] = []
    async with bus.pair() as (server, client):
        sender = server if local else client

        def first(event: Number) -> None:
            called.append("first")
            subscriptions["first"].unsubscribe()

        def second(event: Number) -> None:
            called.append("second")
            subscriptions["third"].unsubscribe()

        subscriptions = {
            "first": server.subscribe(Number, first),
            "second": server.subscribe(Number, second),
            "third": server.subscribe(Number, lambda event: called.append("third")),
            "fourth": server.subscribe(Number, lambda event: called.append("fourth")),
        }
        stream = server.stream(Number)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        await sender.broadcast(Number(1))
        await anext(stream)
        await until(lambda: "fourth" in called)
        assert called == ["first", "second", "fourth"]
        await sender.broadcast(Number(2))
        await anext(stream)
        await until(lambda: called.count("fourth") == 2)
        assert called == ["first", "second", "fourth", "second", "fourth"]


@pytest.mark.parametrize("options", [{}, {"max_queue": 2}], ids=["unbounded", "blocking"])
async def test_a_handler_may_close_a_stream_of_its_type(
    bus: Bus, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.pair() as (server, client):
        server.subscribe(Number, lambda event: closed.close())
        closed = server.stream(Number, **options)
        stream = server.stream(Number)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        for value in range(3):
            await client.broadcast(Number(value))
        assert [event.value for event in await take(stream, 3)] == [0, 1, 2]
        assert [event async for event in closed] == []
        assert server.is_connected_to("client")
        assert not complaints(caplog)


async def test_a_handler_may_subscribe_another_one(bus: Bus) -> None:
    called: list[int] = []
    async with bus.pair() as (server, client):

        def subscribe(event: Number) -> None:
            first.unsubscribe()
            server.subscribe(Number, lambda event: called.append(event.value))

        first = server.subscribe(Number, subscribe)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        for value in range(3):
            await client.broadcast(Number(value))
        await until(lambda: called == [1, 2])


async def test_unsubscribing_ends_what_waits_for_a_slow_handler(bus: Bus) -> None:
    called: list[int] = []
    go_on = anyio.Event()
    async with bus.run() as endpoint:

        async def handler(event: Number) -> None:
            called.append(event.value)
            await go_on.wait()
            called.append(-event.value)

        subscription = endpoint.subscribe(Number, handler)
        for value in (1, 2, 3):
            await endpoint.broadcast(Number(value))
        await until(lambda: called)
        subscription.unsubscribe()
        go_on.set()
        await until(lambda: len(called) == 2)
        await turns(5)
        assert called == [1, -1]  # what had begun is not interrupted


# -- Queries ---------------------------------------------------------------------------------


async def test_an_endpoint_counts_itself_as_connected(bus: Bus) -> None:
    async with bus.run("me") as endpoint:
        assert endpoint.is_connected_to("me")
        assert not endpoint.is_connected_to("you")
        assert endpoint.get_connected_endpoints_and_subscriptions() == (("me", set()),)
        assert not endpoint.is_any_endpoint_subscribed_to(Number)
        assert not endpoint.are_all_endpoints_subscribed_to(Number)
        assert endpoint.are_all_endpoints_subscribed_to(Number, include_self=False)
        assert endpoint.are_all_endpoints_subscribed_to(Number, False)
        endpoint.subscribe(Number, print)
        assert endpoint.is_endpoint_subscribed_to("me", Number)
        assert endpoint.is_any_endpoint_subscribed_to(Number)
        assert endpoint.are_all_endpoints_subscribed_to(Number)
        assert endpoint.get_connected_endpoints_and_subscriptions() == (("me", {Number}),)
        await endpoint.wait_until_connected_to("me")
        await endpoint.wait_until_endpoint_subscribed_to("me", Number)


async def test_queries_about_others(bus: Bus) -> None:
    async with bus.serve("a") as a, bus.connect("b", "a") as b, bus.connect("c", "a") as c:
        await a.wait_until_connected_to("c")
        assert a.is_connected_to("b")
        assert b.is_connected_to("a")
        assert not b.is_connected_to("c")
        b.subscribe(Number, print)
        await a.wait_until_endpoint_subscribed_to("b", Number)
        assert a.is_endpoint_subscribed_to("b", Number)
        assert not a.is_endpoint_subscribed_to("c", Number)
        assert not a.is_endpoint_subscribed_to("a", Number)
        assert not a.is_endpoint_subscribed_to("nobody", Number)
        assert a.is_any_endpoint_subscribed_to(Number)
        assert not a.are_all_endpoints_subscribed_to(Number, include_self=False)
        c.subscribe(Number, print)
        await a.wait_until_endpoint_subscribed_to("c", Number)
        assert a.are_all_endpoints_subscribed_to(Number, include_self=False)
        assert not a.are_all_endpoints_subscribed_to(Number)
        a.subscribe(Number, print)
        assert a.are_all_endpoints_subscribed_to(Number)
        assert a.get_connected_endpoints_and_subscriptions() == (
            ("a", {Number}),
            ("b", {Number}),
            ("c", {Number}),
        )
        assert a.get_subscribed_events() == {Number}


async def test_queries_leave_out_types_that_this_process_does_not_have(bus: Bus) -> None:
    names = {"no_such_module:Event": None, "helpers:NoSuchEvent": None, "os:path": None}
    async with bus.serve("server") as server, raw_peer(server, "raw", {Number: None}) as peer:
        await peer.send(control_frame(wire.SUBSCRIBE, {**names, "helpers:Text": None}, (), True))
        await server.wait_until_endpoint_subscribed_to("raw", Text)
        assert server.get_connected_endpoints_and_subscriptions() == (
            ("server", set()),
            ("raw", {Number, Text}),
        )


async def test_a_peer_that_left_is_in_no_answer(bus: Bus) -> None:
    async with bus.serve("server") as server:
        async with bus.connect("client", "server") as client:
            client.subscribe(Number, print)
            await server.wait_until_endpoint_subscribed_to("client", Number)
        await until(lambda: not server.is_connected_to("client"))
        assert not server.is_endpoint_subscribed_to("client", Number)
        assert not server.is_any_endpoint_subscribed_to(Number)
        assert server.get_connected_endpoints_and_subscriptions() == (("server", set()),)


# -- Waits -----------------------------------------------------------------------------------


Call = Callable[[BaseEndpoint], Coroutine[Any, Any, Any]]

SUBSCRIPTION_WAITS: dict[str, Call] = {
    "endpoint": lambda server: server.wait_until_endpoint_subscribed_to("client", Number),
    "any": lambda server: server.wait_until_any_endpoint_subscribed_to(Number),
    "all": lambda server: server.wait_until_all_endpoints_subscribed_to(Number, include_self=False),
    "change": lambda server: server.wait_until_endpoint_subscriptions_change(),
}


@pytest.mark.parametrize("kind", SUBSCRIPTION_WAITS)
async def test_waits_end_when_a_remote_endpoint_subscribes(bus: Bus, kind: str) -> None:
    async with bus.pair() as (server, client):
        ended = await begin_to_wait(server, kind)
        client.subscribe(Number, print)
        await until(lambda: ended)


@pytest.mark.parametrize("kind", SUBSCRIPTION_WAITS)
async def test_waits_are_for_states_that_are_reached_only_for_a_moment(bus: Bus, kind: str) -> None:
    async with bus.serve("server") as server, raw_peer(server, "client") as peer:
        ended = await begin_to_wait(server, kind)
        await peer.send(
            control_frame(wire.SUBSCRIBE, {"helpers:Number": None}, (), True),
            control_frame(wire.SUBSCRIBE, {}, ("helpers:Number",), True),
        )
        await until(lambda: ended)
        assert not server.is_any_endpoint_subscribed_to(Number)


async def begin_to_wait(server: BaseEndpoint, kind: str) -> list[bool]:
    """Wait for a subscription in a task of the endpoint; the list is filled when it ended."""
    ended: list[bool] = []

    async def wait() -> None:
        await SUBSCRIPTION_WAITS[kind](server)
        ended.append(True)

    server._loop.start_soon(wait)
    await turns(3)
    assert not ended
    return ended


async def test_waits_for_any_and_all_count_the_endpoint_itself(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        client.subscribe(Number, print)
        await server.wait_until_endpoint_subscribed_to("client", Number)
        await server.wait_until_all_endpoints_subscribed_to(Number, include_self=False)
        with anyio.move_on_after(0.01) as scope:
            await server.wait_until_all_endpoints_subscribed_to(Number)
        assert scope.cancelled_caught
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.wait_until_all_endpoints_subscribed_to, Number)
            tasks.start_soon(server.wait_until_any_endpoint_subscribed_to, Text)
            await turns(3)
            server.subscribe(Number, print)
            server.subscribe(Text, print)


async def test_a_wait_for_all_looks_at_those_that_are_connected(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        client.subscribe(Number, print)
        await server.wait_until_endpoint_subscribed_to("client", Number)
        async with raw_peer(server):
            ended = await begin_to_wait(server, "all")
            assert not ended
        await until(lambda: ended)  # the one that did not subscribe has left


async def test_wait_until_connected_to(bus: Bus) -> None:
    async with bus.serve("server") as server:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.wait_until_connected_to, "client")
            async with bus.connect("other", "server"), bus.connect("client", "server"):
                pass
        with anyio.move_on_after(0.01) as scope:
            await server.wait_until_connected_to("client")
        assert scope.cancelled_caught


async def test_wait_until_connections_change(bus: Bus) -> None:
    changes: list[bool] = []
    async with bus.serve("server") as server:

        async def wait() -> None:
            await server.wait_until_connections_change()
            changes.append(server.is_connected_to("client"))

        server._loop.start_soon(wait)
        await turns(3)
        async with bus.connect("client", "server") as client:
            await until(lambda: changes == [True])
            server._loop.start_soon(wait)
            await turns(3)
            client.subscribe(Number, print)
            await server.wait_until_endpoint_subscribed_to("client", Number)
            assert changes == [True]
        await until(lambda: changes == [True, False])


async def test_wait_until_endpoint_subscriptions_change(bus: Bus) -> None:
    async with bus.serve("server") as server:
        for change in ("connect", "subscribe", "unsubscribe", "locally", "leave"):
            ended = await begin_to_wait(server, "change")
            if change == "connect":
                context = bus.connect("client", "server")
                client = await context.__aenter__()
            elif change == "subscribe":
                subscription = client.subscribe(Number, print)
            elif change == "unsubscribe":
                subscription.unsubscribe()
            elif change == "locally":
                server.subscribe(Text, print)
            else:
                await context.__aexit__(None, None, None)
            await until(functools.partial(bool, ended))


async def test_a_wait_for_a_state_that_is_there_ends_at_once(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        for endpoint in (server, client):
            endpoint.subscribe(Number, print)
        await server.wait_until_endpoint_subscribed_to("client", Number)
        with anyio.fail_after(5):
            await server.wait_until_connected_to("client")
            await server.wait_until_any_endpoint_subscribed_to(Number)
            await server.wait_until_all_endpoints_subscribed_to(Number)
            await server.wait_until_endpoint_subscribed_to("client", Number)


async def test_a_wait_that_is_cancelled_leaves_nothing_behind(bus: Bus) -> None:
    async with bus.run() as endpoint:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(endpoint.wait_until_connected_to, "nobody")
            tasks.start_soon(endpoint.wait_until_any_endpoint_subscribed_to, Number)
            await until(lambda: len(endpoint._router._watchers) == 2)
            tasks.cancel_scope.cancel()
        assert not endpoint._router._watchers


@pytest.mark.parametrize("cancelled", [False, True], ids=["left", "cancelled"])
async def test_whatever_waits_raises_when_the_endpoint_stops(bus: Bus, cancelled: bool) -> None:
    calls: list[Call] = [
        lambda endpoint: endpoint.wait_for(Number),
        lambda endpoint: endpoint.wait_until_connected_to("nobody"),
        lambda endpoint: endpoint.wait_until_connections_change(),
        lambda endpoint: endpoint.wait_until_endpoint_subscribed_to("nobody", Number),
        lambda endpoint: endpoint.wait_until_any_endpoint_subscribed_to(Text),
        lambda endpoint: endpoint.wait_until_all_endpoints_subscribed_to(Text),
        lambda endpoint: endpoint.wait_until_endpoint_subscriptions_change(),
    ]

    async def expect_error(call: Call) -> None:
        with pytest.raises(LifecycleError, match=r"endpoint 'alone' stopped"):
            await call(endpoint)

    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            async with bus.run() as endpoint:
                for call in calls:
                    tasks.start_soon(expect_error, call)
                    await turns(3)  # the first one changes subscriptions
                if cancelled:
                    scope.cancel()
                    await anyio.sleep_forever()


async def test_a_subscription_change_frame_of_both_kinds_is_removed_first(bus: Bus) -> None:
    """What a peer removes and adds in one frame is subscribed; nothing of it stays behind."""
    async with bus.serve("server") as server:
        async with raw_peer(server, "raw", {Number: None}) as peer:
            change = control_frame(
                wire.SUBSCRIBE,
                {"helpers:Number": 3, "helpers:Text": None},
                ("helpers:Number",),
                True,
            )
            await peer.send(change)
            await server.wait_until_endpoint_subscribed_to("raw", Text)
            assert server.is_endpoint_subscribed_to("raw", Number)
            await server.broadcast(Number(1))
            await peer.read_kind(wire.EVENT)
        await until(lambda: not server.is_connected_to("raw"))
        assert not server.is_any_endpoint_subscribed_to(Number)
        assert not server._router._interest


async def test_unknown_kinds_of_frames_are_no_subscription(bus: Bus) -> None:
    async with bus.serve("server") as server, raw_peer(server) as peer:
        await peer.send(raw_frame(0x55))
        await peer.closed()
        assert not server.is_connected_to("raw")
