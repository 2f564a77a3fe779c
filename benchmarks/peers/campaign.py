"""Measure probes: in rounds, in which those of a group take turns."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .contestants import CONTENDERS
from .environments import Missing
from .results import Probe, Results
from .runner import ABOUT, Failed, Runner
from .work import Work

__all__ = ["Campaign"]

_FIRST_BYTES = 4 << 20  # that a first run moves, so that the next ones take as long as they should
_FIRST_EVENTS = 2000
_MOST_EVENTS = 2_000_000
_LEAST_EVENTS = 4
_SWEEP_ROUNDS = 3
_LONG = "endurance"


@dataclass
class Campaign:
    """
    Measure, and keep what was measured.

    :param rounds: how often each probe runs
    :param seconds: how long its events should take, in each run
    :param count: how many events instead; 0 for as many as that
    """

    runner: Runner
    results: Results
    rounds: int
    seconds: float
    count: int = 0

    def measure(self, probes: Iterable[Probe]) -> None:
        """Run all probes, group by group."""
        groups: dict[str, list[Probe]] = {}
        for probe in dict.fromkeys(probes):
            if probe.contender not in self.results.left_out:
                groups.setdefault(probe.group, []).append(probe)
        for number, (name, members) in enumerate(groups.items(), 1):
            self._measure_group(f"{number}/{len(groups)}  {name}", members, self._rounds(name))

    def _rounds(self, group: str) -> int:
        if group == _LONG:  # its figure hardly differs from run to run
            return 1
        if group.startswith(("size ", "fan-out ")):
            return min(self.rounds, _SWEEP_ROUNDS)
        return self.rounds

    def _measure_group(self, title: str, probes: list[Probe], rounds: int) -> None:
        counts = {probe: self._first(title, probe) for probe in probes}
        for number in range(1, rounds + 1):
            for probe, count in counts.items():
                if count and probe.contender not in self.results.left_out:
                    self._show(f"{title}, round {number} of {rounds}, {probe}")
                    series = self.results[probe]
                    series.runs.append(self._try(probe, count))
        self._show("")

    def _first(self, title: str, probe: Probe) -> int:
        """Return how many events a run of a probe should have; 0 where it does not work."""
        count = self.count or _first_count(probe.work)
        if probe.work.count or self.count:
            return probe.work.count or self.count
        self._show(f"{title}, {probe}")
        run = self._try(probe, count)
        if run is None and probe.contender not in self.results.left_out:
            run = self._try(probe, count)
        if run is None:
            return 0
        rate = run["rate"] if "rate" in run else 1 / run["p50"]
        per_receiver = rate / probe.work.receivers
        return max(_LEAST_EVENTS, min(_MOST_EVENTS, int(per_receiver * self.seconds)))

    def _try(self, probe: Probe, count: int) -> dict[str, Any] | None:
        """Run a probe once; where it fails, take a note of that."""
        try:
            run = self.runner.run(CONTENDERS[probe.contender], probe.work, count)
        except Missing as error:
            self.results.left_out[probe.contender] = str(error)
            return None
        except Failed as error:
            self.results[probe].failures.append(str(error))
            return None
        about = run.pop(ABOUT, None)
        if about is not None:
            self.results.contenders.setdefault(probe.contender, about)
        return run

    def _show(self, text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
        elif text:
            print(text, file=sys.stderr, flush=True)


def _first_count(work: Work) -> int:
    return max(_LEAST_EVENTS, min(_FIRST_EVENTS, _FIRST_BYTES // work.size) // work.receivers)
