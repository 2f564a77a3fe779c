"""Serve where another endpoint serves."""

import asyncio
import tempfile
from pathlib import Path

from lahja import AsyncioEndpoint, ConnectionConfig


async def main(directory: Path) -> None:
    config = ConnectionConfig.from_name("server", directory)
    async with AsyncioEndpoint.serve(config):
        try:
            async with AsyncioEndpoint.serve(config):
                print("the second one serves, and nobody reaches the first")
        except OSError as error:
            print(type(error).__name__)


with tempfile.TemporaryDirectory() as directory:
    asyncio.run(main(Path(directory)))
