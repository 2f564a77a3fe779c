"""
Compare how many instructions the compiled module takes for its work with how many it took.

The exit code is 1 where a case takes over 5 % more than the committed baseline says, or has none.
A combination of Python, processor and compiler for which there is no baseline is told so, and fails
nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..peers.contestants import check_extension
from .baseline import TOLERANCE, Baselines, Combination, compare
from .counting import Missing, count

__all__ = ["judge", "main"]

BASELINE = Path(__file__).with_name("baseline.json")
RENEW = "python -m benchmarks.instructions --renew"


def compiled_module() -> Path:
    """
    Return the path of the compiled module that is to be counted.

    :raise SystemExit: where there is none, or one that is older than its source
    """
    spec = importlib.util.find_spec("lahja")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("error: there is no lahja whose instructions could be counted")
    check_extension(Path(spec.submodule_search_locations[0]))
    module = importlib.util.find_spec("lahja._framing")
    assert module is not None
    assert module.origin is not None
    return Path(module.origin)


def judge(baselines: Baselines, combination: Combination, counts: Mapping[str, int]) -> int:
    """Print how the counts relate to their baseline, and return the exit code."""
    baseline = baselines.known.get(combination)
    if baseline is None:
        print(f"Not compared: there is no baseline for {combination}.")
        nearest = baselines.nearest(combination)
        if nearest is not None:
            print(f"The nearest one is another: {combination.unlike(nearest)}.")
        print(f"Where this combination should be guarded, too: {RENEW}")
        return 0
    found = compare(baseline, counts)
    failures = [each for each in found if each.is_failure]
    for title, differences in (
        (f"Over the limit of {TOLERANCE:+.0%}, or without a counterpart:", failures),
        ("Cheaper than the baseline says:", [each for each in found if not each.is_failure]),
    ):
        if differences:
            print(title, *differences, sep="\n  ")
    if found:
        print(f"Where this is meant to be so, renew the baseline: {RENEW}")
    if not failures:
        print(f"{len(counts)} cases are within {TOLERANCE:+.0%} of the baseline for {combination}.")
    return 1 if failures else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Count, compare or renew, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--renew", action="store_true", help="write the baseline of what runs here")
    parser.add_argument("--show", action="store_true", help="print all counts, too")
    options = parser.parse_args(arguments)
    combination = Combination.here(compiled_module())
    try:
        counts = count()
    except Missing as error:
        raise SystemExit(f"error: {error}") from error
    if options.show:
        for case, instructions in counts.items():
            print(f"{instructions:>12,}  {case}")
    baselines = Baselines(BASELINE)
    if not options.renew:
        return judge(baselines, combination, counts)
    baselines.renew(combination, counts)
    print(f"This is the baseline of {len(counts)} cases for {combination} now: {BASELINE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
