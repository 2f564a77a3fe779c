"""The benchmark of what counting costs finds the lines that count, in this checkout."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
sys.path.insert(0, str(CHECKOUT))

from benchmarks import counting  # noqa: E402


@pytest.mark.parametrize("name", counting.COUNTERS)
def test_what_counts_is_found_in_the_source(name: str) -> None:
    source = (CHECKOUT / "lahja" / name).read_text("utf-8")
    text, count = counting.without_counting(name, source)
    assert count >= 2
    assert len(text.splitlines()) == len(source.splitlines())
    with pytest.raises(SystemExit, match=f"nothing in {name} counts by"):
        counting.without_counting(name, text)
