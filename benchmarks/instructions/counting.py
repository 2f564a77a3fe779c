"""
Count the instructions of cases, by valgrind's callgrind.

One process runs all cases. A case warms up, so that memory is there, caches are filled and the
interpreter has specialised what it runs; then it runs N rounds, and 2 N. What the second run takes
beyond the first one is what N rounds take, without whatever happens once. The median of several
such pairs is free of what happens now and then, such as that memory comes from the system.

Before and after each run the process calls a function that nothing else calls, ``getppid``, at
which callgrind writes down what was counted since the last time. The hash seed is fixed, the
environment is always the same, valgrind gives every process the same addresses, the garbage
collector is off, and the C library is kept from using instructions that only some processors have,
or that count as one however much they do.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["CASES", "Missing", "count"]

CASES = "benchmarks.instructions.cases"
"""The module whose cases are counted."""

CHECKOUT = Path(__file__).parents[2]
ROUNDS = 100
WARM_UP = 200
PAIRS = 5
SECONDS = 300  # that it may take, on a machine that has other things to do
_PROGRAM = (
    f"import sys; sys.path.append({str(CHECKOUT)!r});"
    "from benchmarks.instructions.counting import main; main(*sys.argv[1:])"
)
_SUMMARY = re.compile(r"^(?:totals|summary): (\d+)", re.MULTILINE)
_TUNABLES = "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX2,-AVX,-ERMS,-FSRM,-RTM"


class Missing(Exception):
    """There is no valgrind."""

    def __str__(self) -> str:
        return "there is no valgrind here, which counts: apt-get install valgrind"


def count(module: str = CASES, names: Sequence[str] = ()) -> dict[str, int]:
    """
    Return how many instructions one round of each case takes.

    :param module: one that has ``CASES``, which can be imported with the checkout on the path
    :param names: of the cases; all of them if there are none
    :raise Missing: where there is no valgrind
    :raise SystemExit: where a case fails
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise Missing
    with tempfile.TemporaryDirectory(prefix="lahja") as folder:
        counts = Path(folder) / "counts"
        command = (sys.executable, "-P", "-c", _PROGRAM, module, *names)
        _run(command, folder)  # says what is wrong, and leaves compiled modules behind
        tool = ("--tool=callgrind", "--dump-before=getppid", f"--callgrind-out-file={counts}")
        cases: list[str] = json.loads(_run((valgrind, "-q", *tool, *command), folder))
        totals = iter([_total(path) for path in _in_order(counts, 4 * PAIRS * len(cases))])
        found = {}
        for name in cases:
            differences = []
            for _ in range(PAIRS):
                _, once, _, twice = (next(totals) for _ in range(4))
                differences.append(twice - once)
            found[name] = round(statistics.median(differences) / ROUNDS)
        return found


def _in_order(counts: Path, number: int) -> list[Path]:
    """Return the files that callgrind has written, one at each call of the function."""
    return [counts.with_name(f"{counts.name}.{part + 1}") for part in range(number)]


def _run(command: Sequence[str], folder: str) -> str:
    environment = {
        "GLIBC_TUNABLES": _TUNABLES,
        "LAHJA_FRAMING": "cython",
        "LC_ALL": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "PYTHONPYCACHEPREFIX": folder,
    }
    ended = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    if ended.returncode:
        raise SystemExit(f"error: nothing was counted: {ended.stderr.strip()[-1000:]}")
    return ended.stdout


def _total(path: Path) -> int:
    match = _SUMMARY.search(path.read_text())
    assert match is not None, path.read_text()
    return int(match[1])


def main(module: str, *names: str) -> None:
    """Run cases; this is what the process does whose instructions are counted."""
    cases: dict[str, Any] = importlib.import_module(module).CASES
    mark = os.getppid
    gc.disable()
    for name in names or cases:
        prepare, run = cases[name]()
        run(prepare(WARM_UP))
        for rounds in (ROUNDS, 2 * ROUNDS) * PAIRS:
            prepared = prepare(rounds)
            mark()
            run(prepared)
            mark()
            del prepared
    print(json.dumps([*(names or cases)]))
