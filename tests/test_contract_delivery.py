"""
What becomes of an event between ``broadcast`` and those who subscribed: on every backend.

Everything runs in one event loop, through real sockets; a test that needs a peer which behaves
badly talks to the endpoint by hand.
"""

from __future__ import annotations

import copyreg
import functools
import random
import re
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import anyio
import pytest
from helpers import (
    Answer,
    Bus,
    Marker,
    Number,
    Question,
    Text,
    answer_questions,
    complaints,
    heartbeat,
    raw_peer,
    take,
    until,
)

from lahja import (
    BaseEvent,
    BindError,
    BroadcastConfig,
    EncodeError,
    NoSubscribers,
    wire,
)
from lahja.base import BaseEndpoint

pytestmark = pytest.mark.anyio


@dataclass
class Pair(BaseEvent):
    left: bytes
    value: Any
    right: bytes


def note(values: list[int], event: Number) -> None:
    """Remember the value of an event."""
    values.append(event.value)


# -- Order, and who gets what ----------------------------------------------------------------


async def test_events_arrive_in_the_order_of_their_broadcasts_and_once(bus: Bus) -> None:
    count = 3000
    async with bus.pair() as (server, client):
        numbers, markers = server.stream(Number), server.stream(Marker)
        await client.wait_until_endpoint_subscribed_to("server", Marker)
        for value in range(count):
            if value % 3:
                await client.broadcast(Number(value))
            else:
                client.broadcast_nowait(Number(value))
        await client.broadcast(Marker())
        assert [event.value for event in await take(numbers, count)] == list(range(count))
        await anext(markers)
        assert not numbers.mailbox.events


async def test_events_of_different_types_and_sizes_keep_their_order(bus: Bus) -> None:
    received: list[int] = []
    async with bus.pair() as (server, client):
        server.subscribe(Number, lambda event: received.append(event.value))
        server.subscribe(Text, lambda event: received.append(len(event.text)))
        await client.wait_until_endpoint_subscribed_to("server", Text)
        sent = [1, 3_000_000, 2, 100_000, 3, 70_000, 1_500, 4]
        for size in sent:
            client.broadcast_nowait(Number(size) if size < 5 else Text("x" * size))
        await until(lambda: len(received) == len(sent))
        assert received == sent


async def test_long_values_of_all_sorts_arrive_between_short_ones(bus: Bus) -> None:
    """What is broadcast is the value of that moment, however long it takes until it is sent."""
    noise = random.Random(1).randbytes(3_000_000)
    mutable = bytearray(noise)
    values: list[Any] = [
        1,
        noise,
        b"",
        {"key": [noise[:70_000], "x"]},
        "text " * 200_000,
        "ä" * 100_000,
        mutable,
        bytes(70_000),
        (noise, noise[::-1]),
        Decimal(5),
        5 << 800_000,
        2,
    ]
    async with bus.pair() as (server, client):
        numbers, pairs = server.stream(Number), server.stream(Pair)
        await client.wait_until_endpoint_subscribed_to("server", Pair)
        for value in values:
            client.broadcast_nowait(Number(value))
            client.broadcast_nowait(Pair(noise, value, noise[:100_000]))
        mutable[:] = bytes(len(mutable))
        values[values.index(mutable)] = bytearray(noise)
        for value in values:
            assert (await anext(numbers)).value == value
            pair = await anext(pairs)
            assert (pair.left, pair.value, pair.right) == (noise, value, noise[:100_000])


async def test_long_requests_and_responses(bus: Bus) -> None:
    noise = random.Random(1).randbytes(2_000_000)
    async with bus.pair() as (server, client):
        answer_questions(server)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        for value in (1, noise, "text" * 500_000, 2):
            assert (await client.request(Question(value))).value == value  # type: ignore[arg-type]


async def test_an_event_goes_to_each_endpoint_that_is_connected_and_subscribed(bus: Bus) -> None:
    received: dict[str, list[int]] = {"b": [], "c": [], "d": []}
    async with (
        bus.serve("a") as a,
        bus.connect("b", "a") as b,
        bus.connect("c", "a") as c,
        bus.connect("d", "a") as d,
    ):
        for endpoint in (b, c):
            endpoint.subscribe(Number, functools.partial(note, received[endpoint.name]))
        d.subscribe(Text, lambda event: received["d"].append(len(event.text)))
        for name in ("b", "c"):
            await a.wait_until_endpoint_subscribed_to(name, Number)
        await a.wait_until_endpoint_subscribed_to("d", Text)
        await a.broadcast(Number(1))
        await a.broadcast(Text("two"))
        await until(lambda: received == {"b": [1], "c": [1], "d": [3]})


