"""
Everything that the documentation of the system that we implement names, works.

Three sweeps. Every documented path is imported, and has the documented bases, parameters and
defaults. Every documented method of an endpoint is called, on each event loop, by the documented
names of its parameters. Every program of the documentation runs: the quickstart as processes of
its own, and the drivers of the chapter on testing.
"""

from __future__ import annotations

import inspect
import logging
import os
import pkgutil
import re
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest
import uvloop
from anyio.abc import TaskGroup
from documented_names import DOCUMENTED, Documented, parse

import lahja
from lahja import (
    AsyncioEndpoint,
    BaseEvent,
    BaseRequestResponseEvent,
    BroadcastConfig,
    ConnectionConfig,
    Subscription,
    TrioEndpoint,
)
from lahja.base import BaseEndpoint
from lahja.exceptions import (
    BindError,
    LahjaError,
    LifecycleError,
    NoSubscribers,
    UnexpectedResponse,
)

# -- What is documented ------------------------------------------------------------------------

ALL = list(parse(DOCUMENTED))
WITH_PARAMETERS = [each for each in ALL if each.parameters is not None]
WITH_BASES = [each for each in ALL if each.bases]
OF_ENDPOINTS = {
    each.path.rpartition(".")[2]
    for each in ALL
    if re.match(r"lahja\.(base|asyncio\.endpoint|trio\.endpoint)\.\w+\.", each.path)
}


def find(path: str) -> Any:
    """Return what a path names."""
    return pkgutil.resolve_name(path if "." in path else f"builtins.{path}")


def by_path(each: Documented) -> str:
    return each.path


@pytest.mark.parametrize("each", ALL, ids=by_path)
def test_path_exists(each: Documented) -> None:
    find(each.path)


@pytest.mark.parametrize("each", WITH_BASES, ids=by_path)
def test_bases(each: Documented) -> None:
    assert find(each.path).__bases__ == tuple(map(find, each.bases))


@pytest.mark.parametrize("each", WITH_PARAMETERS, ids=by_path)
def test_parameters(each: Documented) -> None:
    """What is documented comes first, and what we add can be left out."""
    found = find(each.path)
    ours = list(inspect.signature(found).parameters.values())
    owner = find(each.path.rpartition(".")[0])
    if inspect.isclass(owner) and each.kind == "":
        ours.pop(0)  # self
    if each.kind:
        kinds: dict[str, type] = {"class": classmethod, "static": staticmethod}
        assert isinstance(inspect.getattr_static(owner, found.__name__), kinds[each.kind])
    for theirs in each.signature.parameters.values():
        if theirs.kind is inspect.Parameter.KEYWORD_ONLY:
            (mine,) = [parameter for parameter in ours if parameter.name == theirs.name]
            ours.remove(mine)
        else:
            mine = ours.pop(0)
        assert (mine.name, mine.kind, mine.default) == (theirs.name, theirs.kind, theirs.default)
    for added in ours:
        assert added.kind is added.VAR_KEYWORD or added.default is not added.empty, added


# -- Values ------------------------------------------------------------------------------------


def test_values_of_class_attributes() -> None:
    assert isinstance(BaseEndpoint.has_snappy_support, bool)
    assert (
        BaseEndpoint.logger
        is AsyncioEndpoint.logger
        is logging.getLogger("lahja.endpoint.Endpoint")
    )
    assert TrioEndpoint.logger is logging.getLogger("lahja.trio.TrioEndpoint")
    for name in ("TResponse", "TStreamEvent", "TSubscribeEvent"):
        variable = getattr(TrioEndpoint, name)
        assert isinstance(variable, TypeVar)
        assert variable.__name__ == name
    assert BaseEvent.is_bound is False


def test_snappy_support_says_whether_python_snappy_is_there() -> None:
    assert BaseEndpoint.has_snappy_support is (find_spec("snappy") is not None)


def test_connection_config(tmp_path: Path) -> None:
    config = ConnectionConfig.from_name("e1", base_path=tmp_path)
    assert config == ConnectionConfig(name="e1", path=tmp_path / "e1.ipc")
    name, path = config
    assert (name, path) == (config.name, config.path) == (config[0], config[1])
    assert ConnectionConfig.from_name("e1").path == Path("e1.ipc")


def test_subscription() -> None:
    ended: list[bool] = []
    subscription = Subscription(unsubscribe_fn=lambda: ended.append(True))
    subscription.unsubscribe()
    assert ended == [True]


