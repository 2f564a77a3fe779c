"""
Nothing is leaked by any entry point of the framing implementations.

Each is called many times, and then there must be no more memory in use, and no more references to
the objects that took part. A compiled module can forget a reference on every path that it has, so
that the errors are called for, too.
"""

from __future__ import annotations

import gc
import pickle
import struct
import sys
import tracemalloc
from collections.abc import Callable
from types import ModuleType
from typing import Any

import framing_helpers as helpers
import pytest
from framing_helpers import Event, Guarded, Half, Link, Plain, Slotted, frame, frames_in, nested

from lahja import wire
from lahja.frames import APART
from lahja.names import name_of

ROUNDS = 100
ATTEMPTS = 5  # caches and free lists fill up by and by; a leak is there each time
SMALLEST = 16  # bytes of the smallest object that there is

Scenario = Callable[[ModuleType, list[Any]], Callable[[], object]]
SCENARIOS: dict[str, Scenario] = {}


@pytest.fixture(params=helpers.IMPLEMENTATIONS)
def framing(request: pytest.FixtureRequest) -> ModuleType:
    return helpers.load(request.param)


def scenario(function: Scenario) -> Scenario:
    """Add what is to be tested: given the module, it returns the call that is repeated."""
    SCENARIOS[function.__name__] = function
    return function


def quietly(function: Callable[..., Any], *arguments: Any) -> None:
    """Call a function that raises an error."""
    try:
        function(*arguments)
    except Exception:
        return
    raise AssertionError("there was no error")


def measure(function: Callable[[], object], watched: list[Any]) -> tuple[int, list[int]]:
    """Return how much memory is used, and how many references there are, after many calls."""
    for _ in range(ROUNDS):
        function()
    gc.collect()
    return tracemalloc.get_traced_memory()[0], [sys.getrefcount(each) for each in watched]


# -- The codec -------------------------------------------------------------------------------


@scenario
def encode_values(framing: ModuleType, watched: list[Any]) -> Callable[[], object]:
    values = [value for group in helpers.PLAIN_VALUES.values() for value in group]
    watched += values

    def call() -> None:
        for value in values[::7]:
            framing.encode_value(value)

    return call


@scenario
def encode_one_great_value(framing: ModuleType, watched: list[Any]) -> Callable[[], object]:
    values = ["ä" * 10_000, b"x" * 50_000, list(range(2000)), 2**100_000, "\ud800" * 5000]
    watched += values
    return lambda: framing.encode_value(values)


@scenario
def encode_what_is_not_plain(framing: ModuleType, watched: list[Any]) -> Callable[[], object]:
    values = [1j, [b"x" * 5000, {1: {2j}}], nested(101), (nested(101, tuple),), Event()]
    watched += values

    def call() -> None:
        for value in values:
            quietly(framing.encode_value, value)

    return call


@scenario
def decode_values(framing: ModuleType, watched: list[Any]) -> Callable[[], object]:
    values = [value for group in helpers.PLAIN_VALUES.values() for value in group]
    data = [framing.encode_value(value) for value in values]
    watched += data

    def call() -> None:
        for each in data[::7]:
            framing.decode_value(each)
            framing.decode_value(bytearray(each), 0)

    return call


@scenario
def decode_broken_values(framing: ModuleType, watched: list[Any]) -> Callable[[], object]:
    container = framing.encode_value(
        [{"key": (1, 2.5, "text", b"bytes")}, {5, "a"}, frozenset((1,)), 2**100, "ä\ud800"]
    )
    data = [container[:cut] for cut in range(0, len(container), 5)]
    data += [
        b"?",
        b"s\x01\xff",
        b"U\x01\0\0\0\xff",
        b"[\x02\0\0\0N?",
        b"[\xff\xff\xff\xff" + b"s\x05abcde" * 50,
        b"[\x02\x01\0\0" + b"s\x05abcde" * 257 + b"?",
        b"(\x02\x01\0\0" + b"s\x05abcde" * 257 + b"?",
        b"(\x02\0\0\0s\x05abcde?",
        b"<\x02\0\0\0[\0\0\0\0s\x05abcde",
        b">\x02\0\0\0[\0\0\0\0s\x05abcde",
        b"{\x02\0\0\0[\0\0\0\0s\x05abcdeNN",
        b"{\x02\0\0\0s\x05abcdes\x05abcde",
        b"(\x01\0\0\0" * 200,
    ]

    def call() -> None:
        for each in data:
            quietly(framing.decode_value, each)
        quietly(framing.decode_value, b"N", -1)
        quietly(framing.decode_value, b"N", 2**100)

    return call


