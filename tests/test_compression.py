"""Compression of frames: which are worth it, and what does not come out of a bad one."""

from __future__ import annotations

import importlib.util
import itertools
import random
import struct
import sys
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lahja.compression
from lahja import wire
from lahja.compression import Compressor, has_snappy, uncompress
from lahja.exceptions import DecodeError, FrameTooLarge
from lahja.framing import Shape

needs_snappy = pytest.mark.skipif(not has_snappy(), reason="python-snappy is not installed")

COMPRESSIBLE = b"abcdefgh" * 1000
NOISE = random.Random(1).randbytes(8000)


def frame(body: bytes) -> bytes:
    """Return a frame with its length."""
    return struct.pack("<I", len(body)) + body


def shape(type_id: int = 0) -> Shape:
    """Return a shape of its own."""
    return Shape(type_id, "m:A", wire.LAYOUT_FIELDS, ())


# -- Compressing -----------------------------------------------------------------------------


@needs_snappy
def test_what_shrinks_is_compressed_and_comes_out_again() -> None:
    packed = Compressor()(shape(), frame(COMPRESSIBLE))
    assert packed is not None
    size, kind = struct.unpack_from("<IB", packed)
    assert size == len(packed) - 4 < len(COMPRESSIBLE) // 5
    assert kind == wire.COMPRESSED
    assert uncompress(packed[5:], len(COMPRESSIBLE)) == COMPRESSIBLE
    assert uncompress(memoryview(packed)[5:], len(COMPRESSIBLE)) == COMPRESSIBLE


@needs_snappy
def test_what_does_not_shrink_is_left_alone_ever_longer() -> None:
    compressor, noisy = Compressor(), shape()
    tries = []
    for turn in range(4000):
        before = noisy.reluctance
        assert compressor(noisy, frame(NOISE)) is None
        if noisy.reluctance != before or before == 1 << 10:
            tries.append(turn)
        if noisy.reluctance == 1 << 10:
            break
    gaps = [after - before for before, after in itertools.pairwise(tries)]
    assert gaps == [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]


@needs_snappy
def test_a_frame_in_pieces_is_compressed_as_a_whole() -> None:
    for value in (COMPRESSIBLE * 10, NOISE * 10):
        whole = frame(b"header" + value)
        pieces = (whole[:10], value)
        assert Compressor()(shape(), pieces) == Compressor()(shape(), whole)


@needs_snappy
def test_each_type_is_judged_by_itself() -> None:
    compressor, noisy, plain = Compressor(), shape(0), shape(1)
    for _ in range(5):
        assert compressor(noisy, frame(NOISE)) is None
        assert compressor(plain, frame(COMPRESSIBLE)) is not None


@needs_snappy
def test_a_type_that_shrinks_again_is_trusted_again() -> None:
    compressor, changing = Compressor(), shape()
    assert compressor(changing, frame(NOISE)) is None
    assert changing.reluctance == 1
    assert compressor(changing, frame(COMPRESSIBLE)) is None  # it passes by
    assert compressor(changing, frame(COMPRESSIBLE)) is not None
    assert changing.reluctance == 0


@needs_snappy
@given(st.binary(min_size=1, max_size=3000))
def test_whatever_is_compressed_comes_out_again(body: bytes) -> None:
    for data in (body, body * 20):
        packed = Compressor()(shape(), frame(data))
        if packed is not None:
            assert uncompress(packed[5:], len(data)) == data


# -- Uncompressing ---------------------------------------------------------------------------


def varint(size: int) -> bytes:
    """Return a size as snappy begins with."""
    out = b""
    while size >= 0x80:
        out += bytes((size & 0x7F | 0x80,))
        size >>= 7
    return out + bytes((size,))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 5, b"\xff" * 100], ids=repr)
def test_what_does_not_begin_with_a_size_is_an_error(data: bytes) -> None:
    with pytest.raises(DecodeError, match=r"does not begin with its size"):
        uncompress(data, 1000)


@pytest.mark.parametrize("size", [1001, 2**21, 2**28, 2**32 - 1, 2**35 - 1])
def test_a_bomb_is_refused_from_its_size_alone(size: int) -> None:
    with pytest.raises(FrameTooLarge) as caught:
        uncompress(varint(size) + b"whatever", 1000)
    assert (caught.value.size, caught.value.limit) == (size, 1000)


def test_a_size_that_cannot_come_out_is_refused_before_it_is_unpacked() -> None:
    with pytest.raises(DecodeError, match=r"12 compressed bytes cannot become 268435456"):
        uncompress(varint(2**28) + b"1234567", 2**30)


@needs_snappy
@pytest.mark.parametrize(
    "data", [varint(5) + b"garbage!", varint(100) + b"\x00" * 20, varint(0)], ids=repr
)
def test_what_is_not_compressed_is_an_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        uncompress(data, 10_000)


@needs_snappy
def test_another_size_than_announced_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Liar:
        @staticmethod
        def uncompress(data: bytes) -> bytes:
            return b"four"

    monkeypatch.setattr(lahja.compression, "_snappy", Liar)
    assert uncompress(varint(4) + b"....", 100) == b"four"
    with pytest.raises(DecodeError, match=r"has another size than it says"):
        uncompress(varint(5) + b"....", 100)


@needs_snappy
@given(st.binary(max_size=200))
def test_any_bytes_raise_documented_errors_only(data: bytes) -> None:
    try:
        body = uncompress(data, 5000)
    except (DecodeError, FrameTooLarge):
        return
    assert 0 < len(body) <= 5000


# -- Without snappy --------------------------------------------------------------------------


def test_without_snappy_everything_else_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "snappy", None)
    spec = importlib.util.spec_from_file_location(
        "lahja.compression_without_snappy", lahja.compression.__file__
    )
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    assert isinstance(module, ModuleType)
    spec.loader.exec_module(module)
    assert module.has_snappy() is False
