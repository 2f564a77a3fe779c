"""What was measured, run by run; it can be written as JSON, and read again."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .work import Work

__all__ = ["Probe", "Results", "Series", "Spread", "machine"]


@dataclass(frozen=True)
class Probe:
    """
    Be something that is measured once in each round.

    :param group: probes of one group take turns; only they may be compared
    """

    group: str
    contender: str
    work: Work

    def __str__(self) -> str:
        return f"{self.contender}: {self.work}"


@dataclass
class Series:
    """
    Be what one probe gave.

    :param runs: the figures of each round; None where it failed
    :param failures: why
    """

    probe: Probe
    runs: list[dict[str, Any] | None] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def values(self, figure: str) -> list[float | None]:
        """Return one figure, round by round."""
        return [None if run is None else run[figure] for run in self.runs]

    def spread(self, figure: str) -> Spread | None:
        """Return the median of a figure, least and most; None where no run gave it."""
        return Spread.of(value for value in self.values(figure) if value is not None)


@dataclass(frozen=True)
class Spread:
    """Be the median of several values, and their extremes."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """Return the spread of values, or None where there are none."""
        found = [*values]
        return cls(statistics.median(found), min(found), max(found)) if found else None


class Results:
    """
    Be everything that was measured.

    :param about: the machine and the options
    :param left_out: contenders that did not take part, and why
    """

    def __init__(self, about: dict[str, Any]) -> None:
        self.about = about
        self.left_out: dict[str, str] = {}
        self.contenders: dict[str, dict[str, Any]] = {}  # what was said about each
        self._series: dict[Probe, Series] = {}

    def __getitem__(self, probe: Probe) -> Series:
        """Return the series of a probe, which may be empty."""
        return self._series.setdefault(probe, Series(probe))

    def group(self, name: str) -> list[Series]:
        """Return the series of a group in which anything was measured, in their order."""
        return [each for each in self._series.values() if each.probe.group == name and each.runs]

    def failures(self) -> Iterable[tuple[Probe, int, str]]:
        """Give each probe of which runs failed, how many, and why the last one did."""
        for series in self._series.values():
            if series.failures:
                yield series.probe, len(series.failures), series.failures[-1]

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        document = {
            "about": self.about,
            "left out": self.left_out,
            "contenders": self.contenders,
            "series": [
                {**dataclasses.asdict(each.probe), "runs": each.runs, "failures": each.failures}
                for each in self._series.values()
                if each.runs or each.failures
            ],
        }
        path.write_text(json.dumps(document, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Results:
        """Return what :meth:`write` wrote."""
        document = json.loads(path.read_text())
        results = cls(document["about"])
        results.left_out = document["left out"]
        results.contenders = document["contenders"]
        for each in document["series"]:
            probe = Probe(each["group"], each["contender"], Work(**each["work"]))
            results._series[probe] = Series(probe, each["runs"], each["failures"])
        return results


def machine() -> dict[str, Any]:
    """Return on what all this is measured."""
    processor = platform.processor() or platform.machine()
    try:
        lines: Sequence[str] = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:  # not on Linux
        lines = ()
    for line in lines:
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }
