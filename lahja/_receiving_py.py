"""
The receiving side, in plain Python: a part of ``_framing_py``, which see.

From a buffer that a socket fills to whoever subscribed.
"""

from __future__ import annotations

import copy
import struct
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from . import wire
from ._codec_py import _length, decode_value, encode_value
from ._sending_py import Outlet, PendingRequest, Topic, _said
from .counting import TURN_SECONDS, no_time
from .exceptions import DecodeError, FrameTooLarge, ProtocolError, TruncatedFrame
from .frames import APART
from .layouts import BINDING, set_by_descriptor

__all__ = ["EventIterator", "Inlet", "Mailbox", "Reader"]

_BUFFER_MINIMUM: Final = 16 * 1024
_BUFFER_MAXIMUM: Final = 256 * 1024  # where no frame needs more
_LOOKED_INTO: Final = 1024  # bytes of a long frame that have to be there before it is looked into
_AT_ONCE: Final = 1024 * 1024  # bytes of a value for which there is room as soon as it begins
_MOST_UNTIMED: Final = 16  # events that are handed over without a look at the clock

_type_id = struct.Struct("<I")


class Mailbox:
    """
    Keep events until they are read.

    :param remaining: how many are still wanted; -1 for all that come
    :param on_last: called when the last wanted event arrived
    """

    __slots__ = ("events", "on_last", "peak", "remaining", "waker")

    def __init__(self, remaining: int = -1, on_last: Callable[[], None] | None = None) -> None:
        self.events: deque[Any] = deque()
        self.remaining = remaining
        self.on_last = on_last
        self.waker: Callable[[], None] | None = None  # called once, by the next event
        self.peak = 0  # the most events that ever waited

    def deliver(self, event: Any, local: bool) -> None:
        """Keep an event, and wake whoever waits for one."""
        if self.remaining >= 0:
            if not self.remaining:
                return
            self.remaining -= 1
        self.events.append(event)
        if len(self.events) > self.peak:
            self.peak = len(self.events)
        waker = self.waker
        if waker is not None:
            self.waker = None
            waker()
        if not self.remaining and self.on_last is not None:
            self.on_last()


class EventIterator:
    """
    Hand over the events of a mailbox, as an asynchronous iterator.

    Those that wait there take no turn of the event loop. A subclass says what else there is to do.

    :param mailbox: where the events wait
    :param left: how many are handed over before the iterator ends; -1 for all that come
    """

    __slots__ = ("left", "mailbox", "on_read", "quick", "turns")

    def __init__(self, mailbox: Mailbox, left: int) -> None:
        self.mailbox = mailbox
        self.left = left
        self.on_read: Callable[[Any], None] | None = None  # called with each event
        self.quick = True  # whether events may be taken without going through go_on()
        self.turns = 0  # events that may be taken before others should have a turn

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Any:
        """Return the next event."""
        if self.quick and self.turns and self.left and self.mailbox.events:
            self.turns -= 1
            return self.take()
        return await self.go_on()

    async def go_on(self) -> Any:
        """Return the next event where that takes more; raise StopAsyncIteration at the end."""
        raise NotImplementedError

    def close(self) -> None:
        """Take note that the last event was taken."""
        raise NotImplementedError

    def take(self) -> Any:
        """
        Return the event that has waited longest, and count it.

        :raise IndexError: where none waits
        """
        event = self.mailbox.events.popleft()
        if self.on_read is not None:
            self.on_read(event)
        if self.left > 0:
            self.left -= 1
            if not self.left:
                self.close()
        return event


