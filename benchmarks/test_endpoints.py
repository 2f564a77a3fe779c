"""
Throughput, fan-out and round trip between real processes, on every event loop.

The other processes receive and answer. A round of the throughput ends when all of them have
confirmed, by a response, that all events have arrived. Which framing ran is part of each result's
name, and the other processes are asked whether they run the same.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from lahja.base import EndpointAPI
from lahja.framing import IMPLEMENTATION

sys.path.append(str(Path(__file__).parents[1]))  # ``pytest`` does not add it

from benchmarks.processes import BACKENDS, Count, HowMany, Others, flood

EVENTS = {"100 bytes": 10_000, "10 kB": 3_000, "1 MB": 30}
SIZES = {"100 bytes": 100, "10 kB": 10_000, "1 MB": 1_000_000}
FAN_OUT = (2, 4, 8, 16)
DELIVERIES = 20_000
REQUESTS = 500

# The name of a result says which implementation ran; LAHJA_FRAMING=cython fails without it.
with_framing = pytest.mark.parametrize("framing", [IMPLEMENTATION])


def note(benchmark: BenchmarkFixture, framing: str, name: str, count: int, scale: float) -> None:
    """Say which implementation ran, and a rate (scale 0), or the time of one."""
    benchmark.extra_info["framing"] = framing
    if benchmark.stats is not None:  # there are none with --benchmark-disable
        seconds = benchmark.stats.stats.median
        figure = seconds / count * scale if scale else round(count / seconds)
        benchmark.extra_info[name] = figure


@with_framing
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", SIZES)
def test_throughput(benchmark: BenchmarkFixture, backend: str, size: str, framing: str) -> None:
    benchmark.group = f"{EVENTS[size]:,} events of {size} to another process"
    payload = random.Random(1).randbytes(SIZES[size])  # zeros would be compressed
    others = Others(backend)

    async def send(client: EndpointAPI) -> list[Count]:
        return await flood(client, others.names, EVENTS[size], payload)

    with others.call() as call:
        counts = benchmark.pedantic(call, (send,), rounds=10, warmup_rounds=2)  # type: ignore[no-untyped-call]
    assert counts == [Count(EVENTS[size], framing)]
    note(benchmark, framing, "events per second", EVENTS[size], 0)


@with_framing
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("receivers", FAN_OUT)
def test_fan_out(benchmark: BenchmarkFixture, backend: str, receivers: int, framing: str) -> None:
    benchmark.group = f"{DELIVERIES:,} deliveries to {receivers} other processes"
    others, events = Others(backend, receivers), DELIVERIES // receivers

    async def send(client: EndpointAPI) -> list[Count]:
        return await flood(client, others.names, events, bytes(100))

    with others.call() as call:
        counts = benchmark.pedantic(call, (send,), rounds=5, warmup_rounds=1)  # type: ignore[no-untyped-call]
    assert counts == [Count(events, framing)] * receivers
    note(benchmark, framing, "deliveries per second", DELIVERIES, 0)


@with_framing
@pytest.mark.parametrize("backend", BACKENDS)
def test_round_trip(benchmark: BenchmarkFixture, backend: str, framing: str) -> None:
    benchmark.group = f"{REQUESTS} requests to another process, one after the other"

    async def ask(client: EndpointAPI) -> Count:
        for _ in range(REQUESTS):
            count = await client.request(HowMany())
        return count

    with Others(backend).call() as call:
        count = benchmark.pedantic(call, (ask,), rounds=10, warmup_rounds=2)  # type: ignore[no-untyped-call]
    assert count == Count(0, framing)
    note(benchmark, framing, "microseconds per request", REQUESTS, 1e6)
