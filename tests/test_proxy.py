"""
A bad line between two endpoints: cut, stalled and corrupted at every byte of a conversation.

What is guaranteed, and tested here for each byte:

* A line that is *cut* delivers what was sent before, exactly, in order, and nothing else. One that
  *stalls* delivers everything as soon as it goes on.
* A line that *corrupts* (a flipped, lost or doubled byte, which no Unix socket does) delivers what
  was sent before that byte exactly; after it, values may be altered or events lost, for there is no
  checksum, but no more events arrive than were sent, and only of types that were asked for.
* In any case no request hangs, nothing is left of the connection once it ends, what the endpoints
  raise and log is a protocol error, and both connect again and talk as if nothing had happened.

Every byte is tried without I/O, a sample of them on real sockets.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import anyio
import pytest
from helpers import (
    Answer,
    Bus,
    Number,
    Question,
    Text,
    answer_questions,
    complaints,
    take,
    until,
)
from proxy import BACKWARD, FORWARD, Link, Proxy, Side, Spoiler, ended_well

from lahja import (
    AsyncioEndpoint,
    BaseEvent,
    ConnectionAttemptRejected,
    ConnectionConfig,
    ConnectTimeout,
    LahjaError,
    RemoteDisconnected,
)
from lahja.base import BaseEndpoint
from lahja.exceptions import ProtocolError, TruncatedFrame
from lahja.flow import Gate
from lahja.framing import PendingRequest
from lahja.streams import Overflow, make_mailbox, subscribe_mailbox


@dataclass
class Ratio(BaseEvent):
    """Have a value that is pickled."""

    value: Fraction


@dataclass
class Limited(BaseEvent):
    """Be held back by flow control."""

    value: int


def key(event: Any) -> tuple[Any, ...]:
    """Return what makes two received events equal."""
    state = {name: value for name, value in vars(event).items() if name != "_id"}
    return type(event).__name__, sorted(state.items())


@dataclass
class Talk:
    """One conversation, in which everything happens that the protocol knows."""

    spoiler: Spoiler = field(default_factory=Spoiler)

    def __post_init__(self) -> None:
        self.client = Side("client")
        self.server = Side("server")
        self.client.subscribe(Number)
        self.server.subscribe(Number, Text, Ratio, Question)
        router = self.server.router
        topic = router.table.topic(Limited)
        overflow: Overflow = "block"
        self.bounded = make_mailbox(topic, None, 2, overflow, lambda: None, router.logger)
        subscribe_mailbox(router, topic, self.bounded)
        self.pending: list[PendingRequest] = []
        self.gates: list[Gate] = []
        self.link = Link(self.client, self.server, self.spoiler)

    def run(self) -> None:
        """Say everything; a line that is cut in the middle is no reason to stop."""
        self.link.carry()
        for number in range(3):
            self.say(self.client, Number(number))
        self.say(self.client, Text("compressed " * 150))
        self.say(self.client, Ratio(Fraction(1, 3)))
        self.request()
        for number in range(4):
            self.say(self.client, Limited(number))
        self.link.carry()
        for event in list(self.bounded.events):
            self.bounded.consumed(event)  # type: ignore[attr-defined]
        self.say(self.server, Number(100))
        self.client.subscribe(Text)
        self.link.carry()
        self.say(self.server, Text("late"))
        self.request()
        self.client.unsubscribe(Number)
        self.link.carry()
        self.say(self.server, Number(101))
        self.say(self.client, Number(3))
        self.link.carry()
        if self.client.connection is not None:
            self.client.connection.say_goodbye()
        self.link.carry()

    def say(self, side: Side, event: BaseEvent) -> None:
        self.gates += side.router.broadcast(event, None, False)

    def request(self) -> None:
        """Ask the server, and let it answer."""
        router = self.client.router
        pending = router.table.ask(Question(7), None, False, lambda: None)
        if not pending.asked:
            return  # a real endpoint raises NoSubscribers
        self.pending.append(pending)
        self.link.carry()
        for event in self.server.received:
            if isinstance(event, Question) and not hasattr(event, "answered"):
                event.answered = True  # type: ignore[attr-defined]
                config = event.broadcast_config()
                self.server.router.broadcast(Answer(7), config, False)
        self.link.carry()

    def release(self) -> None:
        """Let a stalled line go on, and the server consume and answer what it brings."""
        self.link.release()

    def end(self) -> None:
        """End the conversation, and make sure that nothing is left of it."""
        self.link.hang_up()
        for side in (self.client, self.server):
            assert type(side.error) in (type(None), TruncatedFrame) or isinstance(
                side.error, ProtocolError
            )
            assert all(line.isprintable() for line in side.lines)
        for pending in self.pending:
            assert isinstance(pending.response, Answer) or isinstance(pending.error, LahjaError)
        for request_id, pending in list(self.client.router.pending.items()):
            if not pending.asked:
                del self.client.router.pending[request_id]
        assert all(gate.is_open for gate in self.gates)
        assert ended_well(self.client.router)
        assert ended_well(self.server.router)

    def again(self) -> None:
        """Connect the two once more, and let them talk."""
        before = len(self.server.received)
        link = Link(self.client, self.server)
        link.carry()
        self.client.router.broadcast(Number(1000), None, True)
        link.carry()
        assert [key(e) for e in self.server.received[before:]] == [
            ("Number", [("_origin", "client"), ("value", 1000)])
        ]

    @property
    def heard(self) -> tuple[list[Any], list[Any]]:
        """What arrived at the server, and at the client."""
        server = [key(e) for e in (*self.server.received, *self.bounded.events)]
        return server, [key(e) for e in self.client.received]


def clean() -> Talk:
    """Have the conversation undisturbed."""
    talk = Talk()
    talk.run()
    return talk


def test_the_conversation_has_everything_in_it() -> None:
    talk = clean()
    server, client = talk.heard
    assert Counter(name for name, _ in server) == Counter(
        {"Number": 4, "Text": 1, "Ratio": 1, "Question": 2, "Limited": 4}
    )
    assert Counter(name for name, _ in client) == Counter({"Number": 1, "Text": 1})
    assert [p.response is not None for p in talk.pending] == [True, True]
    assert min(talk.spoiler.counts) > 200
    assert not talk.client.lines + talk.server.lines
    talk.end()
    assert talk.client.error is talk.server.error is None
    talk.again()


def positions(step: int = 1) -> Iterator[tuple[int, int]]:
    counts = clean().spoiler.counts
    for direction in (FORWARD, BACKWARD):
        for position in range(0, counts[direction], step):
            yield direction, position


def events_of(talk: Talk) -> tuple[list[Any], list[Any]]:
    """Return what arrived in the order of arrival; what is bounded apart, for it is held back."""
    return [key(e) for e in talk.server.received], [key(e) for e in talk.client.received]


@functools.cache
def arrived_before(direction: int, position: int) -> int:
    """Return how many events have arrived when a byte comes."""
    talk = Talk(Spoiler(direction, position, "cut"))
    talk.run()
    return len(events_of(talk)[direction])


def test_a_line_cut_at_any_byte() -> None:
    whole = events_of(clean())
    reached = set()
    for direction, position in positions():
        talk = Talk(Spoiler(direction, position, "cut"))
        talk.run()
        assert talk.spoiler.is_cut
        heard = events_of(talk)
        for part, all_of_it in zip(heard, whole, strict=True):
            assert part == all_of_it[: len(part)]
        values = [event.value for event in talk.bounded.events]
        assert values == list(range(len(values)))
        talk.end()
        for pending in talk.pending:
            assert pending.response is not None or isinstance(pending.error, RemoteDisconnected)
        for side in (talk.client, talk.server):
            assert type(side.error) in (type(None), TruncatedFrame)
        assert not talk.client.lines + talk.server.lines
        talk.again()
        reached.add(len(heard[0]))
    assert reached == set(range(len(whole[0]) + 1))


def test_a_line_stalled_at_any_byte() -> None:
    """What comes out at the end is what an undisturbed line brings."""
    for direction, position in positions():
        talk = Talk(Spoiler(direction, position, "stall"))
        talk.link.carry()
        if talk.spoiler.is_stalled:
            talk.release()
        for number in range(3):
            talk.say(talk.client, Number(number))
            talk.say(talk.server, Number(number))
        talk.link.carry()
        if talk.spoiler.is_stalled:
            talk.release()
        expected = [("Number", n) for n in range(3)]
        for side in (talk.client, talk.server):
            assert [(type(e).__name__, e.value) for e in side.received] == expected
        talk.end()
        assert not talk.client.lines + talk.server.lines


@pytest.mark.parametrize(
    ("how", "mask", "step"),
    [("flip", 0xFF, 1), ("flip", 0, 1), ("drop", 0, 1), ("repeat", 0, 1)],
    ids=["all bits", "one bit", "lost", "doubled"],
)
def test_a_line_that_corrupts_any_byte(how: Any, mask: int, step: int) -> None:
    whole = events_of(clean())
    errors: Counter[str] = Counter()
    for direction, position in positions(step):
        exact = whole[direction][: arrived_before(direction, position)]
        talk = Talk(Spoiler(direction, position, how, mask or 1 << position % 8))
        talk.run()
        heard = events_of(talk)
        there = heard[direction]
        assert there[: len(exact)] == exact
        assert len(there) + len(talk.bounded.events) <= len(whole[direction]) + 4
        assert {name for name, _ in heard[0]} <= {"Number", "Text", "Ratio", "Question"}
        assert {name for name, _ in heard[1]} <= {"Number", "Text"}
        talk.end()
        assert len(talk.client.lines) + len(talk.server.lines) <= 4
        errors[type(talk.client.error or talk.server.error).__name__] += 1
        talk.again()
    assert len(errors) >= 3, errors


# -- Real sockets ----------------------------------------------------------------------------


async def converse(client: BaseEndpoint) -> None:
    """Say a few things to the server, as long as it is there."""
    for number in range(3):
        await client.broadcast(Number(number))
    await client.broadcast(Text("compressed " * 200))
    try:
        await client.request(Question(1), timeout=0.3)
    except LahjaError:
        pass
    await client.broadcast(Number(3))


async def through(
    bus: Bus, proxy: Proxy, server: BaseEndpoint, spoiler: Spoiler, name: str, may_hang: bool
) -> tuple[list[int], str]:
    """
    Let a client talk to the server through a line that is spoiled once.

    Return the numbers that arrived from it, and how its connection ended.
    """
    proxy.spoil(spoiler)
    numbers: list[int] = []

    def note(number: Number) -> None:
        if number.get_origin() == name:
            numbers.append(number.value)

    subscription = server.subscribe(Number, note)
    # What is lost or changed may leave both sides waiting; a line that is cut, or whole, does not.
    patience = 0.6 if may_hang else 30.0
    client = bus.endpoint_class(name, connect_timeout=patience, drain_timeout=patience)
    outcome = "talked"
    async with client.run():
        try:
            await client.connect_to_endpoints(ConnectionConfig("server", proxy.path))
            await converse(client)
        except (ConnectionAttemptRejected, ConnectTimeout) as error:
            outcome = type(error).__name__
        assert not client._router.pending
    await until(lambda: name not in server._router.peers)
    subscription.unsubscribe()
    return numbers, outcome


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["cut", "flip", "drop"])
async def test_a_bad_line_between_real_endpoints(
    bus: Bus, caplog: pytest.LogCaptureFixture, how: Any
) -> None:
    may_hang = how != "cut"
    async with (
        bus.serve("server", hello_timeout=0.2 if may_hang else 10.0) as server,
        bus.connect("friend", "server") as friend,
        Proxy.between(bus.directory / "proxy.ipc", bus.config("server").path) as proxy,
    ):
        answer_questions(server)
        server.subscribe(Text, lambda text: None)
        from_friend: list[int] = []
        server.subscribe(
            Number, lambda n: from_friend.append(n.value) if n.get_origin() == "friend" else None
        )
        await friend.wait_until_endpoint_subscribed_to("server", Number)
        undisturbed = Spoiler()
        numbers, outcome = await through(bus, proxy, server, undisturbed, "client", False)
        assert (numbers, outcome) == ([0, 1, 2, 3], "talked")
        if not may_hang:  # else this process may have been too slow for the server's patience
            assert not complaints(caplog)
        caplog.clear()
        runs = 0
        for direction in (FORWARD, BACKWARD):
            total = undisturbed.counts[direction]
            for position in range(runs, total, total // 8):
                runs += 1
                spoiler = Spoiler(direction, position, how)
                name = f"client {runs}"
                numbers, outcome = await through(bus, proxy, server, spoiler, name, may_hang)
                assert len(numbers) <= 4
                if how == "cut":
                    assert numbers == list(range(len(numbers)))
                    assert outcome == "talked"  # a connection that is lost is tried again
                lines = complaints(caplog)
                assert len(lines) <= 3, lines  # of client and server, and one event that is lost
                assert all(line.isprintable() for line in lines)
                assert all(r.levelno <= logging.WARNING for r in caplog.records)
                caplog.clear()
                await friend.broadcast(Number(runs))
                assert (await friend.request(Question(runs))).value == runs
        assert from_friend == list(range(1, runs + 1))
        numbers, outcome = await through(bus, proxy, server, Spoiler(), "client", False)
        assert (numbers, outcome) == ([0, 1, 2, 3], "talked")
        assert set(server._router.peers) == {"friend"}
        assert not server._router.pending
        assert not server._peering._strangers


@pytest.mark.anyio
async def test_a_line_that_stalls_between_real_endpoints(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        bus.serve("server") as server,
        Proxy.between(bus.directory / "proxy.ipc", bus.config("server").path) as proxy,
    ):
        numbers = server.stream(Number)
        answer_questions(server)
        for run in range(20):
            spoiler = Spoiler(run % 2, 7 * run, "stall")
            proxy.spoil(spoiler)
            client = bus.endpoint_class("client")
            async with client.run(), anyio.create_task_group() as tasks:

                async def talk(client: BaseEndpoint = client, run: int = run) -> None:
                    await client.connect_to_endpoints(ConnectionConfig("server", proxy.path))
                    await client.broadcast(Number(run))
                    assert (await client.request(Question(run))).value == run

                tasks.start_soon(talk)
                await until(functools.partial(getattr, spoiler, "is_stalled"))
                proxy.release()
                assert [number.value for number in await take(numbers, 1)] == [run]
            await until(lambda: not server.is_connected_to("client"))
        await numbers.aclose()
    assert not complaints(caplog)


@pytest.mark.anyio
async def test_a_connection_that_fails_leaves_the_caller_as_it_was(bus: Bus) -> None:
    """On asyncio, a task that is marked as being cancelled has no working timeouts any more."""
    async with bus.endpoint_class("client", connect_timeout=0.01).run() as client:
        for names in (["client"], ["nobody"], ["nobody", "no one"], ["client", "nobody"], []):
            configs = [bus.config(name) for name in names]
            if configs:
                with pytest.raises((ConnectionAttemptRejected, ConnectTimeout)):
                    await client.connect_to_endpoints(*configs)
            else:
                await client.connect_to_endpoints()
            if issubclass(bus.endpoint_class, AsyncioEndpoint):
                task = asyncio.current_task()
                assert task is not None
                assert not task.cancelling()
            with anyio.move_on_after(0) as scope:
                await anyio.sleep_forever()
            assert scope.cancelled_caught
