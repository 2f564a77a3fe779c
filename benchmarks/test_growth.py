"""
How the cost of an event grows: with what is subscribed, and with who is connected.

A result is the time that this process, which sends, is at work (not the time that passes) for one
round of events. The curve of a group should be flat where nobody wants more, and rise by little for
each further receiver. Receivers are processes of their own; the endpoints that want nothing share
one.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from lahja.base import EndpointAPI
from lahja.framing import IMPLEMENTATION

sys.path.append(str(Path(__file__).parents[1]))  # ``pytest`` does not add it

from benchmarks.processes import Count, Others, flood

EVENTS = 5_000
TYPES = (10, 100, 1000, 10_000)
IDLE = (1, 10, 100)
RECEIVERS = (1, 2, 4, 8, 16)
BACKENDS = ("asyncio", "trio")

with_framing = pytest.mark.parametrize("framing", [IMPLEMENTATION])
on_both = pytest.mark.parametrize("backend", BACKENDS)
by_processor_time = pytest.mark.benchmark(timer=time.process_time)


def measure(benchmark: BenchmarkFixture, others: Others, framing: str) -> None:
    """Measure the sending of events, and note what one of them takes."""

    async def send(client: EndpointAPI) -> list[Count]:
        return await flood(client, others.names, EVENTS, bytes(100))

    with others.call() as call:
        counts = benchmark.pedantic(call, (send,), rounds=5, warmup_rounds=1)  # type: ignore[no-untyped-call]
    assert counts == [Count(EVENTS, framing)] * others.receivers
    benchmark.extra_info["framing"] = framing
    if benchmark.stats is not None:  # there are none with --benchmark-disable
        seconds = benchmark.stats.stats.median / EVENTS
        benchmark.extra_info["nanoseconds of the sender per event"] = round(seconds * 1e9)


@by_processor_time
@with_framing
@on_both
@pytest.mark.parametrize("types", TYPES)
def test_types(benchmark: BenchmarkFixture, backend: str, types: int, framing: str) -> None:
    benchmark.group = f"growth on {backend}: the receiver subscribes to so many other types"
    measure(benchmark, Others(backend, types=types), framing)


@by_processor_time
@with_framing
@on_both
@pytest.mark.parametrize("idle", IDLE)
def test_idle_peers(benchmark: BenchmarkFixture, backend: str, idle: int, framing: str) -> None:
    benchmark.group = f"growth on {backend}: so many peers are connected, and want nothing"
    measure(benchmark, Others(backend, idle=idle), framing)


@by_processor_time
@with_framing
@on_both
@pytest.mark.parametrize("receivers", RECEIVERS)
def test_receivers(benchmark: BenchmarkFixture, backend: str, receivers: int, framing: str) -> None:
    benchmark.group = f"growth on {backend}: so many peers want all events"
    measure(benchmark, Others(backend, receivers), framing)
