"""
What only real processes show.

Programs whose events are defined in ``__main__`` are written to files and started as a user would:
by path and by ``-m``, with children made by spawn, fork and forkserver. Then there are many events
from many processes, and forks of a process whose endpoint runs. The event loops meet in here; what
they do alike within one process is tested elsewhere.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from process_helpers import SECONDS, Worker, backend_name, calling, endpoint_class, run_on

from lahja import BaseEvent, BaseRequestResponseEvent, ConnectionConfig, LifecycleError

pytestmark = pytest.mark.anyio


@pytest.fixture
def backend(anyio_backend: tuple[str, dict[str, Any]]) -> str:
    """Return the name of the event loop that the test runs on, for processes that use it, too."""
    return backend_name(anyio_backend)


# -- Events of __main__ ----------------------------------------------------------------------

# Three processes; each one tells the others all of its values, asks each of them, and checks that
# what comes is of its own classes. Nobody leaves before all have what they want.
PROGRAM = '''
"""Exchange events that are defined in here."""

import enum
import multiprocessing
import os
import sys
from collections import OrderedDict, namedtuple
from dataclasses import dataclass, field
from pathlib import Path

from lahja import BaseEvent, BaseRequestResponseEvent, BroadcastConfig, ConnectionConfig
from process_helpers import endpoint_class, run_on

BACKENDS = {"hub": "asyncio", "left": "uvloop", "right": "trio"}


class Colour(enum.Enum):
    RED = 1
    BLUE = "blue"


class Flags(enum.Flag):
    A = 1
    B = 2


Point = namedtuple("Point", "x y")


class Number(int):
    pass


@dataclass
class Plain:
    items: list = field(default_factory=list)

    class Inner(enum.IntEnum):
        ONE = 1


@dataclass(frozen=True, slots=True)
class Frozen:
    inner: Plain
    kind: object = None


def function():
    """Be a value that travels by its name."""


def values():
    plain = Plain([Colour.RED, Plain.Inner.ONE])
    return {
        "enum": Colour.BLUE,
        "flag": Flags.A | Flags.B,
        "nested": Plain.Inner.ONE,
        "plain": plain,
        "frozen": Frozen(plain, Plain),
        "subclass": Number(5),
        "namedtuple": Point(1, 2),
        "function": function,
        "class": Frozen,
    }


@dataclass
class Note(BaseEvent):
    sender: str
    content: object


@dataclass(frozen=True, slots=True)
class Slotted(BaseEvent):
    sender: str
    content: object


class Mapping(BaseEvent, OrderedDict):
    """An event that Python pickles in its own way."""


class Outer:
    @dataclass
    class Done(BaseEvent):
        sender: str


@dataclass
class Answer(BaseEvent):
    colour: Colour


@dataclass
class Question(BaseRequestResponseEvent[Answer]):
    colour: Colour

    @staticmethod
    def expected_response_type():
        return Answer


async def take_part(name, folder, others):
    folder = Path(folder)
    async with endpoint_class(BACKENDS[name]).serve(
        ConnectionConfig.from_name(name, folder)
    ) as endpoint:
        await exchange(endpoint, folder, sorted(others))


async def exchange(endpoint, folder, others):
    streams = {
        event_type: endpoint.stream(event_type, num_events=len(others))
        for event_type in (Note, Slotted, Mapping, Outer.Done)
    }

    async def answer(question):
        assert type(question) is Question and type(question.colour) is Colour
        await endpoint.broadcast(Answer(question.colour), question.broadcast_config())

    endpoint.subscribe(Question, answer)
    for other in others:
        if other < endpoint.name:
            await endpoint.connect_to_endpoints(ConnectionConfig.from_name(other, folder))
    for other in others:
        for event_type in (*streams, Question):
            await endpoint.wait_until_endpoint_subscribed_to(other, event_type)
    subscribed = dict(endpoint.get_connected_endpoints_and_subscriptions())
    assert all(subscribed[other] == {*streams, Question} for other in others)
    for other in others:  # not to all, because that includes oneself
        to_other = BroadcastConfig(filter_endpoint=other)
        await endpoint.broadcast(Note(endpoint.name, values()), to_other)
        await endpoint.broadcast(Slotted(endpoint.name, values()), to_other)
        await endpoint.broadcast(Mapping(values(), sender=endpoint.name), to_other)
    for event_type in (Note, Slotted):
        senders = []
        async for event in streams[event_type]:
            check(event, event_type, event.content)
            assert event.get_origin() == event.sender
            senders.append(event.sender)
        assert sorted(senders) == others
    senders = []
    async for event in streams[Mapping]:
        senders.append(event.pop("sender"))
        check(event, Mapping, dict(event))
    assert sorted(senders) == others
    for other in others:
        for colour in Colour:
            response = await endpoint.request(
                Question(colour), BroadcastConfig(filter_endpoint=other)
            )
            assert type(response) is Answer and response.colour is colour
    for other in others:
        await endpoint.broadcast(
            Outer.Done(endpoint.name), BroadcastConfig(filter_endpoint=other)
        )
    assert sorted([event.sender async for event in streams[Outer.Done]]) == others
    # Three processes share the pipe: a line is written at once, whatever buffers there are.
    os.write(sys.stdout.fileno(), f"{endpoint.name} is content\\n".encode())


def check(event, event_type, content):
    assert type(event) is event_type
    expected = values()
    assert content == expected
    assert {key: type(value) for key, value in content.items()} == {
        key: type(value) for key, value in expected.items()
    }
    assert content["enum"] is Colour.BLUE
    assert content["function"] is function
    assert content["class"] is Frozen
    assert content["frozen"].kind is Plain
    assert type(content["frozen"].inner) is Plain


def participant(name, folder, *others):
    run_on(BACKENDS[name], take_part, name, folder, others)


if __name__ == "__main__":
    if sys.argv[1] == "alone":
        participant(*sys.argv[2:])
    else:
        context = multiprocessing.get_context(sys.argv[1])
        children = [
            context.Process(target=participant, args=(name, sys.argv[2], *others))
            for name, *others in (("left", "hub", "right"), ("right", "hub", "left"))
        ]
        for child in children:
            child.start()
        participant("hub", sys.argv[2], "left", "right")
        for child in children:
            child.join()
            assert child.exitcode == 0, child
'''


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Return a folder in which the program is ``program.py``, and the module ``package.module``."""
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "module.py").write_text(PROGRAM)
    return tmp_path


