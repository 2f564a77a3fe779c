"""Both framing implementations: long values, which are kept apart on their way out and in."""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import framing_helpers as helpers
import pytest
from framing_helpers import Event, Link, Other, frame, same
from hypothesis import given, settings
from hypothesis import strategies as st

from lahja import wire
from lahja.exceptions import EncodeError, ProtocolError, TruncatedFrame
from lahja.frames import APART, body_of, frame_size
from lahja.names import name_of

REQUEST_ID = b"0123456789abcdef"
AT_ONCE = 1024 * 1024
MEGABYTE = random.Random(1).randbytes(1_000_000)


@pytest.fixture(params=helpers.IMPLEMENTATIONS)
def framing(request: pytest.FixtureRequest) -> ModuleType:
    return helpers.load(request.param)


# -- Sending ---------------------------------------------------------------------------------


def pieces_of(link: Link, **values: Any) -> tuple[bytes, ...]:
    """Return the pieces of the frame of an event with these values."""
    _, pieces = link.table.encode(link.table.topic(Event), Event(**values), wire.EVENT, b"")
    assert type(pieces) is tuple
    assert struct.unpack_from("<I", pieces[0]) == (sum(map(len, pieces)) - 4,)
    return pieces


def test_long_bytes_are_not_copied(framing: ModuleType) -> None:
    one, other = bytes(APART), bytes(APART + 5)
    link = Link(framing)
    first, second, third, fourth, fifth = pieces_of(link, a=1, b=one, c=other, d="end")
    assert second is one
    assert fourth is other
    assert first[4:] == struct.pack("<BIB", wire.EVENT, 0, 0) + b"b\1Y" + struct.pack("<I", APART)
    assert third == b"Y" + struct.pack("<I", APART + 5)
    assert fifth == b"s\3end"
    nested = {"key": [one]}
    assert pieces_of(link, a=nested)[1] is one
    assert len(pieces_of(link, a=one)) == 2


def test_what_is_shorter_is_one_piece_with_the_rest(framing: ModuleType) -> None:
    link = Link(framing)
    topic = link.table.topic(Event)
    value = bytes(APART - 1)
    _, data = link.table.encode(topic, Event(a=value, b=value), wire.EVENT, b"")
    assert type(data) is bytes
    assert len(data) > 2 * len(value)


@pytest.mark.parametrize(
    "value",
    ["a" * APART, "ä" * APART, "\ud800" * APART, 1 << (8 * APART), -(1 << (9 * APART))],
    ids=["ascii", "text", "surrogates", "positive", "negative"],
)
def test_other_long_values_are_pieces_too(framing: ModuleType, value: Any) -> None:
    link = Link(framing)
    header, data, rest = pieces_of(link, a=value, b=None)
    assert len(data) >= APART
    assert rest == b"N"
    assert framing.decode_value(header[10:] + data) == (value, len(header) - 10 + len(data))
    (event,) = link.carry(Event(a=value, b=None))
    assert event.a == value
    assert framing.decode_value(framing.encode_value(value))[0] == value


def test_a_long_pickle_is_a_piece(framing: ModuleType) -> None:
    link = Link(framing)
    value = bytearray(APART)
    header, data = pieces_of(link, a=bytes(APART), b=value)
    assert header[-1:] == b"\x01"
    assert bytes(value) in data
    value[0] = 5  # what is broadcast is the value of that moment
    assert bytes(value) not in data
    link.carry(Event(a=bytearray(b"short")))
    (event,) = link.carry(helpers.Reduced(value))
    assert event.value == (value, "reduced")


def test_what_is_not_plain_after_all_is_pickled(framing: ModuleType) -> None:
    link = Link(framing)
    (event,) = link.carry(Event(a=bytes(APART), b=MEGABYTE, c=1j))
    assert (len(event.a), event.b, event.c) == (APART, MEGABYTE, 1j)
    strict = Link(framing, allow_pickle=False)
    with pytest.raises(EncodeError, match="complex is not a plain value"):
        strict.table.publish(Event(a=bytes(APART), c=1j))
    assert not strict.outlet.take()


def test_an_outlet_counts_all_pieces(framing: ModuleType) -> None:
    wakes = helpers.Wakes()
    outlet = framing.Outlet(wakes, 100)
    outlet.threshold = 10
    outlet.put((b"123", b"4567"))
    assert (outlet.size, wakes.count) == (7, 0)
    outlet.put((b"89", b"0", b"1"))
    assert (outlet.size, wakes.count) == (11, 1)
    assert outlet.take() == [b"12345678901"]
    assert not outlet.has_long
    outlet.put((b"1", b"2" * APART, b"3"))
    assert outlet.has_long


