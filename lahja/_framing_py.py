"""
The hot path in plain Python: everything that runs once per event.

This is the specification of the compiled module ``_framing``, which has the same names in the same
order, and what runs where that module is absent. ``framing`` chooses between the two.

From top to bottom: the codec of plain values; the sending side, from an event to the outgoing
queues of the peers that want it; the receiving side, from a buffer that a socket fills to whoever
subscribed. Bytes and objects go in and come out; sockets, clocks and event loops are elsewhere.
The formats are those of :mod:`lahja.wire`.

An event passes through no queue on its way in: :meth:`Reader.next_frame` takes a frame apart
where it lies in the buffer, builds the event and hands it to its consumers. On its way out it is
encoded once, and the same bytes are put into the :class:`Outlet` of every peer.
"""

from __future__ import annotations

import pickle
import struct
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from . import wire
from .common import BaseEvent, already_bound
from .exceptions import (
    DecodeError,
    EncodeError,
    FrameTooLarge,
    ProtocolError,
    TruncatedFrame,
)
from .layouts import BINDING, is_self_pickling, set_by_descriptor, slot_names
from .names import name_of

__all__ = [
    "IMPLEMENTATION",
    "EventTable",
    "Inlet",
    "Mailbox",
    "Outlet",
    "Reader",
    "Shape",
    "Topic",
    "decode_value",
    "encode_value",
]

IMPLEMENTATION: Final = "python"
"""Which of the two this is: ``"python"``, or ``"cython"`` for the compiled one."""

_BUFFER_MINIMUM: Final = 16 * 1024
_BUFFER_MAXIMUM: Final = 256 * 1024  # where no frame needs more

_length = struct.Struct("<I")
_int32 = struct.Struct("<i")
_int64 = struct.Struct("<q")
_double = struct.Struct("<d")
_event_header = struct.Struct("<IBI")
_type_id = struct.Struct("<I")


# -- The codec of plain values ---------------------------------------------------------------


class _NotPlainError(Exception):
    """Report a value that is not plain, or too deep or too wide to be sent as one."""


def encode_value(value: object) -> bytes:
    """
    Return the encoding of one plain value.

    :raise EncodeError: where the value is not plain, or is nested deeper than ``MAX_DEPTH``
    """
    out: list[bytes] = []
    try:
        _write(value, out, 0, [wire.MAX_LENGTH, 0])
    except _NotPlainError as error:
        raise EncodeError(type(value).__name__, str(error)) from None
    return b"".join(out)


def decode_value(data: bytes | bytearray | memoryview, offset: int = 0) -> tuple[Any, int]:
    """
    Return the plain value that begins at ``offset``, and the offset behind it.

    :raise DecodeError: where there is none, or it is cut short, or nested too deeply
    :raise ValueError: where the offset is negative
    """
    if offset < 0:
        raise ValueError(f"an offset is not negative, as {offset} is")
    try:
        return _read(data, offset, 0)
    except DecodeError:
        raise
    except (IndexError, struct.error):
        raise DecodeError("a value is cut short") from None
    except UnicodeDecodeError:
        raise DecodeError("a text is not UTF-8") from None
    except TypeError:
        raise DecodeError("a set or dict has an element that cannot be hashed") from None


