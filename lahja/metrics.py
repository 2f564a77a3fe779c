"""
Metrics for Prometheus (extra ``prometheus``) and OpenTelemetry (extra ``opentelemetry``).

All of them are what :meth:`lahja.base.EndpointAPI.stats` says when they are read, in whatever
thread that happens; nothing is counted for them, so that they cost nothing while nobody reads them.

For Prometheus::

    from prometheus_client import REGISTRY, start_http_server

    REGISTRY.register(PrometheusCollector(endpoint))
    start_http_server(9000)

For OpenTelemetry, whose meter provider the program has set::

    OpenTelemetryInstruments(endpoint)

Each metric has the label ``endpoint``. A process with several endpoints gives all of them to one
collector.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from .exceptions import MissingExtra
from .stats import EndpointStats
from .version import __version__

if TYPE_CHECKING:
    from .api import EndpointAPI

__all__ = ["OpenTelemetryInstruments", "PrometheusCollector"]

_SAME_LOOK = 0.05  # seconds in which all instruments are read together

_Values = Iterable[tuple[tuple[str, ...], float]]


class _Metric(NamedTuple):
    """Say what is measured, and how it is found in the statistics."""

    name: str  # with dots; Prometheus has underscores
    is_counter: bool
    unit: str  # as OpenTelemetry writes it
    about: str
    labels: tuple[str, ...]
    values: Callable[[EndpointStats], _Values]


def _of_endpoint(
    name: str, unit: str, about: str, value: Callable[[EndpointStats], float]
) -> _Metric:
    return _Metric(name, False, unit, about, (), lambda stats: [((), value(stats))])


def _of_peers(name: str, is_counter: bool, unit: str, about: str, field: str) -> _Metric:
    def values(stats: EndpointStats) -> _Values:
        return [((peer.name,), getattr(peer, field)) for peer in stats.peers]

    return _Metric(f"peer.{name}", is_counter, unit, about, ("peer",), values)


def _of_types(field: str, about: str) -> _Metric:
    def values(stats: EndpointStats) -> _Values:
        return [((each.name,), getattr(each, field)) for each in stats.types]

    return _Metric(f"events.{field}", True, "{event}", about, ("type",), values)


def _of_subscriptions(
    name: str,
    is_counter: bool,
    unit: str,
    about: str,
    field: str,
    together: Callable[[Iterable[float]], float] = sum,
) -> _Metric:
    """Return a metric of handlers and streams; those that go by one name are taken together."""

    def values(stats: EndpointStats) -> _Values:
        def key(each: Any) -> tuple[str, ...]:
            return each.type, each.kind, each.name

        rows = sorted(stats.subscriptions, key=key)
        return [
            (labels, together([getattr(each, field) for each in group]))
            for labels, group in itertools.groupby(rows, key)
        ]

    labels = ("type", "kind", "name")
    return _Metric(f"subscription.{name}", is_counter, unit, about, labels, values)


def _latencies(stats: EndpointStats) -> _Values:
    found = (("0.5", stats.requests.p50), ("0.99", stats.requests.p99))
    return [((quantile,), value) for quantile, value in found if value is not None]


_METRICS = (
    _of_endpoint("uptime.seconds", "s", "How long the endpoint has run", lambda s: s.uptime),
    _of_endpoint("running", "1", "Whether the endpoint runs", lambda s: s.state == "running"),
    _of_endpoint("peers", "{endpoint}", "Endpoints that are connected", lambda s: len(s.peers)),
    _of_peers("sent.bytes", True, "By", "Bytes sent to the peer", "bytes_sent"),
    _of_peers("received.bytes", True, "By", "Bytes received from the peer", "bytes_received"),
    _of_peers("sent.events", True, "{event}", "Events sent to the peer", "events_sent"),
    _of_peers("received.events", True, "{event}", "Events received from it", "events_received"),
    _of_peers("queue.bytes", False, "By", "Bytes that wait until the peer reads", "queue_bytes"),
    _of_peers("held.events", False, "{event}", "Events held by flow control", "held_events"),
    _of_peers("stalls", True, "1", "How often the peer took nothing for a while", "stalls"),
    _of_peers("stalled.seconds", False, "s", "For how long it takes nothing now", "stalled_for"),
    _of_types("broadcasts", "Events broadcast here"),
    _of_types("sent", "Copies of events sent to other endpoints"),
    _of_types("received", "Events received from other endpoints"),
    _of_types("delivered", "Events given to handlers and streams"),
    _of_types("dropped", "Events for which a stream had no room"),
    _of_types("undecodable", "Events that could not be decoded"),
    _of_subscriptions("queue", False, "{event}", "Events that wait", "queue"),
    _of_subscriptions("queue.max", False, "{event}", "Events that ever waited", "queue_max", max),
    _of_subscriptions("failures", True, "1", "Exceptions that the handler raised", "failures"),
    _of_subscriptions(
        "slowest.seconds", False, "s", "The longest that one event took", "slowest", max
    ),
    _of_subscriptions(
        "busy.seconds", False, "s", "How long one event takes by now", "busy_for", max
    ),
    _of_endpoint(
        "requests.in_flight", "{request}", "Requests that wait", lambda s: s.requests.in_flight
    ),
    _of_endpoint("requests.oldest.seconds", "s", "How long one waits", lambda s: s.requests.oldest),
    _Metric(
        "requests.answered",
        True,
        "{request}",
        "Requests that were answered",
        (),
        lambda stats: [((), stats.requests.answered)],
    ),
    _Metric(
        "requests.latency.seconds",
        False,
        "s",
        "How long the latest requests took, by quantile",
        ("quantile",),
        _latencies,
    ),
    _Metric(
        "requests.failed",
        True,
        "{request}",
        "Requests that failed, by exception",
        ("error",),
        lambda stats: [((error,), count) for error, count in stats.requests.failures.items()],
    ),
)


class PrometheusCollector:
    """
    Be a collector for a registry of ``prometheus_client``.

    :param endpoints: whose metrics it collects; those that stopped are collected, too
    :raise MissingExtra: where ``prometheus_client`` is not installed
    """

    def __init__(self, *endpoints: EndpointAPI) -> None:
        try:
            from prometheus_client import metrics_core
        except ModuleNotFoundError as error:
            raise MissingExtra("PrometheusCollector", "prometheus") from error
        self._families = metrics_core
        self._endpoints = endpoints

    def describe(self) -> Iterator[Any]:
        """Yield what there may be, without any value."""
        return (self._family(metric) for metric in _METRICS)

    def collect(self) -> Iterator[Any]:
        """Yield what there is now."""
        looks = [endpoint.stats() for endpoint in self._endpoints]
        for metric in _METRICS:
            family = self._family(metric)
            for stats in looks:
                for labels, value in metric.values(stats):
                    family.add_metric([stats.name, *labels], float(value))
            yield family

    def _family(self, metric: _Metric) -> Any:
        kind = (
            self._families.CounterMetricFamily
            if metric.is_counter
            else self._families.GaugeMetricFamily
        )
        name = f"lahja_{metric.name.replace('.', '_')}"
        return kind(name, f"{metric.about}.", labels=["endpoint", *metric.labels])


class OpenTelemetryInstruments:
    """
    Be observable instruments of an OpenTelemetry meter.

    :param endpoints: whose metrics they show; those that stopped are shown, too
    :param meter: who makes the instruments; that of the program's meter provider if None
    :raise MissingExtra: where ``opentelemetry-api`` is not installed
    """

    def __init__(self, *endpoints: EndpointAPI, meter: Any = None) -> None:
        try:
            from opentelemetry import metrics
        except ModuleNotFoundError as error:
            raise MissingExtra("OpenTelemetryInstruments", "opentelemetry") from error
        self._observation = metrics.Observation
        self._endpoints = endpoints
        self._looks: list[EndpointStats] = []
        self._looked_at = float("-inf")
        if meter is None:
            meter = metrics.get_meter("lahja", __version__)
        for metric in _METRICS:
            create = (
                meter.create_observable_counter
                if metric.is_counter
                else meter.create_observable_gauge
            )
            create(
                f"lahja.{metric.name}",
                callbacks=[self._callback(metric)],
                unit=metric.unit,
                description=metric.about,
            )

    def _callback(self, metric: _Metric) -> Callable[[Any], Iterable[Any]]:
        def observe(options: Any) -> Iterable[Any]:
            return [
                self._observation(
                    value,
                    dict(zip(("endpoint", *metric.labels), (stats.name, *labels), strict=True)),
                )
                for stats in self._look()
                for labels, value in metric.values(stats)
            ]

        return observe

    def _look(self) -> list[EndpointStats]:
        """Return the statistics of all endpoints, the same for instruments read together."""
        now = time.monotonic()
        if now - self._looked_at > _SAME_LOOK:
            self._looks = [endpoint.stats() for endpoint in self._endpoints]
            self._looked_at = now
        return self._looks
