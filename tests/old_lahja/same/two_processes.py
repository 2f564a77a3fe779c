"""A process that broadcasts, and one that subscribes, streams and waits."""

import asyncio
import multiprocessing
import tempfile
from multiprocessing.synchronize import Event
from pathlib import Path

from lahja import AsyncioEndpoint, BaseEvent, ConnectionConfig


class Price(BaseEvent):
    def __init__(self, euros: int) -> None:
        super().__init__()
        self.euros = euros


class Closed(BaseEvent):
    pass


class Understood(BaseEvent):
    pass


def run_market(config: ConnectionConfig, ready: Event) -> None:
    asyncio.run(market(config, ready))


async def market(config: ConnectionConfig, ready: Event) -> None:
    async with AsyncioEndpoint.serve(config) as endpoint:
        ready.set()
        await endpoint.wait_until_endpoint_subscribed_to("trader", Price)
        await endpoint.wait_until_endpoint_subscribed_to("trader", Closed)
        for euros in range(5):
            await endpoint.broadcast(Price(euros))
        await endpoint.broadcast(Closed())
        await endpoint.wait_for(Understood)


async def trader(config: ConnectionConfig) -> None:
    async with AsyncioEndpoint("trader").run() as endpoint:
        await endpoint.connect_to_endpoints(config)
        handled: list[int] = []

        async def read() -> list[int]:
            return [event.euros async for event in endpoint.stream(Price, num_events=5)]

        endpoint.subscribe(Price, lambda event: handled.append(event.euros))
        reader = asyncio.ensure_future(read())
        closed = await endpoint.wait_for(Closed)
        print("streamed", await reader)
        print("handled", handled)
        print(type(closed).__name__, "comes from", closed.get_origin())
        await endpoint.wait_until_endpoint_subscribed_to("market", Understood)
        await endpoint.broadcast(Understood())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        config = ConnectionConfig.from_name("market", Path(directory))
        ready = multiprocessing.Event()
        process = multiprocessing.Process(target=run_market, args=(config, ready))
        process.start()
        ready.wait()
        asyncio.run(trader(config))
        process.join()
