"""Who only observes: what it is told and shown, and that nobody else notices, on every loop."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import AsyncExitStack
from decimal import Decimal
from typing import Any, NamedTuple

import anyio
import anyio.lowlevel
import pytest
from fault_helpers import Blob
from helpers import (
    Bus,
    Marker,
    Number,
    Question,
    RawPeer,
    Text,
    answer_questions,
    complaints,
    raw_connection,
    raw_observer,
    raw_peer,
    take,
    until,
)

from lahja import BroadcastConfig, EncodeError, EndpointStats, NoSubscribers, wire
from lahja.base import BaseEndpoint
from lahja.framing import decode_value
from lahja.names import name_of
from lahja.observers import ANSWERS_PER_SECOND, MOST_OBSERVERS, TAP_EVENT_SIZE, TAP_QUEUE_SIZE
from lahja.protocol import control_frame

pytestmark = pytest.mark.anyio

ANYTHING = "*"
INTERNAL = BroadcastConfig(internal=True)


class Tapped(NamedTuple):
    """Be what one TAPPED frame says."""

    kind: str
    name: str
    values: tuple[Any, ...] | str | None
    elsewhere: int
    here: int
    lost: int


class Viewer:
    """Read what an observer is shown."""

    def __init__(self, peer: RawPeer) -> None:
        self._peer = peer
        self._types: dict[int, tuple[str, tuple[str, ...]]] = {}

    async def next(self) -> Tapped:
        """Return what the next TAPPED frame says."""
        while (frame := await self._peer.read()) is not None:
            kind, body = frame
            if kind == wire.ANNOUNCE:
                (type_id, name, _, fields), _ = decode_value(body, 1)
                self._types[type_id] = name, fields
            elif kind == wire.TAPPED:
                return self._taken_apart(body)
        raise AssertionError("the connection was closed")

    def _taken_apart(self, body: bytes) -> Tapped:
        _, lost, elsewhere, here = struct.unpack_from("<BIII", body)
        inner = body[13:]
        if not inner:
            return Tapped("", "", None, elsewhere, here, lost)
        kind, type_id = struct.unpack_from("<BI", inner)
        payload = inner[5 if kind == wire.EVENT else 21 :]
        name, fields = self._types[type_id]
        values: tuple[Any, ...] | str | None = None
        if payload:
            values = "pickled" if payload[0] else tuple(_values(payload, len(fields)))
        return Tapped(
            wire.KIND_NAMES[kind], name.removeprefix("helpers:"), values, elsewhere, here, lost
        )


def _values(payload: bytes, count: int) -> Iterator[Any]:
    at = 1
    for _ in range(count):
        value, at = decode_value(payload, at)
        yield value


def event(name: str, *values: Any, elsewhere: int = 0, here: int = 0) -> Tapped:
    return Tapped("EVENT", name, values, elsewhere, here, 0)


async def ask(peer: RawPeer, number: int = 1) -> Any:
    """Return the answer to a question for statistics."""
    await peer.send(control_frame(wire.ASK_STATS, number))
    answered, answer = await peer.read_values(wire.STATS)
    assert answered == number
    return answer


# -- No member -----------------------------------------------------------------------------------


async def test_an_observer_is_no_member(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    async with bus.pair() as (server, client):
        server.subscribe(Number, lambda event: None)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        router = server._router
        before = router.connections_version, router.subscriptions_version
        connected = server.get_connected_endpoints_and_subscriptions()
        async with raw_observer(server, "observer", ANYTHING, name_of(Text)):
            assert server.stats().observers == 1
            assert [peer.name for peer in server.stats().peers] == ["client"]
            assert server.get_connected_endpoints_and_subscriptions() == connected
            assert not server.is_connected_to("observer")
            assert not server.is_endpoint_subscribed_to("observer", Text)
            assert not server.is_any_endpoint_subscribed_to(Text)
            assert server.are_all_endpoints_subscribed_to(Number) is False  # the client is not
            with pytest.raises(NoSubscribers):
                await server.broadcast(Text("x"), BroadcastConfig(require_subscriber=True))
            with pytest.raises(NoSubscribers):
                await server.request(Question(1))
            assert (router.connections_version, router.subscriptions_version) == before
        await until(lambda: server.stats().observers == 0)
        assert (router.connections_version, router.subscriptions_version) == before
    assert not complaints(caplog)


@pytest.mark.parametrize("name", ["server", "client", "observer", "x" * 4096])
async def test_an_observer_may_be_called_what_it_likes(bus: Bus, name: str) -> None:
    async with bus.pair() as (server, client):
        async with raw_observer(server, name), raw_observer(server, name):
            assert server.stats().observers == 2
            stream = client.stream(Number)
            await server.wait_until_endpoint_subscribed_to("client", Number)
            await server.broadcast(Number(1))
            assert (await anext(stream)).value == 1
        await until(lambda: not server.stats().observers)
        assert server.is_connected_to("client")


async def test_a_member_may_come_under_the_name_of_an_observer(bus: Bus) -> None:
    async with (
        bus.serve("server") as server,
        raw_observer(server, "client"),
        bus.connect("client", "server"),
    ):
        await server.wait_until_connected_to("client")


async def test_observers_are_limited(bus: Bus) -> None:
    async with bus.serve("server") as server, AsyncExitStack() as stack:
        for _ in range(MOST_OBSERVERS):
            await stack.enter_async_context(raw_observer(server))
        with raw_connection(server.ipc_path) as another:
            await another.hello("observer", observe=True)
            code, reason = await another.read_values(wire.REJECT)
            assert code == wire.REJECT_OBSERVERS
            assert str(MOST_OBSERVERS) in reason
        async with bus.connect("client", "server"):
            await server.wait_until_connected_to("client")


async def test_leaving_neither_waits_for_an_observer_nor_complains_of_it(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        bus.serve("server", drain_timeout=1000) as server,
        raw_observer(server, "observer", ANYTHING) as peer,
    ):
        for _ in range(1000):
            await server.broadcast(Text("x" * 1000))
        assert len(server._router.observed_by.shut) == 1
        await server._peering.drain()
        await peer.send(control_frame(wire.GOODBYE))
    assert not complaints(caplog)


async def test_an_observer_is_told_that_the_endpoint_leaves(bus: Bus) -> None:
    async with bus.serve("server") as server:
        with raw_connection(server.ipc_path) as peer:
            await peer.hello("observer", observe=True)
            await peer.subscribed()
            server._peering.close()
            await peer.read_kind(wire.GOODBYE)
            await peer.closed()


# -- Statistics ----------------------------------------------------------------------------------


async def test_an_observer_is_told_statistics(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        stream = server.stream(Number)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        await client.broadcast(Number(1))
        await anext(stream)
        async with raw_observer(server) as peer:
            stats = EndpointStats.from_dict(await ask(peer, 4711))
            own = server.stats()
            assert (stats.name, stats.instance, stats.pid) == (own.name, own.instance, own.pid)
            assert (stats.types, stats.subscriptions) == (own.types, own.subscriptions)
            assert [peer.name for peer in stats.peers] == ["client"]
            assert (stats.observers, stats.left_out) == (1, 0)


async def test_a_member_may_ask_for_statistics_too(bus: Bus) -> None:
    async with bus.serve("server") as server, raw_peer(server) as peer:
        assert EndpointStats.from_dict(await ask(peer)).name == "server"


async def test_another_user_is_told_nothing(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lahja.peering.peer_user", lambda sock: 54321)
    async with bus.serve("server", allowed_uids=(54321,)) as server:
        async with raw_peer(server) as peer:
            assert await ask(peer) == "statistics are only for processes of the endpoint's own user"
        with raw_connection(server.ipc_path) as stranger:
            await stranger.hello("observer", observe=True)
            code, reason = await stranger.read_values(wire.REJECT)
            assert code == wire.REJECT_USER
            assert "own user" in reason


async def test_questions_are_answered_at_a_limited_rate(bus: Bus) -> None:
    async with bus.serve("server") as server, raw_observer(server) as peer:
        now = 100.0
        server._router.stopwatch.clock = lambda: now
        count = 5 * ANSWERS_PER_SECOND
        await peer.send(*(control_frame(wire.ASK_STATS, number) for number in range(count)))
        answers = [await peer.read_values(wire.STATS) for _ in range(count)]
        assert [number for number, _ in answers] == list(range(count))
        told = [type(answer) is dict for _, answer in answers]
        assert told == sorted(told, reverse=True)
        assert sum(told) in (ANSWERS_PER_SECOND, ANSWERS_PER_SECOND - 1)
        assert "at most 20" in answers[-1][1]
        now += 10
        assert type(await ask(peer)) is dict


@pytest.mark.parametrize("limit", [1024, 3000, 20_000])
async def test_an_answer_fits_into_a_frame(bus: Bus, limit: int) -> None:
    async with bus.serve("server") as server:
        for number in range(300):
            server.subscribe(type(f"Type{number}", (Number,), {}), print)
        async with raw_observer(server, max_frame_size=limit) as peer:
            await peer.send(control_frame(wire.ASK_STATS, 1))
            body = await peer.read_kind(wire.STATS)
            assert len(body) <= limit
            _, answer = decode_value(body, 1)[0]
            stats = EndpointStats.from_dict(answer)
            assert stats.left_out + len(stats.types) + len(stats.subscriptions) == 600
            assert stats.left_out > 300


async def test_an_answer_that_does_not_fit_at_all_is_an_excuse(bus: Bus) -> None:
    async with bus.serve("server") as server:
        server._router.observed_by.statistics = lambda: _huge(server.stats())
        async with raw_observer(server, max_frame_size=1024) as peer:
            assert await ask(peer) == "they are longer than a frame may be"


def _huge(stats: EndpointStats) -> EndpointStats:
    return EndpointStats.from_dict(stats.to_dict() | {"path": "x" * 4000})


# -- The tap -------------------------------------------------------------------------------------


async def test_a_tap_shows_what_is_broadcast(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        answer_questions(client)
        client.subscribe(Number, lambda event: None)
        server.subscribe(Number, lambda event: None)
        await server.wait_until_endpoint_subscribed_to("client", Number)
        async with raw_observer(server, "observer", name_of(Number), "*:T??t", "*stion") as peer:
            viewer = Viewer(peer)
            await server.broadcast(Number(1))
            await server.broadcast(Text("to nobody"))
            await server.broadcast(Number(2), BroadcastConfig(filter_endpoint="client"))
            server.broadcast_nowait(Number(3), BroadcastConfig(filter_endpoint="server"))
            await server.broadcast(Marker())  # of no type that it wants
            await server.broadcast(Number(4), INTERNAL)
            await server.request(Question(5))
            await client.broadcast(Number(6))  # by somebody else
            await server.broadcast(Text("the last one"))
            assert await viewer.next() == event("Number", 1, elsewhere=1, here=1)
            assert await viewer.next() == event("Text", "to nobody")
            assert await viewer.next() == event("Number", 2, elsewhere=1)
            assert await viewer.next() == event("Number", 3, here=1)
            assert await viewer.next() == Tapped("REQUEST", "Question", (5,), 1, 0, 0)
            assert await viewer.next() == event("Text", "the last one")


async def test_a_tap_shows_responses(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        answer_questions(server)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        async with raw_observer(server, "observer", "*:Answer") as peer:
            await client.request(Question(7))
            assert await Viewer(peer).next() == Tapped("RESPONSE", "Answer", (7,), 1, 0, 0)


class Odd(Question):
    """Ask for what is no class."""

    def expected_response_type(self) -> Any:  # type: ignore[override]
        return "Answer"


async def test_a_request_that_fails_is_not_shown_and_leaves_nothing(bus: Bus) -> None:
    async with (
        bus.serve("server") as server,
        raw_observer(server, "observer", ANYTHING) as peer,
    ):
        server.subscribe(Odd, lambda event: None)
        odd = Odd(1)
        with pytest.raises(TypeError, match=r"expects a response of 'Answer', which is no class"):
            await server.request(odd)
        assert not odd.is_bound
        with pytest.raises(NoSubscribers):
            await server.request(Question(1))
        assert not server._router.pending
        await server.broadcast(Number(1))
        assert await Viewer(peer).next() == event("Number", 1)


async def test_a_tap_within_an_endpoint_changes_nothing_for_it(bus: Bus) -> None:
    async with (
        bus.serve("server") as server,
        raw_observer(server, "observer", ANYTHING) as peer,
    ):
        stream = server.stream(Number)
        number = Number(5)
        await server.broadcast(number)
        received = await anext(stream)
        assert received is number
        assert vars(received) == {"value": 5, "_origin": "server"}
        unheard = Text("x")
        await server.broadcast(unheard)
        assert not unheard.is_bound  # as without an observer
        assert await Viewer(peer).next() == event("Number", 5, here=1)


async def test_a_tap_opens_for_types_that_come_later_and_can_be_closed(bus: Bus) -> None:
    async with bus.serve("server") as server:
        async with raw_observer(server, "observer", "*:Later*") as peer:
            viewer = Viewer(peer)
            later = type("Later1", (Number,), {"__module__": "m"})
            await server.broadcast(later(1))
            assert await viewer.next() == event("m:Later1", 1)
            await peer.send(control_frame(wire.SUBSCRIBE, {"m:Other": None}, ("*:Later*",), True))
            await ask(peer)
            await server.broadcast(later(2))
            other = type("Other", (Number,), {"__module__": "m"})
            await server.broadcast(other(3))
            assert await viewer.next() == event("m:Other", 3)
            assert set(server._router.observed_by.taps) == {"m:Other"}
        await until(lambda: not server._router.observed_by.taps)
        assert not any(topic.limited for topic in server._table.topics.values())


async def test_several_taps_see_the_same(bus: Bus) -> None:
    async with (
        bus.serve("server") as server,
        raw_observer(server, "one", "*:Number") as one,
        raw_observer(server, "two", ANYTHING) as two,
    ):
        await server.broadcast(Text("x"))
        await server.broadcast(Number(1))
        assert await Viewer(one).next() == event("Number", 1)
        viewer = Viewer(two)
        assert await viewer.next() == event("Text", "x")
        assert await viewer.next() == event("Number", 1)


async def test_a_tap_does_not_show_what_could_not_be_broadcast(bus: Bus) -> None:
    async with (
        bus.serve("server") as server,
        raw_peer(server, "raw", {Text: None}),
        raw_observer(server, "observer", ANYTHING) as peer,
    ):
        with pytest.raises(EncodeError):
            await server.broadcast(Text(lambda: None))  # type: ignore[arg-type]
        text = Text("good")
        await server.broadcast(text)
        with pytest.raises(Exception, match="was broadcast by"):
            await server.broadcast(text)
        await server.broadcast(Number(1))
        viewer = Viewer(peer)
        assert await viewer.next() == event("Text", "good", elsewhere=1)
        assert await viewer.next() == event("Number", 1)


async def test_what_is_pickled_is_shown_as_such(bus: Bus) -> None:
    async with (
        bus.serve("server") as server,
        raw_peer(server, "raw", {Text: None}),
        raw_observer(server, "observer", ANYTHING) as peer,
    ):
        await server.broadcast(Text(Decimal(5)))  # type: ignore[arg-type]
        shown = await Viewer(peer).next()
        assert (shown.name, shown.values, shown.elsewhere) == ("Text", "pickled", 1)


@pytest.mark.parametrize(
    "value", [lambda: None, Decimal(5), "x" * TAP_EVENT_SIZE, ["y" * TAP_EVENT_SIZE]]
)
async def test_what_would_be_encoded_for_an_observer_alone_is_shown_without_its_values(
    bus: Bus, value: Any
) -> None:
    async with bus.serve("server") as server:
        texts = server.stream(Text)
        async with raw_observer(server, "observer", ANYTHING) as peer:
            viewer = Viewer(peer)
            for _ in range(2):
                await server.broadcast(Text(value))
                assert (await anext(texts)).text is value
                assert await viewer.next() == Tapped("EVENT", "Text", None, 0, 1, 0)
            await server.broadcast(Text("short"))
            assert await viewer.next() == event("Text", "short", here=1)


async def test_long_events_are_shown_without_their_values(bus: Bus) -> None:
    async with (
        bus.serve("server") as server,
        raw_peer(server, "raw", {Blob: None}) as raw,
        raw_observer(server, "observer", ANYTHING) as peer,
    ):
        await server.broadcast(Blob(bytes(TAP_EVENT_SIZE)))
        shown = await Viewer(peer).next()
        assert (shown.values, shown.elsewhere) == (None, 1)
        assert len(await raw.read_kind(wire.EVENT)) > TAP_EVENT_SIZE


async def test_a_value_that_is_sent_in_pieces_is_shown(bus: Bus) -> None:
    async with (
        bus.serve("server") as server,
        raw_peer(server, "raw", {Blob: None}) as raw,
        raw_observer(server, "observer", ANYTHING) as peer,
    ):
        data = bytes(range(256)) * 512
        await server.broadcast(Blob(data))
        assert await Viewer(peer).next() == event("fault_helpers:Blob", data, elsewhere=1)
        assert (await raw.read_kind(wire.EVENT)).endswith(data)


async def test_held_events_are_shown_when_they_are_broadcast(bus: Bus) -> None:
    async with (
        bus.serve("server") as server,
        raw_peer(server, "raw", {Number: 1}),
        raw_observer(server, "observer", ANYTHING) as peer,
    ):
        viewer = Viewer(peer)
        for value in range(3):
            server.broadcast_nowait(Number(value))
            assert await viewer.next() == event("Number", value, elsewhere=1)


# -- A slow tap ----------------------------------------------------------------------------------


async def flood(server: BaseEndpoint, count: int) -> None:
    for value in range(count):
        await server.broadcast(Text(f"{value:0100}"))


async def test_a_slow_tap_holds_nobody_back_and_counts_what_it_misses(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    count = 30_000
    async with (
        bus.serve("server") as server,
        raw_observer(server, "observer", "*:Text") as peer,
    ):
        outlet = next(iter(server._router.observed_by._taps)).outlet
        with anyio.fail_after(20):
            await flood(server, count)
        assert outlet.size <= TAP_QUEUE_SIZE
        assert not server._router.observed_by.taps  # shut: events take the fast way
        assert not server._table.topic(Text).limited
        viewer = Viewer(peer)
        shown = lost = 0
        while shown + lost < count:
            tapped = await viewer.next()
            lost += tapped.lost
            if tapped.values is not None:
                assert tapped.values == (f"{shown + lost:0100}",)
                shown += 1
        assert shown > 100
        assert lost > count // 2
        # It is open again, and misses nothing as long as it reads.
        await server.broadcast(Text("again"))
        assert await viewer.next() == event("Text", "again")
    assert not complaints(caplog)


async def test_an_observer_that_never_reads_is_cut_off(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        bus.serve("server", stall_timeout=0.2) as server,
        raw_observer(server, "observer", ANYTHING),
    ):
        await flood(server, 20_000)
        await until(lambda: not server.stats().observers)
        await flood(server, 10)
        assert not server._router.observed_by.shut
    assert not complaints(caplog)  # nobody but the observer has missed anything


async def test_a_tap_that_is_slow_does_not_delay_another_one(bus: Bus) -> None:
    async with (
        bus.serve("server") as server,
        raw_observer(server, "slow", ANYTHING),
        raw_observer(server, "quick", ANYTHING) as quick,
    ):
        viewer = Viewer(quick)
        numbers = server.stream(Number)
        for round_number in range(30):
            await flood(server, 300)
            await server.broadcast(Number(round_number))
            seen = [await viewer.next() for _ in range(301)]
            assert seen[-1] == event("Number", round_number, here=1)
            assert not any(tapped.lost for tapped in seen)
        assert len(await take(numbers, 30)) == 30
        assert server._router.observed_by.shut  # the slow one


async def test_answers_reach_an_observer_whose_tap_is_shut(bus: Bus) -> None:
    async with (
        bus.serve("server") as server,
        raw_observer(server, "observer", ANYTHING) as peer,
    ):
        await flood(server, 20_000)
        assert server._router.observed_by.shut
        assert EndpointStats.from_dict(await ask(peer)).name == "server"
