"""What has happened so far: what the supervisor fills in, and the view shows."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from .events import Ready
from .ledger import Ledger

__all__ = ["Progress", "Stage"]


class Stage(enum.Enum):
    """What the processes do at the moment."""

    STARTING = "starting"
    QUIET = "requests only"
    FULL = "full speed"
    ARRIVING = "the last events arrive"
    LEAVING = "leaving"
    OVER = "done"


@dataclass
class Progress:
    """Hold all that there is to show."""

    loops: dict[str, str]  # of the processes, by name
    stage: Stage = Stage.STARTING
    ready: dict[str, Ready] = field(default_factory=dict)
    seconds: float = 0.0  # since the start
    full_seconds: float = 0.0  # from the beginning of full speed to the last arrival
    rate: float = 0.0  # deliveries per second at the moment
    failures: list[str] = field(default_factory=list)
    is_interrupted: bool = False
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = Ledger(tuple(self.loops))

    @property
    def framing(self) -> str:
        """The framing of all processes; of each, should they differ."""
        return ", ".join(sorted({ready.framing for ready in self.ready.values()}))

    @property
    def exit_code(self) -> int:
        """How to end: 0 if all has arrived and nobody died, 130 after Ctrl-C, 1 otherwise."""
        if self.failures:
            return 1
        if self.is_interrupted:
            return 130
        ledger = self.ledger
        return 0 if ledger.is_finished and not (ledger.missing or ledger.misplaced) else 1
