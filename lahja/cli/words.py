"""Numbers as people read them, in few characters."""

from __future__ import annotations

__all__ = ["compact", "duration", "moment", "size"]


def compact(number: int) -> str:
    """Return a number in at most five characters, with three digits where it is a large one."""
    if number < 1000:
        return str(number) if number else "·"
    power = 1
    while number / 1000**power >= 999.5 and power < 3:
        power += 1
    scaled = number / 1000**power
    digits = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
    return f"{scaled:.{digits}f}{'kMG'[power - 1]}"


def duration(seconds: float | None) -> str:
    """Return for how long something has been, by its one or two largest units."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{int(seconds)} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes < 10 else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def moment(seconds: float | None) -> str:
    """Return how long something took, with two digits or three."""
    if seconds is None:
        return ""
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        scaled = seconds * factor
        if scaled >= 0.9995 or unit == "µs":
            digits = 0 if scaled >= 99.5 else 1 if scaled >= 9.95 else 2
            return f"{scaled:.{digits}f} {unit}"
    raise AssertionError


def size(count: int) -> str:
    """Return a number of bytes."""
    return f"{compact(count)}B" if count else "·"
