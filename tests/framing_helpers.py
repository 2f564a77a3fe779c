"""What the tests of the two framing implementations share: which there are, events, a link."""

from __future__ import annotations

import array
import collections
import datetime
import decimal
import enum
import fractions
import importlib
import importlib.util
import os
import pathlib
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, NamedTuple, Self

from lahja import wire
from lahja.common import BaseEvent, BaseRequestResponseEvent
from lahja.exceptions import DecodeError

# A missing compiled module is left out, unless it is asked for: then its tests fail.
HAS_COMPILED = (
    os.environ.get("LAHJA_FRAMING") == "cython"
    or importlib.util.find_spec("lahja._framing") is not None
)
IMPLEMENTATIONS = ["python", "cython"] if HAS_COMPILED else ["python"]

_MODULES = {"python": "lahja._framing_py", "cython": "lahja._framing"}


def load(implementation: str) -> ModuleType:
    """Return one of the two modules."""
    return importlib.import_module(_MODULES[implementation])


# -- Events ----------------------------------------------------------------------------------


class Event(BaseEvent):
    """Have whatever attributes it is given."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class Other(Event):
    """Be another type."""


class Empty(BaseEvent):
    pass


@dataclass
class Plain(BaseEvent):
    number: int
    text: str
    data: bytes


@dataclass(frozen=True)
class Frozen(BaseEvent):
    number: int
    text: str = "text"


@dataclass(slots=True)
class Slotted(BaseEvent):
    number: int
    text: str = "text"


@dataclass(frozen=True, slots=True)
class FrozenSlotted(BaseEvent):
    number: int
    texts: tuple[str, ...] = ("a", "b")


class Half(BaseEvent):
    """Keep one attribute in a slot, one under a private name, and others in the dictionary."""

    __slots__ = ("__private", "empty", "kept")

    def __init__(self, kept: Any, private: Any, **others: Any) -> None:
        self.kept = kept
        self.__private = private
        self.__dict__.update(others)

    @property
    def private(self) -> Any:
        return self.__private


class Shadowed(BaseEvent):
    """Have a property of the name of an entry of the dictionary."""

    def __init__(self, value: Any) -> None:
        self.__dict__["value"] = value

    @property
    def value(self) -> str:
        return "of the property"

    @property
    def settable(self) -> str:
        return "of the property"

    @settable.setter
    def settable(self, value: Any) -> None:
        raise AssertionError("set on arrival")


class Guarded(BaseEvent):
    """Let nobody set an attribute or look at one without being seen."""

    def __init__(self, value: Any) -> None:
        object.__setattr__(self, "value", value)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{name} cannot be set")

    def __getattribute__(self, name: str) -> Any:
        return object.__getattribute__(self, name)


class Doctored(BaseEvent):
    """Give a dictionary that is not its own."""

    def __init__(self, value: Any) -> None:
        self.value = value

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        return {"value": "doctored"}


class Disguised(BaseEvent):
    """Give a dictionary that is not its own, by a deeper trick."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __getattribute__(self, name: str) -> Any:
        if name == "__dict__":
            return {"value": "disguised"}
        return object.__getattribute__(self, name)


class Reduced(BaseEvent):
    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Any, ...]:
        return Reduced, ((self.value, "reduced"),)


class Stateful(BaseEvent):
    def __init__(self, value: Any) -> None:
        self.value = value

    def __getstate__(self) -> dict[str, Any]:
        return {"value": (self.value, "got")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, was_set=True)


class Made(BaseEvent):
    def __new__(cls, value: Any) -> Self:
        made = super().__new__(cls)
        made.value = (value, "new")
        return made

    value: Any

    def __getnewargs__(self) -> tuple[Any]:
        return (self.value[0],)


class Failure(Exception, BaseEvent):
    """Be an event that is an exception, too."""


class Request(BaseRequestResponseEvent[Empty]):
    def __init__(self, question: str) -> None:
        self.question = question

    @staticmethod
    def expected_response_type() -> type[Empty]:
        return Empty


class AbstractRequest(BaseRequestResponseEvent[Empty]):
    """Be no class of which there can be instances."""


# -- Values ----------------------------------------------------------------------------------


class Int(int):
    pass


class Str(str):
    __slots__ = ()


class List(list[Any]):
    pass


class Bytes(bytes):
    pass


class Float(float):
    pass


