"""
What ``lahja top`` shows of one endpoint: what two looks at its statistics say.

Rates are events per second between them; everything else is as of the second one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..stats import EndpointStats, SubscriptionStats
from .observer import Observer, Sight

__all__ = ["Row", "row_of"]


@dataclass(frozen=True)
class Row:
    """
    Be one line of the table.

    :param sight: what can be seen of it, a word of :class:`~lahja.cli.observer.Sight`
    :param reason: why it is not alive
    :param sent: events per second to other endpoints, each copy of one; None before the second look
    :param received: the same from other endpoints
    :param queue_bytes: what waits for its peers to read it
    :param waiting: events that wait in its handlers and streams
    :param stalls: how often one of its peers took nothing for a while
    :param stalled: the peers that take nothing at the moment, and for how many seconds
    :param slowest: the handler that took longest for one event, and how many seconds that was
    :param lost: events that its streams dropped, or that could not be decoded
    """

    name: str
    sight: str
    reason: str
    pid: int | None
    backend: str | None = None
    uptime: float | None = None
    peers: int = 0
    sent: float | None = None
    received: float | None = None
    queue_bytes: int = 0
    waiting: int = 0
    stalls: int = 0
    stalled: dict[str, float] = field(default_factory=dict)
    slowest: tuple[str, float] | None = None
    requests_in_flight: int = 0
    requests_p99: float | None = None
    requests_failed: int = 0
    lost: int = 0


def row_of(observer: Observer, before: EndpointStats | None) -> Row:
    """
    Return the line of an endpoint.

    :param before: its statistics at the look before; of no use where it was restarted meanwhile
    """
    now = observer.stats
    name, sight, reason = observer.name, observer.sight, observer.reason
    if now is None:
        return Row(name, sight.value, reason, observer.pid)
    is_alive = sight is Sight.ALIVE
    seconds = 0.0
    if is_alive and before is not None and before.instance == now.instance:
        seconds = now.taken_at - before.taken_at
    sent = received = None
    if before is not None and seconds > 0:
        sent = (_sent(now) - _sent(before)) / seconds
        received = (_received(now) - _received(before)) / seconds
    return Row(
        name=name,
        sight=sight.value,
        reason=reason,
        pid=now.pid,
        backend=now.backend,
        uptime=now.uptime,
        peers=len(now.peers),
        sent=sent,
        received=received,
        queue_bytes=sum(peer.queue_bytes for peer in now.peers),
        waiting=sum(subscription.queue for subscription in now.subscriptions),
        stalls=sum(peer.stalls for peer in now.peers),
        stalled={p.name: p.stalled_for for p in now.peers if p.stalled_for and is_alive},
        slowest=_slowest(now.subscriptions),
        requests_in_flight=now.requests.in_flight,
        requests_p99=now.requests.p99,
        requests_failed=sum(now.requests.failures.values()),
        lost=sum(each.dropped + each.undecodable for each in now.types),
    )


def _sent(stats: EndpointStats) -> int:
    return sum(each.sent for each in stats.types)


def _received(stats: EndpointStats) -> int:
    return sum(each.received for each in stats.types)


def _slowest(subscriptions: tuple[SubscriptionStats, ...]) -> tuple[str, float] | None:
    handlers = [each for each in subscriptions if each.kind == "handler"]
    if not handlers:
        return None
    slowest = max(handlers, key=lambda handler: handler.slowest)
    return slowest.name, slowest.slowest
