"""
What an event carries arrives as it was sent, to the bit and to the type.

Both processes make the same events from the same functions. Each side sends its own, and the other
one compares: by a description of everything that can be seen of an object, its type, its content
as a built-in, its attributes and slots, the bits of its numbers. Equality would not do: it takes
True for 1, -0.0 for 0.0, a subclass for its base, and no NaN for itself.
"""

from __future__ import annotations

import array
import collections
import contextlib
import copyreg
import datetime
import decimal
import enum
import fractions
import functools
import hashlib
import ipaddress
import math
import random
import re
import struct
import types
import uuid
import zoneinfo
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Generic, NamedTuple, NoReturn, Self, TypeVar

import anyio
import pytest
from process_helpers import BACKENDS, Worker, backend_name, calling, endpoint_class, run_on

from lahja import BaseEvent, BaseRequestResponseEvent, BroadcastConfig, ConnectionConfig
from lahja.wire import MAX_SHAPES

pytestmark = pytest.mark.anyio

# -- Descriptions ----------------------------------------------------------------------------

_BOUND = frozenset(("_origin", "_id"))


def describe(value: object) -> str:
    """Return a text that two objects have in common only if nothing tells them apart."""
    return _describe(value, [])


def _is_ours(kind: type) -> bool:
    return kind.__module__ == __name__


def _describe(value: Any, above: list[int]) -> str:
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if id(value) in above:
        return f"<{name}, {len(above) - above.index(id(value))} up>"
    above.append(id(value))
    parts = [name, *_content(value, above), *_attributes(value, above)]
    above.pop()
    return f"<{' '.join(parts)}>"


def _content(value: Any, above: list[int]) -> list[str]:
    """Describe what a built-in type, or what is derived from it, holds."""
    if isinstance(value, enum.Enum):
        return [f"{value.name} {value is type(value)(value.value)}"]
    if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        return [value.__qualname__]
    if isinstance(value, float):
        return [struct.pack(">d", value).hex()]
    if isinstance(value, complex):
        return [struct.pack(">dd", value.real, value.imag).hex()]
    if isinstance(value, int):
        return [int.__repr__(value) if -(10**9) < value < 10**9 else f"{value:x}"]
    if isinstance(value, str):
        return [" ".join(f"{ord(character):x}" for character in value)]
    if isinstance(value, bytes | bytearray):
        short = len(value) < 1000
        return [bytes(value).hex() if short else hashlib.sha256(value).hexdigest(), str(len(value))]
    if isinstance(value, dict):
        return [f"{_describe(k, above)}: {_describe(v, above)}" for k, v in dict.items(value)]
    sequences: tuple[Any, ...] = (list, tuple, collections.deque)
    for base in sequences:
        if isinstance(value, base):
            return [_describe(element, above) for element in base.__iter__(value)]
    if isinstance(value, set | frozenset):
        return sorted(_describe(element, above) for element in value)
    if isinstance(value, BaseException):
        return [_describe([value.args, getattr(value, "filename", None)], above)]
    if isinstance(value, decimal.Decimal):
        return [str(value.as_tuple())]
    if _is_ours(type(value)):
        return []
    return [repr(value)]


def _attributes(value: Any, above: list[int]) -> list[str]:
    """Describe the attributes of an instance, those in slots included, but not how it is bound."""
    if isinstance(value, type | types.FunctionType | enum.Enum):
        return []
    found = dict(getattr(value, "__dict__", {}))
    for base in filter(_is_ours, type(value).__mro__):
        for key, member in vars(base).items():
            if isinstance(member, types.MemberDescriptorType) and member.__objclass__ is base:
                try:
                    found[f"{base.__name__}.{key}"] = member.__get__(value)
                except AttributeError:
                    found[f"{base.__name__}.{key}"] = "empty"
    return [
        f"{key!r}={_describe(attribute, above)}"
        for key, attribute in found.items()
        if key not in _BOUND
    ]


# -- Values ----------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"
    BLUE = ("a", 1)


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    YES = "yes"


class Flags(enum.Flag):
    A = 1
    B = 2


class Text(str):
    pass


