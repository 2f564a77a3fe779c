"""Make a stream, and read it later."""

import asyncio

from lahja import AsyncioEndpoint, BaseEvent


class Number(BaseEvent):
    def __init__(self, value: int) -> None:
        self.value = value


async def main() -> None:
    async with AsyncioEndpoint("endpoint").run() as endpoint:
        endpoint.subscribe(Number, lambda event: None)  # there is always somebody
        await endpoint.broadcast(Number(1))
        stream = endpoint.stream(Number, num_events=2)
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.05)
        await endpoint.broadcast(Number(2))
        print("the first that it gives is", (await reading).value)


asyncio.run(main())
