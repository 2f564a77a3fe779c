"""Frames in pieces."""

from __future__ import annotations

import pytest

from lahja.frames import APART, body_of, frame_size, gathered

SHORT, LONG, LONGER = b"short", b"l" * APART, b"m" * (APART + 1)


@pytest.mark.parametrize(
    ("parts", "frame"),
    [
        ([SHORT], SHORT),
        ([SHORT, b"er", SHORT], b"shortershort"),
        ([SHORT, LONG], (SHORT, LONG)),
        ([SHORT, SHORT, LONG, LONGER, SHORT, SHORT], (SHORT * 2, LONG, LONGER, SHORT * 2)),
        ([LONG], LONG),
        ([LONG[:-1], SHORT], LONG[:-1] + SHORT),
    ],
    ids=["one", "short ones", "a long one", "two long ones", "nothing else", "much together"],
)
def test_what_is_long_is_kept_apart(parts: list[bytes], frame: bytes | tuple[bytes, ...]) -> None:
    found = gathered(parts)
    assert found == frame
    kept = [part for part in parts if len(part) >= APART]
    pieces = found if isinstance(found, tuple) else (found,)
    assert [id(piece) for piece in pieces if len(piece) >= APART] == [
        *map(id, kept or [piece for piece in pieces if len(piece) >= APART])
    ]


def test_the_size_and_the_body_of_a_frame_in_pieces() -> None:
    whole = b"\1\2\3\4body" + LONG
    for frame in (whole, (whole[:8], LONG)):
        assert frame_size(frame) == 8 + APART
        assert body_of(frame) == b"body" + LONG
