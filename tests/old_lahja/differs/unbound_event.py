"""Ask a new event where a response to it would go, and end a subscription twice."""

import asyncio
from collections.abc import Callable

from lahja import AsyncioEndpoint, BaseEvent


class Ping(BaseEvent):
    pass


def attempt(what: str, function: Callable[[], object]) -> None:
    try:
        function()
        print(f"{what}: is done")
    except Exception as error:
        print(f"{what}: {type(error).__name__}")


async def main() -> None:
    async with AsyncioEndpoint("endpoint").run() as endpoint:
        subscription = endpoint.subscribe(Ping, lambda event: None)
        subscription.unsubscribe()
        attempt("unsubscribe twice", subscription.unsubscribe)
        attempt("broadcast_config of a new event", Ping().broadcast_config)


asyncio.run(main())
