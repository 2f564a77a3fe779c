"""
Streams: how they begin and end, what they do when they are full, and flow control by credit.

A peer made by hand shows what an endpoint really sends, and when it grants credit.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import struct
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import anyio
import pytest
from helpers import (
    Answer,
    Bus,
    Marker,
    Number,
    Question,
    Text,
    answer_questions,
    collect_garbage,
    complaints,
    heartbeat,
    raw_frame,
    raw_peer,
    take,
    turns,
    until,
)

from lahja import AsyncioEndpoint, BroadcastConfig, LifecycleError, Stream, StreamOverflow, wire
from lahja.base import BaseEndpoint

pytestmark = pytest.mark.anyio

POLICIES: dict[str, dict[str, Any]] = {
    "unbounded": {},
    "block": {"max_queue": 1000, "overflow": "block"},
    "drop_oldest": {"max_queue": 1000, "overflow": "drop_oldest"},
    "drop_newest": {"max_queue": 1000, "overflow": "drop_newest"},
    "raise": {"max_queue": 1000, "overflow": "raise"},
}


@pytest.fixture(params=POLICIES)
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the options of a stream that is large enough."""
    return POLICIES[request.param]


# -- Reading ---------------------------------------------------------------------------------


async def test_a_stream_gives_every_event_in_order(bus: Bus, options: dict[str, Any]) -> None:
    async with bus.pair() as (server, client):
        stream = server.stream(Number, **options)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        async with anyio.create_task_group() as tasks:

            async def broadcast() -> None:
                for value in range(500):
                    await client.broadcast(Number(value))

            tasks.start_soon(broadcast)
            received: list[int] = []
            async for event in stream:
                received.append(event.value)
                if len(received) == 500:
                    break
        assert received == list(range(500))
        assert stream.dropped == 0


