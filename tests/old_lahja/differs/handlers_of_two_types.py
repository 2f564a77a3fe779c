"""Handle two types, the one with a coroutine function, the other with a plain one."""

import asyncio
import tempfile
from pathlib import Path

from lahja import AsyncioEndpoint, BaseEvent, BaseRequestResponseEvent, ConnectionConfig


class First(BaseEvent):
    pass


class Second(BaseEvent):
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

        async def handle_first(event: First) -> None:
            print("the coroutine function begins: First")
            await asyncio.sleep(0)
            print("the coroutine function ends: First")
            done.set()

        async def respond(request: Ask) -> None:
            await server.broadcast(First())
            await server.broadcast(Second())
            await server.broadcast(Answer(), request.broadcast_config())

        client.subscribe(First, handle_first)
        client.subscribe(Second, lambda event: print("the plain function: Second"))
        server.subscribe(Ask, respond)
        await client.wait_until_endpoint_subscribed_to("server", Ask)
        await server.wait_until_endpoint_subscribed_to("client", First)
        await server.wait_until_endpoint_subscribed_to("client", Second)
        await client.request(Ask())
        print("request has returned")
        await done.wait()


with tempfile.TemporaryDirectory() as directory:
    asyncio.run(main(Path(directory)))