class Inlet:
    """Be a shape that the peer announced, and what it is made into here."""

    __slots__ = ("_by_descriptor", "_cls", "fields", "layout", "name", "topic", "type_id")

    def __init__(self, type_id: int, name: str, layout: int, fields: tuple[str, ...]) -> None:
        self.type_id = type_id
        self.name = name
        self.layout = layout
        self.fields = fields
        self.topic: Topic | None = None
        self._cls: type | None = None
        self._by_descriptor: tuple[bool, ...] | None = None

    def build(
        self,
        cls: type,
        data: bytes | bytearray | memoryview,
        offset: int,
        origin: str,
        request_id: bytes | None,
        loads: Callable[[Any], Any] | None,
    ) -> Any:
        """
        Return the event whose payload begins at ``offset``, bound.

        :param cls: the class that this process has for the name
        :param loads: what unpickles; None to refuse pickles
        :raise DecodeError: where the payload is not that of such an event
        """
        return self._build((), cls, data, offset, origin, request_id, loads)

    def _build(
        self,
        early: tuple[Any, ...],
        cls: type,
        data: bytes | bytearray | memoryview,
        offset: int,
        origin: str,
        request_id: bytes | None,
        loads: Callable[[Any], Any] | None,
    ) -> Any:
        """Do what build() does; the first values are not in the data, but were read before."""
        try:
            event = self._unbound(early, cls, data, offset, loads)
            object.__setattr__(event, "_origin", origin)
            if request_id is not None:
                object.__setattr__(event, "_id", request_id)
        except DecodeError:
            raise
        except Exception as error:
            raise DecodeError(_said(error)) from error
        return event

    def _unbound(
        self,
        early: tuple[Any, ...],
        cls: type,
        data: bytes | bytearray | memoryview,
        offset: int,
        loads: Callable[[Any], Any] | None,
    ) -> Any:
        if not 0 <= offset < len(data):
            raise DecodeError("a payload is missing")
        form = data[offset]
        offset += 1
        values: Any
        if form == wire.PLAIN and self.layout != wire.LAYOUT_WHOLE:
            values = [*early]
            for _ in self.fields[len(early) :] if self.layout == wire.LAYOUT_FIELDS else (None,):
                value, offset = decode_value(data, offset)
                values.append(value)
            if offset != len(data):
                raise DecodeError(f"{len(data) - offset} bytes too many follow the fields")
        elif form == wire.PICKLED:
            if loads is None:
                raise DecodeError("it is pickled, and this endpoint has allow_pickle=False")
            loaded = loads(memoryview(data)[offset:])
            if self.layout == wire.LAYOUT_WHOLE:
                if type(loaded) is not cls:
                    raise DecodeError(f"the pickle holds a {type(loaded).__qualname__}")
                return loaded
            values = loaded
            count = len(self.fields) if self.layout == wire.LAYOUT_FIELDS else 1
            if type(values) is not tuple or len(values) != count:
                raise DecodeError("the pickle does not hold the announced fields")
        else:
            raise DecodeError(f"{form} is not a form of payload that its layout allows")
        fields: Iterable[str] = self.fields
        if self.layout == wire.LAYOUT_MAPPING:
            if type(values[0]) is not dict or not all(
                type(name) is str and name not in BINDING for name in values[0]
            ):
                raise DecodeError("the fields are not a dict of names")
            fields, values = values[0].keys(), values[0].values()
        return self._assemble(cls, fields, values)

    def _assemble(self, cls: type, fields: Iterable[str], values: Iterable[Any]) -> Any:
        event: Any = object.__new__(cls)
        if self._cls is not cls:
            self._cls = cls
            flags = set_by_descriptor(cls, self.fields)
            self._by_descriptor = flags if any(flags) else None
        if self.layout == wire.LAYOUT_MAPPING:
            flags = set_by_descriptor(cls, tuple(fields))
        elif self._by_descriptor is None:
            event.__dict__.update(zip(fields, values, strict=True))
            return event
        else:
            flags = self._by_descriptor
        for name, value, by_descriptor in zip(fields, values, flags, strict=True):
            if by_descriptor:
                object.__setattr__(event, name, value)
            else:
                event.__dict__[name] = value
        return event


_DISPATCHED: Final = frozenset((wire.EVENT, wire.REQUEST, wire.RESPONSE))


