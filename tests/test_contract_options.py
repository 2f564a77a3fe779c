"""
The options of an endpoint: their names and defaults, and that each does what it says.

What ``connect_timeout``, ``drain_timeout``, ``hello_timeout`` and ``allowed_uids`` do is shown
where endpoints connect and leave.
"""

from __future__ import annotations

import inspect
import math
import re
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
    raw_frame,
    raw_peer,
    take,
    turns,
    until,
)

from lahja import (
    AsyncioEndpoint,
    BaseEvent,
    BroadcastConfig,
    EncodeError,
    TrioEndpoint,
    UnexpectedResponse,
    wire,
)
from lahja.base import BaseEndpoint
from lahja.framing import Shape
from lahja.names import name_of
from lahja.typing import EndpointOptions

pytestmark = pytest.mark.anyio

DEFAULTS = {
    "connect_timeout": 30.0,
    "drain_timeout": 5.0,
    "stall_timeout": 10.0,
    "hello_timeout": 10.0,
    "high_water": 1024 * 1024,
    "max_frame_size": 256 * 1024 * 1024,
    "allow_pickle": True,
    "allowed_uids": (),
}


# -- Names and defaults ----------------------------------------------------------------------


def test_the_options_are_keyword_only_and_have_the_documented_defaults() -> None:
    parameters = dict(inspect.signature(BaseEndpoint.__init__).parameters)
    del parameters["self"], parameters["name"]
    assert {name: each.default for name, each in parameters.items()} == DEFAULTS
    assert {each.kind for each in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    assert set(EndpointOptions.__optional_keys__) == set(DEFAULTS)


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_reference_states_each_option_with_its_default(name: str) -> None:
    documentation = " ".join((BaseEndpoint.__doc__ or "").split())
    described = re.search(rf":param {name}: (.*?)(?= :param| :raise|$)", documentation)
    assert described is not None
    default = {
        "high_water": "(1 MiB)",
        "max_frame_size": "(256 MiB)",
        "allow_pickle": "(True)",
        "allowed_uids": "root and one's own always may",
    }.get(name, f"({DEFAULTS[name]:g})" if isinstance(DEFAULTS[name], float) else "")
    assert default in described[1]


@pytest.mark.parametrize("name", DEFAULTS)
async def test_every_option_is_taken_by_whatever_makes_an_endpoint(bus: Bus, name: str) -> None:
    options: dict[str, Any] = {name: DEFAULTS[name]}
    assert bus.endpoint_class("alone", **options).name == "alone"
    async with bus.serve("server", **options) as server:
        assert server.name == "server"
    async with bus.join("member", **options) as member:
        assert member.name == "member"


async def test_an_unknown_option_is_a_type_error(bus: Bus) -> None:
    unknown: Any = {"no_such_option": 1}
    for make in (
        lambda: bus.endpoint_class("alone", **unknown),
        lambda: bus.serve("server", **unknown),
        lambda: bus.join("member", **unknown),
    ):
        with pytest.raises(TypeError, match=r"no_such_option"):
            make()
    positional: Any = bus.endpoint_class
    with pytest.raises(TypeError):
        positional("alone", 5.0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"connect_timeout": -1}, "connect_timeout is -1"),
        ({"connect_timeout": math.nan}, "connect_timeout is nan"),
        ({"connect_timeout": None}, "connect_timeout is None"),
        ({"drain_timeout": -0.1}, "drain_timeout is -0.1"),
        ({"drain_timeout": None}, "drain_timeout is None"),
        ({"stall_timeout": -1}, "stall_timeout is -1"),
        ({"hello_timeout": -1}, "hello_timeout is -1"),
        ({"hello_timeout": None}, "hello_timeout is None"),
        ({"high_water": -1}, "high_water is -1"),
        ({"high_water": None}, "high_water is None"),
        ({"max_frame_size": 1023}, "max_frame_size is 1023"),
        ({"max_frame_size": 2**32}, "max_frame_size is 4294967296"),
        ({"allowed_uids": ["bob"]}, r"allowed_uids is \{'bob'\}; it must be user ids"),
    ],
    ids=str,
)
async def test_an_option_that_makes_no_sense_is_a_value_error_at_the_call(
    bus: Bus, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        bus.endpoint_class("alone", **options)
    with pytest.raises(ValueError, match=said):
        bus.serve("server", **options)
    with pytest.raises(ValueError, match=said):
        bus.join("member", **options)


@pytest.mark.parametrize(
    "name", ["", None, b"bytes", 5, "x" * 4097], ids=lambda name: repr(name)[:9]
)
async def test_a_name_that_makes_no_sense_is_a_value_error(bus: Bus, name: Any) -> None:
    with pytest.raises(ValueError, match=r"an endpoint's name is a text of 1 to 4096 characters"):
        bus.endpoint_class(name)


@pytest.mark.parametrize("name", ["x", "näme", "a b/c\n", "x" * 4096, "\U0001f600"], ids=range(5))
async def test_any_text_may_be_a_name(bus: Bus, name: str) -> None:
    async with bus.serve("server") as server, bus.connect(name, "server"):
        await server.wait_until_connected_to(name)
        assert server.is_connected_to(name)


def test_timeouts_may_be_infinite_or_nothing() -> None:
    for kind in (AsyncioEndpoint, TrioEndpoint):
        for value in (0, math.inf):
            kind("alone", connect_timeout=value, drain_timeout=value, stall_timeout=value)
        kind("alone", stall_timeout=None, hello_timeout=math.inf, high_water=0)


async def test_infinite_timeouts_work(bus: Bus) -> None:
    forever = math.inf
    async with bus.pair(
        connect_timeout=forever,
        drain_timeout=forever,
        stall_timeout=forever,
        hello_timeout=forever,
    ) as (server, client):
        stream = server.stream(Text)
        await client.wait_until_endpoint_subscribed_to("server", Text)
        for _ in range(20):
            client.broadcast_nowait(Text("x" * 100_000))
        await take(stream, 20)


# -- max_frame_size --------------------------------------------------------------------------


async def test_a_frame_over_max_frame_size_ends_its_connection(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.serve("server", max_frame_size=5000) as server:
        stream = server.stream(Text)
        async with raw_peer(server, "good") as good, raw_peer(server, "bad") as bad:
            await good.send_event(Text("x" * 4900))
            assert len((await anext(stream)).text) == 4900
            await bad.announce(Text(""))
            await bad.send((5001).to_bytes(4, "little"))  # refused from the header alone
            await bad.closed()
            assert complaints(caplog) == [
                "server: closed the connection to 'bad': "
                "a frame of 5001 bytes is over the limit of 5000; see max_frame_size"
            ]
            await good.send_event(Text("still here"))
            assert (await anext(stream)).text == "still here"


async def test_a_compressed_frame_over_max_frame_size_ends_its_connection(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.serve("server", max_frame_size=5000) as server, raw_peer(server) as peer:
        size = b"\x89\x27"  # 5001, as snappy begins
        await peer.send(raw_frame(wire.COMPRESSED, size + b"whatever"))
        await peer.closed()
        assert "a frame of 5001 bytes is over the limit of 5000" in complaints(caplog)[0]


class Wide(BaseEvent):
    """Have any attributes."""

    def __init__(self, **attributes: int) -> None:
        vars(self).update(attributes)


async def test_an_event_whose_announcement_is_over_a_peers_limit_raises_at_the_call(
    bus: Bus,
) -> None:
    wide = Wide(**{f"attribute_{index:050}": index for index in range(50)})
    async with bus.serve("a") as a, bus.connect("b", "a", max_frame_size=2000) as b:
        stream, marker = b.stream(Wide), b.stream(Marker)
        await a.wait_until_endpoint_subscribed_to("b", Marker)
        with pytest.raises(EncodeError, match=r"'b' accepts 2000 \(its max_frame_size\)"):
            await a.broadcast(wide)
        await a.broadcast(Marker())
        await anext(marker)
        assert not stream.mailbox.events


async def test_an_event_may_have_more_names_of_attributes_than_a_control_frame_holds(
    bus: Bus,
) -> None:
    attributes = {f"attribute_{index:0100}": index for index in range(50_000)}
    async with bus.pair() as (server, client):
        stream = server.stream(Wide)
        await client.wait_until_endpoint_subscribed_to("server", Wide)
        await client.broadcast(Wide(**attributes))
        with anyio.fail_after(5):
            while client.is_connected_to("server") and not stream.mailbox.events:
                await turns(1)
        assert client.is_connected_to("server")
        received = vars(await anext(stream))
        assert {name: received[name] for name in attributes} == attributes


# -- allow_pickle ----------------------------------------------------------------------------


async def test_without_pickle_events_of_plain_values_work_in_full(bus: Bus) -> None:
    values: Any = {"a": [1, 2.5, None, (True, b"bytes", {3, "x"})], 2**100: frozenset({"y"})}
    async with bus.pair(allow_pickle=False) as (server, client):
        stream = server.stream(Text)
        answer_questions(server)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        await client.broadcast(Text(values))
        assert (await anext(stream)).text == values
        assert (await client.request(Question(2**100))).value == 2**100


class WithState(BaseEvent):
    """Define its own pickling."""

    def __getstate__(self) -> object:
        return ()


UNPLAIN: dict[str, tuple[BaseEvent, str, str | None]] = {
    "value": (Text(object()), "field 'text': a object is not a plain value", "text"),  # type: ignore[arg-type]
    "nested": (Text([1, {2: 3j}]), "field 'text': a complex is not", "text"),  # type: ignore[arg-type]
    "class": (WithState(), "its class defines its own pickling", None),
}


@pytest.mark.parametrize("kind", UNPLAIN)
@pytest.mark.parametrize("who", ["sender", "receiver"])
async def test_without_pickle_on_either_side_other_values_raise_and_name_the_field(
    bus: Bus, kind: str, who: str
) -> None:
    event, said, field = UNPLAIN[kind]
    kept, reason = (False, "this endpoint has allow_pickle=False"), "accepts no pickled values"
    async with (
        bus.serve("server", allow_pickle=who != "receiver") as server,
        bus.connect("client", "server", allow_pickle=who != "sender") as client,
    ):
        there, here = server.stream(type(event)), client.stream(type(event))
        await client.wait_until_endpoint_subscribed_to("server", type(event))
        with pytest.raises(EncodeError, match=said) as caught:
            await client.broadcast(event)
        assert (kept[1] if who == "sender" else f"'server' {reason}") in str(caught.value)
        assert caught.value.field == field
        assert not event.is_bound
        assert not here.mailbox.events
        assert not there.mailbox.events


async def test_a_peer_that_accepts_no_pickle_holds_up_only_what_it_would_get(bus: Bus) -> None:
    async with (
        bus.serve("a") as a,
        bus.connect("b", "a") as b,
        bus.connect("c", "a", allow_pickle=False) as c,
    ):
        at_b, at_c = b.stream(Text), c.stream(Text)
        for name in ("b", "c"):
            await a.wait_until_endpoint_subscribed_to(name, Text)
        value: Any = 3j
        with pytest.raises(EncodeError, match=r"'c' accepts no pickled values"):
            await a.broadcast(Text(value))
        await at_c.aclose()
        await until(lambda: not a.is_endpoint_subscribed_to("c", Text))
        await a.broadcast(Text(value))
        assert (await anext(at_b)).text == value


async def test_only_those_that_get_an_event_have_a_say_in_its_pickling(bus: Bus) -> None:
    value: Any = 3j
    async with (
        bus.serve("a") as a,
        bus.connect("b", "a") as b,
        bus.connect("c", "a", allow_pickle=False) as c,
    ):
        at_b = b.stream(Text)
        c.subscribe(Text, print)
        for name in ("b", "c"):
            await a.wait_until_endpoint_subscribed_to(name, Text)
        await a.broadcast(Text(value), BroadcastConfig("b"))
        assert (await anext(at_b)).text == value
        with pytest.raises(EncodeError, match=r"field 'text': .*, and 'c' accepts no pickled"):
            await a.broadcast(Text(value), BroadcastConfig("c"))
        with pytest.raises(EncodeError, match=r"field 'text': .*, and 'c' accepts no pickled"):
            await a.broadcast(Text(value))
        await a.broadcast(Text("plain"))
        assert (await anext(at_b)).text == "plain"


async def test_a_response_that_whoever_asked_cannot_take_raises_where_it_is_sent(bus: Bus) -> None:
    async with (
        bus.serve("server") as server,
        bus.connect("client", "server", allow_pickle=False) as client,
    ):
        asked = server.stream(Question)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                assert (await client.request(Question(1))).value == 1

            tasks.start_soon(ask)
            question = await anext(asked)
            value: Any = 3j
            with pytest.raises(EncodeError, match=r"'value': .*, and 'client' accepts no pickled"):
                await server.broadcast(Answer(value), question.broadcast_config())
            await server.broadcast(Answer(1), question.broadcast_config())


async def test_without_pickle_none_is_ever_unpickled(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        bus.serve("server", allow_pickle=False) as server,
        raw_peer(server, "raw", {Question: None}) as peer,
    ):
        stream = server.stream(Number)
        type_id = (await peer.announce(Number(1))).to_bytes(4, "little")
        await peer.send(raw_frame(wire.EVENT, type_id + b"\x01cos\nabort\n(tR."))
        await peer.send_event(Number(2))
        assert (await anext(stream)).value == 2
        assert len(complaints(caplog)) == 1
        assert "it is pickled, and this endpoint has allow_pickle=False" in complaints(caplog)[0]

        async def ask() -> None:
            with pytest.raises(UnexpectedResponse, match=r"allow_pickle=False"):
                await server.request(Question(1))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            request_id = (await peer.read_kind(wire.REQUEST))[5:21]
            whole = Shape(77, name_of(Answer), wire.LAYOUT_WHOLE, ())
            header = (77).to_bytes(4, "little") + request_id
            await peer.send(
                whole.announcement, raw_frame(wire.RESPONSE, header + b"\x01cos\nabort\n(tR.")
            )


# -- high_water ------------------------------------------------------------------------------


async def test_a_broadcast_returns_while_less_than_high_water_waits(bus: Bus) -> None:
    async with (
        bus.serve("server", high_water=1_000_000) as server,
        raw_peer(server, "slow", {Text: None}) as peer,
    ):
        for _ in range(9):
            await server.broadcast(Text("x" * 100_000))
        with anyio.move_on_after(0.02) as scope:
            for _ in range(50):  # some of it the system takes
                await server.broadcast(Text("x" * 100_000))
        assert scope.cancelled_caught
        assert server._router.peers["slow"].outlet.size < 1_200_000
        await peer.read_kind(wire.EVENT)


async def test_a_broadcast_goes_on_when_the_peer_reads(bus: Bus) -> None:
    async with (
        bus.serve("server", high_water=100_000) as server,
        raw_peer(server, "slow", {Text: None}) as peer,
    ):
        sent: list[int] = []

        async def broadcast() -> None:
            for value in range(100):
                await server.broadcast(Text("x" * 10_000))
                sent.append(value)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(broadcast)
            await until(lambda: server._router.gates)
            assert len(sent) < 100
            for _ in range(100):
                await peer.read_kind(wire.EVENT)
        assert len(sent) == 100


async def test_with_no_high_water_a_broadcast_returns_when_the_bytes_are_with_the_system(
    bus: Bus,
) -> None:
    async with bus.pair(high_water=0) as (server, client):
        stream = server.stream(Text)
        await client.wait_until_endpoint_subscribed_to("server", Text)
        for size in (1, 100_000, 3_000_000, 1):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stream.__anext__)
                await client.broadcast(Text("x" * size))
                assert client._router.peers["server"].outlet.size == 0


async def test_a_slow_peer_delays_only_those_that_send_to_it(bus: Bus) -> None:
    async with (
        bus.serve("server", high_water=100_000) as server,
        bus.connect("fast", "server") as fast,
        raw_peer(server, "slow", {Text: None}),
    ):
        texts, numbers = fast.stream(Text), fast.stream(Number)
        answer_questions(fast)
        await server.wait_until_endpoint_subscribed_to("fast", Question)
        blocked = Text("x" * 5_000_000)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.broadcast, blocked)
            # It was queued for every peer before it waits for any.
            assert len((await anext(texts)).text) == 5_000_000
            await turns(5)
            for value in range(100):
                await server.broadcast(Number(value))
                await server.broadcast(Text("for you"), BroadcastConfig("fast"))
                assert (await server.request(Question(value))).value == value
            assert [event.value for event in await take(numbers, 100)] == list(range(100))
            assert len(await take(texts, 100)) == 100
            assert server._router.gates  # the first one still waits
            tasks.cancel_scope.cancel()


async def test_callers_go_on_when_the_slow_peer_leaves(bus: Bus) -> None:
    async with bus.serve("server", high_water=1000) as server:
        async with (
            anyio.create_task_group() as tasks,
            raw_peer(server, "slow", {Text: None}),
        ):
            for _ in range(3):
                tasks.start_soon(server.broadcast, Text("x" * 1_000_000))
            await until(lambda: server._router.gates)
            await turns(5)
        assert not server._router.gates


# -- stall_timeout ---------------------------------------------------------------------------


async def test_a_peer_that_takes_nothing_is_disconnected_after_stall_timeout(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        bus.serve("server", stall_timeout=0.05, high_water=1000) as server,
        raw_peer(server, "slow", {Text: None}),
        raw_peer(server, "idle", {Text: None}),
    ):
        began = anyio.current_time()
        await server.broadcast(Text("x" * 10_000_000), BroadcastConfig("slow"))
        assert anyio.current_time() - began >= 0.05
        assert not server.is_connected_to("slow")
        assert server.is_connected_to("idle")
        assert len(complaints(caplog)) == 1
        assert re.fullmatch(
            r".* the connection to 'slow': it took nothing for 0.05 s.* \d+ bytes.*",
            complaints(caplog)[0],
        )
        await server.broadcast(Text("on"))


async def test_a_peer_that_reads_slowly_is_not_disconnected(bus: Bus) -> None:
    async with (
        bus.serve("server", stall_timeout=0.3, high_water=1000) as server,
        raw_peer(server, "slow", {Text: None}) as peer,
    ):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.broadcast, Text("x" * 1_500_000))
            began = anyio.current_time()
            while anyio.current_time() - began < 0.5:
                await anyio.sleep(0.02)
                peer.received += peer.socket.recv(60_000)
            assert server.is_connected_to("slow")
            await peer.read_kind(wire.EVENT)
        assert server.is_connected_to("slow")


async def test_without_stall_timeout_a_slow_peer_is_kept(bus: Bus) -> None:
    async with (
        bus.serve("server", stall_timeout=None, high_water=1000) as server,
        raw_peer(server, "slow", {Text: None}) as peer,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(server.broadcast, Text("x" * 1_000_000))
        await anyio.sleep(0.05)
        assert server.is_connected_to("slow")
        await peer.read_kind(wire.EVENT)


async def test_a_peer_that_is_held_back_by_credit_does_not_stall(bus: Bus) -> None:
    async with (
        bus.serve("server", stall_timeout=0.02) as server,
        raw_peer(server, "held", {Number: 1, Marker: None}) as peer,
    ):
        for value in range(3):
            server.broadcast_nowait(Number(value))
        await anyio.sleep(0.06)
        await server.broadcast(Marker())
        assert server.is_connected_to("held")
        for _ in range(4):
            await peer.grant(Number, 1)
            await peer.read_kind(wire.EVENT)
