"""Connect to where nobody serves."""

import asyncio
import tempfile
from pathlib import Path

from lahja import AsyncioEndpoint, ConnectionConfig


async def main(directory: Path) -> None:
    config = ConnectionConfig.from_name("server", directory)
    async with AsyncioEndpoint("client", connect_timeout=2).run() as client:
        connecting = asyncio.ensure_future(client.connect_to_endpoints(config))
        await asyncio.wait([connecting], timeout=5)
        if connecting.done():
            print("it fails by a TimeoutError:", isinstance(connecting.exception(), TimeoutError))
        else:
            connecting.cancel()
            print("it still tries after 5 seconds")


with tempfile.TemporaryDirectory() as directory:
    asyncio.run(main(Path(directory)))