@scenario
def decode_what_cannot_be(framing: ModuleType, watched: list[Any]) -> Callable[[], object]:
    view = memoryview(b"N-T-")[::2]
    watched.append(view)

    def call() -> None:
        framing.decode_value(view)
        quietly(framing.decode_value, None)
        quietly(framing.decode_value)

    return call


# -- Sending ---------------------------------------------------------------------------------


@scenario
def instances(framing: ModuleType, watched: list[Any]) -> Callable[[], object]:
    watched += [Event, print]

    def call() -> None:
        framing.Outlet(print, 5)
        framing.Shape(5, "name", 0, ("a", "b"))
        framing.Topic(Event)
        framing.EventTable("name", True, print).topic(Event)
        framing.Mailbox(5, print)
        framing.Inlet(5, "name", 0, ("a",))
        framing.Reader(5, print).get_buffer()
        for name in ("Outlet", "Shape", "Topic", "EventTable", "Inlet", "Reader"):
            quietly(getattr(framing, name))
            getattr(framing, name).__new__(getattr(framing, name))
        quietly(framing.EventTable("name", True, print).topic, 5)

    return call


@scenario
def outlets(framing: ModuleType, watched: list[Any]) -> Callable[[], object]:
    shape = framing.Shape(5, "name", 0, ("a", "b"))
    data = b"frame" * 5
    outlet = framing.Outlet(lambda: None, 0)
    watched += [shape, data, shape.announcement, shape.type_id, outlet]

    def fail() -> None:
        raise RuntimeError

    def call() -> None:
        outlet.put(data)
        outlet.announced.clear()
        outlet.send(shape, data)
        outlet.send(shape, data)
        outlet.take()
        broken = framing.Outlet(fail, 0)
        quietly(broken.put, data)
        quietly(broken.send, shape, data)
        quietly(broken.put, None)

    return call


def _sending(framing: ModuleType, watched: list[Any], make: Callable[[], Any]) -> Link:
    link = Link(framing)
    topic = link.table.topic(type(make()))
    link.table.publish(make())
    watched += [link.table, link.outlet, topic, type(make()), link.table.origin]
    watched += [*topic.shapes.values(), *topic.slots]
    for shape in topic.shapes.values():
        watched += [shape.fields, *shape.fields, shape.announcement, shape.type_id]
    return link


MAKERS: dict[str, Callable[[], Any]] = {
    "plain": lambda: Plain(5, "text", b"data"),
    "large": lambda: Event(data=b"x" * 5000, texts=["ä" * 500]),
    "slots": lambda: Slotted(5),
    "half_slots": lambda: Half(1, 2, other=3),
    "guarded": lambda: Guarded(2**100),
    "pickled": lambda: Plain(5, "text", helpers.Point(1)),  # type: ignore[arg-type]
    "whole": lambda: helpers.Reduced(5),
    "empty": lambda: Event(),
    "deep": lambda: Event(deep=nested(101)),
}


