"""
What it costs to count what ``endpoint.stats()`` tells.

``python -m benchmarks.counting [--rounds N] [--backend asyncio]``

This checkout takes turns with a copy of itself that was built without the lines that count events
and bytes: one process sends small events to another one. The figures are those of
:mod:`benchmarks.revisions`; "other" is the copy, which counts nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .revisions import CHECKOUT, compare

COUNTERS = {
    "_framing.pyx": r"\S*(?:topic|topics\[.*\]\))\.(?:broadcasts|sent|received|delivered)"
    r"|self\.events",
    "channels.py": r"self\.bytes_sent",
}


def without_counting(name: str, text: str) -> tuple[str, int]:
    """Return the text of a file without the lines that count, and how many these were."""
    text, count = re.subn(rf"(?m)^( +)(?:{COUNTERS[name]}) \+= .*$", r"\1pass", text)
    if not count:
        raise SystemExit(f"error: nothing in {name} counts by {COUNTERS[name]}")
    return text, count


def copy_without_counting(folder: Path) -> Path:
    """Make a copy that counts nothing, and build it."""
    copy = folder / "checkout"
    shutil.copytree(CHECKOUT / "lahja", copy / "lahja", ignore=shutil.ignore_patterns("*.so"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, copy)
    for name in COUNTERS:
        path = copy / "lahja" / name
        text, count = without_counting(name, path.read_text())
        print(f"{count} lines that count were left out of {name}", flush=True)
        path.write_text(text)
    build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    environment = {**os.environ, "LAHJA_BUILD_EXTENSION": "yes"}
    subprocess.run(build, cwd=copy, env=environment, check=True)
    return copy


def main() -> None:
    """Build the copy, and compare."""
    parser = argparse.ArgumentParser(description="Measure what counting costs.")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--events", type=int, default=200_000, help="in each round")
    parser.add_argument("--requests", type=int, default=1000, help="in each round")
    parser.add_argument("--backend", choices=("asyncio", "trio"), action="append")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="counting") as folder:
        other = copy_without_counting(Path(folder).resolve())
        for backend in arguments.backend or ("asyncio", "trio"):
            how, rounds = "receive", arguments.rounds
            compare(other, backend, how, rounds, arguments.events, arguments.requests)


if __name__ == "__main__":
    main()
