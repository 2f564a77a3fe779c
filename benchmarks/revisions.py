"""
Compare this checkout with another revision of it, on this machine and in one run.

``python -m benchmarks.revisions REVISION [--rounds N] [--backend asyncio] [--how receive]``

The revision is checked out into a temporary folder, and its compiled module is built there;
``--checkout FOLDER`` takes one that is there already, and built. One process sends small events to
another one. The two revisions take turns, and change who goes first, because only ratios in one
run mean anything. Besides the rate there is the processor time for one event on either side, which
says more than the rate on a machine that has other things to do.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[1]
PEER = Path(__file__).with_name("peer.py")
SECONDS = 120
MEASURES = {
    "rate": "events per second",
    "sending": "processor time to send one",
    "receiving": "processor time to receive one",
    "asking": "processor time to request one",
    "trip": "round trip of a request, p50",
}


def run_peers(checkout: Path, roles: tuple[str, str], *arguments: str) -> list[dict[str, Any]]:
    """Let two processes play roles of :mod:`benchmarks.peer`, and return what they measured."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-P", str(PEER), role, *arguments],
            env={**os.environ, "PYTHONPATH": str(checkout)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for role in roles
    ]
    try:
        outputs = [process.communicate(timeout=SECONDS)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    if any(process.returncode for process in processes):
        raise SystemExit(f"error: {checkout} failed: {' '.join((*roles, *arguments))}")
    return [json.loads(output) for output in outputs]


def run(checkout: Path, backend: str, how: str, events: int, requests: int) -> dict[str, float]:
    """Start the two processes of one revision, and return what they measured."""
    with tempfile.TemporaryDirectory(prefix="lahja") as folder:
        arguments = (backend, str(Path(folder) / "ipc"), str(events), str(requests))
        received, sent = run_peers(checkout, (how, "send"), *arguments)
    if sent["lahja"] != str(checkout / "lahja"):
        raise SystemExit(f"error: {checkout} was to run, and {sent['lahja']} did")
    return {
        "rate": received["events_per_second"],
        "sending": sent["cpu_seconds_per_event"],
        "receiving": received["cpu_seconds_per_event"],
        "asking": sent["cpu_seconds_per_request"],
        "trip": statistics.median(sent["round_trips"]),
    }


@contextlib.contextmanager
def other_checkout(revision: str, given: Path | None) -> Iterator[Path]:
    """Return a folder that holds the revision, built."""
    if given is not None:
        yield given.resolve()
        return
    git = ["git", "-C", str(CHECKOUT)]
    with tempfile.TemporaryDirectory(prefix="revision") as name:
        folder = Path(name).resolve() / "checkout"
        subprocess.run([*git, "worktree", "add", "-q", "--detach", folder, revision], check=True)
        try:
            build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
            environment = {**os.environ, "LAHJA_BUILD_EXTENSION": "yes"}
            subprocess.run(build, cwd=folder, env=environment, check=True)
            yield folder
        finally:
            subprocess.run([*git, "worktree", "remove", "--force", folder], check=True)


def compare(other: Path, backend: str, how: str, rounds: int, events: int, requests: int) -> None:
    """Let the two take turns, and print how this checkout relates to the other one."""
    results: dict[Path, list[dict[str, float]]] = {CHECKOUT: [], other: []}
    for number in range(rounds):
        for checkout in (CHECKOUT, other) if number % 2 else (other, CHECKOUT):
            results[checkout].append(run(checkout, backend, how, events, requests))
    print(f"\n{backend}, {how}, {rounds} rounds of {events:,} events and {requests:,} requests")
    print(f"  {'':32}{'other':>14}{'this one':>14}   ratio of medians (quartiles of the rounds)")
    for measure, text in MEASURES.items():
        ours = [result[measure] for result in results[CHECKOUT]]
        theirs = [result[measure] for result in results[other]]
        scale, digits = (1.0, 0) if measure == "rate" else (1e6, 3)
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4) if rounds > 1 else ratios * 3
        own, old = statistics.median(ours), statistics.median(theirs)
        print(
            f"  {text:<32}{old * scale:>14,.{digits}f}{own * scale:>14,.{digits}f}"
            f"   {own / old:.3f} ({low:.3f} to {high:.3f})",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare this checkout with another revision.")
    parser.add_argument("revision", nargs="?", default="HEAD~1")
    parser.add_argument("--checkout", type=Path, help="a folder that holds it, built")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--events", type=int, default=200_000, help="in each round")
    parser.add_argument("--requests", type=int, default=1000, help="in each round")
    parser.add_argument("--backend", choices=("asyncio", "trio"), action="append")
    parser.add_argument("--how", choices=("receive", "handle"), action="append")
    arguments = parser.parse_args()
    with other_checkout(arguments.revision, arguments.checkout) as other:
        for backend in arguments.backend or ("asyncio", "trio"):
            for how in arguments.how or ("receive", "handle"):
                compare(other, backend, how, arguments.rounds, arguments.events, arguments.requests)


if __name__ == "__main__":
    main()
