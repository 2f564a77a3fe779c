"""The endpoint for trio (extra ``trio``)."""

from __future__ import annotations

from ..exceptions import MissingExtra

try:
    import trio as _trio  # noqa: F401
except ModuleNotFoundError as _error:
    raise MissingExtra("TrioEndpoint", "trio") from _error

from .endpoint import TrioEndpoint

__all__ = ["TrioEndpoint"]
