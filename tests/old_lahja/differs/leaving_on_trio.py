"""Broadcast without waiting, and leave, on trio."""

import tempfile
from pathlib import Path

import trio

from lahja import BaseEvent, ConnectionConfig, TrioEndpoint


class Number(BaseEvent):
    def __init__(self, value: int) -> None:
        self.value = value


async def main(directory: Path) -> None:
    config = ConnectionConfig.from_name("server", directory)
    async with TrioEndpoint.serve(config) as server:
        values: list[int] = []
        all_there = trio.Event()

        def collect(event: Number) -> None:
            values.append(event.value)
            if len(values) == 10:
                all_there.set()

        server.subscribe(Number, collect)
        async with TrioEndpoint("client").run() as client:
            await client.connect_to_endpoints(config)
            await client.wait_until_endpoint_subscribed_to("server", Number)
            for value in range(10):
                client.broadcast_nowait(Number(value))
        with trio.move_on_after(2):
            await all_there.wait()
        print(len(values), "of 10 have arrived")


with tempfile.TemporaryDirectory() as directory:
    trio.run(main, Path(directory))
