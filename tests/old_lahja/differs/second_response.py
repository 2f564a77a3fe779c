"""Respond twice to one request, whose caller has subscribed to the responses, too."""

import asyncio
import tempfile
from pathlib import Path

from lahja import AsyncioEndpoint, BaseEvent, BaseRequestResponseEvent, ConnectionConfig


class Answer(BaseEvent):
    def __init__(self, text: str) -> None:
        self.text = text


class Ask(BaseRequestResponseEvent[Answer]):
    @staticmethod
    def expected_response_type() -> type[Answer]:
        return Answer


class Done(BaseEvent):
    pass


async def main(directory: Path) -> None:
    config = ConnectionConfig.from_name("server", directory)
    async with AsyncioEndpoint.serve(config) as server, AsyncioEndpoint("client").run() as client:
        await client.connect_to_endpoints(config)
        done = asyncio.Event()

        async def respond(request: Ask) -> None:
            await server.broadcast(Answer("first"), request.broadcast_config())
            await server.broadcast(Answer("second"), request.broadcast_config())
            await server.broadcast(Done())

        client.subscribe(Answer, lambda event: print("the handler gets", event.text))
        client.subscribe(Done, lambda event: done.set())
        server.subscribe(Ask, respond)
        await client.wait_until_endpoint_subscribed_to("server", Ask)
        await server.wait_until_endpoint_subscribed_to("client", Answer)
        await server.wait_until_endpoint_subscribed_to("client", Done)
        response = await client.request(Ask())
        await done.wait()
        print("the request got", response.text)


with tempfile.TemporaryDirectory() as directory:
    asyncio.run(main(Path(directory)))
