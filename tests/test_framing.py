"""Both framing implementations: the codec, the sending side, and what holds for all classes."""

from __future__ import annotations

import gc
import importlib
import pickle
import random
import struct
import sys
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from types import FrameType, ModuleType
from typing import Any

import framing_helpers as helpers
import pytest
from framing_helpers import (
    Empty,
    Event,
    Fixed,
    Frozen,
    Guarded,
    Half,
    Link,
    Plain,
    Request,
    Shadowed,
    Wakes,
    frame,
    nested,
    same,
    state_of,
)

from lahja import wire
from lahja.common import BaseEvent
from lahja.exceptions import (
    BindError,
    DecodeError,
    EncodeError,
    ProtocolError,
)
from lahja.frames import CHUNK_SIZE, LONG, body_of
from lahja.names import name_of


@pytest.fixture(params=helpers.IMPLEMENTATIONS)
def framing(request: pytest.FixtureRequest) -> ModuleType:
    return helpers.load(request.param)


@pytest.fixture
def link(framing: ModuleType) -> Link:
    return Link(framing)


def test_the_implementation_tells_its_name(framing: ModuleType) -> None:
    name = "python" if framing.__name__ == "lahja._framing_py" else "cython"
    assert name == framing.IMPLEMENTATION


# -- The codec of plain values ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "encoding"),
    [
        (None, b"N"),
        (True, b"T"),
        (False, b"F"),
        (0, b"b\x00"),
        (127, b"b\x7f"),
        (-128, b"b\x80"),
        (128, b"i\x80\x00\x00\x00"),
        (-129, b"i\x7f\xff\xff\xff"),
        (2**31 - 1, b"i\xff\xff\xff\x7f"),
        (-(2**31), b"i\x00\x00\x00\x80"),
        (2**31, b"q\x00\x00\x00\x80\x00\x00\x00\x00"),
        (2**32 - 1, b"q\xff\xff\xff\xff\x00\x00\x00\x00"),
        (-(2**31) - 1, b"q\xff\xff\xff\x7f\xff\xff\xff\xff"),
        (2**63 - 1, b"q" + b"\xff" * 7 + b"\x7f"),
        (-(2**63), b"q" + b"\x00" * 7 + b"\x80"),
        (2**63, b"I\x09\x00\x00\x00" + b"\x00" * 7 + b"\x80\x00"),
        (-(2**63) - 1, b"I\x09\x00\x00\x00" + b"\xff" * 7 + b"\x7f\xff"),
        (1.0, b"d\x00\x00\x00\x00\x00\x00\xf0\x3f"),
        (-0.0, b"d\x00\x00\x00\x00\x00\x00\x00\x80"),
        ("", b"s\x00"),
        ("ab", b"s\x02ab"),
        ("ä", b"s\x02\xc3\xa4"),
        ("a" * 255, b"s\xff" + b"a" * 255),
        ("a" * 256, b"S\x00\x01\x00\x00" + b"a" * 256),
        ("ä" * 128, b"S\x00\x01\x00\x00" + b"\xc3\xa4" * 128),
        ("\ud800", b"U\x03\x00\x00\x00\xed\xa0\x80"),
        (b"", b"y\x00"),
        (b"a" * 255, b"y\xff" + b"a" * 255),
        (b"a" * 256, b"Y\x00\x01\x00\x00" + b"a" * 256),
        ((), b"(\x00\x00\x00\x00"),
        ((1, "a"), b"(\x02\x00\x00\x00b\x01s\x01a"),
        ([None], b"[\x01\x00\x00\x00N"),
        ({1: 2, "a": ()}, b"{\x02\x00\x00\x00b\x01b\x02s\x01a(\x00\x00\x00\x00"),
        ({True}, b"<\x01\x00\x00\x00T"),
        (frozenset((b"",)), b">\x01\x00\x00\x00y\x00"),
    ],
)
def test_values_are_encoded_as_the_format_says(
    framing: ModuleType, value: object, encoding: bytes
) -> None:
    assert framing.encode_value(value) == encoding
    decoded, end = framing.decode_value(encoding)
    assert same(decoded, value)
    assert end == len(encoding)


@pytest.mark.parametrize("group", helpers.PLAIN_VALUES)
def test_plain_values_survive_exactly(framing: ModuleType, group: str) -> None:
    for value in helpers.PLAIN_VALUES[group]:
        encoded = framing.encode_value(value)
        for data in (encoded, bytearray(encoded), memoryview(encoded)):
            decoded, end = framing.decode_value(data)
            assert same(decoded, value)
            assert end == len(encoded)
        decoded, end = framing.decode_value(b"\xff" * 5 + encoded + b"\xff", offset=5)
        assert same(decoded, value)
        assert end == 5 + len(encoded)


@pytest.mark.parametrize("group", helpers.PLAIN_VALUES)
def test_a_value_that_is_cut_short_is_refused(framing: ModuleType, group: str) -> None:
    for value in helpers.PLAIN_VALUES[group]:
        encoded = framing.encode_value(value)
        cuts = range(len(encoded)) if len(encoded) < 500 else (*range(50), len(encoded) - 1)
        for cut in cuts:
            with pytest.raises(DecodeError, match=r"^a value is cut short$"):
                framing.decode_value(encoded[:cut])


def test_what_is_not_plain_is_not_encoded(framing: ModuleType) -> None:
    *values, wide = helpers.PICKLED_VALUES
    for value in values:
        with pytest.raises(EncodeError, match=r"is not a plain value|than 100 deep") as caught:
            framing.encode_value(value)
        assert caught.value.__cause__ is None
        assert caught.value.event_type == type(value).__name__
    assert framing.decode_value(framing.encode_value(wide))[0] == wide  # only in events


def test_a_value_of_a_class_that_cannot_be_hashed_is_not_plain(framing: ModuleType) -> None:
    with pytest.raises(EncodeError, match="a OfUnhashableClass is not a plain value"):
        framing.encode_value([helpers.OfUnhashableClass()])


