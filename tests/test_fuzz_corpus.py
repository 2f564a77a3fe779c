"""
Replay the corpus of the fuzzers, without a fuzzer.

Each input of ``fuzz/corpus`` once made a fuzzer take a way that no other input had taken.
``python tests/fuzz/run.py`` finds more.
"""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from framing_helpers import HAS_COMPILED

FUZZ = Path(__file__).parent / "fuzz"
CORPUS = FUZZ / "corpus"


def inputs(harness: ModuleType) -> list[bytes]:
    """Return what the harness begins with, and what the fuzzers learned from it."""
    learned = [path.read_bytes() for path in sorted((CORPUS / harness.__name__).iterdir())]
    assert len(learned) > 50
    return [*harness.seeds(), *learned]


@pytest.fixture
def harness(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[ModuleType]:
    """Return a harness, which lives where no test is."""
    monkeypatch.syspath_prepend(str(FUZZ))
    name: str = request.param
    yield importlib.import_module(name)
    del sys.modules[name]


HARNESSES = [
    pytest.param(
        "fuzz_reader",
        marks=pytest.mark.skipif(not HAS_COMPILED, reason="there is nothing to compare with"),
    ),
    "fuzz_connection",
]


@pytest.mark.parametrize("harness", HARNESSES, indirect=True)
def test_corpus(harness: ModuleType) -> None:
    for data in inputs(harness):
        harness.one_input(data)


@pytest.mark.parametrize("harness", HARNESSES, indirect=True)
def test_mutations_of_the_corpus(harness: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    run = importlib.import_module("run")
    rng = random.Random(harness.__name__)
    found = inputs(harness)
    for _ in range(2000):
        harness.one_input(run.mutated(rng, found))


def test_the_corpus_is_small() -> None:
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert len(files) < 200
    assert sum(path.stat().st_size for path in files) < 300_000


@pytest.mark.skipif(not HAS_COMPILED, reason="there is nothing to compare with")
def test_a_difference_between_the_twins_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FUZZ))
    harness = importlib.import_module("fuzz_reader")
    codec = importlib.import_module("lahja._codec_py")
    monkeypatch.setattr(codec, "_int32", codec._length)
    with pytest.raises(harness.Difference):
        harness.one_input(b"\1\1i\xff\xff\xff\xff")
