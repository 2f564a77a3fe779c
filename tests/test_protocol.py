"""
One connection without a socket: two ends over a fake link, and one end that is told anything.

:class:`Pair` carries bytes from one end to the other, whole or byte by byte. Each kind of frame is
tried in each state, and each field of each frame with what it must not be.
"""

from __future__ import annotations

import itertools
import os
import pickle
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

import pytest
from helpers import Number, Text, raw_frame

import lahja.protocol
from lahja import wire
from lahja.common import BaseEvent
from lahja.compression import has_snappy
from lahja.exceptions import DecodeError, FrameTooLarge, ProtocolError, TruncatedFrame
from lahja.frames import APART, body_of, frame_size
from lahja.framing import EventTable, Inlet, Topic, decode_value, encode_value
from lahja.names import main_module_name, name_of
from lahja.protocol import (
    Connection,
    Hello,
    Rejection,
    State,
    control_frame,
    one_line,
    traced_frame,
)

OPTIONS = {
    "compression": (),
    "pickle": True,
    "max_frame_size": wire.MAX_FRAME_SIZE,
    "main": "__main__",
}


class RecordingHost:
    """Remember what a connection tells."""

    def __init__(self) -> None:
        self.news: list[tuple[Any, ...]] = []
        self.answers: Iterator[Rejection | None] = itertools.repeat(None)

    def admit(self, connection: Connection) -> Rejection | None:
        self.news.append(("admit", connection.name))
        return next(self.answers)

    def established(self, connection: Connection) -> None:
        self.news.append(("established", connection.name))

    def refused(self, connection: Connection, rejection: Rejection) -> None:
        self.news.append(("refused", rejection))

    def subscribed(
        self, connection: Connection, added: dict[str, int | None], removed: Iterable[str]
    ) -> None:
        self.news.append(("subscribed", added, removed))

    def responded(
        self, connection: Connection, inlet: Inlet, request_id: bytes, body: Any, offset: int
    ) -> None:
        self.news.append(("responded", inlet.name, request_id, bytes(body[offset:])))

    def credited(self, connection: Connection, name: str, count: int) -> None:
        self.news.append(("credited", name, count))

    def undecodable(self, connection: Connection, name: str, error: DecodeError) -> None:
        self.news.append(("undecodable", name, str(error)))

    def asked(self, connection: Connection, number: int) -> None:
        self.news.append(("asked", number))


def make_connection(
    name: str,
    to: str | None = None,
    subscriptions: Mapping[str, int | None] | None = None,
    **options: Any,
) -> Connection:
    """Return one end, which tells a RecordingHost."""
    hello = Hello(wire.PROTOCOL_VERSION, name, os.urandom(16), {**OPTIONS, **options})
    own = dict(subscriptions or {})
    return Connection(RecordingHost(), hello, lambda: own, lambda: None, 1 << 20, to)


def news_of(connection: Connection) -> list[tuple[Any, ...]]:
    """Return what was told since the last call."""
    host = connection.host
    assert isinstance(host, RecordingHost)
    news, host.news = host.news, []
    return news


def feed(connection: Connection, data: bytes, step: int = 1 << 20) -> None:
    """Let a connection receive bytes, so many at a time."""
    while data:
        buffer = connection.reader.get_buffer()
        count = min(len(buffer), len(data), step)
        buffer[:count] = data[:count]
        data = data[count:]
        connection.receive(count)


def said_by(connection: Connection) -> bytes:
    """Return what a connection has to say."""
    frames = connection.outlet.take()
    connection.outlet.size = 0
    return b"".join(frames)