def test_broadcast_config() -> None:
    config = BroadcastConfig(filter_endpoint="one", filter_event_id=None, internal=False)
    assert config.allowed_to_receive("one")
    assert not config.allowed_to_receive(endpoint="two")
    assert BroadcastConfig(None, None, True).internal


def test_events_are_bound_once() -> None:
    class Sender:
        name = "sender"

    event: Any = BaseEvent()
    request_id = lahja.typing.RequestID(b"0123456789abcdef")
    event.bind(endpoint=Sender(), id=request_id)
    assert event.is_bound
    assert event.get_origin() == "sender"
    assert event.broadcast_config() == BroadcastConfig("sender", request_id)
    assert event.broadcast_config(internal=True).internal
    with pytest.raises(BindError):
        event.bind(Sender(), None)


def test_abstract_classes_are_abstract() -> None:
    for path in (
        "lahja.base.EndpointAPI",
        "lahja.base.BaseEndpoint",
        "lahja.common.BaseRequestResponseEvent",
        "lahja.tools.engine.EngineAPI",
        "lahja.tools.runner.RunnerAPI",
    ):
        assert inspect.isabstract(find(path))


def test_names_that_programs_for_later_versions_use() -> None:
    """They are in none of the documentation, but in the programs for lahja 0.15 to 0.17."""
    from lahja import constants, typing

    assert issubclass(NoSubscribers, LahjaError)
    assert BroadcastConfig(require_subscriber=True).require_subscriber
    assert BroadcastConfig(None, None, False, True).require_subscriber
    assert BaseEndpoint.require_subscriber is False
    assert typing.RequestID(b"id") == b"id"
    assert constants.ENDPOINT_CONNECT_TIMEOUT == 30
    assert constants.IPC_WAIT_SECONDS == 2
    assert constants.SIZE_MARKER_LENGTH == 4
    for name in ("LockAPI", "ConditionAPI", "EventAPI"):
        assert inspect.isclass(getattr(typing, name))
    for name in (
        "AsyncioEndpoint",
        "BaseEvent",
        "BaseRequestResponseEvent",
        "BroadcastConfig",
        "ConnectionAttemptRejected",
        "ConnectionConfig",
        "EndpointAPI",
        "Subscription",
        "TrioEndpoint",
        "UnexpectedResponse",
    ):
        assert getattr(lahja, name).__name__ == name


# -- Calls -------------------------------------------------------------------------------------


@dataclass
class Ping(BaseEvent):
    number: int = 0


@dataclass
class Pong(BaseEvent):
    number: int = 0


@dataclass
class Request(BaseRequestResponseEvent[Pong]):
    number: int = 0

    @staticmethod
    def expected_response_type() -> type[Pong]:
        return Pong


@dataclass
class Bus:
    """Two connected endpoints, and what runs beside the test."""

    server: Any
    client: Any
    config: ConnectionConfig
    tasks: TaskGroup
    endpoint_class: Any

    async def answer(self, number: int = 0) -> None:
        """Let the server answer requests."""

        async def respond(request: Request) -> None:
            await self.server.broadcast(Pong(request.number + 1), request.broadcast_config())

        self.server.subscribe(Request, respond)
        await self.client.wait_until_endpoint_subscribed_to("server", Request)

    async def ends_after(
        self, waiting: Callable[[], Awaitable[None]], change: Callable[[], Awaitable[Any]]
    ) -> None:
        """Check that a wait lasts until a change."""
        ended = anyio.Event()

        async def wait() -> None:
            await waiting()
            ended.set()

        self.tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert not ended.is_set()
        await change()
        await ended.wait()


CALLS: dict[str, Callable[[Bus], Awaitable[None]]] = {}


def call(function: Callable[[Bus], Awaitable[None]]) -> Callable[[Bus], Awaitable[None]]:
    """Take note that this function calls the method whose name it has."""
    CALLS[function.__name__] = function
    return function


@call
async def are_all_endpoints_subscribed_to(bus: Bus) -> None:
    assert not bus.client.are_all_endpoints_subscribed_to(event_type=Ping)
    bus.server.subscribe(Ping, print)
    await bus.client.wait_until_endpoint_subscribed_to("server", Ping)
    assert not bus.client.are_all_endpoints_subscribed_to(Ping)
    assert not bus.client.are_all_endpoints_subscribed_to(Ping, include_self=True)
    assert bus.client.are_all_endpoints_subscribed_to(Ping, False)
    bus.client.subscribe(Ping, print)
    assert bus.client.are_all_endpoints_subscribed_to(event_type=Ping)


