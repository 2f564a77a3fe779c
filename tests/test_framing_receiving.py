"""Both framing implementations: the receiving side."""

from __future__ import annotations

import collections
import gc
import pickle
import struct
import tracemalloc
from types import ModuleType
from typing import Any

import framing_helpers as helpers
import pytest
from framing_helpers import (
    Event,
    Fixed,
    Frozen,
    Guarded,
    Half,
    Link,
    Other,
    Shadowed,
    Slotted,
    Wakes,
    frame,
    same,
)

from lahja import wire
from lahja.common import BaseEvent
from lahja.exceptions import (
    DecodeError,
    FrameTooLarge,
    ProtocolError,
    TruncatedFrame,
)
from lahja.framing import encode_value
from lahja.names import name_of


@pytest.fixture(params=helpers.IMPLEMENTATIONS)
def framing(request: pytest.FixtureRequest) -> ModuleType:
    return helpers.load(request.param)


@pytest.fixture
def link(framing: ModuleType) -> Link:
    return Link(framing)


def test_a_mailbox_keeps_what_comes(framing: ModuleType) -> None:
    mailbox = framing.Mailbox()
    assert (mailbox.remaining, mailbox.on_last, mailbox.waker) == (-1, None, None)
    assert type(mailbox.events) is collections.deque
    for event in "abc":
        mailbox.deliver(event, False)
    assert list(mailbox.events) == ["a", "b", "c"]
    assert mailbox.events.popleft() == "a"
    wakes = Wakes()
    mailbox.waker = wakes
    mailbox.deliver(event="d", local=True)
    mailbox.deliver("e", False)
    assert wakes.count == 1
    assert mailbox.waker is None
    other: collections.deque[str] = collections.deque()
    mailbox.events = other
    mailbox.deliver("f", False)
    assert list(other) == ["f"]
    assert mailbox.events is other


def test_a_mailbox_may_be_full(framing: ModuleType) -> None:
    wakes, last = Wakes(), Wakes()
    mailbox = framing.Mailbox(remaining=2, on_last=last)
    mailbox.deliver(1, False)
    assert last.count == 0
    mailbox.waker = wakes
    mailbox.deliver(2, False)
    assert (wakes.count, last.count) == (1, 1)
    mailbox.waker = wakes
    mailbox.deliver(3, False)
    assert (wakes.count, last.count, mailbox.remaining) == (1, 1, 0)
    assert list(mailbox.events) == [1, 2]
    framing.Mailbox(0, last).deliver(1, False)
    assert last.count == 1
    silent = framing.Mailbox(1)
    silent.deliver(1, False)
    assert list(silent.events) == [1]


def test_a_mailbox_whose_reader_acts_at_once(framing: ModuleType) -> None:
    mailbox: Any = None

    def waker() -> None:
        assert mailbox.waker is None
        mailbox.waker = waker
        mailbox.remaining = 1

    mailbox = framing.Mailbox(5, Wakes())
    mailbox.waker = waker
    mailbox.deliver(1, False)
    assert mailbox.remaining == 1
    assert mailbox.on_last.count == 0
    mailbox.waker = None
    mailbox.deliver(2, False)
    assert mailbox.on_last.count == 1


@pytest.mark.parametrize("local", [False, True])
def test_mailboxes_may_be_derived_from(framing: ModuleType, link: Link, local: bool) -> None:
    class Last(framing.Mailbox):  # type: ignore[name-defined, misc]
        """Keep only the last one."""

        __slots__ = ("seen",)

        def __init__(self) -> None:
            super().__init__()
            self.seen: list[bool] = []

        def deliver(self, event: Any, local: bool) -> None:
            self.seen.append(local)
            self.events.clear()
            super().deliver(event, local)

    mailbox = Last()
    link.carry(Event(a=0))
    (link.table.topic(Event) if local else link.topics[name_of(Event)]).consumers = (mailbox,)
    for number in range(3):
        link.table.publish(Event(a=number))
    link.feed(b"".join(link.outlet.take()))
    assert [event.a for event in mailbox.events] == [2]
    assert mailbox.seen == [local] * 3


def announced(link: Link, *events: BaseEvent) -> bytes:
    """Return the frames of events, without their announcements, which have been taken in."""
    frames = [link.encode(event) for event in events]
    shapes = [shape for topic in link.table.topics.values() for shape in topic.shapes.values()]
    for shape in shapes:
        link.reader.inlets[shape.type_id] = link.receiving.Inlet(
            type_id=shape.type_id, name=shape.name, layout=shape.layout, fields=shape.fields
        )
    data = b"".join(frames)
    for shape in shapes:
        data = data.replace(shape.announcement, b"")
    return data


REQUEST_ID = bytes(range(16))


