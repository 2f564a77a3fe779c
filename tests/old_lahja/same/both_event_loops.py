"""A trio process and an asyncio process on one bus."""

import asyncio
import multiprocessing
import tempfile
from multiprocessing.synchronize import Event
from pathlib import Path

import trio

from lahja import (
    AsyncioEndpoint,
    BaseEvent,
    BaseRequestResponseEvent,
    ConnectionConfig,
    TrioEndpoint,
)


class Upper(BaseEvent):
    def __init__(self, text: str) -> None:
        self.text = text


class ToUpper(BaseRequestResponseEvent[Upper]):
    def __init__(self, text: str) -> None:
        self.text = text

    @staticmethod
    def expected_response_type() -> type[Upper]:
        return Upper


def run_on_trio(config: ConnectionConfig, ready: Event) -> None:
    trio.run(serve, config, ready)


async def serve(config: ConnectionConfig, ready: Event) -> None:
    async with TrioEndpoint.serve(config) as endpoint:
        ready.set()
        async for request in endpoint.stream(ToUpper, num_events=2):
            await endpoint.broadcast(Upper(request.text.upper()), request.broadcast_config())


async def main(config: ConnectionConfig) -> None:
    async with AsyncioEndpoint("asyncio").run() as endpoint:
        await endpoint.connect_to_endpoints(config)
        await endpoint.wait_until_endpoint_subscribed_to("trio", ToUpper)
        for text in ("one", "two"):
            response = await endpoint.request(ToUpper(text))
            print(response.get_origin(), response.text)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        config = ConnectionConfig.from_name("trio", Path(directory))
        ready = multiprocessing.Event()
        process = multiprocessing.Process(target=run_on_trio, args=(config, ready))
        process.start()
        ready.wait()
        asyncio.run(main(config))
        process.join()
