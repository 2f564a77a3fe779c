"""
The sending side, in plain Python: a part of ``_framing_py``, which see.

From an event to the outgoing queues of the peers that want it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol

from . import wire
from ._codec_py import _length, _NotPlainError, _write, encode_value
from .common import BaseEvent, BroadcastConfig, already_bound
from .exceptions import EncodeError
from .frames import APART, CHUNK_SIZE, LONG, Frame, frame_size, gathered
from .layouts import BINDING, check_fields, is_self_pickling, slot_names
from .names import name_of

__all__ = ["EventTable", "Outlet", "PendingRequest", "Shape", "Topic"]

_MOST_DEBT: Final = 256  # broadcasts, or KiB, after which a broadcast gives others a turn
_IDS_AT_A_TIME: Final = 64  # of requests: asking the system for random bytes takes a microsecond

_event_header = struct.Struct("<IBI")


class Outlet:
    """
    Gather the frames that wait to be written to one peer.

    :param wake: called with nothing when more than ``threshold`` bytes wait. It may write at once.
    """

    __slots__ = (
        "_chunks",
        "_filled",
        "_open",
        "accepts_pickle",
        "announced",
        "compress",
        "events",
        "has_long",
        "high_water",
        "limit",
        "name",
        "size",
        "threshold",
        "wake",
    )

    def __init__(self, wake: Callable[[], None], high_water: int) -> None:
        self.name = ""
        self.size = 0  # bytes that wait, and those taken that the socket did not accept yet
        self.threshold = 0
        self.wake = wake
        self.high_water = high_water
        self.limit = wire.MAX_FRAME_SIZE  # of a body, as the peer announced it
        self.compress = False
        self.accepts_pickle = True
        self.announced: set[int] = set()
        self.events = 0  # how many were queued so far
        self.has_long = False  # whether a value was queued that is a piece by itself
        self._chunks: list[bytes] = []  # complete ones
        self._open: list[bytes] = []  # what will be one chunk
        self._filled = 0  # bytes in there

    def put(self, frame: Frame) -> None:
        """Queue a whole frame."""
        if isinstance(frame, bytes):
            self._put(frame)
        else:
            for piece in frame:
                self._put(piece)
        if self.size > self.threshold:
            self.wake()

    def send(self, shape: Shape, frame: Frame) -> None:
        """Queue an event, and before it what announces its shape, the first time."""
        if shape.type_id not in self.announced:
            self._put(shape.announcement)
            self.announced.add(shape.type_id)
        self.events += 1
        self.put(frame)

    def _put(self, data: bytes) -> None:
        size = len(data)
        if size >= LONG:
            self._complete()
            self._chunks.append(data)
            if size >= APART:
                self.has_long = True
        else:
            if self._filled + size > CHUNK_SIZE:
                self._complete()
            self._open.append(data)
            self._filled += size
        self.size += size

    def _complete(self) -> None:
        """Let what was gathered be a chunk."""
        if self._open:
            self._chunks.append(b"".join(self._open))
            self._open = []
            self._filled = 0

    def take(self) -> list[bytes]:
        """
        Return what waits, in chunks of which only the long ones are single frames, or pieces.

        Nothing is kept; ``size`` stays until they are written.
        """
        self._complete()
        chunks = self._chunks
        self._chunks = []
        return chunks


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
        "broadcasts",
        "cls",
        "consumers",
        "delivered",
        "limited",
        "name",
        "outlets",
        "received",
        "self_pickling",
        "sent",
        "shapes",
        "slots",
        "strict",
        "tapped",
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
        self.tapped = False  # an observer is shown what is broadcast: the type is limited, too
        self.broadcasts = 0  # how many events were broadcast here
        self.sent = 0  # how many copies of them went to peers
        self.received = 0  # how many events came from peers
        self.delivered = 0  # how many were handed to consumers, of either kind


class PendingRequest:
    """
    Be a request that waits for its response.

    :param id: what ties a response to it
    :param expected: the class of the response
    :param topic: the topic of that class, where it is a class of events
    :param asked: the outlets of the endpoints that it was sent to
    :param locally: whether this endpoint's own consumers were asked
    :param wake: called when there is a response or an error
    """

    __slots__ = (
        "asked",
        "error",
        "expected",
        "id",
        "locally",
        "response",
        "since",
        "topic",
        "wake",
    )

    def __init__(
        self,
        id: bytes,
        expected: type,
        topic: Topic | None,
        asked: tuple[Outlet, ...],
        locally: bool,
        wake: Callable[[], None],
    ) -> None:
        self.id = id
        self.expected = expected
        self.topic = topic
        self.asked = asked
        self.locally = locally
        self.wake = wake
        self.response: Any = None
        self.error: Exception | None = None
        self.since = 0.0  # when it was sent, in seconds by whatever clock its owner has

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the other endpoints that were asked, and are still connected."""
        return tuple(sorted([outlet.name for outlet in self.asked]))


