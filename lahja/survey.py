"""
Statistics of an endpoint, gathered from its parts when somebody asks for them.

May be done in any thread: what the event loop may change meanwhile is copied first, in one go.
"""

from __future__ import annotations

import functools
import os
import time
from collections import Counter
from typing import Any

from .counting import Life, percentile
from .framing import IMPLEMENTATION
from .handlers import Handler
from .peering import Peering
from .protocol import Connection, one_line
from .routing import Router
from .stats import EndpointStats, PeerStats, RequestStats, SubscriptionStats, TypeStats
from .version import __version__

__all__ = ["survey"]


def survey(router: Router, peering: Peering, life: Life, backend: str) -> EndpointStats:
    """Return the statistics of the endpoint that these belong to."""
    subscriptions = _subscriptions(router)
    return EndpointStats(
        name=router.name,
        pid=os.getpid(),
        instance=router.hello.instance.hex(),
        state=life.state,
        path=router.hello.options.get("path"),
        backend=backend,
        framing=IMPLEMENTATION,
        version=__version__,
        taken_at=time.time(),
        uptime=life.uptime,
        observers=len(router.observed_by),
        peers=_peers(router, peering),
        types=_types(router, subscriptions),
        subscriptions=subscriptions,
        requests=_requests(router),
    )


def _peers(router: Router, peering: Peering) -> tuple[PeerStats, ...]:
    peers = router.peers.copy()
    found = [_peer(router, peering, peers[name]) for name in sorted(peers)]
    return tuple(peer for peer in found if peer is not None)


def _peer(router: Router, peering: Peering, connection: Connection) -> PeerStats | None:
    channel = peering.channel_of(connection)
    if channel is None:
        return None  # it left in the meantime
    return PeerStats(
        name=connection.name,
        pid=channel.pid,
        connected_at=channel.since,
        path=connection.serves_at,
        bytes_sent=channel.bytes_sent,
        bytes_received=connection.reader.received,
        events_sent=connection.outlet.events,
        events_received=connection.reader.events,
        queue_bytes=connection.outlet.size,
        held_events=router.held_events(connection),
        stalls=channel.stalls,
        stalled_for=peering.stalled_for(channel),
        last_error=router.reporter.last_errors.get(connection.name),
        subscriptions=tuple(sorted(connection.subscriptions.copy())),
    )


def _types(router: Router, subscriptions: tuple[SubscriptionStats, ...]) -> tuple[TypeStats, ...]:
    undecodable = Counter(dict(router.undecodable_events.counts))
    dropped = Counter(dict(router.dropped_events.counts))
    for subscription in subscriptions:
        dropped[subscription.type] += subscription.dropped
    rows: dict[str, list[int]] = {name: [0, 0, 0, 0] for name in (*undecodable, *dropped)}
    for topic in router.table.topics.copy().values():
        row = rows.setdefault(topic.name, [0, 0, 0, 0])  # of all classes of the name
        for index, count in enumerate(
            (topic.broadcasts, topic.sent, topic.received, topic.delivered)
        ):
            row[index] += count
    return tuple(
        TypeStats(
            name=name,
            broadcasts=broadcasts,
            sent=sent,
            received=received,
            delivered=delivered - dropped[name],
            dropped=dropped[name],
            undecodable=undecodable[name],
        )
        for name, (broadcasts, sent, received, delivered) in sorted(rows.items())
    )


def _subscriptions(router: Router) -> tuple[SubscriptionStats, ...]:
    found = [
        _subscription(topic.name, consumer)
        for topic in router.table.topics.copy().values()
        for consumer in topic.consumers
    ]
    return tuple(sorted(found, key=lambda row: (row.type, row.kind, row.name)))


def _subscription(type_name: str, consumer: Any) -> SubscriptionStats:
    if isinstance(consumer, Handler):
        return SubscriptionStats(
            type=type_name,
            kind="handler",
            name=_name_of_function(consumer.function),
            queue=consumer.waiting,
            queue_max=consumer.peak,
            bound=None,
            dropped=0,
            failures=consumer.failures,
            slowest=max(consumer.slowest, consumer.busy_for),
            busy_for=consumer.busy_for,
        )
    return SubscriptionStats(
        type=type_name,
        kind="stream",
        name=getattr(consumer, "policy", "unbounded"),
        queue=len(consumer.events),
        queue_max=consumer.peak,
        bound=getattr(consumer, "bound", None),
        dropped=getattr(consumer, "lost", 0),
        failures=0,
        slowest=0.0,
        busy_for=0.0,
    )


def _name_of_function(function: Any) -> str:
    """Return what tells a handler from others, by module and name."""
    while isinstance(function, functools.partial):
        function = function.func
    if not isinstance(getattr(function, "__qualname__", None), str):
        function = type(function)
    module = getattr(function, "__module__", None)
    return one_line(f"{module}:{function.__qualname__}" if module else function.__qualname__)


def _requests(router: Router) -> RequestStats:
    pending = router.pending.copy().values()
    now = router.stopwatch.clock()
    log = router.request_log
    latencies = list(log.latencies)
    return RequestStats(
        in_flight=len(pending),
        oldest=max((now - request.since for request in pending), default=0.0),
        answered=log.answered,
        p50=percentile(latencies, 50),
        p99=percentile(latencies, 99),
        failures=dict(log.failures),
    )