class SlottedText(str):
    __slots__ = ()


class Number(int):
    pass


class Real(float):
    pass


class Data(bytes):
    pass


class Items(list[Any]):
    note: str


class Pair(tuple[Any, ...]):
    note: str


class Mapping(dict[str, Any]):
    note: str


class Group(set[Any]):
    note: str


class FrozenGroup(frozenset[Any]):
    pass


class Counting(collections.UserDict[str, int]):
    pass


Point = collections.namedtuple("Point", "x y")  # noqa: PYI024 - what NamedTuple is not


class Place(NamedTuple):
    name: str
    where: Any = Point(0, 0)


class Plain:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class Slotted:
    __slots__ = ("__private", "empty", "value")

    def __init__(self, value: Any) -> None:
        self.__private = value
        self.value = value


class SlottedWithDict(Slotted):
    pass


@dataclass
class Base:
    first: Any
    items: list[Any] = field(default_factory=list)
    shared: ClassVar[str] = "not sent"


@dataclass
class Derived(Base):
    second: Any = None
    unset: Any = field(init=False)
    derived: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.derived = 7


@dataclass(frozen=True)
class Frozen:
    value: Any


@dataclass(slots=True)
class WithSlots:
    value: Any
    other: Any = None


@dataclass(frozen=True, slots=True)
class FrozenWithSlots:
    value: Any


@dataclass(kw_only=True, order=True, unsafe_hash=True)
class Keywords:
    value: Any


class Reduced:
    """Made anew by a call; what is in its attributes is not sent."""

    def __init__(self, value: Any) -> None:
        self.made_with = value
        self.times = 1

    def __reduce__(self) -> tuple[Any, ...]:
        return (Reduced, (self.made_with,))


class Stateful:
    def __init__(self, value: Any) -> None:
        self.value = value
        self.cache: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"saved": self.value}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.value = state["saved"]
        self.cache = None


class WithArguments(str):
    """Made by arguments that it does not take by position."""

    def __new__(cls, *, text: str) -> Self:
        return super().__new__(cls, text)

    def __getnewargs_ex__(self) -> tuple[tuple[()], dict[str, str]]:
        return (), {"text": str(self)}


