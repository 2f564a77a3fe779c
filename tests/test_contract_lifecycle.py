"""
The life of an endpoint: once begun, once left, and used from one event loop only.

Whatever is raised in the body of ``run()`` or ``serve()`` comes out as itself; nothing is left
behind, whichever way an endpoint ends.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import inspect
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
from helpers import (
    Answer,
    Bus,
    Marker,
    Number,
    Question,
    RawServer,
    answer_questions,
    collect_garbage,
    complaints,
    living_tasks,
    turns,
    until,
)

from lahja import AsyncioEndpoint, BaseEvent, ConnectionConfig, LifecycleError, TrioEndpoint
from lahja.base import BaseEndpoint

pytestmark = pytest.mark.anyio


# -- Once ------------------------------------------------------------------------------------


async def test_an_endpoint_runs_between_entering_and_leaving_run(bus: Bus) -> None:
    endpoint = bus.endpoint_class("alone")
    assert (endpoint.is_running, endpoint.is_stopped) == (False, False)
    assert repr(endpoint) == f"<{bus.endpoint_class.__name__} 'alone': not started>"
    async with endpoint.run() as running:
        assert running is endpoint
        assert (endpoint.is_running, endpoint.is_stopped) == (True, False)
        assert repr(endpoint) == f"<{bus.endpoint_class.__name__} 'alone': running>"
    assert (endpoint.is_running, endpoint.is_stopped) == (False, True)
    assert repr(endpoint) == f"<{bus.endpoint_class.__name__} 'alone': stopped>"
    assert endpoint.name == "alone"


async def test_an_endpoint_runs_only_once(bus: Bus) -> None:
    endpoint = bus.endpoint_class("alone")
    async with endpoint.run():
        with pytest.raises(LifecycleError, match=r"'alone' runs already: make another endpoint"):
            await endpoint.run().__aenter__()
        assert endpoint.is_running
    with pytest.raises(LifecycleError, match=r"'alone' has stopped and cannot run again: make an"):
        await endpoint.run().__aenter__()


async def test_serve_and_run_work_in_any_number_at_a_time(bus: Bus) -> None:
    async with AsyncExitStack() as stack:
        for index in range(10):
            await stack.enter_async_context(bus.serve(f"server {index}"))
            await stack.enter_async_context(bus.run(f"client {index}"))


async def test_wait_started_and_wait_stopped(bus: Bus) -> None:
    seen: list[str] = []
    endpoint = bus.endpoint_class("alone")

    async def watch() -> None:
        await endpoint.wait_started()
        seen.append("started")
        await endpoint.wait_stopped()
        seen.append("stopped")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await turns(3)
        assert not seen
        async with endpoint.run():
            await until(lambda: seen == ["started"])
            await endpoint.wait_started()
        await until(lambda: seen == ["started", "stopped"])
    await endpoint.wait_started()
    await endpoint.wait_stopped()


async def test_waiting_for_an_endpoint_to_start_may_be_cancelled(bus: Bus) -> None:
    endpoint = bus.endpoint_class("alone")
    with anyio.move_on_after(0.01) as scope:
        await endpoint.wait_started()
    assert scope.cancelled_caught
    async with endpoint.run():
        pass


async def test_ipc_path_is_that_of_a_server(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        assert server.ipc_path == bus.config("server").path
        with pytest.raises(LifecycleError, match=r"'client' does not serve: use serve\(config\)"):
            client.ipc_path  # noqa: B018
    assert server.ipc_path == bus.config("server").path


async def test_an_endpoint_cannot_be_pickled_or_copied(bus: Bus) -> None:
    endpoint = bus.endpoint_class("alone")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(NotImplementedError, match=r"Endpoints cannot be pickled"):
            pickle.dumps(endpoint, protocol)
    with pytest.raises(NotImplementedError):
        copy.copy(endpoint)


# -- At the wrong time -----------------------------------------------------------------------

CONFIG = ConnectionConfig("other", Path("other.ipc"))

AWAITED: dict[str, Callable[[BaseEndpoint], Any]] = {
    "connect_to_endpoints": lambda endpoint: endpoint.connect_to_endpoints(CONFIG),
    "broadcast": lambda endpoint: endpoint.broadcast(Number(1)),
    "request": lambda endpoint: endpoint.request(Question(1)),
    "wait_for": lambda endpoint: endpoint.wait_for(Number),
    "wait_until_connected_to": lambda endpoint: endpoint.wait_until_connected_to("alone"),
    "wait_until_all_of": lambda endpoint: endpoint.wait_until_all_of({"alone"}, timeout=1),
    "wait_until_connections_change": lambda endpoint: endpoint.wait_until_connections_change(),
    "wait_until_endpoint_subscribed_to": (
        lambda endpoint: endpoint.wait_until_endpoint_subscribed_to("alone", Number)
    ),
    "wait_until_any_endpoint_subscribed_to": (
        lambda endpoint: endpoint.wait_until_any_endpoint_subscribed_to(Number)
    ),
    "wait_until_all_endpoints_subscribed_to": (
        lambda endpoint: endpoint.wait_until_all_endpoints_subscribed_to(Number)
    ),
    "wait_until_endpoint_subscriptions_change": (
        lambda endpoint: endpoint.wait_until_endpoint_subscriptions_change()
    ),
}
CALLED: dict[str, Callable[[BaseEndpoint], Any]] = {
    "broadcast_nowait": lambda endpoint: endpoint.broadcast_nowait(Number(1)),
}
SUBSCRIBING: dict[str, Callable[[BaseEndpoint], Any]] = {
    "subscribe": lambda endpoint: endpoint.subscribe(Number, print),
    "stream": lambda endpoint: endpoint.stream(Number),
    "membership": lambda endpoint: endpoint.membership(),
}
QUERIES: dict[str, Callable[[BaseEndpoint], Any]] = {
    "is_connected_to": lambda endpoint: endpoint.is_connected_to("other"),
    "get_connected_endpoints_and_subscriptions": (
        lambda endpoint: endpoint.get_connected_endpoints_and_subscriptions()
    ),
    "is_endpoint_subscribed_to": lambda endpoint: endpoint.is_endpoint_subscribed_to("o", Number),
    "is_any_endpoint_subscribed_to": lambda endpoint: endpoint.is_any_endpoint_subscribed_to(
        Number
    ),
    "are_all_endpoints_subscribed_to": (
        lambda endpoint: endpoint.are_all_endpoints_subscribed_to(Number, False)
    ),
    "get_subscribed_events": lambda endpoint: endpoint.get_subscribed_events(),
}


async def use(endpoint: BaseEndpoint, call: Callable[[BaseEndpoint], Any]) -> Any:
    """Call a method, and await what it returns where that is needed."""
    result = call(endpoint)
    return await result if inspect.isawaitable(result) else result


@pytest.mark.parametrize("name", AWAITED | CALLED)
async def test_what_needs_a_running_endpoint_says_so_before_run(bus: Bus, name: str) -> None:
    endpoint = bus.endpoint_class("alone")
    with pytest.raises(
        LifecycleError,
        match=r"^endpoint 'alone' does not run yet: use it within 'async with endpoint.run\(\)', "
        r"or make it by serve\(config\)$",
    ):
        await use(endpoint, (AWAITED | CALLED)[name])
    async with endpoint.run():
        pass


@pytest.mark.parametrize("name", AWAITED | CALLED | SUBSCRIBING)
async def test_what_needs_a_running_endpoint_says_so_after_it_stopped(bus: Bus, name: str) -> None:
    async with bus.run() as endpoint:
        pass
    with pytest.raises(
        LifecycleError, match=r"^endpoint 'alone' has stopped: make another endpoint$"
    ):
        await use(endpoint, (AWAITED | CALLED | SUBSCRIBING)[name])


@pytest.mark.parametrize("name", QUERIES)
async def test_queries_may_be_asked_at_any_time(bus: Bus, name: str) -> None:
    endpoint = bus.endpoint_class("alone")
    answers = [QUERIES[name](endpoint)]
    async with endpoint.run():
        answers.append(QUERIES[name](endpoint))
    answers.append(QUERIES[name](endpoint))
    assert answers[0] == answers[1] == answers[2]


async def test_unsubscribing_after_the_end_is_allowed(bus: Bus) -> None:
    async with bus.run() as endpoint:
        subscription = endpoint.subscribe(Number, print)
        stream = endpoint.stream(Number)
    subscription.unsubscribe()
    stream.close()
    await stream.aclose()


# -- From elsewhere --------------------------------------------------------------------------


def in_thread(function: Callable[[], Any]) -> Any:
    """Call a function in another thread, and return or raise what it does."""
    result: list[Any] = []

    def call() -> None:
        try:
            result.append(function())
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    if isinstance(result[0], BaseException):
        raise result[0]
    return result[0]


ELSEWHERE: dict[str, Callable[[BaseEndpoint, Callable[[BaseEndpoint], Any]], Any]] = {
    "asyncio": lambda endpoint, call: asyncio.run(use(endpoint, call)),
    "trio": lambda endpoint, call: trio.run(use, endpoint, call),
}
EVERYTHING = AWAITED | CALLED | SUBSCRIBING | QUERIES


@pytest.mark.parametrize("where", ELSEWHERE)
@pytest.mark.parametrize("name", EVERYTHING)
async def test_a_call_from_another_event_loop_says_so(bus: Bus, name: str, where: str) -> None:
    async with bus.run() as endpoint:
        with pytest.raises(
            LifecycleError,
            match=r"^endpoint 'alone' runs in another event loop: call its methods from there$",
        ):
            in_thread(functools.partial(ELSEWHERE[where], endpoint, EVERYTHING[name]))
        assert not endpoint.get_subscribed_events()


async def test_waiting_for_the_end_in_another_event_loop_says_so(bus: Bus) -> None:
    async with bus.run() as endpoint:
        for where in ELSEWHERE.values():
            with pytest.raises(LifecycleError, match=r"runs in another event loop"):
                in_thread(functools.partial(where, endpoint, lambda each: each.wait_stopped()))
    for where in ELSEWHERE.values():
        in_thread(functools.partial(where, endpoint, lambda each: each.wait_stopped()))


@pytest.mark.parametrize("name", CALLED | SUBSCRIBING | QUERIES)
async def test_a_call_from_a_thread_without_event_loop_says_so(bus: Bus, name: str) -> None:
    async with bus.run() as endpoint:
        with pytest.raises(LifecycleError, match=r"runs in another event loop"):
            in_thread(lambda: EVERYTHING[name](endpoint))


def test_only_its_event_loop_counts_of_those_that_take_turns_in_a_thread() -> None:
    endpoint = AsyncioEndpoint("alone")
    running = endpoint.run()

    async def broadcast() -> None:
        for number in range(3):
            await endpoint.broadcast(Number(number))

    with asyncio.Runner() as home, asyncio.Runner() as elsewhere:
        home.run(running.__aenter__())
        home.run(broadcast())
        with pytest.raises(LifecycleError, match=r"runs in another event loop"):
            elsewhere.run(broadcast())
        home.run(broadcast())
        home.run(running.__aexit__(None, None, None))


async def test_unsubscribing_from_elsewhere_fails_and_may_be_done_rightly_later(bus: Bus) -> None:
    async with bus.run() as endpoint:
        subscription = endpoint.subscribe(Number, print)
        with pytest.raises(LifecycleError, match=r"runs in another event loop"):
            in_thread(subscription.unsubscribe)
        assert endpoint.get_subscribed_events() == {Number}
        subscription.unsubscribe()
        assert not endpoint.get_subscribed_events()


async def test_a_stream_is_read_and_closed_in_the_event_loop_of_its_endpoint(bus: Bus) -> None:
    async def read(stream: Any) -> None:
        await anext(stream)

    async def close(stream: Any) -> None:
        await stream.aclose()

    async with bus.run() as endpoint:
        stream = endpoint.stream(Number)
        for call in (read, close, lambda stream: stream.close()):
            for where in ELSEWHERE.values():
                with pytest.raises(LifecycleError, match=r"runs in another event loop"):
                    in_thread(functools.partial(where, stream, call))  # type: ignore[arg-type]
        await endpoint.broadcast(Number(1))
        assert (await anext(stream)).value == 1
        await stream.aclose()
        assert not endpoint.get_subscribed_events()


async def test_an_endpoint_for_the_other_event_loop_says_so(bus: Bus) -> None:
    other = AsyncioEndpoint if bus.endpoint_class is TrioEndpoint else TrioEndpoint
    library = "asyncio" if other is AsyncioEndpoint else "trio"
    endpoint = other("alone")
    for context in (endpoint.run(), other.serve(bus.config("alone"))):
        with pytest.raises(LifecycleError, match=rf"'alone' is one for {library}, .*TrioEndpoint"):
            async with context:
                pass
    assert repr(endpoint).endswith("not started>")
    assert not bus.config("alone").path.exists()


async def test_running_a_running_endpoint_elsewhere_fails(bus: Bus) -> None:
    async def run_again(endpoint: BaseEndpoint) -> None:
        async with endpoint.run():
            pass

    async with bus.run() as endpoint:
        for where in ELSEWHERE.values():
            with pytest.raises(LifecycleError, match=r"runs already"):
                in_thread(functools.partial(where, endpoint, run_again))
        assert endpoint.is_running


async def test_the_event_loop_of_an_asyncio_endpoint(bus: Bus) -> None:
    if bus.endpoint_class is not AsyncioEndpoint:
        assert not hasattr(bus.endpoint_class, "event_loop")
        return

    class Extended(AsyncioEndpoint):
        @AsyncioEndpoint.check_event_loop
        def extra(self, value: int) -> int:
            return value

    endpoint = Extended("alone")
    assert Extended.extra.__name__ == "extra"
    for call in (lambda: endpoint.event_loop, endpoint.check_event_loop, lambda: endpoint.extra(1)):
        with pytest.raises(LifecycleError, match=r"does not run yet"):
            call()
    async with endpoint.run():
        assert endpoint.event_loop is asyncio.get_running_loop()
        endpoint.check_event_loop()
        assert endpoint.extra(1) == 1
        for call in (endpoint.check_event_loop, lambda: endpoint.extra(1)):
            with pytest.raises(LifecycleError, match=r"another event loop"):
                in_thread(call)
    with pytest.raises(LifecycleError, match=r"has stopped"):
        endpoint.event_loop  # noqa: B018


# -- What is raised in the body --------------------------------------------------------------


class Interruption(BaseException):
    """Be no Exception."""


ERRORS: list[BaseException] = [
    ZeroDivisionError("mine"),
    RuntimeError("mine"),
    TimeoutError("mine"),
    LifecycleError("mine"),
    ExceptionGroup("mine", [ValueError("1"), ExceptionGroup("2", [KeyError("3")])]),
    BaseExceptionGroup("mine", [Interruption("1")]),
    Interruption("mine"),
    KeyboardInterrupt("mine"),
    SystemExit("mine"),
    GeneratorExit("mine"),
    StopAsyncIteration("mine"),
    StopIteration("mine"),
    asyncio.CancelledError("mine"),
]


async def leave_with(error: BaseException, bus: Bus, way: str) -> BaseException:
    """Leave an endpoint by raising an error, and return what comes out."""
    try:
        if way == "run":
            async with bus.run():
                raise error
        elif way == "serve":
            async with bus.serve("server"):
                raise error
        else:
            async with bus.pair() as (server, client):
                began = anyio.Event()

                async def handler(event: Number) -> None:
                    began.set()
                    await anyio.sleep_forever()

                server.subscribe(Number, handler)
                await client.wait_until_endpoint_subscribed_to("server", Number)
                await client.broadcast(Number(1))
                await began.wait()
                raise error
    except BaseException as raised:
        return raised
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("way", ["run", "serve", "while a handler runs"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_what_the_body_raises_comes_out_as_itself(
    bus: Bus, error: BaseException, way: str
) -> None:
    tasks = living_tasks()
    assert await leave_with(error, bus, way) is error
    await until(lambda: living_tasks() == tasks)
    error.__traceback__ = error.__context__ = None


async def test_what_the_body_raises_is_not_hidden_by_a_handler_that_fails(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(event: Number) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise RuntimeError("the handler's own")

    async def leave() -> None:
        async with bus.run() as endpoint:
            endpoint.subscribe(Number, handler)
            await endpoint.broadcast(Number(1))
            await turns(5)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await leave()
    assert "the handler's own" in caplog.text


async def test_cancelling_the_body_ends_the_endpoint_and_goes_on_outwards(bus: Bus) -> None:
    with anyio.CancelScope() as outer:
        async with bus.pair() as (server, client):
            outer.cancel()
            await anyio.sleep_forever()
    assert outer.cancelled_caught
    assert server.is_stopped
    assert client.is_stopped


async def test_a_task_of_the_body_that_fails_ends_the_endpoint(bus: Bus) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    async def run() -> None:
        async with bus.run() as endpoint, anyio.create_task_group() as tasks:
            tasks.start_soon(fail)
            await endpoint.wait_for(Number)

    with pytest.raises(ExceptionGroup) as caught:
        await run()
    assert caught.value.split(ZeroDivisionError)[1] is None


async def test_closing_the_generator_of_run_stops_the_endpoint(bus: Bus) -> None:
    tasks = living_tasks()
    async with bus.serve("server") as server:
        endpoint = bus.endpoint_class("client")
        context: Any = endpoint.run()
        await context.__aenter__()
        await endpoint.connect_to_endpoints(bus.config("server"))
        await server.wait_until_connected_to("client")
        await context.gen.aclose()
        assert endpoint.is_stopped
        await until(lambda: not server.is_connected_to("client"))
    await until(lambda: living_tasks() == tasks)


async def test_a_context_that_is_dropped_stops_its_endpoint(bus: Bus) -> None:
    if bus.endpoint_class is not AsyncioEndpoint:
        return  # trio forbids to leave a nursery open
    endpoint = AsyncioEndpoint("alone")
    context = endpoint.run()
    await context.__aenter__()
    endpoint.subscribe(Number, lambda event: asyncio.sleep(1000))
    await endpoint.broadcast(Number(1))
    await turns(3)
    del context
    gc.collect()
    await endpoint.wait_stopped()
    await turns(3)


def test_a_stream_may_be_dropped_after_its_event_loop_was_closed() -> None:
    endpoint = AsyncioEndpoint("alone")
    context = endpoint.run()
    streams = [endpoint.stream(Number)]
    loop = asyncio.new_event_loop()
    loop.run_until_complete(context.__aenter__())
    loop.close()
    streams.clear()
    assert endpoint.is_running  # nobody could tell it


async def test_what_is_started_after_the_end_does_not_run(bus: Bus) -> None:
    ran: list[bool] = []

    async def run() -> None:
        ran.append(True)

    async with bus.run() as endpoint:
        endpoint._loop.start_soon(run)
        await until(lambda: ran)
    endpoint._loop.start_soon(run)
    endpoint._loop.call_soon_from_anywhere(lambda: ran.append(False))
    endpoint._loop.end()
    await turns(3)
    assert True not in ran[1:]


# -- Interrupted from the keyboard -----------------------------------------------------------


@contextmanager
def run_of(kind: str) -> Iterator[Callable[..., Any]]:
    """Give what runs a coroutine function in an event loop of its own."""
    if kind == "trio":
        yield trio.run
    else:
        import uvloop

        factory = uvloop.new_event_loop if kind == "uvloop" else None
        with asyncio.Runner(loop_factory=factory) as runner:
            yield lambda function, *args: runner.run(function(*args))


@pytest.mark.parametrize("local", [True, False], ids=["local", "remote"])
@pytest.mark.parametrize("is_coroutine", [False, True], ids=["function", "coroutine function"])
@pytest.mark.parametrize("kind", ["asyncio", "uvloop", "trio"])
def test_a_keyboard_interrupt_in_a_handler_ends_the_program(
    kind: str, is_coroutine: bool, local: bool, ipc_dir: Path
) -> None:
    bus = Bus(TrioEndpoint if kind == "trio" else AsyncioEndpoint, ipc_dir)
    endpoints: list[BaseEndpoint] = []

    def interrupt(event: Number) -> None:
        raise KeyboardInterrupt

    async def interrupt_later(event: Number) -> None:
        await turns(1)
        raise KeyboardInterrupt

    async def main() -> None:
        async with bus.pair() as (server, client):
            endpoints.extend((server, client))
            server.subscribe(Number, interrupt_later if is_coroutine else interrupt)
            await client.wait_until_endpoint_subscribed_to("server", Number)
            await (server if local else client).broadcast(Number(1))
            await anyio.sleep(30)

    def run() -> None:
        with run_of(kind) as runner:
            runner(main)

    with pytest.raises(KeyboardInterrupt):
        run()
    assert all(endpoint.is_stopped for endpoint in endpoints)
    assert not any(ipc_dir.iterdir())
    # asyncio complains of the interrupted task when it is collected: here, not in another test.
    endpoints.clear()
    gc.collect()


# -- Nothing is left behind ------------------------------------------------------------------


async def test_no_task_is_left_when_run_has_ended(bus: Bus) -> None:
    tasks = living_tasks()

    async def use_everything() -> None:
        async with bus.pair() as (server, client):
            answer_questions(server)
            server.subscribe(Number, lambda event: anyio.sleep(1000))
            server.subscribe(Marker, print)
            stream = client.stream(Answer, max_queue=1)
            await client.wait_until_endpoint_subscribed_to("server", Number)
            await client.request(Question(1))
            await client.broadcast(Number(1))
            await client.broadcast(Number(2))
            assert (await anext(stream)).value == 1

    await use_everything()
    assert living_tasks() == tasks


async def test_an_endpoint_that_stopped_is_collected(bus: Bus) -> None:
    class Kind(BaseEvent):
        pass

    async def use_and_forget() -> None:
        async with bus.pair() as (server, client):
            server.subscribe(Kind, lambda event: None)
            stream = client.stream(Number)
            await client.wait_until_endpoint_subscribed_to("server", Kind)
            await client.broadcast(Kind())
            del stream

    def living() -> int:
        gc.collect()
        return sum(isinstance(each, BaseEndpoint) for each in gc.get_objects())

    before = living()
    for _ in range(3):
        await use_and_forget()
    await collect_garbage()
    assert living() == before


async def test_an_ordinary_life_logs_nothing(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    async with bus.pair() as (server, client):
        server.subscribe(Number, lambda event: None)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        await client.broadcast(Number(1))
    assert not complaints(caplog)


def test_while_its_event_loop_is_paused_an_endpoint_may_be_called_in_that_thread() -> None:
    endpoint = AsyncioEndpoint("alone")
    running = endpoint.run()
    values: list[int] = []
    with asyncio.Runner() as home:
        home.run(running.__aenter__())
        subscription = endpoint.subscribe(Number, lambda event: values.append(event.value))
        stream = endpoint.stream(Number)
        assert endpoint.is_connected_to("alone")
        assert endpoint.get_subscribed_events() == {Number}
        endpoint.broadcast_nowait(Number(1))
        with pytest.raises(LifecycleError, match=r"runs in another event loop"):
            in_thread(lambda: endpoint.broadcast_nowait(Number(2)))

        async def next_value() -> int:
            return (await anext(stream)).value

        assert home.run(next_value()) == 1
        waiting = endpoint.wait_for(Number)
        endpoint.broadcast_nowait(Number(3))
        assert home.run(waiting).value == 3
        subscription.unsubscribe()
        home.run(stream.aclose())
        home.run(running.__aexit__(None, None, None))
        with pytest.raises(LifecycleError, match=r"has stopped"):
            endpoint.broadcast_nowait(Number(4))
    assert values == [1, 3]


async def test_what_an_endpoint_does_not_have_yet_is_no_attribute_of_it(bus: Bus) -> None:
    endpoint = bus.endpoint_class("alone")
    for name in ("ipc_path", "event_loop"):  # the other one only asyncio's ever has
        assert not hasattr(endpoint, name)
        assert getattr(endpoint, name, None) is None
    with pytest.raises(LifecycleError, match=r"does not serve: use serve\(config\)"):
        _ = endpoint.ipc_path


# -- Leaving ---------------------------------------------------------------------------------


async def test_leaving_waits_until_handlers_have_done_with_its_own_broadcasts(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    saved: list[int] = []
    answers: list[int] = []
    async with bus.pair() as (server, client):
        answer_questions(server)
        await client.wait_until_endpoint_subscribed_to("server", Question)

        async def save(event: Number) -> None:
            await turns(3)
            answers.append((await client.request(Question(event.value))).value)
            await client.broadcast(Marker())

        async def mark(event: Marker) -> None:
            await turns(3)
            saved.append(len(answers))

        client.subscribe(Number, save)
        client.subscribe(Marker, mark)
        for value in range(3):
            await client.broadcast(Number(value))
    assert answers == [0, 1, 2]
    assert len(saved) == 3
    assert not complaints(caplog)


async def test_leaving_says_which_handler_had_not_done_within_drain_timeout(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async def never(event: Number) -> None:
        await anyio.sleep_forever()

    async with bus.run(drain_timeout=0.01) as endpoint:
        endpoint.subscribe(Number, never)
        endpoint.subscribe(Marker, lambda event: None)
        for value in range(3):
            await endpoint.broadcast(Number(value))
        await endpoint.broadcast(Marker())
    (line,) = complaints(caplog)
    assert line.startswith("alone: left without what handler <function ")
    assert line.endswith("of its own broadcasts within 0.01 s: 3 events; see drain_timeout")


async def test_leaving_does_not_wait_for_a_handler_that_unsubscribes_meanwhile(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.run(drain_timeout=1000) as endpoint:

        async def first(event: Number) -> None:
            await turns(3)
            subscription.unsubscribe()
            await anyio.sleep_forever()

        subscription = endpoint.subscribe(Number, first)
        for value in range(3):
            await endpoint.broadcast(Number(value))
    assert not complaints(caplog)


async def test_a_cancelled_body_does_not_wait_for_handlers(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async def never(event: Number) -> None:
        await anyio.sleep_forever()

    with anyio.CancelScope() as scope:
        async with bus.run(drain_timeout=1000) as endpoint:
            endpoint.subscribe(Number, never)
            await endpoint.broadcast(Number(1))
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert not complaints(caplog)


async def connect_until_it_stops(
    endpoint: BaseEndpoint, config: ConnectionConfig, errors: list[Exception]
) -> None:
    """Try to connect, and note the error of an endpoint that stops meanwhile."""
    try:
        await endpoint.connect_to_endpoints(config)
    except LifecycleError as error:
        errors.append(error)


async def test_connecting_ends_when_the_endpoint_stops(bus: Bus) -> None:
    errors: list[Exception] = []
    endpoint = bus.endpoint_class("a", connect_timeout=1000)
    async with anyio.create_task_group() as tasks, endpoint.run():
        tasks.start_soon(connect_until_it_stops, endpoint, bus.config("nobody"), errors)
        await until(lambda: endpoint._peering.is_connecting_to("nobody"))
    assert [str(error) for error in errors] == ["endpoint 'a' stopped"]
    async with bus.serve("nobody") as nobody:
        await turns(3)
        assert not nobody.is_connected_to("a")


async def test_an_attempt_that_waits_for_a_hello_ends_when_the_endpoint_stops(bus: Bus) -> None:
    errors: list[Exception] = []
    endpoint = bus.endpoint_class("a", connect_timeout=1000)
    with RawServer(bus.config("silent").path) as server:
        async with anyio.create_task_group() as tasks, endpoint.run():
            tasks.start_soon(connect_until_it_stops, endpoint, bus.config("silent"), errors)
            peer = await server.accept()
        peer.socket.close()
    assert [str(error) for error in errors] == ["endpoint 'a' stopped"]


async def test_a_broadcast_that_its_own_full_stream_holds_back_goes_on_at_the_end(bus: Bus) -> None:
    done: list[int] = []
    async with anyio.create_task_group() as tasks, bus.run() as endpoint:
        stream = endpoint.stream(Number, max_queue=1)

        async def fill() -> None:
            await endpoint.broadcast(Number(1))
            await endpoint.broadcast(Number(2))
            done.append(len(stream.mailbox.events))

        tasks.start_soon(fill)
        await until(lambda: len(stream.mailbox.events) == 2)
        await turns(3)
        assert not done
    assert done == [2]


# -- Subclasses ------------------------------------------------------------------------------

# What endpoints once had for lahja's own use, what programs call their own, and what came after
# lahja 0.17: a program that is older may have it, too.
ONCE = """
    backend call_later call_soon call_soon_from_anywhere cancel_tasks check_if_here checkpoint
    close_stream current_loop deadline gather is_stray make_waiter open_channel pass_gate sleep
    start_soon time unwatch_readable watch_readable