def _write(value: Any, out: list[bytes], depth: int, room: list[int]) -> None:
    """
    Append the encoding of a value.

    :param room: what containers may still hold, which is counted down, and by how many bits a
        size is shifted before it is counted
    """
    kind = type(value)
    if kind is str:
        try:
            text = value.encode()
        except UnicodeEncodeError:
            text = value.encode("utf-8", "surrogatepass")
            size = len(text)
            out.append(b"U" + _sized(size))
        else:
            size = len(text)
            out.append(b"s" + bytes((size,)) if size < 256 else b"S" + _sized(size))
        if depth:
            _spend(room, size)
        out.append(text)
    elif kind is int:
        if -0x80 <= value < 0x80:
            out.append(b"b" + (value & 0xFF).to_bytes(1, "little"))
        elif -0x8000_0000 <= value < 0x8000_0000:
            out.append(b"i" + _int32.pack(value))
        elif -0x8000_0000_0000_0000 <= value < 0x8000_0000_0000_0000:
            out.append(b"q" + _int64.pack(value))
        else:
            size = value.bit_length() // 8 + 1
            out.append(b"I" + _sized(size) + value.to_bytes(size, "little", signed=True))
    elif kind is bytes:
        size = len(value)
        out.append(b"y" + bytes((size,)) if size < 256 else b"Y" + _sized(size))
        if depth:
            _spend(room, size)
        out.append(value)
    elif kind is float:
        out.append(b"d" + _double.pack(value))
    elif value is None:
        out.append(b"N")
    elif kind is bool:
        out.append(b"T" if value else b"F")
    else:
        tag = _CONTAINER_TAGS.get(id(kind))
        if tag is None:
            raise _NotPlainError(f"a {kind.__qualname__} is not a plain value")
        if depth == wire.MAX_DEPTH:
            raise _NotPlainError(f"it is nested more than {wire.MAX_DEPTH} deep")
        size = len(value)
        room[0] -= 1
        _spend(room, size)
        out.append(tag + _sized(size))
        if kind is dict:
            for key, item in value.items():
                _write(key, out, depth + 1, room)
                _write(item, out, depth + 1, room)
        else:
            for item in value:
                _write(item, out, depth + 1, room)
            if len(value) != size:  # by another thread; dicts and sets notice by themselves
                raise RuntimeError(f"{kind.__name__} changed size during iteration")


def _spend(room: list[int], size: int) -> None:
    """Count what a container holds: shared parts, which are written each time, must not explode."""
    room[0] -= size >> room[1]
    if room[0] < 0:
        raise _NotPlainError("its containers hold too much")


def _sized(size: int) -> bytes:
    if size > wire.MAX_LENGTH:
        raise _NotPlainError(f"a part of {size} bytes or elements is too long")
    return _length.pack(size)


# By identity, because classes need not be hashable.
_CONTAINER_TAGS: Final = {
    id(tuple): b"(",
    id(list): b"[",
    id(dict): b"{",
    id(set): b"<",
    id(frozenset): b">",
}
_CONTAINERS: Final[dict[int, Callable[[Iterable[Any]], Any]]] = {
    ord("("): tuple,
    ord("["): list,
    ord("<"): set,
    ord(">"): frozenset,
}
_CONSTANTS: Final = {ord("N"): None, ord("T"): True, ord("F"): False}
_SHORT: Final = frozenset(b"sy")
_LONG: Final = frozenset(b"SUYI")


def _read(data: bytes | bytearray | memoryview, at: int, depth: int) -> tuple[Any, int]:
    """Return the value at an offset, and the offset behind it; any error means bad data."""
    tag = data[at]
    at += 1
    if tag in _SHORT:
        start = at + 1
        end = start + data[at]
    elif tag in _LONG:
        start = at + 4
        end = start + _length.unpack_from(data, at)[0]
    elif tag == 0x62:  # b
        small = data[at]
        return (small if small < 0x80 else small - 0x100), at + 1
    elif tag == 0x69:  # i
        return _int32.unpack_from(data, at)[0], at + 4
    elif tag == 0x71:  # q
        return _int64.unpack_from(data, at)[0], at + 8
    elif tag == 0x64:  # d
        return _double.unpack_from(data, at)[0], at + 8
    elif tag in _CONSTANTS:
        return _CONSTANTS[tag], at
    else:
        return _read_container(data, tag, at, depth)
    if end > len(data):
        raise IndexError
    part = bytes(data[start:end])
    if tag == 0x73 or tag == 0x53:  # s S
        return part.decode(), end
    if tag == 0x79 or tag == 0x59:  # y Y
        return part, end
    if tag == 0x55:  # U
        return part.decode("utf-8", "surrogatepass"), end
    return int.from_bytes(part, "little", signed=True), end


