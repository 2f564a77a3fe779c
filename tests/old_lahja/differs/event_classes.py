"""Send events of a frozen dataclass, and of a class within a function."""

import asyncio
import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lahja import AsyncioEndpoint, BaseEvent, ConnectionConfig


@dataclass(frozen=True)
class Frozen(BaseEvent):
    value: int


async def main(directory: Path) -> None:
    @dataclass
    class Local(BaseEvent):
        value: int

    def note(received: asyncio.Event, event: BaseEvent) -> None:
        received.set()

    config = ConnectionConfig.from_name("server", directory)
    async with AsyncioEndpoint.serve(config) as server, AsyncioEndpoint("client").run() as client:
        await client.connect_to_endpoints(config)
        for event in (Frozen(1), Local(2)):
            received = asyncio.Event()
            server.subscribe(type(event), functools.partial(note, received))
            try:
                waiting = client.wait_until_endpoint_subscribed_to("server", type(event))
                await asyncio.wait_for(waiting, 2)
                await client.broadcast(event)
                await asyncio.wait_for(received.wait(), 2)
                print(type(event).__name__, "has arrived")
            except TimeoutError:
                print(type(event).__name__, "never arrives")
            except Exception as error:
                print(type(error).__name__)


with tempfile.TemporaryDirectory() as directory:
    asyncio.run(main(Path(directory)))
