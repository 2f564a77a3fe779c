"""
What an application under full load loses to those who look at it.

``python -m benchmarks.observing [--rounds N] [--backend asyncio] [--looker top]``

One process sends small events to another one as fast as it can, with nobody looking, and with
``lahja top`` in a terminal (or ``lahja tap --json``, of everything) looking at both. The two take
turns, and change which goes first, because only ratios in one run mean anything.

A machine that has other things to do says little by its clock. So there is also the processor time
that an event takes, of sender and receiver together; where somebody looks, what the looker takes
meanwhile is added, as if there were no processor to spare for it. Its start is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from .revisions import CHECKOUT, run_peers

START_SECONDS = 2.0
LOOKERS = {
    "top": ("top", "--interval", "1"),
    "tap": ("tap", "--json"),
}
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(CHECKOUT), "TERM": "xterm-256color"}


@contextlib.contextmanager
def looking(looker: str | None, folder: Path) -> Iterator[psutil.Process | None]:
    """Have somebody look at the endpoints in a folder."""
    if looker is None:
        yield None
        return
    command, *options = LOOKERS[looker]
    controller, terminal = os.openpty()  # a terminal is what makes lahja top draw
    process = subprocess.Popen(
        [sys.executable, "-m", "lahja", command, str(folder), *options],
        env=ENVIRONMENT,
        stdout=terminal,
        stderr=subprocess.DEVNULL,
    )
    drain = subprocess.Popen(
        ["cat"], stdin=controller, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(controller)
    os.close(terminal)
    try:
        time.sleep(START_SECONDS)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()
        drain.wait()


def processor_time(process: psutil.Process | None) -> float:
    """Return what a process has taken so far, in seconds."""
    if process is None:
        return 0.0
    times = process.cpu_times()
    return float(times.user + times.system)


def run(looker: str | None, backend: str, events: int) -> dict[str, float]:
    """Let events go from one process to the other, and return what that took."""
    with tempfile.TemporaryDirectory(prefix="lahja") as name, looking(looker, Path(name)) as who:
        before, begun = processor_time(who), time.monotonic()
        arguments = (backend, str(Path(name) / "receiver.ipc"), str(events), "1")
        received, sent = run_peers(CHECKOUT, ("handle", "serve-and-send"), *arguments)
        looked = (processor_time(who) - before) / (time.monotonic() - begun)
    cpu = received["cpu_seconds_per_event"] + sent["cpu_seconds_per_event"]
    return {
        "rate": received["events_per_second"],
        "cpu": cpu,
        "with looker": cpu + looked / received["events_per_second"],
        "looker": looked,
    }


def compare(looker: str, backend: str, rounds: int, events: int) -> None:
    """Let the two take turns, and print what looking costs."""
    alone: list[dict[str, float]] = []
    looked_at: list[dict[str, float]] = []
    for number in range(rounds):
        for each in (None, looker) if number % 2 else (looker, None):
            (alone if each is None else looked_at).append(run(each, backend, events))
    print(f"\n{backend}, lahja {looker}, {rounds} rounds of {events:,} events")
    print(f"  {'':40}{'nobody':>12}{'lahja ' + looker:>12}   ratio (quartiles of the rounds)")
    for text, ours, theirs, scale in (
        ("events per second", "rate", "rate", 1.0),
        ("processor time of one event, µs", "cpu", "cpu", 1e6),
        ("the same, with that of the looker, µs", "cpu", "with looker", 1e6),
    ):
        before = statistics.median(result[ours] for result in alone)
        after = statistics.median(result[theirs] for result in looked_at)
        ratios = [b[theirs] / a[ours] for a, b in zip(alone, looked_at, strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4) if rounds > 1 else ratios * 3
        digits = 0 if scale == 1 else 3
        print(
            f"  {text:<40}{before * scale:>12,.{digits}f}{after * scale:>12,.{digits}f}"
            f"   {after / before:.3f} ({low:.3f} to {high:.3f})"
        )
    share = statistics.median(result["looker"] for result in looked_at)
    print(f"  the looker takes {share:.1%} of one processor", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what looking at a bus costs it.")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--events", type=int, default=1_000_000, help="in each round")
    parser.add_argument("--backend", choices=("asyncio", "trio"), action="append")
    parser.add_argument("--looker", choices=tuple(LOOKERS), action="append")
    arguments = parser.parse_args()
    for backend in arguments.backend or ("asyncio",):
        for looker in arguments.looker or ("top",):
            compare(looker, backend, arguments.rounds, arguments.events)


if __name__ == "__main__":
    main()