def _read_container(
    data: bytes | bytearray | memoryview, tag: int, at: int, depth: int
) -> tuple[Any, int]:
    make = _CONTAINERS.get(tag)
    if make is None and tag != 0x7B:  # {
        raise DecodeError(f"0x{tag:02x} is not the tag of a value")
    if depth == wire.MAX_DEPTH:
        raise DecodeError(f"a value is nested more than {wire.MAX_DEPTH} deep")
    count = _length.unpack_from(data, at)[0]
    at += 4
    elements = []
    # Every element takes a byte at least, so that a false count cannot cost more than the frame.
    for _ in range(count if make is not None else 2 * count):
        element, at = _read(data, at, depth + 1)
        elements.append(element)
    if make is None:
        return dict(zip(elements[::2], elements[1::2], strict=True)), at
    return make(elements), at


# -- Sending ---------------------------------------------------------------------------------


class Outlet:
    """
    Hold the frames that wait to be written to one peer.

    :param wake: called with nothing when more than ``threshold`` bytes wait. It may write at once.
    """

    __slots__ = (
        "accepts_pickle",
        "announced",
        "compress",
        "frames",
        "high_water",
        "limit",
        "name",
        "size",
        "threshold",
        "wake",
    )

    def __init__(self, wake: Callable[[], None], high_water: int) -> None:
        self.name = ""
        self.frames: list[bytes] = []
        self.size = 0  # bytes in frames, and those taken that the socket did not accept yet
        self.threshold = 0
        self.wake = wake
        self.high_water = high_water
        self.limit = wire.MAX_FRAME_SIZE  # of a body, as the peer announced it
        self.compress = False
        self.accepts_pickle = True
        self.announced: set[int] = set()

    def put(self, frame: bytes) -> None:
        """Queue a whole frame."""
        self.frames.append(frame)
        self.size += len(frame)
        if self.size > self.threshold:
            self.wake()

    def send(self, shape: Shape, frame: bytes) -> None:
        """Queue an event, and before it what announces its shape, the first time."""
        if shape.type_id not in self.announced:
            self.announced.add(shape.type_id)
            self.frames.append(shape.announcement)
            self.size += len(shape.announcement)
        self.put(frame)

    def take(self) -> list[bytes]:
        """Return the frames that wait, and keep none; ``size`` stays until they are written."""
        frames = self.frames
        self.frames = []
        return frames


class Shape:
    """Be one set of fields of one event type, with the number it has on the wire."""

    __slots__ = ("announcement", "fields", "layout", "name", "reluctance", "type_id")

    def __init__(self, type_id: int, name: str, layout: int, fields: tuple[str, ...]) -> None:
        self.type_id = type_id
        self.name = name
        self.layout = layout
        self.fields = fields
        self.reluctance = 0  # how often the compressor may pass an event of this shape by
        body = bytes((wire.ANNOUNCE,)) + encode_value((type_id, name, layout, fields))
        self.announcement = _length.pack(len(body)) + body


class _Consumer(Protocol):
    """Receive events: a stream, a handler, or something that waits for one event."""

    def deliver(self, event: Any, local: bool) -> None:
        """Take an event; ``local`` where it was broadcast by this very endpoint."""


class Topic:
    """Be one event class at one endpoint: who wants it, here and elsewhere."""

    __slots__ = (
        "cls",
        "consumers",
        "limited",
        "name",
        "outlets",
        "self_pickling",
        "shapes",
        "slots",
        "strict",
        "twins",
        "windows",
    )

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.name = name_of(cls)
        self.self_pickling = is_self_pickling(cls)
        self.slots = slot_names(cls)
        self.shapes: dict[tuple[str, ...] | int, Shape] = {}  # by fields, or by another layout
        self.outlets: tuple[Outlet, ...] = ()
        self.consumers: tuple[_Consumer, ...] = ()
        self.strict = False  # one of the outlets takes no pickles
        self.windows: dict[Outlet, Any] = {}  # of the outlets whose peer limits the type
        self.limited = False  # a peer limits the type, or one of the consumers does
        self.twins: tuple[Topic, ...] = ()  # of other classes of this name that have consumers


