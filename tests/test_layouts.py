"""Classes taken apart: which pickle themselves, and where their attributes are kept."""

from __future__ import annotations

import copyreg
import dataclasses
import threading
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest

from lahja.common import BaseEvent, BaseRequestResponseEvent
from lahja.layouts import BINDING, check_fields, is_self_pickling, set_by_descriptor, slot_names


class Ordinary(BaseEvent):
    pass


@dataclass
class Plain(BaseEvent):
    a: int


@dataclass(frozen=True)
class Frozen(BaseEvent):
    a: int


@dataclass(slots=True)
class Slotted(BaseEvent):
    a: int


@dataclass(frozen=True, slots=True)
class FrozenSlotted(BaseEvent):
    a: int


class Reducing(BaseEvent):
    def __reduce__(self) -> Any:
        return Reducing, ()


class ReducingEx(BaseEvent):
    def __reduce_ex__(self, protocol: Any) -> Any:
        return ReducingEx, ()


class Getting(BaseEvent):
    def __getstate__(self) -> Any:
        return ()


class Setting(BaseEvent):
    def __setstate__(self, state: Any) -> None:
        pass


class WithArguments(BaseEvent):
    def __getnewargs__(self) -> Any:
        return ()


class WithKeywordArguments(BaseEvent):
    def __getnewargs_ex__(self) -> Any:
        return (), {}


class WithNew(BaseEvent):
    def __new__(cls) -> Any:
        return super().__new__(cls)


class OfTuple(BaseEvent, tuple[int]):
    pass


class OfError(BaseEvent, ValueError):
    pass


class OfNamedTuple(NamedTuple):
    a: int


class OfLock(BaseEvent, threading.local):
    pass


class Registered(BaseEvent):
    pass


copyreg.pickle(Registered, lambda event: (Registered, ()))


class DerivedFromReducing(Reducing):
    pass


@pytest.mark.parametrize(
    "kind",
    [Ordinary, Plain, Frozen, Slotted, FrozenSlotted, BaseEvent, BaseRequestResponseEvent],
    ids=lambda kind: kind.__name__,
)
def test_a_class_that_leaves_pickling_to_python_is_sent_as_its_attributes(kind: type) -> None:
    assert not is_self_pickling(kind)


@pytest.mark.parametrize(
    "kind",
    [
        Reducing,
        ReducingEx,
        Getting,
        Setting,
        WithArguments,
        WithKeywordArguments,
        WithNew,
        OfTuple,
        OfError,
        OfLock,
        Registered,
        DerivedFromReducing,
    ],
    ids=lambda kind: kind.__name__,
)
def test_a_class_that_defines_its_own_pickling_is_pickled_whole(kind: type) -> None:
    assert is_self_pickling(kind)


# -- Slots -----------------------------------------------------------------------------------


class Base(BaseEvent):
    __slots__ = ("__private", "a")


class Derived(Base):
    __slots__ = ["__dunder__", "b", "a"]  # noqa: RUF023


class WithoutEvent:
    __slots__ = ("__dict__", "__weakref__", "c")


class OneSlot(BaseEvent):
    __slots__ = "single"


class _Hidden(BaseEvent):
    __slots__ = ("__x",)


class __(BaseEvent):
    __slots__ = ("__x",)


def test_slots_are_named_from_the_base_to_the_class() -> None:
    assert slot_names(Ordinary) == ()
    assert slot_names(Slotted) == ("a",)
    assert slot_names(Base) == ("_Base__private", "a")
    assert slot_names(Derived) == ("_Base__private", "a", "__dunder__", "b")
    assert slot_names(OneSlot) == ("single",)
    assert slot_names(_Hidden) == ("_Hidden__x",)
    assert slot_names(__) == ("__x",)
    assert slot_names(WithoutEvent) == ("c",)
    for kind in (Base, Derived, OneSlot, _Hidden, __):
        for name in slot_names(kind):
            assert hasattr(kind, name)


def test_fields_are_set_by_the_slots_that_there_are() -> None:
    class Shadowing(Base):
        @property
        def b(self) -> int:
            return 1

        c = 5

    assert set_by_descriptor(Derived, ("a", "b", "_Base__private", "x")) == (
        True,
        True,
        True,
        False,
    )
    assert set_by_descriptor(Shadowing, ("a", "b", "c")) == (True, False, False)
    assert set_by_descriptor(Ordinary, ()) == ()


def test_a_slot_that_was_replaced_is_no_slot_any_more() -> None:
    class Replaced(BaseEvent):
        __slots__ = ("a",)

    setattr(Replaced, "a", property(lambda self: 5))  # noqa: B010
    assert slot_names(Replaced) == ("a",)
    assert set_by_descriptor(Replaced, ("a",)) == (False,)


def test_what_binding_sets_is_named() -> None:
    assert frozenset({"_origin", "_id", "is_bound"}) == BINDING


@pytest.mark.parametrize("name", sorted(BINDING))
def test_a_field_with_a_name_of_lahjas_own_is_refused(name: str) -> None:
    cls = dataclasses.make_dataclass("Event", [("fine", int), (name, int)], bases=(BaseEvent,))
    with pytest.raises(TypeError, match=rf"^Event has a field '{name}', which .* rename the field"):
        check_fields(cls)
    check_fields(dataclasses.make_dataclass("Event", ["fine"], bases=(BaseEvent,)))