class Registered:
    """Pickled by a function that was registered for it."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce__(self) -> NoReturn:
        raise AssertionError("the registered function is to be used")


def _reduce_registered(value: Registered) -> tuple[Any, ...]:
    return (Registered, (value.value,))


copyreg.pickle(Registered, _reduce_registered)


class Same:
    """Be equal to everything, or to nothing."""

    def __init__(self, answer: bool) -> None:
        self.answer = answer

    def __eq__(self, other: object) -> bool:
        return self.answer

    def __hash__(self) -> int:
        return 5


class CustomError(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.text = f"code {code}"


class KeywordError(ValueError):
    def __init__(self, *, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return (functools.partial(KeywordError, reason=self.reason), ())


def _with_attributes(value: Any, **attributes: Any) -> Any:
    for name, attribute in attributes.items():
        setattr(value, name, attribute)
    return value


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def _cyclic() -> list[Any]:
    items: list[Any] = [1]
    items.append(items)
    mapping: dict[str, Any] = {"items": items}
    mapping["self"] = mapping
    held: tuple[Any, ...] = ([],)
    held[0].append(held)
    thing = Plain(name="thing")
    thing.__dict__["self"] = [thing]
    frozen = Frozen([])
    frozen.value.append(frozen)
    node = Slotted({})
    node.value["up"] = node
    return [items, mapping, held, thing, frozen, node, collections.deque([items], 5)]


def _float(bits: int) -> float:
    value: float = struct.unpack(">d", struct.pack(">Q", bits))[0]
    return value


def _notes(error: Exception) -> Exception:
    error.add_note("first")
    error.add_note("second")
    return error


EDGES = (7, 8, 15, 16, 31, 32, 53, 63, 64, 65, 127, 128, 200, 2040, 2048, 10_000)

VALUES: dict[str, Callable[[], list[Any]]] = {
    "constants": lambda: [None, True, False, ..., NotImplemented, __debug__],
    "integers": lambda: [
        sign * (2**edge + offset) for edge in EDGES for offset in (-1, 0, 1) for sign in (1, -1)
    ],
    "floats": lambda: [
        *(0.0, -0.0, 1.0, -1.5, 0.1, 5e-324, math.inf, -math.inf, math.nan),
        *(
            _float(0x7FF8_0000_0000_0001),
            _float(0xFFF8_DEAD_BEEF_0001),
            _float(0x7FF0_0000_0000_0001),
        ),
        *(1.7976931348623157e308, 2.2250738585072014e-308, complex(-0.0, math.nan)),
        [(1, True, 1.0), (0, False, 0.0, -0.0)],
    ],
    "text": lambda: [
        *("", "plain", "\0", "é", "€" * 85, "€" * 86, "x" * 255, "x" * 256, "😀", "\U0010ffff"),
        *("\ud800", "\udfff x", "\ud83d\ude00", "a" * 300 + "\udc80", "é" * 70_000, "\ufeff"),
    ],
    "bytes": lambda: [
        *(b"", b"\0", b"x" * 255, b"x" * 256, bytes(range(256)) * 300, bytearray(b"abc")),
        array.array("d", [1.5, -0.0]),
    ],
    "containers": lambda: [
        *((), [], {}, set(), frozenset(), ((),), [[]], {(): {}}, {frozenset()}),
        {"a": [1, (2, {3, frozenset({4, "4"})}), {"k": None}], (1, (2,)): {5: b"5", None: ...}},
        {2: "order", 1: "is", 3: "kept"},
        [[number, {number: -0.0}] for number in range(1000)],
        {math.nan: 1, _float(0x7FF8_0000_0000_0001): 2},
        {1: "integer", 1.5: "float", "1": "text", b"1": "bytes", True + 1: "two"},
        [[0] * 300, tuple(range(300)), {number: str(number) for number in range(300)}],
        *(collections.deque([1, 2], maxlen=3), collections.OrderedDict(b=1, a=2)),
        *(collections.Counter("abca"), collections.defaultdict(list, a=[1])),
        *(collections.ChainMap({"a": 1}, {"b": 2}), Counting(a=1), types.SimpleNamespace(a=[1])),
        *(range(1, 9, 2), slice(1, None), memoryview(b"x").tobytes()),
    ],
    "nesting": lambda: [_nested(depth) for depth in (1, 50, 98, 99, 100, 101, 102, 200)],
    "subclasses of built-in types": lambda: [
        *(Text("text"), SlottedText("text"), Number(5), Number(2**70), Real(math.nan), Data(b"x")),
        *(Items([1]), Pair((1, [2])), Mapping(a=1), Group({1}), FrozenGroup({2}), Number(True)),
        _with_attributes(Text("text"), note="t"),
        _with_attributes(Items([1, Items()]), note="i"),
        _with_attributes(Pair((1, 2)), note="p"),
        _with_attributes(Mapping(a=Mapping()), note="m"),
        _with_attributes(Group({1, Text("1")}), note="g"),
        {Text("key"): Number(1), Number(2): Text("value")},
        [Number(1), 1, True, Level.LOW, 1.0],
    ],
    "enums": lambda: [
        *(*Colour, Level.LOW, Word.YES, Flags.A, Flags.A | Flags.B, Flags(0), re.ASCII | re.DOTALL),
        {Colour.RED: [Colour.BLUE], Level.LOW: Word.YES},
    ],
    "named tuples": lambda: [Point(1, 2), Place("x"), Place("y", Place("z", [Point({}, None)]))],
    "exceptions": lambda: [
        *(ValueError("text", 3), KeyError(), OSError(2, "missing", "file"), CustomError(5)),
        *(_notes(ValueError("noted")), KeywordError(reason="why"), StopIteration(4), SystemExit(3)),
        ExceptionGroup("several", [ValueError(1), ExceptionGroup("more", [CustomError(2)])]),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    ],
    "decimals and fractions": lambda: [
        *map(decimal.Decimal, ("0", "-0", "1.10", "1.1", "1E+5", "NaN123", "-sNaN7", "-Infinity")),
        *(decimal.Decimal("1." + "3" * 200), fractions.Fraction(-(2**70), 3)),
    ],
    "dates and times": lambda: [
        datetime.datetime(2026, 10, 25, 2, 30, 0, 1, datetime.UTC),
        datetime.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("UTC")),
        datetime.datetime(
            1, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(minutes=-90), "odd")
        ),
        *(datetime.datetime.max, datetime.date(2024, 2, 29), datetime.time(23, 59, 59, 999_999)),
        *(datetime.timedelta(-1, 1, 1), datetime.timedelta.max),
    ],
    "other types of the standard library": lambda: [
        *(uuid.UUID(int=5), PurePosixPath("/a/b"), Path("c"), ipaddress.ip_network("10.0.0.0/8")),
        *(re.compile("a+", re.IGNORECASE), functools.partial(int, base=2)),
        *(
            len,
            describe,
            Plain,
            list,
            list[int],
            int | str,
            collections.OrderedDict,
            Slotted.__init__,
        ),
    ],
    "instances": lambda: [
        *(Plain(), Plain(a=1, b=[Plain(a=2)]), Plain(b=1, a=2), Slotted(1), Slotted([Slotted(2)])),
        _with_attributes(SlottedWithDict(3), extra=4),
        *(Same(True), Same(False), [Same(True), Same(False)], {Same(False): 1}),
    ],
    "dataclasses": lambda: [
        *(Base(1), Base(Base(2), [3]), Derived(1, [2], 3), _with_attributes(Derived(1), unset=2)),
        *(Frozen(1), Frozen([Frozen(2)]), WithSlots(1), WithSlots([2], WithSlots(3))),
        *(FrozenWithSlots(1), FrozenWithSlots({"a": FrozenWithSlots(2)}), Keywords(value=1)),
        {Frozen(1): Frozen(2), FrozenWithSlots(1): 2, Keywords(value=3): Keywords(value=4)},
        _with_attributes(Base(1), extra="not a field"),
    ],
    "types with their own pickling": lambda: [
        *(Reduced([1]), Stateful({"a": 1}), WithArguments(text="text"), Registered((1,))),
        [_with_attributes(Reduced(1), times=2).made_with, {Registered("k").value: Stateful(1)}],
    ],
    "self-references": _cyclic,
}

# -- Events ----------------------------------------------------------------------------------

T = TypeVar("T")


class Carrier(BaseEvent):
    """Carry one value."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Anything(BaseEvent):
    """Have any attributes."""

    def __init__(self, attributes: dict[Any, Any]) -> None:
        self.__dict__.update(attributes)


