"""The same on trio: handlers, streams, waits, requests."""

import tempfile
from pathlib import Path

import trio

from lahja import BaseEvent, BaseRequestResponseEvent, ConnectionConfig, TrioEndpoint


class Number(BaseEvent):
    def __init__(self, value: int) -> None:
        self.value = value


class Half(BaseRequestResponseEvent[Number]):
    def __init__(self, value: int) -> None:
        self.value = value

    @staticmethod
    def expected_response_type() -> type[Number]:
        return Number


async def main(directory: Path) -> None:
    config = ConnectionConfig.from_name("server", directory)
    client = TrioEndpoint("client")
    print(client.is_running, client.is_stopped)
    async with TrioEndpoint.serve(config) as server, client.run():
        await client.wait_started()
        await client.connect_to_endpoints(config)

        async def half(request: Half) -> None:
            await server.broadcast(Number(request.value // 2), request.broadcast_config())

        async def read() -> None:
            print("streamed", [each.value async for each in server.stream(Number, num_events=3)])

        server.subscribe(Half, half)
        await client.wait_until_endpoint_subscribed_to("server", Half)
        print("half of 84 is", (await client.request(Half(84))).value)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await client.wait_until_endpoint_subscribed_to("server", Number)
            for value in range(3):
                await client.broadcast(Number(value))
        with trio.move_on_after(0.1) as scope:
            await server.wait_for(Number)
        print("cancelled", scope.cancelled_caught)
    await client.wait_stopped()
    print(client.is_running, client.is_stopped, server.is_server_stopped, config.path.exists())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        trio.run(main, Path(directory))