@call
async def broadcast(bus: Bus) -> None:
    stream = bus.server.stream(Ping)
    await bus.client.wait_until_endpoint_subscribed_to("server", Ping)
    await bus.client.broadcast(Ping(1))
    await bus.client.broadcast(item=Ping(2), config=BroadcastConfig(filter_endpoint="server"))
    assert [(await anext(stream)).number, (await anext(stream)).number] == [1, 2]


@call
async def broadcast_nowait(bus: Bus) -> None:
    stream = bus.server.stream(Ping)
    await bus.client.wait_until_endpoint_subscribed_to("server", Ping)
    assert bus.client.broadcast_nowait(Ping(1)) is None
    bus.client.broadcast_nowait(item=Ping(2), config=BroadcastConfig(filter_endpoint="server"))
    assert [(await anext(stream)).number, (await anext(stream)).number] == [1, 2]


@call
async def connect_to_endpoints(bus: Bus) -> None:
    configs = [ConnectionConfig.from_name(name, bus.config.path.parent) for name in ("x", "y")]
    serve = bus.endpoint_class.serve
    async with serve(configs[0]), serve(configs[1]), bus.endpoint_class("z").run() as endpoint:
        await endpoint.connect_to_endpoints()
        await endpoint.connect_to_endpoints(*configs)
        assert endpoint.is_connected_to("x")
        assert endpoint.is_connected_to("y")


@call
async def get_connected_endpoints_and_subscriptions(bus: Bus) -> None:
    bus.server.subscribe(Ping, print)
    bus.client.subscribe(Pong, print)
    await bus.client.wait_until_endpoint_subscribed_to("server", Ping)
    found = bus.client.get_connected_endpoints_and_subscriptions()
    assert found == (("client", {Pong}), ("server", {Ping}))


@call
async def get_subscribed_events(bus: Bus) -> None:
    bus.client.subscribe(Ping, print)
    stream = bus.client.stream(Pong)
    assert bus.client.get_subscribed_events() == {Ping, Pong}
    await stream.aclose()
    assert bus.client.get_subscribed_events() == {Ping}


@call
async def is_any_endpoint_subscribed_to(bus: Bus) -> None:
    assert not bus.client.is_any_endpoint_subscribed_to(event_type=Ping)
    bus.server.subscribe(Ping, print)
    await bus.client.wait_until_endpoint_subscribed_to("server", Ping)
    assert bus.client.is_any_endpoint_subscribed_to(Ping)


@call
async def is_connected_to(bus: Bus) -> None:
    assert bus.client.is_connected_to(endpoint_name="server")
    assert not bus.client.is_connected_to("nobody")


@call
async def is_endpoint_subscribed_to(bus: Bus) -> None:
    assert not bus.client.is_endpoint_subscribed_to(remote_endpoint="server", event_type=Ping)
    bus.server.subscribe(Ping, print)
    await bus.client.wait_until_endpoint_subscribed_to("server", Ping)
    assert bus.client.is_endpoint_subscribed_to("server", Ping)


@call
async def request(bus: Bus) -> None:
    await bus.answer()
    assert await bus.client.request(Request(1)) == Pong(2)
    config = BroadcastConfig(filter_endpoint="server")
    response = await bus.client.request(item=Request(2), config=config)
    assert response == Pong(3)
    assert response.get_origin() == "server"


@call
async def run(bus: Bus) -> None:
    async with bus.endpoint_class("another").run() as endpoint:
        assert type(endpoint) is bus.endpoint_class
        assert endpoint.is_running
    assert not endpoint.is_running
    with pytest.raises(LifecycleError):
        async with endpoint.run():
            pass


@call
async def serve(bus: Bus) -> None:
    config = ConnectionConfig.from_name("another", bus.config.path.parent)
    async with bus.endpoint_class.serve(config=config) as server:
        assert type(server) is bus.endpoint_class
        assert server.is_serving
        assert config.path.is_socket()
    assert not config.path.exists()


@call
async def stream(bus: Bus) -> None:
    limited = bus.server.stream(event_type=Ping, num_events=2)
    assert isinstance(limited, AsyncGenerator)
    await bus.client.wait_until_endpoint_subscribed_to("server", Ping)
    for number in range(3):
        await bus.client.broadcast(Ping(number))
    assert [event.number async for event in limited] == [0, 1]


