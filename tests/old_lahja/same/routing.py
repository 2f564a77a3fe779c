"""Where an event goes: to all, to one, to nobody else, and back to where one came from."""

import asyncio
import functools
import tempfile
from pathlib import Path

from lahja import AsyncioEndpoint, BaseEvent, BroadcastConfig, ConnectionConfig


class News(BaseEvent):
    def __init__(self, text: str) -> None:
        self.text = text


class Received(BaseEvent):
    pass


async def main(directory: Path) -> None:
    configs = [ConnectionConfig.from_name(name, directory) for name in ("ann", "bob")]
    async with (
        AsyncioEndpoint.serve(configs[0]) as ann,
        AsyncioEndpoint.serve(configs[1]) as bob,
        AsyncioEndpoint("cat").run() as cat,
    ):
        await cat.connect_to_endpoints(*configs)
        got: asyncio.Queue[str] = asyncio.Queue()

        def note(endpoint: AsyncioEndpoint, event: News) -> None:
            got.put_nowait(f"{endpoint.name} {event.text}")

        for endpoint in (ann, bob, cat):
            endpoint.subscribe(News, functools.partial(note, endpoint))
        await cat.wait_until_all_endpoints_subscribed_to(News)

        await cat.broadcast(News("for all"))
        await cat.broadcast(News("for bob"), BroadcastConfig(filter_endpoint="bob"))
        await cat.broadcast(News("for cat"), BroadcastConfig(filter_endpoint="cat"))
        await cat.broadcast(News("within"), BroadcastConfig(internal=True))
        print(*sorted([await got.get() for _ in range(6)]), sep="\n")

        def confirm(event: News) -> None:
            ann.broadcast_nowait(Received(), event.broadcast_config())

        ann.subscribe(News, confirm)
        confirmed: asyncio.Queue[str] = asyncio.Queue()

        def note_too(endpoint: AsyncioEndpoint, event: Received) -> None:
            confirmed.put_nowait(f"{endpoint.name} hears from {event.get_origin()}")

        for endpoint in (bob, cat):
            endpoint.subscribe(Received, functools.partial(note_too, endpoint))
        await ann.wait_until_endpoint_subscribed_to("cat", Received)
        await cat.broadcast(News("once more"))
        print(await confirmed.get())
        config = BroadcastConfig(filter_endpoint="bob")
        print(config.allowed_to_receive("bob"), config.allowed_to_receive("ann"))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(main(Path(directory)))
