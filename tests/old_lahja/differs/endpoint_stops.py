"""Wait for something at an endpoint that stops meanwhile."""

import asyncio
import tempfile
from collections.abc import Awaitable
from pathlib import Path

from lahja import AsyncioEndpoint, BaseEvent, BaseRequestResponseEvent, ConnectionConfig


class Answer(BaseEvent):
    pass


class Ask(BaseRequestResponseEvent[Answer]):
    @staticmethod
    def expected_response_type() -> type[Answer]:
        return Answer


async def outcome(awaitable: Awaitable[object]) -> str:
    try:
        return f"{await asyncio.wait_for(awaitable, 5)}"
    except TimeoutError:
        return "it waits"
    except Exception as error:
        return type(error).__name__


async def read(endpoint: AsyncioEndpoint) -> str:
    async for _ in endpoint.stream(Answer):
        pass
    return "the stream ends"


async def main(directory: Path) -> None:
    config = ConnectionConfig.from_name("server", directory)
    async with AsyncioEndpoint.serve(config) as server:
        async with AsyncioEndpoint("client").run() as client:
            await client.connect_to_endpoints(config)
            asked = asyncio.Event()
            server.subscribe(Ask, lambda request: asked.set())
            await client.wait_until_endpoint_subscribed_to("server", Ask)
            outcomes = asyncio.gather(
                outcome(client.request(Ask())),
                outcome(client.wait_for(Answer)),
                outcome(read(client)),
            )
            await asked.wait()
        for what, happened in zip(("request", "wait_for", "stream"), await outcomes, strict=True):
            print(f"{what:9} {happened}")


with tempfile.TemporaryDirectory() as directory:
    asyncio.run(main(Path(directory)))
