"""
Compare lahja with its peers, and with its targets.

Each contender runs in its own processes and its own environment, which is made first and kept for
the next time. All targets take about five minutes, everything takes about ten. Only
ratios of one run mean anything, and only on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import importlib.util
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from . import tables
from .campaign import Campaign
from .contestants import CONTENDERS, QUICK, check_extension, is_compiled_expected
from .environments import Environments, Missing, default_folder
from .results import Probe, Results, machine
from .rows import FULL, OTHERS, Claim, Scale, claims, comparisons, extras, floors
from .rows import QUICK as QUICK_SCALE
from .runner import Runner

__all__ = ["main"]

ROWS = range(1, 16)
_LONGEST = 60.0  # seconds that one run may take
_QUICK_EVENTS = 300


def _names(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in CONTENDERS:
            choice = ", ".join(CONTENDERS)
            raise argparse.ArgumentTypeError(f"there is no {name!r}; there are {choice}")
    return names


def _rows(text: str) -> list[int]:
    try:
        rows = [int(part) for part in text.split(",")]
    except ValueError:
        rows = [0]
    if not set(rows) <= set(ROWS):
        raise argparse.ArgumentTypeError(f"rows are numbers from 1 to {ROWS[-1]}, not {text!r}")
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--quick", action="store_true", help="a smoke test: few events, and nothing is installed")
    add("--contenders", type=_names, metavar="A,B", help="only these; all others are left out")
    add("--rows", type=_rows, metavar="1,2", help="only these rows of the targets")
    add("--rounds", type=int, default=5, help="how often everything is measured (%(default)s)")
    add("--seconds", type=float, default=0.6, help="that a run should take (%(default)s)")
    add("--environments", type=Path, metavar="FOLDER", help="where they are kept (in the cache)")
    add("--json", type=Path, metavar="FILE", help="write everything that was measured")
    add("--everything", action="store_true", help="measure what the plots show, too")
    add("--plots", type=Path, metavar="FOLDER", help="the same, and draw it as SVG")
    add("--load", type=Path, metavar="FILE", help="measure nothing; show what --json has written")
    return parser


def _left_out(options: argparse.Namespace) -> dict[str, str]:
    """Return who does not take part, and why."""
    found = {}
    for name, contender in CONTENDERS.items():
        if options.contenders is not None and name not in options.contenders:
            found[name] = "it was not asked for"
        elif options.quick and name not in QUICK:
            found[name] = "it would need an environment"
        elif contender.framing == "cython" and not is_compiled_expected():
            found[name] = "LAHJA_FRAMING=python"
    return found


def _measure(options: argparse.Namespace, wanted: Sequence[Claim]) -> Results:
    """Measure what the claims need, and what the plots show."""
    spec = importlib.util.find_spec("lahja")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("error: there is no lahja to be measured")
    package = Path(spec.submodule_search_locations[0])
    results = Results({**machine(), "rounds": options.rounds, "seconds": options.seconds})
    results.left_out = _left_out(options)
    if any(c.framing == "cython" and c.name not in results.left_out for c in CONTENDERS.values()):
        check_extension(package)
    folder = None if options.quick else (options.environments or default_folder()).absolute()
    count = _QUICK_EVENTS if options.quick else 0
    with tempfile.TemporaryDirectory(prefix="peers") as link:
        Path(link, "lahja").symlink_to(package)
        runner = Runner(Environments(folder), Path(link), _LONGEST)
        campaign = Campaign(runner, results, options.rounds, options.seconds, count)
        campaign.measure(_probes(options, wanted))
    return results


def _probes(options: argparse.Namespace, wanted: Iterable[Claim]) -> Iterable[Probe]:
    probes = [probe for claim in wanted for probe, _ in claim.terms]
    groups = {probe.group for probe in probes}
    scale = QUICK_SCALE if options.quick else FULL
    yield from probes
    yield from (probe for probe in floors(scale) if probe.group in groups)
    if options.everything or options.plots is not None:
        yield from extras(scale)


def _print(results: Results, wanted: Sequence[Claim], scale: Scale) -> None:
    parts = [tables.comparison(each, results) for each in comparisons(scale)]
    parts += tables.figures(OTHERS, results), tables.targets(wanted, results), tables.notes(results)
    print("\n\n".join(filter(None, parts)))


def _draw(environments: Environments, results: Path, folder: Path) -> None:
    """Draw the plots, by the program in the environment that has what it needs."""
    folder.mkdir(parents=True, exist_ok=True)
    program = str(Path(__file__).with_name("plots.py"))
    try:
        python = environments.python("plots")
    except Missing as error:
        raise SystemExit(f"error: no plots were drawn: {error}") from error
    subprocess.run((python, "-P", program, str(results), str(folder)), check=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, and return 1 where lahja itself failed."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds and --seconds must be more than nothing")
    scale = QUICK_SCALE if options.quick else FULL
    rows = options.rows or ROWS
    wanted = [claim for claim in claims(scale) if claim.row in rows]
    results = Results.read(options.load) if options.load else _measure(options, wanted)
    _print(results, wanted, scale)
    with tempfile.TemporaryDirectory(prefix="peers") as folder:
        path = options.json or Path(folder) / "results.json"
        results.write(path)
        if options.plots is not None:
            place = (options.environments or default_folder()).absolute()
            _draw(Environments(place), path, options.plots)
    ours = [probe for probe, *_ in results.failures() if probe.contender.startswith("lahja")]
    return 1 if ours else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # not without ending the processes
    sys.exit(main())