class EventTable:
    """
    Know every event class of an endpoint, and carry its broadcasts.

    :param origin: the name of the endpoint
    :param allow_pickle: False to refuse whatever is not a plain value
    :param on_topic: called with each new topic, to fill in who wants it
    """

    __slots__ = (
        "_next_id",
        "allow_pickle",
        "by_name",
        "compressor",
        "congested",
        "debt",
        "limit",
        "on_topic",
        "origin",
        "topics",
    )

    def __init__(self, origin: str, allow_pickle: bool, on_topic: Callable[[Topic], None]) -> None:
        self.origin = origin
        self.allow_pickle = allow_pickle
        self.on_topic = on_topic
        self.topics: dict[type, Topic] = {}
        self.by_name: dict[str, Topic] = {}  # whose class is meant when an event arrives
        self.compressor: Callable[[Shape, bytes], bytes | None] | None = None
        self.limit = wire.MAX_FRAME_SIZE  # the least that any peer accepts
        self.debt = 0  # what was sent since the event loop last had a turn
        self.congested = False  # an outlet went over its high-water mark
        self._next_id = 0

    def topic(self, cls: type) -> Topic:
        """
        Return the topic of an event class.

        :raise TypeError: where it is not a class derived from BaseEvent
        """
        topic = self.topics.get(cls)
        if topic is None:
            if not (isinstance(cls, type) and issubclass(cls, BaseEvent)):
                raise TypeError(f"an event type is a class derived from BaseEvent, not {cls!r}")
            topic = self.topics[cls] = Topic(cls)
            self.on_topic(topic)
        return topic

    def publish(self, event: Any) -> int:
        """
        Broadcast an event to everybody who wants it.

        :return: how many got it, or -1 where the type is limited: the caller must route it then
        :raise BindError: where it was broadcast before
        :raise EncodeError: where it cannot be sent; it has reached nobody then
        """
        topic = self.topics.get(type(event))
        if topic is None:
            topic = self.topic(type(event))
        if topic.limited:
            return -1
        outlets, consumers = topic.outlets, topic.consumers
        if not outlets:
            if "_origin" in event.__dict__:
                raise already_bound(event)
            if not consumers:
                return 0
            self.bind(event, None)
        else:
            shape, frame = self.encode(topic, event, wire.EVENT, b"")
            self.admit(outlets, shape, frame)
            self.bind(event, None)
            self.send(outlets, shape, frame)
        self.debt += 1
        for consumer in consumers:
            consumer.deliver(event, True)
        return len(outlets) + len(consumers)

    def admit(self, outlets: Iterable[Outlet], shape: Shape, frame: bytes) -> None:
        """
        Make sure that every peer accepts a frame of this size.

        :raise EncodeError: where one does not
        """
        size = max(len(frame), len(shape.announcement)) - wire.LENGTH_SIZE
        if size > self.limit:
            for outlet in outlets:
                if size > outlet.limit:
                    raise EncodeError(
                        shape.name,
                        f"it takes {size} bytes, and {outlet.name!r} accepts {outlet.limit} "
                        "(its max_frame_size)",
                    )

    def send(self, outlets: Iterable[Outlet], shape: Shape, frame: bytes) -> None:
        """Queue an encoded event for every one of the outlets, compressed where that helps."""
        compressed = None
        if self.compressor is not None and len(frame) > wire.COMPRESS_MINIMUM:
            compressed = self.compressor(shape, frame)
        for outlet in outlets:
            outlet.send(shape, compressed if compressed and outlet.compress else frame)
            if outlet.size > outlet.high_water:
                self.congested = True
        self.debt += len(frame) >> 10

    def bind(self, event: Any, request_id: bytes | None) -> None:
        """Bind an event that was not broadcast yet."""
        object.__setattr__(event, "_origin", self.origin)
        if request_id is not None:
            object.__setattr__(event, "_id", request_id)

    def encode(self, topic: Topic, event: Any, kind: int, request_id: bytes) -> tuple[Shape, bytes]:
        """
        Return the frame of an event, and the shape under which it is sent.

        :raise BindError: where the event was broadcast before
        :raise EncodeError: where it cannot be sent
        """
        state = event.__dict__
        if "_origin" in state:
            raise already_bound(event)
        may_pickle = self.allow_pickle and not topic.strict
        if topic.slots:
            state = _with_slots(event, topic.slots)
        fields = tuple(state)
        shape = topic.shapes.get(fields)
        if shape is None:
            shape = self._new_shape(topic, fields)
        if shape.layout == wire.LAYOUT_WHOLE:
            payload = self._pickle(topic, event, (), may_pickle)
        else:
            values: tuple[Any, ...]
            if shape.layout == wire.LAYOUT_FIELDS:
                values = tuple([state[name] for name in shape.fields])
            else:
                values = ({name: state[name] for name in fields if name not in BINDING},)
            out: list[bytes] = [b"\x00"]
            room = (
                [wire.MAX_PLAIN_CONTAINERS, 10]
                if may_pickle
                else [min(self.limit, wire.MAX_LENGTH), 0]
            )
            index = 0
            try:
                for value in values:
                    _write(value, out, 0, room)
                    index += 1
            except _NotPlainError as error:
                if not may_pickle:
                    field = shape.fields[index] if shape.fields else None
                    raise EncodeError(
                        topic.name, _refusal(str(error), self, topic), field
                    ) from None
                payload = self._pickle(topic, values, shape.fields, True)
                if topic.cls.__qualname__.encode("utf-8", "surrogatepass") in payload:
                    # The event may be part of its own state, which only pickling it whole keeps.
                    try:
                        payload = self._pickle(topic, event, (), True)
                        shape = self._shape(topic, wire.LAYOUT_WHOLE, ())
                    except EncodeError:
                        pass
            else:
                payload = b"".join(out)
        size = 5 + len(request_id) + len(payload)
        if size > wire.MAX_LENGTH:
            raise EncodeError(topic.name, f"it takes {size} bytes, more than a frame can have")
        return shape, _event_header.pack(size, kind, shape.type_id) + request_id + payload

    def _shape(self, topic: Topic, layout: int, fields: tuple[str, ...]) -> Shape:
        key = fields if layout == wire.LAYOUT_FIELDS else layout
        shape = topic.shapes.get(key)
        if shape is None:
            shape = topic.shapes[key] = Shape(self._next_id, topic.name, layout, fields)
            self._next_id += 1
        return shape

    def _new_shape(self, topic: Topic, names: tuple[str, ...]) -> Shape:
        """Return the shape of instances with these attributes, those of binding included."""
        if topic.self_pickling or not all(type(name) is str for name in names):
            return self._shape(topic, wire.LAYOUT_WHOLE, ())
        fields = tuple(name for name in names if name not in BINDING)
        too_many = len(topic.shapes) >= wire.MAX_SHAPES and fields not in topic.shapes
        if too_many or sum(map(len, fields)) > wire.MAX_FIELDS_SIZE:
            return self._shape(topic, wire.LAYOUT_MAPPING, ())
        return self._shape(topic, wire.LAYOUT_FIELDS, fields)

    def _pickle(self, topic: Topic, value: Any, fields: tuple[str, ...], allowed: bool) -> bytes:
        """Return a payload that pickles a value; errors name the field that is in the way."""
        if not allowed:
            raise EncodeError(
                topic.name, _refusal("its class defines its own pickling", self, topic)
            )
        try:
            return b"\x01" + pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            for name, part in zip(fields, value if fields else (), strict=True):
                try:
                    pickle.dumps(part, pickle.HIGHEST_PROTOCOL)
                except Exception as cause:
                    raise EncodeError(topic.name, _said(cause), name) from cause
            raise EncodeError(topic.name, _said(error)) from error


