"""
Why nobody got a request, or nobody responded: what the errors say besides the fact.

All of it is bounded, however many endpoints there are, and whatever they are called.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .exceptions import NoSubscribers
from .protocol import Connection, one_line

if TYPE_CHECKING:
    from .channels import Channel

__all__ = ["how_they_are", "who_wants_what"]

_MOST_SHOWN = NoSubscribers.most_shown
_LONGEST_NAME = 100


def who_wants_what(
    peers: Mapping[str, Connection], wanted: str
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """
    Return the first of the peers, each with the first types that it is subscribed to.

    :param wanted: the name of the type that nobody wants; what is called alike comes first
    """
    likeness = wanted.rpartition(":")[2]
    found = []
    for name in sorted(peers, key=lambda name: (not _has_like(peers[name], likeness), name)):
        types = sorted(
            peers[name].subscriptions, key=lambda each: (each.rpartition(":")[2] != likeness, each)
        )
        found.append((_short(name), tuple(map(_short, types[: _MOST_SHOWN + 1]))))
        if len(found) > _MOST_SHOWN:
            break
    return tuple(found)


def _short(name: str) -> str:
    line = one_line(name)
    return line if len(line) <= _LONGEST_NAME else f"{line[:_LONGEST_NAME]}…"


def _has_like(connection: Connection, likeness: str) -> bool:
    return any(name.rpartition(":")[2] == likeness for name in connection.subscriptions)


def how_they_are(channels: Mapping[str, Channel | None], now: float) -> tuple[str, ...]:
    """
    Return for each of some endpoints whether it is alive, as far as that can be told from here.

    :param channels: those that lead to them, by their names; None where there is none any more
    :param now: the time, by the clock of :func:`time.monotonic`
    """
    found = [_how_it_is(name, channels[name], now) for name in sorted(channels)]
    if len(found) > _MOST_SHOWN:
        found[_MOST_SHOWN:] = [f"and {len(found) - _MOST_SHOWN} more"]
    return tuple(found)


def _how_it_is(name: str, channel: Channel | None, now: float) -> str:
    whom = _short(name)
    if channel is None or channel.closed:
        return f"{whom} has left"
    process = f" (process {channel.pid})" if channel.pid is not None else ""
    waiting = channel.connection.outlet.size
    if channel.blocked and waiting:
        seconds = now - channel.blocked_at
        return (
            f"{whom}{process} has taken nothing for {seconds:.1f} s, while {waiting} bytes wait "
            "for it: is it stopped, or is its event loop kept busy?"
        )
    seconds = max(0.0, now - channel.heard_at)
    return f"{whom}{process} is connected, and was last heard {seconds:.1f} s ago"
