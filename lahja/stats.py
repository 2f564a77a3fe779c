"""
What an endpoint says of itself: a tree of frozen dataclasses, made of nothing but plain values.

:meth:`lahja.base.EndpointAPI.stats` makes it. It travels as the dict of
:meth:`EndpointStats.to_dict` and becomes itself again by :meth:`EndpointStats.from_dict`, which
believes nothing of what it is given. Numbers count from the start of the endpoint, those of a peer
from the start of the connection; times are in seconds, sizes in bytes.
"""

from __future__ import annotations

import dataclasses
import types
from dataclasses import dataclass
from functools import cache
from typing import Any, Self, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = [
    "EndpointStats",
    "PeerStats",
    "RequestStats",
    "SubscriptionStats",
    "TypeStats",
]

TStats = TypeVar("TStats")


@dataclass(frozen=True, slots=True)
class PeerStats:
    """
    Tell of a connected endpoint.

    :param name: its name
    :param pid: of its process; None where the system cannot tell
    :param connected_at: since when, in seconds of Unix time
    :param path: where it serves, as it said itself; None where it does not
    :param bytes_sent: to it
    :param bytes_received: from it
    :param events_sent: events, requests and responses to it
    :param events_received: those that came from it and were decoded
    :param queue_bytes: how much waits until it reads
    :param held_events: how many wait because one of its streams is full
    :param stalls: how often it took nothing for a tenth of a second or more, while something waited
    :param stalled_for: for how long it has taken nothing by now; 0.0 where it takes what there is
    :param last_error: the last complaint about an endpoint of this name, as it was logged
    :param subscriptions: the names of the types to which it is subscribed
    """

    name: str
    pid: int | None
    connected_at: float
    path: str | None
    bytes_sent: int
    bytes_received: int
    events_sent: int
    events_received: int
    queue_bytes: int
    held_events: int
    stalls: int
    stalled_for: float
    last_error: str | None
    subscriptions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TypeStats:
    """
    Tell of an event type.

    :param name: the full name of the class
    :param broadcasts: how many events were broadcast here, those that nobody wanted included
    :param sent: how many copies of those went to other endpoints
    :param received: how many came from other endpoints
    :param delivered: how many times a handler or stream here was given one, and had room for it
    :param dropped: how many times a stream had no room
    :param undecodable: how many came that could not be decoded
    """

    name: str
    broadcasts: int
    sent: int
    received: int
    delivered: int
    dropped: int
    undecodable: int


@dataclass(frozen=True, slots=True)
class SubscriptionStats:
    """
    Tell of a handler or a stream.

    :param type: the full name of the class whose events it gets
    :param kind: ``"handler"`` or ``"stream"``
    :param name: of the handler's function; of a stream, what it does when it is full
    :param queue: how many events wait in it
    :param queue_max: how many ever did at a time
    :param bound: how many may; None for any number
    :param dropped: how many it had no room for
    :param failures: how often the handler raised an exception
    :param slowest: the longest that the handler took for one event; where so many come that timing
        each would slow them down, of those that were timed
    :param busy_for: for how long it has been awaiting something with one event by now
    """

    type: str
    kind: str
    name: str
    queue: int
    queue_max: int
    bound: int | None
    dropped: int
    failures: int
    slowest: float
    busy_for: float


@dataclass(frozen=True, slots=True)
class RequestStats:
    """
    Tell of the requests that were made here.

    :param in_flight: how many wait for their response
    :param oldest: for how long the first of them has waited; 0.0 where there is none
    :param answered: how many got it
    :param p50: what half of the latest did not exceed; None where none was answered
    :param p99: the same of 99 in 100
    :param failures: how many failed, by the name of the exception, or ``"cancelled"``
    """

    in_flight: int
    oldest: float
    answered: int
    p50: float | None
    p99: float | None
    failures: dict[str, int]


