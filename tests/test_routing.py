"""
One endpoint's routing without sockets: routers that are joined by a fake link.

:class:`Net` carries bytes between the connections of any number of routers until all are silent.
"""

from __future__ import annotations

import logging
from typing import Any

import pytest
from framing_helpers import frames_in
from helpers import Answer, BetterAnswer, Marker, Number, Question, Text

from lahja import wire
from lahja.common import BaseEvent, BroadcastConfig
from lahja.exceptions import (
    BindError,
    EncodeError,
    LifecycleError,
    NoSubscribers,
    RemoteDisconnected,
    UnexpectedResponse,
)
from lahja.framing import Mailbox, PendingRequest
from lahja.membership import MembershipChange, MembershipReason
from lahja.names import name_of
from lahja.protocol import Connection, Hello, Rejection, State
from lahja.routing import Router, Watcher
from lahja.streams import make_mailbox, subscribe_mailbox
from lahja.typing import RequestID

LOGGER = logging.getLogger("lahja.test")


def make_router(name: str, allow_pickle: bool = True, max_frame_size: int = 10**6) -> Router:
    """Return a router that knows nobody."""
    return Router(name, allow_pickle, max_frame_size, LOGGER)


class Net:
    """Join routers."""

    def __init__(self) -> None:
        self.links: list[tuple[Connection, Connection]] = []

    def join(
        self, client: Router, server: Router, carry: bool = True
    ) -> tuple[Connection, Connection]:
        """Connect one router to another."""

        def connection(router: Router, to: str | None) -> Connection:
            return Connection(
                router, router.hello, router.own_subscriptions, lambda: None, 1000, to
            )

        ends = connection(client, server.name), connection(server, None)
        self.links.append(ends)
        client.connecting[server.name] = ends[0]
        ends[0].start()
        if carry:
            self.carry()
            client.connecting.pop(server.name, None)
        return ends

    def carry(self) -> None:
        """Carry bytes until all are silent."""
        while any(end.outlet.size for link in self.links for end in link):
            for first, second in self.links:
                for sender, receiver in ((first, second), (second, first)):
                    data = b"".join(sender.outlet.take())
                    sender.outlet.size = 0
                    if data and not receiver.ended:
                        buffer = receiver.reader.get_buffer()
                        assert len(data) <= len(buffer)
                        buffer[: len(data)] = data
                        receiver.receive(len(data))


@pytest.fixture
def net() -> Net:
    """Return what joins routers."""
    return Net()


@pytest.fixture
def a() -> Router:
    """Return a router."""
    return make_router("a")


@pytest.fixture
def b() -> Router:
    """Return another router."""
    return make_router("b")


def subscribe(router: Router, kind: type[BaseEvent]) -> Mailbox:
    """Subscribe a mailbox, and return it."""
    mailbox = Mailbox()
    router.add_consumer(router.table.topic(kind), mailbox)
    return mailbox


def stream(router: Router, kind: type[BaseEvent], bound: int) -> Any:
    """Subscribe a mailbox that blocks, and return it."""
    topic = router.table.topic(kind)
    mailbox = make_mailbox(topic, None, bound, "block", lambda: None, LOGGER)
    subscribe_mailbox(router, topic, mailbox)
    return mailbox


def broadcast(router: Router, event: BaseEvent, **config: Any) -> int:
    """Broadcast an event, and return by how many gates the caller is held back."""
    return len(router.broadcast(event, BroadcastConfig(**config) if config else None, False))


def ask(router: Router, question: Any, **config: Any) -> tuple[bytes, PendingRequest, list[int]]:
    """Send a request; the list is filled when it has ended."""
    woken: list[int] = []
    pending = router.table.ask(
        question, BroadcastConfig(**config) if config else None, True, lambda: woken.append(1)
    )
    return pending.id, pending, woken


# -- Who is let in ---------------------------------------------------------------------------


