"""
How the instances of a class are taken apart and put together again.

Both framing implementations ask here, once per class; nothing in this module runs per event.
An event whose class leaves pickling to Python is sent as the values of its attributes. One that
defines its own pickling is pickled whole, because only its class knows what belongs to it.
"""

from __future__ import annotations

import copyreg
import types
from typing import Any

__all__ = ["BINDING", "check_fields", "is_self_pickling", "set_by_descriptor", "slot_names"]

BINDING = frozenset(("_origin", "_id", "is_bound"))
"""Attributes that binding an event sets; they are never sent as fields."""

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement, so no hidden C state


def check_fields(cls: type) -> None:
    """
    Make sure that no field of a dataclass has the name of an attribute that binding sets.

    :raise TypeError: where one has: it would not arrive
    """
    taken = sorted(BINDING.intersection(getattr(cls, "__dataclass_fields__", ())))
    if taken:
        raise TypeError(
            f"{cls.__qualname__} has a field {taken[0]!r}, which is a name of lahja's own in every "
            "event: rename the field"
        )


def _is_default(cls: type, name: str) -> bool:
    """Return whether the class has a pickling method only as Python or dataclasses gave it."""
    method = getattr(cls, name, None)
    return method is getattr(object, name, None) or (
        # dataclass(frozen=True, slots=True) writes these two for all fields
        getattr(method, "__module__", None) == "dataclasses"
    )


def _new_of(cls: Any) -> Any:
    return cls.__new__


def is_self_pickling(cls: type) -> bool:
    """Return whether only pickling an instance whole is sure to keep all of it."""
    return (
        not all(base is object or base.__flags__ & _HEAP_TYPE for base in cls.__mro__)
        or cls in copyreg.dispatch_table
        or _new_of(cls) is not object.__new__
        or not all(_is_default(cls, name) for name in ("__reduce__", "__reduce_ex__"))
        or not all(_is_default(cls, name) for name in ("__getstate__", "__setstate__"))
        or hasattr(cls, "__getnewargs__")
        or hasattr(cls, "__getnewargs_ex__")
    )


def slot_names(cls: type) -> tuple[str, ...]:
    """Return the attributes that instances keep in slots, private names as they are mangled."""
    names: list[str] = []
    for base in reversed(cls.__mro__):
        slots = base.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else tuple(slots):
            if slot in ("__dict__", "__weakref__"):
                continue
            owner = base.__name__.lstrip("_")
            if owner and slot.startswith("__") and not slot.endswith("__"):
                slot = f"_{owner}{slot}"
            if slot not in names:
                names.append(slot)
    return tuple(names)


def set_by_descriptor(cls: type, fields: tuple[str, ...]) -> tuple[bool, ...]:
    """
    Return for each field whether it is stored by a slot; the others belong into the dictionary.

    A property of the same name as an entry of the dictionary is left alone, as pickle does.
    """
    slots = set(slot_names(cls))
    return tuple(
        name in slots
        and any(
            isinstance(base.__dict__.get(name), types.MemberDescriptorType) for base in cls.__mro__
        )
        for name in fields
    )
