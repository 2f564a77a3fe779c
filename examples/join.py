"""
Run the application of component_manager.py with a fifth of its lines: its processes join a bus.

Its events, and the work of its components, are imported from there. Who is there, who connects to
whom, and that all leave when the main process does, or dies, takes care of itself.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
from contextlib import suppress
from multiprocessing import Process, current_process

import trio
from component_manager import MAIN, ON_ASYNCIO, ON_TRIO, log, work

from lahja import AsyncioEndpoint, TrioEndpoint

COMPONENTS = ON_ASYNCIO | ON_TRIO


async def take_part(endpoint_class, name, directory):
    async with endpoint_class.join(name, directory) as endpoint:
        endpoint.start_soon(work, COMPONENTS[name], endpoint)  # it ends with the endpoint
        changes = endpoint.membership()
        await endpoint.wait_until_all_of({MAIN}, timeout=30)
        async for change in changes:
            if change.name == MAIN and not change.joined:
                break
    log(f"left the bus: {change}")


def run_component(name, directory):
    if name in ON_TRIO:
        trio.run(take_part, TrioEndpoint, name, directory)
    else:
        asyncio.run(take_part(AsyncioEndpoint, name, directory))


async def manage(directory, seconds):
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, asyncio.current_task().cancel)
    async with AsyncioEndpoint.join(MAIN, directory) as endpoint:
        changes = endpoint.membership()
        with suppress(asyncio.CancelledError, TimeoutError):
            await endpoint.wait_until_all_of(COMPONENTS, timeout=30)
            async with asyncio.timeout(seconds):
                async for change in changes:
                    log(str(change))
                    if not change.joined:
                        break


def main():
    parser = argparse.ArgumentParser(description="Run an application whose processes join a bus.")
    parser.add_argument("--seconds", type=float, help="how long it runs (default: until Ctrl-C)")
    seconds = parser.parse_args().seconds
    current_process().name = MAIN
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for the components: they inherit it
    with tempfile.TemporaryDirectory(prefix="lahja-") as directory:
        processes = [Process(None, run_component, name, (name, directory)) for name in COMPONENTS]
        for process in processes:
            process.start()
        asyncio.run(manage(directory, seconds))
        for process in processes:
            process.join()
    log("all components have ended")
    sys.exit(any(process.exitcode for process in processes))


if __name__ == "__main__":
    main()
