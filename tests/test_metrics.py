"""Metrics as they are read: the text for Prometheus, and what a reader of OpenTelemetry gets."""

from __future__ import annotations

import csv
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Gauge, InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from test_stats import STATS

import lahja
from lahja import AsyncioEndpoint, EndpointStats
from lahja.api import EndpointAPI
from lahja.metrics import OpenTelemetryInstruments, PrometheusCollector
from lahja.tracing import context_of, handling

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Fixed:
    """Stand for an endpoint that has some statistics."""

    def __init__(self, stats: EndpointStats) -> None:
        self._stats = stats
        self.looks = 0

    def stats(self) -> EndpointStats:
        self.looks += 1
        return self._stats


def fixed(**changes: Any) -> Any:
    return Fixed(dataclasses.replace(STATS, **changes))


def scraped(*endpoints: EndpointAPI) -> Samples:
    """Return what Prometheus reads."""
    registry = CollectorRegistry()
    registry.register(PrometheusCollector(*endpoints))
    text = generate_latest(registry).decode()
    families = [*text_string_to_metric_families(text)]
    assert len({family.name for family in families}) == len(families)
    samples = [sample for family in families for sample in family.samples]
    found = {(each.name, frozenset(each.labels.items())): each.value for each in samples}
    assert len(found) == len(samples)  # no two have the same labels
    return found


