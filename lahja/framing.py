"""
The framing implementation in use: compiled where it is there, plain Python otherwise.

``LAHJA_FRAMING=cython`` requires the compiled one, ``python`` forces the plain one. On a
free-threaded Python the compiled one turns the GIL on, and Python warns of that; the plain one does
not.
"""

from __future__ import annotations

import os
import warnings
from importlib import import_module
from typing import TYPE_CHECKING

_wanted = os.environ.get("LAHJA_FRAMING", "")
if _wanted not in ("", "cython", "python"):
    raise ImportError(f"LAHJA_FRAMING is {_wanted!r}; it may be 'cython', 'python' or unset")

if TYPE_CHECKING:
    from ._framing_py import *  # noqa: F403 - the compiled one has the same names
    from ._framing_py import __all__ as __all__
else:
    _chosen = None
    if _wanted != "python":
        try:
            _chosen = import_module("._framing", __package__)
        except ImportError as _error:
            if _wanted == "cython":
                _text = f"LAHJA_FRAMING is 'cython', and the compiled module fails: {_error}"
                raise ImportError(_text, name=_error.name, path=_error.path) from _error
            if _error.name != f"{__package__}._framing" or _error.path is not None:
                _text = f"lahja uses plain Python, because its compiled module is broken: {_error}"
                warnings.warn(_text, RuntimeWarning, stacklevel=2)
    if _chosen is None:
        from . import _framing_py as _chosen
    __all__ = list(_chosen.__all__)
    globals().update({name: getattr(_chosen, name) for name in __all__})
