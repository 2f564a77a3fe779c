"""Streams: so many events, until a break, until cancelled."""

import asyncio

from lahja import AsyncioEndpoint, BaseEvent, BroadcastConfig


class Number(BaseEvent):
    def __init__(self, value: int) -> None:
        self.value = value


async def main() -> None:
    async with AsyncioEndpoint("endpoint").run() as endpoint:

        async def three() -> list[int]:
            return [event.value async for event in endpoint.stream(Number, num_events=3)]

        async def until_two() -> list[int]:
            values = []
            async for event in endpoint.stream(Number):
                values.append(event.value)
                if event.value == 2:
                    break
            return values

        async def none() -> list[int]:
            return [event.value async for event in endpoint.stream(Number, num_events=0)]

        for read in (three, until_two):
            task = asyncio.ensure_future(read())
            await endpoint.wait_until_any_endpoint_subscribed_to(Number)
            for value in range(6):
                await endpoint.broadcast(Number(value), BroadcastConfig())
            print(await task)
        print(await none())

        async def forever() -> None:
            async for _ in endpoint.stream(Number):
                pass

        endless = asyncio.ensure_future(forever())
        await endpoint.wait_until_any_endpoint_subscribed_to(Number)
        endless.cancel()
        try:
            await endless
        except asyncio.CancelledError:
            print("cancelled;", "subscribed to", endpoint.get_subscribed_events())


if __name__ == "__main__":
    asyncio.run(main())