def observed(*endpoints: EndpointAPI) -> Samples:
    """Return what OpenTelemetry reads."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    OpenTelemetryInstruments(*endpoints, meter=provider.get_meter("lahja"))
    data = reader.get_metrics_data()
    assert data is not None
    provider.shutdown()
    found: Samples = {}
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    assert point.attributes is not None
                    labels = frozenset((k, str(v)) for k, v in point.attributes.items())
                    assert (metric.name, labels) not in found
                    found[metric.name, labels] = point.value  # type: ignore[union-attr]
    return found


def of(samples: Samples, metric: str, /, **labels: str) -> float:
    return samples[metric, frozenset(({"endpoint": "ann"} | labels).items())]


def test_prometheus_reads_statistics() -> None:
    samples = scraped(fixed())
    assert of(samples, "lahja_uptime_seconds") == 12.5
    assert of(samples, "lahja_running") == 1
    assert of(samples, "lahja_peers") == 1
    assert of(samples, "lahja_peer_sent_bytes_total", peer="bob") == 1
    assert of(samples, "lahja_peer_received_events_total", peer="bob") == 4
    assert of(samples, "lahja_peer_queue_bytes", peer="bob") == 5
    assert of(samples, "lahja_peer_stalled_seconds", peer="bob") == 8.5
    assert of(samples, "lahja_events_broadcasts_total", type="m:A") == 1
    assert of(samples, "lahja_events_undecodable_total", type="m:A") == 6
    handler = {"type": "m:A", "kind": "handler", "name": "m:f"}
    assert of(samples, "lahja_subscription_failures_total", **handler) == 3
    assert of(samples, "lahja_subscription_slowest_seconds", **handler) == 0.25
    assert of(samples, "lahja_requests_in_flight") == 1
    assert of(samples, "lahja_requests_answered_total") == 2
    assert of(samples, "lahja_requests_latency_seconds", quantile="0.5") == 0.001
    assert ("lahja_requests_latency_seconds", "0.99") not in {
        (name, dict(labels).get("quantile")) for name, labels in samples
    }
    assert of(samples, "lahja_requests_failed_total", error="RequestTimeout") == 3


def test_opentelemetry_reads_the_same() -> None:
    prometheus, opentelemetry = scraped(fixed()), observed(fixed())
    assert len(prometheus) == len(opentelemetry)
    for (name, labels), value in opentelemetry.items():
        other = name.replace(".", "_")
        assert prometheus.get((other, labels), prometheus.get((f"{other}_total", labels))) == value


def test_all_endpoints_of_a_process_share_a_collector() -> None:
    samples = scraped(fixed(), fixed(name="zoe", state="stopped"))
    assert of(samples, "lahja_running") == 1
    assert of(samples, "lahja_running", endpoint="zoe") == 0
    assert len(observed(fixed(), fixed(name="zoe"))) == len(samples)


def test_handlers_of_one_name_are_taken_together() -> None:
    row = STATS.subscriptions[0]
    rows = (row, dataclasses.replace(row, slowest=0.5, queue=7, failures=1))
    samples = scraped(fixed(subscriptions=rows))
    handler = {"type": "m:A", "kind": "handler", "name": "m:f"}
    assert of(samples, "lahja_subscription_queue", **handler) == 8
    assert of(samples, "lahja_subscription_failures_total", **handler) == 4
    assert of(samples, "lahja_subscription_slowest_seconds", **handler) == 0.5


def test_the_reference_lists_all_metrics() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    OpenTelemetryInstruments(fixed(), meter=provider.get_meter("lahja"))
    data = reader.get_metrics_data()
    assert data is not None
    provider.shutdown()
    found = set()
    for metric in data.resource_metrics[0].scope_metrics[0].metrics:
        kind = "gauge" if isinstance(metric.data, Gauge) else "counter"
        labels = dict(metric.data.data_points[0].attributes or {})
        del labels["endpoint"]
        found.add((metric.name, kind, metric.unit, " ".join(labels), metric.description))
    page = Path(__file__).parent.parent / "docs" / "api" / "metrics.rst"
    text = page.read_text(encoding="utf-8").replace("``", "")
    lines = [line for line in text.splitlines() if line.startswith("   lahja.")]
    rows = csv.reader(lines, skipinitialspace=True)
    listed = [tuple(each.strip() for each in row) for row in rows]
    assert len(listed) == len(found)
    assert set(listed) == found


def test_odd_names_do_not_break_the_text() -> None:
    peer = dataclasses.replace(STATS.peers[0], name='a"b\\c\nd')
    assert of(scraped(fixed(peers=(peer,))), "lahja_peer_stalls_total", peer='a"b\\c\nd') == 7


def test_a_real_endpoint_has_metrics_before_it_runs() -> None:
    samples = scraped(AsyncioEndpoint("ann"))
    assert of(samples, "lahja_running") == 0
    assert len(samples) == len(observed(AsyncioEndpoint("ann")))


def test_instruments_that_are_read_together_ask_once() -> None:
    endpoint = fixed()
    observed(endpoint)
    assert endpoint.looks <= 2


def test_two_collectors_do_not_fit_into_one_registry() -> None:
    registry = CollectorRegistry()
    registry.register(PrometheusCollector(fixed()))
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(PrometheusCollector(fixed()))


def test_without_a_meter_the_one_of_the_program_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])  # as if it were set; it could never be removed again
    monkeypatch.setattr("opentelemetry.metrics.get_meter", provider.get_meter)
    OpenTelemetryInstruments(fixed())
    data = reader.get_metrics_data()
    assert data is not None
    provider.shutdown()
    (scope,) = data.resource_metrics[0].scope_metrics
    assert (scope.scope.name, scope.scope.version) == ("lahja", lahja.__version__)
    assert "lahja.peers" in {metric.name for metric in scope.metrics}


USES: dict[str, tuple[str, Callable[[], object]]] = {
    "prometheus": ("prometheus_client", PrometheusCollector),
    "opentelemetry, metrics": ("opentelemetry", OpenTelemetryInstruments),
    "opentelemetry, context": ("opentelemetry", lambda: context_of(lahja.BaseEvent())),
    "opentelemetry, handling": (
        "opentelemetry",
        lambda: handling(lahja.BaseEvent()).__enter__(),
    ),
}


@pytest.mark.parametrize("name", USES)
def test_what_is_not_installed_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, use = USES[name]
    monkeypatch.setitem(sys.modules, module, None)
    extra = name.partition(",")[0]
    with pytest.raises(lahja.MissingExtra) as caught:
        use()
    assert f"needs an optional package: pip install 'lahja[{extra}]'" in str(caught.value)
