"""Use an endpoint before it runs, twice, and after it has stopped."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from lahja import AsyncioEndpoint, BaseEvent, BroadcastConfig


class Ping(BaseEvent):
    pass


async def attempt(what: str, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        await asyncio.wait_for(function(), 0.5)
        print(f"{what}: done")
    except TimeoutError:
        print(f"{what}: waits")
    except Exception as error:
        print(f"{what}: {type(error).__name__}")


async def main() -> None:
    endpoint = AsyncioEndpoint("endpoint")
    handled = asyncio.Event()

    def handle(event: Ping) -> None:
        print("its own handler is called")
        handled.set()

    endpoint.subscribe(Ping, handle)

    async def broadcast() -> None:
        await endpoint.broadcast(Ping(), BroadcastConfig())

    async def broadcast_nowait() -> None:
        handled.clear()
        endpoint.broadcast_nowait(Ping(), BroadcastConfig())
        await handled.wait()

    async def wait() -> None:
        await endpoint.wait_for(Ping)

    async def run() -> None:
        async with endpoint.run():
            pass

    await attempt("broadcast before", broadcast)
    await attempt("broadcast_nowait before", broadcast_nowait)
    await attempt("wait_for before", wait)
    async with endpoint.run():
        await attempt("run within", run)
    await attempt("broadcast after", broadcast)
    await attempt("run after", run)


asyncio.run(main())