class Empty(BaseEvent):
    pass


class EmptySlots(BaseEvent):
    __slots__ = ()


@dataclass
class DataEvent(BaseEvent):
    first: Any
    items: list[Any] = field(default_factory=list)
    shared: ClassVar[str] = "not sent"


@dataclass
class DerivedEvent(DataEvent):
    second: Any = None
    computed: Any = field(init=False)

    def __post_init__(self) -> None:
        self.computed = [self.first]


@dataclass(frozen=True)
class FrozenEvent(BaseEvent):
    value: Any
    other: Any = "default"


@dataclass(slots=True)
class SlotsEvent(BaseEvent):
    value: Any
    other: Any = "default"


@dataclass(slots=True)
class DerivedSlotsEvent(SlotsEvent):
    more: Any = None


@dataclass(frozen=True, slots=True)
class FrozenSlotsEvent(BaseEvent):
    value: Any
    other: Any = "default"


@dataclass(slots=True, kw_only=True, order=True)
class KeywordEvent(BaseEvent):
    value: Any


class OwnSlotsEvent(BaseEvent):
    __slots__ = ("__private", "empty", "value")

    def __init__(self, value: Any) -> None:
        self.__private = value
        self.value = value
        self.in_dict = "here"  # an event has a __dict__, whatever its slots are


class _OwnSlotsEvent(OwnSlotsEvent):
    """Have a name that is mangled to that of its base."""

    __slots__ = ("more",)

    def __init__(self, value: Any) -> None:
        super().__init__(value)
        self.more = value


