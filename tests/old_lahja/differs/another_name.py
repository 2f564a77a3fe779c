"""Connect to an endpoint by another name than its own."""

import asyncio
import tempfile
from pathlib import Path

from lahja import AsyncioEndpoint, ConnectionConfig


async def main(directory: Path) -> None:
    config = ConnectionConfig.from_name("server", directory)
    async with AsyncioEndpoint.serve(config), AsyncioEndpoint("client").run() as client:
        try:
            other = ConnectionConfig("other", config.path)
            await asyncio.wait_for(client.connect_to_endpoints(other), 1)
        except TimeoutError:
            print("it waits")
        except Exception as error:
            print(type(error).__name__)
        print("connected to server:", client.is_connected_to("server"))


with tempfile.TemporaryDirectory() as directory:
    asyncio.run(main(Path(directory)))
