"""What the framing counts, in both implementations: events by topic and peer, bytes, queues."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import framing_helpers as helpers
import pytest
from framing_helpers import Event, Fixed, Link, Plain

from lahja.exceptions import BindError, EncodeError


@pytest.fixture(params=helpers.IMPLEMENTATIONS)
def framing(request: pytest.FixtureRequest) -> ModuleType:
    return helpers.load(request.param)


def counts(topic: Any) -> tuple[int, int, int, int]:
    return topic.broadcasts, topic.sent, topic.received, topic.delivered


def alone(framing: ModuleType) -> Any:
    """Return the table of an endpoint without peers."""
    return framing.EventTable("alone", True, lambda topic: None)


def test_nothing_is_counted_before_anything_happens(framing: ModuleType) -> None:
    link = Link(framing)
    assert counts(link.table.topic(Plain)) == (0, 0, 0, 0)
    assert (link.outlet.events, link.reader.events, link.reader.received) == (0, 0, 0)
    assert link.mailbox.peak == 0


def test_what_goes_from_one_to_the_other_is_counted_on_both_sides(framing: ModuleType) -> None:
    link = Link(framing)
    data = link.encode(*(Plain(number, "text", b"") for number in range(7)))
    link.feed(data)
    assert counts(link.table.topic(Plain)) == (7, 7, 0, 0)
    (received,) = link.topics.values()
    assert counts(received) == (0, 0, 7, 7)
    assert link.outlet.events == link.reader.events == 7
    assert link.reader.received == len(data)
    assert link.mailbox.peak == 7


def test_what_is_sent_to_many_is_one_broadcast(framing: ModuleType) -> None:
    table = alone(framing)
    topic = table.topic(Plain)
    outlets = [framing.Outlet(lambda: None, 1 << 20) for _ in range(3)]
    mailbox, fixed = framing.Mailbox(), Fixed()
    topic.outlets, topic.consumers = tuple(outlets), (mailbox, fixed)
    for number in range(5):
        table.publish(Plain(number, "", b""))
    assert counts(topic) == (5, 15, 0, 10)
    assert [outlet.events for outlet in outlets] == [5, 5, 5]


def test_what_nobody_wants_is_counted_by_who_routes_it(framing: ModuleType) -> None:
    table = alone(framing)
    table.publish(Event(a=1))
    assert counts(table.topic(Event)) == (0, 0, 0, 0)


def test_what_failed_was_no_broadcast(framing: ModuleType) -> None:
    link = Link(framing)
    event = Plain(1, "", b"")
    link.table.publish(event)
    with pytest.raises(BindError):
        link.table.publish(event)
    with pytest.raises(EncodeError):
        link.table.publish(Plain(1, lambda: None, b""))  # type: ignore[arg-type]
    assert counts(link.table.topic(Plain)) == (1, 1, 0, 0)
    assert link.outlet.events == 1


def test_what_does_not_decode_was_not_received(framing: ModuleType) -> None:
    link = Link(framing)
    data = bytearray(link.encode(Plain(1, "text", b"")))
    data[-7:] = b"\xff" * 7
    link.feed(bytes(data))
    assert link.errors
    (topic,) = link.topics.values()
    assert counts(topic) == (0, 0, 0, 0)
    assert link.reader.events == 0
    assert link.reader.received == len(data)


def test_a_class_of_the_same_name_gets_its_own_deliveries(framing: ModuleType) -> None:
    link = Link(framing)
    data = link.encode(Plain(1, "", b""))
    (topic,) = link.topics.values()
    twin = framing.Topic(type("Plain", (Plain,), {}))
    twin.consumers = (Fixed(), Fixed())
    topic.twins = (twin,)
    link.feed(data)
    assert counts(topic) == (0, 0, 1, 1)
    assert counts(twin) == (0, 0, 0, 2)
    assert link.reader.events == 1


def test_a_mailbox_knows_how_full_it_was(framing: ModuleType) -> None:
    mailbox = framing.Mailbox(remaining=6)
    for count in (3, 1, 5):
        for _ in range(count):
            mailbox.deliver(object(), False)
        mailbox.events.clear()
    assert mailbox.peak == 3  # the last five were two, because no more were wanted
