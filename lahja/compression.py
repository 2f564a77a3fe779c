"""
Compression of frames with python-snappy, where it is installed (extra ``snappy``).

The first bytes of snappy's raw format are the size of what comes out, so that a bomb is refused
before it is unpacked. A type whose events do not shrink is soon left alone: each failure doubles
how many of its events pass by before the next attempt.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import wire
from .exceptions import DecodeError, FrameTooLarge
from .frames import Frame, body_of, frame_size

if TYPE_CHECKING:
    from .framing import Shape

__all__ = ["Compressor", "SnappySupport", "has_snappy", "uncompress"]

_MOST_PASSED_BY = 1 << 10
_MOST_PER_BYTE = 22  # three bytes become 64 at best


@cache
def _snappy() -> Any:
    """Return python-snappy, which the first endpoint imports; None where it is not there."""
    try:
        return import_module("snappy")
    except ImportError:  # the extra is not installed, or its own dependency is not
        return None


def has_snappy() -> bool:
    """Return whether python-snappy is installed."""
    return _snappy() is not None


class SnappySupport:
    """Be a class attribute that tells, when it is looked at, whether python-snappy is installed."""

    def __get__(self, instance: object, owner: type | None = None) -> bool:
        return has_snappy()


class Compressor:
    """Compress the frames that are worth it."""

    def __init__(self) -> None:
        self._compress: Callable[[bytes], bytes] = _snappy().compress
        self._passes: dict[int, int] = {}  # by type id: events that go without an attempt

    def __call__(self, shape: Shape, frame: Frame) -> bytes | None:
        """Return the frame compressed, or None where that would not make it smaller."""
        passes = self._passes.get(shape.type_id, 0)
        if passes:
            self._passes[shape.type_id] = passes - 1
            return None
        packed = self._compress(body_of(frame))
        if len(packed) + 1 < (frame_size(frame) - wire.LENGTH_SIZE) * 7 // 8:
            shape.reluctance = 0
            return struct.pack("<IB", len(packed) + 1, wire.COMPRESSED) + packed
        shape.reluctance = min(2 * shape.reluctance + 1, _MOST_PASSED_BY)
        self._passes[shape.type_id] = shape.reluctance
        return None


def uncompress(data: bytes | memoryview, limit: int) -> bytes:
    """
    Return the body that was compressed.

    :param limit: the longest body that is accepted, in bytes
    :raise FrameTooLarge: where it would be longer
    :raise DecodeError: where the data is not in snappy's raw format
    """
    size = shift = 0
    for byte in bytes(data[:5]):
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    else:
        raise DecodeError("a compressed frame does not begin with its size")
    if size > limit:
        raise FrameTooLarge(size, limit)
    if size > _MOST_PER_BYTE * len(data):
        raise DecodeError(f"{len(data)} compressed bytes cannot become {size}")
    try:
        body: bytes = _snappy().uncompress(bytes(data))
    except Exception as error:  # cramjam's own exception types differ from version to version
        raise DecodeError(f"a compressed frame cannot be uncompressed: {error}") from error
    if len(body) != size or not body:
        raise DecodeError("a compressed frame has another size than it says")
    return body