class Reader:
    """
    Take frames out of the bytes that a peer sends.

    A socket fills :meth:`get_buffer`; after :meth:`buffer_updated`, :meth:`next_frame` gives the
    frames one by one. Events, requests and responses of announced types are not given back: they
    are decoded and handed to their consumers here. After an error every further call raises it
    again.

    A long value of type bytes is received into a place of its own, where it is a field of an event
    that somebody wants, and begins at the time when the frame is looked into. The values before
    it are decoded then. They and it are the event's *early* values; the buffer has the rest of the
    frame, which is taken apart at its end.

    Where consumers take long, :meth:`next_frame` stops in between and sets ``has_more``: the event
    loop is to have a turn. The clock is looked at after the first event of a buffer, the second,
    the fourth, and so on.

    :param limit: the longest body that is accepted, in bytes; may be changed at any time
    :param on_error: called with the inlet and the DecodeError where one event does not decode
    """

    __slots__ = (
        "_apart",
        "_buffer",
        "_early",
        "_end",
        "_failure",
        "_is_long",
        "_landed",
        "_landing",
        "_landing_size",
        "_look_at",
        "_looked_into",
        "_start",
        "_turn_ends",
        "_untimed",
        "_was_early",
        "clock",
        "events",
        "find_topic",
        "has_more",
        "inlets",
        "limit",
        "loads",
        "on_error",
        "on_response",
        "origin",
        "outlet",
        "received",
        "requests",
    )

    def __init__(self, limit: int, on_error: Callable[[Inlet, DecodeError], None]) -> None:
        from pickle import loads  # see _pickled()

        self.limit = limit
        self.on_error = on_error
        self.origin = ""  # the name of the peer
        self.inlets: dict[int, Inlet] | None = None  # None until the handshake is over
        self.find_topic: Callable[[str], Topic | None] = _nothing
        self.loads: Callable[[Any], Any] | None = loads
        self.outlet: Outlet | None = None  # to the same peer
        self.requests: dict[bytes, PendingRequest] = {}  # those of the endpoint
        self.on_response: Callable[[Inlet, bytes, Any, int], None] = _ignore_response
        self.clock: Callable[[], float] = no_time  # in seconds
        self.has_more = False  # whether what follows was left for the next turn
        self._buffer = bytearray(_BUFFER_MINIMUM)
        self._start = 0
        self._end = 0
        self._failure: ProtocolError | None = None
        self._is_long = False  # whether this frame, or the last one, was looked into
        self._looked_into = False  # whether a value was looked for that may come early
        self._early: tuple[Any, ...] = ()  # values of the frame that begins in the buffer
        self._apart = 0  # bytes of that frame that are not in the buffer, because of them
        self._landing: bytearray | None = None  # where the next of them is received
        self._landing_size = 0  # of all of it
        self._landed = 0  # bytes of it that are there
        self._was_early = False  # whether the last frame had such values
        self._untimed = 1  # events from one look at the clock to the next
        self._look_at = 1  # what ``events`` is then
        self._turn_ends = -1.0  # when there have been enough events; below 0 before the first look
        self.received = 0  # bytes
        self.events = 0  # those that were decoded

    @property
    def pending(self) -> int:
        """How many bytes wait for the rest of their frame."""
        return self._end - self._start + self._apart + self._landed

    def get_buffer(self, sizehint: int = -1) -> memoryview:
        """
        Return where the next bytes belong; never empty.

        What :meth:`next_frame` gave before is not valid any more.
        """
        if self._landing is not None:
            return self._land(self._landing)
        capacity = len(self._buffer)
        pending = self._end - self._start
        if not pending:
            size = max(_BUFFER_MINIMUM, min(capacity, _BUFFER_MAXIMUM))
            if self._end == capacity < _BUFFER_MAXIMUM:
                size = min(2 * capacity, _BUFFER_MAXIMUM)  # more had come than it could hold
            if size != capacity:
                self._buffer = bytearray(size)
            self._start = self._end = 0
            if self._was_early:  # another one may follow: less of it is copied then
                return memoryview(self._buffer)[:_BUFFER_MINIMUM]
        elif capacity - self._end < _BUFFER_MINIMUM:
            needed = pending + _BUFFER_MINIMUM
            if pending >= wire.LENGTH_SIZE:
                size = _length.unpack_from(self._buffer, self._start)[0] + wire.LENGTH_SIZE
                needed = max(size - self._apart, pending + 1)
            if self._start + needed > capacity or self._end == capacity:
                # Room for a frame grows as its bytes arrive, not because its header says so.
                size = max(_BUFFER_MINIMUM, min(needed, 4 * pending))
                target = self._buffer if size <= capacity else bytearray(size)
                target[:pending] = self._buffer[self._start : self._end]
                self._buffer, self._start, self._end = target, 0, pending
        return memoryview(self._buffer)[self._end :]

    def _land(self, landing: bytearray) -> memoryview:
        """Return where the next bytes of an early value belong."""
        if self._landed == len(landing):
            # Its room, too, grows as its bytes arrive.
            self._landing = bytearray(min(self._landing_size, 4 * self._landed))
            self._landing[: self._landed] = landing
            landing = self._landing
        return memoryview(landing)[self._landed :]

    def buffer_updated(self, nbytes: int) -> None:
        """
        Take note that so many bytes were put into the buffer, and that a turn begins.

        :raise ValueError: where it had no room for them
        """
        landing = self._landing
        room = len(self._buffer) - self._end if landing is None else len(landing) - self._landed
        if not 0 <= nbytes <= room:
            raise ValueError(f"the buffer has no room for {nbytes} bytes")
        self.has_more = False
        self._untimed = 1
        self._look_at = self.events + 1
        self._turn_ends = -1.0
        self.received += nbytes
        if landing is None:
            self._end += nbytes
            return
        self._landed += nbytes
        if self._landed == self._landing_size:
            self._early += (bytes(landing),)
            self._apart += self._landed
            self._landing, self._landed, self._looked_into = None, 0, False

    def next_frame(self) -> memoryview | None:
        """
        Return the body of the next frame that is not an event, or None if more bytes are needed.

        None, too, where ``has_more`` says that it goes on in the next turn, which begins with
        :meth:`buffer_updated`, if by no byte.

        :raise ProtocolError: where the peer broke the format; the connection must be closed
        """
        if self._failure is not None:
            raise self._failure
        try:
            while (body := self._next_body()) is not None:
                early = self._take_early() if self._is_long else ()
                if not self._dispatch(early, body):
                    return memoryview(_restored(early, body))
                if self.events == self._look_at and self._end > self._start and self._is_time_up():
                    return None
        except ProtocolError as error:
            self._failure = error
            raise
        return None

    def _is_time_up(self) -> bool:
        """Look at the clock; return whether what follows is left for the next turn."""
        now = self.clock()
        if self._turn_ends < 0:
            self._turn_ends = now + TURN_SECONDS
        elif now >= self._turn_ends:
            self.has_more = True
        else:
            self._untimed = min(2 * self._untimed, _MOST_UNTIMED)
        self._look_at = self.events + self._untimed
        return self.has_more

    def _next_body(self) -> memoryview | None:
        pending = self._end - self._start
        if pending < wire.LENGTH_SIZE:
            return None
        size: int = _length.unpack_from(self._buffer, self._start)[0]
        if size > self.limit:
            raise FrameTooLarge(size, self.limit)
        if not size:
            raise ProtocolError("a frame is empty")
        end = self._start + wire.LENGTH_SIZE + size - self._apart
        if end > self._end:
            if size >= APART and pending >= _LOOKED_INTO and not self._looked_into:
                self._look_into(end)
            return None
        start = self._start + wire.LENGTH_SIZE
        self._start = end
        return memoryview(self._buffer)[start:end]

    def _take_early(self) -> tuple[Any, ...]:
        """Return the early values of a frame that has ended."""
        early, self._early = self._early, ()
        self._was_early = self._is_long = bool(early)
        self._looked_into = False
        self._apart = 0
        return early

    def _look_into(self, end: int) -> None:
        """Let a value land, where a long one comes next in a frame that will end there."""
        self._looked_into = self._is_long = True
        kind = self._buffer[self._start + wire.LENGTH_SIZE]
        if kind not in _DISPATCHED or self.inlets is None:
            return
        first = self._start + wire.LENGTH_SIZE + wire.payload_offset(kind)
        body = memoryview(self._buffer)[self._start + wire.LENGTH_SIZE : self._end]
        inlet = self.inlets.get(_type_id.unpack_from(body, 1)[0])
        if inlet is None or inlet.layout != wire.LAYOUT_FIELDS or self._buffer[first] != wire.PLAIN:
            return
        if kind == wire.RESPONSE:
            if bytes(body[5 : 5 + wire.ID_SIZE]) not in self.requests:
                return
        elif self._wanted_topic(inlet) is None:
            return
        first += 1
        early = [*self._early]
        data = memoryview(self._buffer)[: self._end]
        at = first
        while True:
            if len(early) == len(inlet.fields) or len(data) - at < 5:
                return
            if data[at] == 0x59:  # Y
                size = _length.unpack_from(data, at + 1)[0]
                if size >= APART and at + 5 + size > len(data):
                    break
            try:
                value, at = decode_value(data, at)
            except DecodeError:  # most likely there is more to come
                return
            early.append(value)
        at += 5
        if at + size > end:
            return  # it will not decode
        self._landed = len(data) - at
        self._landing = bytearray(min(size, max(_AT_ONCE, 4 * self._landed)))
        self._landing[: self._landed] = data[at:]
        self._landing_size = size
        self._early = tuple(early)
        self._apart += at - first
        self._end = first

    def _wanted_topic(self, inlet: Inlet) -> Topic | None:
        """Return the topic whose consumers get such events; None where there are none."""
        topic = inlet.topic
        if topic is None or not topic.consumers:
            topic = inlet.topic = self.find_topic(inlet.name)
            if topic is None or not topic.consumers:
                return None
        return topic

    def dispatch(self, body: bytes | memoryview) -> bool:
        """
        Hand an event or request to its consumers, or a response to its request.

        A response that is not just what a request waits for goes to ``on_response``: with its
        inlet, the id of the request, the body, and where its payload begins.

        :return: False where the body is of another kind, or there was no handshake yet
        :raise ProtocolError: where the body is empty, or the type was not announced
        """
        if not body:
            raise ProtocolError("a frame is empty")
        return self._dispatch((), body)

    def _dispatch(self, early: tuple[Any, ...], body: bytes | memoryview) -> bool:
        kind = body[0]
        if kind not in _DISPATCHED or self.inlets is None:
            return False
        offset = wire.payload_offset(kind)
        if len(body) < offset:
            raise ProtocolError(f"a frame of {len(body)} bytes is too short for {_said_of(kind)}")
        inlet = self.inlets.get(_type_id.unpack_from(body, 1)[0])
        if inlet is None:
            raise ProtocolError(f"{_said_of(kind)} is of a type that was not announced")
        request_id = bytes(body[5:offset]) if kind != wire.EVENT else None
        if kind == wire.RESPONSE:
            self._respond(early, inlet, request_id, body, offset)  # type: ignore[arg-type]
            return True
        topic = self._wanted_topic(inlet)
        if topic is None:
            return True  # it was sent before the peer knew that nobody wants it any more
        event = self._build(early, inlet, topic, body, offset, request_id)
        others = [
            (twin, self._build(copy.deepcopy(early), inlet, twin, body, offset, request_id))
            for twin in topic.twins
        ]
        if event is not None:
            self.events += 1
            topic.received += 1
            topic.delivered += len(topic.consumers)
            for consumer in topic.consumers:
                consumer.deliver(event, False)
        for twin, event in others:
            if event is not None:
                twin.delivered += len(twin.consumers)
                for consumer in twin.consumers:
                    consumer.deliver(event, False)
        return True

    def _respond(
        self,
        early: tuple[Any, ...],
        inlet: Inlet,
        request_id: bytes,
        body: bytes | memoryview,
        offset: int,
    ) -> None:
        request = self.requests.get(request_id)
        topic = request.topic if request is not None else None
        if request is None or topic is None or topic.name != inlet.name:
            return self.on_response(inlet, request_id, _restored(early, body), offset)
        if not any(outlet is self.outlet for outlet in request.asked):
            return self.on_response(inlet, request_id, _restored(early, body), offset)
        try:
            event = inlet._build(
                early, topic.cls, body, offset, self.origin, request_id, self.loads
            )
        except DecodeError:
            return self.on_response(inlet, request_id, _restored(early, body), offset)
        self.requests.pop(request_id, None)
        self.events += 1
        topic.received += 1
        topic.delivered += 1 + len(topic.consumers)
        request.response = event
        request.wake()
        for consumer in topic.consumers:
            consumer.deliver(event, False)
        return None

    def _build(
        self,
        early: tuple[Any, ...],
        inlet: Inlet,
        topic: Topic,
        body: bytes | memoryview,
        offset: int,
        request_id: bytes | None,
    ) -> Any:
        """Return the event, as an instance of the topic's class; None where it does not decode."""
        try:
            return inlet._build(early, topic.cls, body, offset, self.origin, request_id, self.loads)
        except DecodeError as error:
            self.on_error(inlet, error)
            return None

    def end(self) -> None:
        """
        Take note that the peer sends no more.

        :raise TruncatedFrame: where that is in the middle of a frame
        """
        pending = self.pending
        if pending and self._failure is None:
            missing = None
            if pending >= wire.LENGTH_SIZE:
                missing = _length.unpack_from(self._buffer, self._start)[0] - (pending - 4)
            raise TruncatedFrame(missing)


def _restored(early: tuple[Any, ...], body: bytes | memoryview) -> bytes | memoryview:
    """Return the body with the values that were taken out of it."""
    if not early:
        return body
    first = wire.payload_offset(body[0]) + 1
    return memoryview(b"".join((body[:first], *map(encode_value, early), body[first:])))


def _said_of(kind: int) -> str:
    return "a response" if kind == wire.RESPONSE else "an event"


def _nothing(name: str) -> None:
    return None


def _ignore_response(inlet: Inlet, request_id: bytes, body: Any, offset: int) -> None:
    pass
