"""
Requests always end, whatever becomes of those who should respond: on every backend.

After each way to end nothing may be left behind; ``_router.pending`` is where it would be.
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from helpers import (
    Answer,
    BetterAnswer,
    Bus,
    Marker,
    Number,
    Question,
    Text,
    answer_questions,
    complaints,
    raw_frame,
    raw_peer,
    take,
    turns,
    until,
)

from lahja import (
    BaseEvent,
    BaseRequestResponseEvent,
    BroadcastConfig,
    LahjaError,
    LifecycleError,
    NoSubscribers,
    RemoteDisconnected,
    RequestTimeout,
    UnexpectedResponse,
    wire,
)
from lahja.base import BaseEndpoint
from lahja.framing import Shape
from lahja.names import name_of
from lahja.protocol import control_frame

pytestmark = pytest.mark.anyio


def respond_with(
    endpoint: BaseEndpoint, response: Callable[[], BaseEvent], asked: type[BaseEvent] = Question
) -> None:
    """Let an endpoint respond to all requests of a type in the same way."""

    def respond(request: BaseEvent) -> None:
        endpoint.broadcast_nowait(response(), request.broadcast_config())

    endpoint.subscribe(asked, respond)


async def failure_of(call: Callable[..., Awaitable[Any]], *args: Any) -> BaseException:
    """Return what a call raises."""
    with pytest.raises(LahjaError) as caught:
        await call(*args)
    return caught.value


# -- With the response -----------------------------------------------------------------------


async def test_a_request_ends_with_its_response(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        answer_questions(server)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        response = await client.request(Question(7))
        assert type(response) is Answer
        assert response == Answer(7)
        assert response.is_bound
        assert response.get_origin() == "server"
        assert not client._router.pending


async def test_an_endpoint_may_respond_to_its_own_request(bus: Bus) -> None:
    async with bus.run() as endpoint:
        answer_questions(endpoint)
        assert (await endpoint.request(Question(7))).value == 7
        question = Question(8)
        assert (await endpoint.request(question, BroadcastConfig(internal=True))).value == 8
        assert question.get_origin() == "alone"
        assert not endpoint._router.pending


async def test_an_internal_request_is_answered_internally(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        asked = client.stream(Question)
        await server.wait_until_endpoint_subscribed_to("client", Question)

        async def respond(question: Question) -> None:
            await server.broadcast(Answer(1), question.broadcast_config(internal=True))

        server.subscribe(Question, respond)
        response = await server.request(Question(1), BroadcastConfig(internal=True))
        assert response.get_origin() == "server"
        assert not asked.mailbox.events
        assert not server._router.pending


async def test_many_requests_at_once_each_get_their_own_response(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        held: list[Question] = []
        server.subscribe(Question, held.append)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        responses: dict[int, int] = {}

        async def ask(value: int) -> None:
            responses[value] = (await client.request(Question(value))).value

        async with anyio.create_task_group() as tasks:
            for value in range(50):
                tasks.start_soon(ask, value)
            await until(lambda: len(held) == 50)
            for question in reversed(held):
                await server.broadcast(Answer(-question.value), question.broadcast_config())
        assert responses == {value: -value for value in range(50)}
        assert not client._router.pending


async def test_two_endpoints_may_ask_each_other_at_the_same_time(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        for endpoint in (server, client):
            answer_questions(endpoint)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        await server.wait_until_endpoint_subscribed_to("client", Question)

        async def ask(endpoint: BaseEndpoint, other: str) -> None:
            for value in range(50):
                response = await endpoint.request(Question(value), BroadcastConfig(other))
                assert (response.value, response.get_origin()) == (value, other)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, client, "server")
            tasks.start_soon(ask, server, "client")


async def test_a_request_goes_only_where_its_config_says(bus: Bus) -> None:
    async with bus.serve("a") as a, bus.connect("b", "a") as b, bus.connect("c", "a") as c:
        for endpoint in (b, c):
            answer_questions(endpoint)
            await a.wait_until_endpoint_subscribed_to(endpoint.name, Question)
        for name in ("b", "c"):
            response = await a.request(Question(1), BroadcastConfig(filter_endpoint=name))
            assert response.get_origin() == name


async def test_the_first_of_several_responses_counts(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "lahja")
    async with bus.serve("a") as a, bus.connect("b", "a") as b, bus.connect("c", "a") as c:
        streams = [endpoint.stream(Question) for endpoint in (b, c)]
        for name in ("b", "c"):
            await a.wait_until_endpoint_subscribed_to(name, Question)
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                assert (await a.request(Question(0))).get_origin() == "c"
                assert not a._router.pending

            tasks.start_soon(ask)
            questions = [await anext(stream) for stream in streams]
            await c.broadcast(Answer(2), questions[1].broadcast_config())
            await until(lambda: not a._router.pending)
            await b.broadcast(Answer(1), questions[0].broadcast_config())
        await until(lambda: [each for each in caplog.messages if "ignored" in each])
        assert (
            "a: ignored a response of type helpers:Answer from b: it is late, or the second one"
        ) in caplog.messages
        assert not complaints(caplog)  # that is how it goes where several are asked


async def test_subscribers_of_the_response_type_get_it_too(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        answers = client.stream(Answer)
        answer_questions(server)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        response = await client.request(Question(3))
        assert await anext(answers) is response
        answer_questions(client)
        response = await client.request(Question(4), BroadcastConfig(internal=True))
        assert await anext(answers) is response


async def test_a_handler_may_request(bus: Bus) -> None:
    results: list[int] = []
    async with bus.pair() as (server, client):
        answer_questions(server)

        async def ask_back(event: Number) -> None:
            results.append((await client.request(Question(event.value))).value)

        client.subscribe(Number, ask_back)
        await server.wait_until_endpoint_subscribed_to("client", Number)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        for value in range(5):
            await server.broadcast(Number(value))
        await until(lambda: results == [0, 1, 2, 3, 4])


async def test_a_response_may_be_broadcast_to_all_that_asked(bus: Bus) -> None:
    """A config with the id alone names no endpoint: whoever has such a request takes it."""
    async with bus.pair() as (server, client):

        async def respond(question: Question) -> None:
            await server.broadcast(Answer(1), BroadcastConfig(filter_event_id=question._id))

        server.subscribe(Question, respond)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        assert (await client.request(Question(0))).value == 1


async def test_a_response_may_be_sent_without_waiting(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        respond_with(server, lambda: Answer(1))
        await client.wait_until_endpoint_subscribed_to("server", Question)
        assert (await client.request(Question(0))).value == 1


# -- With an unexpected response -------------------------------------------------------------


async def test_a_response_of_another_type_is_an_error(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        for endpoint in (server, client):
            respond_with(endpoint, lambda: Text("no"))
            await client.wait_until_endpoint_subscribed_to(endpoint.name, Question)
            with pytest.raises(
                UnexpectedResponse,
                match=r"responded with helpers:Text; the request expects helpers:Answer",
            ):
                await client.request(Question(1), BroadcastConfig(endpoint.name))
            assert not client._router.pending


class Tripwire(BaseEvent):
    """Tell when an instance is unpickled."""

    unpickled: list[object] = []  # noqa: RUF012

    def __reduce__(self) -> tuple[Any, ...]:
        return Tripwire.unpickled.append, (1,)


async def test_an_unexpected_type_is_told_by_its_name_without_decoding(bus: Bus) -> None:
    Tripwire.unpickled.clear()
    async with bus.pair() as (server, client):
        respond_with(server, Tripwire)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        failure = await failure_of(client.request, Question(1))
        assert type(failure) is UnexpectedResponse
        assert f"'server' responded with {name_of(Tripwire)}" in str(failure)
        assert not Tripwire.unpickled


async def test_an_unexpected_type_that_does_not_exist_here_is_told_without_importing(
    bus: Bus,
) -> None:
    async with bus.serve("server") as server, raw_peer(server, "raw", {Question: None}) as peer:
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                failure = await failure_of(server.request, Question(1))
                assert type(failure) is UnexpectedResponse
                assert "'raw' responded with antigravity:Event" in str(failure)

            tasks.start_soon(ask)
            request_id = (await peer.read_kind(wire.REQUEST))[5:21]
            await peer.send(
                Shape(7, "antigravity:Event", wire.LAYOUT_WHOLE, ()).announcement,
                raw_frame(wire.RESPONSE, b"\x07\0\0\0" + request_id + b"\x01whatever"),
            )
        assert not server._router.pending
        assert server.is_connected_to("raw")


async def test_a_subclass_of_the_expected_type_is_a_match(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        for endpoint in (server, client):
            respond_with(endpoint, lambda: BetterAnswer(9))
            await client.wait_until_endpoint_subscribed_to(endpoint.name, Question)
            response = await client.request(Question(1), BroadcastConfig(endpoint.name))
            assert type(response) is BetterAnswer
            assert (response.value, response.get_origin()) == (9, endpoint.name)


async def test_a_base_class_of_the_expected_type_is_no_match(bus: Bus) -> None:
    class AskForBetter(BaseRequestResponseEvent[BetterAnswer]):
        @staticmethod
        def expected_response_type() -> type[BetterAnswer]:
            return BetterAnswer

    async with bus.pair() as (server, client):
        respond_with(server, lambda: Answer(1), AskForBetter)
        await client.wait_until_endpoint_subscribed_to("server", AskForBetter)
        with pytest.raises(UnexpectedResponse):
            await client.request(AskForBetter())


async def test_a_response_that_does_not_decode_is_an_error(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.serve("server") as server, raw_peer(server, "raw", {Question: None}) as peer:
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                failure = await failure_of(server.request, Question(1))
                assert type(failure) is UnexpectedResponse
                assert "'raw' sent a broken response" in str(failure)

            tasks.start_soon(ask)
            request_id = (await peer.read_kind(wire.REQUEST))[5:21]
            type_id = await peer.announce(Answer(1))
            await peer.send(
                raw_frame(wire.RESPONSE, type_id.to_bytes(4, "little") + request_id + b"\0?")
            )
        assert len(complaints(caplog)) == 1
        assert "lost an event of type helpers:Answer from raw" in complaints(caplog)[0]
        assert not server._router.pending
        assert server.is_connected_to("raw")


# -- Without a response ----------------------------------------------------------------------


async def test_a_request_that_nobody_gets_raises_no_subscribers(bus: Bus) -> None:
    async with bus.pair() as (_, client):
        question = Question(1)
        with pytest.raises(NoSubscribers, match=r"helpers:Question"):
            await client.request(question)
        for config in (
            BroadcastConfig("server"),
            BroadcastConfig("nobody"),
            BroadcastConfig(internal=True),
            BroadcastConfig(require_subscriber=True),
        ):
            with pytest.raises(NoSubscribers):
                await client.request(question, config)
        assert not question.is_bound
        assert not client._router.pending


async def test_a_request_that_nobody_gets_waits_where_require_subscriber_is_false(
    bus: Bus,
) -> None:
    async with bus.pair() as (_, client):
        config = BroadcastConfig(require_subscriber=False)
        with pytest.raises(RequestTimeout, match=r"\(sent to: nobody\)"):
            await client.request(Question(1), config, timeout=0.01)
        with anyio.move_on_after(0.01) as scope:
            await client.request(Question(1), config)
        assert scope.cancelled_caught
        assert not client._router.pending


async def test_the_class_attribute_is_about_broadcasts_and_not_requests(bus: Bus) -> None:
    async with bus.run() as endpoint:
        assert endpoint.require_subscriber is False
        with pytest.raises(NoSubscribers):
            await endpoint.request(Question(1))


async def test_a_request_ends_when_every_endpoint_that_it_went_to_is_gone(bus: Bus) -> None:
    async with bus.serve("server") as server, AsyncExitStack() as peers:
        for name in ("one", "two"):
            await peers.enter_async_context(raw_peer(server, name, {Question: None}))
        async with AsyncExitStack() as first:
            third = await first.enter_async_context(raw_peer(server, "three", {Question: None}))
            failures: list[BaseException] = []

            async def ask() -> None:
                failures.append(await failure_of(server.request, Question(1)))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                await third.read_kind(wire.REQUEST)
                await first.aclose()
                await until(lambda: not server.is_connected_to("three"))
                await turns(3)
                assert not failures
                await peers.aclose()
        assert type(failures[0]) is RemoteDisconnected
        assert "left before it responded" in str(failures[0])
        assert not server._router.pending


async def test_a_request_ends_when_the_endpoint_that_it_went_to_leaves_politely(bus: Bus) -> None:
    async with bus.serve("server") as server:

        async def ask() -> None:
            failure = await failure_of(server.request, Question(1))
            assert type(failure) is RemoteDisconnected
            assert "'client' left" in str(failure)

        async with anyio.create_task_group() as tasks, bus.connect("client", "server") as client:
            asked = client.stream(Question)
            await server.wait_until_endpoint_subscribed_to("client", Question)
            tasks.start_soon(ask)
            await anext(asked)
        assert not server._router.pending


async def test_a_response_that_was_sent_before_leaving_counts(bus: Bus) -> None:
    async with bus.serve("server") as server:

        async def ask() -> None:
            assert (await server.request(Question(1))).value == 1

        async with anyio.create_task_group() as tasks, bus.connect("client", "server") as client:
            asked = client.stream(Question)
            await server.wait_until_endpoint_subscribed_to("client", Question)
            tasks.start_soon(ask)
            question = await anext(asked)
            client.broadcast_nowait(Answer(1), question.broadcast_config())


async def test_an_endpoint_that_was_not_asked_may_leave(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        asked = client.stream(Question)
        await server.wait_until_endpoint_subscribed_to("client", Question)
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                assert (await server.request(Question(1))).value == 1

            tasks.start_soon(ask)
            question = await anext(asked)
            async with raw_peer(server, "bystander"):
                pass
            await until(lambda: not server.is_connected_to("bystander"))
            await client.broadcast(Answer(1), question.broadcast_config())


async def test_a_request_ends_when_its_time_is_over(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        server.subscribe(Question, lambda event: None)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        for timeout in (0, 0.01):
            with pytest.raises(TimeoutError) as caught:
                await client.request(Question(1), timeout=timeout)
            error = caught.value
            assert isinstance(error, RequestTimeout)
            assert (error.request, error.seconds, error.asked) == (
                "helpers:Question",
                timeout,
                ("server",),
            )
            assert re.fullmatch(
                rf"no response to helpers:Question within {timeout:g} s \(sent to: server\); "
                rf"server \(process {os.getpid()}\) is connected, and was last heard [\d.]+ s ago",
                str(error),
            )
            assert not client._router.pending


async def test_a_timeout_says_how_those_are_that_were_asked(bus: Bus) -> None:
    async with bus.serve("server") as server, AsyncExitStack() as peers:
        stopped = await peers.enter_async_context(raw_peer(server, "stopped", {Question: None}))
        await peers.enter_async_context(raw_peer(server, "\x1b[2Jnoisy", {Question: None}))
        async with AsyncExitStack() as first:
            gone = await first.enter_async_context(raw_peer(server, "gone", {Question: None}))
            errors: list[RequestTimeout] = []

            async def ask() -> None:
                with pytest.raises(RequestTimeout) as caught:
                    await server.request(Question(1), timeout=2)
                errors.append(caught.value)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                await gone.read_kind(wire.REQUEST)
                await first.aclose()
                await stopped.read_kind(wire.REQUEST)
                await stopped.send(control_frame(wire.SUBSCRIBE, {name_of(Text): None}, (), True))
                await server.wait_until_endpoint_subscribed_to("stopped", Text)
                for _ in range(50):
                    server.broadcast_nowait(Text("x" * 100_000))
    (error,) = errors
    assert set(error.asked) == {"stopped", "\x1b[2Jnoisy"}
    noisy, left, silent = error.details
    process = rf"\(process {os.getpid()}\)"
    assert re.fullmatch(rf"\\x1b\[2Jnoisy {process} is connected, and was last .* s ago", noisy)
    assert left == "gone has left"
    assert re.match(
        rf"stopped {process} has taken nothing for [\d.]+ s, while \d+ bytes wait", silent
    )
    assert str(error).endswith("; ".join(error.details))


async def test_a_timeout_does_not_list_everybody(bus: Bus) -> None:
    async with bus.serve("server") as server, AsyncExitStack() as peers:
        names = [f"{number:02}" + "x" * 1000 for number in range(13)]
        for name in names:
            await peers.enter_async_context(raw_peer(server, name, {Question: None}))
        with pytest.raises(RequestTimeout) as caught:
            await server.request(Question(1), timeout=0.05)
        *details, rest = caught.value.details
        assert rest == "and 3 more"
        shown = [detail.partition(" ")[0] for detail in details]
        assert shown == [f"{name[:100]}…" for name in names[:10]]


async def test_no_subscribers_says_who_is_there_and_what_they_want(bus: Bus) -> None:
    other = type("Question", (Number,), {"__module__": "elsewhere"})
    async with bus.serve("server") as server:
        with pytest.raises(NoSubscribers) as caught:
            await server.request(Question(1))
        assert caught.value.connected == ()
        assert str(caught.value) == "of 0 connected endpoints none would receive helpers:Question"
        async with (
            raw_peer(server, "ann"),
            raw_peer(server, "bob", {Number: None, Text: None}),
            raw_peer(server, "cat", {Number: None, other: None}),
        ):
            with pytest.raises(NoSubscribers) as caught:
                await server.request(Question(1))
            assert caught.value.connected == (
                ("cat", ("elsewhere:Question", "helpers:Number")),  # first: it may be a mistake
                ("ann", ()),
                ("bob", ("helpers:Number", "helpers:Text")),
            )
            assert str(caught.value) == (
                "of 3 connected endpoints none would receive helpers:Question; connected, and "
                "subscribed to: 'cat' (elsewhere:Question, helpers:Number), 'ann' (nothing), "
                "'bob' (helpers:Number, helpers:Text)"
            )
            for config in (
                BroadcastConfig("bob", require_subscriber=True),
                BroadcastConfig("nobody", require_subscriber=True),
            ):
                with pytest.raises(NoSubscribers, match="; connected, and subscribed to: 'cat'"):
                    await server.broadcast(Question(1), config)
            with pytest.raises(NoSubscribers) as caught:
                await server.request(Question(1), BroadcastConfig(internal=True))
            assert caught.value.connected == ()


async def test_no_subscribers_does_not_list_everything(bus: Bus) -> None:
    types = [type("N" * 4000 + str(number), (Number,), {}) for number in range(40)]
    async with bus.serve("server") as server, AsyncExitStack() as peers:
        for number in range(30):
            await peers.enter_async_context(
                raw_peer(server, f"{number:02}" * 500, dict.fromkeys(types))
            )
        with pytest.raises(NoSubscribers) as caught:
            await server.request(Question(1))
        assert len(caught.value.connected) == 11
        assert all(len(wanted) == 11 for _, wanted in caught.value.connected)
        assert len(str(caught.value)) < 12_000
        assert str(caught.value).endswith(", …")


async def test_a_timeout_that_is_not_over_changes_nothing(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        answer_questions(server)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        for timeout in (30, math.inf, None):
            assert (await client.request(Question(1), timeout=timeout)).value == 1


@pytest.mark.parametrize("timeout", [-1, -0.001, math.nan], ids=repr)
async def test_a_timeout_that_makes_no_sense_is_a_value_error_and_asks_nobody(
    bus: Bus, timeout: float
) -> None:
    async with bus.run() as endpoint:
        asked = endpoint.stream(Question)
        question = Question(1)
        with pytest.raises(ValueError, match=r"timeout"):
            await endpoint.request(question, timeout=timeout)
        assert not question.is_bound
        assert not asked.mailbox.events
        assert not endpoint._router.pending


@pytest.mark.parametrize("cancelled", [False, True], ids=["left", "cancelled"])
async def test_a_request_ends_when_its_own_endpoint_stops(bus: Bus, cancelled: bool) -> None:
    async with bus.serve("server") as server:
        server.subscribe(Question, lambda event: None)
        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as scope:
                async with bus.connect("client", "server") as client:
                    await client.wait_until_endpoint_subscribed_to("server", Question)

                    async def ask(timeout: float | None) -> None:
                        with pytest.raises(LifecycleError, match=r"'client' stopped"):
                            await client.request(Question(1), timeout=timeout)

                    tasks.start_soon(ask, None)
                    tasks.start_soon(ask, 30)
                    await until(lambda: len(client._router.pending) == 2)
                    if cancelled:
                        scope.cancel()
                        await anyio.sleep_forever()
        assert not client._router.pending


async def test_a_response_counts_while_leaving_waits_for_a_slow_peer(bus: Bus) -> None:
    async def ask() -> None:
        assert (await server.request(Question(1))).value == 1
        peer.socket.close()

    async def respond() -> None:
        question = await anext(asked)
        await until(lambda: not server.is_serving)
        await client.broadcast(Answer(1), question.broadcast_config())

    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(anyio.create_task_group())
        client = await stack.enter_async_context(bus.run("client"))
        asked = client.stream(Question)
        async with bus.serve("server", drain_timeout=1000) as server:
            await client.connect_to_endpoints(bus.config("server"))
            await server.wait_until_endpoint_subscribed_to("client", Question)
            peer = await stack.enter_async_context(raw_peer(server, "slow", {Text: None}))
            for _ in range(50):
                server.broadcast_nowait(Text("x" * 100_000))
            tasks.start_soon(ask)
            tasks.start_soon(respond)
            await until(lambda: server._router.pending)
        assert not server._router.pending


async def test_a_request_that_is_cancelled_leaves_nothing_behind(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        server.subscribe(Question, lambda event: None)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.request, Question(1))
            await until(lambda: client._router.pending)
            tasks.cancel_scope.cancel()
        assert not client._router.pending
        answer_questions(server)
        assert (await client.request(Question(2))).value == 2


# -- Responses that nobody waits for ---------------------------------------------------------


async def test_a_late_response_is_ignored_with_one_warning(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.pair() as (server, client):
        asked, answers = server.stream(Question), client.stream(Answer)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        with pytest.raises(RequestTimeout):
            await client.request(Question(1), timeout=0)
        question = await anext(asked)
        await server.broadcast(Answer(1), question.broadcast_config())
        await until(lambda: complaints(caplog))
        await server.broadcast(Answer(2))
        assert (await anext(answers)).value == 2
        assert complaints(caplog) == [
            "client: ignored a response of type helpers:Answer from server: "
            "it is late, or the second one"
        ]


async def test_a_second_response_is_ignored_with_one_warning(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.pair() as (server, client):

        async def respond(question: Question) -> None:
            for value in (1, 2):
                await server.broadcast(Answer(value), question.broadcast_config())

        server.subscribe(Question, respond)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        assert (await client.request(Question(1))).value == 1
        await until(lambda: complaints(caplog))
        assert (await client.request(Question(2))).value == 1
        await until(lambda: len(complaints(caplog)) == 2)
        assert "from server: it is late, or the second one" in complaints(caplog)[1]


async def test_a_second_response_within_an_endpoint_is_ignored_with_one_warning(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.run() as endpoint:

        async def respond(question: Question) -> None:
            for value in (1, 2):
                await endpoint.broadcast(Answer(value), question.broadcast_config())

        endpoint.subscribe(Question, respond)
        assert (await endpoint.request(Question(1))).value == 1
        await until(lambda: complaints(caplog))
        assert complaints(caplog) == [
            "alone: ignored a response of type helpers:Answer from alone: "
            "it is late, or the second one"
        ]


async def test_only_an_endpoint_that_was_asked_can_respond(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        bus.serve("server") as server,
        raw_peer(server, "forger") as forger,
        bus.connect("client", "server") as client,
    ):
        asked = client.stream(Question)
        await server.wait_until_endpoint_subscribed_to("client", Question)
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                response = await server.request(Question(1))
                assert (response.value, response.get_origin()) == (1, "client")

            tasks.start_soon(ask)
            question = await anext(asked)
            assert question._id is not None
            await forger.send_event(Answer(666), wire.RESPONSE, question._id)
            await until(lambda: complaints(caplog))
            await client.broadcast(Answer(1), question.broadcast_config())
        assert complaints(caplog) == [
            "server: ignored a response of type helpers:Answer from forger: it was not asked"
        ]
        assert server.is_connected_to("forger")


async def test_the_endpoint_itself_cannot_respond_where_it_was_not_asked(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        asked = server.stream(Question)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                assert (await client.request(Question(1))).get_origin() == "server"

            tasks.start_soon(ask)
            question = await anext(asked)
            own = BroadcastConfig(internal=True, filter_event_id=question._id)
            await client.broadcast(Answer(666), own)
            await server.broadcast(Answer(1), question.broadcast_config())


async def test_a_response_to_a_request_that_never_was_is_ignored(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.serve("server") as server, raw_peer(server) as peer:
        answers = server.stream(Answer)
        await peer.send_event(Answer(666), wire.RESPONSE, os.urandom(16))
        await peer.send_event(Answer(1))
        assert (await anext(answers)).value == 1
        assert len(complaints(caplog)) == 1


async def test_request_ids_cannot_be_guessed(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        asked = server.stream(Question)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        for value in range(20):
            with pytest.raises(RequestTimeout):
                await client.request(Question(value), timeout=0)
        ids = {question._id for question in await take(asked, 20)}
        assert len(ids) == 20
        for position in range(wire.ID_SIZE):  # no byte is the same in all of them
            assert len({(each or b"")[position] for each in ids}) > 1


# -- What a request goes through -------------------------------------------------------------


@dataclass(frozen=True)
class FrozenQuestion(BaseRequestResponseEvent[Answer]):
    value: int

    @staticmethod
    def expected_response_type() -> type[Answer]:
        return Answer


@dataclass(frozen=True, slots=True)
class SlottedQuestion(BaseRequestResponseEvent[Answer]):
    value: int

    @staticmethod
    def expected_response_type() -> type[Answer]:
        return Answer


class SelfPicklingQuestion(BaseRequestResponseEvent[Answer]):
    def __init__(self, value: int) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.value,)

    @staticmethod
    def expected_response_type() -> type[Answer]:
        return Answer


@pytest.mark.parametrize("kind", [FrozenQuestion, SlottedQuestion, SelfPicklingQuestion])
async def test_every_kind_of_request_gets_its_response(bus: Bus, kind: Any) -> None:
    async with bus.pair() as (server, client):
        for endpoint in (server, client):
            respond_with(endpoint, lambda: Answer(5), kind)
            await client.wait_until_endpoint_subscribed_to(endpoint.name, kind)
            response = await client.request(kind(5), BroadcastConfig(endpoint.name))
            assert response.value == 5


async def test_a_large_request_and_a_large_response_arrive(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        answer_questions(server)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        large = 1 << 8_000_000
        assert (await client.request(Question(large))).value == large


async def test_a_request_that_was_broadcast_is_an_event_like_others(bus: Bus) -> None:
    async with bus.pair() as (server, client):
        asked, marker = server.stream(Question), server.stream(Marker)
        await client.wait_until_endpoint_subscribed_to("server", Marker)
        await client.broadcast(Question(1))
        await client.broadcast(Marker())
        await anext(marker)
        question = await anext(asked)
        assert question._id is None
        assert question.broadcast_config() == BroadcastConfig("client")
        assert not client._router.pending


async def test_what_a_class_announces_wrongly_is_an_error_at_the_call(bus: Bus) -> None:
    class Broken(BaseRequestResponseEvent[Answer]):
        @staticmethod
        def expected_response_type() -> type[Answer]:
            raise ZeroDivisionError

    async with bus.run() as endpoint:
        asked = endpoint.stream(Broken)
        broken = Broken()
        with pytest.raises(ZeroDivisionError):
            await endpoint.request(broken)
        assert not broken.is_bound
        assert not asked.mailbox.events
        assert not endpoint._router.pending


async def test_an_ordinary_request_logs_nothing(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    async with bus.pair() as (server, client):
        answer_questions(server)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        for value in range(5):
            await client.request(Question(value))
    assert not complaints(caplog)


@pytest.mark.parametrize("request_id", [b"short", "text", 5])
async def test_a_response_to_what_is_no_request_is_an_error(bus: Bus, request_id: Any) -> None:
    async with bus.pair() as (server, client):
        stream = client.stream(Answer)
        await server.wait_until_endpoint_subscribed_to("client", Answer)
        config = BroadcastConfig(filter_endpoint="client", filter_event_id=request_id)
        with pytest.raises(ValueError, match=r"which is the id of no request: respond with the"):
            await server.broadcast(Answer(1), config)
        await server.broadcast(Answer(2))
        assert (await anext(stream)).value == 2


async def test_a_timeout_names_the_endpoint_itself_where_it_was_asked(bus: Bus) -> None:
    async with bus.run() as endpoint:
        endpoint.stream(Question)
        endpoint.subscribe(Question, lambda question: None)
        with pytest.raises(RequestTimeout, match=r"\(sent to: alone\)"):
            await endpoint.request(Question(1), timeout=0.01)
