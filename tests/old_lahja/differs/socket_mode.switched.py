"""Look at the mode of the socket."""

import asyncio
import os
import tempfile
from pathlib import Path

from lahja import AsyncioEndpoint, ConnectionConfig

os.umask(0o022)


async def main(directory: Path) -> None:
    config = ConnectionConfig.from_name("server", directory)
    async with AsyncioEndpoint.serve(config, allowed_uids={1000}):
        config.path.chmod(0o755)
        print(oct(config.path.stat().st_mode & 0o777))


with tempfile.TemporaryDirectory() as directory:
    asyncio.run(main(Path(directory)))