class EventTable:
    """
    Know every event class of an endpoint, and carry its broadcasts.

    :param origin: the name of the endpoint
    :param allow_pickle: False to refuse whatever is not a plain value
    :param on_topic: called with each new topic, to fill in who wants it
    """

    __slots__ = (
        "_ids",
        "_next_id",
        "allow_pickle",
        "by_name",
        "compressor",
        "congested",
        "debt",
        "home",
        "limit",
        "on_congested",
        "on_topic",
        "origin",
        "outlets",
        "owner",
        "requests",
        "route",
        "route_request",
        "running_key",
        "targets",
        "topics",
        "where",
    )

    def __init__(self, origin: str, allow_pickle: bool, on_topic: Callable[[Topic], None]) -> None:
        self.origin = origin
        self.allow_pickle = allow_pickle
        self.on_topic = on_topic
        self.topics: dict[type, Topic] = {}
        self.by_name: dict[str, Topic] = {}  # whose class is meant when an event arrives
        self.compressor: Callable[[Shape, Frame], bytes | None] | None = None
        self.limit = wire.MAX_FRAME_SIZE  # the least that any peer accepts
        self.debt = 0  # what was sent since the event loop last had a turn
        self.congested = False  # an outlet went over its high-water mark
        self.where: Callable[[], object] = _nowhere  # returns the event loop that runs now
        self.home: object = _NOWHERE  # the event loop in which the endpoint runs
        # Where the interpreter keeps what is as good as ``where``, for as long as the loop runs: in
        # the dictionary that each thread has. Only the compiled module can look there.
        self.running_key: str | None = None
        self.owner: Any = _Nobody  # the endpoint, which says whether broadcasts need a subscriber
        self.route: Callable[[Any, Any], Sequence[Any]] = _not_routed
        self.route_request: Callable[[Any, Any, bool, Any], PendingRequest] = _not_routed_request
        self.on_congested: Callable[[tuple[Outlet, ...]], Sequence[Any]] = _no_gates
        self.targets: Callable[[Topic, Any, bool], tuple[Any, Any]] = _no_targets
        self.outlets: dict[str, Outlet] = {}  # of the endpoints that are connected
        self.requests: dict[bytes, PendingRequest] = {}
        self._next_id = 0
        self._ids: list[bytes] = []

    def is_home(self) -> bool:
        """Return whether the endpoint's event loop runs, in this thread."""
        return self.where() is self.home

    def topic(self, cls: type) -> Topic:
        """
        Return the topic of an event class.

        :raise TypeError: where it is not a class derived from BaseEvent, or has a field of a name
            that lahja needs itself
        """
        topic = self.topics.get(cls)
        if topic is None:
            if not (isinstance(cls, type) and issubclass(cls, BaseEvent)):
                raise TypeError(f"an event type is a class derived from BaseEvent, not {cls!r}")
            check_fields(cls)
            topic = self.topics[cls] = Topic(cls)
            self.on_topic(topic)
        return topic

    def post(self, event: Any, config: Any = None) -> Sequence[Any] | None:
        """
        Broadcast an event from the endpoint's own event loop, whatever that takes.

        What is not plain is left to ``route``: flow control has a say, nobody wants the event
        though somebody should, it comes from elsewhere, or does not go to all, and not to just one
        endpoint.

        :return: None where the caller may go on; else the gates that hold it back, none of which
            means that others should have a turn
        """
        gates: Sequence[Any] = ()
        if not self.is_home():
            gates = self.route(event, config)
        elif config is None:
            receivers = self.publish(event)
            if receivers < 0 or (not receivers and self.owner.require_subscriber):
                gates = self.route(event, None)
            elif not receivers:
                self.topics[type(event)].broadcasts += 1
                self.debt += 1
            elif self.congested:
                gates = self.on_congested(self.topics[type(event)].outlets)
        else:
            outlets = self._post_to_one(event, config)
            if outlets is None:
                gates = self.route(event, config)
            elif self.congested:
                gates = self.on_congested(outlets)
        return self.settle(gates)

    def settle(self, gates: Sequence[Any]) -> Sequence[Any] | None:
        """Return what a broadcaster is to wait for: None, these gates, or a turn of the others."""
        if not gates and self.debt <= _MOST_DEBT:
            return None
        self.debt = 0
        return gates

    def _post_to_one(self, event: Any, config: Any) -> tuple[Outlet, ...] | None:
        """Send an event, or a response, to one other endpoint; None where that is not its way."""
        if type(config) is not BroadcastConfig or config.internal:
            return None
        outlet = self.outlets.get(config.filter_endpoint)  # type: ignore[arg-type]
        if outlet is None:
            return None
        topic = self.topic(type(event))
        if topic.tapped:
            return None
        request_id: Any = config.filter_event_id
        if request_id is None:
            if topic.limited or outlet not in topic.outlets:
                return None
            kind, request_id = wire.EVENT, b""
        elif type(request_id) is bytes and len(request_id) == wire.ID_SIZE:
            kind = wire.RESPONSE
        else:
            return None
        outlets = (outlet,)
        shape, frame = self.prepare(topic, event, kind, request_id, outlets)
        self.send(outlets, shape, frame)
        topic.broadcasts += 1
        topic.sent += 1
        self.debt += 1
        return outlets

    def ask(
        self, event: Any, config: Any, required: bool, wake: Callable[[], None]
    ) -> PendingRequest:
        """
        Send a request to everybody who wants it, or to whom ``targets`` says.

        One of a type that is tapped is left to ``route_request``.

        :param required: whether it is an error that nobody gets it
        :param wake: called when there is a response or an error
        :raise NoSubscribers: where nobody gets it, by ``targets``
        :raise BindError: where it was broadcast before
        :raise EncodeError: where it cannot be sent; it has reached nobody then
        """
        topic = self.topic(type(event))
        if topic.tapped:
            return self.route_request(event, config, required, wake)
        outlets, consumers = topic.outlets, topic.consumers
        if config is not None or not (outlets or consumers):
            outlet = None
            if type(config) is BroadcastConfig and not config.internal:
                outlet = self.outlets.get(config.filter_endpoint)  # type: ignore[arg-type]
            if outlet is not None and outlet in outlets:
                outlets, consumers = (outlet,), ()
            else:
                outlets, consumers = self.targets(topic, config, required)
        request = self.new_request(topic, event, outlets, bool(consumers), wake)
        if outlets:
            shape, frame = self.prepare(topic, event, wire.REQUEST, request.id, outlets)
            self.requests[request.id] = request
            self.send(outlets, shape, frame)
            topic.sent += len(outlets)
        else:
            if "_origin" in event.__dict__:
                raise already_bound(event)
            self.bind(event, request.id)
            self.requests[request.id] = request
        topic.broadcasts += 1
        topic.delivered += len(consumers)
        self.debt += 1
        for consumer in consumers:
            consumer.deliver(event, True)
        return request

    def new_request(
        self,
        topic: Topic,
        event: Any,
        outlets: tuple[Outlet, ...],
        locally: bool,
        wake: Callable[[], None],
    ) -> PendingRequest:
        """
        Return a request that is about to be sent to some outlets, and taken here or not.

        :raise TypeError: where the response that it expects is of no class
        """
        expected = event.expected_response_type()
        if not isinstance(expected, type):
            raise TypeError(f"{topic.name} expects a response of {expected!r}, which is no class")
        awaited = self.topic(expected) if issubclass(expected, BaseEvent) else None
        if not self._ids:
            pool = os.urandom(_IDS_AT_A_TIME * wire.ID_SIZE)
            self._ids = [pool[i : i + wire.ID_SIZE] for i in range(0, len(pool), wire.ID_SIZE)]
        return PendingRequest(self._ids.pop(), expected, awaited, outlets, locally, wake)

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
            topic.sent += len(outlets)
        topic.broadcasts += 1
        topic.delivered += len(consumers)
        self.debt += 1
        for consumer in consumers:
            consumer.deliver(event, True)
        return len(outlets) + len(consumers)

    def prepare(
        self,
        topic: Topic,
        event: Any,
        kind: int,
        request_id: bytes,
        outlets: tuple[Outlet, ...],
    ) -> tuple[Shape, Frame]:
        """
        Encode and bind an event that is about to be sent to some outlets only.

        :return: what :meth:`send` takes
        :raise BindError: where it was broadcast before
        :raise EncodeError: where it cannot be sent
        """
        shape, frame = self.encode(topic, event, kind, request_id, outlets)
        self.admit(outlets, shape, frame)
        self.bind(event, request_id or None)
        return shape, frame

    def admit(self, outlets: Iterable[Outlet], shape: Shape, frame: Frame) -> None:
        """
        Make sure that every peer accepts a frame of this size.

        :raise EncodeError: where one does not
        """
        size = max(frame_size(frame), len(shape.announcement)) - wire.LENGTH_SIZE
        if size > self.limit:
            for outlet in outlets:
                if size > outlet.limit:
                    raise EncodeError(
                        shape.name,
                        f"it takes {size} bytes, and {outlet.name!r} accepts {outlet.limit} "
                        "(its max_frame_size)",
                    )

    def send(self, outlets: Iterable[Outlet], shape: Shape, frame: Frame) -> None:
        """Queue an encoded event for every one of the outlets, compressed where that helps."""
        compressed = None
        size = frame_size(frame)
        if self.compressor is not None and size > wire.COMPRESS_MINIMUM:
            compressed = self.compressor(shape, frame)
        for outlet in outlets:
            outlet.send(shape, compressed if compressed and outlet.compress else frame)
            if outlet.size > outlet.high_water:
                self.congested = True
        self.debt += size >> 10

    def bind(self, event: Any, request_id: bytes | None) -> None:
        """Bind an event that was not broadcast yet."""
        object.__setattr__(event, "_origin", self.origin)
        if request_id is not None:
            object.__setattr__(event, "_id", request_id)

    def encode(
        self,
        topic: Topic,
        event: Any,
        kind: int,
        request_id: bytes,
        outlets: tuple[Outlet, ...] | None = None,
    ) -> tuple[Shape, Frame]:
        """
        Return the frame of an event, and the shape under which it is sent.

        Long values are pieces of it, and are not copied.

        :param outlets: those that have a say in how it is encoded; all that want the type if None
        :raise BindError: where the event was broadcast before
        :raise EncodeError: where it cannot be sent
        """
        state = event.__dict__
        if "_origin" in state:
            raise already_bound(event)
        if outlets is None or outlets is topic.outlets:
            outlets = topic.outlets
            may_pickle = self.allow_pickle and not topic.strict
        else:
            may_pickle = self.allow_pickle and all(each.accepts_pickle for each in outlets)
        if topic.slots:
            state = _with_slots(event, topic.slots)
        fields = tuple(state)
        shape = topic.shapes.get(fields)
        if shape is None:
            shape = self._new_shape(topic, fields)
        payload: list[bytes]
        if shape.layout == wire.LAYOUT_WHOLE:
            if not may_pickle:
                reason = "its class defines its own pickling"
                raise EncodeError(topic.name, _refusal(reason, self, outlets))
            payload = [b"\x01", self._pickle(topic, event, ())]
        else:
            values: tuple[Any, ...]
            if shape.layout == wire.LAYOUT_FIELDS:
                values = tuple([state[name] for name in shape.fields])
            else:
                values = ({name: state[name] for name in fields if name not in BINDING},)
            payload = [b"\x00"]
            room = (
                [wire.MAX_PLAIN_CONTAINERS, 10]
                if may_pickle
                else [min(self.limit, wire.MAX_LENGTH), 0]
            )
            index = 0
            try:
                for value in values:
                    _write(value, payload, 0, room)
                    index += 1
            except _NotPlainError as error:
                if not may_pickle:
                    field = shape.fields[index] if shape.fields else None
                    raise EncodeError(
                        topic.name, _refusal(str(error), self, outlets), field
                    ) from None
                pickled = self._pickle(topic, values, shape.fields)
                if topic.cls.__qualname__.encode("utf-8", "surrogatepass") in pickled:
                    # The event may be part of its own state, which only pickling it whole keeps.
                    try:
                        pickled = self._pickle(topic, event, ())
                        shape = self._shape(topic, wire.LAYOUT_WHOLE, ())
                    except EncodeError:
                        pass
                payload = [b"\x01", pickled]
        size = 5 + len(request_id) + sum(map(len, payload))
        if size > wire.MAX_LENGTH:
            raise EncodeError(topic.name, f"it takes {size} bytes, more than a frame can have")
        parts = (_event_header.pack(size, kind, shape.type_id), request_id, *payload)
        return shape, b"".join(parts) if size < APART else gathered(parts)

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

    def _pickle(self, topic: Topic, value: Any, fields: tuple[str, ...]) -> bytes:
        """Return the pickle of a value; errors name the field that is in the way."""
        try:
            return _pickled(value)
        except Exception as error:
            for name, part in zip(fields, value if fields else (), strict=True):
                try:
                    _pickled(part)
                except Exception as cause:
                    raise EncodeError(topic.name, _said(cause), name) from cause
            raise EncodeError(topic.name, _said(error)) from error


