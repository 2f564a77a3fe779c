"""Handlers of all kinds, in their order, and the end of a subscription."""

import asyncio
import tempfile
from pathlib import Path

from lahja import AsyncioEndpoint, BaseEvent, ConnectionConfig


class Number(BaseEvent):
    def __init__(self, value: int) -> None:
        self.value = value


class Collector:
    def __init__(self) -> None:
        self.values: list[int] = []
        self.has_last = asyncio.Event()

    def collect(self, event: Number) -> None:
        self.values.append(event.value)
        if event.value in (4, 7):
            self.has_last.set()

    async def collect_slowly(self, event: Number) -> None:
        await asyncio.sleep(0.02 if event.value == 0 else 0)
        self.collect(event)


async def main(directory: Path) -> None:
    config = ConnectionConfig.from_name("server", directory)
    async with AsyncioEndpoint.serve(config) as server, AsyncioEndpoint("client").run() as client:
        await client.connect_to_endpoints(config)
        collectors = [Collector() for _ in range(3)]
        subscriptions = [
            server.subscribe(Number, collectors[0].collect),
            server.subscribe(Number, collectors[1].collect_slowly),
            server.subscribe(Number, lambda event: collectors[2].collect(event)),
        ]
        await client.wait_until_endpoint_subscribed_to("server", Number)
        for value in range(5):
            await client.broadcast(Number(value))
        for collector in collectors:
            await collector.has_last.wait()
            collector.has_last.clear()
        subscriptions[0].unsubscribe()
        for value in range(5, 8):
            await client.broadcast(Number(value))
        for collector in collectors[1:]:
            await collector.has_last.wait()
        for collector in collectors:
            print(collector.values)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(main(Path(directory)))