def introduced(
    router: Router, name: str, instance: bytes, to: str | None = None, **options: Any
) -> Connection:
    """Return a connection whose peer has just said hello."""
    connection = Connection(router, router.hello, router.own_subscriptions, lambda: None, 1000, to)
    connection.peer = Hello(wire.PROTOCOL_VERSION, name, instance, options)
    return connection


LOW, HIGH = bytes(16), b"\xff" * 16


def code_of(rejection: Rejection | None) -> str | None:
    """Return the code of a rejection, if it is one."""
    return rejection.code if rejection is not None else None


def test_a_stranger_is_admitted(a: Router) -> None:
    assert a.admit(introduced(a, "b", LOW)) is None
    assert a.admit(introduced(a, "b", LOW, to="b")) is None
    meant = introduced(a, "b", LOW)
    assert meant.peer is not None
    meant.peer.options["to"] = "a"
    assert a.admit(meant) is None


def test_ones_own_name_is_refused(a: Router) -> None:
    rejection = a.admit(introduced(a, "a", LOW))
    assert rejection == (wire.REJECT_NAME, "'a' is the name of this endpoint")


def test_another_name_than_was_meant_is_refused(a: Router) -> None:
    connection = introduced(a, "c", LOW, to="b")
    assert a.admit(connection) == (wire.REJECT_NAME, "the endpoint there is 'c', not 'b'")
    connection = introduced(a, "b", LOW)
    assert connection.peer is not None
    connection.peer.options["to"] = "x"
    assert a.admit(connection) == (wire.REJECT_NAME, "this endpoint is 'a', not 'x'")


def test_of_two_connections_to_one_peer_one_is_refused(net: Net, a: Router, b: Router) -> None:
    net.join(b, a)
    for to in (None, "b"):
        second = introduced(a, "b", b.hello.instance, to)
        assert a.admit(second) == (wire.REJECT_CONNECTED, "'b' is connected already")
        other = introduced(a, "b", LOW, to)
        assert code_of(a.admit(other)) == wire.REJECT_NAME


def test_a_peer_that_restarted_takes_the_place_of_itself(net: Net, a: Router, b: Router) -> None:
    net.join(b, a)
    old = a.peers["b"]
    a.is_peer_gone = lambda connection: connection is old
    assert a.admit(introduced(a, "b", LOW)) is None
    assert not a.peers
    net.join(make_router("b"), a)
    assert a.peers["b"] is not old
    a.remove(old)
    assert "b" in a.peers


def test_who_comes_and_who_goes_is_told_to_all_observers(net: Net, a: Router, b: Router) -> None:
    mailboxes = [Mailbox(), Mailbox()]
    a.observers.update(mailboxes)
    net.join(b, a)
    connection = a.peers["b"]
    a.remove(connection, MembershipReason.STALLED, "it took nothing")
    a.remove(connection)  # it is none any more
    for mailbox in mailboxes:
        assert [*mailbox.events] == [
            MembershipChange("b", MembershipReason.CONNECTED),
            MembershipChange("b", MembershipReason.STALLED, "it took nothing"),
        ]
    a.stop()
    net.join(make_router("c"), a)
    assert all(len(mailbox.events) == 2 for mailbox in mailboxes)


def test_of_two_that_meet_the_greater_instance_wins(net: Net, a: Router, b: Router) -> None:
    greater, lesser = (a, b) if a.hello.instance > b.hello.instance else (b, a)
    ends = [net.join(*pair, carry=False) for pair in ((greater, lesser), (lesser, greater))]
    net.carry()
    assert ends[0][0].state is ends[0][1].state is State.OPEN
    assert ends[1][0].state is ends[1][1].state is State.REFUSED
    assert ends[1][0].rejection is not None
    assert code_of(ends[1][0].rejection) in (wire.REJECT_SIMULTANEOUS, wire.REJECT_CONNECTED)
    assert set(a.peers) == {"b"}
    assert set(b.peers) == {"a"}