@pytest.mark.parametrize("start_method", ["spawn", "fork", "forkserver"])
@pytest.mark.parametrize("command", ["program.py", "-m package.module"])
def test_events_of_main_between_parent_and_children(
    command: str, start_method: str, program: Path, ipc_dir: Path
) -> None:
    with Worker(*command.split(), start_method, str(ipc_dir), folder=program) as worker:
        worker.finish()
        lines = sorted(worker.read_line() for _ in range(3))
        assert lines == ["hub is content", "left is content", "right is content"]


def test_a_main_module_goes_by_its_real_name(program: Path, ipc_dir: Path) -> None:
    importing = "import package.module, sys; package.module.participant(*sys.argv[1:])"
    with (
        Worker("-c", importing, "hub", str(ipc_dir), "left", "right", folder=program) as hub,
        Worker(
            *("-m", "package.module", "alone", "left", str(ipc_dir), "hub", "right"),
            folder=program,
        ) as left,
        Worker("-c", importing, "right", str(ipc_dir), "hub", "left", folder=program) as right,
    ):
        for worker, name in ((hub, "hub"), (left, "left"), (right, "right")):
            worker.finish()
            assert worker.read_line() == f"{name} is content"


# What is imported from the main module is a second copy of it, as ever in Python. To the bus both
# are one type; each copy's subscribers are to get its events, as instances of theirs.
TWICE = """
import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path

from lahja import AsyncioEndpoint, BaseEvent, ConnectionConfig


@dataclass
class Note(BaseEvent):
    text: str


async def main(path):
    from package.twice import Note as Imported

    assert Imported is not Note
    config = ConnectionConfig("server", Path(path))
    async with AsyncioEndpoint.serve(config) as server, AsyncioEndpoint("client").run() as client:
        own, imported = server.stream(Note), server.stream(Imported)
        await client.connect_to_endpoints(config)
        await client.wait_until_any_endpoint_subscribed_to(Note)
        await client.broadcast(Note("text"))
        async with asyncio.timeout(1):
            assert await anext(own) == Note("text")
            assert await anext(imported) == Imported("text")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
"""


def test_a_main_module_that_is_imported_as_well_misses_nothing(
    program: Path, ipc_dir: Path
) -> None:
    (program / "package" / "twice.py").write_text(TWICE)
    with Worker("-m", "package.twice", str(ipc_dir / "server"), folder=program):
        pass


# -- Many events from many processes ---------------------------------------------------------

SENDERS = ("a", "b", "c")
EVENTS_IN_ALL = 200_000


class Numbered(BaseEvent):
    """One of many."""

    def __init__(self, number: int, payload: bytes) -> None:
        self.number = number
        self.payload = payload


def _send_many(backend: str, name: str, path: str, count: str) -> None:
    async def send() -> None:
        async with endpoint_class(backend)(name).run() as endpoint:
            await endpoint.connect_to_endpoints(ConnectionConfig("receiver", Path(path)))
            await endpoint.wait_until_endpoint_subscribed_to("receiver", Numbered)
            payload = bytes(50)
            for number in range(int(count)):
                await endpoint.broadcast(Numbered(number, payload))

    run_on(backend, send)


