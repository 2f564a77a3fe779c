"""Use an endpoint before it runs, twice, and after it has stopped."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from lahja import AsyncioEndpoint, BaseEvent


class Ping(BaseEvent):
    pass


async def attempt(what: str, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        await asyncio.wait_for(function(), 1)
        print(f"{what:20} is done")
    except TimeoutError:
        print(f"{what:20} waits")
    except Exception as error:
        print(f"{what:20} {type(error).__name__}")


async def main() -> None:
    endpoint = AsyncioEndpoint("endpoint")
    endpoint.subscribe(Ping, lambda event: None)

    async def broadcast() -> None:
        await endpoint.broadcast(Ping())

    async def wait() -> None:
        await endpoint.wait_for(Ping)

    async def run() -> None:
        async with endpoint.run():
            pass

    await attempt("broadcast before", broadcast)
    await attempt("wait_for before", wait)
    async with endpoint.run():
        await attempt("run within", run)
    await attempt("broadcast after", broadcast)
    await attempt("run after", run)


asyncio.run(main())