def test_those_that_wait_are_told_of_the_end_of_the_handshake(
    net: Net, a: Router, b: Router
) -> None:
    settled: list[Connection] = []
    a.on_settled = b.on_settled = settled.append
    ends = net.join(a, b)
    assert set(settled) == set(ends)
    a.refused(ends[0], Rejection("code", "reason"))
    assert settled[-1] is ends[0]


# -- Subscriptions ---------------------------------------------------------------------------


def test_the_versions_count_every_change(net: Net, a: Router, b: Router) -> None:
    def versions() -> tuple[int, int]:
        return a.connections_version, a.subscriptions_version

    seen = [versions()]
    net.join(b, a)
    seen.append(versions())
    mailbox = subscribe(b, Number)
    net.carry()
    seen.append(versions())
    b.remove_consumer(b.table.topic(Number), mailbox)
    net.carry()
    seen.append(versions())
    a.remove(a.peers["b"])
    seen.append(versions())
    assert seen == sorted(set(seen), key=lambda pair: pair[1])
    assert [connections for connections, _ in seen] == [0, 1, 1, 1, 2]


def test_watchers_are_woken_once_their_state_is_reached(net: Net, a: Router, b: Router) -> None:
    woken: list[str] = []
    a.watch(Watcher(lambda: "b" in a.peers, lambda: woken.append("connected")))
    a.watch(Watcher(lambda: a.wants("b", Number), lambda: woken.append("subscribed")))
    never = Watcher(lambda: True, lambda: woken.append("never"))
    a.watch(never)
    a.unwatch(never)
    net.join(b, a)
    assert woken == ["connected"]
    subscribe(b, Number)
    net.carry()
    assert woken == ["connected", "subscribed"]


def test_stopping_ends_what_waits(a: Router) -> None:
    woken: list[str] = []
    watcher = Watcher(lambda: False, lambda: woken.append("watcher"))
    a.watch(watcher)
    subscribe(a, Question)
    _, pending, ended = ask(a, Question(1))
    a.stop()
    assert woken == ["watcher"]
    assert ended == [1]
    assert isinstance(watcher.error, LifecycleError)
    assert isinstance(pending.error, LifecycleError)
    assert watcher.error is not pending.error  # each has a traceback of its own
    assert not a.pending


def test_classes_of_one_name_share_their_subscription(net: Net, a: Router, b: Router) -> None:
    net.join(b, a)
    first, second = (type("Kind", (BaseEvent,), {"__module__": "m"}) for _ in range(2))
    at_first = subscribe(a, first)
    at_second = subscribe(a, second)
    net.carry()
    assert set(b.peers["a"].subscriptions) == {"m:Kind"}
    assert a.subscribed_types() == {first, second}
    broadcast(b, second())
    net.carry()
    assert type(at_first.events.popleft()) is first  # each gets one of its own class
    assert type(at_second.events.popleft()) is second
    a.remove_consumer(a.table.topic(second), at_second)
    net.carry()
    assert set(b.peers["a"].subscriptions) == {"m:Kind"}
    broadcast(b, second())
    net.carry()
    assert (len(at_first.events), len(at_second.events)) == (1, 0)
    a.remove_consumer(a.table.topic(first), at_first)
    a.remove_consumer(a.table.topic(first), at_first)
    net.carry()
    assert not b.peers["a"].subscriptions


def test_the_oldest_of_two_classes_of_one_name_may_leave_first(a: Router) -> None:
    first, second = (type("Kind", (BaseEvent,), {"__module__": "m"}) for _ in range(2))
    at_first, _ = subscribe(a, first), subscribe(a, second)
    a.remove_consumer(a.table.topic(first), at_first)
    assert a.table.by_name["m:Kind"].cls is second


