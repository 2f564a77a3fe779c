"""Request something in a handler."""

import asyncio
import tempfile
from pathlib import Path

from lahja import AsyncioEndpoint, BaseEvent, BaseRequestResponseEvent, ConnectionConfig


class Start(BaseEvent):
    pass


class Answer(BaseEvent):
    pass


class Ask(BaseRequestResponseEvent[Answer]):
    @staticmethod
    def expected_response_type() -> type[Answer]:
        return Answer


async def main(directory: Path) -> None:
    config = ConnectionConfig.from_name("server", directory)
    async with AsyncioEndpoint.serve(config) as server, AsyncioEndpoint("client").run() as client:
        await client.connect_to_endpoints(config)
        done = asyncio.Event()

        async def start(event: Start) -> None:
            try:
                response = await asyncio.wait_for(server.request(Ask()), 2)
                print("an", type(response).__name__, "has come")
            except TimeoutError:
                print("the handler keeps away the response that it waits for")
            done.set()

        async def respond(request: Ask) -> None:
            await client.broadcast(Answer(), request.broadcast_config())

        server.subscribe(Start, start)
        client.subscribe(Ask, respond)
        await client.wait_until_endpoint_subscribed_to("server", Start)
        await server.wait_until_endpoint_subscribed_to("client", Ask)
        await client.broadcast(Start())
        await done.wait()


with tempfile.TemporaryDirectory() as directory:
    asyncio.run(main(Path(directory)))
