"""
One connection: its handshake, and every frame that is not an event.

A :class:`Connection` is fed by whoever owns the socket: bytes into ``connection.reader``, then
:meth:`Connection.receive`; what it has to say gathers in ``connection.outlet``. What it learns it
tells its :class:`Host`, the endpoint's router. It knows no socket, clock or event loop.

What a peer may send, and when, is in ``_ALLOWED``; all that moves a connection from one state to
another is in the ``_on_…`` methods. After an error the connection stays failed.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from . import wire
from .compression import has_snappy, uncompress
from .exceptions import DecodeError, ProtocolError
from .frames import Frame, frame_size, gathered
from .framing import Inlet, Outlet, Reader, decode_value, encode_value
from .layouts import BINDING
from .names import main_module_name
from .pickling import loads_from

__all__ = [
    "Audience",
    "Connection",
    "Hello",
    "Host",
    "Rejection",
    "State",
    "control_frame",
    "one_line",
    "tapped_frame",
    "traced_frame",
]

_SMALLEST_FRAME_LIMIT = 1024
_TAPPED = struct.Struct("<BIII")  # what comes before the event
_LONGEST_LINE = 500


class State(enum.Enum):
    """Say where the conversation is."""

    HELLO = "waiting for the peer's hello"
    SUBSCRIPTIONS = "waiting for the peer's subscriptions"
    OPEN = "open"
    LEFT = "the peer said goodbye"
    REFUSED = "refused"
    FAILED = "failed"


_HANDSHAKE = {State.HELLO, State.SUBSCRIPTIONS}

# Events, requests and responses are not in it: the reader takes them out of an open connection.
_ALLOWED: dict[int, set[State]] = {
    wire.HELLO: {State.HELLO},
    wire.REJECT: _HANDSHAKE,
    wire.SUBSCRIBE: {State.SUBSCRIPTIONS, State.OPEN},
    wire.ANNOUNCE: {State.OPEN},
    wire.COMPRESSED: {State.OPEN},
    wire.TRACED: {State.OPEN},
    wire.CREDIT: {State.OPEN},
    wire.GOODBYE: {State.OPEN},
    wire.ASK_STATS: {State.OPEN},
    wire.STATS: {State.OPEN},
    wire.TAPPED: {State.OPEN},
}
_ALLOWED_TO_OBSERVERS = {wire.SUBSCRIBE, wire.ASK_STATS, wire.GOODBYE}
_ONLY_FOR_OBSERVERS = {wire.STATS, wire.TAPPED}


class Hello(NamedTuple):
    """Introduce an endpoint: see HELLO in :mod:`lahja.wire`."""

    version: int
    name: str
    instance: bytes
    options: dict[str, Any]


class Rejection(NamedTuple):
    """Say why a connection is refused: a ``REJECT_…`` code, and a sentence."""

    code: str
    reason: str


class Host(Protocol):
    """Be told what a connection learns."""

    def admit(self, connection: Connection) -> Rejection | None:
        """Decide whether the peer that just said hello may connect."""

    def established(self, connection: Connection) -> None:
        """Take note that the handshake is over."""

    def refused(self, connection: Connection, rejection: Rejection) -> None:
        """Take note that the peer refused this endpoint's connection."""

    def subscribed(
        self, connection: Connection, added: dict[str, int | None], removed: Iterable[str]
    ) -> None:
        """Take note that the subscriptions of the peer changed, once it is established."""

    def responded(
        self, connection: Connection, inlet: Inlet, request_id: bytes, body: Any, offset: int
    ) -> None:
        """Take a response that is not just what was asked; see :meth:`lahja.framing.Reader`."""

    def credited(self, connection: Connection, name: str, count: int) -> None:
        """Take note that the peer has room for so many more events of a type."""

    def undecodable(self, connection: Connection, name: str, error: DecodeError) -> None:
        """Take note that an event of the named type was lost."""

    def asked(self, connection: Connection, number: int) -> None:
        """Answer with statistics; the answer has the same number."""


