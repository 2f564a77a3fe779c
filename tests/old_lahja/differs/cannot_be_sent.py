"""Broadcast what cannot be pickled."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from lahja import AsyncioEndpoint, BaseEvent, ConnectionConfig


class Carry(BaseEvent):
    def __init__(self, value: Any) -> None:
        self.value = value


async def main(directory: Path) -> None:
    config = ConnectionConfig.from_name("server", directory)
    async with AsyncioEndpoint.serve(config) as server, AsyncioEndpoint("client").run() as client:
        await client.connect_to_endpoints(config)
        server.subscribe(Carry, lambda event: None)
        await client.wait_until_endpoint_subscribed_to("server", Carry)
        try:
            await client.broadcast(Carry(lambda: None))
        except Exception as error:
            print(type(error).__name__)


with tempfile.TemporaryDirectory() as directory:
    asyncio.run(main(Path(directory)))
