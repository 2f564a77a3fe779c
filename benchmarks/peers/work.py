"""
What is to be done, and what the processes that do it have in common.

Every process of every contender imports this module, whatever else its environment lacks: it
needs nothing but the standard library.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Answer", "Event", "Node", "Question", "Work", "now", "resident"]

now = time.monotonic
"""Seconds on a clock that all processes of a machine share, which not every clock is."""

_MOST_WARM_UP = 1000  # events
_WARM_UP_BYTES = 16 << 20


@dataclass(frozen=True)
class Work:
    """
    Be something that a contender does in one run.

    :param kind: what is done; the contenders' ``ROLES`` say by whom
    :param size: bytes of the payload
    :param receivers: processes that each get all events
    :param in_flight: requests that wait for their answers at the same time
    :param types: further event types to which the receiver subscribes
    :param idle: further endpoints that are connected to the sender and want nothing
    :param processes: of a mesh
    :param count: how many events; 0 for as many as fit in the time of a run
    """

    kind: str
    size: int = 100
    receivers: int = 1
    in_flight: int = 1
    types: int = 0
    idle: int = 0
    processes: int = 0
    count: int = 0

    @property
    def warm_up(self) -> int:
        """How many events come before those that count; the same for every contender."""
        return max(2, min(_MOST_WARM_UP, _WARM_UP_BYTES // self.size))

    def __str__(self) -> str:
        changed = (
            f"{name}={value:,}"
            for name, value, standard in (
                (each.name, getattr(self, each.name), each.default)
                for each in dataclasses.fields(self)
                if each.name not in ("kind", "count")
            )
            if value != standard
        )
        return " ".join((self.kind, *changed))


@dataclass
class Node:
    """
    Be one process of a run: what it is told, and how it says what it found.

    :param role: what the process does, such as ``sender``
    :param index: which of several with the same role it is
    :param folder: where the sockets of the run are
    :param count: how many events it sends, or expects, after those that warm up
    :param about: which implementation runs, and which versions
    """

    module: str
    backend: str
    snappy: bool
    role: str
    index: int
    folder: str
    work: Work
    count: int
    about: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def loads(cls, text: str) -> Node:
        """Return what :meth:`dumps` wrote."""
        values = json.loads(text)
        return cls(**{**values, "work": Work(**values["work"])})

    def dumps(self) -> str:
        """Return the node as one line of text."""
        return json.dumps(dataclasses.asdict(self))

    @property
    def total(self) -> int:
        """How many events there are, with those that warm up."""
        return self.work.warm_up + self.count

    def payload(self) -> bytes:
        """Return bytes of the size of the work, which no compression makes shorter."""
        return os.urandom(self.work.size)

    def path(self, name: str) -> str:
        """Return the path of a socket."""
        return str(Path(self.folder) / name)

    @property
    def report_path(self) -> Path:
        """The file in which the process says what it found."""
        return Path(self.folder) / f"{self.role}{self.index}.json"

    def report(self, **found: Any) -> None:
        """Say what was found; the file appears when it is complete."""
        unfinished = self.report_path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps({"about": self.about, **found}))
        unfinished.replace(self.report_path)


@dataclass
class Event:
    """Be what those contenders send that have no event classes of their own, pickled."""

    number: int
    sent_at: float
    payload: bytes


@dataclass
class Question(Event):
    """Be an event that is answered."""


@dataclass
class Answer(Event):
    """Be the answer."""


def resident() -> int:
    """Return how many bytes of this process are in memory."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except FileNotFoundError:  # not on Linux
        command = ("ps", "-o", "rss=", "-p", str(os.getpid()))
        return 1024 * int(subprocess.check_output(command))
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