def _add_makers() -> None:
    for name, make in MAKERS.items():

        def publish(
            framing: ModuleType, watched: list[Any], make: Callable[[], Any] = make
        ) -> Callable[[], object]:
            link = _sending(framing, watched, make)
            fixed = Fixed()
            link.table.topic(type(make())).consumers = (fixed, framing.Mailbox(0))
            watched.append(fixed)

            def call() -> None:
                link.table.publish(make())
                event = make()
                topic = link.table.topic(type(event))
                link.table.encode(topic, event, wire.REQUEST, b"0123456789abcdef")
                link.table.bind(event, b"id")
                quietly(link.table.publish, event)
                link.outlet.take()

            return call

        def carry(
            framing: ModuleType, watched: list[Any], make: Callable[[], Any] = make
        ) -> Callable[[], object]:
            link = _sending(framing, watched, make)
            link.feed(b"".join(link.outlet.take()))
            link.received()
            watched += [*link.reader.inlets.values(), *link.topics.values(), link.mailbox]
            for inlet in link.reader.inlets.values():
                watched += [inlet.fields, *inlet.fields, inlet.name]
            watched += [link.reader, link.reader.origin, link.reader.inlets]

            def call() -> None:
                link.carry(make(), make())

            return call

        def build(
            framing: ModuleType, watched: list[Any], make: Callable[[], Any] = make
        ) -> Callable[[], object]:
            link = _sending(framing, watched, make)
            (shape,) = link.table.topic(type(make())).shapes.values()
            data = frames_in(b"".join(link.outlet.take()))[-1]
            inlet = framing.Inlet(0, shape.name, shape.layout, shape.fields)
            cls, other, identifier = type(make()), type("Other", (Event,), {}), b"i" * 16
            watched += [cls, other, data, inlet, identifier]
            loads = pickle.loads

            def call() -> None:
                for form in (data, memoryview(data), bytearray(data)):
                    inlet.build(cls, form, 9, "origin", identifier, loads)
                inlet.build(cls, data, 9, "origin", None, loads)
                if shape.layout != wire.LAYOUT_WHOLE:
                    inlet.build(other, data, 9, "origin", None, loads)
                quietly(inlet.build, helpers.AbstractRequest, data, 9, "", None, loads)
                quietly(inlet.build, int, data, 9, "", None, loads)
                quietly(inlet.build, cls, data + b"N", 900, "", None, None)
                quietly(inlet.build, cls, None, 9, "", None, None)

            return call

        SCENARIOS[f"publish_{name}"] = publish
        SCENARIOS[f"carry_{name}"] = carry
        SCENARIOS[f"build_{name}"] = build


class Fixed:
    """Be a consumer that is no mailbox."""

    def deliver(self, event: Any, local: bool) -> None:
        pass


_add_makers()


@scenario
def publish_a_mapping(framing: ModuleType, watched: list[Any]) -> Callable[[], object]:
    link = Link(framing)
    for index in range(wire.MAX_SHAPES + 3):
        link.carry(Event(**{f"name {index}": index}))
    watched += [link.table.topic(Event), *link.table.topic(Event).shapes.values()]
    return lambda: link.carry(Event(another=5, name=b"x"), Event(another=1j))


@scenario
def publish_different_shapes(framing: ModuleType, watched: list[Any]) -> Callable[[], object]:
    link = Link(framing)

    def call() -> None:
        odd = Event(a=1)
        odd.__dict__[5] = 5  # type: ignore[index]
        link.carry(Event(a=1), Event(b=1), odd, Event(a=1, b=2), Event(_id=None, a=1))

    call()
    watched += [link.table.topic(Event), *link.table.topic(Event).shapes.values()]
    return call


@scenario
def publish_what_cannot_be_sent(framing: ModuleType, watched: list[Any]) -> Callable[[], object]:
    link = Link(framing)
    strict = Link(framing, allow_pickle=False)
    link.carry(Event(a=1, b=1), helpers.Reduced(1))
    strict.carry(Event(a=1, b=1))
    function = lambda: None  # noqa: E731
    link.table.limit = link.outlet.limit = 1000
    events = [Event(a=1, b=function), helpers.Reduced(function), Event(a=b"x" * 2000)]
    refused = [
        Event(a=1, b=1j),
        helpers.Reduced(1),
        Event(a=nested(101)),
        Event(a=[b"x" * 5000, 1j]),
    ]
    watched += [function, *events, *refused, Event, link.table, strict.table]

    def call() -> None:
        for event in events:
            quietly(link.table.publish, event)
        for event in refused:
            quietly(strict.table.publish, event)
        quietly(link.table.publish, 5)
        quietly(link.table.encode, None, events[0], 5, b"")
        quietly(link.table.encode, link.table.topic(Event), events[0], 5, None)

    return call