def _with_slots(event: Any, slots: tuple[str, ...]) -> dict[str, Any]:
    """Return all attributes of an instance, those that it keeps in slots behind the others."""
    state = dict(event.__dict__)
    for name in slots:
        try:
            state[name] = object.__getattribute__(event, name)
        except AttributeError:
            pass  # a slot may be empty
    return state


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _refusal(reason: str, table: EventTable, topic: Topic) -> str:
    if not table.allow_pickle:
        return f"{reason}, and this endpoint has allow_pickle=False"
    names = ", ".join(repr(outlet.name) for outlet in topic.outlets if not outlet.accepts_pickle)
    return f"{reason}, and {names} accepts no pickled values"


# -- Receiving -------------------------------------------------------------------------------


class Mailbox:
    """
    Keep events until they are read.

    :param remaining: how many are still wanted; -1 for all that come
    :param on_last: called when the last wanted event arrived
    """

    __slots__ = ("events", "on_last", "remaining", "waker")

    def __init__(self, remaining: int = -1, on_last: Callable[[], None] | None = None) -> None:
        self.events: deque[Any] = deque()
        self.remaining = remaining
        self.on_last = on_last
        self.waker: Callable[[], None] | None = None  # called once, by the next event

    def deliver(self, event: Any, local: bool) -> None:
        """Keep an event, and wake whoever waits for one."""
        if self.remaining >= 0:
            if not self.remaining:
                return
            self.remaining -= 1
        self.events.append(event)
        waker = self.waker
        if waker is not None:
            self.waker = None
            waker()
        if not self.remaining and self.on_last is not None:
            self.on_last()


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
        try:
            event = self._build(cls, data, offset, loads)
            object.__setattr__(event, "_origin", origin)
            if request_id is not None:
                object.__setattr__(event, "_id", request_id)
        except DecodeError:
            raise
        except Exception as error:
            raise DecodeError(_said(error)) from error
        return event

    def _build(
        self,
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
            values = []
            for _ in self.fields if self.layout == wire.LAYOUT_FIELDS else (None,):
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


class Reader:
    """
    Take frames out of the bytes that a peer sends.

    A socket fills :meth:`get_buffer`; after :meth:`buffer_updated`, :meth:`next_frame` gives the
    frames one by one. Events and requests of announced types are not given back: they are decoded
    and handed to their consumers here. After an error every further call raises it again.

    :param limit: the longest body that is accepted, in bytes; may be changed at any time
    :param on_error: called with the inlet and the DecodeError where one event does not decode
    """

    __slots__ = (
        "_buffer",
        "_end",
        "_failure",
        "_start",
        "find_topic",
        "inlets",
        "limit",
        "loads",
        "on_error",
        "origin",
    )

    def __init__(self, limit: int, on_error: Callable[[Inlet, DecodeError], None]) -> None:
        self.limit = limit
        self.on_error = on_error
        self.origin = ""  # the name of the peer
        self.inlets: dict[int, Inlet] | None = None  # None until the handshake is over
        self.find_topic: Callable[[str], Topic | None] = _nothing
        self.loads: Callable[[Any], Any] | None = pickle.loads
        self._buffer = bytearray(_BUFFER_MINIMUM)
        self._start = 0
        self._end = 0
        self._failure: ProtocolError | None = None

    @property
    def pending(self) -> int:
        """How many bytes wait for the rest of their frame."""
        return self._end - self._start

    def get_buffer(self, sizehint: int = -1) -> memoryview:
        """
        Return where the next bytes belong; never empty.

        What :meth:`next_frame` gave before is not valid any more.
        """
        capacity = len(self._buffer)
        pending = self._end - self._start
        if not pending:
            size = max(_BUFFER_MINIMUM, min(capacity, _BUFFER_MAXIMUM))
            if self._end == capacity < _BUFFER_MAXIMUM:
                size = min(2 * capacity, _BUFFER_MAXIMUM)  # more had come than it could hold
            if size != capacity:
                self._buffer = bytearray(size)
            self._start = self._end = 0
        elif capacity - self._end < _BUFFER_MINIMUM:
            needed = pending + _BUFFER_MINIMUM
            if pending >= wire.LENGTH_SIZE:
                size = _length.unpack_from(self._buffer, self._start)[0] + wire.LENGTH_SIZE
                needed = max(size, pending + 1)
            if self._start + needed > capacity or self._end == capacity:
                # Room for a frame grows as its bytes arrive, not because its header says so.
                size = max(_BUFFER_MINIMUM, min(needed, 4 * pending))
                target = self._buffer if size <= capacity else bytearray(size)
                target[:pending] = self._buffer[self._start : self._end]
                self._buffer, self._start, self._end = target, 0, pending
        return memoryview(self._buffer)[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        """
        Take note that so many bytes were put into the buffer.

        :raise ValueError: where it had no room for them
        """
        if not 0 <= nbytes <= len(self._buffer) - self._end:
            raise ValueError(f"the buffer has no room for {nbytes} bytes")
        self._end += nbytes

    def next_frame(self) -> memoryview | None:
        """
        Return the body of the next frame that is not an event, or None if more bytes are needed.

        :raise ProtocolError: where the peer broke the format; the connection must be closed
        """
        if self._failure is not None:
            raise self._failure
        try:
            while (body := self._next_body()) is not None:
                if not self.dispatch(body):
                    return body
        except ProtocolError as error:
            self._failure = error
            raise
        return None

    def _next_body(self) -> memoryview | None:
        pending = self._end - self._start
        if pending < wire.LENGTH_SIZE:
            return None
        size: int = _length.unpack_from(self._buffer, self._start)[0]
        if size > self.limit:
            raise FrameTooLarge(size, self.limit)
        if not size:
            raise ProtocolError("a frame is empty")
        if pending < wire.LENGTH_SIZE + size:
            return None
        start = self._start + wire.LENGTH_SIZE
        self._start = start + size
        return memoryview(self._buffer)[start : start + size]

    def dispatch(self, body: bytes | memoryview) -> bool:
        """
        Hand an event or request to its consumers.

        :return: False where the body is of another kind, or there was no handshake yet
        :raise ProtocolError: where the body is empty, or the type was not announced
        """
        if not body:
            raise ProtocolError("a frame is empty")
        kind = body[0]
        if (kind != wire.EVENT and kind != wire.REQUEST) or self.inlets is None:
            return False
        offset = 5 if kind == wire.EVENT else 5 + wire.ID_SIZE
        if len(body) < offset:
            raise ProtocolError(f"a frame of {len(body)} bytes is too short for an event")
        inlet = self.inlets.get(_type_id.unpack_from(body, 1)[0])
        if inlet is None:
            raise ProtocolError("an event is of a type that was not announced")
        topic = inlet.topic
        if topic is None or not topic.consumers:
            topic = inlet.topic = self.find_topic(inlet.name)
            if topic is None or not topic.consumers:
                return True  # it was sent before the peer knew that nobody wants it any more
        request_id = bytes(body[5:offset]) if kind == wire.REQUEST else None
        event = self._build(inlet, topic, body, offset, request_id)
        others = [
            (twin, self._build(inlet, twin, body, offset, request_id)) for twin in topic.twins
        ]
        if event is not None:
            for consumer in topic.consumers:
                consumer.deliver(event, False)
        for twin, event in others:
            for consumer in twin.consumers if event is not None else ():
                consumer.deliver(event, False)
        return True

    def _build(
        self,
        inlet: Inlet,
        topic: Topic,
        body: bytes | memoryview,
        offset: int,
        request_id: bytes | None,
    ) -> Any:
        """Return the event, as an instance of the topic's class; None where it does not decode."""
        try:
            return inlet.build(topic.cls, body, offset, self.origin, request_id, self.loads)
        except DecodeError as error:
            self.on_error(inlet, error)
            return None

    def end(self) -> None:
        """
        Take note that the peer sends no more.

        :raise TruncatedFrame: where that is in the middle of a frame
        """
        pending = self._end - self._start
        if pending and self._failure is None:
            missing = None
            if pending >= wire.LENGTH_SIZE:
                missing = _length.unpack_from(self._buffer, self._start)[0] - (pending - 4)
            raise TruncatedFrame(missing)


def _nothing(name: str) -> None:
    return None
