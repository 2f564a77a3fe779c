"""
Flow control: whoever is too fast waits, and nobody else does.

A stream with a bound and ``overflow="block"`` limits how many events of its type are under way to
it. The sending side has a :class:`Window` for each peer that does so, and holds back what goes
beyond it; the receiving side has an :class:`Intake` for each such type, which grants credit as
events are consumed. What is not of that type never waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from .frames import Frame
from .framing import Shape

__all__ = ["Gate", "Holder", "Intake", "Window"]


class Gate:
    """Be closed until opened once; whoever waits for it is in ``wakers``."""

    __slots__ = ("is_open", "wakers")

    def __init__(self) -> None:
        self.is_open = False
        self.wakers: list[Callable[[], None]] = []

    def open(self) -> None:
        """Let everybody through, from now on."""
        self.is_open = True
        wakers, self.wakers = self.wakers, []
        for wake in wakers:
            wake()


class Window:
    """
    Limit how many events of one type are under way to one peer.

    Events beyond that are held here; each has a gate, which opens when it is sent.
    """

    __slots__ = ("available", "held", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.available = size
        self.held: deque[tuple[Shape, Frame, Gate]] = deque()

    def admits(self) -> bool:
        """Return whether an event may be sent now, and count it as sent."""
        if self.held or self.available <= 0:
            return False
        self.available -= 1
        return True

    def hold(self, shape: Shape, frame: Frame) -> Gate:
        """Keep an event until there is credit for it."""
        gate = Gate()
        self.held.append((shape, frame, gate))
        return gate

    def resize(self, size: int) -> None:
        """Replace the size; what was sent and not consumed still counts."""
        self.available += size - self.size
        self.size = size

    def credit(self, count: int) -> None:
        """Allow so many further events, though never more than the size at a time."""
        self.available = min(self.size, self.available + count)

    def lift(self) -> None:
        """Limit nothing any more."""
        self.available = len(self.held)

    def release(self) -> Iterator[tuple[Shape, Frame, Gate]]:
        """Take out what may be sent now."""
        while self.held and self.available > 0:
            self.available -= 1
            yield self.held.popleft()


class Holder(Protocol):
    """Be a consumer that holds senders back: it has a bound, and knows its backlog."""

    bound: int
    backlog: dict[str, int]  # events that wait here, by the name of the endpoint they came from

    def __len__(self) -> int:
        """Return how many events wait here, one's own included."""


class Intake:
    """
    Grant credit for one event type, at the pace of the slowest of its holders.

    :param grant: called with the name of an endpoint and a number of events
    """

    def __init__(self, grant: Callable[[str, int], None]) -> None:
        self._grant = grant
        self._holders: list[Holder] = []
        self._taken: dict[str, int] = {}  # events that came in without new credit, by origin
        self._gate: Gate | None = None  # for broadcasts of this very endpoint

    @property
    def size(self) -> int | None:
        """How many events each sender may have under way; None for any number."""
        return min((holder.bound for holder in self._holders), default=None)

    def join(self, holder: Holder) -> None:
        """Let a holder set the pace, too."""
        self._holders.append(holder)

    def leave(self, holder: object) -> None:
        """Let a holder, if it is one, set the pace no longer."""
        self._holders = [other for other in self._holders if other is not holder]
        for origin in list(self._taken):
            self._settle(origin)
        self._open_gate()

    def forget(self, origin: str) -> None:
        """Begin anew with an endpoint that has just connected: all its credit is unused."""
        self._taken.pop(origin, None)

    def received(self, holder: Holder, origin: str) -> None:
        """Take note that a holder got an event from another endpoint."""
        holder.backlog[origin] = holder.backlog.get(origin, 0) + 1
        if (
            self._holders and holder is self._holders[0]
        ):  # every holder gets every event; one of them counts
            self._taken[origin] = self._taken.get(origin, 0) + 1

    def lost(self, origin: str) -> None:
        """Take note that an event from another endpoint did not decode: no holder got it."""
        self._taken[origin] = self._taken.get(origin, 0) + 1
        self._settle(origin)

    def consumed(self, holder: Holder, origin: str) -> None:
        """Take note that a holder's event from that endpoint was consumed."""
        if origin in holder.backlog:
            holder.backlog[origin] -= 1
            if not holder.backlog[origin]:
                del holder.backlog[origin]
            self._settle(origin)
        self._open_gate()

    def _settle(self, origin: str) -> None:
        waiting = max((holder.backlog.get(origin, 0) for holder in self._holders), default=0)
        free = self._taken.get(origin, 0) - waiting
        # In portions, so that credit does not cost a frame per event.
        if self._holders and 2 * free >= (self.size or 0) and free > 0:
            self._taken[origin] -= free
            self._grant(origin, free)

    def stop(self) -> None:
        """Hold nobody back any more, because the endpoint stops."""
        self._holders.clear()
        self._open_gate()

    def gates(self) -> list[Gate]:
        """Return what holds back a broadcast of this endpoint itself: a full holder."""
        if not self._is_full():
            return []
        if self._gate is None:
            self._gate = Gate()
        return [self._gate]

    def _is_full(self) -> bool:
        return any(len(holder) > holder.bound for holder in self._holders)

    def _open_gate(self) -> None:
        if self._gate is not None and not self._is_full():
            gate, self._gate = self._gate, None
            gate.open()