@pytest.mark.parametrize("make", [list, tuple, dict])
def test_nesting_has_a_limit(framing: ModuleType, make: type) -> None:
    deepest = framing.encode_value(nested(wire.MAX_DEPTH, make))
    assert framing.decode_value(deepest) == (nested(wire.MAX_DEPTH, make), len(deepest))
    with pytest.raises(EncodeError, match="it is nested more than 100 deep") as caught:
        framing.encode_value(nested(wire.MAX_DEPTH + 1, make))
    assert caught.value.event_type == make.__name__
    too_deep = framing.encode_value([1])[:5] + deepest
    with pytest.raises(DecodeError, match="a value is nested more than 100 deep"):
        framing.decode_value(too_deep)
    with pytest.raises(DecodeError, match="a value is nested more than 100 deep"):
        framing.decode_value(b"[\x01\x00\x00\x00" * 100_000)


@pytest.mark.parametrize("count", [0, 1, 2**31 - 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("tag", [b"S", b"U", b"Y", b"I", b"(", b"[", b"{", b"<", b">"])
def test_sizes_are_unsigned_and_reserve_nothing(
    framing: ModuleType, tag: bytes, count: int
) -> None:
    data = tag + struct.pack("<I", count)
    if not count:
        assert not framing.decode_value(data)[0]
        return
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError, match=r"^a value is cut short$"):
            framing.decode_value(data)
        if count > 1:
            with pytest.raises(DecodeError, match=r"^a value is cut short$"):
                framing.decode_value(data + b"N" * 10)
            with pytest.raises(DecodeError, match=r"(cut short|nested more than 100 deep)$"):
                framing.decode_value(data * 120)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_every_other_tag_is_refused(framing: ModuleType) -> None:
    for tag in set(range(256)) - set(b"NTFbiqIdsSUyY([{<>"):
        for data in (bytes((tag,)), bytes((tag,)) * 20):
            with pytest.raises(DecodeError, match=f"^0x{tag:02x} is not the tag of a value$"):
                framing.decode_value(data)


@pytest.mark.parametrize(
    "data",
    [
        b"s\x01\xff",
        b"s\x02\xc3(",
        b"S\x03\x00\x00\x00\xed\xa0\x80",
        b"U\x01\x00\x00\x00\xff",
        b"s\x01\xc3",
        b"[\x01\x00\x00\x00s\x02\xc0\x80",
    ],
)
def test_text_that_is_not_utf8_is_refused(framing: ModuleType, data: bytes) -> None:
    with pytest.raises(DecodeError, match=r"^a text is not UTF-8$") as caught:
        framing.decode_value(data)
    assert caught.value.__cause__ is None


EMPTY_LIST = b"[\x00\x00\x00\x00"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"<\x01\x00\x00\x00" + EMPTY_LIST, "an element that cannot be hashed"),
        (b">\x02\x00\x00\x00N" + EMPTY_LIST, "an element that cannot be hashed"),
        (b"{\x01\x00\x00\x00" + EMPTY_LIST + b"N", "an element that cannot be hashed"),
        (b"<\x01\x00\x00\x00(\x01\x00\x00\x00" + EMPTY_LIST, "an element that cannot be hashed"),
        # What is worse behind it is what counts.
        (b"<\x02\x00\x00\x00" + EMPTY_LIST, "cut short"),
        (b"{\x01\x00\x00\x00" + EMPTY_LIST, "cut short"),
        (b"{\x02\x00\x00\x00" + EMPTY_LIST + b"NN?", "0x3f is not the tag"),
    ],
)
def test_elements_that_cannot_be_hashed_are_refused(
    framing: ModuleType, data: bytes, reason: str
) -> None:
    with pytest.raises(DecodeError, match=reason):
        framing.decode_value(data)


def test_the_last_of_equal_keys_wins(framing: ModuleType) -> None:
    data = b"{\x03\x00\x00\x00b\x01s\x01aTs\x01bd\x00\x00\x00\x00\x00\x00\xf0\x3fs\x01c"
    assert repr(framing.decode_value(data)[0]) == "{1: 'c'}"
    assert framing.decode_value(b"<\x02\x00\x00\x00b\x01T")[0] == {1}


def test_numbers_may_come_in_any_form_that_holds_them(framing: ModuleType) -> None:
    for data in (b"i\x05\0\0\0", b"q\x05" + b"\0" * 7, b"I\x01\0\0\0\x05", b"I\x03\0\0\0\x05\0\0"):
        assert framing.decode_value(data) == (5, len(data))
    assert framing.decode_value(b"I\0\0\0\0") == (0, 5)
    assert framing.decode_value(b"I\x02\0\0\0\xff\xff") == (-1, 7)


def test_signalling_nans_keep_their_bits(framing: ModuleType) -> None:
    data = b"d\x01\x00\x00\x00\x00\x00\xf0\x7f"
    assert framing.encode_value(framing.decode_value(data)[0]) == data


def test_where_a_value_is_looked_for(framing: ModuleType) -> None:
    assert framing.decode_value(data=b"NTF", offset=1) == (True, 2)
    assert framing.decode_value(memoryview(b"N-T-F-")[::2], 1) == (True, 2)
    for offset in (3, 4, 2**63, 2**100):
        with pytest.raises(DecodeError, match="cut short"):
            framing.decode_value(b"NTF", offset)
    for offset in (-1, -(2**100)):
        with pytest.raises(ValueError, match=f"^an offset is not negative, as {offset} is$"):
            framing.decode_value(b"NTF", offset)
    with pytest.raises(DecodeError, match="cut short"):
        framing.decode_value(bytearray())