@call
async def subscribe(bus: Bus) -> None:
    seen: list[Any] = []
    is_done = anyio.Event()

    async def handle(event: Ping) -> None:
        seen.append(event)
        is_done.set()

    subscription = bus.server.subscribe(event_type=Ping, handler=seen.append)
    bus.server.subscribe(Ping, handle)
    assert isinstance(subscription, Subscription)
    await bus.client.wait_until_endpoint_subscribed_to("server", Ping)
    await bus.client.broadcast(Ping(7))
    await is_done.wait()
    assert seen == [Ping(7), Ping(7)]
    subscription.unsubscribe()


@call
async def wait_for(bus: Bus) -> None:
    coming = bus.server.wait_for(event_type=Ping)
    await bus.client.wait_until_endpoint_subscribed_to("server", Ping)
    await bus.client.broadcast(Ping(7))
    assert await coming == Ping(7)


@call
async def wait_until_all_endpoints_subscribed_to(bus: Bus) -> None:
    async def change() -> None:
        bus.client.subscribe(Ping, print)

    bus.server.subscribe(Ping, print)
    wait = bus.client.wait_until_all_endpoints_subscribed_to
    await wait(Ping, include_self=False)
    await bus.ends_after(lambda: wait(event=Ping), change)
    await wait(Ping, include_self=True)


@call
async def wait_until_any_endpoint_subscribed_to(bus: Bus) -> None:
    async def change() -> None:
        bus.server.subscribe(Ping, print)

    wait = bus.client.wait_until_any_endpoint_subscribed_to
    await bus.ends_after(lambda: wait(event=Ping), change)


@call
async def wait_until_connected_to(bus: Bus) -> None:
    async with bus.endpoint_class("third").run() as third:
        wait = bus.server.wait_until_connected_to
        await bus.ends_after(
            lambda: wait(endpoint_name="third"), lambda: third.connect_to_endpoints(bus.config)
        )


@call
async def wait_until_connections_change(bus: Bus) -> None:
    async with bus.endpoint_class("third").run() as third:
        wait = bus.server.wait_until_connections_change
        await bus.ends_after(wait, lambda: third.connect_to_endpoints(bus.config))


@call
async def wait_until_endpoint_subscribed_to(bus: Bus) -> None:
    async def change() -> None:
        bus.server.subscribe(Ping, print)

    wait = bus.client.wait_until_endpoint_subscribed_to
    await bus.ends_after(lambda: wait(remote_endpoint="server", event=Ping), change)


@call
async def wait_until_endpoint_subscriptions_change(bus: Bus) -> None:
    async def change() -> None:
        bus.server.subscribe(Ping, print)

    await bus.ends_after(bus.client.wait_until_endpoint_subscriptions_change, change)


@call
async def is_running(bus: Bus) -> None:
    assert bus.client.is_running is True
    assert bus.endpoint_class("another").is_running is False


@call
async def is_serving(bus: Bus) -> None:
    assert bus.server.is_serving is True
    assert bus.client.is_serving is False


@call
async def name(bus: Bus) -> None:
    assert (bus.server.name, bus.client.name) == ("server", "client")


@call
async def ipc_path(bus: Bus) -> None:
    assert bus.server.ipc_path == bus.config.path


@call
async def wait_started(bus: Bus) -> None:
    endpoint = bus.endpoint_class("another")
    async with AsyncExitStack() as stack:
        run = stack.enter_async_context
        await bus.ends_after(endpoint.wait_started, lambda: run(endpoint.run()))
        await endpoint.wait_started()


@call
async def wait_stopped(bus: Bus) -> None:
    endpoint = bus.endpoint_class("another")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(endpoint.run())
        await bus.ends_after(endpoint.wait_stopped, stack.aclose)
        await endpoint.wait_stopped()


@call
async def is_stopped(bus: Bus) -> None:
    assert bus.client.is_stopped is False
    async with bus.endpoint_class("another").run() as endpoint:
        pass
    assert endpoint.is_stopped is True


@call
async def is_server_stopped(bus: Bus) -> None:
    config = ConnectionConfig.from_name("another", bus.config.path.parent)
    async with bus.endpoint_class.serve(config) as endpoint:
        assert endpoint.is_server_stopped is False
    assert endpoint.is_server_stopped is True


@call
async def event_loop(bus: Bus) -> None:
    import asyncio

    assert bus.client.event_loop is asyncio.get_running_loop()


