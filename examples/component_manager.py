"""
Run an application of many components, each in a process of its own.

The main process starts five components, three on asyncio and two on trio. Each of them

1. opens an endpoint, connects to the main process and announces itself there;
2. is told by the main process which components there are, and connects to those;
3. does its work: it exchanges events and requests with whoever is on the bus;
4. leaves when the main process says so, or when the main process is gone.

    python examples/component_manager.py [--seconds N]

It runs until Ctrl-C, or for so many seconds. Ctrl-C, SIGTERM, a component that fails, and even a
main process that is killed all lead to the same end: no process is left.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import logging
import multiprocessing
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import trio

from lahja import (
    AsyncioEndpoint,
    BaseEvent,
    BaseRequestResponseEvent,
    BroadcastConfig,
    ConnectionConfig,
    EndpointAPI,
    LahjaError,
    TrioEndpoint,
)

Component = Callable[[EndpointAPI], Awaitable[None]]

MAIN = "main"

# -- The events of the application ---------------------------------------------------------------


@dataclass(frozen=True)
class ComponentStarted(BaseEvent):
    """Tell the main process where a component can be reached."""

    config: ConnectionConfig


@dataclass(frozen=True)
class AvailableComponents(BaseEvent):
    """Tell all components which ones there are, in the order in which they came."""

    configs: tuple[ConnectionConfig, ...]


@dataclass(frozen=True)
class ShutDown(BaseEvent):
    """Tell all components to leave."""

    reason: str


@dataclass(frozen=True)
class PeerConnected(BaseEvent):
    address: str


@dataclass(frozen=True)
class Block:
    number: int
    content: str

    @property
    def hash(self) -> str:
        return hashlib.sha256(f"{self.number} {self.content}".encode()).hexdigest()[:12]


@dataclass(frozen=True)
class NewBlock(BaseEvent):
    number: int


@dataclass(frozen=True)
class BlockStored(BaseEvent):
    number: int


@dataclass(frozen=True)
class StoreBlock(BaseRequestResponseEvent[BlockStored]):
    block: Block

    @staticmethod
    def expected_response_type() -> type[BlockStored]:
        return BlockStored


@dataclass(frozen=True)
class DeliverBlock(BaseEvent):
    block: Block | None


@dataclass(frozen=True)
class GetBlock(BaseRequestResponseEvent[DeliverBlock]):
    number: int

    @staticmethod
    def expected_response_type() -> type[DeliverBlock]:
        return DeliverBlock


# -- The components: what each of them does ------------------------------------------------------


async def discover_peers(endpoint: EndpointAPI) -> None:
    """Find other nodes (on asyncio)."""
    for number in range(1, 255):
        await endpoint.broadcast(PeerConnected(f"10.0.0.{number}"))
        await asyncio.sleep(0.2)


async def synchronise(endpoint: EndpointAPI) -> None:
    """Store block after block in the database, and spread the news (on asyncio)."""
    await endpoint.wait_until_endpoint_subscribed_to("database", StoreBlock)
    number = 0
    while True:
        stored = await endpoint.request(StoreBlock(Block(number, "transactions")))
        await endpoint.broadcast(NewBlock(stored.number))
        number += 1
        await asyncio.sleep(0.1)


async def answer_users(endpoint: EndpointAPI) -> None:
    """Look up every new block, as a user would do (on asyncio)."""
    await endpoint.wait_until_endpoint_subscribed_to("database", GetBlock)
    async for new in endpoint.stream(NewBlock):
        block = (await endpoint.request(GetBlock(new.number))).block
        if block is not None:
            log(f"block {block.number} has the hash {block.hash}")


async def keep_blocks(endpoint: EndpointAPI) -> None:
    """Be the database (on trio)."""
    blocks: dict[int, Block] = {}

    async def store(request: StoreBlock) -> None:
        blocks[request.block.number] = request.block
        await endpoint.broadcast(BlockStored(request.block.number), request.broadcast_config())

    async def deliver(request: GetBlock) -> None:
        block = blocks.get(request.number)
        await endpoint.broadcast(DeliverBlock(block), request.broadcast_config())

    endpoint.subscribe(StoreBlock, store)
    endpoint.subscribe(GetBlock, deliver)
    try:
        await trio.sleep_forever()
    finally:
        log(f"{len(blocks)} blocks are in the database")


async def count_events(endpoint: EndpointAPI) -> None:
    """Keep statistics (on trio)."""
    counts = {NewBlock: 0, PeerConnected: 0}

    def count(event: NewBlock | PeerConnected) -> None:
        counts[type(event)] += 1

    endpoint.subscribe(NewBlock, count)
    endpoint.subscribe(PeerConnected, count)
    try:
        await trio.sleep_forever()
    finally:
        log(f"counted {counts[NewBlock]} new blocks and {counts[PeerConnected]} peers")


ON_ASYNCIO: dict[str, Component] = {
    "discovery": discover_peers,
    "syncer": synchronise,
    "rpc": answer_users,
}
ON_TRIO: dict[str, Component] = {
    "database": keep_blocks,
    "metrics": count_events,
}

# -- The components: what all of them do ---------------------------------------------------------


async def join_the_bus(
    endpoint: EndpointAPI, own: ConnectionConfig, main: ConnectionConfig
) -> None:
    """Connect to the main process, and to every component that it names."""

    async def connect_to_others(event: AvailableComponents) -> None:
        # Each connects to those that came before it, so that every two of them connect once.
        before = event.configs[: event.configs.index(own)] if own in event.configs else ()
        missing = [config for config in before if not endpoint.is_connected_to(config.name)]
        try:
            await endpoint.connect_to_endpoints(*missing)
        except LahjaError as error:  # it left again
            log(str(error))

    endpoint.subscribe(AvailableComponents, connect_to_others)
    await endpoint.connect_to_endpoints(main)
    await endpoint.broadcast(ComponentStarted(own), BroadcastConfig(filter_endpoint=MAIN))


async def watch_main(endpoint: EndpointAPI) -> None:
    """Shut this component down when there is nobody any more who would do so."""
    while endpoint.is_connected_to(MAIN):
        await endpoint.wait_until_connections_change()
    gone = ShutDown("the main process is gone")
    await endpoint.broadcast(gone, BroadcastConfig(internal=True))  # to this process alone


async def work(component: Component, endpoint: EndpointAPI) -> None:
    """Do the component's own work, for as long as there is somebody to work with."""
    try:
        await component(endpoint)
    except LahjaError as error:  # whom it asked has left already, because all are leaving
        log(f"stopped working: {error}")


