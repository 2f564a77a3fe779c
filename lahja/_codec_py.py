"""
The codec of plain values, in plain Python: a part of ``_framing_py``, which see.

The format is that of :mod:`lahja.wire`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any, Final

from . import wire
from .exceptions import DecodeError, EncodeError

__all__ = ["decode_value", "encode_value"]

_length = struct.Struct("<I")
_int32 = struct.Struct("<i")
_int64 = struct.Struct("<q")
_double = struct.Struct("<d")


class _NotPlainError(Exception):
    """Report a value that is not plain, or too deep or too wide to be sent as one."""


def encode_value(value: object) -> bytes:
    """
    Return the encoding of one plain value.

    :raise EncodeError: where the value is not plain, or is nested deeper than ``MAX_DEPTH``
    """
    out: list[bytes] = []
    try:
        _write(value, out, 0, [wire.MAX_LENGTH, 0])
    except _NotPlainError as error:
        raise EncodeError(type(value).__name__, str(error)) from None
    return b"".join(out)


def decode_value(data: bytes | bytearray | memoryview, offset: int = 0) -> tuple[Any, int]:
    """
    Return the plain value that begins at ``offset``, and the offset behind it.

    :raise DecodeError: where there is none, or it is cut short, or nested too deeply
    :raise ValueError: where the offset is negative
    """
    if offset < 0:
        raise ValueError(f"an offset is not negative, as {offset} is")
    try:
        return _read(data, offset, 0)
    except DecodeError:
        raise
    except (IndexError, struct.error):
        raise DecodeError("a value is cut short") from None
    except UnicodeDecodeError:
        raise DecodeError("a text is not UTF-8") from None
    except TypeError:
        raise DecodeError("a set or dict has an element that cannot be hashed") from None


def _write(value: Any, out: list[bytes], depth: int, room: list[int]) -> None:
    """
    Append the encoding of a value.

    :param room: what containers may still hold, which is counted down, and by how many bits a
        size is shifted before it is counted
    """
    kind = type(value)
    if kind is str:
        try:
            text = value.encode()
        except UnicodeEncodeError:
            text = value.encode("utf-8", "surrogatepass")
            size = len(text)
            out.append(b"U" + _sized(size))
        else:
            size = len(text)
            out.append(b"s" + bytes((size,)) if size < 256 else b"S" + _sized(size))
        if depth:
            _spend(room, size)
        out.append(text)
    elif kind is int:
        if -0x80 <= value < 0x80:
            out.append(b"b" + (value & 0xFF).to_bytes(1, "little"))
        elif -0x8000_0000 <= value < 0x8000_0000:
            out.append(b"i" + _int32.pack(value))
        elif -0x8000_0000_0000_0000 <= value < 0x8000_0000_0000_0000:
            out.append(b"q" + _int64.pack(value))
        else:
            size = value.bit_length() // 8 + 1
            out.append(b"I" + _sized(size))
            out.append(value.to_bytes(size, "little", signed=True))
    elif kind is bytes:
        size = len(value)
        out.append(b"y" + bytes((size,)) if size < 256 else b"Y" + _sized(size))
        if depth:
            _spend(room, size)
        out.append(value)
    elif kind is float:
        out.append(b"d" + _double.pack(value))
    elif value is None:
        out.append(b"N")
    elif kind is bool:
        out.append(b"T" if value else b"F")
    else:
        tag = _CONTAINER_TAGS.get(id(kind))
        if tag is None:
            raise _NotPlainError(f"a {kind.__qualname__} is not a plain value")
        if depth == wire.MAX_DEPTH:
            raise _NotPlainError(f"it is nested more than {wire.MAX_DEPTH} deep")
        size = len(value)
        room[0] -= 1
        _spend(room, size)
        out.append(tag + _sized(size))
        count = 0
        if kind is dict:
            for key, item in value.items():
                _write(key, out, depth + 1, room)
                _write(item, out, depth + 1, room)
                count += 1
        else:
            for item in value:
                _write(item, out, depth + 1, room)
                count += 1
        if count != size:  # by another thread, which may have changed it back by now
            raise RuntimeError(f"{kind.__name__} changed size during iteration")


def _spend(room: list[int], size: int) -> None:
    """Count what a container holds: shared parts, which are written each time, must not explode."""
    room[0] -= size >> room[1]
    if room[0] < 0:
        raise _NotPlainError("its containers hold too much")


def _sized(size: int) -> bytes:
    if size > wire.MAX_LENGTH:
        raise _NotPlainError(f"a part of {size} bytes or elements is too long")
    return _length.pack(size)


# By identity, because classes need not be hashable.
_CONTAINER_TAGS: Final = {
    id(tuple): b"(",
    id(list): b"[",
    id(dict): b"{",
    id(set): b"<",
    id(frozenset): b">",
}
_CONTAINERS: Final[dict[int, Callable[[Iterable[Any]], Any]]] = {
    ord("("): tuple,
    ord("["): list,
    ord("<"): set,
    ord(">"): frozenset,
}
_CONSTANTS: Final = {ord("N"): None, ord("T"): True, ord("F"): False}
_SHORT: Final = frozenset(b"sy")
_LONG: Final = frozenset(b"SUYI")


def _read(data: bytes | bytearray | memoryview, at: int, depth: int) -> tuple[Any, int]:
    """Return the value at an offset, and the offset behind it; any error means bad data."""
    tag = data[at]
    at += 1
    if tag in _SHORT:
        start = at + 1
        end = start + data[at]
    elif tag in _LONG:
        start = at + 4
        end = start + _length.unpack_from(data, at)[0]
    elif tag == 0x62:  # b
        small = data[at]
        return (small if small < 0x80 else small - 0x100), at + 1
    elif tag == 0x69:  # i
        return _int32.unpack_from(data, at)[0], at + 4
    elif tag == 0x71:  # q
        return _int64.unpack_from(data, at)[0], at + 8
    elif tag == 0x64:  # d
        return _double.unpack_from(data, at)[0], at + 8
    elif tag in _CONSTANTS:
        return _CONSTANTS[tag], at
    else:
        return _read_container(data, tag, at, depth)
    if end > len(data):
        raise IndexError
    part = bytes(data[start:end])
    if tag == 0x73 or tag == 0x53:  # s S
        return part.decode(), end
    if tag == 0x79 or tag == 0x59:  # y Y
        return part, end
    if tag == 0x55:  # U
        return part.decode("utf-8", "surrogatepass"), end
    return int.from_bytes(part, "little", signed=True), end


def _read_container(
    data: bytes | bytearray | memoryview, tag: int, at: int, depth: int
) -> tuple[Any, int]:
    make = _CONTAINERS.get(tag)
    if make is None and tag != 0x7B:  # {
        raise DecodeError(f"0x{tag:02x} is not the tag of a value")
    if depth == wire.MAX_DEPTH:
        raise DecodeError(f"a value is nested more than {wire.MAX_DEPTH} deep")
    count = _length.unpack_from(data, at)[0]
    at += 4
    elements = []
    # Every element takes a byte at least, so that a false count cannot cost more than the frame.
    for _ in range(count if make is not None else 2 * count):
        element, at = _read(data, at, depth + 1)
        elements.append(element)
    if make is None:
        return dict(zip(elements[::2], elements[1::2], strict=True)), at
    return make(elements), at
