"""Who only looks, without a socket: one router, and connections that are told anything."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from helpers import Number, Text
from test_protocol import feed, frames_of, said_by
from test_routing import broadcast, make_router
from test_stats import STATS

from lahja import wire
from lahja.common import BaseEvent
from lahja.exceptions import ProtocolError
from lahja.framing import Outlet
from lahja.names import name_of
from lahja.observers import TAP_EVENT_SIZE, TAP_QUEUE_SIZE
from lahja.protocol import Connection, State, control_frame
from lahja.routing import Router


@pytest.fixture
def router() -> Router:
    """Return a router that has statistics."""
    router = make_router("me")
    router.observed_by.statistics = lambda: STATS
    return router


def observe(router: Router, *patterns: str, **options: Any) -> Connection:
    """Return a router's connection to an observer, which has nothing to say."""
    connection = Connection(router, router.hello, router.own_subscriptions, lambda: None, 1000)
    options["observe"] = True
    feed(connection, control_frame(wire.HELLO, 1, "observer", bytes(16), options))
    feed(connection, control_frame(wire.SUBSCRIBE, dict.fromkeys(patterns), (), True))
    assert connection.state is State.OPEN
    read(router, connection.outlet)
    return connection


def read(router: Router, outlet: Outlet) -> list[tuple[int, bytes]]:
    """Return how many were lost before each event that waits for an observer, and its payload."""
    data = b"".join(outlet.take())
    outlet.size = 0
    router.written(outlet)
    tapped = [body for body in _bodies(data) if body[0] == wire.TAPPED]
    return [(struct.unpack_from("<I", body, 1)[0], body[18:]) for body in tapped]


def _bodies(data: bytes) -> Iterator[bytes]:
    while data:
        end = 4 + struct.unpack_from("<I", data)[0]
        yield data[4:end]
        data = data[end:]


def lost(router: Router, outlet: Outlet) -> int:
    """Return how many events were lost, as the observer is told until nothing waits."""
    total = 0
    while outlet.size:
        total += sum(count for count, _ in read(router, outlet))
    return total


def fill(router: Router) -> None:
    """Broadcast texts until the only tap misses one, and is shut."""
    while not router.observed_by.shut:
        broadcast(router, Text("x" * 10_000))


# -- Statistics ------------------------------------------------------------------------------


def test_who_asks_and_does_not_read_is_told_so(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lahja.observers._MOST_UNREAD", 300_000)
    connection, other = observe(router), observe(router)
    question = control_frame(wire.ASK_STATS, 7)
    with pytest.raises(ProtocolError, match=r"it asks for statistics and does not read them"):
        feed(connection, question * 100_000)
    assert connection.state is State.FAILED
    assert 300_000 < connection.outlet.size < 310_000
    for _ in range(10_000):  # who reads may ask as often
        feed(other, question)
        assert [number for kind, (number, _) in frames_of(said_by(other))] == [7]


# -- Patterns --------------------------------------------------------------------------------


def test_an_observer_has_so_many_patterns_and_no_more(router: Router) -> None:
    connection = observe(router, *map(str, range(wire.MAX_PATTERNS)))
    replaced = control_frame(wire.SUBSCRIBE, {name_of(Text): None}, ("0",), True)
    feed(connection, replaced)
    broadcast(router, Text("x"))
    assert len(read(router, connection.outlet)) == 1
    with pytest.raises(ProtocolError, match=r"an observer has more than 256 subscriptions"):
        feed(connection, control_frame(wire.SUBSCRIBE, {"0": None}, (), True))
    assert connection.state is State.FAILED


# -- What is not shown -----------------------------------------------------------------------


@dataclass(slots=True)
class Slotted(BaseEvent):
    text: str


@pytest.mark.parametrize("length", [5, TAP_EVENT_SIZE])
def test_values_in_slots_are_shown_unless_they_are_long(router: Router, length: int) -> None:
    connection = observe(router, "*")
    broadcast(router, Slotted("x" * length))
    shown = b"\0s\5xxxxx" if length == 5 else b""
    assert read(router, connection.outlet) == [(0, shown)]


def test_what_is_longer_than_the_observer_accepts_is_lost_and_shuts_nothing(
    router: Router,
) -> None:
    connection = observe(router, "*", max_frame_size=1024)
    for _ in range(3):
        broadcast(router, Text("x" * 1024))
    assert not connection.outlet.take()
    assert not router.observed_by.shut
    broadcast(router, Number(5))
    assert read(router, connection.outlet) == [(3, b"\0b\5")]
    broadcast(router, Number(6))
    assert read(router, connection.outlet) == [(0, b"\0b\6")]


def test_what_a_shut_tap_misses_is_counted_for_its_types_only(router: Router) -> None:
    broadcast(router, Number(1))
    connection = observe(router, name_of(Text))
    fill(router)
    assert TAP_QUEUE_SIZE - 11_000 < connection.outlet.size <= TAP_QUEUE_SIZE
    for value in range(10):
        broadcast(router, Text("missed"))
        broadcast(router, Number(value))
    assert lost(router, connection.outlet) == 1 + 10
    broadcast(router, Text("again"))
    assert read(router, connection.outlet) == [(0, b"\0s\5again")]


def test_what_was_not_wanted_yet_is_not_missed(router: Router) -> None:
    connection = observe(router, name_of(Text))
    for value in range(100):
        broadcast(router, Number(value))
    fill(router)
    broadcast(router, Text("missed"))
    feed(connection, control_frame(wire.SUBSCRIBE, {"*": None}, (), True))
    assert not router.observed_by.taps  # it is shut all the same
    for value in range(10):
        broadcast(router, Number(value))
    broadcast(router, Slotted("missed"))
    assert lost(router, connection.outlet) == 1 + 12
    assert set(router.observed_by.taps) == set(map(name_of, (Text, Number, Slotted)))


def test_what_is_wanted_no_more_is_not_missed(router: Router) -> None:
    connection = observe(router, name_of(Text))
    fill(router)
    unwanted = control_frame(wire.SUBSCRIBE, {name_of(Number): None}, (name_of(Text),), True)
    feed(connection, unwanted)
    assert read(router, connection.outlet)
    assert not connection.outlet.take()  # nothing but its events was told
    broadcast(router, Number(5))
    assert read(router, connection.outlet) == [(0, b"\0b\5")]


def test_an_observer_that_leaves_while_its_tap_is_shut_leaves_nothing(router: Router) -> None:
    connection = observe(router, "*")
    fill(router)
    assert router.gates.keys() == router.observed_by.shut.keys() == {connection.outlet}
    router.remove(connection)
    assert not router.gates
    assert not router.observed_by.shut
    assert not len(router.observed_by)
    assert read(router, connection.outlet)
    broadcast(router, Text("x"))
    assert not connection.outlet.take()
    assert not router.observed_by.taps