async def test_several_streams_each_get_every_event(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        streams = [server.stream(Number) for _ in range(3)]
        await client.wait_until_endpoint_subscribed_to("server", Number)
        for value in range(5):
            await client.broadcast(Number(value))
        events = [await take(stream, 5) for stream in streams]
        assert [event.value for event in events[0]] == [0, 1, 2, 3, 4]
        for other in events[1:]:
            assert all(mine is theirs for mine, theirs in zip(events[0], other, strict=True))


async def test_num_events_ends_a_stream_after_so_many_events(
    bus: Bus, options: dict[str, Any]
) -> None:
    async with bus.pair() as (server, client):
        stream = server.stream(Number, num_events=3, **options)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        for value in range(5):
            await client.broadcast(Number(value))
        assert [event.value async for event in stream] == [0, 1, 2]
        assert [event.value async for event in stream] == []
        assert not server.is_endpoint_subscribed_to("server", Number)
        assert Number not in server.get_subscribed_events()


async def test_a_stream_that_got_its_last_event_is_not_subscribed_even_before_it_is_read(
    bus: Bus,
) -> None:
    async with bus.run() as endpoint:
        stream = endpoint.stream(Number, num_events=2)
        for value in range(3):
            await endpoint.broadcast(Number(value))
        assert not endpoint.get_subscribed_events()
        assert [event.value async for event in stream] == [0, 1]


async def test_a_stream_of_no_events_ends_at_once_and_never_subscribes(
    bus: Bus, options: dict[str, Any]
) -> None:
    async with bus.run() as endpoint:
        stream = endpoint.stream(Number, 0, **options)
        assert not endpoint.get_subscribed_events()
        assert [event async for event in stream] == []


async def test_two_tasks_cannot_wait_for_the_next_event_of_one_stream(bus: Bus) -> None:
    async with bus.run() as endpoint:
        stream = endpoint.stream(Number)
        async with anyio.create_task_group() as tasks:

            async def read() -> None:
                assert (await anext(stream)).value == 1

            tasks.start_soon(read)
            await turns(3)
            with pytest.raises(RuntimeError, match=r"another task waits"):
                await anext(stream)
            await endpoint.broadcast(Number(1))
        await endpoint.broadcast(Number(2))
        assert (await anext(stream)).value == 2


async def test_tasks_may_take_turns_in_reading_one_stream(bus: Bus) -> None:
    async with bus.run() as endpoint:
        stream = endpoint.stream(Number)
        for value in range(4):
            await endpoint.broadcast(Number(value))
        values: list[int] = []

        async def read() -> None:
            values.extend(event.value for event in await take(stream, 2))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            tasks.start_soon(read)
        assert sorted(values) == [0, 1, 2, 3]


async def test_the_repr_of_a_stream_tells_its_state(bus: Bus) -> None:
    async with bus.run() as endpoint:
        stream = endpoint.stream(Number)
        await endpoint.broadcast(Number(1))
        assert repr(stream) == "<Stream of helpers:Number: 1 events waiting>"
        await stream.aclose()
        assert repr(stream) == "<Stream of helpers:Number: closed>"


# -- The interface of an asynchronous generator ----------------------------------------------


async def test_a_stream_has_the_whole_interface_of_an_asynchronous_generator(bus: Bus) -> None:
    async with bus.run() as endpoint:
        stream = endpoint.stream(Number)
        assert isinstance(stream, AsyncGenerator)
        assert isinstance(stream, Stream)
        assert aiter(stream) is stream
        assert not inspect.isasyncgen(stream)
        for value in range(3):
            await endpoint.broadcast(Number(value))
        assert (await stream.__anext__()).value == 0
        assert (await anext(stream)).value == 1
        assert (await stream.asend(None)).value == 2
        await stream.aclose()
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert await anext(stream, "default") == "default"
        with pytest.raises(StopAsyncIteration):
            await stream.asend(None)


@pytest.mark.parametrize(
    "arguments",
    [
        (ZeroDivisionError("why"),),
        (ZeroDivisionError, ZeroDivisionError("why")),
        (ZeroDivisionError, ZeroDivisionError("why"), None),
        (ZeroDivisionError, "why"),
    ],
    ids=["instance", "class and instance", "with traceback", "class and value"],
)
async def test_athrow_closes_a_stream_and_raises(bus: Bus, arguments: tuple[Any, ...]) -> None:
    async with bus.run() as endpoint:
        stream = endpoint.stream(Number)
        await endpoint.broadcast(Number(1))
        with pytest.raises(ZeroDivisionError, match=r"^why$"):
            await stream.athrow(*arguments)
        assert not endpoint.get_subscribed_events()
        assert [event async for event in stream] == []


async def test_athrow_of_a_class_alone_raises_an_instance(bus: Bus) -> None:
    async with bus.run() as endpoint:
        stream = endpoint.stream(Number)
        with pytest.raises(ZeroDivisionError):
            await stream.athrow(ZeroDivisionError)
        with pytest.raises(GeneratorExit):
            await stream.athrow(GeneratorExit)


async def test_a_stream_is_closed_as_a_context_manager_and_by_aclosing(bus: Bus) -> None:
    async with bus.run() as endpoint:
        async with endpoint.stream(Number) as stream:
            await endpoint.broadcast(Number(1))
            assert endpoint.get_subscribed_events() == {Number}
        assert not endpoint.get_subscribed_events()
        assert [event async for event in stream] == []
        async with aclosing(endpoint.stream(Number)):
            assert endpoint.get_subscribed_events() == {Number}
        assert not endpoint.get_subscribed_events()


# -- How a stream ends -----------------------------------------------------------------------


async def test_a_stream_that_is_dropped_unsubscribes(bus: Bus, options: dict[str, Any]) -> None:
    async with bus.pair() as (server, client):
        stream = server.stream(Number, **options)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        gc.disable()
        try:
            del stream  # its last reference: nobody needs to look for garbage
            await until(lambda: not client.is_endpoint_subscribed_to("server", Number))
        finally:
            gc.enable()


async def test_a_stream_that_is_dropped_within_a_cycle_unsubscribes(bus: Bus) -> None:
    class Owner:
        stream: Stream[Number]
        me: Owner

    async with bus.run() as endpoint:
        owner = Owner()
        owner.stream, owner.me = endpoint.stream(Number), owner
        del owner
        await collect_garbage()
        await until(lambda: not endpoint.get_subscribed_events())


async def test_leaving_a_loop_early_drops_and_unsubscribes_its_stream(bus: Bus) -> None:
    async with bus.run() as endpoint:
        async with anyio.create_task_group() as tasks:

            async def read() -> None:
                async for event in endpoint.stream(Number):
                    if event.value == 2:
                        break

            tasks.start_soon(read)
            await until(endpoint.get_subscribed_events)
            for value in range(5):
                await endpoint.broadcast(Number(value))
        await until(lambda: not endpoint.get_subscribed_events())


async def test_a_stream_may_be_dropped_in_another_thread(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        streams = [server.stream(Number)]
        await client.wait_until_endpoint_subscribed_to("server", Number)
        await anyio.to_thread.run_sync(streams.clear)
        await until(lambda: not client.is_endpoint_subscribed_to("server", Number))


async def test_a_stream_may_be_dropped_after_its_endpoint_stopped(bus: Bus) -> None:
    async with bus.run() as endpoint:
        stream = endpoint.stream(Number)
        never_run = bus.endpoint_class("never run").stream(Number)
    del stream, never_run
    await collect_garbage()


async def test_a_stream_that_is_cancelled_while_it_waits_unsubscribes(
    bus: Bus, options: dict[str, Any]
) -> None:
    async with bus.run() as endpoint:
        stream = endpoint.stream(Number, **options)
        with anyio.move_on_after(0.01) as scope:
            await anext(stream)
        assert scope.cancelled_caught
        assert not endpoint.get_subscribed_events()
        assert [event async for event in stream] == []


async def test_cancellation_is_not_swallowed_by_a_stream(bus: Bus) -> None:
    passed: list[str] = []
    async with bus.run() as endpoint:

        async def read() -> None:
            nonlocal passed
            async for event in endpoint.stream(Number):
                passed += [repr(event)]
            passed.append("the loop")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await until(endpoint.get_subscribed_events)
            tasks.cancel_scope.cancel()
    assert not passed


async def test_closing_a_stream_ends_the_loop_of_the_task_that_reads_it(bus: Bus) -> None:
    async with bus.run() as endpoint:
        stream = endpoint.stream(Number)
        async with anyio.create_task_group() as tasks:

            async def read() -> None:
                assert [event.value async for event in stream] == [1]

            tasks.start_soon(read)
            await endpoint.broadcast(Number(1))
            await turns(3)
            await stream.aclose()


async def test_close_lets_what_has_arrived_be_read(bus: Bus) -> None:
    async with bus.run() as endpoint:
        stream = endpoint.stream(Number)
        for value in range(3):
            await endpoint.broadcast(Number(value))
        stream.close()
        await endpoint.broadcast(Number(3))
        assert [event.value async for event in stream] == [0, 1, 2]


async def test_streams_end_when_their_endpoint_stops(bus: Bus, options: dict[str, Any]) -> None:
    async with anyio.create_task_group() as tasks, bus.run() as endpoint:
        waiting = endpoint.stream(Number, **options)
        unread = endpoint.stream(Number, **options)

        async def read() -> None:
            assert [event.value async for event in waiting] == [1]

        tasks.start_soon(read)
        await turns(2)
        await endpoint.broadcast(Number(1))
    assert [event.value async for event in unread] == [1]


async def test_a_stream_ends_for_a_handler_of_its_endpoint_too(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.pair() as (endpoint, client):

        async def read(event: Number) -> None:
            async for _ in endpoint.stream(Text):
                pass

        endpoint.subscribe(Number, read)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        await client.broadcast(Number(1))
        await until(lambda: Text in endpoint.get_subscribed_events())
    assert not complaints(caplog)


# -- How one waits for one event -------------------------------------------------------------


async def test_wait_for_returns_the_next_event_and_leaves_nothing_behind(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        async with anyio.create_task_group() as tasks:

            async def wait() -> None:
                assert (await server.wait_for(Number)).value == 1

            tasks.start_soon(wait)
            await client.wait_until_endpoint_subscribed_to("server", Number)
            await client.broadcast(Number(1))
        assert not server.get_subscribed_events()
        assert not server._streams
        await until(lambda: not client.is_endpoint_subscribed_to("server", Number))


async def test_wait_for_that_times_out_leaves_nothing_behind(bus: Bus) -> None:
    async with bus.run() as endpoint:
        with pytest.raises(TimeoutError), anyio.fail_after(0.01):
            await endpoint.wait_for(Number)
        assert not endpoint.get_subscribed_events()


async def test_the_methods_that_are_awaited_are_coroutine_functions_for_asyncio(
    bus: Bus,
) -> None:
    if bus.endpoint_class is not AsyncioEndpoint:
        return  # see the test below
    async with bus.pair() as (server, client):
        waiting = asyncio.create_task(server.wait_for(Number))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.wait_for(Text), 0.01)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        await asyncio.create_task(client.broadcast(Number(1)))
        assert (await waiting).value == 1
        answer_questions(server)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        answers = await asyncio.gather(*(client.request(Question(value)) for value in range(3)))
        assert [answer.value for answer in answers] == [0, 1, 2]
        assert not client.get_subscribed_events()


async def test_the_methods_that_are_awaited_may_be_started_in_a_task_group(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        answer_questions(server)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.wait_for, Number)
            tasks.start_soon(client.request, Question(1))
            await client.wait_until_endpoint_subscribed_to("server", Number)
            tasks.start_soon(client.broadcast, Number(1))


# -- Bounds ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_queue": 0}, "max_queue is 0"),
        ({"max_queue": -1, "overflow": "drop_oldest"}, "max_queue is -1"),
        (
            {"max_queue": 5, "overflow": "explode"},
            "it must be one of 'block', 'drop_oldest'",
        ),
        ({"overflow": "explode"}, "overflow is 'explode'"),
        ({"overflow": "drop_oldest"}, "needs a bound"),
        ({"overflow": "drop_newest"}, "needs a bound"),
        ({"overflow": "raise"}, "needs a bound"),
        ({"num_events": -1}, "num_events is -1"),
        ({"max_queue": 0, "overflow": "latest"}, "max_queue is 0"),
    ],
    ids=str,
)
async def test_what_makes_no_sense_is_a_value_error_and_subscribes_nothing(
    bus: Bus, options: dict[str, Any], said: str
) -> None:
    async with bus.run() as endpoint:
        with pytest.raises(ValueError, match=said):
            endpoint.stream(Number, **options)
        assert not endpoint.get_subscribed_events()
        assert not endpoint._streams


@pytest.fixture(params=["local", "remote"])
def from_where(request: pytest.FixtureRequest) -> str:
    """Return which of the two endpoints broadcasts: the one that streams, or the other one."""
    return "server" if request.param == "local" else "client"


async def fill(bus_pair: tuple[BaseEndpoint, BaseEndpoint], from_where: str, count: int) -> None:
    """Broadcast numbers, and wait until they have arrived."""
    server, client = bus_pair
    marker = server.stream(Marker)
    await client.wait_until_endpoint_subscribed_to("server", Marker)
    sender = server if from_where == "server" else client
    for value in range(count):
        sender.broadcast_nowait(Number(value))
    await sender.broadcast(Marker())
    await anext(marker)


async def test_drop_oldest_keeps_the_newest(
    bus: Bus, from_where: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.pair() as pair:
        stream = pair[0].stream(Number, max_queue=3, overflow="drop_oldest")
        await fill(pair, from_where, 10)
        assert [event.value for event in await take(stream, 3)] == [7, 8, 9]
        assert stream.dropped == 7
        assert complaints(caplog) == [
            "server: a stream of helpers:Number is full with 3 events and drops the oldest: "
            "read it faster"
        ]
        await fill(pair, from_where, 5)  # another burst
        assert [event.value for event in await take(stream, 3)] == [2, 3, 4]
        assert stream.dropped == 9
        assert len(complaints(caplog)) == 2


async def test_drop_newest_keeps_the_oldest(
    bus: Bus, from_where: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.pair() as pair:
        stream = pair[0].stream(Number, max_queue=3, overflow="drop_newest")
        await fill(pair, from_where, 10)
        assert [event.value for event in await take(stream, 3)] == [0, 1, 2]
        assert stream.dropped == 7
        assert complaints(caplog) == [
            "server: a stream of helpers:Number is full with 3 events and drops the newest: "
            "read it faster"
        ]


async def test_latest_keeps_only_the_newest(
    bus: Bus, from_where: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.pair() as pair:
        stream = pair[0].stream(Number, overflow="latest")
        for _ in range(2):
            await fill(pair, from_where, 10)
            assert (await anext(stream)).value == 9
        assert stream.dropped == 18
        assert not complaints(caplog)  # that is what it is for


async def test_latest_with_num_events_counts_those_that_are_read(bus: Bus) -> None:
    async with bus.run() as endpoint:
        stream = endpoint.stream(Number, num_events=2, overflow="latest")
        values: list[int] = []
        for value in range(10):
            await endpoint.broadcast(Number(value))
            if value in (4, 9):
                values.append((await anext(stream)).value)
        assert values == [4, 9]
        assert [event async for event in stream] == []
        assert not endpoint.get_subscribed_events()


async def test_raise_raises_when_the_stream_is_next_read(bus: Bus, from_where: str) -> None:
    async with bus.pair() as pair:
        stream = pair[0].stream(Number, max_queue=3, overflow="raise")
        await fill(pair, from_where, 3)
        assert (await anext(stream)).value == 0
        await fill(pair, from_where, 2)
        with pytest.raises(StreamOverflow, match=r"helpers:Number was full: 3 events") as caught:
            await anext(stream)
        assert (caught.value.event_type, caught.value.max_queue) == ("helpers:Number", 3)
        assert Number not in pair[0].get_subscribed_events()
        assert [event async for event in stream] == []


async def test_a_stream_that_raises_is_content_with_num_events(bus: Bus) -> None:
    async with bus.run() as endpoint:
        stream = endpoint.stream(Number, num_events=3, max_queue=3, overflow="raise")
        for value in range(10):
            await endpoint.broadcast(Number(value))
        assert [event.value async for event in stream] == [0, 1, 2]


# -- Blocking, by credit ---------------------------------------------------------------------


def has_length(values: list[int], length: int) -> bool:
    """Return whether a list has the length."""
    return len(values) == length


async def test_a_window_of_events_is_under_way_and_no_more(bus: Bus) -> None:
    async with bus.serve("server") as server, raw_peer(server, "raw", {Number: 3}) as peer:
        sent: list[int] = []

        async def broadcast() -> None:
            for value in range(8):
                await server.broadcast(Number(value))
                sent.append(value)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(broadcast)
            for _ in range(3):
                await peer.read_kind(wire.EVENT)
            await until(lambda: len(sent) == 3)
            await turns(5)
            assert len(sent) == 3
            for credit, expected in ((1, 4), (2, 6), (5, 8)):
                await peer.grant(Number, credit)
                await until(functools.partial(has_length, sent, expected))
                await turns(5)
                assert len(sent) == expected
        for _ in range(5):
            await peer.read_kind(wire.EVENT)


async def test_a_blocking_stream_announces_its_bound_and_grants_credit_as_it_is_read(
    bus: Bus,
) -> None:
    async with bus.serve("server") as server, raw_peer(server) as peer:
        stream = server.stream(Number, max_queue=4)
        assert (await peer.read_values(wire.SUBSCRIBE))[0] == {"helpers:Number": 4}
        for value in range(4):
            await peer.send_event(Number(value))
        await take(stream, 4)
        granted = 0
        while granted < 4:
            name, count = await peer.read_values(wire.CREDIT)
            assert name == "helpers:Number"
            granted += count
        assert granted == 4


async def test_an_event_that_does_not_decode_takes_no_room(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.serve("server") as server, raw_peer(server) as peer:
        stream = server.stream(Number, max_queue=1)
        assert (await peer.read_values(wire.SUBSCRIBE))[0] == {"helpers:Number": 1}
        type_id = await peer.announce(Number(1))
        for value in range(3):
            await peer.send(raw_frame(wire.EVENT, struct.pack("<I", type_id) + b"\0?"))
            assert await peer.read_values(wire.CREDIT) == ("helpers:Number", 1)
            await peer.send_event(Number(value))
            assert (await anext(stream)).value == value
            assert await peer.read_values(wire.CREDIT) == ("helpers:Number", 1)
    assert len(complaints(caplog)) == 3


async def test_only_broadcasts_of_that_type_wait(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        stream = server.stream(Number, max_queue=2)
        texts = server.stream(Text)
        answer_questions(server)
        answer_questions(client)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        await server.wait_until_endpoint_subscribed_to("client", Question)
        sent: list[int] = []

        async def broadcast() -> None:
            for value in range(20):
                await client.broadcast(Number(value))
                sent.append(value)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(broadcast)
            await until(lambda: len(sent) == 2)
            await client.broadcast(Text("goes by"))
            assert (await anext(texts)).text == "goes by"
            assert (await client.request(Question(1), BroadcastConfig("server"))).value == 1
            assert (await server.request(Question(2), BroadcastConfig("client"))).value == 2
            assert len(sent) == 2
            # The consumer may ask the very peer that it holds back.
            for value in range(20):
                assert (await anext(stream)).value == value
                response = await server.request(Question(value), BroadcastConfig("client"))
                assert response.value == value


async def test_a_blocking_stream_holds_back_each_sender_by_itself(bus: Bus) -> None:
    async with (
        bus.serve("server") as server,
        bus.connect("one", "server") as one,
        bus.connect("two", "server") as two,
    ):
        stream = server.stream(Number, max_queue=3)
        sent: dict[str, int] = {"one": 0, "two": 0}

        async def broadcast(sender: BaseEndpoint, count: int) -> None:
            await sender.wait_until_endpoint_subscribed_to("server", Number)
            for value in range(count):
                await sender.broadcast(Number(value))
                sent[sender.name] += 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(broadcast, one, 10)
            await until(lambda: sent["one"] == 3)
            tasks.start_soon(broadcast, two, 3)
            await until(lambda: sent["two"] == 3)
            assert sent == {"one": 3, "two": 3}
            events = await take(stream, 13)
        for name, count in (("one", 10), ("two", 3)):
            values = [event.value for event in events if event.get_origin() == name]
            assert values == list(range(count))


async def test_the_slowest_of_several_blocking_streams_sets_the_pace(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        fast, slow = server.stream(Number, max_queue=8), server.stream(Number, max_queue=2)
        free = server.stream(Number)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        sent: list[int] = []

        async def broadcast() -> None:
            for value in range(30):
                await client.broadcast(Number(value))
                sent.append(value)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(broadcast)
            await until(lambda: len(sent) == 2)
            await take(fast, 2)
            await turns(10)
            assert len(sent) == 2
            await take(slow, 2)
            await until(lambda: len(sent) == 4)
            await turns(10)
            assert len(sent) == 4
            slow.close()
            await until(lambda: len(sent) > 4)
            assert [event.value for event in await take(fast, 28)] == list(range(2, 30))
        assert [event.value for event in await take(free, 30)] == list(range(30))


async def test_a_blocking_stream_that_ends_during_a_delivery_does_not_spoil_the_count(
    bus: Bus,
) -> None:
    async with bus.serve("server") as server, raw_peer(server) as peer:
        first = server.stream(Number, num_events=1, max_queue=4)
        second = server.stream(Number, max_queue=4)
        for value in range(4):
            await peer.send_event(Number(value))
        await take(second, 4)
        assert (await anext(first)).value == 0
        granted = 0
        while granted < 4:
            granted += (await peer.read_values(wire.CREDIT))[1]
        assert granted == 4


@pytest.mark.parametrize("way", ["close", "drop", "aclose", "unbounded"])
async def test_senders_go_on_when_a_blocking_stream_ends(bus: Bus, way: str) -> None:
    async with bus.pair() as (server, client):
        stream = server.stream(Number, max_queue=2)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        events = stream.mailbox.events
        sent: list[int] = []

        async def broadcast() -> None:
            for value in range(50):
                await client.broadcast(Number(value))
                sent.append(value)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(broadcast)
            await until(lambda: len(sent) == len(events) == 2)
            if way == "close":
                stream.close()
            elif way == "drop":
                del stream
            elif way == "aclose":
                await stream.aclose()
            else:
                other = server.stream(Number)
                stream.close()
        assert len(sent) == 50
        if way == "unbounded":  # what was held comes first, and in order
            assert [event.value for event in await take(other, 48)] == list(range(2, 50))


async def test_senders_go_on_when_the_peer_that_held_them_back_leaves(bus: Bus) -> None:
    async with bus.serve("server") as server:
        sent: list[int] = []

        async def broadcast() -> None:
            for value in range(10):
                await server.broadcast(Number(value))
                sent.append(value)

        async with anyio.create_task_group() as tasks, raw_peer(server, "raw", {Number: 2}):
            tasks.start_soon(broadcast)
            await until(lambda: len(sent) == 2)
        assert len(sent) == 10
        assert not server._router._interest


async def test_a_peer_that_held_back_and_left_begins_anew(bus: Bus) -> None:
    async with bus.serve("server") as server:
        stream = server.stream(Number, max_queue=2)
        for _ in range(2):
            async with bus.connect("client", "server") as client:
                await client.broadcast(Number(1))
                await client.broadcast(Number(2))
        assert [event.value for event in await take(stream, 4)] == [1, 2, 1, 2]

        async def read() -> None:
            assert [event.value for event in await take(stream, 20)] == list(range(20))

        async with bus.connect("client", "server") as client, anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            for value in range(20):
                await client.broadcast(Number(value))


async def test_broadcast_nowait_is_held_back_without_waiting(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        stream = server.stream(Number, max_queue=2)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        for value in range(50):
            client.broadcast_nowait(Number(value))
        await turns(5)
        assert len(stream.mailbox.events) <= 2
        assert [event.value for event in await take(stream, 50)] == list(range(50))


async def test_leaving_waits_for_credit(bus: Bus) -> None:
    async with bus.serve("server") as server:
        stream = server.stream(Number, max_queue=2)

        async def read() -> None:
            assert [event.value for event in await take(stream, 20)] == list(range(20))

        async with anyio.create_task_group() as tasks, bus.connect("client", "server") as client:
            for value in range(20):
                client.broadcast_nowait(Number(value))
            tasks.start_soon(read)


async def test_a_broadcast_within_an_endpoint_waits_for_its_own_blocking_stream(bus: Bus) -> None:
    async with bus.run() as endpoint:
        stream = endpoint.stream(Number, max_queue=3)
        sent: list[int] = []

        async def broadcast() -> None:
            for value in range(20):
                await endpoint.broadcast(Number(value))
                sent.append(value)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(broadcast)
            await until(lambda: len(sent) == 3)
            await turns(5)
            assert len(sent) == 3
            for value in range(20):
                assert (await anext(stream)).value == value
        assert len(sent) == 20


async def test_a_broadcast_within_an_endpoint_goes_on_when_its_blocking_stream_ends(
    bus: Bus,
) -> None:
    async with bus.run() as endpoint:
        stream = endpoint.stream(Number, max_queue=1)
        sent: list[int] = []

        async def broadcast() -> None:
            for value in range(5):
                await endpoint.broadcast(Number(value))
                sent.append(value)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(broadcast)
            await until(lambda: len(sent) == 1)
            await stream.aclose()
        assert len(sent) == 5


async def test_a_broadcast_that_is_held_back_may_be_cancelled(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        stream = server.stream(Number, max_queue=1)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        await client.broadcast(Number(0))
        with anyio.move_on_after(0.01) as scope:
            await client.broadcast(Number(1))
        assert scope.cancelled_caught
        assert [event.value for event in await take(stream, 2)] == [0, 1]  # it was accepted


async def test_a_broadcast_that_is_held_back_raises_nothing_when_its_endpoint_stops(
    bus: Bus,
) -> None:
    async with bus.serve("server") as server:
        stream = server.stream(Number, max_queue=1)
        async with (
            anyio.create_task_group() as tasks,
            bus.connect("client", "server", drain_timeout=0.01) as client,
        ):
            await client.broadcast(Number(0))
            tasks.start_soon(client.broadcast, Number(1))
            await turns(3)
        assert (await anext(stream)).value == 0


# -- Fairness --------------------------------------------------------------------------------


async def test_a_stream_that_is_flooded_lets_others_run(bus: Bus) -> None:
    async with bus.run() as endpoint, heartbeat() as beats:
        stream = endpoint.stream(Number)
        for value in range(5000):
            endpoint.broadcast_nowait(Number(value))
        before = beats[0]
        for _ in range(5000):
            await anext(stream)
        assert beats[0] - before >= 5000 // 128 - 1


async def test_reading_a_flood_from_another_endpoint_lets_others_run(bus: Bus) -> None:
    async with bus.pair() as (server, client), heartbeat() as beats:
        stream = server.stream(Number)
        await client.wait_until_endpoint_subscribed_to("server", Number)

        async def flood() -> None:
            for value in range(20_000):
                await client.broadcast(Number(value))

        before = beats[0]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(flood)
            await take(stream, 20_000)
        assert beats[0] - before >= 100


async def test_a_stream_with_events_that_is_cancelled_in_its_turn_unsubscribes(bus: Bus) -> None:
    async with bus.run() as endpoint:
        stream = endpoint.stream(Number)
        for value in range(1000):
            endpoint.broadcast_nowait(Number(value))
        read: list[int] = []
        with anyio.CancelScope() as scope:
            scope.cancel()
            async for event in stream:
                read += [event.value]
        assert scope.cancelled_caught
        assert len(read) < 1000
        assert not endpoint.get_subscribed_events()


async def test_ordinary_streams_log_nothing(
    bus: Bus, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.pair() as (server, client):
        async with server.stream(Number, **options) as stream:
            await client.wait_until_endpoint_subscribed_to("server", Number)
            await client.broadcast(Number(1))
            await anext(stream)
        answers = server.stream(Answer, **options)
        del answers
        await collect_garbage()
    with pytest.raises(LifecycleError):
        server.stream(Number, **options)
    assert not complaints(caplog)