_dumps: Callable[[Any, int], bytes] | None = None


def _pickled(value: Any) -> bytes:
    """Return a value, pickled; pickle is imported here, because it takes a millisecond."""
    global _dumps
    if _dumps is None:
        from pickle import dumps

        _dumps = dumps
    return _dumps(value, -1)


_NOWHERE: Final = object()


class _Nobody:
    """Be no endpoint."""

    require_subscriber = True


def _nowhere() -> object:
    return None


def _not_routed(event: Any, config: Any) -> Sequence[Any]:
    raise RuntimeError("no endpoint uses this table")


def _not_routed_request(event: Any, config: Any, required: bool, wake: Any) -> PendingRequest:
    raise RuntimeError("no endpoint uses this table")


def _no_gates(outlets: tuple[Outlet, ...]) -> Sequence[Any]:
    return ()


def _no_targets(topic: Topic, config: Any, required: bool) -> tuple[Any, Any]:
    return (), ()


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


def _refusal(reason: str, table: EventTable, outlets: tuple[Outlet, ...]) -> str:
    if not table.allow_pickle:
        return f"{reason}, and this endpoint has allow_pickle=False"
    names = ", ".join([repr(outlet.name) for outlet in outlets if not outlet.accepts_pickle])
    return f"{reason}, and {names} accepts no pickled values"