@scenario
def publish_locally(framing: ModuleType, watched: list[Any]) -> Callable[[], object]:
    table = framing.EventTable("me", True, lambda topic: None)
    mailbox, fixed = framing.Mailbox(0), Fixed()
    table.topic(Event).consumers = (mailbox, fixed)
    watched += [table, mailbox, fixed, Event, table.origin]

    def call() -> None:
        event = Event(a=1)
        table.publish(event)
        quietly(table.publish, event)
        table.publish(Plain(1, "", b""))

    return call


@scenario
def send_compressed(framing: ModuleType, watched: list[Any]) -> Callable[[], object]:
    link = Link(framing)
    link.table.topic(Event)
    link.outlet.compress = True
    compressed: Any = bytes(20)
    link.table.compressor = lambda shape, data: compressed
    watched.append(compressed)

    def call() -> None:
        link.table.publish(Event(a=b"x" * 2000))
        link.outlet.take()
        quietly(link.table.send, (None,), framing.Shape(0, "", 0, ()), b"x")

    return call


@scenario
def send_in_pieces(framing: ModuleType, watched: list[Any]) -> Callable[[], object]:
    link, strict = Link(framing), Link(framing, allow_pickle=False)
    value = bytes(APART)
    watched += [value, link.outlet]

    def call() -> None:
        for event in (Event(a=value), Event(a=[value], b=value), Event(a=value, b=1j)):
            link.table.publish(event)
        link.table.publish(Event(a=bytearray(value)))
        quietly(strict.table.publish, Event(a=value, b=1j))
        link.outlet.take()
        for bad in (None, 5):
            quietly(link.table.send, (link.outlet,), framing.Shape(0, "", 0, ()), bad)
            link.outlet.take()

    return call


# -- Receiving -------------------------------------------------------------------------------


@scenario
def mailboxes(framing: ModuleType, watched: list[Any]) -> Callable[[], object]:
    class Derived(framing.Mailbox):  # type: ignore[name-defined, misc]
        def deliver(self, event: Any, local: bool) -> None:
            super().deliver(event, local)

    event = Event()
    watched += [event, Derived, print]

    def call() -> None:
        for cls in (framing.Mailbox, Derived):
            mailbox = cls(3, lambda: None)
            mailbox.waker = lambda: None
            for _ in range(5):
                mailbox.deliver(event, False)
            mailbox.events = type(mailbox.events)()
            mailbox.waker = list.pop  # fails
            mailbox.remaining = 1
            quietly(mailbox.deliver, event, True)

    return call


def _event(payload: bytes, type_id: int = 0, kind: int = wire.EVENT) -> bytes:
    identifier = b"" if kind == wire.EVENT else b"i" * 16
    return frame(kind, struct.pack("<I", type_id) + identifier + payload)


@scenario
def read_long_values(framing: ModuleType, watched: list[Any]) -> Callable[[], object]:
    link = Link(framing)
    link.table.topic(Event)
    fields = ("before", "long")
    inlet = link.reader.inlets[0] = framing.Inlet(0, name_of(Event), 0, fields)
    response = framing.PendingRequest(b"i" * 16, Event, None, (), False, lambda: None)
    link.reader.requests[response.id] = response
    value = framing.encode_value(bytes(2 * APART))
    watched += [inlet, link.topics[name_of(Event)], link.mailbox, response]

    def call() -> None:
        for kind in (wire.EVENT, wire.REQUEST, wire.RESPONSE):
            for before, behind in ((b"[\1\0\0\0N", b""), (b"?", b""), (b"N", b"?")):
                data = _event(b"\0" + before + value + behind, kind=kind)
                link.feed(data[:2000])
                kept = link.reader.get_buffer()
                link.feed(data[2000:])
                del kept
        for size in (500, 2000, APART):  # and then the connection ends
            reader = link.new_reader()
            reader.inlets[0] = inlet
            link.feed(data[:size], reader)
            quietly(reader.end)
        link.received()
        link.errors.clear()
        link.bodies.clear()

    return call