def test_a_part_may_be_too_long_for_its_length(framing: ModuleType) -> None:
    try:
        data = bytes(2**32)  # of which no page is ever touched
    except MemoryError:
        pytest.skip("there is no room for 4 GiB, though nobody would use it")
    reason = "a part of 4294967296 bytes or elements is too long"
    with pytest.raises(EncodeError, match=reason):
        framing.encode_value(data)
    link = Link(framing, allow_pickle=False)
    with pytest.raises(EncodeError, match=reason) as caught:
        link.table.publish(Event(a=1, data=data))
    assert caught.value.field == "data"


@pytest.mark.parametrize("kind", ["list", "dict", "set"])
def test_a_container_that_another_thread_changes_meanwhile_is_an_error(kind: str) -> None:
    """Only the plain twin can be interrupted at a place that a test chooses."""
    write = importlib.import_module("lahja._codec_py")._write
    numbers, squares, names = [1, 2], {1: 1, 2: 4}, {"one", "two"}
    kinds: dict[str, tuple[Any, Callable[[], None]]] = {
        "list": (numbers, lambda: numbers.append(3)),
        "dict": (squares, lambda: squares.update({3: 9})),
        "set": (names, lambda: names.add("three")),
    }
    container, change = kinds[kind]

    def add(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code is write.__code__ and frame.f_locals["depth"]:
            sys.setprofile(None)
            change()

    sys.setprofile(add)
    try:
        with pytest.raises(RuntimeError, match=r"changed size during iteration"):
            helpers.load("python").encode_value(container)
    finally:
        sys.setprofile(None)


def test_a_frame_may_be_too_long_for_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled twin has read the limit already; nobody has the memory for the real one."""
    monkeypatch.setattr(wire, "MAX_LENGTH", 1000)
    link = Link(helpers.load("python"))
    link.table.publish(Event(a=b"x" * 900))
    for value in (b"x" * 990, [b"x" * 600] * 2):
        with pytest.raises(EncodeError, match=r"Event: it takes 1\d\d\d bytes, more than a frame"):
            link.table.publish(Event(a=value))


def test_a_container_may_be_shared_but_not_changed(framing: ModuleType) -> None:
    shared = [1, 2]
    decoded, _ = framing.decode_value(framing.encode_value([shared, shared]))
    assert decoded == [[1, 2], [1, 2]]
    assert shared == [1, 2]


# -- Sending ---------------------------------------------------------------------------------


def test_an_outlet_wakes_its_writer_above_the_threshold(framing: ModuleType) -> None:
    wakes = Wakes()
    outlet = framing.Outlet(wake=wakes, high_water=100)
    assert (outlet.name, outlet.take(), outlet.size, outlet.threshold) == ("", [], 0, 0)
    assert (outlet.high_water, outlet.limit) == (100, wire.MAX_FRAME_SIZE)
    assert (outlet.compress, outlet.accepts_pickle, outlet.announced) == (False, True, set())
    outlet.threshold = 10
    outlet.put(b"x" * 10)
    assert wakes.count == 0
    outlet.put(frame=b"y")
    assert wakes.count == 1
    taken = outlet.take()
    assert taken == [b"x" * 10 + b"y"]
    assert outlet.take() == []
    assert outlet.size == 11  # until they are written
    outlet.put(b"z")
    assert taken == [b"x" * 10 + b"y"]
    outlet.size -= 11
    assert outlet.size == 1


def test_an_outlet_gathers_what_is_short_and_copies_nothing_that_is_long(
    framing: ModuleType,
) -> None:
    outlet = framing.Outlet(Wakes(), 1 << 30)
    rng = random.Random(5)
    short = [rng.randbytes(rng.randrange(1, 3000)) for _ in range(500)]
    for each in short:
        outlet.put(each)
    long, longer = b"x" * LONG, b"y" * (2 * CHUNK_SIZE)
    outlet.put(long)
    outlet.put((b"head", longer, b"tail"))
    outlet.put(b"z" * (LONG - 1))
    *gathered, first, head, second, tail = outlet.take()
    assert b"".join(gathered) == b"".join(short)
    assert all(CHUNK_SIZE - 3000 < len(chunk) <= CHUNK_SIZE for chunk in gathered[:-1])
    assert first is long
    assert second is longer
    assert (head, tail) == (b"head", b"tail" + b"z" * (LONG - 1))
    assert outlet.size == sum(map(len, short)) + 2 * LONG + 2 * CHUNK_SIZE + 7
    assert outlet.take() == []


def test_an_outlet_may_be_emptied_while_it_wakes(framing: ModuleType) -> None:
    outlet: Any = None
    written: list[bytes] = []

    def write() -> None:
        written.extend(outlet.take())
        outlet.size = 0

    outlet = framing.Outlet(write, 0)
    outlet.put(b"one")
    outlet.put(b"two")
    assert written == [b"one", b"two"]
    table = framing.EventTable("me", True, lambda topic: None)
    table.topic(Empty).outlets = (outlet,)
    table.publish(Empty())
    assert len(helpers.frames_in(b"".join(written[2:]))) == 2
    assert not table.congested  # it was written at once


def test_a_shape_is_announced_once_to_each_peer(framing: ModuleType) -> None:
    shape = framing.Shape(5, "m:T", wire.LAYOUT_FIELDS, ("a", "b"))
    assert (shape.type_id, shape.name, shape.layout) == (5, "m:T", wire.LAYOUT_FIELDS)
    assert (shape.fields, shape.reluctance) == (("a", "b"), 0)
    body = framing.encode_value((5, "m:T", 0, ("a", "b")))
    assert shape.announcement == frame(wire.ANNOUNCE, body)
    first, second = (framing.Outlet(Wakes(), 0) for _ in range(2))
    first.send(shape, b"event")
    first.send(shape=shape, frame=b"again")
    assert first.take() == [shape.announcement + b"event" + b"again"]
    assert first.size == len(shape.announcement) + 10
    assert first.announced == {5}
    second.send(shape, b"event")
    assert second.take() == [shape.announcement + b"event"]


@pytest.mark.parametrize("number", [0, 1, 2**31 - 1, 2**31, 2**32 - 1])
def test_type_ids_are_unsigned(framing: ModuleType, number: int, link: Link) -> None:
    topic = link.table.topic(Empty)
    topic.shapes[()] = framing.Shape(number, topic.name, wire.LAYOUT_FIELDS, ())
    data = link.encode(Empty())
    assert data.endswith(struct.pack("<IBI", 6, wire.EVENT, number) + b"\0")
    link.feed(data)
    assert len(link.received()) == 1


def test_a_topic_knows_its_class(framing: ModuleType) -> None:
    topic = framing.Topic(cls=Half)
    assert topic.cls is Half
    assert topic.name == name_of(Half)
    assert topic.slots == ("_Half__private", "empty", "kept")
    assert topic.self_pickling is False
    assert framing.Topic(helpers.Reduced).self_pickling is True
    assert (topic.shapes, topic.outlets, topic.consumers, topic.windows) == ({}, (), (), {})
    assert topic.strict is False
    assert topic.limited is False


def test_a_table_makes_each_topic_once(framing: ModuleType) -> None:
    made: list[Any] = []
    table = framing.EventTable(origin="me", allow_pickle=True, on_topic=made.append)
    assert (table.origin, table.allow_pickle, table.topics, table.by_name) == ("me", True, {}, {})
    assert (table.compressor, table.limit) == (None, wire.MAX_FRAME_SIZE)
    assert (table.debt, table.congested) == (0, False)
    topic = table.topic(Empty)
    assert table.topic(cls=Empty) is topic
    assert made == [topic]
    assert table.topics == {Empty: topic}
    assert table.publish(Event()) == 0
    assert [each.cls for each in made] == [Empty, Event]


@pytest.mark.parametrize("wrong", [int, 5, "Event", Empty(), None])
def test_only_event_classes_have_topics(framing: ModuleType, wrong: Any) -> None:
    table = framing.EventTable("me", True, lambda topic: None)
    with pytest.raises(TypeError, match="an event type is a class derived from BaseEvent, not "):
        table.topic(wrong)
    with pytest.raises(TypeError, match="an event type is a class derived from BaseEvent, not "):
        table.publish(5)
    assert table.topics == {}


def test_an_event_that_nobody_wants_is_left_alone(framing: ModuleType) -> None:
    table = framing.EventTable("me", True, lambda topic: None)
    event = Empty()
    assert table.publish(event) == 0
    assert not event.is_bound
    assert table.debt == 0


def test_local_consumers_get_the_very_event(framing: ModuleType) -> None:
    table = framing.EventTable("me", True, lambda topic: None)
    mailbox, fixed = framing.Mailbox(), Fixed()
    table.topic(Event).consumers = (mailbox, fixed)
    event = Event(unpicklable=lambda: None)
    assert table.publish(event=event) == 2
    assert event.get_origin() == "me"
    assert mailbox.events[0] is event
    assert fixed.got == [(event, True)]
    assert table.debt == 1
    with pytest.raises(BindError, match=r"this Event was broadcast by 'me' already"):
        table.publish(event)
    assert len(fixed.got) == 1


def test_a_limited_topic_is_routed_by_others(framing: ModuleType) -> None:
    table = framing.EventTable("me", True, lambda topic: None)
    topic = table.topic(Empty)
    topic.limited = True
    topic.consumers = (Fixed(),)
    event = Empty()
    assert table.publish(event) == -1
    assert not event.is_bound
    assert topic.consumers[0].got == []


def test_an_event_is_encoded_once_for_all(framing: ModuleType) -> None:
    table = framing.EventTable("me", True, lambda topic: None)
    outlets = tuple(framing.Outlet(Wakes(), 1000) for _ in range(3))
    fixed = Fixed()
    topic = table.topic(Plain)
    topic.outlets, topic.consumers = outlets, (fixed,)
    event = Plain(1, "a", b"b")
    assert table.publish(event) == 4
    assert event.get_origin() == "me"
    assert fixed.got == [(event, True)]
    sent = frame(wire.EVENT, b"\0\0\0\0\0b\x01s\x01ay\x01b")
    for outlet in outlets:
        assert outlet.take() == [topic.shapes["number", "text", "data"].announcement + sent]
    assert table.debt == 1
    assert not table.congested


def test_big_events_count_for_more(framing: ModuleType) -> None:
    table = framing.EventTable("me", True, lambda topic: None)
    outlet = framing.Outlet(Wakes(), 10_000)
    table.topic(Event).outlets = (outlet,)
    table.publish(Event(data=b"x" * 5_000))
    assert table.debt == 1 + 4
    assert not table.congested
    table.publish(Event(data=b"x" * 5_000))
    assert table.congested
    table.congested = False
    table.debt = 0
    shape, data = table.encode(table.topic(Event), Event(data=b""), wire.EVENT, b"")
    table.send((), shape, data)
    assert table.debt == 0
    assert not table.congested


def test_outlets_may_be_derived_from(framing: ModuleType) -> None:
    class Counting(framing.Outlet):  # type: ignore[name-defined, misc]
        def send(self, shape: Any, frame: bytes) -> None:
            sizes.append(len(frame))
            super().send(shape, frame)

    sizes: list[int] = []
    table = framing.EventTable("me", True, lambda topic: None)
    plain, compressed = (Counting(Wakes(), high_water=1000) for _ in range(2))
    compressed.compress = True
    table.compressor = lambda shape, frame: b"compressed"
    table.topic(Event).outlets = (plain, compressed)
    table.publish(Event(data=b"x" * 900))
    assert not table.congested
    table.publish(Event(data=b"x" * 2000))
    assert sizes == [915, 915, 2015, 10]
    assert table.congested
    assert compressed.take()[-1].endswith(b"compressed")


@pytest.mark.parametrize(
    ("kind", "request_id"),
    [(wire.EVENT, b""), (wire.REQUEST, b"0123456789abcdef"), (wire.RESPONSE, b"x" * 16)],
)
def test_the_header_of_an_event(framing: ModuleType, kind: int, request_id: bytes) -> None:
    table = framing.EventTable("me", True, lambda topic: None)
    topic = table.topic(Event)
    table.encode(topic, Event(), wire.EVENT, b"")
    for value in ("text", 1j):  # plain, and pickled
        event = Event(field=value)
        shape, data = table.encode(topic=topic, event=event, kind=kind, request_id=request_id)
        assert shape is topic.shapes["field",]
        assert shape.type_id == 1
        assert data[:4] == struct.pack("<I", len(data) - 4)
        assert data[4 : 9 + len(request_id)] == struct.pack("<BI", kind, 1) + request_id
        payload = data[9 + len(request_id) :]
        if value == "text":
            assert payload == b"\0s\x04text"
        else:
            assert payload[:1] == b"\x01"
            assert pickle.loads(payload[1:]) == (1j,)
        assert not event.is_bound


def test_binding_an_event(framing: ModuleType) -> None:
    table = framing.EventTable("me", True, lambda topic: None)
    event, frozen, request = Event(), Frozen(1), Request("")
    table.bind(event, None)
    assert vars(event) == {"_origin": "me"}
    table.bind(event=frozen, request_id=None)
    assert frozen.get_origin() == "me"
    table.bind(request, b"id")
    assert request.get_origin() == "me"
    assert request._id == b"id"


@pytest.mark.parametrize("name", helpers.EVENTS)
def test_a_bound_event_is_not_sent_again(framing: ModuleType, name: str) -> None:
    event = helpers.new_event(name)
    object.__setattr__(event, "_origin", "elsewhere")
    link = Link(framing)
    for _ in range(2):
        with pytest.raises(BindError, match=f"this {type(event).__name__} was broadcast by 'else"):
            link.table.publish(event)
    assert link.outlet.take() == []
    assert link.table.debt == 0


def test_an_event_that_was_bound_after_others_were_sent(link: Link) -> None:
    for _ in range(3):
        link.carry(Event(a=1))
    event = Event(a=1)
    link.carry(event)
    with pytest.raises(BindError):
        link.table.publish(event)
    unbound = Event(_id=b"id", a=1)
    (received,) = link.carry(unbound)
    assert vars(received) == {"a": 1, "_origin": "sender"}


class TestWhereAnEventCannotBeSent:
    """Nothing has happened then: no peer, no consumer got it, and it is not bound."""

    def refuse(self, link: Link, event: BaseEvent, *, allow_pickle: bool = True) -> EncodeError:
        topic = link.table.topic(type(event))
        fixed = Fixed()
        topic.consumers = (fixed,)
        link.table.allow_pickle = allow_pickle
        with pytest.raises(EncodeError) as caught:
            link.table.publish(event)
        assert caught.value.event_type == name_of(type(event))
        assert not event.is_bound
        assert link.outlet.take() == []
        assert link.outlet.announced == set()
        assert link.table.debt == 0
        assert fixed.got == []
        return caught.value

    def test_a_value_that_cannot_be_pickled(self, link: Link) -> None:
        error = self.refuse(link, Event(good=1, bad=lambda: None, worse=lambda: None))
        assert error.field == "bad"
        assert "pickle" in error.reason
        assert isinstance(error.__cause__, (AttributeError, pickle.PicklingError))
        assert str(error).startswith(f"cannot send {name_of(Event)}, field 'bad': ")

    def test_a_self_pickling_event_that_cannot_be_pickled(self, link: Link) -> None:
        error = self.refuse(link, helpers.Reduced(lambda: None))
        assert error.field is None

    @pytest.mark.parametrize(
        "value",
        [helpers.doubled(60), [["x" * 100] * 100] * 100, [[0] * 1000] * 1000],
        ids=["containers", "texts", "numbers"],
    )
    def test_shared_parts_that_would_explode(self, link: Link, value: Any) -> None:
        link.table.limit = 10_000
        error = self.refuse(link, Event(good=1, bad=value), allow_pickle=False)
        assert error.field == "bad"
        assert error.reason.startswith("its containers hold too much, and this endpoint")

    def test_a_value_that_is_not_plain_without_pickling(self, link: Link) -> None:
        error = self.refuse(link, Event(good=1, bad=[1j]), allow_pickle=False)
        assert error.field == "bad"
        assert error.reason == (
            "a complex is not a plain value, and this endpoint has allow_pickle=False"
        )
        assert error.__cause__ is None
        # The same once its shape is known.
        link.table.topic(Event).consumers = ()
        (_received,) = link.carry(Event(good=1, bad=1))
        with pytest.raises(EncodeError) as caught:
            link.table.publish(Event(good=1, bad=[1j]))
        assert str(caught.value) == str(error)

    def test_a_self_pickling_event_without_pickling(self, link: Link) -> None:
        error = self.refuse(link, helpers.Reduced(1), allow_pickle=False)
        assert error.reason.startswith("its class defines its own pickling, and this endpoint")

    def test_a_peer_that_takes_no_pickles(self, link: Link) -> None:
        topic = link.table.topic(Event)
        link.outlet.name = "peer"
        link.outlet.accepts_pickle = False
        topic.strict = True
        error = self.refuse(link, Event(bad=helpers.Point(1)))
        assert error.reason == "a Point is not a plain value, and 'peer' accepts no pickled values"

    def test_a_depth_that_is_not_plain_without_pickling(self, link: Link) -> None:
        error = self.refuse(link, Event(a=1, bad=nested(101)), allow_pickle=False)
        assert error.field == "bad"
        assert error.reason.startswith("it is nested more than 100 deep, and")

    def test_a_field_of_a_mapping(self, link: Link) -> None:
        for count in range(wire.MAX_SHAPES):
            link.carry(Event(**{f"name {count}": count}))
        link.outlet.announced.clear()
        link.table.debt = 0
        error = self.refuse(link, Event(a=1, bad=1j), allow_pickle=False)
        assert error.field is None

    def test_a_peer_that_takes_no_frame_of_this_size(self, link: Link) -> None:
        link.outlet.name = "peer"
        link.outlet.limit = link.table.limit = 1000
        error = self.refuse(link, Event(data=b"x" * 1000))
        assert error.reason == ("it takes 1011 bytes, and 'peer' accepts 1000 (its max_frame_size)")
        link.table.topic(Event).consumers = ()
        link.outlet.limit = 2**100
        assert len(link.carry(Event(data=b"x" * 1000))) == 1
        link.table.limit = 2**100
        assert len(link.carry(Event(data=b"x" * 1000))) == 1
        link.table.limit = link.outlet.limit = 1011
        assert len(link.carry(Event(data=b"x" * 1000))) == 1


@pytest.mark.parametrize("name", helpers.EVENTS)
def test_every_sort_of_event_survives(framing: ModuleType, name: str) -> None:
    event = helpers.new_event(name)
    link = Link(framing)
    (received,) = link.carry(event)
    if isinstance(event, helpers.Reduced):
        assert received.value == (1, "reduced")
    elif isinstance(event, helpers.Stateful):
        assert state_of(received) == {"value": (2, "got"), "was_set": True, "_origin": "sender"}
    else:
        assert same(received, event)
    assert received.get_origin() == "sender"


def test_events_of_all_sorts_survive_one_connection(link: Link) -> None:
    for _ in range(3):  # of the first of a class much is learned
        sent = list(helpers.events())
        received = link.carry(*sent)
        for event, other in zip(sent, received, strict=True):
            if not isinstance(event, (helpers.Reduced, helpers.Stateful)):
                assert same(other, event)


@pytest.mark.parametrize("group", helpers.VALUES)
def test_every_value_survives_as_a_field(framing: ModuleType, group: str) -> None:
    link = Link(framing)
    for value in helpers.VALUES[group] * 2:
        received = link.carry(
            Event(before=1, value=value, after="x"),
            Half(value, private=value, other=value),
            Event(**{f"field {i}": i for i in range(20)}, value=value),
        )
        assert same(received[0].value, value)
        assert (received[0].before, received[0].after) == (1, "x")
        assert same(received[1].kept, value)
        assert same(received[1].private, value)
        assert same(received[1].other, value)
        assert same(received[2].value, value)


def test_large_values_survive(link: Link) -> None:
    data = bytes(range(256)) * 20_000
    for value in (data, "ä" * 3_000_000, [data, data], list(range(200_000)), 2**1_000_000):
        (received,) = link.carry(Event(value=value))
        assert same(received.value, value)


def test_shared_parts_stay_shared_where_there_are_many(link: Link) -> None:
    bomb: list[Any] = []
    for _ in range(50):
        bomb = [bomb, bomb]
    (received,) = link.carry(Event(bomb=bomb))
    for _ in range(50):
        assert len(received.bomb) == 2
        assert received.bomb[0] is received.bomb[1]
        received.bomb = received.bomb[0]


@pytest.mark.parametrize(
    ("part", "count"),
    [
        (b"x" * 1024, 999),
        (b"x" * 2048, 499),
        ("ä" * 512, 999),
        ("\ud800" * 683, 499),
        ([0] * 1024, 499),
    ],
)
def test_long_parts_of_containers_are_pickled(framing: ModuleType, part: Any, count: int) -> None:
    """A part that stands there often is written as often, unless it is pickled."""
    link = Link(framing)
    topic = link.table.topic(Event)
    for number in (count, count + 1):
        _, data = link.table.encode(topic, Event(value=[part] * number), wire.EVENT, b"")
        assert data[9] == (number > count)
    for value in ([b"x" * 1023] * 5000, b"x" * 2_000_000):  # short ones, and no part of anything
        _, data = link.table.encode(topic, Event(value=value), wire.EVENT, b"")
        assert body_of(data)[5] == wire.PLAIN


@pytest.mark.parametrize("value", [[b"x" * 988], ["x" * 988], [["x" * 987]], [0] * 999])
def test_containers_hold_no_more_than_a_frame(framing: ModuleType, value: list[Any]) -> None:
    link = Link(framing, allow_pickle=False)
    topic = link.table.topic(Event)
    link.table.limit = 1000
    link.table.encode(topic, Event(value=value[:1]), wire.EVENT, b"")
    link.table.limit = 989 if len(value) == 1 else 999
    with pytest.raises(EncodeError, match="its containers hold too much, and this"):
        link.table.encode(topic, Event(value=value), wire.EVENT, b"")


@pytest.mark.parametrize("allow_pickle", [True, False])
def test_very_many_containers_are_pickled(framing: ModuleType, allow_pickle: bool) -> None:
    link = Link(framing, allow_pickle=allow_pickle)
    topic = link.table.topic(Event)
    for count in (wire.MAX_PLAIN_CONTAINERS, wire.MAX_PLAIN_CONTAINERS + 1):
        for make in (list, tuple, dict, set, frozenset):
            parts: list[Any] = [make() for _ in range(count - 2)]
            event = Event(first=(), rest=parts)
            _, data = link.table.encode(topic, event, wire.EVENT, b"")
            assert data[9] == (allow_pickle and count > wire.MAX_PLAIN_CONTAINERS)
            assert same(link.carry(event)[0].rest, parts)


def test_an_event_may_contain_itself(link: Link) -> None:
    for _ in range(2):
        event = Event(number=1, plain=[])
        event.me = [event]  # type: ignore[attr-defined]
        (received,) = link.carry(event)
        assert received.me[0] is received
        assert link.carry(Event(number=1, plain=[], me=None))[0].me is None


def test_an_event_that_cannot_be_pickled_whole(link: Link) -> None:
    """Its values name its class, which is no reason to refuse it."""

    class Local(Event):
        pass

    for _ in range(2):
        event = Local(a=1j, b=Local.__qualname__)
        (received,) = link.carry(event)
        assert type(received) is Local
        assert same(vars(received), vars(event))
    assert list(link.table.topic(Local).shapes) == [("a", "b")]


def test_instances_of_one_type_may_have_different_attributes(link: Link) -> None:
    sent = [
        Event(a=1),
        Event(b=1),
        Event(a=1, b=1),
        Event(b=1, a=1),
        Event(),
        Event(a=2),
    ]
    received = link.carry(*sent)
    assert [vars(event) for event in received] == [vars(event) for event in sent]
    assert [list(vars(event)) for event in received] == [list(vars(event)) for event in sent]
    assert len(link.table.topic(Event).shapes) == 5


def test_too_many_shapes_share_a_mapping(link: Link) -> None:
    sent = [Event(**{f"name {i}": i, "same": (i,)}) for i in range(wire.MAX_SHAPES + 10)]
    sent += [Event(**{f"name {i}": 1j}) for i in range(100, 103)]
    received = link.carry(*sent)
    assert all(same(*pair) for pair in zip(received, sent, strict=True))
    shapes = link.table.topic(Event).shapes
    assert len(shapes) == wire.MAX_SHAPES + 1
    assert shapes[wire.LAYOUT_MAPPING].fields == ()
    known = Event(**{"name 0": 0, "same": (0,)})
    assert link.table.encode(link.table.topic(Event), known, wire.EVENT, b"")[0].type_id == 0


def test_names_that_are_not_strings_are_pickled(link: Link) -> None:
    event = Event(a=1)
    event.__dict__[1] = event.__dict__[None] = "odd"  # type: ignore[index]
    (received,) = link.carry(event)
    assert vars(received) == {"a": 1, 1: "odd", None: "odd", "_origin": "sender"}
    assert list(link.table.topic(Event).shapes) == [wire.LAYOUT_WHOLE]


def test_names_that_are_equal_and_not_the_same(link: Link) -> None:
    for _ in range(3):
        for name in ("".join(("a", "b")), "ab", helpers.Str("ab")):
            event = Event()
            event.__dict__[name] = 1
            (received,) = link.carry(event)
            assert vars(received) == {"ab": 1, "_origin": "sender"}
    assert len(link.table.topic(Event).shapes) == 1


def test_a_dictionary_of_another_type(framing: ModuleType) -> None:
    class Odd(dict[str, Any]):
        def __iter__(self) -> Iterator[str]:
            return iter(["b", "a"])

        def __getitem__(self, name: str) -> Any:
            return 2 * super().__getitem__(name)

    for _ in range(2):
        link = Link(framing)
        event = Event()
        event.__dict__ = Odd(a=1, b=2)
        (received,) = link.carry(event)
        assert vars(received) == {"b": 4, "a": 2, "_origin": "sender"}
        (received,) = link.carry(Event(a=1, b=2))
        assert vars(received) == {"a": 1, "b": 2, "_origin": "sender"}


def test_a_class_may_watch_over_its_attributes(link: Link) -> None:
    for number in range(3):
        (received,) = link.carry(Guarded(number))
        assert received.value == number
        (shadowed,) = link.carry(Shadowed(number))
        assert vars(shadowed) == {"value": number, "_origin": "sender"}
        assert shadowed.value == "of the property"


@pytest.mark.parametrize("cls", [helpers.Doctored, helpers.Disguised])
def test_what_a_class_says_is_its_dictionary(framing: ModuleType, cls: type) -> None:
    """What is sent is what it shows; what it shows is not where anything is kept."""
    link = Link(framing)
    for number in range(3):
        event = cls(number)
        data = link.encode(event)
        assert object.__getattribute__(event, "_origin") == "sender"
        link.feed(data)
        (received,) = link.received()
        assert object.__getattribute__(received, "_origin") == "sender"
        with pytest.raises(AttributeError):
            object.__getattribute__(received, "value")
        _, encoded = link.table.encode(link.table.topic(cls), cls(number), wire.EVENT, b"")
        assert framing.decode_value(encoded, 10)[0] == cls.__name__.lower()


def test_compression(framing: ModuleType) -> None:
    calls: list[tuple[Any, bytes]] = []
    result: bytes | None = b"compressed"

    def compress(shape: Any, data: bytes) -> bytes | None:
        calls.append((shape, data))
        return result

    table = framing.EventTable("me", True, lambda topic: None)
    with_it, without = (framing.Outlet(Wakes(), 10**9) for _ in range(2))
    with_it.compress = True
    topic = table.topic(Event)
    topic.outlets = (with_it, without)
    table.compressor = compress
    data = b"x" * (wire.COMPRESS_MINIMUM - 15)  # 15 for the rest of the frame
    table.publish(Event(a=data))
    assert not calls
    uncompressed = frame(wire.EVENT, bytes(5) + b"Y" + struct.pack("<I", len(data)) + data)
    table.publish(Event(a=data + b"x"))
    announcement = topic.shapes["a",].announcement
    assert with_it.take() == [announcement + uncompressed + b"compressed"]
    assert without.take() == [announcement + uncompressed + calls[0][1]]
    assert calls[0][0] is topic.shapes["a",]
    assert len(calls) == 1
    result = None
    table.publish(Event(a=data + b"x"))
    assert with_it.take() == without.take() == [calls[1][1]]
    assert table.debt == 3 + 1 + 1 + 1  # by what it was before it was compressed


def test_publishing_within_a_wake(framing: ModuleType) -> None:
    """Whoever is woken may broadcast, even the same type."""
    table = framing.EventTable("me", True, lambda topic: None)
    depth = 0

    def wake() -> None:
        nonlocal depth
        depth += 1
        if depth < 4:
            table.publish(Event(**{f"a{depth}": "x" * 300 * depth}))

    outlet = framing.Outlet(wake, 10**9)
    table.topic(Event).outlets = (outlet,)
    table.publish(Event(a0="y" * 2000))
    assert depth == 4
    assert len(helpers.frames_in(b"".join(outlet.take()))) == 8


def test_publishing_within_pickling(framing: ModuleType) -> None:
    """Pickling runs Python code, which may broadcast, even the same type."""
    link = Link(framing)

    class Publishes:
        def __reduce__(self) -> tuple[Any, ...]:
            link.table.publish(Event(before="inner" * 500, value=5))
            return str, ("outer",)

    for _ in range(2):
        received = link.carry(Event(before="outer" * 500, value=5))
        link.table.publish(Event(before=["outer"] * 500, value=Publishes()))
        link.feed(b"".join(link.outlet.take()))
        received = link.received()
        assert [event.value for event in received] == [5, "outer"]
        assert received[0].before == "inner" * 500
        assert received[1].before == ["outer"] * 500


# -- Both sides ------------------------------------------------------------------------------


def test_nothing_is_kept_alive(framing: ModuleType) -> None:
    """An event that was sent, received and read is gone."""
    link = Link(framing)
    references = []
    for _ in range(3):
        event = Event(a=Event(), b=[1])
        references.append(weakref.ref(event))
        (received,) = link.carry(event)
        references.append(weakref.ref(received))
        del event, received
    gc.collect()
    assert [reference() for reference in references] == [None] * 6


@pytest.mark.parametrize(
    "cls", ["Outlet", "Shape", "Topic", "EventTable", "Mailbox", "Inlet", "Reader"]
)
def test_every_class_can_be_derived_from(framing: ModuleType, cls: str) -> None:
    arguments: dict[str, tuple[Any, ...]] = {
        "Outlet": (print, 5),
        "Shape": (1, "name", 0, ()),
        "Topic": (Event,),
        "EventTable": ("me", True, print),
        "Mailbox": (),
        "Inlet": (1, "name", 0, ()),
        "Reader": (5, print),
    }
    base = getattr(framing, cls)
    derived = type("Derived", (base,), {"__slots__": ("extra",)})(*arguments[cls])
    derived.extra = 5
    assert isinstance(derived, base)


@pytest.mark.parametrize("cycle", ["outlet", "table", "mailbox", "reader", "topic", "inlet"])
def test_cycles_are_collected(framing: ModuleType, cycle: str) -> None:
    class Marker:
        def __call__(self, *arguments: Any) -> None:
            pass

    def make() -> weakref.ref[Marker]:
        marker: Any = Marker()
        thing: Any
        if cycle == "outlet":
            thing = framing.Outlet(marker, 0)
        elif cycle == "table":
            thing = framing.EventTable("", True, marker)
        elif cycle == "mailbox":
            thing = framing.Mailbox(-1, marker)
        elif cycle == "reader":
            thing = framing.Reader(5, marker)
        elif cycle == "topic":
            thing = framing.Topic(Event)
            thing.consumers = (marker,)
        else:
            thing = framing.Inlet(0, "", 0, ())
            thing.topic = framing.Topic(Event)
            thing.topic.consumers = (marker,)
        marker.thing = thing
        return weakref.ref(marker)

    reference = make()
    gc.collect()
    assert reference() is None


CALLS: list[Callable[[Any], object]] = [
    lambda m: m.EventTable.__new__(m.EventTable).publish(Event()),
    lambda m: m.EventTable.__new__(m.EventTable).topic(Event),
    lambda m: m.EventTable("", True, print).encode(None, Event(), 5, b""),
    lambda m: m.EventTable("", True, print).encode(m.Topic(Event), Event(), 5, None),
    lambda m: m.EventTable("", True, print).encode(m.Topic(Event), 5, 5, b""),
    lambda m: m.EventTable("", True, print).encode(m.Topic.__new__(m.Topic), Event(), 5, b""),
    lambda m: m.EventTable("", True, print).admit((), None, None),
    lambda m: m.EventTable("", True, print).send((m.Outlet(print, 0),), None, b""),
    lambda m: m.EventTable("", True, print).send((None,), m.Shape(0, "", 0, ()), b""),
    lambda m: m.EventTable("", True, print).send(None, m.Shape(0, "", 0, ()), b""),
    lambda m: m.EventTable("", True, print).bind(None, None),
    lambda m: m.Outlet.__new__(m.Outlet).put(b"x"),
    lambda m: m.Outlet(print, 0).put(None),
    lambda m: m.Outlet(print, 0).send(None, b""),
    lambda m: m.Outlet.__new__(m.Outlet).send(m.Shape(0, "", 0, ()), b""),
    lambda m: m.Shape(0, "", 0, None).fields[0],
    lambda m: m.Mailbox.__new__(m.Mailbox).events.append,
    lambda m: m.Inlet.__new__(m.Inlet).build(Event, b"\0N", 0, "", None, None),
    lambda m: m.Inlet(0, "", 0, ("a",)).build(None, b"\0N", 0, "", None, None),
    lambda m: m.Inlet(0, "", 0, ("a",)).build(int, b"\0N", 0, "", None, None),
    lambda m: m.Inlet(0, "", 0, ("a",)).build(Event, None, 0, "", None, None),
    lambda m: m.Reader.__new__(m.Reader).buffer_updated(1),
    lambda m: m.Reader.__new__(m.Reader).dispatch(None),
    lambda m: m.decode_value(None),
]


@pytest.mark.parametrize("index", range(len(CALLS)))
def test_misuse_raises_and_does_no_worse(framing: ModuleType, index: int) -> None:
    with pytest.raises((TypeError, AttributeError, ProtocolError, ValueError)):
        CALLS[index](framing)
