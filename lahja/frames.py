"""
Frames on their way out: one bytes object each, or pieces where there are long values.

A long value is a piece by itself, and is the very object that the event has. So nobody copies it,
however many peers get it, until the system takes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from . import wire

__all__ = ["APART", "CHUNK_SIZE", "LONG", "Frame", "body_of", "frame_size", "gathered"]

APART: Final = 64 * 1024
"""The shortest value, in bytes, that is a piece by itself."""

LONG: Final = 16 * 1024
"""The shortest frame or piece, in bytes, that is written from where it is; others are copied."""

CHUNK_SIZE: Final = 256 * 1024
"""How many bytes of such others are gathered in one chunk."""

Frame = bytes | tuple[bytes, ...]
"""A whole frame; its pieces, of which there are at least two, where it holds long values."""


def gathered(parts: Iterable[bytes]) -> Frame:
    """Return a frame of these parts, of which the long ones are kept and the others are joined."""
    pieces: list[bytes] = []
    run: list[bytes] = []
    for part in parts:
        if len(part) < APART:
            run.append(part)
            continue
        if run:
            pieces.append(b"".join(run))
            run = []
        pieces.append(part)
    if run:
        pieces.append(b"".join(run))
    return tuple(pieces) if len(pieces) > 1 else pieces[0]


def frame_size(frame: Frame) -> int:
    """Return how many bytes a frame has, its length included."""
    return len(frame) if isinstance(frame, bytes) else sum(map(len, frame))


def body_of(frame: Frame) -> bytes:
    """Return the body of a frame, in one piece."""
    if isinstance(frame, bytes):
        return frame[wire.LENGTH_SIZE :]
    first, *others = frame
    return b"".join((first[wire.LENGTH_SIZE :], *others))