@call
async def check_event_loop(bus: Bus) -> None:
    """It is a decorator; documented as if it were a method, it can be called as one."""
    bus.client.check_event_loop()

    class MyEndpoint(AsyncioEndpoint):
        @AsyncioEndpoint.check_event_loop
        def shout(self, text: str) -> str:
            return text.upper()

    endpoint = MyEndpoint("mine")
    with pytest.raises(LifecycleError):
        endpoint.shout("loud")
    with pytest.raises(LifecycleError):
        endpoint.check_event_loop()
    async with endpoint.run():
        assert endpoint.shout("loud") == "LOUD"


NOT_CALLED = {"has_snappy_support", "logger", "TResponse", "TStreamEvent", "TSubscribeEvent"}
ONLY_ASYNCIO = {"check_event_loop", "event_loop"}


def test_every_documented_method_is_called() -> None:
    assert set(CALLS) == OF_ENDPOINTS - NOT_CALLED


async def check_call(
    name: str, endpoint_class: type[BaseEndpoint], config: ConnectionConfig
) -> None:
    with anyio.fail_after(20):
        async with (
            endpoint_class.serve(config) as server,
            endpoint_class("client").run() as client,
            anyio.create_task_group() as tasks,
        ):
            await client.connect_to_endpoints(config)
            await server.wait_until_connected_to("client")
            await CALLS[name](Bus(server, client, config, tasks, endpoint_class))


@pytest.mark.anyio
@pytest.mark.parametrize("name", sorted(CALLS.keys() - ONLY_ASYNCIO))
async def test_call(
    name: str, endpoint_class: type[BaseEndpoint], config: ConnectionConfig
) -> None:
    await check_call(name, endpoint_class, config)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("name", sorted(ONLY_ASYNCIO))
async def test_call_of_asyncio_alone(name: str, config: ConnectionConfig) -> None:
    await check_call(name, AsyncioEndpoint, config)


@pytest.mark.anyio
async def test_unexpected_response(
    endpoint_class: type[BaseEndpoint], config: ConnectionConfig
) -> None:
    """The error that the documentation promises where a response is of another type."""
    async with endpoint_class.serve(config) as server, endpoint_class("client").run() as client:
        await client.connect_to_endpoints(config)

        async def respond(request: Request) -> None:
            await server.broadcast(Ping(), request.broadcast_config())

        server.subscribe(Request, respond)
        await client.wait_until_endpoint_subscribed_to("server", Request)
        with pytest.raises(UnexpectedResponse):
            await client.request(Request())


# -- The quickstart ----------------------------------------------------------------------------

# The documentation's code, word for word and in its order ...
QUICKSTART = """
import asyncio
import logging
import multiprocessing

from lahja import BaseEvent, AsyncioEndpoint, ConnectionConfig


class BaseExampleEvent(BaseEvent):
    def __init__(self, payload):
        super().__init__()
        self.payload = payload
class FirstThingHappened(BaseExampleEvent):
    pass
class SecondThingHappened(BaseExampleEvent):
    pass

def run_proc1():
    setup_logging()
    loop = asyncio.get_event_loop()
    loop.run_until_complete(proc1_worker())
async def proc1_worker():
    async with AsyncioEndpoint.serve(ConnectionConfig.from_name("e1")) as server:
        server.subscribe(
            SecondThingHappened,
            lambda event: logging.info(
                "Received via SUBSCRIBE API in proc1: %s", event.payload
            ),
        )
        await server.wait_until_any_endpoint_subscribed_to(FirstThingHappened)

        while True:
            logging.info("Hello from proc1")
            await server.broadcast(FirstThingHappened("Hit from proc1"))
            await asyncio.sleep(2)

def run_proc2():
    setup_logging()
    loop = asyncio.get_event_loop()
    loop.run_until_complete(proc2_worker())
async def proc2_worker():
    config = ConnectionConfig.from_name("e1")
    async with AsyncioEndpoint("e2").run() as client:
        await client.connect_to_endpoints(config)
        asyncio.ensure_future(display_proc1_events(client))
        client.subscribe(
            FirstThingHappened,
            lambda event: logging.info(
                "Received via SUBSCRIBE API in proc2: %s", event.payload
            ),
        )
        await client.wait_until_any_endpoint_subscribed_to(SecondThingHappened)

        while True:
            logging.info("Hello from proc2")
            await client.broadcast(SecondThingHappened("Hit from proc2 "))
            await asyncio.sleep(2)
"""
QUICKSTART_MAIN = """
    p1 = multiprocessing.Process(target=run_proc1)
    p1.start()

    p2 = multiprocessing.Process(target=run_proc2)
    p2.start()
    p1.join()
    p2.join()
"""

