"""
What an endpoint says in the log: one line for each thing that happens, and never a flood.

Each line begins with the name of the endpoint, and says what happened, with whom, why, and what
can be done about it. Of lines of one kind about one peer ``BURST`` are written in ``WINDOW``
seconds, of those of one kind about anybody ``BURST_OF_KIND``. The last of them says that the others
are only counted; how many there were is said with whatever is written next, at the latest when the
endpoint stops. Before it runs nothing is limited.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from .protocol import one_line

__all__ = ["BURST", "BURST_OF_KIND", "WINDOW", "Reporter"]

BURST = 5
"""The most lines of one kind about one peer in a window."""

BURST_OF_KIND = 50
"""The most lines of one kind about anybody in a window."""

WINDOW = 10.0
"""Seconds in which lines are counted."""

_MOST_PEERS = 1000


class _Window:
    """Count the lines of one kind since a moment."""

    __slots__ = ("last", "level", "suppressed", "until", "written")

    def __init__(self, until: float) -> None:
        self.until = until
        self.written = 0
        self.suppressed = 0
        self.level = 0
        self.last = ""

    def suppress(self, level: int, line: str) -> None:
        """Count a line in place of writing it."""
        self.suppressed += 1
        self.level = max(self.level, level)
        self.last = line


class Reporter:
    """
    Write the log of one endpoint.

    :param name: of the endpoint
    :param logger: where the lines go
    """

    def __init__(self, name: str, logger: logging.Logger) -> None:
        self.logger = logger
        self.last_errors: dict[str, str] = {}  # the last complaint about each peer
        self._name = name
        self._clock: Callable[[], float] | None = None
        self._windows: dict[tuple[str, str | None], _Window] = {}
        self._next_end = 0.0  # of any window

    def begin(self, clock: Callable[[], float]) -> None:
        """
        Limit the lines from now on.

        :param clock: returns the time in seconds
        """
        self._clock = clock

    def end(self) -> None:
        """Say what was not said yet, and limit nothing any more. Idempotent."""
        for key in list(self._windows):
            self._close(key)
        self._clock = None

    def say(self, level: int, kind: str, peer: str, text: str, *args: Any) -> None:
        """
        Write a line, unless there were too many of the kind.

        :param kind: what happened, in one word
        :param peer: the name of the peer that it is about; empty for none
        :param text: what follows the name of the endpoint, with a place for each of ``args``
        """
        if level < logging.WARNING and not self.logger.isEnabledFor(level):
            return
        line = text % args
        if level >= logging.WARNING and peer:
            self.last_errors.pop(peer, None)
            self.last_errors[peer] = line
            if len(self.last_errors) > _MOST_PEERS:
                del self.last_errors[next(iter(self.last_errors))]
        if self._clock is not None:
            line = self._limited(level, kind, peer, line, self._clock())
        if line:
            self.logger.log(level, "%s: %s", self._name, line)

    def log(self, level: int, text: str, *args: Any) -> None:
        """Write a line about this endpoint itself; those that are the same are limited."""
        self.say(level, text % args, "", text, *args)

    def _limited(self, level: int, kind: str, peer: str, line: str, now: float) -> str:
        """Return the line as it is to be written; empty where it is only counted."""
        if now >= self._next_end:
            for key in [key for key, window in self._windows.items() if now >= window.until]:
                self._close(key)
            ends = [window.until for window in self._windows.values()]
            self._next_end = min(ends, default=now + WINDOW)
        of_kind = self._window((kind, None), now)
        if of_kind.written >= BURST_OF_KIND:  # a flood of names does not make as many windows
            of_kind.suppress(level, line)
            return ""
        of_peer = self._window((kind, peer), now)
        if of_peer.written >= BURST:
            of_peer.suppress(level, line)
            return ""
        of_kind.written += 1
        of_peer.written += 1
        if of_kind.written == BURST_OF_KIND or of_peer.written == BURST:
            return f"{line} (more like this are only counted for {WINDOW:g} s)"
        return line

    def _window(self, key: tuple[str, str | None], now: float) -> _Window:
        window = self._windows.get(key)
        if window is None:
            if len(self._windows) >= _MOST_PEERS:
                self._close(next(iter(self._windows)))
            window = self._windows[key] = _Window(now + WINDOW)
        return window

    def _close(self, key: tuple[str, str | None]) -> None:
        """End a window, and say how many lines were not written in it."""
        window = self._windows.pop(key)
        if window.suppressed:
            _, peer = key
            whom = f" about {one_line(peer)}" if peer else ""
            self.logger.log(
                window.level,
                "%s: %d more like this%s in %g s, the last one: %s",
                self._name,
                window.suppressed,
                whom,
                WINDOW,
                window.last,
            )
