"""What arrives is what was sent, in value and in type."""

import asyncio
import enum
import multiprocessing
import tempfile
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, NamedTuple

from lahja import AsyncioEndpoint, BaseEvent, ConnectionConfig


class Colour(enum.Enum):
    RED = 1


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Box:
    content: object


@dataclass
class Carry(BaseEvent):
    value: Any
    label: str = "labelled"


class Tagged(Carry):
    pass


VALUES = [
    None,
    True,
    -1,
    2**64,
    0.1,
    "text",
    b"bytes",
    (1, (2,)),
    [1, [2]],
    {"key": {"key": 1}},
    {1},
    frozenset({2}),
    Colour.RED,
    Point(1, 2),
    Box([Box(None)]),
    Path("path"),
    1 + 2j,
    range(3),
    ValueError("wrong"),
]


def run_sender(config: ConnectionConfig, ready: Event) -> None:
    asyncio.run(send(config, ready))


async def send(config: ConnectionConfig, ready: Event) -> None:
    async with AsyncioEndpoint.serve(config) as endpoint:
        ready.set()
        await endpoint.wait_until_endpoint_subscribed_to("receiver", Tagged)
        for value in VALUES:
            event = Tagged(value)
            event.label = "changed"
            event.added = "later"  # type: ignore[attr-defined]
            await endpoint.broadcast(event)


async def receive(config: ConnectionConfig) -> None:
    async with AsyncioEndpoint("receiver").run() as endpoint:
        await endpoint.connect_to_endpoints(config)
        async for event in endpoint.stream(Tagged, num_events=len(VALUES)):
            attributes = {
                name: value
                for name, value in vars(event).items()
                if name not in ("_origin", "_id", "is_bound")
            }
            print(type(event).__name__, attributes)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        config = ConnectionConfig.from_name("sender", Path(directory))
        ready = multiprocessing.Event()
        process = multiprocessing.Process(target=run_sender, args=(config, ready))
        process.start()
        ready.wait()
        asyncio.run(receive(config))
        process.join()
