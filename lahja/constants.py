"""Numbers that programs for the old lahja import from here."""

from __future__ import annotations

from .wire import LENGTH_SIZE

__all__ = ["ENDPOINT_CONNECT_TIMEOUT", "IPC_WAIT_SECONDS", "SIZE_MARKER_LENGTH"]

ENDPOINT_CONNECT_TIMEOUT = 30
"""Seconds that connecting to an endpoint is tried, unless ``connect_timeout`` says otherwise."""

IPC_WAIT_SECONDS = 2
"""Seconds; unused here, kept for programs that import it."""

SIZE_MARKER_LENGTH = LENGTH_SIZE
"""Bytes of the length in front of every frame."""