class PrivateEvent(BaseEvent):
    def __init__(self, value: Any) -> None:
        self.__value = value
        self._single = value


class DerivedPrivateEvent(PrivateEvent):
    def __init__(self, value: Any) -> None:
        super().__init__([value])
        self.__value = value


class PropertyEvent(BaseEvent):
    """Have class attributes of all kinds where its instances have attributes, too."""

    constant = "of the class"

    def __init__(self, value: Any) -> None:
        self.__dict__["read_only"] = value
        self.__dict__["both_ways"] = [value]
        self.__dict__["constant"] = {"of": "the instance"}
        self.__dict__["method"] = "no method"
        assert self.cached == "cached"

    @property
    def read_only(self) -> str:
        return "of the property"

    @property
    def both_ways(self) -> str:
        return "of the property"

    @both_ways.setter
    def both_ways(self, value: Any) -> None:
        raise AssertionError("nothing is set by this property")

    @functools.cached_property
    def cached(self) -> str:
        return "cached"

    def method(self) -> None:
        pass


class GuardedEvent(BaseEvent):
    """Let nobody set an attribute, and answer for those that it does not have."""

    def __init__(self, value: Any) -> None:
        self.__dict__["value"] = value

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(name)

    def __delattr__(self, name: str) -> None:
        raise AttributeError(name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return f"no {name}"


class GenericEvent(BaseEvent, Generic[T]):
    def __init__(self, value: T) -> None:
        self.value = value


@dataclass(frozen=True)
class FrozenGenericEvent(BaseEvent, Generic[T]):
    value: T


class TupleEvent(BaseEvent, tuple[Any, ...]):
    pass


class NamedTupleEvent(BaseEvent, Place):
    pass


class DictEvent(BaseEvent, dict[str, Any]):
    pass


class ListEvent(BaseEvent, list[Any]):
    pass


class SetEvent(BaseEvent, set[Any]):
    pass


class ErrorEvent(BaseEvent, Exception):
    pass


class TextEvent(BaseEvent, str):
    pass


class NumberEvent(BaseEvent, int):
    pass


class BytesEvent(BaseEvent, bytes):
    pass


class DateEvent(BaseEvent, datetime.datetime):
    pass


class ReducedEvent(BaseEvent):
    def __init__(self, value: Any) -> None:
        self.value = [value]
        self.cache = object()

    def __reduce__(self) -> tuple[Any, ...]:
        return (_reduced_event, (self.value[0],))


def _reduced_event(value: Any) -> ReducedEvent:
    return _with_attributes(ReducedEvent(value), cache=None)  # type: ignore[no-any-return]


class StatefulEvent(BaseEvent):
    def __init__(self, value: Any) -> None:
        self.value = value

    def __getstate__(self) -> tuple[Any]:
        return (self.value,)

    def __setstate__(self, state: tuple[Any]) -> None:
        self.value = state[0]


class NewEvent(BaseEvent):
    def __new__(cls, value: Any = "none given") -> Self:
        event = super().__new__(cls)
        event.__dict__["made_with"] = value
        return event


class Outer:
    class Inner:
        @dataclass
        class NestedEvent(BaseEvent):
            value: Any


@dataclass
class Response(BaseEvent):
    value: Any


@dataclass
class Request(BaseRequestResponseEvent[Response]):
    value: Any

    @staticmethod
    def expected_response_type() -> type[Response]:
        return Response


def _in_itself(event: BaseEvent, *containers: Callable[[BaseEvent], Any]) -> BaseEvent:
    for number, container in enumerate(containers):
        object.__setattr__(event, f"self_{number}", container(event))
    return event


def _in_its_value(event: Any) -> BaseEvent:
    event.value.append(event)
    return event  # type: ignore[no-any-return]


def _many_shapes() -> list[BaseEvent]:
    shapes = [{f"a{number}": number, "b": [number]} for number in range(MAX_SHAPES + 10)]
    pickled = [{**shape, "c": decimal.Decimal(5)} for shape in shapes]
    return [Anything(attributes) for attributes in (*shapes, *pickled, *reversed(shapes))]


CONTAINERS: tuple[Callable[[BaseEvent], Any], ...] = (
    lambda event: event,
    lambda event: [event],
    lambda event: {"event": (event,)},
    lambda event: Plain(event=event),
)

EVENTS: dict[str, Callable[[], list[BaseEvent]]] = {
    **{
        name: lambda make=make: [Carrier(value) for value in make()]  # type: ignore[misc]
        for name, make in VALUES.items()
    },
    "events with nothing in them": lambda: [Empty(), EmptySlots(), Anything({}), Empty()],
    "events that are dataclasses": lambda: [
        *(DataEvent(1), DataEvent(Base(1), [DataEvent(2)]), DerivedEvent(1, [2], {3: 4})),
        *(FrozenEvent(1), FrozenEvent([Frozen(2)]), SlotsEvent(1), SlotsEvent([2j])),
        *(DerivedSlotsEvent(1, 2, 3), DerivedSlotsEvent(1j, more=[2]), KeywordEvent(value={1, 2})),
        *(FrozenSlotsEvent(1), FrozenSlotsEvent(FrozenSlotsEvent([3])), Outer.Inner.NestedEvent(1)),
        _with_attributes(SlotsEvent(1), extra="not a field"),
    ],
    "events with slots of their own": lambda: [
        *(OwnSlotsEvent(1), OwnSlotsEvent(1j), _OwnSlotsEvent([2]), _OwnSlotsEvent({3j})),
        _with_attributes(OwnSlotsEvent(4), empty="not empty"),
    ],
    "events with private attributes": lambda: [
        *(PrivateEvent(1), PrivateEvent(1j), DerivedPrivateEvent(2), DerivedPrivateEvent(2j)),
    ],
    "events with properties": lambda: [
        *(PropertyEvent(1), PropertyEvent(1j), PropertyEvent(2), GuardedEvent(1), GuardedEvent(1j)),
        GuardedEvent(2),
    ],
    "generic events": lambda: [
        *(GenericEvent(1), GenericEvent[int](1), GenericEvent[list[str]](["x"])),
        *(FrozenGenericEvent(1), FrozenGenericEvent[float](math.nan), GenericEvent[int](2)),
    ],
    "events that are something else, too": lambda: [
        *(TupleEvent((1, [2])), NamedTupleEvent("x", {1: 2}), DictEvent(a=1), ListEvent([1, 2j])),
        *(SetEvent({1}), ErrorEvent("text", 2), TextEvent("text"), NumberEvent(2**70)),
        *(BytesEvent(b"x"), DateEvent(2026, 11, 22, fold=1), TupleEvent(), NumberEvent(0)),
        _with_attributes(TupleEvent((1, 2)), note=[3]),
        _with_attributes(DictEvent(value=DictEvent()), note={"a": 4j}),
        _with_attributes(ErrorEvent(5), note="n", __notes__=["added"]),
        _with_attributes(TextEvent("\ud800"), note=math.nan),
    ],
    "events with their own pickling": lambda: [
        *(_reduced_event(1), _reduced_event([2j]), StatefulEvent(1), StatefulEvent({2: 3j})),
        *(NewEvent(), NewEvent([1, 2])),
    ],
    "events of one type with different attributes": lambda: [
        Anything(attributes)
        for attributes in (
            *({"a": 1}, {"b": 1}, {"a": 1, "b": 2}, {"b": 2, "a": 1}, {}, {"a": 2j}, {"a": None}),
            *({"self": 1, "cls": 2, "value": 3}, {"": 1, "ü": 2, "a b": 3, "\ud800": 4}, {"a": 5}),
            *({"__class__": 1, "__dict__": 2}, {"get_origin": 3, "bind": 4}, {"_ID": 5}),
            *({5: "not text", None: 6, "a": 7}, {(1, 2): 3j}, {Text("a"): 4}, {"a": 8}),
        )
    ],
    "events of very many shapes": _many_shapes,
    "events that contain events": lambda: [
        *(
            Carrier(Carrier(Carrier(1))),
            Carrier([Empty(), DataEvent(SlotsEvent(TupleEvent((1,))))]),
        ),
        *(Carrier(ErrorEvent(Carrier(1))), Carrier({FrozenEvent(1): Outer.Inner.NestedEvent(2)})),
        Carrier([GenericEvent[int](1), PropertyEvent(2), GuardedEvent(3), Request(4)]),
    ],
    "events that contain themselves": lambda: [
        *(_in_itself(Anything({"a": 1}), container) for container in CONTAINERS),
        *(_in_itself(event, *CONTAINERS) for event in (Empty(), DataEvent(1), FrozenEvent(1))),
        *(_in_itself(event, *CONTAINERS) for event in (SlotsEvent(1), KeywordEvent(value=1))),
        *(_in_itself(event, *CONTAINERS) for event in (GuardedEvent(1), OwnSlotsEvent(1))),
        *(_in_itself(event, *CONTAINERS) for event in (ErrorEvent(1), DictEvent(a=2))),
        *(_in_itself(event, *CONTAINERS) for event in (Outer.Inner.NestedEvent(1), Request(1))),
        *(_in_its_value(event([])) for event in (FrozenSlotsEvent, StatefulEvent, GenericEvent)),
    ],
    "requests": lambda: [
        Request(1),
        Request([2j]),
        Request({"a": Colour.RED}),
        Response(Text("r")),
    ],
}


# -- Tests -----------------------------------------------------------------------------------


@dataclass
class Description(BaseEvent):
    text: str


@dataclass
class Send(BaseEvent):
    """Ask for all events of a group."""

    group: str


@dataclass
class Mirror(BaseRequestResponseEvent[Carrier]):
    """Ask for the value back."""

    value: Any

    @staticmethod
    def expected_response_type() -> type[Carrier]:
        return Carrier


class Leave(BaseEvent):
    pass


def _describe_and_send(backend: str, path: str) -> None:
    """Describe whatever comes to whom it came from, and send what is asked for."""

    async def serve() -> None:
        async with endpoint_class(backend).serve(ConnectionConfig("server", Path(path))) as server:

            def answer(event: BaseEvent) -> None:
                description = Description(describe(event))
                config = BroadcastConfig(filter_endpoint=BaseEvent.get_origin(event))
                server.broadcast_nowait(description, config)

            def send(request: Send) -> None:
                config = BroadcastConfig(filter_endpoint=request.get_origin())
                for event in EVENTS[request.group]():
                    server.broadcast_nowait(event, config)

            def mirror(request: Mirror) -> None:
                server.broadcast_nowait(Carrier(request.value), request.broadcast_config())

            for event_type in {type(event) for make in EVENTS.values() for event in make()}:
                server.subscribe(event_type, answer)
            server.subscribe(Send, send)
            server.subscribe(Mirror, mirror)
            await server.wait_for(Leave)

    run_on(backend, serve)


async def _tell_to_leave(backend: str, config: ConnectionConfig) -> None:
    async with endpoint_class(backend)("last").run() as endpoint:
        await endpoint.connect_to_endpoints(config)
        await endpoint.wait_until_endpoint_subscribed_to("server", Leave)
        await endpoint.broadcast(Leave())


class Servers:
    """Have the other process of each backend, once it is needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._workers: dict[str, Worker] = {}

    def config(self, backend: str) -> ConnectionConfig:
        """Return where the server of a backend is."""
        path = self._folder / backend
        if backend not in self._workers:
            command = calling(_describe_and_send, backend, str(path))
            self._workers[backend] = Worker(*command)
        return ConnectionConfig("server", path)

    @contextlib.contextmanager
    def within(self, seconds: float, backend: str) -> Iterator[None]:
        """Fail where it takes longer, and tell what the server has to say about it."""
        with anyio.move_on_after(seconds) as scope:
            yield
        if scope.cancelled_caught:
            raise AssertionError(f"what was sent was lost: {self._workers[backend].errors}")

    def close(self) -> None:
        """Let all servers leave, and check that they had nothing to complain about."""
        with contextlib.ExitStack() as workers:
            for backend, worker in self._workers.items():
                workers.enter_context(worker)
                run_on(backend, _tell_to_leave, backend, self.config(backend))


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """Return the processes that are the other side of all tests."""
    with TemporaryDirectory(prefix="lahja") as folder:
        servers = Servers(Path(folder))
        yield servers
        servers.close()


@pytest.mark.parametrize("group", EVENTS)
async def test_what_is_sent_arrives(
    group: str, anyio_backend: tuple[str, dict[str, Any]], servers: Servers
) -> None:
    backend = backend_name(anyio_backend)
    expected = EVENTS[group]()
    async with endpoint_class(backend)("client").run() as client:
        descriptions = client.stream(Description)
        streams = {kind: client.stream(kind) for kind in {type(event) for event in expected}}
        await client.connect_to_endpoints(servers.config(backend))
        await client.wait_until_endpoint_subscribed_to("server", Send)
        to_server = BroadcastConfig(filter_endpoint="server")
        for event in EVENTS[group]():
            before = describe(event)
            await client.broadcast(event, to_server)
            with servers.within(5, backend):
                assert (await anext(descriptions)).text == before
            assert describe(event) == before
        await client.broadcast(Send(group), to_server)
        for event in expected:
            with servers.within(5, backend):
                received = await anext(streams[type(event)])
            assert type(received) is type(event)
            assert BaseEvent.get_origin(received) == "server"
            assert describe(received) == describe(event)


async def test_requests_and_responses_carry_every_value(
    anyio_backend: tuple[str, dict[str, Any]], servers: Servers
) -> None:
    backend = backend_name(anyio_backend)
    async with endpoint_class(backend)("client").run() as client:
        await client.connect_to_endpoints(servers.config(backend))
        await client.wait_until_endpoint_subscribed_to("server", Mirror)
        for value in [value for make in VALUES.values() for value in make()]:
            response = await client.request(Mirror(value), timeout=5)
            assert type(response) is Carrier
            assert describe(response.value) == describe(value)


async def test_many_megabytes_arrive(
    anyio_backend: tuple[str, dict[str, Any]], servers: Servers
) -> None:
    backend = backend_name(anyio_backend)
    value = random.Random(1).randbytes(1024 * 1024) * 64
    async with endpoint_class(backend)("client").run() as client:
        await client.connect_to_endpoints(servers.config(backend))
        await client.wait_until_endpoint_subscribed_to("server", Mirror)
        response = await client.request(Mirror(value), timeout=30)
        assert response.value == value


async def test_shared_parts_do_not_multiply(
    anyio_backend: tuple[str, dict[str, Any]], servers: Servers
) -> None:
    backend = backend_name(anyio_backend)
    shared: list[Any] = [1.5]
    for _ in range(30):
        shared = [shared] * 1000
    mapping: dict[str, Any] = {}
    for _ in range(60):
        mapping = {"left": mapping, "right": mapping}
    async with endpoint_class(backend)("client").run() as client:
        await client.connect_to_endpoints(servers.config(backend))
        await client.wait_until_endpoint_subscribed_to("server", Mirror)
        received = (await client.request(Mirror((shared, mapping)), timeout=5)).value
    items, pairs = received
    for _ in range(30):
        assert len(items) == 1000
        assert all(item is items[0] for item in items)
        items = items[0]
    assert items == [1.5]
    for _ in range(60):
        assert pairs["left"] is pairs["right"]
        pairs = pairs["left"]
    assert pairs == {}


@pytest.mark.parametrize("anyio_backend", [BACKENDS["asyncio"]], ids=["asyncio"])
async def test_shared_bytes_do_not_multiply(
    anyio_backend: tuple[str, dict[str, Any]], servers: Servers
) -> None:
    backend = backend_name(anyio_backend)
    value = [random.Random(1).randbytes(1_000_000)] * 300
    async with endpoint_class(backend)("client").run() as client:
        await client.connect_to_endpoints(servers.config(backend))
        await client.wait_until_endpoint_subscribed_to("server", Mirror)
        assert (await client.request(Mirror(value), timeout=10)).value == value
