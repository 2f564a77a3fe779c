"""
Requests always end, whatever becomes of those who should respond.

The endpoint that asks runs in the event loop of the test; those that are asked are in a process of
their own. After each fault nothing is left pending, and the endpoint goes on: it asks a helpful
endpoint, which answers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import anyio
import pytest
from fault_helpers import Home, Peer, Peers, assert_nothing_waits
from helpers import Answer, BetterAnswer, Bus, Number, Question, answer_questions, complaints, until

from lahja import (
    BaseEvent,
    BroadcastConfig,
    ConnectionConfig,
    LifecycleError,
    NoSubscribers,
    RemoteDisconnected,
    RequestTimeout,
    UnexpectedResponse,
)
from lahja.base import BaseEndpoint

pytestmark = pytest.mark.anyio

TO_PEER = BroadcastConfig(filter_endpoint="peer")
TO_HELPFUL = BroadcastConfig(filter_endpoint="helpful")


@pytest.fixture
def peers() -> Iterator[Peers]:
    """Return what starts processes."""
    with Peers() as started:
        yield started


async def be_asked(
    home: Home, server: ConnectionConfig, name: str = "peer", subscribed: bool = True
) -> None:
    """Respond to one question as the test says: with lists of who sends what."""

    class Unknown(BaseEvent):
        """Be a type that the process which asked does not have."""

    endpoint, neighbour = map(home.endpoint_class, (name, f"neighbour of {name}"))
    async with neighbour.run(), endpoint.run():
        await neighbour.connect_to_endpoints(server)
        await endpoint.connect_to_endpoints(server)
        if not subscribed:
            await home.hear()
            return
        kinds = {"Answer": Answer, "BetterAnswer": BetterAnswer, "Number": Number}
        question = await endpoint.wait_for(Question)
        home.say("asked")
        while (command := await home.hear()) != "leave":
            for sender, kind in command:
                response = kinds[kind](1) if kind in kinds else Unknown()
                await (endpoint if sender == name else neighbour).broadcast(
                    response, question.broadcast_config()
                )
            home.say("responded")


@asynccontextmanager
async def asking(
    bus: Bus, peers: Peers, subscribed: bool = True
) -> AsyncIterator[tuple[BaseEndpoint, Peer]]:
    """Run an endpoint that may ask ``peer``; afterwards, make sure that it goes on."""
    async with bus.serve("server") as endpoint, bus.connect("helpful", "server") as helpful:
        answer_questions(helpful)
        peer = peers.start(be_asked, bus.config("server"), "peer", subscribed)
        await endpoint.wait_until_connected_to("neighbour of peer")
        await endpoint.wait_until_connected_to("peer")
        await endpoint.wait_until_endpoint_subscribed_to("helpful", Question)
        if subscribed:
            await endpoint.wait_until_endpoint_subscribed_to("peer", Question)
        with anyio.fail_after(10):
            yield endpoint, peer
        assert_nothing_waits(endpoint)
        assert (await endpoint.request(Question(5), TO_HELPFUL)).value == 5
        assert_nothing_waits(endpoint)


async def kill_when_asked(peer: Peer) -> None:
    await peer.expect("asked")
    peer.kill()


async def command_when_asked(peer: Peer, command: object) -> None:
    await peer.expect("asked")
    peer.say(command)


async def respond(peer: Peer, *responses: tuple[str, str]) -> None:
    peer.say(responses)
    await peer.expect("responded")


async def respond_when_asked(peer: Peer, *responses: tuple[str, str]) -> None:
    await peer.expect("asked")
    await respond(peer, *responses)


async def ignored(endpoint: BaseEndpoint, caplog: pytest.LogCaptureFixture, reason: str) -> None:
    """Make sure that one response was ignored, with one warning."""
    await until(lambda: complaints(caplog))
    await endpoint.request(Question(0), TO_HELPFUL)  # time for more complaints
    (complaint,) = complaints(caplog)
    assert complaint.startswith("server: ignored a response of type helpers:")
    assert complaint.endswith(reason)


# -- Nobody responds -------------------------------------------------------------------------


async def test_a_request_ends_when_its_responder_is_killed(bus: Bus, peers: Peers) -> None:
    async with asking(bus, peers) as (endpoint, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(kill_when_asked, peer)
        with pytest.raises(RemoteDisconnected, match="'peer' left before"):
            await endpoint.request(Question(1), TO_PEER)


async def test_a_request_ends_when_its_responder_leaves(bus: Bus, peers: Peers) -> None:
    async with asking(bus, peers) as (endpoint, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(command_when_asked, peer, "leave")
        with pytest.raises(RemoteDisconnected, match="'peer' left before"):
            await endpoint.request(Question(1), TO_PEER)


async def test_a_request_to_several_ends_when_the_last_of_them_is_killed(
    bus: Bus, peers: Peers
) -> None:
    async with bus.serve("server") as endpoint:
        names = ("first", "second")
        first, second = (peers.start(be_asked, bus.config("server"), name) for name in names)
        for name in names:
            await endpoint.wait_until_endpoint_subscribed_to(name, Question)
        ended = []

        async def ask() -> None:
            with pytest.raises(RemoteDisconnected, match="'second' left before"):
                await endpoint.request(Question(1))
            ended.append(True)

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                await kill_when_asked(first)
                await until(lambda: not endpoint.is_connected_to("first"))
                await second.expect("asked")
                assert not ended
                second.kill()
        assert_nothing_waits(endpoint)


async def test_a_request_that_one_of_several_answers_survives_the_death_of_the_others(
    bus: Bus, peers: Peers
) -> None:
    async with bus.serve("server") as endpoint:
        names = ("doomed", "survivor")
        doomed, survivor = (peers.start(be_asked, bus.config("server"), name) for name in names)
        for name in names:
            await endpoint.wait_until_endpoint_subscribed_to(name, Question)

        async def answer_last() -> None:
            await kill_when_asked(doomed)
            await until(lambda: not endpoint.is_connected_to("doomed"))
            await respond_when_asked(survivor, ("survivor", "Answer"))

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(answer_last)
                assert (await endpoint.request(Question(1))).get_origin() == "survivor"
        assert_nothing_waits(endpoint)


async def test_a_request_to_an_endpoint_that_never_subscribed_raises_or_waits_as_asked(
    bus: Bus, peers: Peers
) -> None:
    async with asking(bus, peers, subscribed=False) as (endpoint, _):
        with pytest.raises(NoSubscribers, match="only 'peer' may, which is not subscribed"):
            await endpoint.request(Question(1), TO_PEER)
        assert_nothing_waits(endpoint)
        nobody = BroadcastConfig(filter_endpoint="peer", require_subscriber=False)
        with pytest.raises(RequestTimeout, match=r"within 0\.05 s \(sent to: nobody\)"):
            await endpoint.request(Question(1), nobody, timeout=0.05)


async def test_a_request_ends_when_ones_own_endpoint_stops(bus: Bus, peers: Peers) -> None:
    async with anyio.create_task_group() as tasks:

        async def ask() -> None:
            with pytest.raises(LifecycleError, match="'server' stopped"):
                await endpoint.request(Question(1))

        async with bus.serve("server") as endpoint:
            peer = peers.start(be_asked, bus.config("server"))
            await endpoint.wait_until_endpoint_subscribed_to("peer", Question)
            tasks.start_soon(ask)
            await peer.expect("asked")
    assert_nothing_waits(endpoint)


# -- Somebody responds otherwise than expected -----------------------------------------------


@pytest.mark.parametrize("response", ["Number", "Unknown"])
async def test_a_response_of_the_wrong_type_ends_the_request(
    bus: Bus, peers: Peers, response: str
) -> None:
    async with asking(bus, peers) as (endpoint, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(respond_when_asked, peer, ("peer", response))
        with pytest.raises(UnexpectedResponse, match=f"'peer' responded with .*{response}; "):
            await endpoint.request(Question(1), TO_PEER)


async def test_a_response_of_a_derived_type_is_a_response(bus: Bus, peers: Peers) -> None:
    async with asking(bus, peers) as (endpoint, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(respond_when_asked, peer, ("peer", "BetterAnswer"))
        assert type(await endpoint.request(Question(1), TO_PEER)) is BetterAnswer


async def test_a_response_after_the_timeout_is_ignored_with_one_warning(
    bus: Bus, peers: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    async with asking(bus, peers) as (endpoint, peer):
        with pytest.raises(RequestTimeout, match=r"within 0\.05 s \(sent to: peer\)"):
            await endpoint.request(Question(1), TO_PEER, timeout=0.05)
        assert_nothing_waits(endpoint)
        await respond_when_asked(peer, ("peer", "Answer"))
        await ignored(endpoint, caplog, "from peer: it is late, or the second one")


async def test_a_response_after_cancellation_is_ignored_with_one_warning(
    bus: Bus, peers: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    async with asking(bus, peers) as (endpoint, peer):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(endpoint.request, Question(1), TO_PEER)
            await peer.expect("asked")
            tasks.cancel_scope.cancel()
        assert_nothing_waits(endpoint)
        await respond(peer, ("peer", "Answer"))
        await ignored(endpoint, caplog, "from peer: it is late, or the second one")


async def test_a_second_response_is_ignored_with_one_warning(
    bus: Bus, peers: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    async with asking(bus, peers) as (endpoint, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(respond_when_asked, peer, ("peer", "Answer"), ("peer", "BetterAnswer"))
        assert type(await endpoint.request(Question(1), TO_PEER)) is Answer
        await ignored(endpoint, caplog, "from peer: it is late, or the second one")


async def test_a_response_from_an_endpoint_that_was_not_asked_is_ignored_with_one_warning(
    bus: Bus, peers: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    async with asking(bus, peers) as (endpoint, peer), anyio.create_task_group() as tasks:

        async def respond_in_turn() -> None:
            await peer.expect("asked")
            peer.say([("neighbour", "Answer")])
            await peer.expect("responded")
            await ignored(endpoint, caplog, "from neighbour of peer: it was not asked")
            peer.say([("peer", "Answer")])

        tasks.start_soon(respond_in_turn)
        assert (await endpoint.request(Question(1), TO_PEER)).get_origin() == "peer"
