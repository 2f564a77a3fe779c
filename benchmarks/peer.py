"""
One process of the comparison with upstream; it runs under any lahja from 0.16 on.

It is started by :mod:`benchmarks.upstream`, with the interpreter of either environment, and imports
nothing but lahja and what that needs. The receiving side prints one line of JSON.
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


async def receive(
    endpoint_class: Any, config: ConnectionConfig, events: int, requests: int
) -> None:
    """Measure the rate at which events come in, then answer requests."""
    async with endpoint_class.serve(config) as endpoint:
        seconds = 0.0
        received = 0
        if events:
            begun = 0.0
            async for event in endpoint.stream(Small, num_events=WARM_UP + events):
                assert event.number == received
                received += 1
                if received == WARM_UP:
                    begun = time.perf_counter()
            seconds = time.perf_counter() - begun
        async for question in endpoint.stream(Question, num_events=requests + 1):
            await endpoint.broadcast(Answer(question.number), question.broadcast_config())
    print(json.dumps({"events_per_second": events / seconds if events else None}))


async def send(endpoint_class: Any, config: ConnectionConfig, events: int, requests: int) -> None:
    """Send events as fast as they are taken, then requests one after the other."""
    async with endpoint_class("sender").run() as endpoint:
        await endpoint.connect_to_endpoints(config)
        if events:
            await endpoint.wait_until_endpoint_subscribed_to(config.name, Small)
            for number in range(WARM_UP + events):
                await endpoint.broadcast(Small(number, time.time(), PAYLOAD))
        await endpoint.wait_until_endpoint_subscribed_to(config.name, Question)
        to_receiver = BroadcastConfig(filter_endpoint=config.name)
        times = []
        for number in range(requests + 1):  # the first one says that all events have arrived
            begun = time.perf_counter()
            answer = await endpoint.request(Question(number), to_receiver)
            times.append(time.perf_counter() - begun)
            assert answer.number == number
    times = sorted(times[1:])
    result = {
        "implementation": implementation(),
        "python": platform.python_version(),
        "lahja": str(pathlib.Path(lahja.__file__).parent),
        "round_trips": times,
    }
    print(json.dumps(result))


def main() -> None:
    role, backend, path, events, requests = sys.argv[1:]
    config = ConnectionConfig("receiver", pathlib.Path(path))
    function = {"receive": receive, "send": send}[role]
    if backend == "trio":
        import trio

        from lahja import TrioEndpoint

        trio.run(function, TrioEndpoint, config, int(events), int(requests))
    else:
        asyncio.run(function(AsyncioEndpoint, config, int(events), int(requests)))


if __name__ == "__main__":
    main()