def test_every_peer_gets_the_same_pieces(framing: ModuleType) -> None:
    link = Link(framing)
    topic = link.table.topic(Event)
    outlets = tuple(framing.Outlet(lambda: None, 2 * APART) for _ in range(3))
    topic.outlets = outlets
    value = bytes(APART)
    assert link.table.publish(Event(a=value)) == 3
    assert not link.table.congested
    assert link.table.debt == 1 + (APART >> 10)
    for outlet in outlets:
        header, data = outlet.take()
        assert data is value
        assert outlet.size == len(header) + len(value)
    link.table.publish(Event(a=value))
    assert link.table.congested


def test_pieces_count_where_a_peer_has_a_limit(framing: ModuleType) -> None:
    link = Link(framing)
    link.outlet.name = "peer"
    size = frame_size(pieces_of(link, a=MEGABYTE)) - wire.LENGTH_SIZE
    link.table.limit = link.outlet.limit = size
    assert link.table.publish(Event(a=MEGABYTE)) == 1
    link.table.limit = link.outlet.limit = size - 1
    with pytest.raises(EncodeError, match=f"it takes {size} bytes, and 'peer' accepts {size - 1}"):
        link.table.publish(Event(a=MEGABYTE))


def test_the_compressor_is_given_the_pieces(framing: ModuleType) -> None:
    link = Link(framing)
    seen: list[Any] = []

    def compress(shape: Any, frame: Any) -> bytes | None:
        seen.append(frame)
        return b"compressed" if len(seen) == 1 else None

    link.table.compressor = compress
    link.outlet.compress = True
    for _ in range(2):
        link.table.publish(Event(a=MEGABYTE))
    gathered, data = link.outlet.take()
    assert data is MEGABYTE
    assert gathered.partition(b"compressed")[2] == seen[0][0]
    assert seen == [(seen[0][0], MEGABYTE)] * 2
    assert body_of(seen[0]) == seen[0][0][4:] + MEGABYTE


# -- Receiving -------------------------------------------------------------------------------


def ready(framing: ModuleType, *fields: str, **more: Any) -> Link:
    """Return a link to a reader that knows events with these fields."""
    link = Link(framing)
    link.table.topic(Event)
    link.reader.inlets[0] = framing.Inlet(0, name_of(Event), wire.LAYOUT_FIELDS, fields)
    return link


def event_frame(*values: Any, kind: int = wire.EVENT, rest: bytes = b"") -> bytes:
    """Return the frame of an event with these values."""
    body = struct.pack("<I", 0) + (REQUEST_ID if kind != wire.EVENT else b"") + b"\0"
    encode = helpers.load("python").encode_value
    return frame(kind, body + b"".join(map(encode, values)) + rest)


def put(reader: Any, data: bytes) -> int:
    """Put bytes where the reader wants them, as many as fit, and return how many."""
    with reader.get_buffer() as room:
        count = min(len(room), len(data))
        room[:count] = data[:count]
    reader.buffer_updated(count)
    assert reader.next_frame() is None
    return count


def room_of(reader: Any) -> int:
    """Return how many bytes the reader wants next."""
    with reader.get_buffer() as room:
        return len(room)


@pytest.mark.parametrize("kind", [wire.EVENT, wire.REQUEST])
def test_long_bytes_are_received_into_their_place(framing: ModuleType, kind: int) -> None:
    link = ready(framing, "a", "b", "c")
    data = event_frame(5, MEGABYTE, ["end"], kind=kind)
    end = data.rindex(b"[")
    assert put(link.reader, data[:1500]) == 1500
    assert link.reader.pending == 1500
    assert room_of(link.reader) == end - 1500
    for start, stop in ((1500, 2000), (2000, 300_000), (300_000, end - 1)):
        assert put(link.reader, data[start:stop]) == stop - start
        assert link.reader.pending == stop
    assert room_of(link.reader) == 1
    assert put(link.reader, data[end - 1 :]) == 1
    assert link.reader.pending == end
    assert room_of(link.reader) >= len(data) - end
    assert put(link.reader, data[end:]) == len(data) - end
    assert (link.reader.pending, link.reader.received) == (0, len(data))
    (event,) = link.received()
    assert (event.a, event.b, event.c) == (5, MEGABYTE, ["end"])
    assert type(event.b) is bytes
    assert hash(event.b) == hash(MEGABYTE)
    assert event._id == (REQUEST_ID if kind == wire.REQUEST else None)
    assert room_of(link.reader) == 16 * 1024  # there may be another one
    link.feed(event_frame(1, 2, 3))
    assert len(link.received()) == 1
    assert room_of(link.reader) >= 16 * 1024


