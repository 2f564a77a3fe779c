"""Broadcast to a handler of the same endpoint."""

import asyncio

from lahja import AsyncioEndpoint, BaseEvent


class Ping(BaseEvent):
    pass


async def main() -> None:
    async with AsyncioEndpoint("endpoint").run() as endpoint:
        handled = asyncio.Event()

        async def handle(event: Ping) -> None:
            print("the handler begins")
            await asyncio.sleep(0.01)
            print("the handler ends")
            handled.set()

        endpoint.subscribe(Ping, handle)
        await endpoint.broadcast(Ping())
        print("broadcast has returned")
        await handled.wait()


asyncio.run(main())