class Audience(Protocol):
    """Be told what an observer sees."""

    def answered(self, number: int, answer: dict[str, Any] | str) -> None:
        """Take the statistics that were asked for, or why there are none."""

    def tapped(self, inlet: Inlet, body: memoryview, elsewhere: int, here: int) -> None:
        """Take an event that the peer has broadcast; see TAPPED in :mod:`lahja.wire`."""

    def missed(self, count: int) -> None:
        """Take note that so many events were not sent, because too many waited."""


def one_line(text: object) -> str:
    """Return what a peer may have chosen as it may stand in a log: short, and printable."""
    line = str(text)
    if len(line) > _LONGEST_LINE:
        line = f"{line[:_LONGEST_LINE]}…"
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def control_frame(kind: int, *values: object) -> bytes:
    """Return a frame of one of the kinds whose body is a tuple of plain values."""
    value = encode_value(values)
    return struct.pack("<IB", len(value) + 1, kind) + value


def traced_frame(frame: Frame, context: bytes) -> Frame:
    """
    Return the frame of an event together with the trace that it belongs to.

    :param context: the plain value that TRACED has in :mod:`lahja.wire`
    """
    size = 3 + len(context) + frame_size(frame) - wire.LENGTH_SIZE
    header = struct.pack("<IBH", size, wire.TRACED, len(context))
    first, *others = (frame,) if isinstance(frame, bytes) else frame
    return gathered((header, context, first[wire.LENGTH_SIZE :], *others))


def tapped_frame(lost: int, elsewhere: int, here: int, body: bytes = b"") -> bytes:
    """
    Return the frame that shows an event to an observer.

    :param body: of the event's frame; empty where there is nothing to tell but what was lost
    """
    size = struct.pack("<I", wire.TAPPED_SIZE + len(body))
    return b"".join((size, _TAPPED.pack(wire.TAPPED, lost, elsewhere, here), body))


