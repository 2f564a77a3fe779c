"""
One process of the comparison of two revisions; it runs under any lahja from 0.16 on.

It is started by :mod:`benchmarks.revisions`, and imports nothing but lahja and what that needs.
Each side prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import pathlib
import platform
import sys
import time
from dataclasses import dataclass
from typing import Any

import lahja
from lahja import (
    AsyncioEndpoint,
    BaseEvent,
    BaseRequestResponseEvent,
    BroadcastConfig,
    ConnectionConfig,
)

PAYLOAD = bytes(range(100))
WARM_UP = 1000


@dataclass
class Small(BaseEvent):
    number: int
    sent_at: float
    payload: bytes


@dataclass
class Answer(BaseEvent):
    number: int


@dataclass
class Question(BaseRequestResponseEvent[Answer]):
    number: int

    @staticmethod
    def expected_response_type() -> type[Answer]:
        return Answer


def implementation() -> str:
    """Return which lahja this process runs."""
    try:
        from lahja.framing import IMPLEMENTATION
    except ImportError:
        return "upstream"
    return str(IMPLEMENTATION)


class Meter:
    """Take note of the events that come in, the first ones excepted."""

    def __init__(self, events: int) -> None:
        self.expected = WARM_UP + events
        self.received = 0
        self.begun = self.seconds = self.cpu_begun = self.cpu_seconds = 0.0

    def count(self, event: Small) -> None:
        assert event.number == self.received
        self.received += 1
        if self.received == WARM_UP:
            self.begun, self.cpu_begun = time.perf_counter(), time.process_time()
        elif self.received == self.expected:
            self.seconds = time.perf_counter() - self.begun
            self.cpu_seconds = time.process_time() - self.cpu_begun


async def receive(
    endpoint_class: Any, config: ConnectionConfig, events: int, requests: int
) -> None:
    """Measure the rate at which events come in by a stream, then answer requests."""
    meter = Meter(events)
    async with endpoint_class.serve(config) as endpoint:
        if events:
            async for event in endpoint.stream(Small, num_events=meter.expected):
                meter.count(event)
        await answer(endpoint, requests)
    report(meter, events)


async def handle(endpoint_class: Any, config: ConnectionConfig, events: int, requests: int) -> None:
    """Do the same with a handler in place of the stream."""
    meter = Meter(events)
    async with endpoint_class.serve(config) as endpoint:
        endpoint.subscribe(Small, meter.count)
        await answer(endpoint, requests)
    report(meter, events)


async def answer(endpoint: Any, requests: int) -> None:
    """Answer requests, and one more."""
    async for question in endpoint.stream(Question, num_events=requests + 1):
        await endpoint.broadcast(Answer(question.number), question.broadcast_config())


def report(meter: Meter, events: int) -> None:
    """Print what was measured."""
    rate = events / meter.seconds if events else None
    cpu = meter.cpu_seconds / events if events else None
    print(json.dumps({"events_per_second": rate, "cpu_seconds_per_event": cpu}))


async def send(endpoint_class: Any, config: ConnectionConfig, events: int, requests: int) -> None:
    """Send events as fast as they are taken, then requests one after the other."""
    await _send(endpoint_class("sender").run(), config, events, requests)


async def serve_and_send(
    endpoint_class: Any, config: ConnectionConfig, events: int, requests: int
) -> None:
    """Do the same by an endpoint that serves, beside the receiver."""
    own = ConnectionConfig("sender", config.path.parent / "sender.ipc")
    await _send(endpoint_class.serve(own), config, events, requests)


async def _send(running: Any, config: ConnectionConfig, events: int, requests: int) -> None:
    async with running as endpoint:
        await endpoint.connect_to_endpoints(config)
        cpu = None
        if events:
            await endpoint.wait_until_endpoint_subscribed_to(config.name, Small)
            for number in range(WARM_UP + events):
                if number == WARM_UP:
                    cpu_begun = time.process_time()
                await endpoint.broadcast(Small(number, time.time(), PAYLOAD))
            cpu = (time.process_time() - cpu_begun) / events
        await endpoint.wait_until_endpoint_subscribed_to(config.name, Question)
        to_receiver = BroadcastConfig(filter_endpoint=config.name)
        times = []
        asking = time.process_time()
        for number in range(requests + 1):  # the first one says that all events have arrived
            begun = time.perf_counter()
            answer = await endpoint.request(Question(number), to_receiver)
            times.append(time.perf_counter() - begun)
            assert answer.number == number
        asking = (time.process_time() - asking) / (requests + 1)
    times = sorted(times[1:])
    result = {
        "implementation": implementation(),
        "python": platform.python_version(),
        "lahja": str(pathlib.Path(lahja.__file__).parent),
        "round_trips": times,
        "cpu_seconds_per_event": cpu,
        "cpu_seconds_per_request": asking,
    }
    print(json.dumps(result))


def main() -> None:
    role, backend, path, events, requests = sys.argv[1:]
    config = ConnectionConfig("receiver", pathlib.Path(path))
    function = {
        "receive": receive,
        "handle": handle,
        "send": send,
        "serve-and-send": serve_and_send,
    }[role]
    if backend == "trio":
        import trio

        from lahja import TrioEndpoint

        trio.run(function, TrioEndpoint, config, int(events), int(requests))
    else:
        asyncio.run(function(AsyncioEndpoint, config, int(events), int(requests)))


if __name__ == "__main__":
    main()