@scenario
def read_frames(framing: ModuleType, watched: list[Any]) -> Callable[[], object]:
    link = Link(framing)
    link.table.topic(Event)
    inlet = link.reader.inlets[0] = framing.Inlet(0, name_of(Event), 0, ("field",))
    good = [
        frame(wire.GOODBYE, b"x" * 20),
        _event(b"\0b\x05"),
        _event(b"\0b\x05", kind=wire.REQUEST),
        _event(b"\x01" + pickle.dumps((1j,))),
    ]
    lost = [
        _event(b""),
        _event(b"\0"),
        _event(b"\0NN"),
        _event(b"\x02"),
        _event(b"\x01"),
        _event(b"\x01" + pickle.dumps(5)),
        _event(b"\0?", kind=wire.REQUEST),
    ]
    watched += [inlet, link.topics[name_of(Event)], Event, link.reader, link.reader.inlets]
    watched += [link.reader.origin, link.mailbox]

    def call() -> None:
        link.feed(b"".join(good + lost))
        for body in good + lost:
            link.reader.dispatch(body[4:])
        assert len(link.errors) == 2 * len(lost)
        link.errors.clear()
        link.bodies.clear()
        assert len(link.received()) == 6

    return call


@scenario
def read_for_classes_of_one_name(framing: ModuleType, watched: list[Any]) -> Callable[[], object]:
    link = Link(framing)
    link.table.topic(Event)
    inlet = link.reader.inlets[0] = framing.Inlet(0, name_of(Event), 0, ("number",))
    topic = link.topics[name_of(Event)]
    twins = [framing.Topic(cls) for cls in (Slotted, helpers.AbstractRequest, Guarded)]
    for twin in twins:
        twin.consumers = (link.mailbox, Fixed())
    topic.twins = tuple(twins)
    watched += [inlet, topic, *twins, topic.twins, Event, Slotted, Guarded, link.mailbox]

    def call() -> None:
        link.feed(_event(b"\0b\x05") + _event(b"\0b\x05", kind=wire.REQUEST) + _event(b"\xff"))
        assert len(link.received()) == 6
        assert len(link.errors) == 6
        link.errors.clear()

    return call


@scenario
def read_broken_frames(framing: ModuleType, watched: list[Any]) -> Callable[[], object]:
    link = Link(framing)
    link.table.topic(Event)
    inlet = framing.Inlet(0, name_of(Event), 0, ("field",))
    broken = [
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        frame(wire.EVENT, b"\0\0"),
        frame(wire.REQUEST, b"\0\0\0\0\0\0"),
        _event(b"", 5),
    ]
    watched += [inlet, Event]

    class Fails:
        def deliver(self, event: Any, local: bool) -> None:
            raise RuntimeError

    def call() -> None:
        for data in broken:
            reader = link.new_reader()
            reader.inlets[0] = inlet
            quietly(link.feed, data, reader)
            quietly(reader.next_frame)
            if len(data) > 4:
                quietly(reader.dispatch, data[4:])
        quietly(reader.dispatch, b"")
        quietly(reader.dispatch, None)
        quietly(reader.buffer_updated, 2**100)
        reader = link.new_reader()
        link.feed(frame(wire.GOODBYE, b"xxx")[:-1], reader)
        quietly(reader.end)
        link.topics[name_of(Event)].consumers = (Fails(),)
        reader = link.new_reader()
        reader.inlets[0] = inlet
        quietly(link.feed, _event(b"\0N"), reader)
        quietly(reader.dispatch, _event(b"\0N")[4:])

    return call


@scenario
def buffers(framing: ModuleType, watched: list[Any]) -> Callable[[], object]:
    data = frame(wire.GOODBYE, bytes(300_000))
    link = Link(framing)
    watched.append(link)

    def call() -> None:
        link.feed(data + data[:100], link.new_reader())
        link.bodies.clear()

    return call


@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_is_leaked(framing: ModuleType, name: str) -> None:
    watched: list[Any] = []
    call = SCENARIOS[name](framing, watched)
    tracemalloc.start()
    try:
        measure(call, watched)
        memory, references = measure(call, watched)
        for _ in range(ATTEMPTS):
            more_memory, more_references = measure(call, watched)
            grown = more_memory - memory >= ROUNDS * SMALLEST
            changed = [
                f"{after - before} references to {each!r}"[:100]
                for each, before, after in zip(watched, references, more_references, strict=True)
                if abs(after - before) >= ROUNDS // 2
            ]
            if not grown and not changed:
                break
            memory, references = more_memory, more_references
    finally:
        tracemalloc.stop()
    assert not grown
    assert not changed