def test_events_of_a_type_that_nobody_ever_wanted_are_reported_once(
    net: Net, a: Router, b: Router, caplog: pytest.LogCaptureFixture
) -> None:
    net.join(b, a)
    b.subscribed(b.peers["a"], {"helpers:Number": None}, ())  # nobody said so
    for value in range(3):
        broadcast(b, Number(value))
        net.carry()
    assert [record.getMessage() for record in caplog.records] == [
        "a: ignored events of type helpers:Number from b: nobody here asked for it"
    ]


def test_events_of_a_type_that_was_wanted_before_are_passed_over_in_silence(
    net: Net, a: Router, b: Router, caplog: pytest.LogCaptureFixture
) -> None:
    mailbox = subscribe(a, Number)
    net.join(b, a)
    a.remove_consumer(a.table.topic(Number), mailbox)
    broadcast(b, Number(1))  # before b was told
    net.carry()
    assert not mailbox.events
    assert not caplog.records


# -- Broadcasts ------------------------------------------------------------------------------


def test_a_broadcast_goes_where_it_should(net: Net, a: Router, b: Router) -> None:
    net.join(b, a)
    here, there = subscribe(a, Number), subscribe(b, Number)
    net.carry()
    configs: list[dict[str, Any]] = [
        {},
        {"internal": True},
        {"filter_endpoint": "a"},
        {"filter_endpoint": "b"},
    ]
    for value, config in enumerate(configs):
        assert broadcast(a, Number(value), **config) == 0
    broadcast(a, Number(9), filter_endpoint="nobody")
    net.carry()
    assert [event.value for event in here.events] == [0, 1, 2]
    assert [event.value for event in there.events] == [0, 3]


def test_nothing_has_happened_where_a_broadcast_fails(net: Net, a: Router) -> None:
    net.join(make_router("strict", allow_pickle=False, max_frame_size=1024), a)
    strict = a.peers["strict"]
    a.subscribed(strict, {name_of(Text): 1}, ())
    here = subscribe(a, Text)
    strict.outlet.take()
    value: Any = 3j
    for text in (value, "".join(map(chr, range(0x100, 0x700)))):
        event = Text(text)
        with pytest.raises(EncodeError):
            a.broadcast(event, None, True)
        assert not event.is_bound
    bound = Text("bound")
    broadcast(a, bound, internal=True)
    with pytest.raises(BindError):
        a.broadcast(bound, None, True)
    with pytest.raises(NoSubscribers):
        a.broadcast(Number(1), None, True)
    assert len(here.events) == 1
    assert not strict.outlet.take()
    broadcast(a, Text("the window is untouched"))
    assert strict.outlet.take()
    assert not a.held_gates(strict)


def test_a_caller_is_held_back_by_peers_that_have_too_much(net: Net, a: Router, b: Router) -> None:
    net.join(b, a)
    a.subscribed(a.peers["b"], {name_of(Text): None}, ())
    outlet = a.peers["b"].outlet
    assert broadcast(a, Text("x" * 500)) == 0
    gates = [a.broadcast(Text("x" * 500), None, False) for _ in range(2)]
    assert gates[0] == gates[1] != []
    outlet.size = 501
    a.written(outlet)
    assert not gates[0][0].is_open
    outlet.size = 500
    a.written(outlet)
    assert gates[0][0].is_open
    a.written(outlet)
    outlet.size = 5000
    (gate,) = a.broadcast(Text("x"), None, False)
    a.remove(a.peers["b"])
    assert gate.is_open