class Dict(dict[Any, Any]):
    pass


class Pair(NamedTuple):
    left: Any
    right: Any


class Colour(enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Name(enum.StrEnum):
    LAHJA = "lahja"


class Bits(enum.Flag):
    A = 1
    B = 2


@dataclass
class Point:
    x: Any
    y: Any = 0


@dataclass(frozen=True)
class FrozenPoint:
    x: Any


@dataclass(slots=True)
class SlottedPoint:
    x: Any
    y: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FrozenSlottedPoint:
    x: Any


class OwnPickling:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Any, ...]:
        return OwnPickling, (self.value,)


class _WithoutHash(type):
    def __eq__(cls, other: object) -> bool:
        return cls is other

    __hash__ = None  # type: ignore[assignment]


class OfUnhashableClass(metaclass=_WithoutHash):
    pass


def float_of(bits: int) -> float:
    number: float = struct.unpack("<d", struct.pack("<Q", bits))[0]
    return number


INTEGERS: list[Any] = [
    sign * (2**power + step)
    for power in (0, 7, 8, 15, 16, 31, 32, 62, 63, 64, 65, 127, 128, 1000)
    for step in (-2, -1, 0, 1)
    for sign in (1, -1)
]
FLOATS: list[Any] = [
    0.0,
    -0.0,
    1.5,
    -1e300,
    5e-324,
    float("inf"),
    float("-inf"),
    float("nan"),
    float_of(0x7FF8_0000_0000_BEEF),
    float_of(0xFFF8_0000_DEAD_0001),
]
TEXTS: list[Any] = [
    "",
    "a",
    "a" * 255,
    "a" * 256,
    "ä" * 127,
    "ä" * 128,
    "\0",
    "\x7f\x80",
    "\uffff\U0010ffff",
    "\ud800",
    "a\udfff" * 200,
    "\ud83d\ude00",
    "😀" * 100,
]
BYTES: list[Any] = [b"", b"\0", b"a" * 255, b"a" * 256, bytes(range(256)) * 300]
CONTAINERS: list[Any] = [
    (),
    [],
    {},
    set(),
    frozenset(),
    (1,),
    [None, True, False],
    {"a": 1, 2: "b", (1, 2): [3], None: None, 1.5: {}, b"x": (), frozenset((1,)): 0},
    {"b": 0, "a": 0, "c": 0},
    {1, "a", b"a", 1.5, None, (1, (2,)), frozenset(("x", "y"))},
    frozenset(range(1000)),
    [[[[[()]]]]],
    ({"a": [({"b": {1, 2}},)]},),
    [1, [2, [3, [4, (5, {6: frozenset((7,))})]]]],
    list(range(1000)),
    tuple(str(i) for i in range(1000)),
    {i: str(i) for i in range(1000)},
    [0] * 257,
    (0,) * 256,
    [[] for _ in range(900)],
]
PLAIN_VALUES: dict[str, list[Any]] = {
    "constants": [None, True, False],
    "integers": INTEGERS,
    "floats": FLOATS,
    "texts": TEXTS,
    "bytes": BYTES,
    "containers": CONTAINERS,
}


def doubled(times: int) -> list[Any]:
    """Return a list that holds another one twice, which holds another one twice, …"""
    value: list[Any] = []
    for _ in range(times):
        value = [value, value]
    return value


def nested(depth: int, make: Any = list) -> Any:
    """Return a container with so many levels."""
    value = make()
    for _ in range(depth - 1):
        value = {1: value} if make is dict else make((value,))
    return value


def _self_reference() -> list[Any]:
    loop: list[Any] = [1]
    loop.append(loop)
    return loop