async def test_an_event_goes_only_to_those_that_are_subscribed_at_the_time_of_the_call(
    bus: Bus,
) -> None:
    async with bus.pair() as (server, client):
        await client.broadcast(Number(1))
        stream = server.stream(Number)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        await client.broadcast(Number(2))
        assert (await anext(stream)).value == 2
        await stream.aclose()
        await client.wait_until_endpoint_subscriptions_change()
        await client.broadcast(Number(3))
        stream = server.stream(Number)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        await client.broadcast(Number(4))
        assert (await anext(stream)).value == 4


async def test_both_ends_of_a_connection_send_to_each_other(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        at_server, at_client = server.stream(Number), client.stream(Number)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        await server.wait_until_endpoint_subscribed_to("client", Number)
        await client.broadcast(Number(1))
        await server.broadcast(Number(2))
        assert {event.get_origin() for event in await take(at_server, 2)} == {"client", "server"}
        assert {event.get_origin() for event in await take(at_client, 2)} == {"client", "server"}


async def test_events_are_not_passed_on_by_those_in_between(bus: Bus) -> None:
    async with bus.serve("a") as a, bus.connect("b", "a") as b, bus.connect("c", "a") as c:
        at_a, at_c = a.stream(Number), c.stream(Number)
        await b.wait_until_endpoint_subscribed_to("a", Number)
        await a.wait_until_endpoint_subscribed_to("c", Number)
        await b.broadcast(Number(1))
        assert (await anext(at_a)).get_origin() == "b"
        await a.broadcast(Number(2))
        assert (await anext(at_c)).get_origin() == "a"


async def test_local_handlers_and_streams_get_the_very_same_object(bus: Bus) -> None:
    handled: list[Number] = []
    async with bus.pair() as (server, client):
        server.subscribe(Number, handled.append)
        streamed, awaited = server.stream(Number), server.wait_for(Number)
        remote = client.stream(Number)
        await server.wait_until_endpoint_subscribed_to("client", Number)
        event = Number(1)
        await server.broadcast(event)
        assert await anext(streamed) is event
        assert await awaited is event
        await until(lambda: handled)
        assert handled[0] is event
        assert event.is_bound
        assert event.get_origin() == "server"
        assert await anext(remote) == event


class Derived(Number):
    """Be a type of its own."""


async def test_matching_is_by_exact_type(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        base, derived = server.stream(Number), server.stream(Derived)
        await client.wait_until_endpoint_subscribed_to("server", Derived)
        for endpoint in (client, server):  # from elsewhere, and from here
            await endpoint.broadcast(Derived(1))
            await endpoint.broadcast(Number(2))
            assert (await anext(base)).value == 2
            event = await anext(derived)
            assert (event.value, type(event)) == (1, Derived)


async def test_a_subscription_to_a_base_class_does_not_make_others_send_derived_events(
    bus: Bus,
) -> None:
    async with bus.pair() as (server, client):
        server.stream(Number).close()
        stream = server.stream(Number)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        assert not client.is_endpoint_subscribed_to("server", Derived)
        with pytest.raises(NoSubscribers):
            await client.broadcast(Derived(1), BroadcastConfig(require_subscriber=True))
        stream.close()


# -- Where a broadcast goes ------------------------------------------------------------------


async def test_an_internal_event_stays_in_its_endpoint(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        here, there = server.stream(Number), client.stream(Number)
        await server.wait_until_endpoint_subscribed_to("client", Number)
        await server.broadcast(Number(1), BroadcastConfig(internal=True))
        await server.broadcast(Number(2))
        assert [event.value for event in await take(here, 2)] == [1, 2]
        assert (await anext(there)).value == 2


async def test_filter_endpoint_lets_only_that_endpoint_receive(bus: Bus) -> None:
    async with bus.serve("a") as a, bus.connect("b", "a") as b, bus.connect("c", "a") as c:
        streams = [endpoint.stream(Number) for endpoint in (a, b, c)]
        for name in ("b", "c"):
            await a.wait_until_endpoint_subscribed_to(name, Number)
        for value, name in enumerate("abc"):
            await a.broadcast(Number(value), BroadcastConfig(filter_endpoint=name))
        await a.broadcast(Number(9), BroadcastConfig(filter_endpoint="nobody"))
        await a.broadcast(Number(10))
        for value, stream in enumerate(streams):
            assert [event.value for event in await take(stream, 2)] == [value, 10]


async def test_a_broadcast_config_goes_back_to_where_an_event_came_from(bus: Bus) -> None:
    async with bus.serve("a") as a, bus.connect("b", "a") as b, bus.connect("c", "a") as c:
        incoming = a.stream(Number)
        streams = [endpoint.stream(Text) for endpoint in (b, c)]
        await b.wait_until_endpoint_subscribed_to("a", Number)
        for name in ("b", "c"):
            await a.wait_until_endpoint_subscribed_to(name, Text)
        await b.broadcast(Number(1))
        await a.broadcast(Text("to b"), (await anext(incoming)).broadcast_config())
        await a.broadcast(Text("to all"))
        assert [event.text for event in await take(streams[0], 2)] == ["to b", "to all"]
        assert [event.text for event in await take(streams[1], 1)] == ["to all"]


async def test_a_broadcast_config_of_an_internal_event_stays_in_its_endpoint(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        here, there = server.stream(Text), client.stream(Text)
        numbers = server.stream(Number)
        await server.wait_until_endpoint_subscribed_to("client", Text)
        await server.broadcast(Number(1), BroadcastConfig(internal=True))
        await server.broadcast(Text("here"), (await anext(numbers)).broadcast_config(internal=True))
        await server.broadcast(Text("everywhere"))
        assert [event.text for event in await take(here, 2)] == ["here", "everywhere"]
        assert (await anext(there)).text == "everywhere"


# -- Received events -------------------------------------------------------------------------


class Ordinary(BaseEvent):
    def __init__(self, value: int, text: str) -> None:
        super().__init__()
        self.value = value
        self.text = text

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.content() == other.content()

    __hash__ = None  # type: ignore[assignment]

    def content(self) -> list[tuple[str, Any]]:
        return sorted((k, v) for k, v in vars(self).items() if k not in ("_origin", "_id"))


@dataclass
class Plain(BaseEvent):
    value: int
    text: str


@dataclass(frozen=True)
class Frozen(BaseEvent):
    value: int
    text: str


@dataclass(slots=True)
class Slotted(BaseEvent):
    value: int
    text: str


@dataclass(frozen=True, slots=True)
class FrozenSlotted(BaseEvent):
    value: int
    text: str


@dataclass(init=False, eq=True)
class SelfPickling(BaseEvent):
    """Say by itself how it is pickled."""

    value: int
    text: str

    def __init__(self, value: int, text: str) -> None:
        self.value, self.text = value, text

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.value, self.text)


@dataclass
class WithState(BaseEvent):
    """Define its own state, without what lahja keeps in it."""

    value: int
    text: str

    def __getstate__(self) -> tuple[int, str]:
        return self.value, self.text

    def __setstate__(self, state: tuple[int, str]) -> None:
        self.value, self.text = state


@dataclass
class Registered(BaseEvent):
    value: int
    text: str


copyreg.pickle(Registered, lambda event: (Registered, (event.value, event.text)))

KINDS = [
    Ordinary,
    Plain,
    Frozen,
    Slotted,
    FrozenSlotted,
    SelfPickling,
    WithState,
    Registered,
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("text", ["plain", {1: [object]}], ids=["plain", "pickled"])
async def test_every_kind_of_event_is_equal_and_bound_when_it_is_received(
    bus: Bus, kind: Callable[..., Any], text: Any
) -> None:
    async with bus.pair() as (server, client):
        stream = server.stream(kind)  # type: ignore[arg-type]
        await client.wait_until_endpoint_subscribed_to("server", kind)  # type: ignore[arg-type]
        sent = kind(-(2**70), text)
        assert not sent.is_bound
        await client.broadcast(sent)
        assert sent.is_bound
        received = await anext(stream)
        assert type(received) is kind
        assert received == kind(-(2**70), text)
        assert received is not sent
        assert received.is_bound
        assert received.get_origin() == "client"
        assert not kind(1, "new").is_bound


async def test_a_received_request_carries_what_its_response_needs(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        questions = server.stream(Question)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.request, Question(5))
            question = await anext(questions)
            assert (question.value, question.get_origin()) == (5, "client")
            config = question.broadcast_config()
            assert config.filter_endpoint == "client"
            assert config.filter_event_id == question._id
            assert len(question._id or b"") == wire.ID_SIZE
            await server.broadcast(Answer(5), config)


# -- Binding ---------------------------------------------------------------------------------


async def test_broadcasting_an_event_again_is_a_bind_error(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        stream = server.stream(Number)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        event = Number(1)
        await client.broadcast(event)
        received = await anext(stream)
        for config in (None, BroadcastConfig(internal=True), received.broadcast_config()):
            for endpoint, bound in ((client, event), (server, event), (server, received)):
                with pytest.raises(BindError, match=r"Number was broadcast by 'client' already"):
                    await endpoint.broadcast(bound, config)
                with pytest.raises(BindError):
                    endpoint.broadcast_nowait(bound, config)
        assert not stream.mailbox.events


async def test_requesting_again_with_the_same_object_is_a_bind_error(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        answer_questions(server)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        question = Question(1)
        assert (await client.request(question)).value == 1
        with pytest.raises(BindError):
            await client.request(question)
        assert not client._router.pending


async def test_an_event_that_nobody_got_may_be_broadcast_later(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        event = Number(1)
        await client.broadcast(event)
        await client.broadcast(event, BroadcastConfig(filter_endpoint="server"))
        client.broadcast_nowait(event)
        assert not event.is_bound
        stream = server.stream(Number)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        await client.broadcast(event)
        assert (await anext(stream)).value == 1


# -- No subscribers --------------------------------------------------------------------------


async def test_a_broadcast_that_nobody_wants_does_nothing(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        await client.broadcast(Number(1))
        client.broadcast_nowait(Number(2))
        marker = server.stream(Marker)
        await client.wait_until_endpoint_subscribed_to("server", Marker)
        await client.broadcast(Marker())
        await anext(marker)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (BroadcastConfig(require_subscriber=True), "of 1 connected endpoints none would receive"),
        (BroadcastConfig(internal=True, require_subscriber=True), "nothing in this endpoint"),
        (
            BroadcastConfig("server", require_subscriber=True),
            "only 'server' may, which is not subscribed",
        ),
        (
            BroadcastConfig("client", require_subscriber=True),
            "only 'client' may, which is not subscribed",
        ),
        (
            BroadcastConfig("other", require_subscriber=True),
            "only 'other' may, which is not connected",
        ),
        (
            BroadcastConfig("other", filter_event_id=b"x" * 16, require_subscriber=True),  # type: ignore[arg-type]
            "only 'other' may, which is not connected",
        ),
    ],
    ids=["all", "internal", "remote", "itself", "absent", "response"],
)
async def test_require_subscriber_makes_it_an_error_that_nobody_gets_an_event(
    bus: Bus, config: BroadcastConfig, said: str
) -> None:
    async with bus.pair() as (_, client):
        event = Number(1)
        with pytest.raises(NoSubscribers, match=said):
            await client.broadcast(event, config)
        with pytest.raises(NoSubscribers, match=r"Number"):
            client.broadcast_nowait(event, config)
        assert not event.is_bound


async def test_require_subscriber_is_content_with_a_subscriber_here_or_elsewhere(bus: Bus) -> None:
    required = BroadcastConfig(require_subscriber=True)
    async with bus.pair() as (server, client):
        async with server.stream(Number) as there:
            await client.wait_until_endpoint_subscribed_to("server", Number)
            await client.broadcast(Number(1), required)
            assert (await anext(there)).value == 1
        async with client.stream(Number) as here:
            await client.broadcast(Number(2), required)
            assert (await anext(here)).value == 2


async def test_a_class_attribute_is_the_default_of_require_subscriber(bus: Bus) -> None:
    class Strict(bus.endpoint_class):  # type: ignore[name-defined,misc]
        require_subscriber = True

    async with Strict("strict").run() as endpoint:
        with pytest.raises(NoSubscribers):
            await endpoint.broadcast(Number(1))
        with pytest.raises(NoSubscribers):
            await endpoint.broadcast(Number(1), BroadcastConfig(internal=True))
        await endpoint.broadcast(Number(1), BroadcastConfig(require_subscriber=False))
        stream = endpoint.stream(Number)
        await endpoint.broadcast(Number(2))
        assert (await anext(stream)).value == 2


# -- Leaving ---------------------------------------------------------------------------------


@pytest.mark.parametrize("nowait", [False, True], ids=["broadcast", "broadcast_nowait"])
async def test_leaving_first_flushes_what_was_broadcast(bus: Bus, nowait: bool) -> None:
    count, text = 300, "x" * 30_000  # far more than a socket takes at once
    async with bus.serve("server") as server:
        stream = server.stream(Text)
        async with bus.connect("client", "server", high_water=1 << 30) as client:
            await client.wait_until_endpoint_subscribed_to("server", Text)
            for _ in range(count):
                if nowait:
                    client.broadcast_nowait(Text(text))
                else:
                    await client.broadcast(Text(text))
        assert not client.is_running
        assert [len(event.text) for event in await take(stream, count)] == [len(text)] * count


async def test_leaving_serve_flushes_to_all_peers(bus: Bus) -> None:
    count, text = 100, "x" * 30_000
    async with bus.run("b") as b, bus.run("c") as c:
        streams = [endpoint.stream(Text) for endpoint in (b, c)]
        async with bus.serve("a") as a:
            for endpoint in (b, c):
                await endpoint.connect_to_endpoints(bus.config("a"))
                await a.wait_until_endpoint_subscribed_to(endpoint.name, Text)
            for _ in range(count):
                a.broadcast_nowait(Text(text))
        for stream in streams:
            assert len(await take(stream, count)) == count


async def test_what_a_handler_broadcasts_as_the_last_thing_is_flushed(bus: Bus) -> None:
    async with bus.serve("server") as server:
        stream = server.stream(Text)
        async with bus.connect("client", "server") as client:
            await client.wait_until_endpoint_subscribed_to("server", Text)
            client.subscribe(Number, lambda event: client.broadcast_nowait(Text(str(event.value))))
            await client.broadcast(Number(1))
        assert (await anext(stream)).text == "1"


async def test_leaving_gives_up_after_drain_timeout_and_says_what_was_dropped(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with AsyncExitStack() as peers, bus.run("good") as good:
        stream = good.stream(Text)
        async with bus.serve("server", drain_timeout=0.3) as server:
            await good.connect_to_endpoints(bus.config("server"))
            await server.wait_until_endpoint_subscribed_to("good", Text)
            await peers.enter_async_context(raw_peer(server, "slow", {Text: None}))
            await peers.enter_async_context(raw_peer(server, "slow too", {Text: None}))
            await peers.enter_async_context(raw_peer(server, "held", {Text: 1}))
            for _ in range(30):
                server.broadcast_nowait(Text("x" * 100_000))
            began = anyio.current_time()
        # uvloop's clock has milliseconds, of which each end of the time may lack one.
        assert 0.298 <= anyio.current_time() - began < 5
        assert len(await take(stream, 30)) == 30
    dropped = {
        peer: text
        for text in complaints(caplog)
        for peer in ("slow", "slow too", "held")
        if f"which {peer!r} did not take within 0.3 s" in text
    }
    assert len(complaints(caplog)) == len(dropped) == 3
    for peer in ("slow", "slow too"):
        size = re.search(r"dropped (\d+) bytes", dropped[peer])
        assert size is not None
        assert 1_500_000 < int(size[1]) < 3_100_000
    assert "29 events held back by flow control" in dropped["held"]


async def test_a_cancelled_body_does_not_wait_for_slow_peers(bus: Bus) -> None:
    async with AsyncExitStack() as peers:
        with anyio.CancelScope() as scope:
            async with bus.serve("server", drain_timeout=1000) as server:
                peer = await peers.enter_async_context(raw_peer(server, "slow", {Text: None}))
                for _ in range(50):
                    server.broadcast_nowait(Text("x" * 100_000))
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        await peer.closed()


async def test_a_drain_can_be_cancelled(bus: Bus) -> None:
    async with AsyncExitStack() as peers:
        with anyio.move_on_after(0.05) as scope:
            async with bus.serve("server", drain_timeout=1000) as server:
                await peers.enter_async_context(raw_peer(server, "slow", {Text: None}))
                for _ in range(50):
                    server.broadcast_nowait(Text("x" * 100_000))
        assert scope.cancelled_caught
        assert server.is_stopped


async def test_a_body_that_raises_still_flushes(bus: Bus) -> None:
    async with bus.serve("server") as server:
        stream = server.stream(Text)

        async def broadcast_and_fail() -> None:
            async with bus.connect("client", "server") as client:
                await client.wait_until_endpoint_subscribed_to("server", Text)
                for _ in range(100):
                    client.broadcast_nowait(Text("x" * 30_000))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await broadcast_and_fail()
        assert len(await take(stream, 100)) == 100


# -- Events that cannot be sent --------------------------------------------------------------


class Unpicklable(BaseEvent):
    def __init__(self) -> None:
        self.lock = threading.Lock()


@pytest.mark.parametrize("nowait", [False, True], ids=["broadcast", "broadcast_nowait"])
async def test_an_event_that_cannot_be_encoded_raises_at_the_call_and_reaches_nobody(
    bus: Bus, nowait: bool
) -> None:
    async with bus.pair() as (server, client):
        there, here = server.stream(Unpicklable), client.stream(Unpicklable)
        marker = server.stream(Marker)
        await client.wait_until_endpoint_subscribed_to("server", Marker)
        event = Unpicklable()

        async def broadcast() -> None:
            if nowait:
                client.broadcast_nowait(event)
            else:
                await client.broadcast(event)

        with pytest.raises(EncodeError, match=r"Unpicklable, field 'lock': .*lock") as caught:
            await broadcast()
        assert caught.value.field == "lock"
        assert not event.is_bound
        await client.broadcast(Marker())
        await anext(marker)
        assert not there.mailbox.events
        assert not here.mailbox.events


async def test_where_all_receivers_are_local_nothing_is_encoded(bus: Bus) -> None:
    async with bus.pair() as (_, client):
        stream = client.stream(Unpicklable)
        event = Unpicklable()
        await client.broadcast(event)
        assert await anext(stream) is event


async def test_an_event_over_a_peers_limit_raises_at_the_call_and_reaches_nobody(
    bus: Bus,
) -> None:
    async with (
        bus.serve("a") as a,
        bus.connect("b", "a") as b,
        bus.connect("c", "a", max_frame_size=2000) as c,
    ):
        at_b, at_c = b.stream(Text), c.stream(Text)
        for name in ("b", "c"):
            await a.wait_until_endpoint_subscribed_to(name, Text)
        noise = "".join(map(chr, range(0x100, 0x700)))  # 3 kB that nothing compresses well
        with pytest.raises(EncodeError, match=r"'c' accepts 2000 \(its max_frame_size\)"):
            await a.broadcast(Text(noise))
        await a.broadcast(Text(noise), BroadcastConfig("b"))
        await a.broadcast(Text("small"))
        assert [event.text for event in await take(at_b, 2)] == [noise, "small"]
        assert (await anext(at_c)).text == "small"


async def test_a_request_that_cannot_be_encoded_leaves_nothing_pending(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        server.subscribe(Question, lambda event: None)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        with pytest.raises(EncodeError, match=r"field 'value'"):
            await client.request(Question(threading.Lock()))  # type: ignore[arg-type]
        assert not client._router.pending


@pytest.mark.parametrize("value", ["not an event", None, 5, BaseEvent], ids=repr)
async def test_what_is_no_event_is_a_type_error(bus: Bus, value: Any) -> None:
    async with bus.run() as endpoint:
        with pytest.raises(TypeError, match=r"derived from BaseEvent"):
            await endpoint.broadcast(value)
        with pytest.raises(TypeError):
            endpoint.broadcast_nowait(value, BroadcastConfig(internal=True))
        with pytest.raises(TypeError):
            endpoint.subscribe(type(value), print)
        with pytest.raises(TypeError):
            endpoint.stream(int)  # type: ignore[type-var]


@pytest.mark.parametrize("value", ["server", 5, BroadcastConfig], ids=repr)
async def test_what_is_no_configuration_is_a_type_error(bus: Bus, value: Any) -> None:
    async with bus.pair() as (server, client):
        numbers = server.stream(Number)
        answer_questions(server)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        wrong = r"BroadcastConfig, which .* is not: .*filter_endpoint=.*timeout="
        with pytest.raises(TypeError, match=wrong):
            await client.broadcast(Number(1), value)
        with pytest.raises(TypeError, match=wrong):
            client.broadcast_nowait(Number(2), value)
        with pytest.raises(TypeError, match=wrong):
            await client.request(Question(3), value)
        await client.broadcast(Number(4))
        assert [number.value for number in await take(numbers, 1)] == [4]
        assert not client._router.pending


# -- Concurrency -----------------------------------------------------------------------------


async def test_events_of_several_senders_arrive_in_order_per_sender(bus: Bus) -> None:
    count = 500
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(bus.serve("server"))
        stream = server.stream(Number)
        senders = [
            await stack.enter_async_context(bus.connect(f"sender {index}", "server"))
            for index in range(3)
        ]

        async def send(sender: BaseEndpoint) -> None:
            await sender.wait_until_endpoint_subscribed_to("server", Number)
            for value in range(count):
                await sender.broadcast(Number(value))

        received: dict[str, list[int]] = {sender.name: [] for sender in senders}
        async with anyio.create_task_group() as tasks:
            for sender in senders:
                tasks.start_soon(send, sender)
            for event in await take(stream, count * len(senders)):
                received[event.get_origin()].append(event.value)
        assert list(received.values()) == [list(range(count))] * len(senders)


async def test_a_loop_of_broadcasts_lets_others_run(bus: Bus) -> None:
    async with bus.pair() as (server, client), heartbeat() as beats:
        server.subscribe(Number, lambda event: None)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        before = beats[0]
        for value in range(5000):
            await client.broadcast(Number(value))
        assert beats[0] - before >= 15


async def test_a_loop_of_local_broadcasts_lets_others_run(bus: Bus) -> None:
    received: list[int] = []
    async with bus.run() as endpoint, heartbeat() as beats:
        endpoint.subscribe(Number, lambda event: received.append(event.value))
        before = beats[0]
        for value in range(5000):
            await endpoint.broadcast(Number(value))
        assert beats[0] - before >= 15
        await until(lambda: len(received) == 5000)


async def test_a_loop_of_large_broadcasts_lets_others_run_more_often(bus: Bus) -> None:
    async with bus.pair() as (server, client), heartbeat() as beats:
        server.subscribe(Text, lambda event: None)
        await client.wait_until_endpoint_subscribed_to("server", Text)
        before = beats[0]
        for _ in range(20):
            await client.broadcast(Text("x" * 500_000))
        assert beats[0] - before >= 15


class _Group(BroadcastConfig):
    """Let a group of endpoints receive the event."""

    def __init__(self, *names: str, internal: bool = False) -> None:
        super().__init__(internal=internal)
        self.names = names

    def allowed_to_receive(self, endpoint: str) -> bool:
        return endpoint in self.names


async def test_a_configuration_of_another_class_decides_who_may_receive(bus: Bus) -> None:
    async with (
        bus.serve("a") as a,
        bus.connect("b", "a") as b,
        bus.connect("c", "a") as c,
    ):
        streams = {each.name: each.stream(Number) for each in (a, b, c)}
        await a.wait_until_all_endpoints_subscribed_to(Number)
        await a.broadcast(Number(1), _Group("b"))
        await a.broadcast(Number(2), _Group("a", "c"))
        await a.broadcast(Number(3), _Group("a", "b", internal=True))
        nobody = _Group("d")
        nobody.require_subscriber = True
        with pytest.raises(NoSubscribers):
            await a.broadcast(Number(4), nobody)
        await a.broadcast(Number(5))
        for name, values in (("a", [2, 3, 5]), ("b", [1, 5]), ("c", [2, 5])):
            assert [each.value for each in await take(streams[name], len(values))] == values
        for each in (b, c):
            answer_questions(each)
            await a.wait_until_endpoint_subscribed_to(each.name, Question)
        assert (await a.request(Question(1), _Group("c"))).get_origin() == "c"
