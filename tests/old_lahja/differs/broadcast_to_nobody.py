"""Broadcast an event that nobody subscribed to."""

import asyncio

from lahja import AsyncioEndpoint, BaseEvent
from lahja.exceptions import LahjaError


class Ping(BaseEvent):
    pass


async def main() -> None:
    async with AsyncioEndpoint("endpoint").run() as endpoint:
        try:
            await endpoint.broadcast(Ping())
            print("nothing happens")
        except LahjaError as error:
            print(type(error).__name__)


asyncio.run(main())
