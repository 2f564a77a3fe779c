"""
Who only looks: the observers of one endpoint, what they ask, and the events that they tap.

An observer must never slow the endpoint down. An event is copied for it only while few bytes wait
for it; when there are more, the tap is shut until they are read, and meanwhile events take the same
way as without it. What it has missed is counted. A long event, and one that nobody else gets and
that is not made of plain values, is shown without its values, so that nothing is encoded for an
observer alone that might take long.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from . import wire
from .exceptions import ProtocolError
from .flow import Gate
from .frames import Frame, body_of, frame_size
from .framing import EventTable, Outlet, Shape, Topic, encode_value
from .protocol import Connection, Rejection, control_frame, tapped_frame

if TYPE_CHECKING:
    from .stats import EndpointStats

__all__ = ["ANSWERS_PER_SECOND", "MOST_OBSERVERS", "TAP_EVENT_SIZE", "TAP_QUEUE_SIZE", "Observers"]

MOST_OBSERVERS = 16
"""How many may be connected to one endpoint."""

ANSWERS_PER_SECOND = 20
"""How many questions for statistics are answered with them, whoever asks."""

TAP_QUEUE_SIZE = 256 * 1024
"""Bytes that may wait for an observer before events are lost to it."""

TAP_EVENT_SIZE = 256 * 1024
"""The longest frame of an event that is copied for an observer."""

_MOST_UNREAD = 16 * 1024 * 1024  # bytes of answers
_ROWS = (2_000, 200, 20, 0)
_FIRST_BARE_ID = 1 << 31  # those of the table count from 0


class _Tap:
    """Be what one observer wants to see."""

    __slots__ = ("counts", "lost", "names", "outlet", "patterns")

    def __init__(self, outlet: Outlet) -> None:
        self.outlet = outlet
        self.patterns: tuple[str, ...] = ()
        self.names: set[str] = set()  # of the types that it gets
        self.lost = 0  # events, since the last one that it was sent
        self.counts: dict[str, int] | None = None  # of broadcasts, when it was shut

    def matches(self, name: str) -> bool:
        """Return whether events of the type are wanted."""
        return any(fnmatchcase(name, pattern) for pattern in self.patterns)

    def take_lost(self) -> int:
        """Return how many events were lost, as far as a frame can tell, to count anew."""
        lost, self.lost = min(self.lost, wire.MAX_LENGTH), 0
        return lost


class Observers:
    """
    Serve the observers of one endpoint.

    :param table: that of the endpoint
    :param clock: returns the time in seconds
    :param refresh: called with the name of a type for which ``taps`` has changed
    :param gates: what is put there is opened when the outlet has room again
    """

    def __init__(
        self,
        table: EventTable,
        clock: Callable[[], float],
        refresh: Callable[[str], None],
        gates: dict[Outlet, Gate],
    ) -> None:
        self.taps: dict[str, tuple[_Tap, ...]] = {}  # those that are open, by the name of the type
        self.shut: dict[Outlet, _Tap] = {}
        self.statistics: Callable[[], EndpointStats] | None = None
        self._table = table
        self._clock = clock
        self._refresh = refresh
        self._gates = gates
        self._taps: dict[Connection, _Tap] = {}
        self._bare: dict[str, Shape] = {}
        self._plain_only = Outlet(lambda: None, 0)  # for whom no value is pickled
        self._plain_only.accepts_pickle = False
        self._answers = float(ANSWERS_PER_SECOND)  # how many may be given now
        self._answered_at = 0.0

    def __len__(self) -> int:
        return len(self._taps)

    # -- Who is there ------------------------------------------------------------------------

    def admit(self, connection: Connection) -> Rejection | None:
        """Decide whether an observer may connect."""
        if not connection.is_trusted:
            reason = "only processes of the endpoint's own user may observe it"
            return Rejection(wire.REJECT_USER, reason)
        if len(self._taps) >= MOST_OBSERVERS:
            reason = f"{MOST_OBSERVERS} observers are connected, and that is the limit"
            return Rejection(wire.REJECT_OBSERVERS, reason)
        return None

    def add(self, connection: Connection) -> None:
        """Take an observer in."""
        connection.outlet.high_water = TAP_QUEUE_SIZE // 2  # at half of it the gate opens
        self._taps[connection] = _Tap(connection.outlet)
        self.subscribed(connection)

    def remove(self, connection: Connection) -> bool:
        """Forget an observer; return whether it was one."""
        tap = self._taps.pop(connection, None)
        if tap is None:
            return False
        self.shut.pop(tap.outlet, None)
        self._gates.pop(tap.outlet, None)
        tap.patterns = ()
        self._choose(tap, self._known_names())
        return True

    # -- Statistics --------------------------------------------------------------------------

    def asked(self, connection: Connection, number: int) -> None:
        """
        Answer with statistics.

        :raise ProtocolError: where the peer does not read what it asks for
        """
        if connection.outlet.size > max(_MOST_UNREAD, connection.outlet.high_water):
            raise ProtocolError("it asks for statistics and does not read them")
        now = self._clock()
        earned = (now - self._answered_at) * ANSWERS_PER_SECOND
        self._answers = min(self._answers + earned, ANSWERS_PER_SECOND)
        self._answered_at = now
        answer: dict[str, Any] | str
        if not connection.is_trusted:
            answer = "statistics are only for processes of the endpoint's own user"
        elif self._answers < 1 or self.statistics is None:
            answer = f"there are at most {ANSWERS_PER_SECOND} answers in a second"
        else:
            self._answers -= 1
            limit = min(connection.outlet.limit, wire.CONTROL_LIMIT)
            answer = _fitting(self.statistics(), limit)
        connection.outlet.put(control_frame(wire.STATS, number, answer))

    # -- Events ------------------------------------------------------------------------------

    def subscribed(self, connection: Connection) -> None:
        """
        Take note of what an observer wants to see.

        :raise ProtocolError: where that is too much
        """
        if len(connection.subscriptions) > wire.MAX_PATTERNS:
            raise ProtocolError(f"an observer has more than {wire.MAX_PATTERNS} subscriptions")
        tap = self._taps[connection]
        tap.patterns = tuple(connection.subscriptions)
        names = self._known_names()
        if tap.counts is not None:  # of what it wants only now, nothing was missed before
            tap.counts = self._broadcasts(filter(tap.matches, names)) | tap.counts
        self._choose(tap, names)

    def topic_made(self, name: str) -> None:
        """Take note that there is a topic of this name; ``taps`` is right for it then."""
        taps = tuple(t for t in self._taps.values() if t.counts is None and t.matches(name))
        if taps:
            self.taps[name] = taps
            for tap in taps:
                tap.names.add(name)

    def _known_names(self) -> set[str]:
        return {topic.name for topic in self._table.topics.values()}

    def _choose(self, tap: _Tap, names: Iterable[str]) -> None:
        """Bring ``taps`` up to date with what a tap wants, and whether it is shut."""
        wanted = set() if tap.counts is not None else {n for n in names if tap.matches(n)}
        for name in wanted ^ tap.names:
            others = tuple(other for other in self.taps.get(name, ()) if other is not tap)
            taps = (*others, tap) if name in wanted else others
            if taps:
                self.taps[name] = taps
            else:
                del self.taps[name]
            self._refresh(name)
        tap.names = wanted

    def tap(
        self,
        topic: Topic,
        event: Any,
        kind: int,
        request_id: bytes,
        encoded: tuple[Shape, Frame] | None,
        elsewhere: int,
        here: int,
    ) -> None:
        """
        Show an event to whoever taps its type.

        :param encoded: its shape and frame, if it is sent to somebody; otherwise it is not bound
        """
        taps = self.taps[topic.name]
        if encoded is None:
            encoded = self._encode(topic, event, kind, request_id)
        if encoded is None or frame_size(encoded[1]) > TAP_EVENT_SIZE:
            encoded = self._without_values(topic.name, kind, request_id)
        shape, frame = encoded
        body = body_of(frame)
        size = wire.TAPPED_SIZE + len(body)
        for tap in taps:
            outlet = tap.outlet
            if outlet.size + size > TAP_QUEUE_SIZE or size > outlet.limit:
                if outlet.size:
                    self._shut(tap)  # which counts this event, too: it is broadcast only now
                else:  # there is nothing to wait for
                    tap.lost += 1
                continue
            outlet.send(shape, tapped_frame(tap.take_lost(), elsewhere, here, body))

    def _encode(
        self, topic: Topic, event: Any, kind: int, request_id: bytes
    ) -> tuple[Shape, Frame] | None:
        """Return shape and frame of an event that is sent to nobody else, if that is easy."""
        table = self._table
        limit, table.limit = table.limit, TAP_EVENT_SIZE
        try:
            size = sum(len(value) for value in _values(event, topic) if type(value) in (str, bytes))
            if size >= TAP_EVENT_SIZE:
                return None
            return table.encode(topic, event, kind, request_id, (self._plain_only,))
        except Exception:  # of its own attributes, too: nobody but an observer asked for them
            return None
        finally:
            table.limit = limit

    def _without_values(self, name: str, kind: int, request_id: bytes) -> tuple[Shape, bytes]:
        shape = self._bare.get(name)
        if shape is None:
            type_id = _FIRST_BARE_ID + len(self._bare)
            shape = self._bare[name] = Shape(type_id, name, wire.LAYOUT_WHOLE, ())
        body = struct.pack("<BI", kind, shape.type_id) + request_id
        return shape, struct.pack("<I", len(body)) + body

    def _shut(self, tap: _Tap) -> None:
        """Show an observer nothing until it has read what waits for it."""
        tap.counts = self._broadcasts(tap.names)
        self.shut[tap.outlet] = tap
        gate = self._gates[tap.outlet] = Gate()
        gate.wakers.append(functools.partial(self._open, tap))
        self._choose(tap, ())

    def _open(self, tap: _Tap) -> None:
        """Show an observer again what it wants: it has read most of what waited for it."""
        del self.shut[tap.outlet]
        then, tap.counts = tap.counts or {}, None
        names = self._known_names()
        now = self._broadcasts(filter(tap.matches, names))
        tap.lost += sum(count - then.get(name, 0) for name, count in now.items())
        self._choose(tap, names)
        if tap.lost:
            tap.outlet.put(tapped_frame(tap.take_lost(), 0, 0))

    def _broadcasts(self, names: Iterable[str]) -> dict[str, int]:
        """Return how many events of some types were broadcast so far."""
        counts = dict.fromkeys(names, 0)
        for topic in self._table.topics.values():
            if topic.name in counts:
                counts[topic.name] += topic.broadcasts
        return counts


def _values(event: Any, topic: Topic) -> Iterator[Any]:
    yield from event.__dict__.values()
    for name in topic.slots:
        yield getattr(event, name, None)


def _fitting(stats: EndpointStats, limit: int) -> dict[str, Any] | str:
    """Return statistics that fit into a frame, with as many rows as possible."""
    room = limit - len(control_frame(wire.STATS, wire.MAX_LENGTH, ""))
    for rows in _ROWS:
        answer = stats.limited(rows).to_dict()
        if len(encode_value(answer)) <= room:
            return answer
    return "they are longer than a frame may be"
