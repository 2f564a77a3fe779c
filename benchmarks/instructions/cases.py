"""
What is counted, and timed: framing, filter and codec, on fixed inputs, with nothing around them.

A case is made by a function, which returns two others: one that prepares what so many rounds take,
and one that runs them, whose instructions count. This module uses nothing random, and no clock,
socket or event loop.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from types import ModuleType
from typing import Any

import lahja.framing
from lahja import BaseEvent, BaseRequestResponseEvent, wire

__all__ = ["CASES", "Case", "cases"]

Case = tuple[Callable[[int], Any], Callable[[Any], object]]
"""What prepares so many rounds, and what runs the rounds that were prepared."""

BATCH = 20  # events that arrive together
VALUES: dict[str, Any] = {
    "nothing": None,
    "100 bytes": bytes(range(100)),
    "100 kB": bytes(100_000),
    "1 MB": bytes(1_000_000),
    "text": "plain text, then some more: é",
    "dict of lists": {"numbers": [1, 2, 300, 2.5], "names": ["a", "bc"], "more": {"x": ()}},
    "pickled": Decimal("1.20"),
}


@dataclass
class Event(BaseEvent):
    number: int
    time: float
    value: Any


@dataclass
class Answer(BaseEvent):
    number: int


@dataclass
class Question(BaseRequestResponseEvent[Answer]):
    number: int

    @staticmethod
    def expected_response_type() -> type[Answer]:
        return Answer


def _events(value: Any) -> Callable[[int], list[Event]]:
    return lambda count: [Event(number, 1.5, value) for number in range(count)]


def _rounds(count: int) -> Iterable[None]:
    return itertools.repeat(None, count)  # numbers beyond 256 would cost more than those before


def _fail(*_: object) -> None:
    raise AssertionError("no event of these should fail to decode")


# -- Codec -----------------------------------------------------------------------------------


def _encode_value(framing: ModuleType, value: Any) -> Case:
    def run(rounds: Iterable[None]) -> None:
        encode = framing.encode_value
        for _ in rounds:
            encode(value)

    return _rounds, run


def _decode_value(framing: ModuleType, value: Any) -> Case:
    data = framing.encode_value(value)

    def run(rounds: Iterable[None]) -> None:
        decode = framing.decode_value
        for _ in rounds:
            decode(data)

    return _rounds, run


# -- Sending ---------------------------------------------------------------------------------


def _table(framing: ModuleType, receivers: int = 1) -> tuple[Any, list[Any]]:
    """Return what broadcasts, and the outlets of those who want all that is broadcast."""
    outlets = [framing.Outlet(lambda: None, 2**40) for _ in range(receivers)]
    for outlet in outlets:
        outlet.threshold = 2**40

    def on_topic(topic: Any) -> None:
        topic.outlets = tuple(outlets)

    return framing.EventTable("sender", True, on_topic), outlets


def _send(framing: ModuleType, value: Any, receivers: int = 1, types: int = 0) -> Case:
    """Broadcast events, which includes that all outlets are emptied now and then."""
    table, outlets = _table(framing, receivers)
    for number in range(types):
        table.topic(type(f"Other{number}", (Event,), {}))

    def run(events: Iterable[Event]) -> None:
        publish = table.publish
        for event in events:
            publish(event)
        for outlet in outlets:
            outlet.take()
            outlet.size = 0

    return _events(value), run


def _post(framing: ModuleType) -> Case:
    """Broadcast as an endpoint does it, by the one call that its method makes."""
    table, (outlet,) = _table(framing)
    home = object()
    table.home, table.where = home, lambda: home

    def run(events: Iterable[Event]) -> None:
        post = table.post
        for event in events:
            post(event)
        outlet.take()
        outlet.size = 0

    return _events(VALUES["100 bytes"]), run


def _deliver_here(framing: ModuleType, consumers: int) -> Case:
    """Broadcast to streams of the same endpoint."""
    table, _ = _table(framing, 0)
    mailboxes = [framing.Mailbox() for _ in range(consumers)]
    table.topic(Event).consumers = tuple(mailboxes)

    def run(events: Iterable[Event]) -> None:
        publish = table.publish
        for event in events:
            publish(event)
        for mailbox in mailboxes:
            mailbox.events.clear()

    return _events(None), run


# -- Receiving -------------------------------------------------------------------------------


class _Handler:
    """Be a consumer that is no mailbox."""

    def deliver(self, event: Any, local: bool) -> None:
        pass


class _Link:
    """Be a reader, and events of which each batch is the same bytes."""

    def __init__(self, framing: ModuleType, value: Any, batch: int = BATCH) -> None:
        table, (outlet,) = _table(framing)
        for event in _events(value)(batch):
            table.publish(event)
        data = b"".join(outlet.take())  # what announces the type comes first
        (type_id, name, layout, fields), end = framing.decode_value(data, wire.LENGTH_SIZE + 1)
        self.data = memoryview(data)[end:]
        self.topic = framing.Topic(Event)
        self.reader = framing.Reader(2**30, _fail)
        self.reader.inlets = {type_id: framing.Inlet(type_id, name, layout, fields)}
        self.reader.find_topic = {name: self.topic}.get

    def receive(self, most: int = 1 << 30) -> None:
        """Let one batch arrive, so many bytes at a time."""
        reader, data, at = self.reader, self.data, 0
        while at < len(data):
            buffer = reader.get_buffer()
            part = data[at : at + min(most, len(buffer))]
            buffer[: len(part)] = part
            reader.buffer_updated(len(part))
            reader.next_frame()
            at += len(part)


def _receive(framing: ModuleType, value: Any, most: int = 1 << 30, batch: int = BATCH) -> Case:
    """Decode events into the mailbox of a stream."""
    link = _Link(framing, value, batch)
    mailbox = framing.Mailbox()
    link.topic.consumers = (mailbox,)
    link.receive(most)
    assert [event.value for event in mailbox.events] == [value] * batch
    mailbox.events.clear()

    def run(batches: Iterable[None]) -> None:
        for _ in batches:
            link.receive(most)
            mailbox.events.clear()

    return _rounds, run


def _receive_for_nobody(framing: ModuleType) -> Case:
    """Drop events that nobody wants any more, undecoded."""
    link = _Link(framing, VALUES["100 bytes"])

    def run(batches: Iterable[None]) -> None:
        for _ in batches:
            link.receive()

    return _rounds, run


def _receive_by_handlers(framing: ModuleType, count: int) -> Case:
    link = _Link(framing, VALUES["100 bytes"])
    link.topic.consumers = tuple(_Handler() for _ in range(count))

    def run(batches: Iterable[None]) -> None:
        for _ in batches:
            link.receive()

    return _rounds, run


def _iterator(framing: ModuleType, mailbox: Any) -> Any:
    """Return a stream without an endpoint, which ends where nothing waits."""

    class Iterator(framing.EventIterator):  # type: ignore[misc, name-defined]
        async def go_on(self) -> Any:
            raise StopAsyncIteration

        def close(self) -> None:
            pass

    return Iterator(mailbox, -1)


def _finish(coroutine: Coroutine[Any, Any, None]) -> None:
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("nothing here should wait")


def _hand_over(framing: ModuleType) -> Case:
    """Decode events into a stream, and read them there."""
    link = _Link(framing, VALUES["100 bytes"])
    mailbox = framing.Mailbox()
    link.topic.consumers = (mailbox,)
    iterator = _iterator(framing, mailbox)

    async def read() -> None:
        iterator.turns = BATCH
        async for _ in iterator:
            pass

    def run(batches: Iterable[None]) -> None:
        for _ in batches:
            link.receive()
            _finish(read())

    return _rounds, run


def _frames_that_are_no_events(framing: ModuleType) -> Case:
    """Take a batch of frames of another kind out of the buffer."""
    reader = framing.Reader(2**30, _fail)
    reader.inlets = {}
    frame = (5).to_bytes(wire.LENGTH_SIZE, "little") + bytes((wire.SUBSCRIBE,)) + b"NNNN"
    data = frame * BATCH

    def run(batches: Iterable[None]) -> None:
        for _ in batches:
            reader.get_buffer()[: len(data)] = data
            reader.buffer_updated(len(data))
            while reader.next_frame() is not None:
                pass

    return _rounds, run


# -- Requests --------------------------------------------------------------------------------


def _request(framing: ModuleType) -> Case:
    """Send a request, and let its response arrive."""
    table, (outlet,) = _table(framing)
    answering, (back,) = _table(framing)
    answering.publish(Answer(0))
    announcement = back.take()[0]
    (type_id, name, layout, fields), _ = framing.decode_value(announcement, wire.LENGTH_SIZE + 1)
    reader = framing.Reader(2**30, _fail)
    reader.on_response = _fail
    reader.inlets = {type_id: framing.Inlet(type_id, name, layout, fields)}
    reader.outlet, reader.requests = outlet, table.requests
    head = bytes((wire.RESPONSE,)) + type_id.to_bytes(4, "little")
    payload = bytes((wire.PLAIN,)) + framing.encode_value(7)

    def wake() -> None:
        pass

    def run(questions: Iterable[Question]) -> None:
        for question in questions:
            request = table.ask(question, None, True, wake)
            reader.dispatch(head + request.id + payload)
            assert request.response.number == 7
        outlet.take()
        outlet.size = 0

    return lambda count: [Question(number) for number in range(count)], run


def cases(framing: ModuleType) -> dict[str, Callable[[], Case]]:
    """
    Return what makes each case, by its name.

    :param framing: which of the implementations does the work
    """
    return {name: partial(make, framing) for name, make in _named()}


def _named() -> Iterator[tuple[str, Callable[[ModuleType], Case]]]:
    for name in ("nothing", "100 bytes", "100 kB", "text", "dict of lists"):
        yield f"encode a value: {name}", partial(_encode_value, value=VALUES[name])
        yield f"decode a value: {name}", partial(_decode_value, value=VALUES[name])
    for name, value in VALUES.items():
        yield f"send an event: {name}", partial(_send, value=value)
        if name == "1 MB":
            yield f"receive 1 event: {name}", partial(_receive, value=value, batch=1)
        else:
            yield f"receive 20 events: {name}", partial(_receive, value=value)
    yield "send an event, as an endpoint does", _post
    yield "send to nobody", partial(_send, value=None, receivers=0)
    for receivers in (2, 4, 16):
        yield f"send to {receivers} peers", partial(_send, value=None, receivers=receivers)
    yield "send one of 1,000 types", partial(_send, value=None, types=1000)
    for consumers in (1, 4):
        yield f"hand over to {consumers} here", partial(_deliver_here, consumers=consumers)
    yield (
        "receive 20 events, 40 bytes at a time",
        partial(_receive, value=VALUES["100 bytes"], most=40),
    )
    yield "receive 20 events that nobody wants", _receive_for_nobody
    for count in (1, 4):
        yield f"receive 20 events by handlers: {count}", partial(_receive_by_handlers, count=count)
    yield "receive 20 events and read them from a stream", _hand_over
    yield "take 20 frames that are no events", _frames_that_are_no_events
    yield "request and response", _request


CASES = cases(lahja.framing)
"""What makes each case of the implementation in use, by its name."""
