"""
What framing, filter and codec take, by size, in both implementations.

There is no socket and no event loop: a table puts frames into an outlet, a reader takes them out of
its buffer. The cases are those whose instructions are counted, see
:mod:`benchmarks.instructions.cases`; each result is for several rounds, and the time of one is in
``extra_info``.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

sys.path.append(str(Path(__file__).parents[1]))  # ``pytest`` does not add it

from benchmarks.instructions.cases import CASES, cases

# Without the compiled module there is half as much to see, unless it is asked for: then it fails.
TWINS = ["cython", "python"]
if os.environ.get("LAHJA_FRAMING") != "cython" and not importlib.util.find_spec("lahja._framing"):
    TWINS = ["python"]
ROUNDS = 20


@pytest.fixture(params=TWINS)
def framing(request: pytest.FixtureRequest) -> ModuleType:
    """Return one of the two implementations."""
    name = {"cython": "lahja._framing", "python": "lahja._framing_py"}[request.param]
    module = importlib.import_module(name)
    assert request.param == module.IMPLEMENTATION
    return module


@pytest.mark.parametrize("case", CASES)
def test_case(benchmark: BenchmarkFixture, framing: ModuleType, case: str) -> None:
    benchmark.group = case
    prepare, run = cases(framing)[case]()
    benchmark.pedantic(  # type: ignore[no-untyped-call]
        run, setup=lambda: ((prepare(ROUNDS),), {}), rounds=50, warmup_rounds=5
    )
    benchmark.extra_info["framing"] = framing.IMPLEMENTATION
    if benchmark.stats is not None:  # there are none with --benchmark-disable
        seconds = benchmark.stats.stats.median / ROUNDS
        benchmark.extra_info["nanoseconds per round"] = round(seconds * 1e9)