# ... and what it leaves to the reader. From Python 3.14 on, asyncio.get_event_loop() no longer
# makes the event loop that the documentation asks for, so that the process must have one; before,
# it makes one with a DeprecationWarning, which the test below ignores.
LEFT_TO_THE_READER = """
def setup_logging():
    import sys
    logging.basicConfig(level=logging.INFO, format="%(process)d %(message)s", stream=sys.stdout)
    if sys.version_info >= (3, 14):
        asyncio.set_event_loop(asyncio.new_event_loop())

async def display_proc1_events(endpoint):
    async for event in endpoint.stream(FirstThingHappened):
        logging.info("Received via STREAM API in proc2: %s", event.payload)

if __name__ == "__main__":"""


@pytest.mark.parametrize("way", ["terminate", "interrupt"])
def test_quickstart(way: str, ipc_dir: Path) -> None:
    """Both processes get events, under the start method of the platform, until they are ended."""
    program = ipc_dir / "quickstart.py"
    program.write_text(QUICKSTART + LEFT_TO_THE_READER + QUICKSTART_MAIN)
    expected = {
        "Hello from proc1",
        "Hello from proc2",
        "Received via SUBSCRIBE API in proc1: Hit from proc2 ",
        "Received via SUBSCRIBE API in proc2: Hit from proc1",
        "Received via STREAM API in proc2: Hit from proc1",
    }
    options = ["-X", "dev", "-W", "error", "-W", "ignore:There is no current:DeprecationWarning"]
    lahja_path = str(Path(lahja.__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, *options, program.name],
        cwd=ipc_dir,
        env=os.environ | {"PYTHONPATH": lahja_path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as main:
        assert main.stdout is not None
        lines, pids = [], set()
        try:
            for line in main.stdout:
                pid, _, text = line.rstrip("\n").partition(" ")
                if text.startswith("Executing <"):  # asyncio's debug mode, on a busy machine
                    continue
                lines.append(text)
                pids.add(int(pid))
                if expected <= set(lines):
                    break
            if way == "terminate":
                for number in pids:
                    os.kill(number, signal.SIGTERM)
            else:
                os.killpg(main.pid, signal.SIGINT)
            _, errors = main.communicate(timeout=20)  # until all processes have closed their ends
        finally:
            with suppress(ProcessLookupError):
                os.killpg(main.pid, signal.SIGKILL)
    assert set(lines) == expected, errors
    assert len(pids) == 2
    if way == "terminate":
        assert (main.returncode, errors) == (0, "")
    else:
        assert set(re.findall(r"^\w*(?:Error|Interrupt)\b", errors, re.M)) == {"KeyboardInterrupt"}


# -- The chapter on testing --------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["asyncio", "uvloop", "trio"])
def test_drivers(backend: str, config: ConnectionConfig) -> None:
    """The documentation's two drivers; its "..." stand for name and path."""
    from lahja.tools import drivers as d

    server_driver = d.driver(
        d.serve_endpoint(ConnectionConfig(*config)),
        d.wait_until_connected_to("client"),
    )

    server_config = ConnectionConfig(*config)
    client_driver = d.driver(
        d.run_endpoint(ConnectionConfig("client", config.path)),
        d.connect_to_endpoints(server_config),
    )

    if backend == "trio":
        from lahja.tools.runners import TrioRunner

        runner = TrioRunner()
        runner(client_driver, server_driver)
    else:
        from lahja.tools.runners import AsyncioRunner

        AsyncioRunner(loop_factory=uvloop.new_event_loop if backend == "uvloop" else None)(
            client_driver, server_driver
        )


@pytest.mark.anyio
async def test_server_of_the_drivers_leaves_as_soon_as_it_is_connected_to(
    endpoint_class: type[BaseEndpoint], config: ConnectionConfig
) -> None:
    """Its client has then connected, nevertheless."""
    for _ in range(20):
        async with (
            endpoint_class("client", connect_timeout=2).run() as client,
            anyio.create_task_group() as tasks,
            endpoint_class.serve(config) as server,
        ):
            tasks.start_soon(client.connect_to_endpoints, config)
            await server.wait_until_connected_to("client")
