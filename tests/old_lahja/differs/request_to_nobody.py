"""Request something that nobody responds to."""

import asyncio

from lahja import AsyncioEndpoint, BaseEvent, BaseRequestResponseEvent, BroadcastConfig


class Answer(BaseEvent):
    pass


class Ask(BaseRequestResponseEvent[Answer]):
    @staticmethod
    def expected_response_type() -> type[Answer]:
        return Answer


async def attempt(endpoint: AsyncioEndpoint, config: BroadcastConfig | None) -> str:
    try:
        await asyncio.wait_for(endpoint.request(Ask(), config), 0.5)
    except TimeoutError:
        return "waits"
    except Exception as error:
        return type(error).__name__
    return "gets a response"


async def main() -> None:
    async with AsyncioEndpoint("endpoint").run() as endpoint:
        print("without a configuration:", await attempt(endpoint, None))
        config = BroadcastConfig()
        print("with one:", await attempt(endpoint, config))


asyncio.run(main())
