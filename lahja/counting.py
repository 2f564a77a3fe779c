"""
What is counted while an endpoint runs, besides what the framing counts by itself.

Nothing here knows a clock: whoever makes a :class:`Life` or a :class:`Stopwatch` brings one. What
is kept is bounded, however long an endpoint runs and whatever its peers do.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

__all__ = [
    "LARGE_BATCH",
    "LATENCIES_KEPT",
    "Life",
    "SAMPLE_SECONDS",
    "NameCounter",
    "RequestLog",
    "Stopwatch",
    "TURN_SECONDS",
    "no_time",
    "percentile",
]

LATENCIES_KEPT = 1000
"""How many of the latest requests the percentiles are of."""

LARGE_BATCH = 8 * 1024
"""Bytes that arrive at a time, from which on not all that is done with them is timed."""

SAMPLE_SECONDS = 0.1
"""In how many seconds one large batch is timed."""

TURN_SECONDS = 0.02
"""For how long events are handed to those who want them before others get a turn."""

_MOST_NAMES = 10_000
_OTHER_NAMES = "(others)"


def no_time() -> float:
    """Return 0.0: be the clock of whoever was given none."""
    return 0.0


class Life:
    """
    Know whether an endpoint runs, and for how long it has.

    :param clock: returns the time in seconds
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._begun: float | None = None
        self._ended: float | None = None

    def begin(self) -> None:
        """Take note that it runs from now on."""
        self._begun = self._clock()

    def end(self) -> None:
        """Take note that it has stopped, where it ran; more than once is the same as once."""
        if self._begun is not None and self._ended is None:
            self._ended = self._clock()

    @property
    def state(self) -> str:
        """What it does: ``"new"``, ``"running"`` or ``"stopped"``."""
        if self._begun is None:
            return "new"
        return "running" if self._ended is None else "stopped"

    @property
    def uptime(self) -> float:
        """Seconds for which it has run."""
        if self._begun is None:
            return 0.0
        return (self._clock() if self._ended is None else self._ended) - self._begun


class Stopwatch:
    """
    Take the time of what is called one after the other, by one look at the clock for each.

    That is too much where events come by the thousand: of large batches one is timed in every
    ``SAMPLE_SECONDS``, and so all of them where handlers are slow.

    :param clock: returns the time in seconds
    """

    __slots__ = ("_next_sample", "clock", "is_on", "last")

    def __init__(self, clock: Callable[[], float] = no_time) -> None:
        self.clock = clock
        self.last = 0.0  # when what was timed last ended
        self.is_on = True
        self._next_sample = 0.0

    def start(self, size: int) -> None:
        """Begin with a batch of so many bytes now."""
        now = self.last = self.clock()
        if size < LARGE_BATCH:
            self.is_on = True
        elif now >= self._next_sample:
            self.is_on = True
            self._next_sample = now + SAMPLE_SECONDS
        else:
            self.is_on = False


class NameCounter:
    """Count by names that a peer may choose; those that are too many are counted as one."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def add(self, name: str, count: int = 1) -> None:
        """Count something under a name."""
        if name not in self.counts and len(self.counts) >= _MOST_NAMES:
            name = _OTHER_NAMES
        self.counts[name] += count


class RequestLog:
    """Know how requests ended: how long the latest took, and how many failed of what."""

    def __init__(self) -> None:
        self.answered = 0
        self.latencies: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self.failures: Counter[str] = Counter()

    def succeeded(self, seconds: float) -> None:
        """Count a request that was answered."""
        self.answered += 1
        self.latencies.append(seconds)

    def failed(self, error: BaseException) -> None:
        """Count a request that ended by an error, or was cancelled."""
        kind = type(error).__name__ if isinstance(error, Exception) else "cancelled"
        self.failures[kind] += 1


def percentile(values: list[float], percent: float) -> float | None:
    """Return the smallest value that so many per cent of all do not exceed; None without any."""
    if not values:
        return None
    rank = -(-len(values) * percent // 100)  # rounded up
    return sorted(values)[max(0, int(rank) - 1)]
