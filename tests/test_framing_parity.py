"""
The two framing implementations, held together.

What can be compared is compared: names, signatures, and the outcome of the same calls, which is
what is returned, queued, delivered and left over, or the error to the letter. Where only one
implementation is there, the properties are tested on that one.
"""

from __future__ import annotations

import inspect
import math
import pickle
import struct
from collections.abc import Callable
from types import ModuleType
from typing import Any

import framing_helpers as helpers
import pytest
from framing_helpers import Event, Frozen, Half, Link, Plain, Slotted, frame, same, state_of
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lahja import wire
from lahja.exceptions import BindError, DecodeError, EncodeError, LahjaError, ProtocolError
from lahja.names import name_of

ALL = [helpers.load(name) for name in helpers.IMPLEMENTATIONS]
PYTHON, OTHERS = ALL[0], ALL[1:]

CLASSES = [
    "Outlet",
    "Shape",
    "Topic",
    "EventTable",
    "PendingRequest",
    "Mailbox",
    "EventIterator",
    "Inlet",
    "Reader",
]


@pytest.fixture(params=helpers.IMPLEMENTATIONS)
def framing(request: pytest.FixtureRequest) -> ModuleType:
    return helpers.load(request.param)


# -- What they look like ---------------------------------------------------------------------


def test_there_is_something_to_compare() -> None:
    assert len(ALL) == 1 + helpers.HAS_COMPILED


def test_both_have_the_same_names(framing: ModuleType) -> None:
    assert framing.__all__ == PYTHON.__all__
    assert sorted(framing.__all__) == sorted({"IMPLEMENTATION", *CLASSES, *FUNCTIONS})
    for name in framing.__all__:
        assert hasattr(framing, name)


FUNCTIONS = ["decode_value", "encode_value"]


def _names(cls: type) -> list[str]:
    return sorted(name for name in dir(cls) if not name.startswith("_"))


def _summary(documented: object) -> str:
    return (inspect.getdoc(documented) or "").splitlines()[0]


@pytest.mark.parametrize("name", CLASSES)
def test_classes_have_the_same_members(framing: ModuleType, name: str) -> None:
    ours, theirs = getattr(framing, name), getattr(PYTHON, name)
    assert ours.__name__ == theirs.__name__ == name
    assert _names(ours) == _names(theirs)
    assert _summary(ours) == _summary(theirs)
    assert not hasattr(theirs, "__dict__") or "__dict__" not in theirs.__dict__
    assert _parameters(ours) == _parameters(theirs)
    for member in _names(ours):
        own, other = getattr(ours, member), getattr(theirs, member)
        assert callable(own) == callable(other)
        if callable(other):
            assert _parameters(own) == _parameters(other)
            assert _summary(own) == _summary(other)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_have_the_same_parameters(framing: ModuleType, name: str) -> None:
    assert _parameters(getattr(framing, name)) == _parameters(getattr(PYTHON, name))


