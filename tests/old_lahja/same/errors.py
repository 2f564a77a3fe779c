"""What is refused, and how."""

import asyncio
import pickle
import tempfile
from collections.abc import Awaitable
from pathlib import Path

from lahja import (
    AsyncioEndpoint,
    BaseEvent,
    BaseRequestResponseEvent,
    BroadcastConfig,
    ConnectionConfig,
)
from lahja.exceptions import (
    BindError,
    ConnectionAttemptRejected,
    LahjaError,
    LifecycleError,
    RemoteDisconnected,
    UnexpectedResponse,
)


class Good(BaseEvent):
    pass


class Better(Good):
    pass


class Bad(BaseEvent):
    pass


class Ask(BaseRequestResponseEvent[Good]):
    def __init__(self, response: BaseEvent) -> None:
        self.response = response

    @staticmethod
    def expected_response_type() -> type[Good]:
        return Good


async def outcome(awaitable: Awaitable[object]) -> str:
    try:
        return type(await awaitable).__name__
    except Exception as error:
        return f"{type(error).__name__}, {type(error).__mro__[1].__name__}"


async def main(directory: Path) -> None:
    config = ConnectionConfig.from_name("server", directory)
    async with AsyncioEndpoint.serve(config) as server, AsyncioEndpoint("client").run() as client:
        await client.connect_to_endpoints(config)
        print("connect again:", await outcome(client.connect_to_endpoints(config)))

        async def answer(request: Ask) -> None:
            await server.broadcast(request.response, request.broadcast_config())

        server.subscribe(Ask, answer)
        await client.wait_until_endpoint_subscribed_to("server", Ask)
        for response in (Good(), Better(), Bad()):
            print("answered with", type(response).__name__, end=": ")
            print(await outcome(client.request(Ask(response))))

        server.subscribe(Good, lambda event: None)
        await client.wait_until_endpoint_subscribed_to("server", Good)
        event = Good()
        print("broadcast:", await outcome(client.broadcast(event)), event.is_bound)
        print("broadcast again:", await outcome(client.broadcast(event)))

    for what, call in (
        ("no directory", lambda: ConnectionConfig.from_name("x", Path("/nowhere"))),
        ("internal to another", lambda: BroadcastConfig("x", internal=True)),
        ("pickle an endpoint", lambda: pickle.dumps(AsyncioEndpoint("x"))),
        ("origin of a new event", lambda: Good().get_origin()),
    ):
        try:
            print(f"{what}: {call()!r}")
        except Exception as error:
            print(f"{what}: {type(error).__name__}")
    for each in (
        BindError,
        ConnectionAttemptRejected,
        LifecycleError,
        RemoteDisconnected,
        UnexpectedResponse,
    ):
        assert issubclass(each, LahjaError)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(main(Path(directory)))
