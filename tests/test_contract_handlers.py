"""
What a subscribed handler may be, may do, and may do wrong: on every backend.

A handler that fails concerns nobody but the log.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Generator
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
    answer_questions,
    collect_garbage,
    complaints,
    heartbeat,
    take,
    turns,
    until,
)

from lahja import AsyncioEndpoint, TrioEndpoint
from lahja.base import BaseEndpoint

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["local", "remote"])
def sender_of(request: pytest.FixtureRequest) -> Callable[..., BaseEndpoint]:
    """Return what chooses the endpoint that broadcasts: the one that handles, or another one."""

    def choose(server: BaseEndpoint, client: BaseEndpoint) -> BaseEndpoint:
        return server if request.param == "local" else client

    return choose


SenderOf = Callable[[BaseEndpoint, BaseEndpoint], BaseEndpoint]


# -- What a handler may be -------------------------------------------------------------------


class Collector:
    """Have handlers of several kinds."""

    def __init__(self) -> None:
        self.values: list[int] = []

    def method(self, event: Number) -> None:
        self.values.append(event.value)

    async def coroutine_method(self, event: Number) -> None:
        await turns(1)
        self.values.append(event.value)

    def with_more(self, more: str, event: Number) -> None:
        self.values.append(event.value)

    async def coroutine_with_more(self, more: str, event: Number) -> None:
        await turns(1)
        self.values.append(event.value)

    def returning_a_coroutine(self, event: Number) -> Awaitable[None]:
        return self.coroutine_method(event)

    def returning_an_awaitable(self, event: Number) -> Awaitable[None]:
        return Later(self.coroutine_method(event))

    def returning_a_value(self, event: Number) -> int:
        self.values.append(event.value)
        return event.value


class Later:
    """Be awaitable, and nothing else."""

    def __init__(self, awaitable: Awaitable[None]) -> None:
        self.awaitable = awaitable

    def __await__(self) -> Generator[Any, Any, None]:
        return self.awaitable.__await__()


class Callable_(Collector):
    def __call__(self, event: Number) -> None:
        self.method(event)


class CoroutineCallable(Collector):
    async def __call__(self, event: Number) -> None:
        await self.coroutine_method(event)


def function_for(collector: Collector) -> Callable[[Number], None]:
    def function(event: Number) -> None:
        collector.method(event)

    return function


def coroutine_function_for(collector: Collector) -> Callable[[Number], Awaitable[None]]:
    async def function(event: Number) -> None:
        await collector.coroutine_method(event)

    return function


def future_for(collector: Collector) -> Callable[[Number], Any]:
    def handler(event: Number) -> Any:
        collector.method(event)
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    return handler


HANDLERS: dict[str, Callable[[Collector], Callable[[Number], Any]]] = {
    "function": function_for,
    "coroutine function": coroutine_function_for,
    "lambda": lambda collector: lambda event: collector.method(event),
    "method": lambda collector: collector.method,
    "coroutine method": lambda collector: collector.coroutine_method,
    "partial": lambda collector: functools.partial(collector.with_more, "more"),
    "coroutine partial": lambda collector: functools.partial(collector.coroutine_with_more, "more"),
    "object": lambda collector: collector if callable(collector) else Callable_(),
    "returning a coroutine": lambda collector: collector.returning_a_coroutine,
    "returning an awaitable": lambda collector: collector.returning_an_awaitable,
    "returning a value": lambda collector: collector.returning_a_value,
    "builtin": lambda collector: functools.partial(_append_value, collector.values),
}


def _append_value(values: list[int], event: Number) -> None:
    values.append(event.value)


@pytest.mark.parametrize("kind", HANDLERS)
async def test_a_handler_may_be_anything_that_can_be_called(
    bus: Bus, kind: str, sender_of: SenderOf
) -> None:
    collector = Callable_()
    async with bus.pair() as (server, client):
        sender = sender_of(server, client)
        server.subscribe(Number, HANDLERS[kind](collector))
        await client.wait_until_endpoint_subscribed_to("server", Number)
        for value in range(100):
            await sender.broadcast(Number(value))
        await until(lambda: len(collector.values) == 100)
        assert collector.values == list(range(100))


async def test_a_handler_may_be_an_object_with_a_coroutine_call(
    bus: Bus, sender_of: SenderOf
) -> None:
    handler = CoroutineCallable()
    async with bus.pair() as (server, client):
        server.subscribe(Number, handler)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        for value in range(10):
            await sender_of(server, client).broadcast(Number(value))
        await until(lambda: handler.values == list(range(10)))


async def test_a_handler_may_return_a_future_of_asyncio(
    bus: Bus, endpoint_class: type[BaseEndpoint]
) -> None:
    if endpoint_class is TrioEndpoint:
        return  # trio has none
    collector = Collector()
    async with bus.run() as endpoint:
        endpoint.subscribe(Number, future_for(collector))
        for value in range(3):
            await endpoint.broadcast(Number(value))
        await until(lambda: collector.values == [0, 1, 2])


@pytest.mark.parametrize(
    "handler", [None, 5, "print", object()], ids=["None", "number", "text", "object"]
)
async def test_what_cannot_be_called_is_a_type_error_at_the_call(bus: Bus, handler: Any) -> None:
    async with bus.run() as endpoint:
        with pytest.raises(TypeError, match=r"a handler must be callable"):
            endpoint.subscribe(Number, handler)
        assert not endpoint.get_subscribed_events()


# -- Order and independence ------------------------------------------------------------------


async def test_each_subscription_handles_its_events_in_order(bus: Bus, sender_of: SenderOf) -> None:
    began: list[int] = []
    ended: list[int] = []
    async with bus.pair() as (server, client):

        async def handler(event: Number) -> None:
            began.append(event.value)
            await turns(3 - event.value % 3)
            ended.append(event.value)
            assert began == ended

        server.subscribe(Number, handler)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        for value in range(30):
            await sender_of(server, client).broadcast(Number(value))
        await until(lambda: len(ended) == 30)
        assert ended == list(range(30))


async def test_local_and_remote_events_of_one_handler_do_not_overtake(bus: Bus) -> None:
    values: list[int] = []
    async with bus.pair() as (server, client):
        server.subscribe(Number, lambda event: values.append(event.value))
        await client.wait_until_endpoint_subscribed_to("server", Number)
        for value in range(200):
            await (server if value % 2 else client).broadcast(Number(value))
        await until(lambda: len(values) == 200)
        assert [value for value in values if value % 2] == list(range(1, 200, 2))
        assert [value for value in values if not value % 2] == list(range(0, 200, 2))


async def test_a_slow_handler_delays_only_itself(bus: Bus, sender_of: SenderOf) -> None:
    slow: list[int] = []
    fast: list[int] = []
    go_on = anyio.Event()
    async with bus.pair() as (server, client):

        async def handler(event: Number) -> None:
            await go_on.wait()
            slow.append(event.value)

        sender = sender_of(server, client)
        server.subscribe(Number, handler)
        server.subscribe(Number, lambda event: fast.append(event.value))
        stream = server.stream(Number)
        answer_questions(server)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        for value in range(10):
            await sender.broadcast(Number(value))
        assert len(await take(stream, 10)) == 10
        await until(lambda: len(fast) == 10)
        assert (await client.request(Question(1))).value == 1
        assert not slow
        go_on.set()
        await until(lambda: slow == list(range(10)))


async def test_one_function_may_be_subscribed_several_times(bus: Bus, sender_of: SenderOf) -> None:
    values: list[int] = []
    async with bus.pair() as (server, client):
        handlers = [
            server.subscribe(Number, lambda event: values.append(event.value)) for _ in range(2)
        ]
        await client.wait_until_endpoint_subscribed_to("server", Number)
        await sender_of(server, client).broadcast(Number(1))
        await until(lambda: values == [1, 1])
        handlers[0].unsubscribe()
        await sender_of(server, client).broadcast(Number(2))
        await until(lambda: values == [1, 1, 2])


async def test_a_handler_may_request_from_where_its_event_came(
    bus: Bus, sender_of: SenderOf
) -> None:
    answers: list[int] = []
    async with bus.pair() as (server, client):
        sender = sender_of(server, client)
        answer_questions(sender)

        async def handler(event: Number) -> None:
            answers.append((await server.request(Question(event.value))).value)

        server.subscribe(Number, handler)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        await server.wait_until_endpoint_subscribed_to(sender.name, Question)
        for value in range(5):
            await sender.broadcast(Number(value))
        await until(lambda: answers == [0, 1, 2, 3, 4])


async def test_handlers_that_broadcast_do_not_nest_without_end(bus: Bus) -> None:
    reached: list[int] = []
    async with bus.run() as endpoint:

        def handler(event: Number) -> None:
            reached.append(event.value)
            if event.value < 5000:
                endpoint.broadcast_nowait(Number(event.value + 1))

        endpoint.subscribe(Number, handler)
        await endpoint.broadcast(Number(0))
        await until(lambda: len(reached) == 5001)


async def test_two_endpoints_may_play_ping_pong_in_their_handlers(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        done = anyio.Event()

        def ping(event: Number) -> None:
            client.broadcast_nowait(Answer(event.value + 1))

        def pong(event: Answer) -> None:
            if event.value < 1000:
                server.broadcast_nowait(Number(event.value + 1))
            else:
                done.set()

        client.subscribe(Number, ping)
        server.subscribe(Answer, pong)
        await client.wait_until_endpoint_subscribed_to("server", Answer)
        await server.wait_until_endpoint_subscribed_to("client", Number)
        await server.broadcast(Number(0))
        await done.wait()


# -- Handlers that fail ----------------------------------------------------------------------


def failing(event: Number) -> None:
    raise ZeroDivisionError("sync")


async def failing_coroutine(event: Number) -> None:
    await turns(1)
    raise ZeroDivisionError("async")


async def failing_at_once(event: Number) -> None:
    raise ZeroDivisionError("at once")


def failing_in_its_awaitable(event: Number) -> Any:
    class Broken:
        def __await__(self) -> Any:
            raise ZeroDivisionError("awaitable")

    return Broken()


FAILING: list[Callable[[Number], Any]] = [
    failing,
    failing_coroutine,
    failing_at_once,
    failing_in_its_awaitable,
]


@pytest.mark.parametrize("handler", FAILING, ids=lambda handler: handler.__name__)
async def test_an_exception_in_a_handler_is_logged_and_everything_else_goes_on(
    bus: Bus,
    handler: Callable[[Number], Any],
    sender_of: SenderOf,
    caplog: pytest.LogCaptureFixture,
) -> None:
    values: list[int] = []
    async with bus.pair() as (server, client):
        server.subscribe(Number, handler)
        server.subscribe(Number, lambda event: values.append(event.value))
        await client.wait_until_endpoint_subscribed_to("server", Number)
        for value in range(3):
            await sender_of(server, client).broadcast(Number(value))
        await until(lambda: values == [0, 1, 2])
        await until(lambda: len(complaints(caplog)) == 3)
        for record in caplog.records:
            if record.name == "asyncio":
                continue  # its debug mode warns of slow machines
            assert record.levelno == logging.ERROR
            assert handler.__name__ in record.getMessage()
            assert "Number" in record.getMessage()
            assert record.exc_info is not None
            assert record.exc_info[0] is ZeroDivisionError
            assert record.exc_info[2] is not None
        assert client.is_connected_to("server")


async def test_a_handler_that_does_not_take_the_event_is_logged(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.run() as endpoint:
        endpoint.subscribe(Number, lambda: None)  # type: ignore[arg-type,misc]
        await endpoint.broadcast(Number(1))
        await until(lambda: complaints(caplog))
        assert "takes 0 positional arguments" in caplog.text


async def test_a_handler_may_unsubscribe_itself_while_it_runs(
    bus: Bus, sender_of: SenderOf, caplog: pytest.LogCaptureFixture
) -> None:
    called: list[int] = []
    async with bus.pair() as (server, client):

        async def handler(event: Number) -> None:
            await turns(1)
            subscription.unsubscribe()
            await turns(1)
            called.append(event.value)

        subscription = server.subscribe(Number, handler)
        marker = server.stream(Marker)
        await client.wait_until_endpoint_subscribed_to("server", Marker)
        sender = sender_of(server, client)
        for value in range(3):
            await sender.broadcast(Number(value))
        await sender.broadcast(Marker())
        await anext(marker)
        await until(lambda: called)
        await turns(5)
        assert called == [0]
        assert not complaints(caplog)


async def test_unsubscribing_before_a_coroutine_handler_began_warns_of_nothing(
    bus: Bus, sender_of: SenderOf
) -> None:
    called: list[int] = []
    async with bus.pair() as (server, client):

        async def handler(event: Number) -> None:
            called.append(event.value)

        first = server.subscribe(Number, handler)
        server.subscribe(Number, lambda event: first.unsubscribe())
        stream = server.stream(Number)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        await sender_of(server, client).broadcast(Number(1))
        await anext(stream)
        await collect_garbage()
        assert not called


async def test_stopping_before_a_coroutine_handler_began_warns_of_nothing(
    bus: Bus, sender_of: SenderOf
) -> None:
    called: list[int] = []

    async def handler(event: Number) -> None:
        called.append(event.value)

    with anyio.CancelScope() as scope:
        async with bus.pair() as (server, client):
            server.subscribe(Number, handler)
            server.subscribe(Number, lambda event: scope.cancel())
            await client.wait_until_endpoint_subscribed_to("server", Number)
            sender_of(server, client).broadcast_nowait(Number(1))
            await anyio.sleep_forever()
    await collect_garbage()
    assert len(called) <= 1


async def test_stopping_cancels_handlers_that_run(bus: Bus, sender_of: SenderOf) -> None:
    ended: list[BaseException] = []
    async with bus.pair() as (server, client):

        async def handler(event: Number) -> None:
            try:
                await anyio.sleep_forever()
            except BaseException as error:
                ended.append(error)
                raise

        server.subscribe(Number, handler)
        stream = server.stream(Number)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        await sender_of(server, client).broadcast(Number(1))
        await anext(stream)
        await turns(3)
    assert len(ended) == 1
    assert isinstance(ended[0], (asyncio.CancelledError, trio.Cancelled))


def call(function: Callable[[], Any], event: Number) -> Any:
    """Call a function that takes no event."""
    return function()


async def test_stopping_while_a_handler_waits_for_something_of_lahja_logs_nothing(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.pair() as (server, client):
        waits: list[Callable[[], Any]] = [
            lambda: server.request(Question(1)),
            lambda: server.wait_for(Marker),
            lambda: server.wait_until_connected_to("nobody"),
            lambda: anext(server.stream(Marker)),
        ]
        server.subscribe(Question, lambda event: None)
        for wait in waits:
            server.subscribe(Number, functools.partial(call, wait))
        stream = server.stream(Number)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        await client.broadcast(Number(1))
        await anext(stream)
        await turns(3)
    assert not complaints(caplog)


# -- Cancellation and interruption -----------------------------------------------------------


async def test_a_handler_that_awaits_what_was_cancelled_is_logged_and_goes_on(
    bus: Bus, sender_of: SenderOf, caplog: pytest.LogCaptureFixture
) -> None:
    """A CancelledError that comes from elsewhere is an exception like others."""
    if bus.endpoint_class is not AsyncioEndpoint:
        return  # no task of trio's is cancelled but by a scope around it
    values: list[int] = []
    async with bus.pair() as (server, client):

        async def handler(event: Number) -> None:
            values.append(event.value)
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

        server.subscribe(Number, handler)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        for value in range(3):
            await sender_of(server, client).broadcast(Number(value))
        await until(lambda: values == [0, 1, 2])
        await until(lambda: len(complaints(caplog)) == 3)


async def test_a_function_that_looks_at_what_was_cancelled_is_logged_and_goes_on(
    bus: Bus, sender_of: SenderOf, caplog: pytest.LogCaptureFixture
) -> None:
    """``future.result()`` raises a CancelledError, which is no Exception."""
    if bus.endpoint_class is not AsyncioEndpoint:
        return  # no task of trio's is cancelled but by a scope around it
    values: list[int] = []
    others: list[int] = []
    async with bus.pair() as (server, client):

        def handler(event: Number) -> None:
            values.append(event.value)
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            future.result()

        server.subscribe(Number, handler)
        server.subscribe(Number, lambda event: others.append(event.value))
        await client.wait_until_endpoint_subscribed_to("server", Number)
        for value in range(3):
            sender_of(server, client).broadcast_nowait(Number(value))
        await until(lambda: values == others == [0, 1, 2])
        assert len(complaints(caplog)) == 3


async def test_a_handler_that_cancels_its_task_gets_the_next_event(
    bus: Bus, sender_of: SenderOf
) -> None:
    values: list[int] = []
    async with bus.pair() as (server, client):

        async def handler(event: Number) -> None:
            values.append(event.value)
            if bus.endpoint_class is AsyncioEndpoint:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await asyncio.sleep(0)
            else:
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await anyio.sleep_forever()

        server.subscribe(Number, handler)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        for value in range(3):
            await sender_of(server, client).broadcast(Number(value))
        await until(lambda: values == [0, 1, 2])


async def test_handlers_may_run_in_eager_tasks(
    bus: Bus, sender_of: SenderOf, anyio_backend: tuple[str, dict[str, Any]]
) -> None:
    """From Python 3.12 on, an asyncio program may have its tasks begin at once; not on uvloop."""
    is_asyncio = anyio_backend == ("asyncio", {"use_uvloop": False})
    if not is_asyncio or not hasattr(asyncio, "eager_task_factory"):
        return
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    try:
        values: list[int] = []
        async with bus.pair() as (server, client):

            async def handler(event: Number) -> None:
                if event.value % 2:
                    await turns(2)
                values.append(event.value)

            server.subscribe(Number, handler)
            answer_questions(server)
            await client.wait_until_endpoint_subscribed_to("server", Question)
            for value in range(20):
                await sender_of(server, client).broadcast(Number(value))
                assert (await client.request(Question(value))).value == value
            await until(lambda: values == list(range(20)))
    finally:
        asyncio.get_running_loop().set_task_factory(None)


# -- Fairness --------------------------------------------------------------------------------


async def test_a_flood_of_events_for_a_handler_lets_others_run(
    bus: Bus, sender_of: SenderOf
) -> None:
    values: list[int] = []
    async with bus.pair() as (server, client), heartbeat() as beats:
        server.subscribe(Number, lambda event: values.append(event.value))
        await client.wait_until_endpoint_subscribed_to("server", Number)
        before = beats[0]
        sender = sender_of(server, client)
        for value in range(2000):
            sender.broadcast_nowait(Number(value))
        await until(lambda: len(values) == 2000)
        if sender is server:
            assert beats[0] - before >= 2000 // 64 - 1


@pytest.mark.parametrize("is_awaited", [False, True])
async def test_a_handler_that_blocks_lets_others_run_in_between(
    bus: Bus, sender_of: SenderOf, is_awaited: bool
) -> None:
    count = 200
    values: list[int] = []
    async with bus.pair() as (server, client), bus.connect("other", "server") as other:

        def block(event: Number) -> None:
            time.sleep(0.005)  # as something that computes, or a library that knows no await
            values.append(event.value)

        async def handler(event: Number) -> None:
            block(event)

        server.subscribe(Number, handler if is_awaited else block)
        answer_questions(server)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        await other.wait_until_endpoint_subscribed_to("server", Question)
        for value in range(count):
            sender_of(server, client).broadcast_nowait(Number(value))
        await until(lambda: len(values) > 10)
        assert (await other.request(Question(1))).value == 1
        assert len(values) < count
        await until(lambda: len(values) == count)
        assert values == [*range(count)]


async def test_a_flood_of_events_for_a_coroutine_handler_lets_others_run(
    bus: Bus, sender_of: SenderOf
) -> None:
    values: list[int] = []
    async with bus.pair() as (server, client), heartbeat() as beats:

        async def handler(event: Number) -> None:
            values.append(event.value)  # never waits for anything

        server.subscribe(Number, handler)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        before = beats[0]
        for value in range(2000):
            sender_of(server, client).broadcast_nowait(Number(value))
        await until(lambda: len(values) == 2000)
        assert beats[0] - before >= 2000 // 64 - 1
