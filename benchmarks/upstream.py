"""
Compare this checkout with the last release of upstream, on this machine and in one run.

``python -m benchmarks.upstream [--python INTERPRETER_WITH_OLD_LAHJA]``

One process sends small events to another one: three fields, 100 bytes of payload. The versions take
turns, because only ratios in one run mean anything: what else runs on a machine changes a rate by a
factor of three. Where no interpreter is named, an environment with ``lahja==0.17.0`` is made first.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path

UPSTREAM = "lahja==0.17.0"
NEEDED_BY_UPSTREAM = ("async-generator", "trio", "trio-typing")  # its own pins are out of date
PEER = Path(__file__).with_name("peer.py")
CHECKOUT = Path(__file__).parents[1]
SECONDS = 120


@dataclasses.dataclass(frozen=True)
class Contender:
    """One version of lahja, and how many events it is given: enough for about half a second."""

    name: str
    python: str
    environment: dict[str, str]
    events: int


@dataclasses.dataclass(frozen=True)
class Result:
    """What one run measured; times in seconds."""

    implementation: str
    python: str
    events_per_second: float
    p50: float
    p99: float


def run(contender: Contender, backend: str, requests: int) -> Result:
    """Start the two processes of one version, and return what they measured."""
    with tempfile.TemporaryDirectory(prefix="lahja") as folder:
        command = [contender.python, "-P", str(PEER)]
        arguments = [backend, str(Path(folder) / "ipc"), str(contender.events), str(requests)]
        processes = [
            subprocess.Popen(
                [*command, role, *arguments],
                env=contender.environment,
                stdout=subprocess.PIPE,
                text=True,
            )
            for role in ("receive", "send")
        ]
        try:
            outputs = [process.communicate(timeout=SECONDS)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()
    if any(process.returncode for process in processes):
        raise SystemExit(f"error: {contender.name} failed on {backend}")
    received, sent = (json.loads(output) for output in outputs)
    percentiles = statistics.quantiles(sent["round_trips"], n=100)
    return Result(
        sent["implementation"],
        sent["python"],
        received["events_per_second"],
        percentiles[49],
        percentiles[98],
    )


@contextlib.contextmanager
def upstream_python(given: str | None) -> Iterator[str]:
    """Return an interpreter that has upstream's lahja."""
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="upstream") as folder:
        print(f"making an environment with {UPSTREAM} ...", flush=True)
        venv.create(folder, with_pip=True)
        python = str(Path(folder) / "bin" / "python")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *NEEDED_BY_UPSTREAM], check=True)
        subprocess.run([*pip, "--no-deps", UPSTREAM], check=True)
        yield python


def contenders(upstream: str, framings: Sequence[str]) -> list[Contender]:
    """Return upstream, and this checkout once for each framing."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    found = [Contender("upstream", upstream, environment, 15_000)]
    for framing in framings:
        own = {**environment, "PYTHONPATH": str(CHECKOUT), "LAHJA_FRAMING": framing}
        events = 300_000 if framing == "cython" else 100_000
        found.append(Contender(framing, sys.executable, own, events))
    return found


def _spread(values: Sequence[float], scale: float = 1.0) -> str:
    low, high = min(values) * scale, max(values) * scale
    return f"{statistics.median(values) * scale:>11,.0f}  ({low:,.0f} to {high:,.0f})"


def compare(backend: str, all_contenders: Sequence[Contender], rounds: int, requests: int) -> None:
    """Let the versions take turns, and print their rates, round trips and ratios."""
    results: dict[str, list[Result]] = {contender.name: [] for contender in all_contenders}
    for _ in range(rounds):
        for contender in all_contenders:
            result = run(contender, backend, requests)
            if result.implementation != contender.name:
                raise SystemExit(f"error: {contender.name} was expected, {result} came")
            results[contender.name].append(result)
    print(f"\n{backend}, 1 sender to 1 receiver, {rounds} rounds; median (least to most)")
    base = results["upstream"]
    for name, measured in results.items():
        rates = [result.events_per_second for result in measured]
        print(f"  {name + ', Python ' + measured[0].python:<24}", end="")
        print(f"{_spread(rates)} events/s")
        print(f"{'':26}{_spread([result.p50 for result in measured], 1e6)} µs round trip, p50")
        print(f"{'':26}{_spread([result.p99 for result in measured], 1e6)} µs round trip, p99")
    for name in list(results)[1:]:
        own = results[name]
        rates = [a.events_per_second / b.events_per_second for a, b in zip(own, base, strict=True)]
        trips = [b.p50 / a.p50 for a, b in zip(own, base, strict=True)]
        rate = _median(own, "events_per_second") / _median(base, "events_per_second")
        trip = _median(base, "p50") / _median(own, "p50")
        print(f"  {name} against upstream, ratio of medians (single rounds)")
        print(f"{'':26}{rate:>11.1f}  ({min(rates):.1f} to {max(rates):.1f}) times the events")
        print(f"{'':26}{trip:>11.1f}  ({min(trips):.1f} to {max(trips):.1f}) times the requests")


def _median(results: Sequence[Result], field: str) -> float:
    return float(statistics.median(getattr(result, field) for result in results))


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare this checkout with upstream's lahja.")
    parser.add_argument("--python", help=f"an interpreter that has {UPSTREAM}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=2000, help="in each round")
    parser.add_argument("--backend", choices=("asyncio", "trio"), action="append")
    parser.add_argument("--framing", choices=("cython", "python"), action="append")
    arguments = parser.parse_args()
    framings = arguments.framing
    if framings is None:
        framings = ["cython", "python"]
        if importlib.util.find_spec("lahja._framing") is None:
            if os.environ.get("LAHJA_FRAMING") == "cython":
                raise SystemExit("error: LAHJA_FRAMING=cython, and there is no compiled module")
            framings = ["python"]
            print("without the compiled module: it is not built")
    with upstream_python(arguments.python) as python:
        all_contenders = contenders(python, framings)
        for backend in arguments.backend or ("asyncio", "trio"):
            compare(backend, all_contenders, arguments.rounds, arguments.requests)


if __name__ == "__main__":
    main()