PICKLED_VALUES: list[Any] = [
    Int(5),
    Str("text"),
    Bytes(b"bytes"),
    Float(1.5),
    List([1, 2]),
    Dict(a=1),
    Pair(1, [2]),
    (Pair(1, 2), Int(3)),
    Colour.RED,
    Number.ONE,
    Name.LAHJA,
    Bits.A | Bits.B,
    [Number.ONE, {Colour.RED: Name.LAHJA}],
    ValueError("wrong", 5),
    KeyError("key"),
    decimal.Decimal("1.10"),
    fractions.Fraction(1, 3),
    datetime.datetime(2026, 11, 22, 10, 30, tzinfo=datetime.UTC),
    datetime.timedelta(microseconds=1),
    uuid.UUID(int=5),
    pathlib.PurePosixPath("/a/b"),
    1j,
    bytearray(b"array"),
    range(5),
    array.array("i", [1, 2, 3]),
    collections.deque([1, 2], maxlen=5),
    collections.OrderedDict(b=1, a=2),
    collections.defaultdict(int, a=1),
    collections.Counter("hello"),
    Point(1, [2]),
    FrozenPoint((1,)),
    SlottedPoint("x", [1]),
    FrozenSlottedPoint({"a": 1}),
    OwnPickling([1]),
    Event(a=1),
    int,
    len,
    Colour,
    _self_reference(),
    nested(101),
    nested(101, tuple),
    nested(101, dict),
    [[] for _ in range(1001)],
]
VALUES = {**PLAIN_VALUES, "pickled": PICKLED_VALUES}


def events() -> Iterator[BaseEvent]:
    """Give an event of every sort; new ones, because each can be sent only once."""
    yield Empty()
    yield Event(a=1)
    yield Event(a=1, b="b")
    yield Event(b="b", a=1)
    yield Event(**{f"name {i}": i for i in range(40)})
    yield Event(**{"__class__": 1, "__dict__": 2, "__weakref__": 3, "bind": 4, "": 5})
    yield Event(**{"ä": 1, "\ud800": 2, "self.x": None})
    yield Plain(1, "text", b"data" * 25)
    yield Plain(2**70, "text", Point(1))  # type: ignore[arg-type]
    yield Frozen(5)
    yield Frozen(5, Name.LAHJA)
    yield Slotted(6)
    yield Slotted(1j, "complex")  # type: ignore[arg-type]
    yield FrozenSlotted(7)
    yield Half([1], "private")
    yield Half(Int(1), 2, other=3)
    yield Shadowed("of the dictionary")
    yield Guarded({"a": 1})
    yield Guarded(1j)
    yield Reduced(1)
    yield Stateful(2)
    yield Made(3)
    yield Failure("it", "failed")
    yield Request("why?")
    odd = Event(a=1)
    odd.__dict__[5] = "not a name"  # type: ignore[index]
    yield odd
    subclass = Other()
    subclass.__dict__[Str("name")] = 5
    yield subclass
    loop = Event(a=1)
    loop.me = loop  # type: ignore[attr-defined]
    yield loop
    parts = Plain(1, "text", b"")
    parts.data = [parts, parts]  # type: ignore[assignment]
    yield parts
    for count in range(40):  # more shapes than a type may have
        yield Other(**{f"field_{count}": count, "common": (count,)})
    yield Other(field_3=3, common=())
    yield Other(common=1j, **{f"field_{i}": i for i in range(3)})


EVENTS = [f"{number}-{type(event).__name__}" for number, event in enumerate(events())]


def new_event(name: str) -> BaseEvent:
    """Return a new event of one of the sorts in ``EVENTS``."""
    return list(events())[EVENTS.index(name)]


def same(left: Any, right: Any, seen: dict[int, tuple[Any, Any]] | None = None) -> bool:
    """Return whether two values are alike to the type and the bit."""
    seen = {} if seen is None else seen
    if id(left) in seen:
        return seen[id(left)][1] is right
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return struct.pack("<d", left) == struct.pack("<d", right)
    if left is None or isinstance(left, (int, str, bytes, type)):
        return bool(left == right)
    seen[id(left)] = left, right
    if isinstance(left, dict):
        return same([*left.keys(), *left.values()], [*right.keys(), *right.values()], seen)
    if isinstance(left, (tuple, list)):
        return len(left) == len(right) and all(
            same(a, b, seen) for a, b in zip(left, right, strict=True)
        )
    if isinstance(left, (set, frozenset)):
        return left == right and sorted(map(_typed, left)) == sorted(map(_typed, right))
    if isinstance(left, BaseException):
        return same(left.args, right.args, seen) and same(vars(left), vars(right), seen)
    if type(left).__module__ == __name__ and not isinstance(left, enum.Enum):
        return same(state_of(left), state_of(right), seen)
    return bool(left == right)


def _typed(value: object) -> str:
    """Return what tells apart the elements of sets, in which 1, 1.0 and True are one."""
    if isinstance(value, (tuple, frozenset)):
        parts = [_typed(part) for part in value]
        return f"{type(value).__name__}({parts if isinstance(value, tuple) else sorted(parts)})"
    return f"{type(value).__name__}({value!r})"


