"""Handle one type slowly, and another one that arrives meanwhile."""

import asyncio
import tempfile
from pathlib import Path

from lahja import AsyncioEndpoint, BaseEvent, ConnectionConfig


class Heavy(BaseEvent):
    pass


class Light(BaseEvent):
    pass


async def main(directory: Path) -> None:
    config = ConnectionConfig.from_name("server", directory)
    async with AsyncioEndpoint.serve(config) as server, AsyncioEndpoint("client").run() as client:
        await client.connect_to_endpoints(config)
        done: list[str] = []
        both = asyncio.Event()
        one_at_a_time = asyncio.Lock()

        def note(what: str) -> None:
            done.append(what)
            if len(done) == 2:
                both.set()

        async def heavy(event: Heavy) -> None:
            async with one_at_a_time:
                await asyncio.sleep(0.5)
                note("heavy")

        async def light(event: Light) -> None:
            async with one_at_a_time:
                note("light")

        server.subscribe(Heavy, heavy)
        server.subscribe(Light, light)
        await client.wait_until_endpoint_subscribed_to("server", Light)
        await client.broadcast(Heavy())
        await client.broadcast(Light())
        await both.wait()
        print(done)


with tempfile.TemporaryDirectory() as directory:
    asyncio.run(main(Path(directory)))