def event_frame(payload: bytes, type_id: int = 0, kind: int = wire.EVENT) -> bytes:
    request_id = b"" if kind == wire.EVENT else REQUEST_ID
    return frame(kind, struct.pack("<I", type_id) + request_id + payload)


def subscribed(framing: ModuleType, *fields: str, layout: int = wire.LAYOUT_FIELDS) -> Link:
    """Return a link to which events of the class Event were announced with the id 0."""
    link = Link(framing)
    link.table.topic(Event)
    link.reader.inlets[0] = framing.Inlet(0, name_of(Event), layout, fields)
    return link


TRAILERS = [b"", b"\x07", b"\x07\0\0\0", b"\x07\0\0\0abc"]


def arrive_in_pieces(link: Link, data: bytes, count: int) -> None:
    """Feed a whole frame byte by byte; nothing may happen before the last one."""
    for index in range(len(data)):
        assert link.reader.pending == index
        assert len(link.mailbox.events) == count
        assert link.reader.next_frame() is None
        link.feed(data[index : index + 1])


FRAMES = {
    "a hello": (frame(wire.HELLO, b"(\0\0\0\0"), None),
    "a frame of one byte": (frame(wire.GOODBYE), None),
    "an unknown kind": (frame(0xEE, b"body"), None),
    "a pickle": (frame(wire.FIRST_BYTE_OF_A_PICKLE, b"\x04"), None),
    "a response": (event_frame(b"\0N", kind=wire.RESPONSE), None),
    "a compressed frame": (frame(wire.COMPRESSED, b"data"), None),
    "a long frame": (frame(wire.SUBSCRIBE, b"x" * 1500), None),
    "an event": (event_frame(b"\0b\x05"), {"a": 5}),
    "a long event": (event_frame(b"\0Y\xe8\x03\0\0" + b"x" * 1000), {"a": b"x" * 1000}),
    "a request": (event_frame(b"\0b\x05", kind=wire.REQUEST), {"a": 5, "_id": REQUEST_ID}),
    "a pickled event": (event_frame(b"\x01" + pickle.dumps((1j,))), {"a": 1j}),
    "a pickled request": (
        event_frame(b"\x01" + pickle.dumps((1j,)), kind=wire.REQUEST),
        {"a": 1j, "_id": REQUEST_ID},
    ),
}


