"""Broadcasts that need no subscriber, and requests, which need one."""

import asyncio

from lahja import AsyncioEndpoint, BaseEvent, BaseRequestResponseEvent, BroadcastConfig
from lahja.exceptions import LahjaError, NoSubscribers


class Ping(BaseEvent):
    pass


class Ask(BaseRequestResponseEvent[Ping]):
    @staticmethod
    def expected_response_type() -> type[Ping]:
        return Ping


async def main() -> None:
    async with AsyncioEndpoint("endpoint").run() as endpoint:
        await endpoint.broadcast(Ping(), BroadcastConfig(require_subscriber=False))
        endpoint.broadcast_nowait(Ping(), BroadcastConfig(require_subscriber=False))
        print("broadcast: nobody minds")
        try:
            await endpoint.request(Ask())
        except NoSubscribers as error:
            print(f"request: {type(error).__name__}, a LahjaError: {isinstance(error, LahjaError)}")
        received = asyncio.Event()
        endpoint.subscribe(Ping, lambda event: received.set())
        await endpoint.broadcast(Ping(), BroadcastConfig(require_subscriber=True))
        await received.wait()
        print("broadcast: somebody got it")


if __name__ == "__main__":
    asyncio.run(main())
