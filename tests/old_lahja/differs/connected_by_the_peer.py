"""Connect to an endpoint that has connected to this one."""

import asyncio
import tempfile
from pathlib import Path

from lahja import AsyncioEndpoint, ConnectionConfig
from lahja.exceptions import ConnectionAttemptRejected


async def main(directory: Path) -> None:
    configs = [ConnectionConfig.from_name(name, directory) for name in ("one", "other", "third")]
    async with (
        AsyncioEndpoint.serve(configs[0]) as one,
        AsyncioEndpoint.serve(configs[1]) as other,
        AsyncioEndpoint.serve(configs[2]),
    ):

        async def attempt(endpoint: AsyncioEndpoint, *to: ConnectionConfig) -> None:
            names = " and ".join(config.name for config in to)
            try:
                await endpoint.connect_to_endpoints(*to)
                print(f"{endpoint.name} to {names}: connected")
            except ConnectionAttemptRejected:
                print(f"{endpoint.name} to {names}: rejected")

        await attempt(one, configs[1])
        await other.wait_until_connected_to("one")
        await attempt(other, configs[0])
        await attempt(one, configs[1])
        await attempt(one, configs[1], configs[2])
        print("one is connected to third:", one.is_connected_to("third"))


with tempfile.TemporaryDirectory() as directory:
    asyncio.run(main(Path(directory)))