@pytest.mark.parametrize("trailer", TRAILERS, ids=len)
@pytest.mark.parametrize("in_pieces", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("case", FRAMES)
def test_frames_arrive(framing: ModuleType, case: str, in_pieces: bool, trailer: bytes) -> None:
    data, state = FRAMES[case]
    link = subscribed(framing, "a")
    for count in range(3):  # the first, and those after it
        if in_pieces:
            arrive_in_pieces(link, data, 0)
            link.feed(trailer)
        else:
            link.feed(data + trailer)
        assert link.reader.pending == len(trailer)
        assert link.reader.next_frame() is None
        if state is None:
            assert link.bodies == [data[4:]] * (count + 1)
        else:
            (event,) = link.received()
            assert same(vars(event), {"a": state["a"], "_origin": "sender", **state})
            assert type(event) is Event
        assert not link.errors
        if trailer:
            trailing = (trailer + b"\x07\0\0\0abcdefg"[len(trailer) :])[len(trailer) :]
            link.feed(trailing)
            assert link.reader.pending == 0
            assert link.bodies.pop() == b"abcdefg"


def test_frames_are_given_back_until_the_handshake_is_over(framing: ModuleType) -> None:
    link = subscribed(framing, "a")
    link.reader.inlets = None
    for data in (event_frame(b"\0b\x05"), event_frame(b"", kind=wire.REQUEST), frame(wire.EVENT)):
        link.feed(data)
        assert link.bodies.pop() == data[4:]
        assert link.reader.dispatch(data[4:]) is False


BROKEN = {
    "an empty frame": (b"\0\0\0\0", 4, "a frame is empty"),
    "an event without a type": (frame(wire.EVENT, b"\0\0\0"), 8, "a frame of 4 bytes is too short"),
    "an event of one byte": (frame(wire.EVENT), 5, "a frame of 1 bytes is too short for an event"),
    "a request without an id": (
        frame(wire.REQUEST, b"\0\0\0\0" + b"x" * 15),
        24,
        "a frame of 20 bytes is too short for an event",
    ),
    "an unknown type": (event_frame(b"\0", 1), 10, "an event is of a type that was not announced"),
    "the greatest type": (event_frame(b"\0", 2**32 - 1), 10, "of a type that was not announced"),
}


@pytest.mark.parametrize("trailer", TRAILERS, ids=len)
@pytest.mark.parametrize("in_pieces", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("case", BROKEN)
def test_broken_frames_are_refused_for_good(
    framing: ModuleType, case: str, in_pieces: bool, trailer: bytes
) -> None:
    data, needed, reason = BROKEN[case]
    link = subscribed(framing, "a")
    link.feed(event_frame(b"\0N"))
    link.received()
    if in_pieces:
        arrive_in_pieces(link, data[: needed - 1], 0)
        assert link.reader.next_frame() is None
        data = data[needed - 1 :]
    with pytest.raises(ProtocolError, match=reason) as caught:
        link.feed(data + trailer)
    assert type(caught.value) is ProtocolError
    for _ in range(2):
        with pytest.raises(ProtocolError) as again:
            link.reader.next_frame()
        assert again.value is caught.value
    with pytest.raises(ProtocolError):
        link.feed(event_frame(b"\0N"))
    assert not link.received()
    link.reader.end()  # what is left of a broken conversation does not count


def test_the_body_of_a_frame_is_not_empty(link: Link) -> None:
    with pytest.raises(ProtocolError, match="a frame is empty"):
        link.reader.dispatch(b"")
    with pytest.raises(ProtocolError, match="a frame is empty"):
        link.reader.dispatch(memoryview(b""))


@pytest.mark.parametrize("size", [0, 1, 2**31 - 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("difference", [-1, 0, 1, 2**64])
def test_lengths_are_unsigned_and_limited(framing: ModuleType, size: int, difference: int) -> None:
    limit = max(size - difference if abs(difference) == 1 else size + difference, 0)
    reader = framing.Reader(limit, None)
    header = struct.pack("<I", size)
    for index in range(4):
        assert reader.next_frame() is None
        reader.get_buffer()[:1] = header[index : index + 1]
        reader.buffer_updated(1)
    tracemalloc.start()
    try:
        if size > limit:
            with pytest.raises(FrameTooLarge) as too_large:
                reader.next_frame()
            assert (too_large.value.size, too_large.value.limit) == (size, limit)
            with pytest.raises(FrameTooLarge):
                reader.next_frame()
        elif not size:
            with pytest.raises(ProtocolError, match="empty"):
                reader.next_frame()
        else:
            assert reader.next_frame() is None
            assert reader.pending == 4
            assert len(reader.get_buffer()) > 0
            with pytest.raises(TruncatedFrame) as truncated:
                reader.end()
            assert truncated.value.missing == size
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_the_limit_may_change_at_any_time(link: Link) -> None:
    link.reader.limit = 5
    link.feed(frame(wire.GOODBYE, b"1234"))
    with pytest.raises(FrameTooLarge, match="a frame of 6 bytes is over the limit of 5"):
        link.feed(frame(wire.GOODBYE, b"12345"))
    for limit in (6, 6.5, 2**100, float("inf")):
        reader = link.new_reader()
        reader.limit = limit
        link.feed(frame(wire.GOODBYE, b"12345"), reader)
        for less in (5, 5.5, True, -1, -(2**100)):
            reader = link.new_reader()
            reader.limit = less
            with pytest.raises(FrameTooLarge):
                link.feed(frame(wire.GOODBYE, b"12345"), reader)
    reader = link.new_reader()
    link.feed(frame(wire.GOODBYE, b"x" * 100)[:50], reader)
    reader.limit = 10
    with pytest.raises(FrameTooLarge):
        reader.next_frame()


@pytest.mark.parametrize("cut", range(1, 9))
def test_the_end_in_the_middle_of_a_frame(link: Link, cut: int) -> None:
    link.reader.end()
    link.feed(frame(wire.GOODBYE) + frame(wire.GOODBYE, b"12345678")[:cut])
    with pytest.raises(TruncatedFrame) as caught:
        link.reader.end()
    assert caught.value.missing == (None if cut < 4 else 13 - cut)


class TestTheBuffer:
    def test_it_grows_with_what_comes_and_shrinks_again(self, framing: ModuleType) -> None:
        reader = framing.Reader(2**32 - 1, None)
        sizes = []
        body = b"x" * 3_000_000
        data = memoryview(frame(wire.SUBSCRIBE, body))
        while data:
            room = reader.get_buffer(65536)
            sizes.append(len(room))
            count = min(len(room), len(data))
            room[:count], data = data[:count], data[count:]
            reader.buffer_updated(count)
        assert sizes[0] == 16 * 1024
        assert sum(sizes) < 2 * len(body) + 1_000_000
        assert len(sizes) < 20
        assert reader.next_frame() == bytes((wire.SUBSCRIBE,)) + body
        assert reader.next_frame() is None
        assert reader.pending == 0
        assert len(reader.get_buffer()) <= 256 * 1024

    def test_a_header_alone_reserves_little(self, framing: ModuleType) -> None:
        reader = framing.Reader(2**32 - 1, None)
        total = 0
        data = struct.pack("<I", 2**32 - 1)
        for _ in range(1000):
            room = reader.get_buffer()
            total = max(total, len(room))
            room[: len(data)] = data
            reader.buffer_updated(len(data))
            assert reader.next_frame() is None
            data = b"x"
        assert total <= 64 * 1024

    def test_many_small_reads_let_it_grow(self, framing: ModuleType) -> None:
        reader = framing.Reader(1000, None)
        sizes = []
        for _ in range(8):
            room = reader.get_buffer()
            sizes.append(len(room))
            small = frame(wire.GOODBYE, b"123")
            room[:] = small * (len(room) // len(small))
            reader.buffer_updated(len(room))
            while reader.next_frame() is not None:
                pass
        assert sizes == [2**14, 2**15, 2**16, 2**17, 2**18, 2**18, 2**18, 2**18]

    @pytest.mark.parametrize("step", [1, 7, 1000, 16_383, 16_384, 20_000, 100_000])
    def test_frames_of_all_sizes_in_pieces_of_one(self, framing: ModuleType, step: int) -> None:
        sizes = [1, 10, 16_380, 16_384, 3, 40_000, 5, 100_000, 270_000, 2] if step > 10 else [9, 50]
        link = Link(framing)
        data = b"".join(frame(wire.SUBSCRIBE, bytes((size % 251,)) * size) for size in sizes)
        for start in range(0, len(data), step):
            link.feed(data[start : start + step])
        bodies = [bytes((wire.SUBSCRIBE,)) + bytes((size % 251,)) * size for size in sizes]
        assert link.bodies == bodies
        assert link.reader.pending == 0

    @pytest.mark.parametrize("count", [-1, 16 * 1024 + 1, 2**63, 2**100, -(2**100)])
    def test_it_has_no_room_for_more_than_it_has(self, framing: ModuleType, count: int) -> None:
        reader = framing.Reader(1000, None)
        with pytest.raises(ValueError, match=f"^the buffer has no room for {count} bytes$"):
            reader.buffer_updated(count)
        reader.get_buffer()
        with pytest.raises(ValueError, match=f"^the buffer has no room for {count} bytes$"):
            reader.buffer_updated(nbytes=count)
        assert reader.pending == 0
        reader.buffer_updated(0)
        reader.buffer_updated(16 * 1024)
        assert reader.pending == 16 * 1024

    def test_a_body_stays_valid_until_the_next_read(self, framing: ModuleType) -> None:
        link = Link(framing)
        room = link.reader.get_buffer()
        data = frame(wire.HELLO, b"hello") + frame(wire.GOODBYE, b"bye")
        room[: len(data)] = data
        link.reader.buffer_updated(len(data))
        first, second = link.reader.next_frame(), link.reader.next_frame()
        assert (bytes(first), bytes(second)) == (b"\x01hello", b"\x0abye")
        del link.reader
        assert (bytes(first), bytes(second)) == (b"\x01hello", b"\x0abye")


class TestPayloads:
    """One event that does not decode is lost; the connection goes on."""

    def lose(self, link: Link, payload: bytes) -> DecodeError:
        for _ in range(2):
            link.feed(event_frame(payload) + event_frame(payload, kind=wire.REQUEST))
            assert not link.received()
            assert link.reader.pending == 0
            assert link.reader.next_frame() is None
        assert len(link.errors) == 4
        messages = {str(error) for _, error in link.errors}
        assert {inlet for inlet, _ in link.errors} == {link.reader.inlets[0]}
        assert len(messages) == 1
        error = link.errors[0][1]
        assert type(error) is DecodeError
        return error

    @pytest.mark.parametrize(
        ("payload", "reason"),
        [
            (b"", "a payload is missing"),
            (b"\0", "a value is cut short"),
            (b"\0N", "a value is cut short"),
            (b"\0NNN", "1 bytes too many follow the fields"),
            (b"\0NN" + b"\0" * 50, "50 bytes too many follow the fields"),
            (b"\0N?", "0x3f is not the tag of a value"),
            (b"\x02NN", "2 is not a form of payload that its layout allows"),
            (b"\xffNN", "255 is not a form of payload that its layout allows"),
            (b"\x01", "EOFError: Ran out of input"),
            (b"\x01" + pickle.dumps([1, 2]), "the pickle does not hold the announced fields"),
            (b"\x01" + pickle.dumps((1,)), "the pickle does not hold the announced fields"),
            (b"\x01" + pickle.dumps((1, 2, 3)), "the pickle does not hold the announced fields"),
            (b"\x01" + pickle.dumps(helpers.Pair(1, 2)), "does not hold the announced fields"),
        ],
    )
    def test_fields(self, framing: ModuleType, payload: bytes, reason: str) -> None:
        assert reason in str(self.lose(subscribed(framing, "a", "b"), payload))

    @pytest.mark.parametrize(
        ("payload", "reason"),
        [
            (b"\0", "a value is cut short"),
            (b"\0N", "the fields are not a dict of names"),
            (b"\0{\1\0\0\0NN", "the fields are not a dict of names"),
            (b"\0{\1\0\0\0s\x07_originN", "the fields are not a dict of names"),
            (b"\0{\1\0\0\0s\x03_idN", "the fields are not a dict of names"),
            (b"\0{\1\0\0\0s\x08is_boundN", "the fields are not a dict of names"),
            (b"\0{\0\0\0\0N", "1 bytes too many follow the fields"),
            (b"\x01" + pickle.dumps({}), "the pickle does not hold the announced fields"),
            (b"\x01" + pickle.dumps((5,)), "the fields are not a dict of names"),
            (
                b"\x01" + pickle.dumps((collections.OrderedDict(a=1),)),
                "the fields are not a dict of names",
            ),
            (b"\x01" + pickle.dumps(({helpers.Str("a"): 1},)), "the fields are not a dict of"),
        ],
    )
    def test_mapping(self, framing: ModuleType, payload: bytes, reason: str) -> None:
        link = subscribed(framing, layout=wire.LAYOUT_MAPPING)
        assert reason in str(self.lose(link, payload))

    @pytest.mark.parametrize(
        ("payload", "reason"),
        [
            (b"\0", "0 is not a form of payload that its layout allows"),
            (b"\x01" + pickle.dumps(5), "the pickle holds a int"),
            (b"\x01" + pickle.dumps(Other(a=1)), "the pickle holds a Other"),
        ],
    )
    def test_whole(self, framing: ModuleType, payload: bytes, reason: str) -> None:
        link = subscribed(framing, layout=wire.LAYOUT_WHOLE)
        assert str(self.lose(link, payload)) == reason

    def test_a_pickle_that_fails(self, framing: ModuleType) -> None:
        payload = b"\x01cno_such_module\nthing\n."
        error = self.lose(subscribed(framing, "a", "b"), payload)
        assert str(error) == "ModuleNotFoundError: No module named 'no_such_module'"
        assert isinstance(error.__cause__, ModuleNotFoundError)

    def test_no_pickles(self, framing: ModuleType) -> None:
        link = subscribed(framing, "a")
        link.reader.loads = None
        error = self.lose(link, b"\x01" + pickle.dumps((1,)))
        assert str(error) == "it is pickled, and this endpoint has allow_pickle=False"

    def test_what_unpickles_can_be_replaced(self, framing: ModuleType) -> None:
        link = subscribed(framing, "a")
        seen: list[bytes] = []

        def loads(data: memoryview) -> tuple[str]:
            seen.append(bytes(data))
            return ("loaded",)

        link.reader.loads = loads
        link.feed(event_frame(b"\x01anything") + event_frame(b"\x01") + event_frame(b"\0N"))
        assert [event.a for event in link.received()] == ["loaded", "loaded", None]
        assert seen == [b"anything", b""]
        assert link.reader.dispatch(event_frame(b"\x01other")[4:])
        assert seen[2:] == [b"other"]

    def test_a_class_of_which_there_are_no_instances(self, framing: ModuleType) -> None:
        for cls in (helpers.AbstractRequest, type("Keyed", (collections.deque, BaseEvent), {})):
            link = subscribed(framing, "a")
            topic = framing.Topic(cls)
            topic.consumers = (link.mailbox,)
            link.reader.find_topic = lambda name, topic=topic: topic
            error = self.lose(link, b"\0N")
            assert isinstance(error.__cause__, TypeError)
            # What is wrong with the bytes is found before.
            link.errors.clear()
            assert "cut short" in str(self.lose(link, b"\0"))


def test_fields_are_attributes_whatever_they_are_called(framing: ModuleType) -> None:
    names = ("__class__", "__dict__", "__weakref__", "value", "settable", "get_origin", "", "a b")
    link = subscribed(framing, *names)
    topic = framing.Topic(Shadowed)
    topic.consumers = (link.mailbox,)
    link.reader.find_topic = lambda name: topic
    payload = b"\0" + b"".join(framing.encode_value(i) for i in range(len(names)))
    for _ in range(3):
        link.feed(event_frame(payload))
        (event,) = link.received()
        expected = dict(zip(names, range(len(names)), strict=True))
        assert event.__class__ is type(event) is Shadowed
        assert object.__getattribute__(event, "__dict__") == {**expected, "_origin": "sender"}
        assert event.value == "of the property"


def test_slots_of_the_sender_may_be_entries_here(framing: ModuleType) -> None:
    """What is announced are names; where they belong is up to the class that this process has."""
    link = subscribed(framing, "_Half__private", "kept", "nowhere")
    topic = framing.Topic(Half)
    topic.consumers = (link.mailbox,)
    link.reader.find_topic = lambda name: topic
    for _ in range(3):
        link.feed(event_frame(b"\0b\x01b\x02b\x03"))
        (event,) = link.received()
        assert (event.private, event.kept, vars(event)) == (
            1,
            2,
            {"nowhere": 3, "_origin": "sender"},
        )
        assert not hasattr(event, "empty")


def test_one_inlet_may_build_several_classes(framing: ModuleType) -> None:
    inlet = framing.Inlet(0, "name", wire.LAYOUT_FIELDS, ("number", "text"))
    body = b"\0b\x05s\x01x"
    cls: Any
    for cls in (Event, Slotted, Frozen, Event, Event, Guarded, Slotted, Slotted, Shadowed):
        for request_id in (None, b"id"):
            event = inlet.build(
                cls=cls,
                data=b"..." + body,
                offset=3,
                origin="origin",
                request_id=request_id,
                loads=None,
            )
            assert type(event) is cls
            assert (event.number, event.text, event.get_origin()) == (5, "x", "origin")
            assert event._id == request_id
    # What holds for one class does not for another.
    keyed = type("Keyed", (collections.deque, BaseEvent), {})
    for cls in (Event, helpers.AbstractRequest, Event, keyed, int, None, Event):
        if cls is Event:
            inlet.build(cls, body, 0, "origin", None, None)
        else:
            with pytest.raises(DecodeError, match="TypeError"):
                inlet.build(cls, body, 0, "origin", None, None)
    valued = framing.Inlet(0, "name", wire.LAYOUT_FIELDS, ("value",))
    for cls in (Event, Event, Shadowed, Shadowed, Event, helpers.Other):
        assert vars(valued.build(cls, b"\0b\5", 0, "o", None, None)) == {"value": 5, "_origin": "o"}
    for data in (bytearray(body), memoryview(body), memoryview(b"\0?b?\x05?s?\x01?x?")[::2]):
        assert inlet.build(Event, data, 0, "origin", None, None).text == "x"
    for offset in (-1, -7, 6, 7, 2**100, -(2**100)):
        with pytest.raises(DecodeError, match="a payload is missing"):
            inlet.build(Event, body, offset, "origin", None, None)


def test_events_that_nobody_wants_any_more_are_not_decoded(framing: ModuleType) -> None:
    link = subscribed(framing, "a")
    asked: list[str] = []
    topic: Any = None

    def find_topic(name: str) -> Any:
        asked.append(name)
        return topic

    def loads(data: Any) -> Any:
        raise AssertionError("it was unpickled")

    link.reader.find_topic = find_topic
    link.reader.loads = loads
    link.feed(event_frame(b"\x01") + event_frame(b"\xff"))
    topic = framing.Topic(Event)
    link.feed(event_frame(b"\x01"))
    assert asked == [name_of(Event)] * 3
    assert not link.errors
    topic.consumers = (link.mailbox,)
    link.feed(event_frame(b"\0N") * 3)
    assert len(asked) == 3
    assert len(link.received()) == 3
    assert link.reader.inlets[0].topic is topic
    topic.consumers = ()
    link.feed(event_frame(b"\x01") * 2)
    assert len(asked) == 5
    other = framing.Topic(Other)
    other.consumers = (link.mailbox,)
    topic = other
    link.feed(event_frame(b"\0N"))
    assert [type(event) for event in link.received()] == [Other]
    reader = framing.Reader(1000, None)
    assert reader.find_topic("name") is None
    assert reader.loads is pickle.loads
    assert (reader.origin, reader.inlets, reader.limit, reader.on_error) == ("", None, 1000, None)


def test_consumers_get_an_event_in_order(framing: ModuleType) -> None:
    link = subscribed(framing, "a")
    fixed = [Fixed(), Fixed()]
    topic = link.topics[name_of(Event)]
    order: list[str] = []

    class Leaves(Fixed):
        def deliver(self, event: Any, local: bool) -> None:
            order.append("leaves")
            topic.consumers = ()

    topic.consumers = (fixed[0], link.mailbox, Leaves(), fixed[1])
    link.feed(event_frame(b"\0N") * 2)
    (event,) = link.mailbox.events
    assert order == ["leaves"]
    assert fixed[0].got == fixed[1].got == [(event, False)]


class Lasts:
    """Be a consumer for which each event takes so many seconds, by a clock that is looked at."""

    def __init__(self, seconds: float) -> None:
        self.now = 0.0
        self.seconds = seconds
        self.got: list[Any] = []
        self.looked_after: list[int] = []

    def deliver(self, event: Any, local: bool) -> None:
        self.got.append(event.a)
        self.now += self.seconds

    def clock(self) -> float:
        self.looked_after.append(len(self.got))
        return self.now


def lasting(framing: ModuleType, seconds: float) -> tuple[Link, Lasts]:
    """Return a link to a consumer for which each event takes so many seconds."""
    link = subscribed(framing, "a")
    consumer = Lasts(seconds)
    link.topics[name_of(Event)].consumers = (consumer,)
    link.reader.clock = consumer.clock
    return link, consumer


def counted(count: int) -> bytes:
    """Return the frames of so many events, with their numbers."""
    return b"".join(event_frame(b"\0" + encode_value(each)) for each in range(count))


@pytest.mark.parametrize(
    ("seconds", "per_turn"), [(0.3, 2), (0.02, 2), (0.019, 4), (0.01, 4), (0.004, 8), (0.002, 16)]
)
def test_where_consumers_take_long_others_get_a_turn_in_between(
    framing: ModuleType, seconds: float, per_turn: int
) -> None:
    link, consumer = lasting(framing, seconds)
    link.feed(counted(2 * per_turn + 1) + frame(wire.GOODBYE, b"in its turn"))
    for turn in (1, 2):
        assert consumer.got == list(range(turn * per_turn))
        assert link.reader.has_more
        assert not link.bodies
        link.reader.buffer_updated(0)
        link.handle(link.reader)
    assert consumer.got == list(range(2 * per_turn + 1))
    assert not link.reader.has_more
    assert [body[1:] for body in link.bodies] == [b"in its turn"]
    assert link.reader.pending == 0


def test_the_clock_is_looked_at_ever_less_often_where_all_goes_quickly(
    framing: ModuleType,
) -> None:
    link, consumer = lasting(framing, 1e-6)
    for count, looks in (
        (1, []),
        (2, [1]),
        (3, [1, 2]),
        (100, [1, 2, 4, 8, 16, 32, 48, 64, 80, 96]),
    ):
        consumer.got.clear()
        consumer.looked_after.clear()
        link.feed(counted(count))
        assert consumer.got == list(range(count))
        assert consumer.looked_after == looks
        assert not link.reader.has_more
    consumer.got.clear()
    consumer.looked_after.clear()
    link.feed(counted(5)[:-1])  # the end of the last one may come at once, or never
    assert consumer.looked_after == [1, 2, 4]
    assert link.reader.clock() == consumer.now
    assert framing.Reader(5, None).clock() == 0


def test_classes_of_one_name_get_an_instance_each(framing: ModuleType) -> None:
    """One that cannot be made keeps nobody else from getting his; all are made before any goes."""
    link = subscribed(framing, "number")
    order: list[Any] = []

    class Notes:
        def deliver(self, event: Any, local: bool) -> None:
            order.append(event)
            for twin in topic.twins:
                assert twin.cls is not Slotted or twin.consumers

    topic = link.topics[name_of(Event)]
    twins = [framing.Topic(cls) for cls in (Slotted, helpers.AbstractRequest, Guarded)]
    topic.consumers = (Notes(), link.mailbox)
    for twin in twins:
        twin.consumers = (link.mailbox, Notes())
    topic.twins = tuple(twins)
    for kind in (wire.EVENT, wire.REQUEST):
        link.feed(event_frame(b"\0b\5", kind=kind))
        events = link.received()
        assert [type(event) for event in events] == [Event, Slotted, Guarded]
        assert [event.number for event in events] == [5, 5, 5]
        assert all(each is event for each, event in zip(order, events, strict=True))
        assert {event._id for event in events} == {REQUEST_ID if kind == wire.REQUEST else None}
        assert ["abstract" in str(error) for _, error in link.errors] == [True]
        order.clear()
        link.errors.clear()
    link.feed(event_frame(b"\xff"))
    assert len(link.errors) == 4
    assert not order
    topic.twins = ()
    link.feed(event_frame(b"\0b\5"))
    assert [type(event) for event in link.received()] == [Event]


class TestReentry:
    """What is called while a frame is handled may use the reader itself."""

    def test_deliveries(self, framing: ModuleType) -> None:
        link = subscribed(framing, "a")
        got: list[tuple[int, Any]] = []
        depth = 0

        class Nested:
            def deliver(self, event: Any, local: bool) -> None:
                nonlocal depth
                depth += 1
                got.append((depth, event.a))
                link.reader.get_buffer()[:] = b"\xff" * len(link.reader.get_buffer())
                assert link.reader.next_frame() is None
                depth -= 1

        link.topics[name_of(Event)].consumers = (Nested(), Nested())
        data = b"".join(event_frame(b"\0b" + bytes((number,))) for number in range(3))
        room = link.reader.get_buffer()
        room[: len(data)] = data
        link.reader.buffer_updated(len(data))
        assert link.reader.next_frame() is None
        assert got == [(1, 0), (2, 1), (3, 2), (3, 2), (2, 1), (1, 0)]
        assert link.reader.pending == 0

    def test_the_buffer_is_replaced_while_an_event_is_unpickled(self, framing: ModuleType) -> None:
        link = subscribed(framing, "a")
        payload = b"\x01" + b"payload" * 10

        def loads(data: memoryview) -> Any:
            before = bytes(data)
            view = memoryview(bytes(range(256)) * 1000)
            while view:  # the buffer grows, and moves
                room = link.reader.get_buffer()
                count = min(len(room), len(view))
                room[:count], view = view[:count], view[count:]
                link.reader.buffer_updated(count)
            gc.collect()
            assert len(data) == len(before) == 70
            return (before,)

        link.reader.loads = loads
        data = event_frame(payload) + struct.pack("<I", 10**6) + b"\x01"
        room = link.reader.get_buffer()
        room[: len(data)] = data
        room.release()
        link.reader.buffer_updated(len(data))
        assert link.reader.next_frame() is None
        (event,) = link.received()
        assert event.a == b"payload" * 10
        assert link.reader.pending == 5 + 256_000

    def test_errors_of_consumers_come_out(self, framing: ModuleType) -> None:
        link = subscribed(framing, "a")

        class Broken:
            def deliver(self, event: Any, local: bool) -> None:
                raise RuntimeError("broken")

        link.topics[name_of(Event)].consumers = (Broken(),)
        with pytest.raises(RuntimeError, match="broken"):
            link.feed(event_frame(b"\0N") + frame(wire.GOODBYE))
        link.handle(link.reader)  # the position was moved before
        assert link.bodies == [bytes((wire.GOODBYE,))]

    def test_the_reader_goes_away(self, framing: ModuleType) -> None:
        link = subscribed(framing, "a")

        class Drops:
            def deliver(self, event: Any, local: bool) -> None:
                del link.reader.inlets[0]
                link.reader.inlets = None
                link.topics.clear()
                del link.reader
                gc.collect()

        link.topics[name_of(Event)].consumers = (Drops(),)
        reader = link.reader
        link.feed(event_frame(b"\0N") + event_frame(b"\0N"), reader)
        assert link.bodies == [event_frame(b"\0N")[4:]]

    def test_on_error(self, framing: ModuleType) -> None:
        link = subscribed(framing, "a")
        calls: list[str] = []

        def on_error(inlet: Any, error: DecodeError) -> None:
            calls.append(str(error))
            assert link.reader.next_frame() is None

        link.reader.on_error = on_error
        link.feed(event_frame(b"\xff") + event_frame(b"\0N"))
        assert len(calls) == 1
        assert len(link.received()) == 1

        def fails(inlet: Any, error: DecodeError) -> None:
            raise error

        link.reader.on_error = fails
        with pytest.raises(DecodeError):
            link.feed(event_frame(b"\xff"))
        with pytest.raises(DecodeError):
            link.reader.next_frame()


def test_dispatch_takes_a_body_from_elsewhere(framing: ModuleType) -> None:
    link = subscribed(framing, "a")
    body = event_frame(b"\0b\x05")[4:]
    for form in (body, bytearray(body), memoryview(body), memoryview(bytearray(body))):
        assert link.reader.dispatch(body=form) is True
    assert [event.a for event in link.received()] == [5] * 4
    assert link.reader.dispatch(frame(wire.HELLO)[4:]) is False
    with pytest.raises(ProtocolError, match="not announced"):
        link.reader.dispatch(event_frame(b"", 7)[4:])
    assert link.reader.next_frame() is None


def test_other_loads_see_the_payload_only(framing: ModuleType) -> None:
    link = subscribed(framing, layout=wire.LAYOUT_WHOLE)
    event = Event(a=1)
    payload = pickle.dumps(event)
    seen: list[bytes] = []

    def loads(data: memoryview) -> Any:
        seen.append(bytes(data))
        return pickle.loads(data)

    link.reader.loads = loads
    link.feed(event_frame(b"\x01" + payload) + event_frame(b"\x01" + payload, kind=wire.REQUEST))
    assert seen == [payload] * 2
    first, second = link.received()
    assert vars(first) == {"a": 1, "_origin": "sender"}
    assert vars(second) == {"a": 1, "_origin": "sender", "_id": REQUEST_ID}