def test_a_frame_is_looked_into_when_enough_of_it_is_there(framing: ModuleType) -> None:
    data = event_frame(MEGABYTE)
    for size, room in ((1023, 15_361), (1024, len(data) - 1024)):
        link = ready(framing, "a")
        put(link.reader, data[:size])
        assert room_of(link.reader) == room
        link.feed(data[size:])
        assert link.received()[0].a == MEGABYTE


def test_several_long_values_in_one_event(framing: ModuleType) -> None:
    link = ready(framing, *"abcde")
    values = (MEGABYTE, "between", MEGABYTE[:APART], {"a": b"b" * 300}, MEGABYTE[::-1])
    data = event_frame(*values)
    for step in (1024, 5000, APART, len(data)):
        for start in range(0, len(data), step):
            link.feed(data[start : start + step])
        (event,) = link.received()
        assert same([event.a, event.b, event.c, event.d, event.e], [*values])
        assert link.reader.pending == 0


def test_room_for_a_value_grows_as_it_arrives(framing: ModuleType) -> None:
    """Whoever claims much, and sends little, costs little."""
    link = ready(framing, "a")
    size = 200_000_000
    claim = event_frame(b"")[4:-2] + b"Y" + struct.pack("<I", size)
    put(link.reader, struct.pack("<I", len(claim) + size) + claim + bytes(2000))
    assert room_of(link.reader) == AT_ONCE - 2000
    put(link.reader, bytes(AT_ONCE - 2001))
    assert room_of(link.reader) == 1
    put(link.reader, b"x")
    assert room_of(link.reader) == 3 * AT_ONCE
    with pytest.raises(TruncatedFrame) as caught:
        link.reader.end()
    assert caught.value.missing == size - AT_ONCE


def test_a_value_that_is_longer_than_its_first_room(framing: ModuleType) -> None:
    link = ready(framing, "a")
    value = MEGABYTE * 9
    link.feed(event_frame(value))
    assert link.received()[0].a == value


def test_a_room_that_was_kept_cannot_change_what_was_received(framing: ModuleType) -> None:
    link = ready(framing, "a")
    data = event_frame(MEGABYTE * 2)
    put(link.reader, data[:2000])
    kept = []
    at = 2000
    while at < len(data):
        room = link.reader.get_buffer()
        kept.append(room)
        count = min(len(room), len(data) - at)
        room[:count] = data[at : at + count]
        link.reader.buffer_updated(count)
        at += count
        assert link.reader.next_frame() is None
    (event,) = link.received()
    for room in kept:
        room[:] = bytes(len(room))
    assert event.a == MEGABYTE * 2
    assert len(kept) > 1


def test_more_than_there_is_room_for(framing: ModuleType) -> None:
    link = ready(framing, "a")
    data = event_frame(MEGABYTE)
    put(link.reader, data[:2000])
    missing = len(data) - 2000
    for count in (missing + 1, -1, 2**70):
        with pytest.raises(ValueError, match=f"the buffer has no room for {count} bytes"):
            link.reader.buffer_updated(count)
    assert link.reader.received == link.reader.pending == 2000
    link.reader.buffer_updated(0)
    link.feed(data[2000:])
    assert link.received()[0].a == MEGABYTE


def not_plain(link: Link) -> bytes:
    return event_frame(MEGABYTE).replace(b"\0Y", b"\x07Y", 1)


CASES: dict[str, Callable[[Link], bytes]] = {
    "another form": not_plain,
    "a layout without fields": lambda link: _with_layout(link, wire.LAYOUT_MAPPING),
    "too many values": lambda link: event_frame(1, MEGABYTE),
    "too many bytes": lambda link: event_frame(MEGABYTE, rest=b"rest"),
    "too few values": lambda link: _with_fields(link, "a", "b"),
    "longer than the frame": lambda link: _cut(event_frame(MEGABYTE), 1),
    "much longer than the frame": lambda link: _cut(event_frame(MEGABYTE), 900_000),
    "not UTF-8 before it": lambda link: _with_fields(link, "a", "b", before=b"s\1\xff"),
    "a set of lists before it": lambda link: _with_fields(
        link, "a", "b", before=b"<\1\0\0\0[\0\0\0\0"
    ),
    "a bad one behind it": lambda link: _with_fields(link, "a", "b", rest=b"?" * 2000),
    "an unfinished one behind it": lambda link: _with_fields(link, "a", "b", rest=b"S\xff\xff\0\0"),
}


