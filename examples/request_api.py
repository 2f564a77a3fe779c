"""
Ask another process, and wait for its answer.

    python examples/request_api.py [--seconds N]

It runs until Ctrl-C, or for so many seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lahja import AsyncioEndpoint, BaseEvent, BaseRequestResponseEvent, ConnectionConfig


@dataclass
class DeliverSomething(BaseEvent):
    payload: str


@dataclass
class GetSomething(BaseRequestResponseEvent[DeliverSomething]):
    @staticmethod
    def expected_response_type() -> type[DeliverSomething]:
        return DeliverSomething


def run_server(config: ConnectionConfig) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(config))


async def serve(config: ConnectionConfig) -> None:
    async with AsyncioEndpoint.serve(config) as server:
        async for request in server.stream(GetSomething):
            # The request knows where it came from: only the one who asked gets the response.
            await server.broadcast(DeliverSomething("Yay"), request.broadcast_config())


async def ask(config: ConnectionConfig, seconds: float | None) -> None:
    async with AsyncioEndpoint("client").run() as client:
        await client.connect_to_endpoints(config)
        await client.wait_until_endpoint_subscribed_to(config.name, GetSomething)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    print("Requesting", flush=True)
                    response = await client.request(GetSomething())
                    print(f"Got answer: {response.payload}", flush=True)
                    await asyncio.sleep(1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask another process, and wait for its answer.")
    parser.add_argument("--seconds", type=float, help="how long it runs (default: until Ctrl-C)")
    seconds = parser.parse_args().seconds

    with tempfile.TemporaryDirectory(prefix="lahja-") as directory:
        config = ConnectionConfig.from_name("server", Path(directory))
        # A daemon in the sense of multiprocessing: it ends when this process does.
        server = multiprocessing.Process(target=run_server, args=(config,), daemon=True)
        server.start()
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(ask(config, seconds))


if __name__ == "__main__":
    main()