def state_of(value: Any) -> dict[Any, Any]:
    """Return all attributes of an object, those in slots included."""
    state = dict(getattr(value, "__dict__", {}))
    for base in type(value).__mro__:
        for slot in base.__dict__.get("__slots__", ()):
            name = f"_{base.__name__}{slot}" if slot.startswith("__") else slot
            if hasattr(value, name):
                state[f"slot {name}"] = object.__getattribute__(value, name)
    return state


def frames_in(data: bytes) -> list[bytes]:
    """Return the frames that are one behind the other in some bytes."""
    frames = []
    while data:
        size = 4 + int.from_bytes(data[:4], "little")
        frames.append(data[:size])
        data = data[size:]
    return frames


# -- Whoever is called -----------------------------------------------------------------------


class Wakes:
    """Count calls."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


class Fixed:
    """Be a consumer that is no mailbox."""

    def __init__(self) -> None:
        self.got: list[tuple[Any, bool]] = []

    def deliver(self, event: Any, local: bool) -> None:
        self.got.append((event, local))


# -- A link ----------------------------------------------------------------------------------


class Link:
    """
    Carry events from a table to a reader, as the layers above do it.

    The implementations of the two sides may differ. Every class that is sent is subscribed to.
    """

    def __init__(
        self, sending: ModuleType, receiving: ModuleType | None = None, allow_pickle: bool = True
    ) -> None:
        self.receiving = receiving or sending
        self.outlet = sending.Outlet(lambda: None, 2**40)
        self.outlet.threshold = 2**40
        self.table = sending.EventTable("sender", allow_pickle, self._on_topic)
        self.topics: dict[str, Any] = {}
        self.mailbox = self.receiving.Mailbox()
        self.errors: list[tuple[Any, DecodeError]] = []
        self.bodies: list[bytes] = []
        self.reader = self.new_reader()

    def new_reader(self) -> Any:
        reader = self.receiving.Reader(wire.MAX_FRAME_SIZE, self._on_error)
        reader.origin = "sender"
        reader.inlets = {}
        reader.find_topic = self.topics.get
        reader.on_response = self._on_response
        return reader

    def _on_response(self, inlet: Any, request_id: bytes, body: Any, offset: int) -> None:
        assert body[5:offset] == request_id
        self.bodies.append(bytes(body))

    def _on_error(self, inlet: Any, error: DecodeError) -> None:
        self.errors.append((inlet, error))

    def _on_topic(self, topic: Any) -> None:
        topic.outlets = (self.outlet,)
        wanted = self.topics[topic.name] = self.receiving.Topic(topic.cls)
        wanted.consumers = (self.mailbox,)

    def encode(self, *events: BaseEvent) -> bytes:
        """Return the bytes that carry some events."""
        for event in events:
            assert self.table.publish(event) == 1
        return b"".join(self.outlet.take())

    def feed(self, data: bytes, reader: Any = None) -> None:
        """Let bytes arrive, and handle what they hold."""
        reader = reader or self.reader
        view = memoryview(data)
        while view:
            room = reader.get_buffer()
            assert len(room) > 0
            count = min(len(room), len(view))
            room[:count] = view[:count]
            room.release()
            view = view[count:]
            reader.buffer_updated(count)
            self.handle(reader)

    def handle(self, reader: Any) -> None:
        """Take the frames out of a reader that are no events; learn from announcements."""
        while (body := reader.next_frame()) is not None:
            assert isinstance(body, memoryview)
            if body[0] == wire.ANNOUNCE:
                (type_id, name, layout, fields), end = self.receiving.decode_value(body, 1)
                assert end == len(body)
                reader.inlets[type_id] = self.receiving.Inlet(type_id, name, layout, fields)
            else:
                self.bodies.append(bytes(body))

    def received(self) -> list[Any]:
        """Take the events that arrived."""
        events = list(self.mailbox.events)
        self.mailbox.events.clear()
        return events

    def carry(self, *events: BaseEvent) -> list[Any]:
        """Send some events, and return what arrives."""
        self.feed(self.encode(*events))
        assert not self.errors
        assert not self.bodies
        return self.received()


def frame(kind: int, body: bytes = b"") -> bytes:
    """Return a frame of one kind."""
    return struct.pack("<IB", len(body) + 1, kind) + body
