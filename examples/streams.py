"""
Read events from streams, and decide what happens when they come faster than they are read.

A feed sends prices as fast as it can, whenever it is asked for some. Another process reads them:

* a stream for so many events, which then ends by itself;
* a stream that is closed by ``async with``;
* bounded streams, one for each policy of what to do with an event for which there is no room.

    python examples/streams.py [--seconds N]

At last it reads a stream for a second, or for so many.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from lahja import (
    AsyncioEndpoint,
    BaseEvent,
    BaseRequestResponseEvent,
    ConnectionConfig,
    EndpointAPI,
    Stream,
    StreamOverflow,
)


@dataclass(slots=True)
class Price(BaseEvent):
    number: int
    euros: float


@dataclass
class Sent(BaseEvent):
    seconds: float


@dataclass
class SendPrices(BaseRequestResponseEvent[Sent]):
    count: int

    @staticmethod
    def expected_response_type() -> type[Sent]:
        return Sent


# -- The feed ------------------------------------------------------------------------------------


def run_feed(config: ConnectionConfig) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(feed(config))


async def feed(config: ConnectionConfig) -> None:
    async with AsyncioEndpoint.serve(config) as endpoint:
        async for request in endpoint.stream(SendPrices):
            started = time.perf_counter()
            for number in range(request.count):
                await endpoint.broadcast(Price(number, 100 + number / 10))
            seconds = time.perf_counter() - started
            await endpoint.broadcast(Sent(seconds), request.broadcast_config())


# -- The reader ----------------------------------------------------------------------------------


async def a_number_of_events(endpoint: EndpointAPI) -> None:
    prices = endpoint.stream(Price, num_events=3)  # subscribed from here on
    await endpoint.request(SendPrices(100))
    show("num_events=3", f"{[price.number async for price in prices]}")


async def an_open_end(endpoint: EndpointAPI) -> None:
    async with endpoint.stream(Price) as prices:  # unsubscribes at the end of the block
        await endpoint.request(SendPrices(100))
        async for price in prices:
            if price.euros > 105:
                show("async with", f"the first price above 105 is {price.euros}")
                break


async def with_drops(endpoint: EndpointAPI) -> None:
    # Events of one sender arrive in order: when the answer is here, so are all prices before it.
    async with (
        endpoint.stream(Price, max_queue=5, overflow="drop_oldest") as newest,
        endpoint.stream(Price, max_queue=5, overflow="drop_newest") as oldest,
        endpoint.stream(Price, overflow="latest") as latest,
    ):
        await endpoint.request(SendPrices(100))
        for policy, stream, count in (
            ("drop_oldest", newest, 5),
            ("drop_newest", oldest, 5),
            ("latest", latest, 1),
        ):
            numbers = [(await anext(stream)).number for _ in range(count)]
            show(policy, f"{numbers}, {stream.dropped} dropped")


async def with_an_error(endpoint: EndpointAPI) -> None:
    async with endpoint.stream(Price, max_queue=5, overflow="raise") as prices:
        await endpoint.request(SendPrices(100))
        try:
            await anext(prices)
        except StreamOverflow as error:
            show("raise", str(error))


async def with_a_slow_sender(endpoint: EndpointAPI) -> None:
    async with endpoint.stream(Price, max_queue=5, overflow="block") as prices:
        sent, _ = await asyncio.gather(
            endpoint.request(SendPrices(100)),
            take(prices, 100, pause=0.002),  # whatever it is that takes its time
        )
    show("block", f"none dropped: it took the sender {sent.seconds:.1f} s to send 100")


async def for_some_time(endpoint: EndpointAPI, seconds: float) -> None:
    # Not by a timeout around it all: that would give up on a request, whose answer comes all the
    # same, and is then ignored with a warning.
    end = time.monotonic() + seconds
    count = 0
    async with endpoint.stream(Price, max_queue=1000) as prices:
        while not count or time.monotonic() < end:
            await asyncio.gather(endpoint.request(SendPrices(1000)), take(prices, 1000))
            count += 1000
    show("for some time", f"{count} prices in {seconds:g} s")


async def take(prices: Stream[Price], count: int, pause: float = 0) -> None:
    for _ in range(count):
        await anext(prices)
        if pause:
            await asyncio.sleep(pause)


def show(what: str, text: str) -> None:
    print(f"{what:14} {text}", flush=True)


async def read(config: ConnectionConfig, seconds: float) -> None:
    async with AsyncioEndpoint("reader").run() as endpoint:
        await endpoint.connect_to_endpoints(config)
        await endpoint.wait_until_endpoint_subscribed_to(config.name, SendPrices)
        await a_number_of_events(endpoint)
        await an_open_end(endpoint)
        await with_drops(endpoint)
        await with_an_error(endpoint)
        await with_a_slow_sender(endpoint)
        await for_some_time(endpoint, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description="Read events from streams.")
    parser.add_argument("--seconds", type=float, default=1, help="of the last part (default: 1)")
    seconds = parser.parse_args().seconds

    with tempfile.TemporaryDirectory(prefix="lahja-") as directory:
        config = ConnectionConfig.from_name("feed", Path(directory))
        process = multiprocessing.Process(target=run_feed, args=(config,), daemon=True)
        process.start()
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(read(config, seconds))


if __name__ == "__main__":
    main()
