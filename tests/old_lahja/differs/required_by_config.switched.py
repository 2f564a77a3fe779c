"""Say in a configuration that a broadcast needs a subscriber."""

import asyncio

from lahja import AsyncioEndpoint, BaseEvent, BroadcastConfig
from lahja.exceptions import LahjaError


class Ping(BaseEvent):
    pass


async def main() -> None:
    async with AsyncioEndpoint("endpoint").run() as endpoint:
        try:
            await endpoint.broadcast(Ping(), BroadcastConfig(require_subscriber=False))
            print("nothing happens")
        except LahjaError as error:
            print(type(error).__name__)


asyncio.run(main())
