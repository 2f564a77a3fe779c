"""
Names of event types, as they travel.

A type goes by ``module:qualified.name``. ``__main__`` and ``__mp_main__`` (what
:mod:`multiprocessing` calls the main module in a child) are one module, and a main module that was
started with ``python -m`` goes by its real name, so that processes agree on what is the same type.

Looking a name up never imports anything: a remote endpoint chooses the names.
"""

from __future__ import annotations

import sys
import types
import weakref
from typing import Any

from .common import BaseEvent

__all__ = ["MAIN_MODULES", "find_class", "main_module_name", "name_of"]

MAIN_MODULES = ("__main__", "__mp_main__")
"""The names of the main module: the usual one, and the one in children of multiprocessing."""

# Classes that were named before; the only way back to those that live inside a function.
_named: weakref.WeakValueDictionary[str, type] = weakref.WeakValueDictionary()


def main_module_name() -> str:
    """Return the real name of this process's main module; ``__main__`` where it has none."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    name = getattr(spec, "name", None)
    return name if isinstance(name, str) else "__main__"


def name_of(cls: type) -> str:
    """Return the name by which the class travels."""
    module = cls.__module__
    if module in MAIN_MODULES:
        module = main_module_name()
    name = f"{module}:{cls.__qualname__}"
    _named[name] = cls
    return name


def find_class(name: str) -> type[BaseEvent] | None:
    """
    Return the event class of this name, where this process has it already, otherwise None.

    Neither imports a module nor runs a module's or a class's own attribute lookup.
    """
    found: Any = _named.get(name)
    if found is None:
        module_name, _, qualname = name.partition(":")
        if module_name == main_module_name():
            module_name = "__main__"
        found = sys.modules.get(module_name)
        for part in qualname.split("."):
            # Not by getattr or isinstance: lazy modules, metaclasses and proxies would run code.
            if issubclass(type(found), types.ModuleType):
                found = object.__getattribute__(found, "__dict__").get(part)
            elif issubclass(type(found), type):
                found = type.__getattribute__(found, "__dict__").get(part)
            else:
                return None
    if issubclass(type(found), type) and BaseEvent in type.__getattribute__(found, "__mro__"):
        cls: type[BaseEvent] = found
        return cls if name_of(cls) == name else None
    return None
