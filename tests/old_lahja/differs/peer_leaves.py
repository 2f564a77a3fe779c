"""Ask whether an endpoint is connected that has left, and connect to it again."""

import asyncio
import tempfile
from pathlib import Path

from lahja import AsyncioEndpoint, ConnectionConfig


async def main(directory: Path) -> None:
    config = ConnectionConfig.from_name("server", directory)
    async with AsyncioEndpoint("client").run() as client:
        async with AsyncioEndpoint.serve(config):
            await client.connect_to_endpoints(config)
        try:
            await asyncio.wait_for(client.wait_until_connections_change(), 2)
        except TimeoutError:
            pass
        print("connected:", client.is_connected_to("server"))
        async with AsyncioEndpoint.serve(config):
            try:
                await client.connect_to_endpoints(config)
                print("connected again")
            except Exception as error:
                print(type(error).__name__)


with tempfile.TemporaryDirectory() as directory:
    asyncio.run(main(Path(directory)))
