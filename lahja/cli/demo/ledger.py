"""What the six processes report, added up: an event counts as lost until it has arrived."""

from __future__ import annotations

from collections.abc import Sequence

from .events import Report

__all__ = ["Ledger", "percentile"]


class Ledger:
    """
    Keep the latest report of every process.

    :param names: of the processes
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.quiet_trips: list[int] = []
        self.full_trips: list[int] = []
        self._reports: dict[str, Report] = {}
        self._answered = dict.fromkeys(self.names, 0)

    def take(self, name: str, report: Report) -> None:
        """Take note of a report; the one before it, of the same process, is replaced."""
        self._reports[name] = report
        self._answered[name] += len(report.quiet_trips) + len(report.full_trips)
        self.quiet_trips += report.quiet_trips
        self.full_trips += report.full_trips

    # -- Of one process ----------------------------------------------------------------------

    def sent(self, name: str) -> int:
        """Return how many events it has broadcast."""
        report = self._reports.get(name)
        return 0 if report is None else report.ticks_sent + report.samples_sent

    def received(self, name: str, origin: str) -> int:
        """Return how many events it has received, in their order, from another or from itself."""
        report = self._reports.get(name)
        return 0 if report is None else report.ticks[origin] + report.samples[origin]

    def received_from_others(self, name: str) -> int:
        """Return how many events it has received from other processes."""
        return sum(self.received(name, origin) for origin in self.names if origin != name)

    def answered(self, name: str) -> int:
        """Return how many of its requests were answered."""
        return self._answered[name]

    # -- Of all ------------------------------------------------------------------------------

    @property
    def broadcasts(self) -> int:
        """How many events were broadcast."""
        return sum(self.sent(name) for name in self.names)

    @property
    def deliveries(self) -> int:
        """How many events have gone from one process to another."""
        return sum(self.received_from_others(name) for name in self.names)

    @property
    def requests(self) -> int:
        """How many requests were answered."""
        return sum(self._answered.values())

    @property
    def expected(self) -> int:
        """How many events should arrive, each at every process, and answers."""
        asked = sum(report.asked for report in self._reports.values())
        return self.broadcasts * len(self.names) + asked

    @property
    def missing(self) -> int:
        """How many of those have not arrived."""
        pairs = ((name, origin) for name in self.names for origin in self.names)
        arrived = sum(self.received(name, origin) for name, origin in pairs)
        return self.expected - arrived - self.requests

    @property
    def misplaced(self) -> int:
        """How many events arrived twice, or after later ones."""
        return sum(report.misplaced for report in self._reports.values())

    @property
    def is_finished(self) -> bool:
        """Whether nobody sends any more."""
        reports = self._reports.values()
        return len(reports) == len(self.names) and all(report.finished for report in reports)


def percentile(values: Sequence[int], percent: float) -> int | None:
    """Return the smallest value that so many per cent of all do not exceed; None without any."""
    if not values:
        return None
    rank = -(-len(values) * percent // 100)  # rounded up
    return sorted(values)[max(0, int(rank) - 1)]
