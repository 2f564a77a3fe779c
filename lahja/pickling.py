"""Unpickling of payloads whose sender calls another module ``__main__`` than this process does."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any

from .names import MAIN_MODULES, main_module_name

__all__ = ["loads_from"]


def loads_from(their_main: str) -> Callable[[Any], Any]:
    """
    Return what unpickles payloads of a process whose main module has the given real name.

    It is :func:`pickle.loads` itself where both processes mean the same by ``__main__``.
    """
    import pickle  # not at the top: it takes a millisecond, and there is no connection yet

    our_main = main_module_name()
    if their_main == our_main:
        return pickle.loads

    class _Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if module in MAIN_MODULES and their_main != "__main__":
                module = their_main
            if module == our_main and module not in sys.modules:
                module = "__main__"
            return super().find_class(module, name)

    def loads(data: Any) -> Any:
        return _Unpickler(io.BytesIO(data)).load()

    return loads
