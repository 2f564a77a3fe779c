"""The endpoint for :mod:`asyncio`, on its own event loop and on uvloop."""

from __future__ import annotations

from .endpoint import AsyncioEndpoint

__all__ = ["AsyncioEndpoint"]
