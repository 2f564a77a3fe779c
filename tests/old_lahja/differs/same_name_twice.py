"""Connect two endpoints of one name."""

import asyncio
import tempfile
from pathlib import Path

from lahja import AsyncioEndpoint, ConnectionConfig


async def main(directory: Path) -> None:
    config = ConnectionConfig.from_name("server", directory)
    async with (
        AsyncioEndpoint.serve(config),
        AsyncioEndpoint("client").run() as one,
        AsyncioEndpoint("client").run() as other,
    ):
        await one.connect_to_endpoints(config)
        try:
            await other.connect_to_endpoints(config)
            print("both believe that they are connected")
        except Exception as error:
            print("the second one gets", type(error).__name__)


with tempfile.TemporaryDirectory() as directory:
    try:
        asyncio.run(main(Path(directory)))
        print("leaving is fine")
    except Exception as error:
        print("leaving raises", type(error).__name__)
