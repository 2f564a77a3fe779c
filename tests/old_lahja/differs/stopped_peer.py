"""Send a lot to a process that is stopped."""

import asyncio
import multiprocessing
import os
import signal
import tempfile
from pathlib import Path

from lahja import AsyncioEndpoint, BaseEvent, ConnectionConfig


class Block(BaseEvent):
    def __init__(self, content: bytes) -> None:
        self.content = content


def run_receiver(config: ConnectionConfig) -> None:
    asyncio.run(receive(config))


async def receive(config: ConnectionConfig) -> None:
    async with AsyncioEndpoint("receiver").run() as endpoint:
        await endpoint.connect_to_endpoints(config)
        async for _ in endpoint.stream(Block):
            pass


async def send(endpoint: AsyncioEndpoint) -> None:
    for _ in range(100):
        await endpoint.broadcast(Block(os.urandom(100_000)))


async def main(config: ConnectionConfig) -> None:
    async with AsyncioEndpoint.serve(config) as endpoint:
        process = multiprocessing.Process(target=run_receiver, args=(config,))
        process.start()
        await endpoint.wait_until_endpoint_subscribed_to("receiver", Block)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGSTOP)
        try:
            await asyncio.wait_for(send(endpoint), 20)
            print("it goes on, without the receiver:", not endpoint.is_connected_to("receiver"))
        except TimeoutError:
            print("it waits")
        process.kill()
        process.join()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(main(ConnectionConfig.from_name("sender", Path(directory))))