class Connection:
    """
    Hold one conversation with one peer.

    :param host: what to tell the news
    :param hello: how this endpoint introduces itself
    :param subscriptions: returns this endpoint's subscriptions, as SUBSCRIBE has them
    :param wake: called when the outlet has something to write
    :param high_water: bytes that may wait for the peer before broadcasts wait for it
    :param to: the name of the peer, where this is the connecting side
    """

    def __init__(
        self,
        host: Host,
        hello: Hello,
        subscriptions: Callable[[], Mapping[str, int | None]],
        wake: Callable[[], None],
        high_water: int,
        to: str | None = None,
    ) -> None:
        self.host = host
        self.own_hello = hello
        self.outlet = Outlet(wake, high_water)
        self.reader = Reader(wire.HELLO_LIMIT, self._on_undecodable)
        self.reader.outlet = self.outlet
        self.reader.on_response = self._on_response
        self.ended = False  # whether the peer has nothing more to say that counts
        self.state = State.HELLO
        self.to = to
        self.peer: Hello | None = None
        self.subscriptions: dict[str, int | None] = {}  # of the peer
        self.goodbye_sent = False
        self.rejection: Rejection | None = None  # why this connection was refused, if it was
        self.unasked: set[str] = set()  # types that the peer sent though nobody asked for them
        self.on_receive: Callable[[int], None] = _nothing  # called with how many bytes came
        self.is_trusted = True  # whether the peer is of this process's user, or root
        self.audience: Audience | None = None  # of this side, where it only observes
        self.traced_origin: Callable[[str, dict[str, str]], str] | None = (
            None  # where traces are kept
        )
        self._own_subscriptions = subscriptions
        self._limit: int = hello.options["max_frame_size"]
        self._announced_size = 0  # bytes of the peer's announcements
        self._subscribed_size = 0  # characters of the names that it is subscribed to

    def __repr__(self) -> str:
        return f"<Connection to {self.name or self.to!r}: {self.state.value}>"

    @property
    def name(self) -> str:
        """The name of the peer; empty before it said hello."""
        return self.peer.name if self.peer is not None else ""

    @property
    def state(self) -> State:
        """Where the conversation is."""
        return self._state

    @state.setter
    def state(self, state: State) -> None:
        self._state = state
        self.ended = state in _ENDED

    @property
    def instance(self) -> bytes:
        """The instance id of the peer; empty before it said hello."""
        return self.peer.instance if self.peer is not None else b""

    @property
    def serves_at(self) -> str | None:
        """The path at which the peer served when it said hello; None where it did not."""
        return self.peer.options.get("path") if self.peer is not None else None

    @property
    def observes(self) -> bool:
        """Whether the peer said that it only observes."""
        return self.peer is not None and self.peer.options.get("observe", False)

    # -- What this side says -----------------------------------------------------------------

    def start(self) -> None:
        """Begin the conversation, where this is the connecting side."""
        self._say_hello()

    def _say_hello(self) -> None:
        version, name, instance, options = self.own_hello
        if self.to is not None:
            options = {**options, "to": self.to}
        self.outlet.put(control_frame(wire.HELLO, version, name, instance, dict(options)))
        for chunk in _chunks(self._own_subscriptions()):
            self.outlet.put(control_frame(wire.SUBSCRIBE, chunk, (), False))
        self.outlet.put(control_frame(wire.SUBSCRIBE, {}, (), True))

    def tell_subscriptions(self, added: Mapping[str, int | None], removed: Iterable[str]) -> None:
        """
        Tell the peer of a change of this endpoint's subscriptions.

        The accepting side says nothing before it introduces itself with all of them.
        """
        if self.state is State.OPEN or self.to is not None:
            self.outlet.put(control_frame(wire.SUBSCRIBE, dict(added), tuple(removed), True))

    def grant(self, name: str, count: int) -> None:
        """Allow the peer to send so many more events of a type."""
        self.outlet.put(control_frame(wire.CREDIT, name, count))

    def ask_stats(self, number: int) -> None:
        """Ask the peer for its statistics."""
        self.outlet.put(control_frame(wire.ASK_STATS, number))

    def say_goodbye(self) -> None:
        """
        Tell the peer that this endpoint leaves on purpose.

        To the accepting side, what connects to it is a peer before the connecting side knows that.
        """
        is_peer = self.state is State.OPEN or (self.to is not None and self.state in _HANDSHAKE)
        if is_peer and not self.goodbye_sent:
            self.goodbye_sent = True
            self.outlet.put(control_frame(wire.GOODBYE))

    def _refuse(self, rejection: Rejection) -> None:
        self.state = State.REFUSED
        self.rejection = rejection
        if self.to is None:
            self.outlet.put(control_frame(wire.REJECT, *rejection))
        else:
            self.host.refused(self, rejection)

    # -- What the peer says ------------------------------------------------------------------

    def receive(self, nbytes: int) -> bool:
        """
        Handle what was put into the reader's buffer.

        :return: whether it may have changed the state: False where there were nothing but events
        :raise ProtocolError: where the peer broke the format; the connection must be closed
        """
        reader = self.reader
        reader.buffer_updated(nbytes)
        if self.ended:
            return True
        self.on_receive(nbytes)
        try:
            body = reader.next_frame()
            if body is None:
                return False
            while body is not None:
                self._handle(body)
                body = None if self.ended else reader.next_frame()
            return True
        except ProtocolError:
            self.state = State.FAILED
            raise

    def end(self) -> None:
        """
        Take note that the peer sends no more.

        :raise TruncatedFrame: where that is in the middle of a frame
        """
        if not self.ended:
            self.state = State.FAILED
            self.reader.end()

    def release(self) -> None:
        """Let go of what refers back to here, once all is said: no garbage is to be collected."""
        self.outlet.wake = self.on_receive = _nothing
        self.reader.on_error = self.reader.find_topic = self.reader.on_response = _nothing

    def _handle(self, body: memoryview | bytes) -> None:
        kind = body[0]
        allowed = _ALLOWED.get(kind)
        if allowed is None or self.state not in allowed:
            raise ProtocolError(self._complaint(kind))
        if self.observes and kind not in _ALLOWED_TO_OBSERVERS:
            raise ProtocolError(f"a {wire.KIND_NAMES[kind]} frame came from an observer")
        if self.audience is None and kind in _ONLY_FOR_OBSERVERS:
            raise ProtocolError(f"a {wire.KIND_NAMES[kind]} frame came, which nobody asked for")
        _HANDLERS[kind](self, body)

    def _complaint(self, kind: int) -> str:
        if kind == wire.FIRST_BYTE_OF_A_PICKLE and self.state is State.HELLO:
            return "the peer speaks the format of lahja 0.x, with pickled frames: update it"
        if kind in wire.KIND_NAMES:
            return f"a {wire.KIND_NAMES[kind]} frame came while {self.state.value}"
        return f"0x{kind:02x} is not a kind of frame"

    def _on_hello(self, body: memoryview | bytes) -> None:
        version, *rest = _values(body)
        if type(version) is not int or version != wire.PROTOCOL_VERSION:
            theirs = version if type(version) is int and abs(version) <= wire.MAX_LENGTH else "?"
            reason = f"version {theirs} of the protocol meets version {wire.PROTOCOL_VERSION}"
            self._refuse(Rejection(wire.REJECT_VERSION, reason))
            return
        hello = _check_hello(version, *rest) if len(rest) == 3 else None
        if hello is None:
            raise ProtocolError("a HELLO frame does not have the fields that it must have")
        if self.to is not None and hello.options.get("observe"):
            raise ProtocolError("the accepting side says that it only observes")
        self.peer = hello
        rejection = self.host.admit(self)
        if rejection is not None:
            self._refuse(rejection)
            return
        options = hello.options
        self.state = State.SUBSCRIPTIONS
        self.reader.limit = self._limit
        self.reader.origin = self.outlet.name = hello.name
        if self.own_hello.options["pickle"]:
            self.reader.loads = loads_from(options.get("main", main_module_name()))
        else:
            self.reader.loads = None
        self.outlet.limit = min(options.get("max_frame_size", wire.MAX_FRAME_SIZE), wire.MAX_LENGTH)
        self.outlet.accepts_pickle = options.get("pickle", True)
        self.outlet.compress = "snappy" in options.get("compression", ()) and has_snappy()

    def _on_reject(self, body: memoryview | bytes) -> None:
        code, reason = _typed(body, str, str)
        if self.to is None:
            raise ProtocolError("a REJECT frame came from the connecting side")
        self.state = State.REFUSED
        self.rejection = Rejection(code, reason)
        self.host.refused(self, self.rejection)

    def _on_subscribe(self, body: memoryview | bytes) -> None:
        added, removed, complete = _typed(body, dict, tuple, bool)
        for name, window in added.items():
            _check_name(name)
            if window is not None and not (type(window) is int and 0 < window <= wire.MAX_LENGTH):
                raise ProtocolError("what should be the window of a subscription is not a window")
        for name in removed:
            _check_name(name)
        for name in removed:
            if name in self.subscriptions:
                self._subscribed_size -= len(name)
                del self.subscriptions[name]
        for name, window in added.items():
            if name not in self.subscriptions:
                self._subscribed_size += len(name)
            self.subscriptions[name] = window
        if len(self.subscriptions) > wire.MAX_TYPES:
            raise ProtocolError(f"the peer subscribed to more than {wire.MAX_TYPES} types")
        if self._subscribed_size > wire.MAX_NAMES_SIZE:
            raise ProtocolError(
                f"the peer subscribed to types with names of more than {wire.MAX_NAMES_SIZE} bytes"
            )
        if self.state is State.OPEN:
            self.host.subscribed(self, added, removed)
        elif complete:
            self._open()

    def _open(self) -> None:
        """End the handshake: the peer has said everything that it must."""
        rejection = self.host.admit(self)
        if rejection is not None:
            self._refuse(rejection)
            return
        self.state = State.OPEN
        self.reader.inlets = {}
        if self.to is None:
            self._say_hello()
        self.host.established(self)

    def _on_announce(self, body: memoryview | bytes) -> None:
        type_id, name, layout, fields = _typed(body, int, str, int, tuple)
        inlets = self.reader.inlets
        assert inlets is not None  # set when the connection was opened
        _check_name(name)
        if not 0 <= type_id <= wire.MAX_LENGTH or type_id in inlets:
            shown = type_id if abs(type_id) <= wire.MAX_LENGTH else "a number of more than 32 bits"
            raise ProtocolError(f"{shown} is no new id of a type")
        if layout not in (wire.LAYOUT_FIELDS, wire.LAYOUT_MAPPING, wire.LAYOUT_WHOLE):
            raise ProtocolError("what should be a layout is not a layout")
        if layout != wire.LAYOUT_FIELDS and fields:
            raise ProtocolError(f"layout {layout} announces no fields")
        if not all(type(field) is str for field in fields) or len(set(fields)) != len(fields):
            raise ProtocolError("the fields of a type are not different names")
        if not BINDING.isdisjoint(fields):
            raise ProtocolError("a type announces fields that lahja itself sets")
        if len(inlets) >= wire.MAX_TYPES:
            raise ProtocolError(f"the peer announced more than {wire.MAX_TYPES} types")
        self._announced_size += len(body)
        if self._announced_size > wire.MAX_NAMES_SIZE:
            raise ProtocolError(
                f"the peer announced types by names of more than {wire.MAX_NAMES_SIZE} bytes"
            )
        inlets[type_id] = Inlet(type_id, name, layout, fields)

    def _on_compressed(self, body: memoryview | bytes) -> None:
        if not has_snappy():
            raise ProtocolError("a frame is compressed, which this endpoint did not offer")
        inner = uncompress(body[1:], self._limit)
        if inner[0] == wire.COMPRESSED:
            raise ProtocolError("a compressed frame holds another one")
        if not self.reader.dispatch(inner):
            self._handle(inner)

    def _on_traced(self, body: memoryview | bytes) -> None:
        size = int.from_bytes(body[1:3], "little")
        carrier, inner = _carrier(body, size), body[3 + size :]
        if not inner or inner[0] not in (wire.EVENT, wire.REQUEST):
            raise ProtocolError("a TRACED frame holds no event")
        reader, name = self.reader, self.name
        if self.traced_origin is not None:
            reader.origin = self.traced_origin(name, carrier)
        try:
            reader.dispatch(inner)
        finally:
            reader.origin = name

    def _on_credit(self, body: memoryview | bytes) -> None:
        name, count = _typed(body, str, int)
        if not 0 < count <= wire.MAX_LENGTH:
            raise ProtocolError("what should be a credit is not a number of events")
        self.host.credited(self, name, count)

    def _on_goodbye(self, body: memoryview | bytes) -> None:
        _typed(body)
        self.state = State.LEFT

    def _on_response(self, inlet: Inlet, request_id: bytes, body: Any, offset: int) -> None:
        self.host.responded(self, inlet, request_id, body, offset)

    def _on_ask_stats(self, body: memoryview | bytes) -> None:
        (number,) = _typed(body, int)
        self.host.asked(self, _check_number(number))

    def _on_stats(self, body: memoryview | bytes) -> None:
        values = _values(body)
        if len(values) != 2 or type(values[0]) is not int or type(values[1]) not in (dict, str):
            raise ProtocolError("a STATS frame has elements of wrong types")
        assert self.audience is not None  # or the frame would have been refused
        self.audience.answered(*values)

    def _on_tapped(self, body: memoryview | bytes) -> None:
        if len(body) < wire.TAPPED_SIZE:
            raise ProtocolError(f"a frame of {len(body)} bytes is too short for a tapped event")
        _, lost, elsewhere, here = _TAPPED.unpack_from(body)
        assert self.audience is not None  # or the frame would have been refused
        if lost:
            self.audience.missed(lost)
        inner = memoryview(body)[wire.TAPPED_SIZE :]
        if not inner:
            return
        kind = inner[0]
        is_event = kind in (wire.EVENT, wire.REQUEST, wire.RESPONSE)
        if not is_event or len(inner) < wire.payload_offset(kind):
            raise ProtocolError("a TAPPED frame holds no event")
        inlet = (self.reader.inlets or {}).get(int.from_bytes(inner[1:5], "little"))
        if inlet is None:
            raise ProtocolError("a tapped event is of a type that was not announced")
        self.audience.tapped(inlet, inner, elsewhere, here)

    def _on_undecodable(self, inlet: Inlet, error: DecodeError) -> None:
        self.host.undecodable(self, inlet.name, error)