def _cut(data: bytes, count: int) -> bytes:
    return struct.pack("<I", len(data) - 4 - count) + data[4:-count]


def _with_layout(link: Link, layout: int) -> bytes:
    link.reader.inlets[0] = link.receiving.Inlet(0, name_of(Event), layout, ())
    return event_frame(MEGABYTE)


def _with_fields(link: Link, *fields: str, before: bytes = b"", rest: bytes = b"") -> bytes:
    link.reader.inlets[0] = link.receiving.Inlet(0, name_of(Event), wire.LAYOUT_FIELDS, fields)
    value = b"Y" + struct.pack("<I", len(MEGABYTE)) + MEGABYTE
    return event_frame(rest=before + value + rest)


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_decode_is_lost_by_itself(framing: ModuleType, case: str) -> None:
    """The reason is the same as where all of it is there at once."""
    link = ready(framing, "a")
    data = CASES[case](link)
    assert link.reader.dispatch(data[4:])
    for step in (len(data), 1024, 100_000):
        for start in range(0, len(data), step):
            link.feed(data[start : start + step])
        assert link.reader.pending == 0
    link.reader.inlets[0] = framing.Inlet(0, name_of(Event), wire.LAYOUT_FIELDS, ("a",))
    link.feed(event_frame(MEGABYTE))
    assert [event.a for event in link.received()] == [MEGABYTE]
    first, *others = [(type(error), str(error)) for _, error in link.errors]
    assert others == [first] * 3


def test_frames_that_are_no_events_are_not_looked_into(framing: ModuleType) -> None:
    link = ready(framing, "a")
    body = bytes(2 * APART)
    for kind in (wire.COMPRESSED, wire.TRACED):
        link.feed(frame(kind, body))
        assert link.bodies.pop() == bytes((kind,)) + body
    link.reader.inlets = None
    link.feed(event_frame(MEGABYTE))
    assert link.bodies.pop() == event_frame(MEGABYTE)[4:]


def test_an_event_of_a_type_that_was_not_announced(framing: ModuleType) -> None:
    link = ready(framing, "a")
    del link.reader.inlets[0]
    with pytest.raises(ProtocolError, match="of a type that was not announced"):
        link.feed(event_frame(MEGABYTE))


def test_what_nobody_wants_is_not_decoded(framing: ModuleType) -> None:
    link = ready(framing, "a", "b")
    wanted = link.topics.pop(name_of(Event))
    data = event_frame({"key": [1]}, MEGABYTE)
    room = len(data) - 2000
    put(link.reader, data[:2000])
    assert room_of(link.reader) != room
    link.feed(data[2000:])
    link.topics[name_of(Event)] = wanted
    put(link.reader, data[:2000])
    assert room_of(link.reader) == room
    wanted.consumers = ()  # nobody wants it any more
    link.feed(data[2000:])
    put(link.reader, data[:2000])
    assert room_of(link.reader) != room
    wanted.consumers = (link.mailbox,)
    link.feed(data[2000:])
    (event,) = link.received()
    assert (event.a, event.b) == ({"key": [1]}, MEGABYTE)
    assert not link.errors


def test_classes_of_one_name_get_values_of_their_own(framing: ModuleType) -> None:
    link = ready(framing, "a", "b")
    twin = framing.Topic(Other)
    twin.consumers = (link.mailbox,)
    link.topics[name_of(Event)].twins = (twin,)
    link.feed(event_frame([1, {"k": []}], MEGABYTE))
    one, other = link.received()
    assert (type(one), type(other)) == (Event, Other)
    one.a[1]["k"].append(5)
    assert other.a == [1, {"k": []}]
    assert one.b == other.b == MEGABYTE