@dataclass(frozen=True, slots=True)
class EndpointStats:
    """
    Tell of an endpoint.

    :param name: its name
    :param pid: of its process
    :param instance: what tells this run from others of the name, in hexadecimal
    :param state: ``"new"``, ``"running"`` or ``"stopped"``
    :param path: where it serves; None where it does not
    :param backend: the event loop: ``"asyncio"``, ``"uvloop"`` or ``"trio"``
    :param framing: ``"cython"`` or ``"python"``
    :param version: of lahja
    :param taken_at: when this was asked, in seconds of Unix time
    :param uptime: for how long it has run, or had when it stopped
    :param observers: how many connections only observe it
    :param peers: the connected endpoints, by name
    :param types: the types of which it has seen anything, by name
    :param subscriptions: its handlers and streams, by type
    :param requests: those that it made
    :param left_out: how many rows of the three tables were left out, because an answer on the wire
        is limited; 0 where :meth:`~lahja.base.EndpointAPI.stats` was called
    """

    name: str
    pid: int
    instance: str
    state: str
    path: str | None
    backend: str
    framing: str
    version: str
    taken_at: float
    uptime: float
    observers: int
    peers: tuple[PeerStats, ...]
    types: tuple[TypeStats, ...]
    subscriptions: tuple[SubscriptionStats, ...]
    requests: RequestStats
    left_out: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the same as a dict of plain values, which JSON has too."""
        plain: dict[str, Any] = _plain(self)
        return plain

    @classmethod
    def from_dict(cls, data: object) -> Self:
        """
        Return what :meth:`to_dict` was called for; what is unknown is ignored.

        :raise ValueError: where something is missing, or of another type
        """
        return _made(cls, data, "stats")

    def limited(self, rows: int) -> Self:
        """Return the same with at most so many rows in each table, and of each peer's types."""
        tables = self.peers, self.types, self.subscriptions
        peers = [
            dataclasses.replace(peer, subscriptions=peer.subscriptions[:rows])
            for peer in self.peers[:rows]
        ]
        return dataclasses.replace(
            self,
            peers=tuple(peers),
            types=self.types[:rows],
            subscriptions=self.subscriptions[:rows],
            left_out=self.left_out + sum(max(0, len(table) - rows) for table in tables),
        )


def _plain(value: Any) -> Any:
    """Do what dataclasses.asdict() does, in a tenth of the time: nothing here needs a copy."""
    if dataclasses.is_dataclass(value):
        names = _names_of(type(value))  # type: ignore[arg-type]
        return {name: _plain(getattr(value, name)) for name in names}
    if type(value) is tuple:
        return tuple(map(_plain, value))
    return value


@cache
def _names_of(cls: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cls))


def _made(cls: type[TStats], data: object, where: str) -> TStats:
    if not isinstance(data, dict):
        raise ValueError(f"{where} is no dict")
    values = {}
    for name, wanted, is_optional in _fields_of(cls):  # type: ignore[arg-type]
        if name in data:
            values[name] = _checked(data[name], wanted, f"{where}.{name}")
        elif not is_optional:
            raise ValueError(f"{where}.{name} is missing")
    return cls(**values)


@cache
def _fields_of(cls: Any) -> tuple[tuple[str, Any, bool], ...]:
    """Return name and type of each field, and whether there is a default."""
    hints = get_type_hints(cls)
    return tuple(
        (field.name, hints[field.name], field.default is not dataclasses.MISSING)
        for field in dataclasses.fields(cls)
    )


def _checked(value: Any, wanted: Any, where: str) -> Any:
    """Return the value, as an instance of the type that is wanted."""
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        choice = type(None) if value is None else arguments[0]
        return _checked(value, choice, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where} is no list")
        return tuple(_checked(each, arguments[0], where) for each in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where} is no dict")
        keys, values = arguments
        return {_checked(k, keys, where): _checked(v, values, where) for k, v in value.items()}
    if dataclasses.is_dataclass(wanted):
        return _made(wanted, value, where)  # type: ignore[arg-type]
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise ValueError(f"{where} is a {type(value).__name__}, not a {wanted.__name__}")
    return value
