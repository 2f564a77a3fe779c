"""Streams without an endpoint: mailboxes of every policy, and a stream whose host is a fake."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from typing import Any, TypeVar, get_args

import pytest
from helpers import Number

from lahja.common import BaseEvent
from lahja.exceptions import StreamOverflow
from lahja.framing import EventTable, Mailbox, Topic
from lahja.streams import Feed, Overflow, Stream, StreamHost, make_mailbox

T = TypeVar("T")


class Host(StreamHost):
    """Suspend nobody: whoever waits is a test that went wrong, or finds an event at once."""

    def __init__(self) -> None:
        self.closed: list[bool] = []
        self.checkpoints = 0
        self.on_wait: list[Any] = []
        self.make_waiter = lambda: self
        self.checkpoint = self.have_a_turn
        self.check_if_here = lambda: None

    def wake(self) -> None:
        pass

    async def wait(self) -> None:
        self.on_wait.pop(0)()

    async def have_a_turn(self) -> None:
        self.checkpoints += 1
        if self.on_wait:
            self.on_wait.pop(0)()

    def close_stream(self, stream: Feed[Any], from_finalizer: bool) -> None:
        self.closed.append(from_finalizer)


@pytest.fixture
def topic() -> Topic:
    """Return the topic of Number."""
    return EventTable("me", True, lambda topic: None).topic(Number)


def event(value: int) -> Number:
    """Return an event as it is received."""
    made = Number(value)
    object.__setattr__(made, "_origin", "peer")
    return made


def mailbox_of(
    topic: Topic, overflow: str, bound: int | None, wanted: int | None = None
) -> Mailbox:
    """Return a mailbox that tells nobody of its last event."""
    return make_mailbox(
        topic, wanted, bound, overflow, lambda: None, logging.getLogger("lahja.test")
    )


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run what never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("it waits")


def values_of(mailbox: Mailbox) -> list[int]:
    """Return the values of the events that wait."""
    return [each.value for each in mailbox.events]


# -- Mailboxes -------------------------------------------------------------------------------


def test_the_policies_are_those_that_are_documented() -> None:
    assert get_args(Overflow) == ("block", "drop_oldest", "drop_newest", "latest", "raise")


@pytest.mark.parametrize(
    ("overflow", "bound", "kept", "dropped"),
    [
        ("block", None, [0, 1, 2, 3, 4], 0),
        ("block", 2, [0, 1, 2, 3, 4], 0),  # it is the senders that wait
        ("drop_oldest", 2, [3, 4], 3),
        ("drop_newest", 2, [0, 1], 3),
        ("latest", None, [4], 4),
        ("latest", 7, [4], 4),
        ("raise", 2, [0, 1], 0),
    ],
)
@pytest.mark.parametrize("local", [True, False], ids=["local", "remote"])
def test_a_full_mailbox_does_what_its_policy_says(
    topic: Topic, overflow: str, bound: int | None, kept: list[int], dropped: int, local: bool
) -> None:
    mailbox = mailbox_of(topic, overflow, bound)
    stream: Stream[Number] = Stream(Host(), topic, mailbox, None)
    for value in range(5):
        mailbox.deliver(event(value), local)
    assert values_of(mailbox) == kept
    assert stream.dropped == dropped
    stream.end()


@pytest.mark.parametrize("overflow", get_args(Overflow))
def test_a_mailbox_whose_stream_was_closed_takes_nothing(topic: Topic, overflow: str) -> None:
    mailbox = mailbox_of(topic, overflow, 2)
    stream: Stream[Number] = Stream(Host(), topic, mailbox, None)
    mailbox.deliver(event(0), False)
    stream.close()
    for value in range(1, 5):
        mailbox.deliver(event(value), False)
    assert values_of(mailbox) == [0]
    assert stream.dropped == 0


def test_a_burst_of_drops_is_logged_once(topic: Topic, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    mailbox = mailbox_of(topic, "drop_oldest", 2)
    for _ in range(2):
        for value in range(5):
            mailbox.deliver(event(value), False)
        mailbox.events.clear()
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    caplog.clear()
    for value in range(5):
        mailbox_of(topic, "latest", None).deliver(event(value), False)
    latest = mailbox_of(topic, "latest", None)
    for value in range(5):
        latest.deliver(event(value), False)
    assert [record.levelno for record in caplog.records] == [logging.DEBUG]


def test_a_mailbox_that_raises_takes_no_more_after_the_first_that_was_lost(topic: Topic) -> None:
    mailbox = mailbox_of(topic, "raise", 1)
    stream: Stream[Number] = Stream(Host(), topic, mailbox, None)
    for value in range(3):
        mailbox.deliver(event(value), False)
    assert values_of(mailbox) == [0]
    with pytest.raises(StreamOverflow):
        run(anext(stream))
    with pytest.raises(StopAsyncIteration):
        run(anext(stream))


# -- Streams ---------------------------------------------------------------------------------


@pytest.fixture
def host() -> Host:
    """Return what stands for an endpoint."""
    return Host()


@pytest.fixture
def mailbox(topic: Topic) -> Mailbox:
    """Return an ordinary mailbox."""
    return mailbox_of(topic, "block", None)


@pytest.fixture
def stream(host: Host, topic: Topic, mailbox: Mailbox) -> Stream[Number]:
    """Return an ordinary stream."""
    return Stream(host, topic, mailbox, None)


def test_reading_takes_what_is_there_without_a_turn(
    host: Host, mailbox: Mailbox, stream: Stream[Number]
) -> None:
    for value in range(100):
        mailbox.deliver(event(value), False)
    assert [run(anext(stream)).value for _ in range(100)] == list(range(100))
    assert host.checkpoints == 0
    stream.close()


def test_reading_gives_others_a_turn_now_and_then(
    host: Host, mailbox: Mailbox, stream: Stream[Number]
) -> None:
    for value in range(1000):
        mailbox.deliver(event(value), False)
    assert [run(anext(stream)).value for _ in range(1000)] == list(range(1000))
    assert host.checkpoints == 1000 // 128
    stream.close()


def test_reading_waits_for_an_event(host: Host, mailbox: Mailbox, stream: Stream[Number]) -> None:
    host.on_wait = [lambda: None, lambda: mailbox.deliver(event(1), False)]
    assert run(anext(stream)).value == 1  # the first time it was woken for nothing
    assert mailbox.waker is None
    stream.close()


def test_a_stream_that_is_closed_while_it_waits_ends(host: Host, stream: Stream[Number]) -> None:
    host.on_wait = [stream.close]
    with pytest.raises(StopAsyncIteration):
        run(anext(stream))
    assert host.closed == [False]


def test_a_stream_that_is_closed_in_its_turn_still_gives_what_has_arrived(
    host: Host, mailbox: Mailbox, stream: Stream[Number]
) -> None:
    for value in range(200):
        mailbox.deliver(event(value), False)
    host.on_wait = [stream.close]
    assert [run(anext(stream)).value for _ in range(200)] == list(range(200))
    with pytest.raises(StopAsyncIteration):
        run(anext(stream))


def test_an_exception_while_it_waits_closes_a_stream(host: Host, stream: Stream[Number]) -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    host.on_wait = [fail]
    with pytest.raises(KeyboardInterrupt):
        run(anext(stream))
    assert host.closed == [False]


def test_a_stream_is_closed_once(host: Host, stream: Stream[Number]) -> None:
    stream.close()
    stream.close()
    run(stream.aclose())
    stream.end()
    assert host.closed == [False]
    del stream


def test_a_stream_that_is_dropped_is_closed_by_its_finalizer(
    host: Host, topic: Topic, mailbox: Mailbox
) -> None:
    def make() -> None:
        stream: Stream[Number] = Stream(host, topic, mailbox, None)
        assert stream.dropped == 0

    make()
    assert host.closed == [True]


def test_a_stream_whose_endpoint_stopped_needs_no_closing(
    host: Host, topic: Topic, mailbox: Mailbox
) -> None:
    def make() -> None:
        stream: Stream[Number] = Stream(host, topic, mailbox, None)
        stream.end()

    make()
    assert host.closed == []


def test_the_last_event_closes_a_stream(host: Host, topic: Topic) -> None:
    stream: Stream[Number] = Stream(host, topic, mailbox_of(topic, "latest", None, 1), 1)
    stream.mailbox.deliver(event(1), False)
    assert run(anext(stream)).value == 1
    assert host.closed == [False]


def test_streams_are_of_events_only() -> None:
    with pytest.raises(TypeError):
        EventTable("me", True, lambda topic: None).topic(int)
    assert EventTable("me", True, lambda topic: None).topic(BaseEvent).cls is BaseEvent