def test_a_window_holds_back_one_type_for_one_peer(net: Net, a: Router, b: Router) -> None:
    net.join(b, a)
    net.join(make_router("c"), a)
    for name in "bc":
        window = 2 if name == "b" else None
        a.subscribed(a.peers[name], {name_of(Number): window, name_of(Marker): None}, ())
    assert [broadcast(a, Number(value)) for value in range(4)] == [0, 0, 1, 1]
    assert broadcast(a, Marker()) == 0
    assert len(a.held_gates(a.peers["b"])) == 2
    assert not a.held_gates(a.peers["c"])
    first, second = a.held_gates(a.peers["b"])
    a.credited(a.peers["b"], name_of(Number), 1)
    assert (first.is_open, second.is_open) == (True, False)
    a.credited(a.peers["c"], name_of(Number), 1)
    a.credited(a.peers["b"], "m:Unknown", 1)
    assert not second.is_open
    a.subscribed(a.peers["b"], {}, (name_of(Number),))  # wanted no more: it is dropped
    assert second.is_open
    assert not a.held_gates(a.peers["b"])


def test_a_window_that_is_lifted_or_grows_lets_what_is_held_go(
    net: Net, a: Router, b: Router
) -> None:
    net.join(b, a)
    peer = a.peers["b"]
    a.subscribed(peer, {name_of(Number): 1}, ())
    for value in range(5):
        broadcast(a, Number(value))
    assert len(a.held_gates(peer)) == 4
    a.subscribed(peer, {name_of(Number): 3}, ())
    assert len(a.held_gates(peer)) == 2
    a.subscribed(peer, {name_of(Number): None}, ())
    assert not a.held_gates(peer)
    assert broadcast(a, Number(9)) == 0


def test_credit_goes_to_whoever_is_still_connected(net: Net, a: Router, b: Router) -> None:
    net.join(b, a)
    mailbox = stream(a, Number, 1)
    net.carry()
    broadcast(b, Number(1))
    net.carry()
    event = mailbox.events.popleft()
    mailbox.consumed(event)
    net.carry()
    assert broadcast(b, Number(2)) == 0
    net.carry()
    a.remove(a.peers["b"])
    mailbox.consumed(mailbox.events.popleft())  # nobody is there to be told
    assert not b.peers["a"].reader.pending


def test_a_blocking_mailbox_alone_has_no_intake() -> None:
    mailbox: Any = make_mailbox(
        make_router("a").table.topic(Number), None, 1, "block", lambda: None, LOGGER
    )
    mailbox.deliver(Number(1), False)
    mailbox.consumed(mailbox.events.popleft())
    assert len(mailbox) == 0


# -- Requests --------------------------------------------------------------------------------


@pytest.fixture
def questions(net: Net, a: Router, b: Router) -> Mailbox:
    """Return what ``b`` is asked by ``a``."""
    net.join(b, a)
    mailbox = subscribe(b, Question)
    net.carry()
    return mailbox


def test_a_request_ends_with_its_response(
    net: Net, a: Router, b: Router, questions: Mailbox
) -> None:
    request_id, pending, ended = ask(a, Question(1))
    assert pending.names == ("b",)
    net.carry()
    question = questions.events.popleft()
    assert question._id == request_id
    b.broadcast(Answer(5), question.broadcast_config(), False)
    net.carry()
    assert ended == [1]
    assert pending.response == Answer(5)
    assert not a.pending


@pytest.mark.parametrize("event", [Text("no"), BaseEvent()], ids=["unrelated", "base"])
def test_a_request_ends_with_an_unexpected_response(
    net: Net, a: Router, b: Router, questions: Mailbox, event: BaseEvent
) -> None:
    _, pending, ended = ask(a, Question(1))
    net.carry()
    b.broadcast(event, questions.events.popleft().broadcast_config(), False)
    net.carry()
    assert ended == [1]
    assert isinstance(pending.error, UnexpectedResponse)
    assert not a.pending


def test_a_request_ends_with_a_response_of_a_derived_type(
    net: Net, a: Router, b: Router, questions: Mailbox
) -> None:
    for kind in (BetterAnswer, Answer):  # the type may be known here as a topic, or not
        derived = subscribe(a, kind)
        _, pending, _ = ask(a, Question(1))
        net.carry()
        b.broadcast(BetterAnswer(5), questions.events.popleft().broadcast_config(), False)
        net.carry()
        assert pending.response == BetterAnswer(5)
        if kind is BetterAnswer:
            assert derived.events.popleft() is pending.response
            a.remove_consumer(a.table.topic(kind), derived)