_ENDED = {State.LEFT, State.REFUSED, State.FAILED}

_HANDLERS: dict[int, Callable[[Connection, memoryview | bytes], None]] = {
    wire.HELLO: Connection._on_hello,
    wire.REJECT: Connection._on_reject,
    wire.SUBSCRIBE: Connection._on_subscribe,
    wire.ANNOUNCE: Connection._on_announce,
    wire.COMPRESSED: Connection._on_compressed,
    wire.TRACED: Connection._on_traced,
    wire.CREDIT: Connection._on_credit,
    wire.GOODBYE: Connection._on_goodbye,
    wire.ASK_STATS: Connection._on_ask_stats,
    wire.STATS: Connection._on_stats,
    wire.TAPPED: Connection._on_tapped,
}


def _chunks(subscriptions: Mapping[str, int | None]) -> Iterator[dict[str, int | None]]:
    """Divide subscriptions so that every peer accepts the frames, whatever its limit."""
    chunk: dict[str, int | None] = {}
    room = 0
    for name, window in subscriptions.items():
        size = len(encode_value((name, window)))
        if size > room and chunk:
            yield chunk
            chunk, room = {}, 0
        if not chunk:
            room = _SMALLEST_FRAME_LIMIT - len(control_frame(wire.SUBSCRIBE, {}, (), False))
        chunk[name] = window
        room -= size
    if chunk:
        yield chunk