def test_responses(framing: ModuleType) -> None:
    link = ready(framing, "a", "b")
    topic = link.topics[name_of(Event)]
    wakes = helpers.Wakes()
    data = event_frame("text", MEGABYTE, kind=wire.RESPONSE)

    def ask(expected: Any) -> Any:
        asked = (link.reader.outlet,)
        request = framing.PendingRequest(REQUEST_ID, expected.cls, expected, asked, False, wakes)
        link.reader.requests[REQUEST_ID] = request
        return request

    link.reader.outlet = framing.Outlet(lambda: None, 100)
    put(link.reader, data[:2000])  # nobody has asked
    assert room_of(link.reader) != len(data) - 2000
    link.feed(data[2000:])
    assert link.bodies.pop() == data[4:]
    request = ask(topic)
    put(link.reader, data[:2000])
    assert room_of(link.reader) == len(data) - 2000
    link.feed(data[2000:])
    assert (request.response.a, request.response.b) == ("text", MEGABYTE)
    assert link.received() == [request.response]
    assert (wakes.count, link.reader.requests) == (1, {})
    # What is not just what was asked is handed over whole.
    ask(framing.Topic(Other))
    link.feed(data)
    assert link.bodies.pop() == data[4:]
    request = ask(topic)
    request.asked = ()
    link.feed(data)
    assert link.bodies.pop() == data[4:]
    ask(topic)
    bad = event_frame("text", MEGABYTE, kind=wire.RESPONSE, rest=b"rest")
    link.feed(bad)
    assert link.bodies.pop() == bad[4:]
    ask(topic)
    put(link.reader, data[:2000])
    link.reader.requests.clear()  # it is given up
    link.feed(data[2000:])
    assert link.bodies.pop() == data[4:]
    assert wakes.count == 1


def test_a_reader_that_is_told_of_no_types_any_more(framing: ModuleType) -> None:
    link = ready(framing, "a", "b")
    data = event_frame([5], MEGABYTE)
    put(link.reader, data[:2000])
    link.reader.inlets = None
    link.feed(data[2000:])
    assert link.bodies == [data[4:]]


def test_the_end_in_the_middle_of_a_value(framing: ModuleType) -> None:
    link = ready(framing, "a", "b")
    data = event_frame(MEGABYTE, MEGABYTE)
    for size in (500, 2000, 999_999, 1_002_000, len(data) - 1):
        link.reader = link.new_reader()
        link.reader.inlets[0] = framing.Inlet(0, name_of(Event), wire.LAYOUT_FIELDS, ("a", "b"))
        link.feed(data[:size])
        assert link.reader.pending == size
        with pytest.raises(TruncatedFrame) as caught:
            link.reader.end()
        assert caught.value.missing == len(data) - size
    assert not link.received()


def test_nothing_is_kept_of_what_was_received(framing: ModuleType) -> None:
    link = ready(framing, "a")
    data = event_frame(MEGABYTE)
    link.feed(data)
    values = [event.a for event in link.received()]
    count = sys.getrefcount(values[0])  # an assertion would hold another one
    assert count == 2
    landings = sys.getallocatedblocks()
    for _ in range(100):
        put(link.reader, data[:2000])  # the connection ends in the middle of it
        link.reader = link.new_reader()
        link.reader.inlets[0] = framing.Inlet(0, name_of(Event), wire.LAYOUT_FIELDS, ("a",))
    assert sys.getallocatedblocks() < landings + 100


# -- Both ------------------------------------------------------------------------------------

LONG_VALUES = st.sampled_from(
    [
        b"x" * APART,
        MEGABYTE[: APART - 1],
        MEGABYTE[:300_000],
        "t" * APART,
        "ä" * APART,
        1 << 600_000,
    ]
)
VALUES = st.one_of(
    LONG_VALUES, st.none(), st.integers(), st.text(), st.binary(), st.lists(LONG_VALUES, max_size=2)
)


def arrived(module: ModuleType, data: bytes, cuts: list[int]) -> list[Any]:
    """Return all that can be seen when bytes arrive in these pieces."""
    link = Link(module)
    link.table.topic(Event)
    seen: list[Any] = []
    for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True):
        piece = data[start:stop]
        while piece:
            room = link.reader.get_buffer()
            seen.append(len(room))
            count = min(len(room), len(piece))
            room[:count], piece = piece[:count], piece[count:]
            link.reader.buffer_updated(count)
            link.handle(link.reader)
            seen.append(link.reader.pending)
    seen += [helpers.state_of(event) for event in link.received()]
    return [*seen, link.bodies, [str(error) for _, error in link.errors]]


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_both_do_the_same_however_it_is_cut(data: st.DataObject) -> None:
    events = data.draw(st.lists(st.lists(VALUES, max_size=4), min_size=1, max_size=4))
    modules = [helpers.load(name) for name in helpers.IMPLEMENTATIONS]
    sent = []
    for module in modules:
        link = Link(module)
        for values in events:
            link.table.publish(Event(**{f"field{i}": each for i, each in enumerate(values)}))
        sent.append(link.outlet.take())
    assert all(each == sent[0] for each in sent)
    text = b"".join(sent[0])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=20)))
    results = [arrived(module, text, cuts) for module in modules]
    assert all(same(each, results[0]) for each in results)
    states = results[0][-2 - len(events) : -2]
    for values, state in zip(events, states, strict=True):
        assert same([state[f"field{i}"] for i in range(len(values))], values)