def test_a_request_ends_when_all_that_were_asked_are_gone(
    net: Net, a: Router, questions: Mailbox
) -> None:
    c = make_router("c")
    net.join(c, a)
    subscribe(c, Question)
    net.carry()
    _, pending, ended = ask(a, Question(1))
    names = [pending.names]
    a.remove(a.peers["b"])
    assert not ended
    names.append(pending.names)
    assert names == [("b", "c"), ("c",)]
    a.remove(a.peers["c"])
    assert ended == [1]
    assert isinstance(pending.error, RemoteDisconnected)
    assert not a.pending


def test_a_request_that_was_asked_here_too_outlives_the_others(
    net: Net, a: Router, questions: Mailbox
) -> None:
    here = subscribe(a, Question)
    _, pending, ended = ask(a, Question(1))
    a.remove(a.peers["b"])
    assert not ended
    a.broadcast(Answer(1), here.events.popleft().broadcast_config(), False)
    assert ended == [1]
    assert pending.response == Answer(1)


def test_those_that_were_not_asked_cannot_respond(
    net: Net, a: Router, b: Router, questions: Mailbox, caplog: pytest.LogCaptureFixture
) -> None:
    c = make_router("c")
    net.join(c, a)
    request_id, pending, ended = ask(a, Question(1))
    net.carry()
    config = questions.events.popleft().broadcast_config()
    c.broadcast(Answer(666), config, False)
    own = BroadcastConfig(internal=True, filter_event_id=RequestID(request_id))
    a.broadcast(Answer(666), own, False)
    net.carry()
    assert not ended
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "a: ignored a response of type helpers:Answer from a: it was not asked",
        "a: ignored a response of type helpers:Answer from c: it was not asked",
    ]
    b.broadcast(Answer(1), config, False)
    net.carry()
    assert pending.response == Answer(1)


def test_a_request_whose_class_expects_no_class_is_a_type_error(a: Router) -> None:
    class Odd(Question):
        @staticmethod
        def expected_response_type() -> Any:
            return "Answer"

    mailbox = subscribe(a, Odd)
    with pytest.raises(TypeError, match=r"expects a response of 'Answer', which is no class"):
        ask(a, Odd(1))
    assert not mailbox.events
    assert not a.pending


def test_a_required_response_needs_somebody_to_take_it(a: Router) -> None:
    config = BroadcastConfig("gone", RequestID(bytes(16)), require_subscriber=True)
    with pytest.raises(NoSubscribers, match=r"only 'gone' may, which is not connected"):
        a.broadcast(Answer(1), config, False)
    for required in (None, False):
        config = BroadcastConfig("gone", RequestID(bytes(16)), require_subscriber=required)
        a.broadcast(Answer(1), config, True)  # the endpoint's own default is not for responses


# -- Without snappy --------------------------------------------------------------------------


def test_without_snappy_nothing_is_offered_or_compressed(
    monkeypatch: pytest.MonkeyPatch, net: Net, b: Router
) -> None:
    monkeypatch.setattr("lahja.routing.has_snappy", lambda: False)
    router = make_router("a")
    assert router.hello.options["compression"] == ()
    assert router.table.compressor is None
    net.join(router, b)
    mailbox = subscribe(router, Text)
    net.carry()
    broadcast(b, Text("x" * 5000))
    outlet = b.peers["a"].outlet
    frames = frames_in(b"".join(outlet.take()))
    assert [each[4] for each in frames if each[4] != wire.ANNOUNCE] == [wire.EVENT]
    outlet.size = 0
    for each in frames:
        outlet.put(each)
    net.carry()
    assert len(mailbox.events[0].text) == 5000