"""
USUAL = """
    cancel channels clock close config connect connections context events handlers host id inner
    initialize is_alive lock log loop members nursery on_connect on_message options owner path
    peering peers pid process queue receive release reset router send shutdown start state status
    stop streams subscriptions table tasks thread token update wait
"""
LATER = (
    "is_server_stopped is_stopped join membership stats wait_started wait_stopped wait_until_all_of"
)


def of_subclass(kind: str, base: type[BaseEndpoint], used: list[str]) -> type[BaseEndpoint]:
    """Return a class of endpoints with much of its own; its methods say that they were used."""
    loop = base("alone")._loop
    names = {name for name in dir(loop) if not name.startswith("_")}
    names |= {*ONCE.split(), *USUAL.split(), *LATER.split()}

    def method_of(name: str) -> Callable[..., None]:
        return lambda self, *args, **options: used.append(name)

    if kind == "methods":
        return type("Program", (base,), {name: method_of(name) for name in names})
    if kind == "class attributes":
        return type("Program", (base,), dict.fromkeys(names, "its own"))

    def __init__(self: Any, *args: Any, **options: Any) -> None:
        # What is a property cannot be set on an object, in no class.
        properties = {name for name in names if isinstance(getattr(base, name, None), property)}
        vars(self).update(dict.fromkeys(names - properties, "its own"))
        base.__init__(self, *args, **options)

    return type("Program", (base,), {"__init__": __init__})


@pytest.mark.parametrize("kind", ["methods", "class attributes", "attributes"])
async def test_a_subclass_may_give_its_methods_and_attributes_any_name(
    bus: Bus, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    used: list[str] = []
    handled: list[int] = []
    read: list[int] = []
    cls = of_subclass(kind, bus.endpoint_class, used)
    join = super(cls, cls).join if kind != "attributes" else cls.join
    async with (
        Bus(cls, bus.directory).pair(high_water=0) as (server, client),
        join("third", bus.directory) as third,
    ):
        await third.wait_until_connected_to("server")
        answer_questions(server)

        async def handle(event: Number) -> None:
            await turns(3)
            handled.append(event.value)

        subscription = server.subscribe(Number, handle)
        dropped = server.stream(Number)
        async with server.stream(Number, max_queue=2) as numbers:
            first = server.wait_for(Number)
            await client.wait_until_endpoint_subscribed_to("server", Number)
            async with anyio.create_task_group() as tasks:

                async def broadcast() -> None:
                    for value in range(10):
                        await client.broadcast(Number(value))

                tasks.start_soon(broadcast)
                assert (await first).value == 0
                read += [(await anext(numbers)).value for _ in range(10)]
        await until(lambda: len(handled) == 10)
        subscription.unsubscribe()
        del dropped
        await collect_garbage()
        assert server.get_subscribed_events() == {Question}
        await client.wait_until_endpoint_subscribed_to("server", Question)
        assert (await client.request(Question(5))).value == 5
        assert (await client.request(Question(6), timeout=1000)).value == 6
        await server.broadcast(Question(7))
        await BaseEndpoint.wait_until_all_of(third, {"server", "third"}, timeout=1000)
        assert BaseEndpoint.stats(client).state == "running"
        assert repr(client) == "<Program 'client': running>"
    assert repr(client) == "<Program 'client': stopped>"
    with pytest.raises(LifecycleError, match="has stopped"):
        client.stream(Number)
    assert handled == read == [*range(10)]
    assert not used
    assert not complaints(caplog)
