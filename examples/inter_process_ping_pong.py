"""
Chatter between two processes.

Each process says hello once a second. The first one broadcasts an event every five seconds, the
second one every two; each receives the other's by a handler, and the second by a stream, too.

    python examples/inter_process_ping_pong.py [--seconds N]

It runs until Ctrl-C, or for so many seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import logging
import multiprocessing
import tempfile
from pathlib import Path

from lahja import AsyncioEndpoint, BaseEvent, ConnectionConfig, Stream

logger = logging.getLogger(__name__)


class BaseExampleEvent(BaseEvent):
    def __init__(self, payload: str) -> None:
        super().__init__()
        self.payload = payload


class FirstThingHappened(BaseExampleEvent):
    pass


class SecondThingHappened(BaseExampleEvent):
    pass


def run_proc1(config: ConnectionConfig, seconds: float | None) -> None:
    setup_logging()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(proc1_worker(config, seconds))


async def proc1_worker(config: ConnectionConfig, seconds: float | None) -> None:
    async with AsyncioEndpoint.serve(config) as server:
        server.subscribe(
            SecondThingHappened,
            lambda event: logger.info("Received via SUBSCRIBE API in proc1: %s", event.payload),
        )
        await server.wait_until_any_endpoint_subscribed_to(FirstThingHappened)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for second in itertools.count():
                    logger.info("Hello from proc1")
                    if second % 5 == 0:
                        await server.broadcast(FirstThingHappened("Hit from proc1"))
                    await asyncio.sleep(1)


def run_proc2(config: ConnectionConfig, seconds: float | None) -> None:
    setup_logging()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(proc2_worker(config, seconds))


async def proc2_worker(config: ConnectionConfig, seconds: float | None) -> None:
    async with AsyncioEndpoint("e2").run() as client:
        await client.connect_to_endpoints(config)
        stream = client.stream(FirstThingHappened)
        client.subscribe(
            FirstThingHappened,
            lambda event: logger.info("Received via SUBSCRIBE API in proc2: %s", event.payload),
        )
        await client.wait_until_any_endpoint_subscribed_to(SecondThingHappened)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as tasks:
                tasks.create_task(display_proc1_events(stream))
                for second in itertools.count():
                    logger.info("Hello from proc2")
                    if second % 2 == 0:
                        await client.broadcast(SecondThingHappened("Hit from proc2"))
                    await asyncio.sleep(1)


async def display_proc1_events(stream: Stream[FirstThingHappened]) -> None:
    async for event in stream:
        logger.info("Received via STREAM API in proc2: %s", event.payload)


def setup_logging() -> None:
    logging.basicConfig(
        level=logging.INFO,
        format="%(levelname)s  %(asctime)s  %(message)s",
        datefmt="%m-%d %H:%M:%S",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Chatter between two processes.")
    parser.add_argument("--seconds", type=float, help="how long it runs (default: until Ctrl-C)")
    seconds = parser.parse_args().seconds

    with tempfile.TemporaryDirectory(prefix="lahja-") as directory:
        config = ConnectionConfig.from_name("e1", Path(directory))
        processes = [
            multiprocessing.Process(target=run, args=(config, seconds), daemon=True)
            for run in (run_proc1, run_proc2)
        ]
        with contextlib.suppress(KeyboardInterrupt):
            for process in processes:
                process.start()
            for process in processes:
                process.join()


if __name__ == "__main__":
    main()