def _parameters(function: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    parameters = inspect.signature(function).parameters.values()
    return [(each.name, each.kind, each.default) for each in parameters]


def test_what_can_be_set_can_be_set_in_both(framing: ModuleType) -> None:
    """Only what makes an object what it is may not be changed later, in the compiled module."""
    fixed = {
        "Shape": {"announcement", "fields", "layout", "name", "type_id"},
        "Topic": {"cls", "name", "self_pickling", "shapes", "slots"},
        "Inlet": {"fields", "layout", "name", "type_id"},
    }
    callables = {"cls", "expected", "loads", "on_congested", "on_error", "on_response", "on_topic"}
    callables |= {
        "clock",
        "find_topic",
        "owner",
        "route",
        "route_request",
        "targets",
        "wake",
        "where",
    }
    for name, instance in {
        "Outlet": framing.Outlet(print, 5),
        "Shape": framing.Shape(0, "n", 0, ()),
        "Topic": framing.Topic(Event),
        "EventTable": framing.EventTable("", True, print),
        "Mailbox": framing.Mailbox(),
        "EventIterator": framing.EventIterator(framing.Mailbox(), -1),
        "PendingRequest": framing.PendingRequest(b"", Event, None, (), False, print),
        "Inlet": framing.Inlet(0, "n", 0, ()),
        "Reader": framing.Reader(5, print),
    }.items():
        for member in _names(type(instance)):
            value = getattr(instance, member)
            if callable(value) and member not in callables:
                continue
            if member in ("names", "pending") or (
                framing is not PYTHON and member in fixed.get(name, ())
            ):
                with pytest.raises(AttributeError):
                    setattr(instance, member, value)
            else:
                setattr(instance, member, value)
                assert getattr(instance, member) == value
        with pytest.raises(AttributeError):
            instance.no_such_attribute = 5
        with pytest.raises(TypeError):
            instance.__reduce__()


def test_neither_can_be_referenced_weakly(framing: ModuleType) -> None:
    for name in CLASSES:
        assert getattr(framing, name).__weakrefoffset__ == 0
        assert getattr(framing, name).__dictoffset__ == 0


# -- The same calls --------------------------------------------------------------------------


def outcome(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a call does: its result, or everything about its error."""
    try:
        return "returned", function(*arguments)
    except Exception as error:
        return described(error)


def described(error: BaseException | None) -> Any:
    """Return everything about an error that somebody may see."""
    if error is None:
        return None
    shown = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return type(error), str(error), list(error.args), described(shown)


def agree(results: list[Any]) -> Any:
    """Check that all results are alike, and return one."""
    for result in results[1:]:
        if not same(result, results[0]):
            pytest.fail("\n".join(difference(result, results[0])))
    return results[0]


def difference(left: Any, right: Any) -> tuple[str, str]:
    """Return the smallest parts in which two results differ."""
    while type(left) is type(right) in (list, tuple) and len(left) == len(right):
        pairs = zip(left, right, strict=True)
        found = next((pair for pair in pairs if not same(*pair)), None)
        if found is None:
            break
        left, right = found
    return repr(left), repr(right)


VALUES_TO_COMPARE = [value for group in helpers.VALUES.values() for value in group]


def test_values_are_encoded_alike() -> None:
    for value in VALUES_TO_COMPARE:
        agree([outcome(module.encode_value, value) for module in ALL])


def sent(module: ModuleType, allow_pickle: bool) -> list[Any]:
    """Return what happens when all sorts of events are sent, again and again."""
    link = Link(module, allow_pickle=allow_pickle)
    results: list[Any] = []
    for index in range(3):
        for event in [*helpers.events(), *(Event(a=0, value=each) for each in VALUES_TO_COMPARE)]:
            topic = link.table.topic(type(event))
            topic.strict = index == 2
            link.outlet.accepts_pickle = index != 2
            link.outlet.name = "peer"
            results.append(outcome(link.table.publish, event))
            results.append((link.outlet.take(), link.outlet.size, link.outlet.announced.copy()))
            results.append((state_of(event).get("_origin"), link.table.debt, link.table.congested))
            results.append(outcome(link.table.publish, event))
            results.append([[s.type_id, s.layout, s.fields] for s in topic.shapes.values()])
            results.append(list(topic.shapes))
    return results


@pytest.mark.parametrize("allow_pickle", [True, False])
def test_events_are_sent_alike(allow_pickle: bool) -> None:
    results = agree([sent(module, allow_pickle) for module in ALL])
    assert len(results) > 500


@pytest.mark.parametrize("sending", helpers.IMPLEMENTATIONS)
@pytest.mark.parametrize("receiving", helpers.IMPLEMENTATIONS)
def test_one_sends_what_the_other_receives(sending: str, receiving: str) -> None:
    link = Link(helpers.load(sending), helpers.load(receiving))
    for _ in range(2):
        for group in helpers.VALUES.values():
            for value in group:
                events = Event(a=value), Frozen(5, value), Half(value, [value], b=value)
                received = link.carry(*events)
                for event, other in zip(events, received, strict=True):
                    assert same(other, event)
        originals = list(helpers.events())
        for event, other in zip(originals, link.carry(*originals), strict=True):
            if not isinstance(event, (helpers.Reduced, helpers.Stateful)):
                assert same(other, event)


def test_errors_of_sending_are_alike() -> None:
    def attempts(module: ModuleType) -> list[Any]:
        results = []
        for allow_pickle in (True, False):
            link = Link(module, allow_pickle=allow_pickle)
            link.outlet.name = "peer"
            for event in (
                Event(a=1, bad=lambda: None),
                Event(a=1, bad=[1j, lambda: None]),
                Event(a=1, bad=helpers.nested(102)),
                Event(a=1, bad=[[] for _ in range(2000)]),
                Event(a=1, bad=helpers.OfUnhashableClass()),
                helpers.Reduced(lambda: None),
                helpers.Reduced(1),
                Half(lambda: None, 1),
                5,
                None,
                Event,
            ):
                results.append(outcome(link.table.publish, event))
                results.append(link.outlet.take())
            link.table.limit = link.outlet.limit = 100
            results.append(outcome(link.table.publish, Event(a=b"x" * 200)))
            link.outlet.limit = 1000
            results.append(outcome(link.table.publish, Event(a=b"x" * 200)))
            link.outlet.limit = link.table.limit = -1
            results.append(outcome(link.table.publish, Event(a=b"")))
            link.outlet.limit = link.table.limit = -(2**100)
            results.append(outcome(link.table.publish, Event(a=b"")))
            results.append(link.outlet.take())
            results.append((link.table.debt, link.table.congested, link.outlet.size))
        return [
            # A pickling error has the address of what it is about.
            str(type(result[0])) + str(result[0]) if result[0] != "returned" else result
            for result in results
            if result
        ]

    agree([attempts(module) for module in ALL])


def arrived(module: ModuleType, data: bytes, cuts: list[int], limit: int = 10_000) -> list[Any]:
    """Return all that happens when bytes arrive in pieces, as a peer of any sort may send them."""
    link = Link(module)
    reader = link.reader
    reader.limit = limit
    results: list[Any] = []
    for cls in (Event, Plain, Half, Slotted, helpers.Guarded, helpers.Shadowed):
        link.table.topic(cls)
    start = 0
    for cut in [*cuts, len(data)]:
        piece = data[start:cut]
        start = max(start, cut)
        while piece:
            room = reader.get_buffer()
            results.append(len(room))
            count = min(len(room), len(piece))
            room[:count], piece = piece[:count], piece[count:]
            reader.buffer_updated(count)
            results.append(reader.pending)
            try:
                while (body := reader.next_frame()) is not None:
                    results.append(bytes(body))
                    if body[0] == wire.ANNOUNCE:
                        announce(module, reader, body)
            except ProtocolError as error:
                results.append(described(error))
                results.append(outcome(reader.next_frame))
                piece = b""
                start = len(data)
            results.append(reader.pending)
    results.append(outcome(reader.end))
    results.append([[type(event).__name__, state_of(event)] for event in link.received()])
    results.append([(inlet.type_id, described(error)) for inlet, error in link.errors])
    return results


def announce(module: ModuleType, reader: Any, body: memoryview) -> None:
    """Do what the protocol does with an announcement, with as little suspicion as it has."""
    value, end = module.decode_value(body, 1)
    if end != len(body) or type(value) is not tuple or len(value) != 4:
        raise ProtocolError("no announcement")
    type_id, name, layout, fields = value
    if type(type_id) is not int or type(name) is not str or type(fields) is not tuple:
        raise ProtocolError("no announcement")
    if layout not in (0, 1, 2) or type(layout) is not int or (layout and fields):
        raise ProtocolError("no layout")
    if not all(type(field) is str for field in fields) or len(set(fields)) != len(fields):
        raise ProtocolError("no fields")
    reader.inlets[type_id] = module.Inlet(type_id, name, layout, fields)


def conversation() -> bytes:
    """Return a long one with everything in it."""
    link = Link(PYTHON)
    data: bytes = b""
    for index in range(3):
        data += link.encode(
            Event(a=index, b="text", c=b"bytes" * 30),
            Event(value=[1, {"k": (2.5, None, True)}, {1, 2}, frozenset(("x",))]),
            Event(big=2**100, text="ä\ud800"),
            Event(pickled=1j),
            Plain(5, "x", b"y"),
            Plain(5, "x", helpers.Point(1)),  # type: ignore[arg-type]
            Slotted(1),
            Half(1, 2, other=3),
            helpers.Guarded(1),
            helpers.Shadowed(2),
        )
        data += frame(wire.GOODBYE, b"(\0\0\0\0")
        data += frame(wire.REQUEST, struct.pack("<I", index) + b"0123456789abcdef" + b"\0N")
    mapping = PYTHON.Shape(100, name_of(Event), wire.LAYOUT_MAPPING, ())
    data += mapping.announcement
    data += frame(wire.EVENT, struct.pack("<I", 100) + b"\0" + PYTHON.encode_value({"a": 1}))
    data += frame(wire.EVENT, struct.pack("<I", 100) + b"\x01" + pickle.dumps(({"a": 1j},)))
    whole = PYTHON.Shape(101, name_of(Event), wire.LAYOUT_WHOLE, ())
    data += whole.announcement
    data += frame(wire.EVENT, struct.pack("<I", 101) + b"\x01" + pickle.dumps(Event(a=1)))
    return data


CONVERSATION = conversation()


def test_a_conversation_gives_the_same_however_it_is_cut() -> None:
    events: list[Any] = []
    size = len(CONVERSATION)
    for cuts in ([], list(range(size)), list(range(0, size, 7)), [4], [size - 1], [1, 2, 5, 500]):
        result = agree([arrived(module, CONVERSATION, cuts) for module in ALL])
        events.append(result[-2:])
    assert len(events[0][0]) > 30
    assert agree(events)


@pytest.mark.parametrize("tail", range(0, 60, 7))
def test_what_is_left_over_is_the_same(tail: int) -> None:
    data = CONVERSATION[: len(CONVERSATION) - tail]
    agree([arrived(module, data, [100, 1000]) for module in ALL])


# -- Properties ------------------------------------------------------------------------------


def floats_by_bits() -> st.SearchStrategy[float]:
    return st.integers(0, 2**64 - 1).map(helpers.float_of)


TEXT = st.text(st.characters(), max_size=20) | st.text(
    st.characters(categories=["Cs", "Ll"]), max_size=10
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.sampled_from(helpers.INTEGERS),
    floats_by_bits(),
    TEXT,
    st.binary(max_size=300),
    st.integers(250, 260).map(lambda size: "x" * size),
    st.integers(250, 260).map(bytes),
)
# NaNs are equal to nothing, so that sets of them cannot be compared.
KEYS = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), TEXT, st.binary(max_size=20)),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)
PLAIN = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(KEYS, inner, max_size=5),
        st.sets(KEYS, max_size=5),
        st.frozensets(KEYS, max_size=5),
    ),
    max_leaves=20,
)
NOT_PLAIN = st.one_of(
    st.complex_numbers(allow_nan=False),
    st.decimals(allow_nan=False),
    st.datetimes(),
    st.fractions(),
    st.integers().map(helpers.Int),
    TEXT.map(helpers.Str),
    st.sampled_from([helpers.Colour.RED, helpers.Number.ONE, helpers.Name.LAHJA]),
    PLAIN.map(helpers.Point),
    PLAIN.map(helpers.FrozenSlottedPoint),
    st.binary(max_size=20).map(bytearray),
    PLAIN.map(lambda value: helpers.Pair(value, value)),
)
ANYTHING = st.one_of(
    PLAIN, NOT_PLAIN, st.lists(PLAIN | NOT_PLAIN, max_size=3), st.dictionaries(KEYS, NOT_PLAIN)
)
NAMES = st.one_of(
    st.sampled_from(["a", "b", "c", "_private", "__class__", "__dict__", "value", "text"]),
    TEXT.filter(lambda name: name not in ("_origin", "_id", "is_bound", "get_origin")),
)
STATES = st.lists(st.dictionaries(NAMES, ANYTHING, max_size=4), min_size=1, max_size=4)

thorough = settings(deadline=None, max_examples=100)


@thorough
@given(PLAIN)
@example(helpers.nested(100))
@example(helpers.nested(101))
def test_any_plain_value_survives(value: Any) -> None:
    kind, encoded = agree([outcome(module.encode_value, value)[:2] for module in ALL])
    if kind is EncodeError:
        return
    for module in ALL:
        decoded, end = module.decode_value(encoded)
        assert same(decoded, value)
        assert end == len(encoded)
        again, end = module.decode_value(b"\xff" + encoded + b"N", 1)
        assert same(again, value)
        assert end == 1 + len(encoded)


@thorough
@given(st.binary(max_size=200), st.integers(0, 10))
@example(b"(\xff\xff\xff\xff", 0)
@example(b"d\x01\0\0\0\0\0\xf0\x7f", 0)
def test_random_bytes_are_values_or_documented_errors(data: bytes, offset: int) -> None:
    result = agree([outcome(module.decode_value, data, offset) for module in ALL])
    assert result[0] in ("returned", DecodeError)


@thorough
@given(PLAIN, st.data())
def test_values_with_a_changed_byte(value: Any, data: st.DataObject) -> None:
    encoded = bytearray(PYTHON.encode_value(value))
    index = data.draw(st.integers(0, len(encoded) - 1))
    encoded[index] ^= data.draw(st.integers(1, 255))
    result = agree([outcome(module.decode_value, bytes(encoded)) for module in ALL])
    assert result[0] in ("returned", DecodeError)


@thorough
@given(STATES, st.booleans())
def test_any_event_survives(states: list[dict[str, Any]], allow_pickle: bool) -> None:
    for sending in ALL:
        for receiving in ALL:
            link = Link(sending, receiving, allow_pickle)
            for state in states:
                event = Event(**state)
                try:
                    (received,) = link.carry(event)
                except EncodeError:
                    assert not allow_pickle
                    assert not event.is_bound
                else:
                    assert type(received) is Event
                    assert same(vars(received), vars(event))
                    assert list(vars(received)) == [*state, "_origin"]


@thorough
@given(STATES, st.booleans())
def test_any_event_is_encoded_alike(states: list[dict[str, Any]], allow_pickle: bool) -> None:
    results = []
    for module in ALL:
        link = Link(module, allow_pickle=allow_pickle)
        result: list[Any] = []
        for state in states:
            result.append(outcome(link.table.publish, Event(**state)))
            result.append([bytes(data) for data in link.outlet.take()])
        results.append([*result, link.table.debt, link.outlet.size])
    agree(results)


@thorough
@given(st.lists(st.integers(0, len(CONVERSATION)), max_size=50).map(sorted))
def test_any_cutting_gives_the_same_events(cuts: list[int]) -> None:
    result = agree([arrived(module, CONVERSATION, cuts) for module in ALL])
    assert same(result[-2:], arrived(PYTHON, CONVERSATION, [])[-2:])


@thorough
@given(st.binary(max_size=500), st.lists(st.integers(0, 500), max_size=5).map(sorted))
def test_random_bytes_raise_documented_errors_only(data: bytes, cuts: list[int]) -> None:
    agree([arrived(module, data, cuts) for module in ALL])


BODIES = st.builds(
    lambda kind, type_id, payload: frame(kind, struct.pack("<I", type_id) + payload),
    st.sampled_from([wire.EVENT, wire.REQUEST, wire.ANNOUNCE, wire.COMPRESSED]),
    st.integers(0, 12) | st.integers(0, 2**32 - 1),
    st.binary(max_size=30)
    | st.builds(lambda form, data: bytes((form,)) + data, st.integers(0, 2), st.binary(max_size=9)),
)


@thorough
@given(st.lists(BODIES, max_size=8))
def test_random_frames_raise_documented_errors_only(bodies: list[bytes]) -> None:
    data = CONVERSATION[:2000] + b"".join(bodies)
    agree([arrived(module, data, []) for module in ALL])


@thorough
@given(
    st.lists(
        st.tuples(st.integers(0, len(CONVERSATION) - 1), st.integers(0, 7)), min_size=1, max_size=5
    ),
    st.lists(st.integers(0, len(CONVERSATION)), max_size=5).map(sorted),
)
def test_flipped_bits_raise_documented_errors_only(
    flips: list[tuple[int, int]], cuts: list[int]
) -> None:
    data = bytearray(CONVERSATION)
    for index, bit in flips:
        data[index] ^= 1 << bit
    agree([arrived(module, without_pickles(bytes(data)), cuts) for module in ALL])


def without_pickles(data: bytes) -> bytes:
    """Leave pickles out: what Python makes of broken ones is its own business."""
    return data.replace(b"\x80\x05\x95", b"\x80\x05N").replace(b"\x80\x04\x95", b"\x80\x04N")


@settings(deadline=None, max_examples=100)
@example([("feed", 40_000), ("next", 0)] * 20, [70_000] * 5)
@example([("feed", 5), ("feed", 4_095), ("next", 0), ("feed", 16_379)] * 5, [30_000] * 5)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("feed"), st.integers(0, 40_000)),
            st.tuples(st.just("limit"), st.integers(0, 2**33)),
            st.tuples(st.just("next"), st.just(0)),
            st.tuples(st.just("buffer"), st.just(0)),
        ),
        max_size=20,
    ),
    st.lists(st.integers(1, 70_000), min_size=1, max_size=10),
)
def test_buffers_grow_alike(steps: list[tuple[str, int]], sizes: list[int]) -> None:
    stream = b"".join(frame(wire.SUBSCRIBE, bytes(size)) for size in sizes)
    results: list[Any] = []
    for module in ALL:
        reader = module.Reader(100_000, print)
        data = memoryview(stream)
        result: list[Any] = []
        for step, number in steps:
            if step == "feed":
                room = reader.get_buffer()
                count = min(number, len(room), len(data))
                room[:count], data = data[:count], data[count:]
                reader.buffer_updated(count)
                result.append((len(room), count, reader.pending))
            elif step == "limit":
                reader.limit = number
            elif step == "next":
                found = outcome(reader.next_frame)
                result.append(bytes(found[1]) if isinstance(found[1], memoryview) else found)
            else:
                result.append(len(reader.get_buffer()))
        results.append(result)
    agree(results)


def test_hypothesis_is_given_signalling_nans() -> None:
    assert math.isnan(helpers.float_of(0x7FF0_0000_0000_0001))
    assert issubclass(BindError, LahjaError)