def _nothing(*args: object) -> None:
    pass


def _values(body: memoryview | bytes) -> tuple[Any, ...]:
    """Return the tuple that a control frame holds."""
    if len(body) > wire.CONTROL_LIMIT:
        raise ProtocolError(
            f"a {wire.KIND_NAMES[body[0]]} frame of {len(body)} bytes is over the limit "
            f"of {wire.CONTROL_LIMIT} for its kind"
        )
    value, end = decode_value(body, 1)
    if end != len(body) or type(value) is not tuple or (body[0] == wire.HELLO and not value):
        raise ProtocolError(f"a {wire.KIND_NAMES[body[0]]} frame does not hold one tuple")
    return value


def _typed(body: memoryview | bytes, *types: type) -> tuple[Any, ...]:
    """Return the tuple that a control frame holds, checked for the types of its elements."""
    values = _values(body)
    if tuple(map(type, values)) != types:
        raise ProtocolError(f"a {wire.KIND_NAMES[body[0]]} frame has elements of wrong types")
    return values


def _check_name(name: object) -> None:
    if type(name) is not str or not 0 < len(name) <= wire.MAX_NAME_LENGTH:
        raise ProtocolError("what should be the name of an event type is not one")


def _carrier(body: memoryview | bytes, size: int) -> dict[str, str]:
    """Return the context that a TRACED frame begins with."""
    if len(body) < 3 + size:
        raise ProtocolError("the context in a TRACED frame is cut short")
    carrier, end = decode_value(body[3 : 3 + size])
    if (
        end != size
        or type(carrier) is not dict
        or not all(type(k) is type(v) is str for k, v in carrier.items())
    ):
        raise ProtocolError("the context in a TRACED frame is not a dict of texts")
    return carrier


def _check_number(number: int) -> int:
    if not 0 <= number <= wire.MAX_LENGTH:
        raise ProtocolError("what should be the number of a question is not one")
    return number


_OPTION_CHECKS: dict[str, Callable[[Any], bool]] = {
    "compression": lambda value: type(value) is tuple,
    "pickle": lambda value: type(value) is bool,
    "max_frame_size": lambda value: type(value) is int and value >= _SMALLEST_FRAME_LIMIT,
    "main": lambda value: type(value) is str,
    "path": lambda value: type(value) is str,
    "to": lambda value: type(value) is str,
    "observe": lambda value: type(value) is bool,
}


def _check_hello(version: int, name: Any, instance: Any, options: Any) -> Hello | None:
    """Return the hello, or None where it does not have the fields that it must have."""
    if (
        type(name) is not str
        or not 0 < len(name) <= wire.MAX_NAME_LENGTH
        or type(instance) is not bytes
        or len(instance) != wire.INSTANCE_SIZE
        or type(options) is not dict
        or not all(check(options[key]) for key, check in _OPTION_CHECKS.items() if key in options)
    ):
        return None
    return Hello(version, name, instance, options)
