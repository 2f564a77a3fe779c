"""Request something that nobody responds to."""

import asyncio

from lahja import AsyncioEndpoint, BaseEvent, BaseRequestResponseEvent


class Answer(BaseEvent):
    pass


class Ask(BaseRequestResponseEvent[Answer]):
    @staticmethod
    def expected_response_type() -> type[Answer]:
        return Answer


async def main() -> None:
    async with AsyncioEndpoint("endpoint").run() as endpoint:
        try:
            await asyncio.wait_for(endpoint.request(Ask()), 1)
        except TimeoutError:
            print("it waits")
        except Exception as error:
            print(type(error).__name__)


asyncio.run(main())
