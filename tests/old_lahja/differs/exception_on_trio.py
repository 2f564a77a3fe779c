"""Raise an exception while an endpoint runs, on trio."""

import trio

from lahja import TrioEndpoint


async def main() -> None:
    async with TrioEndpoint("endpoint").run():
        raise KeyError


try:
    trio.run(main)
except Exception as error:
    print(type(error).__name__)
