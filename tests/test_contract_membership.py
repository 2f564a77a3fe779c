"""
Who is there: waiting for several endpoints, and hearing of all that come and go, on every backend.

Endpoints that joined and endpoints that were connected explicitly are the same here.
"""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

import anyio
import pytest
from helpers import (
    Bus,
    Marker,
    Number,
    Text,
    collect_garbage,
    raw_connection,
    raw_frame,
    raw_peer,
    turns,
    until,
)

from lahja import (
    LahjaError,
    LifecycleError,
    Membership,
    MembershipChange,
    MembershipReason,
    WaitTimeout,
    wire,
)
from lahja.base import BaseEndpoint
from lahja.names import name_of
from lahja.protocol import control_frame

pytestmark = pytest.mark.anyio

JOINED, LEFT = True, False


@asynccontextmanager
async def joined(bus: Bus, *names: str) -> AsyncIterator[list[BaseEndpoint]]:
    """Let endpoints join, one after the other."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(bus.join(name)) for name in names]


async def next_change(stream: Membership) -> tuple[str, bool, MembershipReason]:
    """Return what the next change says."""
    change = await anext(stream)
    return change.name, change.joined, change.reason


# -- Waiting for several endpoints -----------------------------------------------------------


async def test_the_wait_is_over_when_all_are_connected(bus: Bus) -> None:
    async with bus.join("a") as a, anyio.create_task_group() as tasks:
        over = anyio.Event()

        async def wait() -> None:
            await a.wait_until_all_of({"b", "c", "a"})
            over.set()

        tasks.start_soon(wait)
        async with bus.join("b"):
            await a.wait_until_connected_to("b")
            await turns(5)
            assert not over.is_set()
            async with bus.join("c"):
                await over.wait()
                await a.wait_until_all_of(["b", "c"], timeout=0)
                await a.wait_until_all_of(iter(["b", "c"]), timeout=20)


async def test_all_must_be_there_at_the_same_time(bus: Bus) -> None:
    async with bus.join("a") as a, anyio.create_task_group() as tasks:
        over = anyio.Event()

        async def wait() -> None:
            await a.wait_until_all_of({"b", "c"})
            over.set()

        tasks.start_soon(wait)
        for _ in range(3):
            for name in "bc":
                async with bus.join(name):
                    await a.wait_until_connected_to(name)
                await until(lambda left=name: not a.is_connected_to(left))  # type: ignore[misc]
        assert not over.is_set()
        async with bus.join("b"), bus.join("c"):
            await over.wait()


async def test_the_wait_is_for_subscriptions_too(bus: Bus) -> None:
    async with joined(bus, "a", "b", "c") as (a, b, c):
        await a.wait_until_all_of({"b", "c"}, subscribed_to=None)
        b.subscribe(Number, print)
        b.subscribe(Text, print)
        c.subscribe(Number, print)
        await a.wait_until_all_of({"b", "c"}, subscribed_to=Number)
        await a.wait_until_all_of({"b"}, subscribed_to=[Number, Text], timeout=20)
        over = anyio.Event()

        async def wait() -> None:
            await a.wait_until_all_of({"a", "b", "c"}, subscribed_to={Number, Text})
            over.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            c.subscribe(Text, print)
            await a.wait_until_endpoint_subscribed_to("c", Text)
            await turns(5)
            assert not over.is_set()
            a.subscribe(Number, print)
            a.subscribe(Text, print)
            await over.wait()


async def test_nobody_is_waited_for_where_no_name_is_given(bus: Bus) -> None:
    async with bus.run() as endpoint:
        await endpoint.wait_until_all_of((), subscribed_to=Number, timeout=0)
        await endpoint.wait_until_all_of({"alone"}, timeout=0)


async def test_it_is_there_for_endpoints_that_did_not_join(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        await server.wait_until_all_of({"server", "client"})
        await client.wait_until_all_of({"server"}, timeout=20)


async def test_a_timeout_says_who_is_missing_and_why(bus: Bus) -> None:
    async with joined(bus, "a", "b", "c") as (a, b, _c):
        b.subscribe(Number, print)
        await a.wait_until_endpoint_subscribed_to("b", Number)
        await a.wait_until_connected_to("c")
        with pytest.raises(WaitTimeout) as caught:
            await a.wait_until_all_of(
                ["x", "b", "c", "y", "x", "a"], subscribed_to=(Number, Text), timeout=0.01
            )
        error = caught.value
        assert isinstance(error, TimeoutError)
        assert isinstance(error, LahjaError)
        number, text = name_of(Number), name_of(Text)
        assert error.seconds == 0.01
        assert error.not_connected == ("x", "y")
        assert error.not_subscribed == (
            ("b", (text,)),
            ("c", (number, text)),
            ("a", (number, text)),
        )
        assert str(error) == (
            "not everybody was ready within 0.01 s: not connected: 'x', 'y'; "
            f"'b' is connected, but not subscribed to {text}; "
            f"'c' is connected, but not subscribed to {number}, {text}; "
            f"'a' is connected, but not subscribed to {number}, {text}"
        )
        assert not a._router._watchers


async def test_what_makes_no_sense_is_an_error_at_once(bus: Bus) -> None:
    async with bus.run() as endpoint:
        with pytest.raises(TypeError, match=r"names is the text 'db'; .* such as \{'db'\}"):
            await endpoint.wait_until_all_of("db")
        for timeout in (-1, float("nan")):
            with pytest.raises(ValueError, match=r"timeout is .*; it must not be negative"):
                await endpoint.wait_until_all_of({"db"}, timeout=timeout)
        assert not endpoint._router._watchers


async def test_the_wait_ends_when_the_endpoint_stops_or_is_cancelled(bus: Bus) -> None:
    seen: list[str] = []

    async def wait(endpoint: BaseEndpoint, timeout: float | None) -> None:
        with pytest.raises(LifecycleError, match=r"'a' stopped"):
            await endpoint.wait_until_all_of({"nobody"}, timeout=timeout)
        seen.append("stopped")

    async with anyio.create_task_group() as tasks, bus.join("a") as a:
        for timeout in (None, 50):
            tasks.start_soon(wait, a, timeout)
        with anyio.move_on_after(0.01) as scope:
            await a.wait_until_all_of({"nobody"}, timeout=50)
        assert scope.cancelled_caught
        await until(lambda: len(a._router._watchers) == 2)
    assert seen == ["stopped", "stopped"]


# -- Changes ---------------------------------------------------------------------------------


def test_a_change_is_a_value() -> None:
    change = MembershipChange("db", MembershipReason.GOODBYE)
    assert change == MembershipChange(name="db", reason=MembershipReason.GOODBYE, detail="")
    assert len({change, copy.copy(change), pickle.loads(pickle.dumps(change))}) == 1
    with pytest.raises(AttributeError):
        change.name = "other"  # type: ignore[misc]
    assert [reason for reason in MembershipReason if MembershipChange("db", reason).joined] == [
        MembershipReason.PRESENT,
        MembershipReason.CONNECTED,
    ]


def test_a_change_can_be_printed() -> None:
    assert str(MembershipChange("db", MembershipReason.GOODBYE)) == "'db' said goodbye"
    assert str(MembershipChange("db", MembershipReason.CONNECTED)) == "'db' connected"
    change = MembershipChange("db", MembershipReason.FAULTY, "a frame is empty")
    assert str(change) == "'db' sent what it must not send: a frame is empty"


async def test_it_begins_with_those_that_are_there(bus: Bus) -> None:
    async with joined(bus, "a", "b", "c") as (a, _, _):
        await a.wait_until_all_of({"b", "c"})
        stream = a.membership()
        changes = {await next_change(stream) for _ in "bc"}
        assert changes == {(name, JOINED, MembershipReason.PRESENT) for name in "bc"}
        assert not stream.mailbox.events


async def test_it_goes_on_with_those_that_come_and_go(bus: Bus) -> None:
    async with bus.join("a") as a:
        stream = a.membership()
        for _ in range(3):
            async with bus.join("b"):
                assert await next_change(stream) == ("b", JOINED, MembershipReason.CONNECTED)
                assert a.is_connected_to("b")
            assert await next_change(stream) == ("b", LEFT, MembershipReason.GOODBYE)
            assert not a.is_connected_to("b")
        assert not stream.mailbox.events


async def test_a_change_is_told_after_it_has_happened(bus: Bus) -> None:
    async with bus.join("a") as a, bus.join("b") as b, bus.join("c") as c:
        b.subscribe(Number, print)
        async for change in a.membership():
            assert a.is_connected_to(change.name)
            if change.name == "b":
                break
        await a.wait_until_endpoint_subscribed_to("b", Number)
        assert c.name == "c"


async def test_it_is_there_for_endpoints_that_did_not_join_too(bus: Bus) -> None:
    async with bus.serve("server") as server:
        stream = server.membership()
        async with bus.connect("client", "server") as client:
            assert await next_change(stream) == ("client", JOINED, MembershipReason.CONNECTED)
            assert await next_change(client.membership()) == (
                "server",
                JOINED,
                MembershipReason.PRESENT,
            )
        assert await next_change(stream) == ("client", LEFT, MembershipReason.GOODBYE)


@pytest.mark.parametrize("way", ["goodbye", "closed", "half a frame", "faulty", "stalled"])
async def test_it_says_why_an_endpoint_left(bus: Bus, way: str) -> None:
    async with bus.serve("server", stall_timeout=0.05) as server:
        stream = server.membership()
        async with raw_peer(server, "peer", {Text: None}) as peer:
            assert await next_change(stream) == ("peer", JOINED, MembershipReason.CONNECTED)
            if way == "goodbye":
                await peer.send(control_frame(wire.GOODBYE))
            elif way == "closed":
                peer.socket.close()
            elif way == "half a frame":
                await peer.send(raw_frame(wire.EVENT, b"x" * 100)[:50])
                peer.socket.close()
            elif way == "faulty":
                await peer.send(raw_frame(0x77))
            else:
                for _ in range(50):
                    server.broadcast_nowait(Text("x" * 100_000))
            change = await anext(stream)
    assert (change.name, change.joined) == ("peer", LEFT)
    reason, detail = {
        "goodbye": (MembershipReason.GOODBYE, ""),
        "closed": (MembershipReason.CRASHED, ""),
        "half a frame": (MembershipReason.CRASHED, "of which 55 bytes were still to come"),
        "faulty": (MembershipReason.FAULTY, "0x77 is not a kind of frame"),
        "stalled": (MembershipReason.STALLED, "it took nothing for 0.05 s"),
    }[way]
    assert change.reason is reason
    assert detail in change.detail
    assert bool(detail) == bool(change.detail)


async def test_an_endpoint_that_restarts_leaves_and_joins(bus: Bus) -> None:
    introduction = control_frame(wire.HELLO, wire.PROTOCOL_VERSION, "raw", bytes(16), {})
    async with bus.serve("server") as server:
        stream = server.membership()
        with raw_connection(server.ipc_path) as old, raw_connection(server.ipc_path) as new:
            await old.send(introduction, control_frame(wire.SUBSCRIBE, {}, (), True))
            assert await next_change(stream) == ("raw", JOINED, MembershipReason.CONNECTED)
            # The event loop stands still, so that both of these are news to it.
            new.socket.send(introduction + control_frame(wire.SUBSCRIBE, {}, (), True))
            old.socket.close()
            assert await next_change(stream) == ("raw", LEFT, MembershipReason.CRASHED)
            assert await next_change(stream) == ("raw", JOINED, MembershipReason.CONNECTED)
            assert not stream.mailbox.events


async def test_those_that_were_never_connected_are_not_told_of(bus: Bus) -> None:
    async with bus.serve("server") as server:
        stream = server.membership()
        with raw_connection(server.ipc_path) as stranger:
            await stranger.send(b"garbage of some length, whatever it is")
            await stranger.closed()
        async with raw_peer(server, "peer"):
            assert await next_change(stream) == ("peer", JOINED, MembershipReason.CONNECTED)


# -- The life of the stream ------------------------------------------------------------------


async def test_it_may_be_made_before_run(bus: Bus) -> None:
    endpoint = bus.endpoint_class("a")
    stream = endpoint.membership()
    async with bus.serve("b"), endpoint.run():
        await endpoint.connect_to_endpoints(bus.config("b"))
        assert await next_change(stream) == ("b", JOINED, MembershipReason.CONNECTED)


async def test_several_get_every_change(bus: Bus) -> None:
    async with bus.join("a") as a:
        streams = [a.membership() for _ in range(3)]
        async with bus.join("b"):
            for stream in streams:
                assert (await anext(stream)).name == "b"


async def test_what_has_happened_when_the_endpoint_stops_may_still_be_read(bus: Bus) -> None:
    async with bus.join("a") as a:
        stream = a.membership()
        async with bus.join("b"):
            await a.wait_until_connected_to("b")
            other = a.membership()
            assert await next_change(other) == ("b", JOINED, MembershipReason.PRESENT)
        await until(lambda: not a.is_connected_to("b"))
    assert [change.joined async for change in stream] == [JOINED, LEFT]
    assert [change.joined async for change in other] == [LEFT]


async def test_nobody_is_said_to_leave_when_it_is_the_endpoint_itself_that_stops(bus: Bus) -> None:
    changes: list[MembershipChange] = []

    async def listen(endpoint: BaseEndpoint) -> None:
        changes.extend([change async for change in endpoint.membership()])

    async with anyio.create_task_group() as tasks, bus.join("b"), bus.join("a") as a:
        await a.wait_until_connected_to("b")
        tasks.start_soon(listen, a)
        await until(lambda: a._router.observers)
        await turns(3)
    assert [change.reason for change in changes] == [MembershipReason.PRESENT]


async def test_it_unsubscribes_when_it_is_closed(bus: Bus) -> None:
    async with bus.run() as endpoint:
        assert not endpoint._router.observers
        async with endpoint.membership() as stream:
            assert endpoint._router.observers == {stream.mailbox}
        async with aclosing(endpoint.membership()):
            pass
        endpoint.membership().close()
        stream = endpoint.membership()
        await stream.aclose()
        await stream.aclose()
        assert not endpoint._router.observers
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_it_unsubscribes_when_it_is_dropped(bus: Bus) -> None:
    async with bus.run() as endpoint:
        stream = endpoint.membership()
        assert endpoint._router.observers
        del stream
        await collect_garbage()
        assert not endpoint._router.observers
    stream = endpoint_of_yesterday = bus.endpoint_class("a").membership()
    del stream, endpoint_of_yesterday
    gc.collect()


async def test_it_unsubscribes_when_it_is_cancelled(bus: Bus) -> None:
    async with bus.run() as endpoint:
        stream = endpoint.membership()
        with anyio.move_on_after(0.01) as scope:
            await anext(stream)
        assert scope.cancelled_caught
        assert not endpoint._router.observers


async def test_leaving_a_loop_early_unsubscribes(bus: Bus) -> None:
    async with joined(bus, "a", "b") as (a, _):
        await a.wait_until_connected_to("b")
        before = len(a._router.observers)  # join is one of them
        async for change in a.membership():
            assert change.name == "b"
            break
        await collect_garbage()
        assert len(a._router.observers) == before


async def test_two_tasks_cannot_wait_for_the_next_change(bus: Bus) -> None:
    async with bus.run() as endpoint, anyio.create_task_group() as tasks:
        stream = endpoint.membership()
        tasks.start_soon(anext, stream)
        await turns(3)
        with pytest.raises(RuntimeError, match=r"another task waits"):
            await anext(stream)
        tasks.cancel_scope.cancel()


async def test_it_has_the_interface_of_an_asynchronous_generator(bus: Bus) -> None:
    async with bus.join("a") as a:
        stream: Any = a.membership()
        async with bus.join("b"), bus.join("c"):
            assert (await stream.asend(None)).name in {"b", "c"}
            with pytest.raises(ZeroDivisionError):
                await stream.athrow(ZeroDivisionError("thrown in"))
            assert [change async for change in stream] == []


async def test_its_repr_tells_its_state(bus: Bus) -> None:
    async with joined(bus, "a", "b") as (a, _):
        await a.wait_until_connected_to("b")
        stream = a.membership()
        assert repr(stream) == "<Membership: 1 changes waiting>"
        stream.close()
        assert repr(stream) == "<Membership: closed>"


async def test_events_are_no_changes_and_changes_no_events(bus: Bus) -> None:
    async with joined(bus, "a", "b") as (a, b):
        stream, markers = a.membership(), a.stream(Marker)
        await b.wait_until_endpoint_subscribed_to("a", Marker)
        assert (await anext(stream)).name == "b"
        await b.broadcast(Marker())
        await anext(markers)
        assert not stream.mailbox.events
        assert a.get_subscribed_events() == {Marker}
