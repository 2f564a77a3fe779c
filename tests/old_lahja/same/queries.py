"""Who is connected, and who subscribes to what."""

import asyncio
import tempfile
from pathlib import Path

from lahja import AsyncioEndpoint, BaseEvent, ConnectionConfig


class One(BaseEvent):
    pass


class Two(BaseEvent):
    pass


def ignore(event: BaseEvent) -> None:
    pass


def show(endpoint: AsyncioEndpoint) -> None:
    print(
        endpoint.is_any_endpoint_subscribed_to(One),
        endpoint.are_all_endpoints_subscribed_to(One),
        endpoint.are_all_endpoints_subscribed_to(One, include_self=False),
        endpoint.is_endpoint_subscribed_to("server", One),
        endpoint.is_endpoint_subscribed_to("client", One),
    )
    for name, types in endpoint.get_connected_endpoints_and_subscriptions():
        print("   ", name, sorted(each.__name__ for each in types))


async def main(directory: Path) -> None:
    config = ConnectionConfig.from_name("server", directory)
    client = AsyncioEndpoint("client")
    print(client.is_running, client.is_serving, client.name)
    async with AsyncioEndpoint.serve(config) as server, client.run():
        print(server.is_running, server.is_serving, client.is_running, client.is_serving)
        print(server.ipc_path == config.path, server.has_snappy_support in (True, False))
        await client.connect_to_endpoints(config)
        await server.wait_until_connected_to("client")
        print([server.is_connected_to(name) for name in ("server", "client", "nobody")])
        show(server)

        changed = asyncio.ensure_future(server.wait_until_endpoint_subscriptions_change())
        await asyncio.sleep(0)
        client.subscribe(One, ignore)
        await server.wait_until_any_endpoint_subscribed_to(One)
        await server.wait_until_all_endpoints_subscribed_to(One, include_self=False)
        await changed
        show(server)

        subscription = server.subscribe(One, ignore)
        server.subscribe(Two, ignore)
        await server.wait_until_all_endpoints_subscribed_to(One)
        await client.wait_until_endpoint_subscribed_to("server", Two)
        show(server)
        print(sorted(each.__name__ for each in server.get_subscribed_events()))

        subscription.unsubscribe()
        show(server)
    print(server.is_running, server.is_serving, config.path.exists())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(main(Path(directory)))
