"""Let a handler fail, and see what is logged."""

import asyncio
import logging
import sys

from lahja import AsyncioEndpoint, BaseEvent

logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(name)s", level=logging.INFO)


class Ping(BaseEvent):
    pass


class Quiet(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.exc_info = record.exc_text = None  # only that there is something, for this page
        return True


logging.getLogger().handlers[0].addFilter(Quiet())


async def main() -> None:
    async with AsyncioEndpoint("endpoint").run() as endpoint:
        handled = asyncio.Event()

        def fail(event: Ping) -> None:
            handled.set()
            raise ValueError

        endpoint.subscribe(Ping, fail)
        await endpoint.broadcast(Ping())
        await handled.wait()
    print("it goes on")


asyncio.run(main())