@pytest.mark.timeout(120)
async def test_many_events_from_three_senders_arrive_complete_and_in_order(
    backend: str, ipc_dir: Path
) -> None:
    config = ConnectionConfig.from_name("receiver", ipc_dir)
    left = dict(zip(SENDERS, (70_000, 70_000, 60_000), strict=True))
    assert sum(left.values()) == EVENTS_IN_ALL
    with contextlib.ExitStack() as workers:
        for name, count in left.items():
            command = calling(_send_many, backend, name, str(config.path), str(count))
            workers.enter_context(Worker(*command, strict=False))
        received = dict.fromkeys(SENDERS, 0)
        async with endpoint_class(backend).serve(config) as endpoint:
            stream = endpoint.stream(Numbered)
            async for event in stream:
                origin = event.get_origin()
                assert event.number == received[origin]
                received[origin] += 1
                if received[origin] == left[origin]:
                    del left[origin]
                    if not left:
                        break
            while any(endpoint.is_connected_to(name) for name in SENDERS):
                await endpoint.wait_until_connections_change()
            await stream.aclose()
            assert sum(received.values()) == EVENTS_IN_ALL


# -- Forks -----------------------------------------------------------------------------------


@dataclass
class Forked(BaseEvent):
    child: int


class Fork(BaseRequestResponseEvent[Forked]):
    """Ask a process to fork."""

    @staticmethod
    def expected_response_type() -> type[Forked]:
        return Forked


@dataclass
class Ended(BaseEvent):
    exit_code: int | None


class EndChild(BaseRequestResponseEvent[Ended]):
    """Ask a process to let its child end."""

    @staticmethod
    def expected_response_type() -> type[Ended]:
        return Ended


def _serve_and_fork(backend: str, path: str) -> None:
    """Serve until killed or told to leave; the children live for as long as they are wanted."""
    context = multiprocessing.get_context("fork")
    has_started = context.Event()
    may_end = context.Event()
    children = []

    async def serve() -> None:
        async with endpoint_class(backend).serve(ConnectionConfig("server", Path(path))) as server:

            def live() -> None:
                has_started.set()
                if backend != "trio":  # which does not notice that it was forked
                    with pytest.raises(LifecycleError, match="runs in another event loop"):
                        server.broadcast_nowait(Leave())
                may_end.wait()

            async def fork(request: Fork) -> None:
                child = context.Process(target=live)
                child.start()
                assert has_started.wait(SECONDS)
                children.append(child)
                assert child.pid is not None  # it was started
                await server.broadcast(Forked(child.pid), request.broadcast_config())

            async def end_child(request: EndChild) -> None:
                may_end.set()
                child = children.pop()
                child.join(SECONDS)
                await server.broadcast(Ended(child.exitcode), request.broadcast_config())

            server.subscribe(Fork, fork)
            server.subscribe(EndChild, end_child)
            await server.wait_for(Leave)

    run_on(backend, serve)


class Leave(BaseEvent):
    """Tell a process to leave."""


@pytest.fixture
def forking_server(backend: str, config: ConnectionConfig) -> Iterator[Worker]:
    """Return a process that serves, and forks when it is asked to."""
    with Worker(*calling(_serve_and_fork, backend, str(config.path))) as worker:
        yield worker


@contextlib.contextmanager
def _killed_later(process_id: int) -> Iterator[int]:
    try:
        yield process_id
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process_id, signal.SIGKILL)


async def test_a_forked_child_does_not_keep_the_connections_of_its_parent(
    backend: str, forking_server: Worker, config: ConnectionConfig
) -> None:
    async with endpoint_class(backend)("client").run() as client:
        await client.connect_to_endpoints(config)
        await client.wait_until_endpoint_subscribed_to("server", Fork)
        with _killed_later((await client.request(Fork())).child) as child:
            forking_server.kill()
            with anyio.fail_after(SECONDS):
                await client.wait_until_connections_change()
            assert not client.is_connected_to("server")
            os.kill(child, 0)  # it lives
            # Nor does it listen on: nobody gets in, and somebody else can serve there.
            await forking_server.ended()
            with socket.socket(socket.AF_UNIX) as probe, pytest.raises(ConnectionRefusedError):
                probe.connect(str(config.path))
            async with endpoint_class(backend).serve(config):
                await client.connect_to_endpoints(config)
            os.kill(child, 0)


async def test_a_forked_child_ends_without_harm_to_its_parent(
    backend: str, forking_server: Worker, config: ConnectionConfig
) -> None:
    async with endpoint_class(backend)("client").run() as client:
        await client.connect_to_endpoints(config)
        await client.wait_until_endpoint_subscribed_to("server", EndChild)
        identity = config.path.stat().st_ino
        await client.request(Fork())
        assert (await client.request(EndChild())).exit_code == 0
        assert client.is_connected_to("server")
        assert config.path.stat().st_ino == identity
        async with endpoint_class(backend)("another").run() as another:
            await another.connect_to_endpoints(config)
            await another.wait_until_endpoint_subscribed_to("server", Leave)
            await another.broadcast(Leave())
        await forking_server.ended()
        assert not config.path.exists()