def frames_of(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield kind and values of each control frame."""
    while data:
        size = 4 + struct.unpack_from("<I", data)[0]
        yield data[4], decode_value(data[5:size])[0]
        data = data[size:]


class Pair:
    """Be two ends, the connecting one and the accepting one."""

    def __init__(self, client: Connection, server: Connection, step: int = 1 << 20) -> None:
        self.client = client
        self.server = server
        self.step = step

    def carry(self) -> None:
        """Carry bytes to and fro until both ends are silent."""
        while (from_client := said_by(self.client)) or self.server.outlet.size:
            feed(self.server, from_client, self.step)
            feed(self.client, said_by(self.server), self.step)


@pytest.fixture(params=[1 << 20, 1], ids=["whole", "byte by byte"])
def pair(request: pytest.FixtureRequest) -> Pair:
    """Return two ends that have shaken hands."""
    pair = Pair(
        make_connection("client", to="server", subscriptions={"m:A": None}),
        make_connection("server", subscriptions={"m:B": 5}),
        request.param,
    )
    pair.client.start()
    pair.carry()
    return pair


@pytest.fixture
def opened() -> Connection:
    """Return an accepting end whose handshake is over, and which has nothing to say."""
    connection = make_connection("server")
    feed(connection, HELLO + SUBSCRIBED)
    assert connection.state is State.OPEN
    said_by(connection)
    news_of(connection)
    return connection


def hello(*values: Any) -> bytes:
    """Return a HELLO with some of the usual values replaced."""
    usual: tuple[Any, ...] = (wire.PROTOCOL_VERSION, "peer", bytes(16), OPTIONS)
    return control_frame(wire.HELLO, *values, *usual[len(values) :])


HELLO = hello()
SUBSCRIBED = control_frame(wire.SUBSCRIBE, {}, (), True)
ANNOUNCED = control_frame(wire.ANNOUNCE, 3, "helpers:Number", wire.LAYOUT_FIELDS, ("value",))
TYPE_3 = struct.pack("<I", 3)
ID = bytes(range(16))


# -- The handshake ---------------------------------------------------------------------------


def test_two_ends_shake_hands(pair: Pair) -> None:
    client, server = pair.client, pair.server
    assert client.state is server.state is State.OPEN
    assert (client.name, server.name) == ("server", "client")
    assert client.instance == server.own_hello.instance
    assert client.subscriptions == {"m:B": 5}
    assert server.subscriptions == {"m:A": None}
    assert news_of(client) == [("admit", "server"), ("admit", "server"), ("established", "server")]
    assert news_of(server) == [("admit", "client"), ("admit", "client"), ("established", "client")]
    assert repr(client) == "<Connection to 'server': open>"


def test_before_the_hello_nothing_is_known() -> None:
    client, server = make_connection("client", to="server"), make_connection("server")
    assert (client.name, client.instance, client.serves_at) == ("", b"", None)
    assert repr(client) == "<Connection to 'server': waiting for the peer's hello>"
    assert repr(server) == "<Connection to None: waiting for the peer's hello>"
    assert not client.ended


def test_the_connecting_side_begins_and_the_accepting_side_waits() -> None:
    client, server = make_connection("client", to="server"), make_connection("server")
    assert not client.outlet.take()
    client.start()
    (kind, values), *rest = frames_of(said_by(client))
    assert (kind, values[:3]) == (wire.HELLO, client.own_hello[:3])
    assert values[3] == {**OPTIONS, "to": "server"}
    assert rest == [(wire.SUBSCRIBE, ({}, (), True))]
    feed(server, HELLO)
    assert not server.outlet.take()
    feed(server, control_frame(wire.SUBSCRIBE, {"m:A": 2}, (), False))
    feed(server, control_frame(wire.SUBSCRIBE, {"m:B": None}, ("m:A",), False))
    assert server.state is State.SUBSCRIPTIONS
    assert not server.outlet.take()
    assert news_of(server) == [("admit", "peer")]
    feed(server, SUBSCRIBED)
    assert server.subscriptions == {"m:B": None}
    assert [kind for kind, _ in frames_of(said_by(server))] == [wire.HELLO, wire.SUBSCRIBE]


def test_a_server_says_where_it_serves() -> None:
    server = make_connection("server", path="/somewhere")
    feed(server, hello(1, "peer", bytes(16), {**OPTIONS, "path": "/elsewhere"}))
    assert server.serves_at == "/elsewhere"


def test_many_subscriptions_are_told_in_frames_that_every_peer_accepts() -> None:
    subscriptions = {f"module:{'x' * (index % 900)}{index}": None for index in range(300)}
    subscriptions["module:" + "y" * 4000] = None  # larger than the least limit by itself
    client = make_connection("client", to="server", subscriptions=subscriptions)
    server = make_connection("server")
    client.start()
    said = said_by(client)
    told: dict[str, None] = {}
    for kind, values in frames_of(said):
        if kind == wire.SUBSCRIBE:
            told |= values[0]
            assert len(control_frame(kind, *values)) <= 1028 or len(values[0]) == 1
    assert told == subscriptions
    feed(server, said)
    assert server.subscriptions == subscriptions


def test_subscriptions_may_change_while_the_hands_are_shaken() -> None:
    client, server = make_connection("client", to="server"), make_connection("server")
    server.tell_subscriptions({"m:S": None}, ())
    assert not server.outlet.take()  # the hello will tell all of them
    client.start()
    client.tell_subscriptions({"m:C": 2}, ())
    Pair(client, server).carry()
    assert server.subscriptions == {"m:C": 2}
    server.tell_subscriptions({}, ("m:S",))
    assert [*frames_of(said_by(server))] == [(wire.SUBSCRIBE, ({}, ("m:S",), True))]


# -- What a hello may say --------------------------------------------------------------------

BAD_HELLOS = {
    "no name": hello(1, "", bytes(16), {}),
    "a name of bytes": hello(1, b"peer", bytes(16), {}),
    "a long name": hello(1, "x" * (wire.MAX_NAME_LENGTH + 1)),
    "an instance of text": hello(1, "peer", "x" * 16),
    "a short instance": hello(1, "peer", bytes(15)),
    "options in a list": hello(1, "peer", bytes(16), []),
    "compression": hello(1, "peer", bytes(16), {"compression": "snappy"}),
    "pickle": hello(1, "peer", bytes(16), {"pickle": 1}),
    "max_frame_size of text": hello(1, "peer", bytes(16), {"max_frame_size": "1"}),
    "a small max_frame_size": hello(1, "peer", bytes(16), {"max_frame_size": 1023}),
    "main": hello(1, "peer", bytes(16), {"main": None}),
    "path": hello(1, "peer", bytes(16), {"path": b"x"}),
    "to": hello(1, "peer", bytes(16), {"to": 5}),
    "observe": hello(1, "peer", bytes(16), {"observe": 1}),
    "too few values": control_frame(wire.HELLO, 1, "peer", bytes(16)),
    "too many values": hello(1, "peer", bytes(16), {}, None),
}


@pytest.mark.parametrize("kind", BAD_HELLOS)
def test_a_hello_without_what_it_must_have_is_an_error(kind: str) -> None:
    connection = make_connection("server")
    with pytest.raises(ProtocolError, match=r"HELLO frame does not have the fields"):
        feed(connection, BAD_HELLOS[kind])
    assert connection.state is State.FAILED
    assert connection.ended
    assert not news_of(connection)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"unknown": ["whatever"], "pickle": False},
        {"compression": (1, None), "max_frame_size": 2**70},
    ],
    ids=["none", "unknown", "odd"],
)
def test_options_may_be_missing_unknown_or_odd(options: dict[str, Any]) -> None:
    connection = make_connection("server")
    feed(connection, hello(1, "peer", bytes(16), options) + SUBSCRIBED)
    assert connection.state is State.OPEN
    assert connection.outlet.limit <= wire.MAX_LENGTH
    assert connection.outlet.accepts_pickle is options.get("pickle", True)
    assert connection.outlet.compress is False


def test_both_ends_do_what_the_other_one_can() -> None:
    connection = make_connection("server", pickle=False)
    options = {"compression": ("lz4", "snappy"), "max_frame_size": 5000, "pickle": False}
    feed(connection, hello(1, "peer", bytes(16), options))
    assert connection.outlet.compress is has_snappy()
    assert connection.outlet.limit == 5000
    assert connection.outlet.accepts_pickle is False
    assert connection.outlet.name == connection.reader.origin == "peer"
    assert connection.reader.loads is None


def test_payloads_are_unpickled_as_the_peer_means_them() -> None:
    connection = make_connection("server")
    feed(connection, HELLO)
    is_the_same = main_module_name() == "__main__"
    assert (connection.reader.loads is pickle.loads) is is_the_same
    same = make_connection("server")
    own = main_module_name()
    feed(same, hello(1, "peer", bytes(16), {"main": own}))
    assert same.reader.loads is pickle.loads


# -- Rejections ------------------------------------------------------------------------------

NO = Rejection(wire.REJECT_NAME, "I have my reasons")


@pytest.mark.parametrize("answers", [[NO], [None, NO]], ids=["at the hello", "at the end"])
def test_the_accepting_side_says_why_it_refuses(answers: list[Rejection | None]) -> None:
    client, server = make_connection("client", to="server"), make_connection("server")
    assert isinstance(server.host, RecordingHost)
    server.host.answers = iter(answers)
    client.start()
    feed(server, said_by(client))
    assert server.state is State.REFUSED
    assert server.rejection == NO
    assert server.ended
    said = said_by(server)
    assert [*frames_of(said)] == [(wire.REJECT, tuple(NO))]
    feed(client, said)
    assert client.state is State.REFUSED
    assert client.rejection == NO
    assert news_of(client) == [("refused", NO)]
    feed(server, HELLO + raw_frame(0x77))  # nothing that follows counts
    feed(client, raw_frame(0x77))
    assert client.state is server.state is State.REFUSED


@pytest.mark.parametrize("answers", [[NO], [None, NO]], ids=["at the hello", "at the end"])
def test_the_connecting_side_refuses_in_silence(answers: list[Rejection | None]) -> None:
    client = make_connection("client", to="server")
    assert isinstance(client.host, RecordingHost)
    client.host.answers = iter(answers)
    client.start()
    said_by(client)
    feed(client, HELLO + SUBSCRIBED)
    assert client.state is State.REFUSED
    assert client.rejection == NO
    assert news_of(client)[-1] == ("refused", NO)
    assert not client.outlet.take()


@pytest.mark.parametrize("version", [2, 0, -1, 2**70, "1", 1.0, True, None], ids=repr)
@pytest.mark.parametrize("to", [None, "server"], ids=["accepting", "connecting"])
def test_another_version_is_refused_whatever_else_the_hello_says(
    version: Any, to: str | None
) -> None:
    connection = make_connection("me", to=to)
    feed(connection, control_frame(wire.HELLO, version, "whatever", None))
    assert connection.state is State.REFUSED
    assert connection.rejection is not None
    assert connection.rejection.code == wire.REJECT_VERSION
    shown = version if type(version) is int and version < 2**32 else "?"
    reason = f"version {shown} of the protocol meets version {wire.PROTOCOL_VERSION}"
    assert connection.rejection.reason == reason
    told = [kind for kind, _ in frames_of(said_by(connection))]
    assert told == ([wire.REJECT] if to is None else [])


def test_the_connecting_side_has_nothing_to_reject() -> None:
    connection = make_connection("server")
    with pytest.raises(ProtocolError, match=r"a REJECT frame came from the connecting side"):
        feed(connection, control_frame(wire.REJECT, "code", "reason"))


# -- Every kind of frame in every state ------------------------------------------------------

FRAMES = {
    wire.HELLO: HELLO,
    wire.REJECT: control_frame(wire.REJECT, "code", "reason"),
    wire.SUBSCRIBE: SUBSCRIBED,
    wire.ANNOUNCE: ANNOUNCED,
    wire.EVENT: raw_frame(wire.EVENT, TYPE_3 + b"\0"),
    wire.REQUEST: raw_frame(wire.REQUEST, TYPE_3 + ID + b"\0"),
    wire.RESPONSE: raw_frame(wire.RESPONSE, TYPE_3 + ID + b"\0"),
    wire.COMPRESSED: raw_frame(wire.COMPRESSED, b"\xff" * 6),
    wire.CREDIT: control_frame(wire.CREDIT, "m:A", 1),
    wire.GOODBYE: control_frame(wire.GOODBYE),
    wire.ASK_STATS: control_frame(wire.ASK_STATS, 1),
    wire.STATS: control_frame(wire.STATS, 1, {}),
    wire.TAPPED: raw_frame(wire.TAPPED, bytes(12)),
    wire.TRACED: raw_frame(wire.TRACED, b"\5\0{\0\0\0\0" + bytes((wire.EVENT,)) + TYPE_3 + b"\0"),
    0x00: raw_frame(0x00),
    0x0F: raw_frame(0x0F),
    0x80: raw_frame(0x80),
    0xFF: raw_frame(0xFF, b"x" * 100),
}
BEFORE: dict[State, bytes] = {
    State.HELLO: b"",
    State.SUBSCRIPTIONS: HELLO,
    State.OPEN: HELLO + SUBSCRIBED + ANNOUNCED.replace(b"b\x03", b"b\x04"),
}
GOOD = {
    (State.HELLO, wire.HELLO),
    (State.HELLO, wire.REJECT),
    (State.SUBSCRIPTIONS, wire.REJECT),
    (State.SUBSCRIPTIONS, wire.SUBSCRIBE),
    (State.OPEN, wire.SUBSCRIBE),
    (State.OPEN, wire.ANNOUNCE),
    (State.OPEN, wire.CREDIT),
    (State.OPEN, wire.GOODBYE),
    (State.OPEN, wire.ASK_STATS),
}
# These are allowed, though these very frames are not good.
BAD_BY_CONTENT = {
    (State.OPEN, wire.EVENT): "an event is of a type that was not announced",
    (State.OPEN, wire.REQUEST): "an event is of a type that was not announced",
    (State.OPEN, wire.RESPONSE): "a response is of a type that was not announced",
    (State.OPEN, wire.COMPRESSED): "compressed",
    (State.OPEN, wire.TRACED): "an event is of a type that was not announced",
    (State.OPEN, wire.STATS): "a STATS frame came, which nobody asked for",
    (State.OPEN, wire.TAPPED): "a TAPPED frame came, which nobody asked for",
}


@pytest.mark.parametrize("state", BEFORE, ids=lambda state: state.name)
@pytest.mark.parametrize("kind", FRAMES, ids=lambda kind: wire.KIND_NAMES.get(kind, hex(kind)))
@pytest.mark.parametrize("step", [1 << 20, 1], ids=["whole", "byte by byte"])
def test_each_kind_of_frame_is_allowed_in_some_states_only(
    kind: int, state: State, step: int
) -> None:
    connection = make_connection("client", to="peer")
    feed(connection, BEFORE[state], step)
    assert connection.state is state
    if (state, kind) in GOOD:
        feed(connection, FRAMES[kind], step)
        assert connection.state is not State.FAILED
        return
    if (state, kind) in BAD_BY_CONTENT:
        said = BAD_BY_CONTENT[state, kind]
    elif kind == 0x80 and state is State.HELLO:
        said = "the peer speaks the format of lahja 0.x, with pickled frames: update it"
    elif kind in wire.KIND_NAMES:
        said = f"a {wire.KIND_NAMES[kind]} frame came while {state.value}"
    else:
        said = f"0x{kind:02x} is not a kind of frame"
    with pytest.raises(ProtocolError, match=said):
        feed(connection, FRAMES[kind], step)
    assert connection.state is State.FAILED
    assert connection.ended


def test_a_failed_connection_stays_failed() -> None:
    connection = make_connection("server")
    with pytest.raises(ProtocolError):
        feed(connection, raw_frame(0x77))
    feed(connection, HELLO + SUBSCRIBED)
    assert connection.state is State.FAILED
    connection.end()
    connection.say_goodbye()
    assert not connection.outlet.take()
    assert not news_of(connection)


# -- Frames that hold what they should not ---------------------------------------------------


def with_body(kind: int, rest: bytes) -> bytes:
    """Return a frame of one kind with any rest."""
    return raw_frame(kind, rest)


BAD_FRAMES: dict[str, tuple[bytes, str]] = {
    "no value": (with_body(wire.GOODBYE, b""), "cut short"),
    "half a value": (with_body(wire.GOODBYE, b"(\0\0"), "cut short"),
    "two values": (with_body(wire.GOODBYE, b"(\0\0\0\0N"), "GOODBYE frame does not hold one tuple"),
    "a list": (with_body(wire.GOODBYE, b"[\0\0\0\0"), "GOODBYE frame does not hold one tuple"),
    "a goodbye with more": (control_frame(wire.GOODBYE, 1), "GOODBYE frame has elements of wrong"),
    "a long control frame": (
        control_frame(wire.GOODBYE, bytes(wire.CONTROL_LIMIT)),
        f"is over the limit of {wire.CONTROL_LIMIT} for its kind",
    ),
    # SUBSCRIBE
    "subscribe to a list": (control_frame(wire.SUBSCRIBE, [], (), True), "elements of wrong types"),
    "remove a list": (control_frame(wire.SUBSCRIBE, {}, [], True), "elements of wrong types"),
    "complete by number": (control_frame(wire.SUBSCRIBE, {}, (), 1), "elements of wrong types"),
    "too few elements": (control_frame(wire.SUBSCRIBE, {}, ()), "elements of wrong types"),
    "add an empty name": (control_frame(wire.SUBSCRIBE, {"": None}, (), True), "is not one"),
    "add a number": (control_frame(wire.SUBSCRIBE, {5: None}, (), True), "is not one"),
    "add a long name": (
        control_frame(wire.SUBSCRIBE, {"x" * 4097: None}, (), True),
        "what should be the name of an event type is not one",
    ),
    "remove a number": (control_frame(wire.SUBSCRIBE, {}, (5,), True), "is not one"),
    "no window": (control_frame(wire.SUBSCRIBE, {"m:A": 0}, (), True), "not a window"),
    "a window of text": (control_frame(wire.SUBSCRIBE, {"m:A": "5"}, (), True), "not a window"),
    "a window of True": (control_frame(wire.SUBSCRIBE, {"m:A": True}, (), True), "not a window"),
    "a huge window": (control_frame(wire.SUBSCRIBE, {"m:A": 2**32}, (), True), "not a window"),
    # ANNOUNCE
    "an id of text": (control_frame(wire.ANNOUNCE, "1", "m:A", 0, ()), "elements of wrong types"),
    "a negative id": (control_frame(wire.ANNOUNCE, -1, "m:A", 0, ()), "-1 is no new id"),
    "a large id": (
        control_frame(wire.ANNOUNCE, 2**32, "m:A", 0, ()),
        "more than 32 bits is no new",
    ),
    "an id twice": (ANNOUNCED * 2, "3 is no new id of a type"),
    "announce no name": (control_frame(wire.ANNOUNCE, 1, "", 0, ()), "name of an event type"),
    "no layout": (control_frame(wire.ANNOUNCE, 1, "m:A", 3, ()), "is not a layout"),
    "a mapping with fields": (
        control_frame(wire.ANNOUNCE, 1, "m:A", wire.LAYOUT_MAPPING, ("a",)),
        "layout 1 announces no fields",
    ),
    "a whole with fields": (
        control_frame(wire.ANNOUNCE, 1, "m:A", wire.LAYOUT_WHOLE, ("a",)),
        "layout 2 announces no fields",
    ),
    "a field of bytes": (control_frame(wire.ANNOUNCE, 1, "m:A", 0, (b"a",)), "not different names"),
    "a field twice": (control_frame(wire.ANNOUNCE, 1, "m:A", 0, ("a", "a")), "not different names"),
    "the field _origin": (
        control_frame(wire.ANNOUNCE, 1, "m:A", 0, ("_origin",)),
        "fields that lahja itself sets",
    ),
    "the field _id": (control_frame(wire.ANNOUNCE, 1, "m:A", 0, ("a", "_id")), "itself sets"),
    "the field is_bound": (control_frame(wire.ANNOUNCE, 1, "m:A", 0, ("is_bound",)), "itself sets"),
    # CREDIT
    "no credit": (control_frame(wire.CREDIT, "m:A", 0), "is not a number of events"),
    "negative credit": (control_frame(wire.CREDIT, "m:A", -1), "is not a number of events"),
    "huge credit": (control_frame(wire.CREDIT, "m:A", 2**32), "is not a number of events"),
    "credit of text": (control_frame(wire.CREDIT, "m:A", "1"), "elements of wrong types"),
    "credit for a number": (control_frame(wire.CREDIT, 5, 1), "elements of wrong types"),
    # ASK_STATS
    "a question without number": (control_frame(wire.ASK_STATS), "elements of wrong types"),
    "a question by True": (control_frame(wire.ASK_STATS, True), "elements of wrong types"),
    "a negative number": (control_frame(wire.ASK_STATS, -1), "the number of a question is not one"),
    "a huge number": (control_frame(wire.ASK_STATS, 2**32), "the number of a question is not one"),
    # Events
    "an event without type": (
        with_body(wire.EVENT, b"\0\0\0"),
        "4 bytes is too short for an event",
    ),
    "a request without id": (with_body(wire.REQUEST, TYPE_3 + b"x"), "too short for an event"),
    "a response without id": (with_body(wire.RESPONSE, TYPE_3 + b"x"), "too short for a response"),
    "an empty frame": (bytes(4), "a frame is empty"),
}


@pytest.mark.parametrize("kind", BAD_FRAMES)
def test_a_frame_that_holds_what_it_should_not_ends_the_conversation(
    opened: Connection, kind: str
) -> None:
    data, said = BAD_FRAMES[kind]
    with pytest.raises(ProtocolError, match=said) as caught:
        feed(opened, data)
    assert opened.state is State.FAILED
    assert len(str(caught.value)) < 200
    assert not news_of(opened)


@pytest.mark.parametrize("rest", [b"", b"N", b"(\0\0\0\0", b"(\1\0\0\0N]"], ids=repr)
def test_a_hello_that_is_no_tuple_of_something_is_an_error(rest: bytes) -> None:
    connection = make_connection("server")
    with pytest.raises(ProtocolError):
        feed(connection, with_body(wire.HELLO, rest))
    assert connection.state is State.FAILED


def test_a_control_frame_that_would_run_code_runs_none(opened: Connection) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (sys.exit, ("it went off",))

    for kind in (wire.HELLO, wire.SUBSCRIBE, wire.ANNOUNCE, wire.CREDIT, wire.GOODBYE):
        for connection in (make_connection("server"), opened):
            with pytest.raises(ProtocolError):
                feed(connection, with_body(kind, pickle.dumps(Bomb())))
            connection.state = State.HELLO
    with pytest.raises(ProtocolError):
        feed(make_connection("server"), raw_frame(0x80, pickle.dumps(Bomb())[1:]))


# -- Sizes and numbers -----------------------------------------------------------------------


def test_before_the_hello_frames_are_small() -> None:
    connection = make_connection("server")
    with pytest.raises(FrameTooLarge, match=r"65537 bytes is over the limit of 65536"):
        feed(connection, struct.pack("<IB", wire.HELLO_LIMIT + 1, wire.HELLO))
    connection = make_connection("server", max_frame_size=5000)
    feed(connection, HELLO)
    with pytest.raises(FrameTooLarge, match=r"5001 bytes is over the limit of 5000"):
        feed(connection, struct.pack("<I", 5001))


@pytest.fixture
def few_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower what a peer may announce and subscribe to."""
    monkeypatch.setattr(wire, "MAX_TYPES", 3)
    monkeypatch.setattr(wire, "MAX_NAMES_SIZE", 100)


@pytest.mark.usefixtures("few_types")
def test_the_number_of_announcements_is_limited(opened: Connection) -> None:
    for type_id in range(3):
        feed(opened, control_frame(wire.ANNOUNCE, type_id, "m:A", 0, ()))
    with pytest.raises(ProtocolError, match=r"the peer announced more than 3 types"):
        feed(opened, control_frame(wire.ANNOUNCE, 3, "m:A", 0, ()))


@pytest.mark.usefixtures("few_types")
def test_the_size_of_announcements_is_limited(opened: Connection) -> None:
    feed(opened, control_frame(wire.ANNOUNCE, 0, "m:A", 0, ("x" * 60,)))
    with pytest.raises(ProtocolError, match=r"names of more than 100 bytes"):
        feed(opened, control_frame(wire.ANNOUNCE, 1, "m:A", 0, ("x" * 60,)))


@pytest.mark.usefixtures("few_types")
def test_the_number_of_subscriptions_is_limited(opened: Connection) -> None:
    for _ in range(3):
        feed(opened, control_frame(wire.SUBSCRIBE, dict.fromkeys("abc"), (), True))
        feed(opened, control_frame(wire.SUBSCRIBE, {}, tuple("abcd"), True))
    with pytest.raises(ProtocolError, match=r"the peer subscribed to more than 3 types"):
        feed(opened, control_frame(wire.SUBSCRIBE, dict.fromkeys("abcd"), (), True))


@pytest.mark.usefixtures("few_types")
def test_the_size_of_subscriptions_is_limited(opened: Connection) -> None:
    for _ in range(3):
        feed(opened, control_frame(wire.SUBSCRIBE, {"x" * 60: 1, "y" * 40: None}, (), True))
        feed(opened, control_frame(wire.SUBSCRIBE, {"x" * 60: 2}, ("y" * 40, "y" * 40), True))
        feed(opened, control_frame(wire.SUBSCRIBE, {}, ("x" * 60,), True))
    with pytest.raises(ProtocolError, match=r"names of more than 100 bytes"):
        feed(opened, control_frame(wire.SUBSCRIBE, {"x" * 60: None, "y" * 41: None}, (), True))


# -- An open conversation --------------------------------------------------------------------


def test_a_change_of_subscriptions_is_told(pair: Pair) -> None:
    news_of(pair.server)
    pair.client.tell_subscriptions({"m:X": 3, "m:Y": None}, ("m:A", "m:never"))
    pair.carry()
    assert pair.server.subscriptions == {"m:X": 3, "m:Y": None}
    assert news_of(pair.server) == [
        ("subscribed", {"m:X": 3, "m:Y": None}, ("m:A", "m:never")),
    ]
    pair.client.tell_subscriptions({"m:X": None}, ("m:X",))  # removed before it is added
    pair.carry()
    assert pair.server.subscriptions == {"m:X": None, "m:Y": None}


def test_credit_is_told(pair: Pair) -> None:
    news_of(pair.client)
    pair.server.grant("m:A", 7)
    pair.carry()
    assert news_of(pair.client) == [("credited", "m:A", 7)]


def test_a_goodbye_is_said_once_and_is_the_last_word(pair: Pair) -> None:
    pair.client.say_goodbye()
    pair.client.say_goodbye()
    assert pair.client.goodbye_sent
    said = said_by(pair.client)
    assert [*frames_of(said)] == [(wire.GOODBYE, ())]
    feed(pair.server, said + raw_frame(0x77))
    assert pair.server.state is State.LEFT
    assert pair.server.ended
    pair.server.end()
    assert pair.server.state is State.LEFT
    pair.server.say_goodbye()
    assert not pair.server.outlet.take()


def test_the_connecting_side_says_goodbye_as_soon_as_it_may_be_a_peer() -> None:
    pair = Pair(make_connection("client", to="server"), make_connection("server"))
    pair.server.say_goodbye()  # the accepting side is nobody's peer yet
    assert not pair.server.outlet.take()
    pair.client.start()
    pair.client.say_goodbye()
    pair.carry()
    assert pair.server.state is State.LEFT
    assert ("established", "client") in news_of(pair.server)


def test_the_end_in_the_middle_of_a_frame_is_an_error(opened: Connection) -> None:
    feed(opened, control_frame(wire.GOODBYE)[:6])
    with pytest.raises(TruncatedFrame):
        opened.end()
    assert opened.state is State.FAILED


def test_the_end_between_frames_is_no_error_and_the_connection_failed(opened: Connection) -> None:
    opened.end()
    assert opened.state is State.FAILED


def test_a_released_connection_refers_to_nothing(opened: Connection) -> None:
    opened.release()
    opened.outlet.put(b"whatever")
    assert opened.reader.find_topic("m:A") is None


def make_table(kind: type[BaseEvent], found: list[Any]) -> EventTable:
    """Return a table in which a consumer of a type collects what it gets."""

    class Consumer:
        def deliver(self, event: Any, local: bool) -> None:
            found.append(event)

    table = EventTable("server", True, lambda topic: None)
    topic: Topic = table.topic(kind)
    topic.consumers = (Consumer(),)
    table.by_name[topic.name] = topic
    return table


def test_events_go_from_the_table_of_one_end_to_the_consumers_of_the_other(pair: Pair) -> None:
    found: list[Number] = []
    pair.server.reader.find_topic = make_table(Number, found).by_name.get
    sending = EventTable("client", True, lambda topic: None)
    sending.topic(Number).outlets = (pair.client.outlet,)
    for value in range(3):
        sending.publish(Number(value))
    pair.carry()
    assert [event.value for event in found] == [0, 1, 2]
    assert {event.get_origin() for event in found} == {"client"}


def test_an_event_that_does_not_decode_is_told_and_the_conversation_goes_on(
    opened: Connection,
) -> None:
    found: list[Number] = []
    opened.reader.find_topic = make_table(Number, found).by_name.get
    good = raw_frame(wire.EVENT, TYPE_3 + b"\0b\x05")
    bad = raw_frame(wire.EVENT, TYPE_3 + b"\0?")
    feed(opened, ANNOUNCED + bad + good)
    assert [event.value for event in found] == [5]
    assert news_of(opened) == [("undecodable", "helpers:Number", "0x3f is not the tag of a value")]
    assert opened.state is State.OPEN


def test_events_that_nobody_asked_for_are_passed_over_without_decoding(opened: Connection) -> None:
    announced = control_frame(wire.ANNOUNCE, 3, "m:Nobody", wire.LAYOUT_WHOLE, ())
    feed(opened, announced + raw_frame(wire.EVENT, TYPE_3 + b"\x01cos\nabort\n(tR."))
    feed(opened, raw_frame(wire.REQUEST, TYPE_3 + ID + b"\x01cos\nabort\n(tR."))
    assert not news_of(opened)


def test_a_response_is_told_with_its_payload_untouched(opened: Connection) -> None:
    response = raw_frame(wire.RESPONSE, TYPE_3 + ID + b"\x01cos\nabort\n(tR.")
    feed(opened, ANNOUNCED + response)
    assert news_of(opened) == [("responded", "helpers:Number", ID, b"\x01cos\nabort\n(tR.")]


# -- Observers ------------------------------------------------------------------------------

OBSERVER = hello(1, "observer", bytes(16), {"observe": True})


@pytest.mark.parametrize("kind", [*wire.KIND_NAMES], ids=lambda kind: wire.KIND_NAMES[kind])
def test_an_observer_may_say_little(kind: int) -> None:
    connection = make_connection("server")
    feed(connection, OBSERVER + SUBSCRIBED)
    assert connection.observes
    if kind in (wire.SUBSCRIBE, wire.ASK_STATS, wire.GOODBYE):
        feed(connection, FRAMES[kind])
        assert connection.state is (State.LEFT if kind == wire.GOODBYE else State.OPEN)
        return
    with pytest.raises(ProtocolError, match=REFUSED_TO_OBSERVERS.get(kind, "from an observer")):
        feed(connection, FRAMES[kind])
    assert connection.state is State.FAILED


REFUSED_TO_OBSERVERS = {
    wire.HELLO: "a HELLO frame came while open",
    wire.REJECT: "a REJECT frame came while open",
    # It cannot have announced the type.
    wire.EVENT: "of a type that was not announced",
    wire.REQUEST: "of a type that was not announced",
    wire.RESPONSE: "of a type that was not announced",
}


def test_who_is_connected_to_does_not_only_observe() -> None:
    client = make_connection("client", to="server")
    with pytest.raises(ProtocolError, match=r"the accepting side says that it only observes"):
        feed(client, OBSERVER)
    assert client.state is State.FAILED
    assert not news_of(client)


class RecordingAudience:
    """Remember what an observer sees."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def answered(self, number: int, answer: dict[str, Any] | str) -> None:
        self.seen.append(("answered", number, answer))

    def tapped(self, inlet: Inlet, body: memoryview, elsewhere: int, here: int) -> None:
        self.seen.append(("tapped", inlet.name, bytes(body), elsewhere, here))

    def missed(self, count: int) -> None:
        self.seen.append(("missed", count))


@pytest.fixture
def audience() -> RecordingAudience:
    return RecordingAudience()


@pytest.fixture
def observing(audience: RecordingAudience) -> Connection:
    """Return the end of an observer, which knows of one type."""
    connection = make_connection("observer", to="peer", observe=True)
    connection.audience = audience
    feed(connection, HELLO + SUBSCRIBED + ANNOUNCED)
    return connection


def tapped(lost: int, elsewhere: int, here: int, inner: bytes = b"") -> bytes:
    return raw_frame(wire.TAPPED, struct.pack("<III", lost, elsewhere, here) + inner)


TAPPED_EVENT = bytes((wire.EVENT,)) + TYPE_3 + b"\0b\x05"
TAPPED_REQUEST = bytes((wire.REQUEST,)) + TYPE_3 + ID
TAPPED_RESPONSE = bytes((wire.RESPONSE,)) + TYPE_3 + ID + b"\x01whatever"


def test_an_observer_asks_for_statistics_and_gets_them(
    observing: Connection, audience: RecordingAudience
) -> None:
    said_by(observing)
    observing.ask_stats(7)
    said = said_by(observing)
    assert [*frames_of(said)] == [(wire.ASK_STATS, (7,))]
    server = make_connection("server")
    feed(server, OBSERVER + SUBSCRIBED + said)
    assert news_of(server)[-1] == ("asked", 7)
    feed(observing, control_frame(wire.STATS, 7, {"name": "peer"}))
    feed(observing, control_frame(wire.STATS, 8, "not now"))
    assert audience.seen == [("answered", 7, {"name": "peer"}), ("answered", 8, "not now")]


def test_an_observer_sees_events_and_what_it_missed(
    observing: Connection, audience: RecordingAudience
) -> None:
    feed(observing, tapped(0, 1, 2, TAPPED_EVENT))
    feed(observing, tapped(5, 1, 0, TAPPED_REQUEST))
    feed(observing, tapped(0, 1, 0, TAPPED_RESPONSE))
    feed(observing, tapped(2**32 - 1, 0, 0))
    assert audience.seen == [
        ("tapped", "helpers:Number", TAPPED_EVENT, 1, 2),
        ("missed", 5),
        ("tapped", "helpers:Number", TAPPED_REQUEST, 1, 0),
        ("tapped", "helpers:Number", TAPPED_RESPONSE, 1, 0),
        ("missed", 2**32 - 1),
    ]
    assert observing.state is State.OPEN


BAD_SIGHTS = {
    "no answer": (control_frame(wire.STATS, 1), "a STATS frame has elements of wrong types"),
    "two answers": (control_frame(wire.STATS, 1, {}, {}), "a STATS frame has elements of wrong"),
    "an answer to a text": (control_frame(wire.STATS, "1", {}), "a STATS frame has elements of"),
    "an answer in a list": (
        control_frame(wire.STATS, 1, []),
        "a STATS frame has elements of wrong",
    ),
    "no counts": (raw_frame(wire.TAPPED, bytes(11)), "12 bytes is too short for a tapped event"),
    "a tapped goodbye": (tapped(0, 1, 0, control_frame(wire.GOODBYE)[4:]), "holds no event"),
    "a tapped tap": (tapped(0, 1, 0, tapped(0, 1, 0)[4:]), "a TAPPED frame holds no event"),
    "a short event": (tapped(0, 1, 0, TAPPED_EVENT[:4]), "a TAPPED frame holds no event"),
    "a short request": (tapped(0, 1, 0, TAPPED_REQUEST[:-1]), "a TAPPED frame holds no event"),
    "an unknown type": (
        tapped(0, 1, 0, bytes((wire.EVENT, 4, 0, 0, 0, 0))),
        "a tapped event is of a type that was not announced",
    ),
}


@pytest.mark.parametrize("kind", BAD_SIGHTS)
def test_an_observer_is_not_shown_what_is_no_event_or_answer(
    observing: Connection, audience: RecordingAudience, kind: str
) -> None:
    data, said = BAD_SIGHTS[kind]
    with pytest.raises(ProtocolError, match=said):
        feed(observing, data)
    assert observing.state is State.FAILED
    assert not audience.seen


# -- Compression -----------------------------------------------------------------------------


@pytest.fixture
def snappy(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], bytes]:
    """Return what compresses a body into a frame; python-snappy itself, where it is there."""
    module: ModuleType = pytest.importorskip("snappy")

    def compress(body: bytes) -> bytes:
        return raw_frame(wire.COMPRESSED, module.compress(body))

    return compress


def test_a_compressed_frame_may_hold_any_other(
    opened: Connection, snappy: Callable[[bytes], bytes]
) -> None:
    found: list[Text] = []
    opened.reader.find_topic = make_table(Text, found).by_name.get
    announced = control_frame(wire.ANNOUNCE, 3, name_of(Text), wire.LAYOUT_FIELDS, ("text",))
    feed(opened, snappy(announced[4:]))
    feed(opened, snappy(raw_frame(wire.EVENT, TYPE_3 + b"\0S\xe8\x03\0\0" + b"x" * 1000)[4:]))
    assert [event.text for event in found] == ["x" * 1000]
    feed(opened, snappy(raw_frame(wire.RESPONSE, TYPE_3 + ID + b"rest")[4:]))
    feed(opened, snappy(control_frame(wire.CREDIT, "m:A", 2)[4:]))
    assert news_of(opened) == [("responded", name_of(Text), ID, b"rest"), ("credited", "m:A", 2)]
    feed(opened, snappy(control_frame(wire.GOODBYE)[4:]))
    assert opened.state is State.LEFT


def test_a_compressed_frame_in_a_compressed_frame_is_an_error(
    opened: Connection, snappy: Callable[[bytes], bytes]
) -> None:
    with pytest.raises(ProtocolError, match=r"a compressed frame holds another one"):
        feed(opened, snappy(snappy(control_frame(wire.GOODBYE)[4:])[4:]))


@pytest.mark.parametrize(
    ("inner", "said"),
    [(HELLO[4:], "a HELLO frame came while open"), (b"\x77", "0x77 is not a kind")],
    ids=["hello", "unknown"],
)
def test_a_compressed_frame_of_the_wrong_kind_is_an_error(
    opened: Connection, snappy: Callable[[bytes], bytes], inner: bytes, said: str
) -> None:
    with pytest.raises(ProtocolError, match=said):
        feed(opened, snappy(inner))


def test_without_snappy_a_compressed_frame_is_an_error(
    opened: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lahja.protocol, "has_snappy", lambda: False)
    with pytest.raises(ProtocolError, match=r"which this endpoint did not offer"):
        feed(opened, raw_frame(wire.COMPRESSED, b"\x01\0\0"))


# -- Lines of a log --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain", "plain"),
        ("two\nlines\x1b[0m", "two\\nlines\\x1b[0m"),
        ("näme", "näme"),
        ("x" * 500, "x" * 500),
        ("x" * 501, "x" * 500 + "…"),
        (ValueError("why"), "why"),
    ],
    ids=["plain", "control characters", "letters", "longest", "too long", "an error"],
)
def test_what_a_peer_chose_is_short_and_printable_in_a_log(text: object, line: str) -> None:
    assert one_line(text) == line


# -- Traces ----------------------------------------------------------------------------------


def test_a_long_value_stays_apart_when_its_event_gets_a_trace() -> None:
    value = bytes(APART)
    header = struct.pack("<IB", 1 + len(value), wire.EVENT)
    context = encode_value({"traceparent": "00-1"})
    first, second = pieces = traced_frame((header, value), context)
    assert second is value
    assert body_of(pieces) == body_of(traced_frame(header + value, context))
    assert first.startswith(struct.pack("<IB", frame_size(pieces) - 4, wire.TRACED))  # type: ignore[union-attr]
