"""Wait for the response of an endpoint that leaves before it has responded."""

import asyncio
import tempfile
from pathlib import Path

from lahja import AsyncioEndpoint, BaseEvent, BaseRequestResponseEvent, ConnectionConfig


class Answer(BaseEvent):
    pass


class Ask(BaseRequestResponseEvent[Answer]):
    @staticmethod
    def expected_response_type() -> type[Answer]:
        return Answer


async def ask(endpoint: AsyncioEndpoint) -> None:
    try:
        await asyncio.wait_for(endpoint.request(Ask()), 5)
    except TimeoutError:
        print("it waits")
    except Exception as error:
        print(type(error).__name__)


async def main(directory: Path) -> None:
    config = ConnectionConfig.from_name("server", directory)
    async with AsyncioEndpoint("client").run() as client:
        async with AsyncioEndpoint.serve(config) as server:
            await client.connect_to_endpoints(config)
            asked = asyncio.Event()
            server.subscribe(Ask, lambda request: asked.set())
            await client.wait_until_endpoint_subscribed_to("server", Ask)
            asking = asyncio.ensure_future(ask(client))
            await asked.wait()
        await asking


with tempfile.TemporaryDirectory() as directory:
    asyncio.run(main(Path(directory)))
