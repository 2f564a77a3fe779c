"""
The books of a soak: what was sent to whom, what came from whom, and whether the two agree.

Each process numbers its events of a kind. It notes an *epoch* for each peer: the numbers that it
broadcast while that peer was connected and subscribed, over one connection. And it notes the *runs*
of numbers that it got from each process. A process that is restarted has a new *life*, by which
both sides know it.

Within an epoch, what arrives is a run that begins with the epoch. It ends with it too, unless the
connection was lost: then the events at its end are lost, and there must have been a cause. Nothing
arrives outside of an epoch, and nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

__all__ = ["Book", "Epoch", "Outcome", "Runs", "compare"]


@dataclass
class Epoch:
    """
    Be the numbers that were broadcast over one connection to one peer.

    :param peer: the instance of the peer, which a restarted one does not share
    :param first: the first number
    :param end: the number after the last one; None while the connection lasts, or where the sender
        was killed
    :param ended_at: when the sender noticed that the connection was gone
    """

    peer: str
    first: int
    end: int | None = None
    ended_at: float | None = None


@dataclass
class Runs:
    """Note the numbers that came from one life, as they come."""

    runs: list[list[int]] = field(default_factory=list)  # first number, and the one after the last
    complaints: list[str] = field(default_factory=list)

    def note(self, number: int) -> None:
        """Take note of a number."""
        if self.runs and number == self.runs[-1][1]:
            self.runs[-1][1] += 1
        elif self.runs and number < self.runs[-1][1]:
            self.complaints.append(f"{number} came after {self.runs[-1][1] - 1}")
        else:
            self.runs.append([number, number + 1])

    @property
    def next(self) -> int:
        """The number after the last one that came."""
        return self.runs[-1][1] if self.runs else 0

    def forget(self) -> None:
        """Keep no more than where the last run ended."""
        self.runs = [[self.next, self.next]] if self.runs else []


class Book:
    """Note the epochs of the events of one kind that this process sends."""

    def __init__(self) -> None:
        self.number = 0  # of the next event
        self.open: dict[str, tuple[object, Epoch]] = {}  # by name, with the connection
        self.epochs: list[Epoch] = []

    def look(self, present: dict[str, tuple[object, str]], now: float) -> list[Epoch]:
        """
        Compare the receivers of the next event with those of the last one.

        :param present: connection and instance of each receiver, by name
        :return: epochs that began or ended
        """
        changed = []
        for name, (connection, epoch) in list(self.open.items()):
            if name not in present or present[name][0] is not connection:
                del self.open[name]
                epoch.end, epoch.ended_at = self.number, now
                changed.append(epoch)
        for name, (connection, instance) in present.items():
            if name not in self.open:
                epoch = Epoch(instance, self.number)
                self.open[name] = (connection, epoch)
                self.epochs.append(epoch)
                changed.append(epoch)
        return changed

    def forget(self) -> None:
        """Begin every epoch anew with the next event: all before it was compared."""
        self.epochs = []
        for name, (connection, epoch) in self.open.items():
            epoch = Epoch(epoch.peer, self.number)
            self.open[name] = (connection, epoch)
            self.epochs.append(epoch)


@dataclass
class Outcome:
    """Count what a comparison found."""

    arrived: int = 0
    lost_with_connections: int = 0
    violations: list[str] = field(default_factory=list)
    broken: list[Epoch] = field(default_factory=list)  # epochs for whose end there must be a cause


def compare(
    whom: str,
    epochs: Iterable[Epoch],
    runs: Iterable[list[int]],
    *,
    last: int | None,
    must_be_complete: bool,
) -> Outcome:
    """
    Compare what one life sent to another one with what arrived there.

    :param whom: how the two are called in violations
    :param epochs: those of the sender for this receiver, in their order
    :param runs: those of the receiver for this sender, in their order
    :param last: the number after the last one that was sent; None where the sender was killed
    :param must_be_complete: whether all of the last epoch, if it is still open, must have arrived
    """
    outcome = Outcome()
    pieces = list(_split(runs, epochs := list(epochs)))
    for epoch in epochs:
        end = epoch.end if epoch.end is not None else last
        inside = [piece for piece in pieces if piece[0] is epoch]
        arrived = sum(stop - start for _, start, stop in inside)
        outcome.arrived += arrived
        if len(inside) > 1 or (inside and inside[0][1] != epoch.first):
            parts = ", ".join(f"{start}–{stop - 1}" for _, start, stop in inside)
            outcome.violations.append(
                f"{whom}: of the events from {epoch.first} on, only {parts} arrived"
            )
        missing = 0 if end is None else end - epoch.first - arrived
        if missing and epoch.end is None and must_be_complete:
            outcome.violations.append(
                f"{whom}: the last {missing} events before {end} did not arrive"
            )
        elif missing:
            outcome.lost_with_connections += missing
        if epoch.end is not None:
            outcome.broken.append(epoch)
    for piece in pieces:
        if piece[0] is None:
            outcome.violations.append(
                f"{whom}: {piece[1]}–{piece[2] - 1} arrived without having been sent"
            )
    return outcome


def _split(
    runs: Iterable[list[int]], epochs: list[Epoch]
) -> Iterator[tuple[Epoch | None, int, int]]:
    """Cut runs where epochs begin and end; give each part with the epoch that it belongs to."""
    for first, end in runs:
        at = first
        for epoch in epochs:
            start = max(at, epoch.first)
            stop = end if epoch.end is None else min(end, epoch.end)
            if start < stop:
                if at < start:
                    yield None, at, start
                yield epoch, start, stop
                at = stop
        if at < end:
            yield None, at, end
