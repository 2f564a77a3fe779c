"""
Run the application of component_manager.py with a quarter of its lines: its processes join a bus.

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


async def main_left(endpoint):
    changes = endpoint.membership()
    await endpoint.wait_until_all_of({MAIN}, timeout=30)
    async for change in changes:
        if change.name == MAIN and not change.joined:
            return change


async def run_on_asyncio(name, directory):
    async with AsyncioEndpoint.join(name, directory) as endpoint, asyncio.TaskGroup() as tasks:
        working = tasks.create_task(work(COMPONENTS[name], endpoint))
        change = await main_left(endpoint)
        working.cancel()
    log(f"left the bus: {change}")


async def run_on_trio(name, directory):
    async with TrioEndpoint.join(name, directory) as endpoint, trio.open_nursery() as nursery:
        nursery.start_soon(work, COMPONENTS[name], endpoint)
        change = await main_left(endpoint)
        nursery.cancel_scope.cancel()
    log(f"left the bus: {change}")


def run_component(name, directory):
    if name in ON_TRIO:
        trio.run(run_on_trio, name, directory)
    else:
        asyncio.run(run_on_asyncio(name, directory))


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