async def run_on_asyncio(
    component: Component, own: ConnectionConfig, main: ConnectionConfig
) -> None:
    async with AsyncioEndpoint.serve(own) as endpoint:
        shut_down = endpoint.stream(ShutDown)  # subscribed before anybody can send it
        await join_the_bus(endpoint, own, main)
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(work(component, endpoint)),
                tasks.create_task(watch_main(endpoint)),
            ]
            order = await anext(shut_down)
            for task in background:
                task.cancel()
    log(f"left the bus: {order.reason}")


async def run_on_trio(component: Component, own: ConnectionConfig, main: ConnectionConfig) -> None:
    async with TrioEndpoint.serve(own) as endpoint:
        shut_down = endpoint.stream(ShutDown)  # subscribed before anybody can send it
        await join_the_bus(endpoint, own, main)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work, component, endpoint)
            nursery.start_soon(watch_main, endpoint)
            order = await anext(shut_down)
            nursery.cancel_scope.cancel()
    log(f"left the bus: {order.reason}")


def run_component(own: ConnectionConfig, main: ConnectionConfig) -> None:
    logging.basicConfig(format="%(processName)-11s %(message)s")
    if own.name in ON_TRIO:
        trio.run(run_on_trio, ON_TRIO[own.name], own, main)
    else:
        asyncio.run(run_on_asyncio(ON_ASYNCIO[own.name], own, main))


# -- The main process ----------------------------------------------------------------------------


async def manage(
    main: ConnectionConfig, processes: Sequence[BaseProcess], seconds: float | None
) -> None:
    """Introduce the components to each other, and end them all when the time has come."""
    loop = asyncio.get_running_loop()
    reason: asyncio.Future[str] = loop.create_future()
    ended: set[BaseProcess] = set()
    all_ended = asyncio.Event()

    def stop(why: str) -> None:
        if not reason.done():
            reason.set_result(why)

    def has_ended(process: BaseProcess) -> None:
        loop.remove_reader(process.sentinel)
        process.join()
        stop(f"{process.name} has ended by itself, with exit code {process.exitcode}")
        ended.add(process)
        if len(ended) == len(processes):
            all_ended.set()

    for process in processes:
        loop.add_reader(process.sentinel, has_ended, process)
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop, signum.name)

    available: list[ConnectionConfig] = []

    async def introduce(event: ComponentStarted) -> None:
        if reason.done():  # it comes too late
            await endpoint.broadcast(ShutDown(reason.result()), event.broadcast_config())
            return
        available.append(event.config)
        log(f"{event.config.name} is available")
        await endpoint.broadcast(AvailableComponents(tuple(available)))
        if len(available) == len(processes) and seconds is not None:
            loop.call_later(seconds, stop, "the time is over")

    async with AsyncioEndpoint.serve(main) as endpoint:
        endpoint.subscribe(ComponentStarted, introduce)
        why = await reason
        log(f"shutting down: {why}")
        await endpoint.broadcast(ShutDown(why))
        try:
            await asyncio.wait_for(all_ended.wait(), timeout=10)
        except TimeoutError:
            for process in set(processes) - ended:
                log(f"{process.name} does not end, and is killed")
                process.kill()
        await all_ended.wait()


def log(text: str) -> None:
    sys.stdout.write(f"{multiprocessing.current_process().name:11} {text}\n")  # in one piece
    sys.stdout.flush()


def run_main() -> None:
    parser = argparse.ArgumentParser(description="Run an application of many components.")
    parser.add_argument("--seconds", type=float, help="how long it runs (default: until Ctrl-C)")
    seconds = parser.parse_args().seconds

    multiprocessing.current_process().name = MAIN
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for the components: they inherit it
    with tempfile.TemporaryDirectory(prefix="lahja-") as directory:
        main = ConnectionConfig.from_name(MAIN, Path(directory))
        processes = []
        for name in (*ON_ASYNCIO, *ON_TRIO):
            own = ConnectionConfig.from_name(name, Path(directory))
            process = multiprocessing.Process(
                target=run_component, name=name, args=(own, main), daemon=True
            )
            process.start()
            processes.append(process)
        asyncio.run(manage(main, processes, seconds))
    log("all components have ended")
    sys.exit(any(process.exitcode for process in processes))


if __name__ == "__main__":
    run_main()
