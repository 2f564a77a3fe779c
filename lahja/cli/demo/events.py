"""The events of the demo: what the six say to each other, and to the supervisor."""

from __future__ import annotations

from dataclasses import dataclass

from ...common import BaseEvent, BaseRequestResponseEvent

__all__ = ["Answer", "Ask", "Begin", "Leave", "Ready", "Report", "Sample", "Tick"]


@dataclass(frozen=True)
class Tick(BaseEvent):
    """Be broadcast to everybody, and taken by a handler there."""

    number: int
    symbol: str
    price: float


@dataclass(frozen=True)
class Sample(BaseEvent):
    """Be broadcast to everybody, and read from a bounded stream there."""

    number: int
    values: tuple[float, float, float]


@dataclass(frozen=True)
class Answer(BaseEvent):
    """Answer an Ask by its number."""

    number: int


@dataclass(frozen=True)
class Ask(BaseRequestResponseEvent[Answer]):
    """Ask another process for an Answer, to see how long it takes."""

    number: int

    @staticmethod
    def expected_response_type() -> type[Answer]:
        return Answer


@dataclass(frozen=True)
class Ready(BaseEvent):
    """Tell the supervisor that a process is connected to all others, and they to it."""

    framing: str


@dataclass(frozen=True)
class Begin(BaseEvent):
    """Let the processes send: requests only for some time, then everything they can."""

    quiet_seconds: float
    full_seconds: float


@dataclass(frozen=True)
class Report(BaseEvent):
    """
    Tell the supervisor what one process has done since it began.

    :param ticks_sent: so many, numbered from 0
    :param samples_sent: so many, numbered from 0
    :param ticks: how many arrived in their order, by where they came from
    :param samples: the same of samples
    :param misplaced: how many events arrived twice, or after later ones
    :param asked: how many requests were sent
    :param quiet_trips: round trips since the last report, in µs, while there were only requests
    :param full_trips: the same while everything was sent
    :param finished: whether the process sends no more
    """

    ticks_sent: int
    samples_sent: int
    ticks: dict[str, int]
    samples: dict[str, int]
    misplaced: int
    asked: int
    quiet_trips: tuple[int, ...]
    full_trips: tuple[int, ...]
    finished: bool


@dataclass(frozen=True)
class Leave(BaseEvent):
    """Tell the processes to end."""
