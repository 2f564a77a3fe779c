"""Broadcast an event again that nobody got."""

import asyncio

from lahja import AsyncioEndpoint, BaseEvent, BroadcastConfig


class Ping(BaseEvent):
    pass


async def main() -> None:
    async with AsyncioEndpoint("endpoint").run() as endpoint:
        event = Ping()
        await endpoint.broadcast(event, BroadcastConfig())
        print("bound:", event.is_bound)
        try:
            await endpoint.broadcast(event, BroadcastConfig())
            print("broadcast again")
        except Exception as error:
            print(type(error).__name__)


asyncio.run(main())
