"""Posting events, asking, and taking events from an iterator, on both framing implementations."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import Any

import framing_helpers as helpers
import pytest
from framing_helpers import Event, Link, state_of

from lahja import wire
from lahja.common import BaseEvent, BaseRequestResponseEvent, BroadcastConfig
from lahja.exceptions import BindError, EncodeError, NoSubscribers
from lahja.names import name_of
from lahja.typing import RequestID

ID = bytes(range(16))


class Answer(BaseEvent):
    def __init__(self, value: Any) -> None:
        self.value = value


class Ask(BaseRequestResponseEvent[Answer]):
    def __init__(self, value: Any, expected: Any = Answer) -> None:
        self.value = value
        self._expected = expected

    def expected_response_type(self) -> Any:  # type: ignore[override]
        return self._expected


@pytest.fixture(params=helpers.IMPLEMENTATIONS)
def framing(request: pytest.FixtureRequest) -> ModuleType:
    return helpers.load(request.param)


class Consumer:
    def __init__(self) -> None:
        self.events: list[tuple[Any, bool]] = []

    def deliver(self, event: Any, local: bool) -> None:
        self.events.append((event, local))


class Table:
    """A table with an outlet to ``peer``, which wants all types, and what it asked its owner."""

    def __init__(self, framing: ModuleType, allow_pickle: bool = True) -> None:
        self.framing = framing
        self.outlet = self.new_outlet("peer")
        self.routed: list[tuple[Any, Any]] = []
        self.congested: list[tuple[Any, ...]] = []
        self.asked: list[tuple[Any, Any, bool]] = []
        self.targets: tuple[Any, Any] = (), ()
        self.gates: list[str] = []
        self.table = framing.EventTable("me", allow_pickle, self._on_topic)
        self.table.where = lambda: "here"
        self.table.home = "here"
        self.table.owner = self
        self.require_subscriber = False
        self.table.route = self._route
        self.table.on_congested = self._on_congested
        self.table.targets = self._targets
        self.table.outlets["peer"] = self.outlet

    def new_outlet(self, name: str) -> Any:
        outlet = self.framing.Outlet(lambda: None, 1000)
        outlet.threshold = 2**40
        outlet.name = name
        return outlet

    def _on_topic(self, topic: Any) -> None:
        topic.outlets = (self.outlet,)

    def _route(self, event: Any, config: Any) -> list[str]:
        self.routed.append((event, config))
        return self.gates

    def _on_congested(self, outlets: tuple[Any, ...]) -> list[str]:
        self.congested.append(outlets)
        self.table.congested = False
        return self.gates

    def _targets(self, topic: Any, config: Any, required: bool) -> tuple[Any, Any]:
        self.asked.append((topic.name, config, required))
        if required and self.targets == ((), ()):
            raise NoSubscribers("nobody")
        return self.targets

    def frames(self) -> list[tuple[int, bytes]]:
        """Take what was queued: kind and rest of each frame that is no announcement."""
        frames = helpers.frames_in(b"".join(self.outlet.take()))
        self.outlet.size = 0
        return [(each[4], each[5:]) for each in frames if each[4] != wire.ANNOUNCE]


@pytest.fixture
def table(framing: ModuleType) -> Table:
    return Table(framing)


# -- Posting ---------------------------------------------------------------------------------


def test_a_posted_event_goes_to_those_who_want_it(table: Table) -> None:
    consumer = Consumer()
    table.table.topic(Event).consumers = (consumer,)
    event = Event(a=1)
    assert table.table.post(event) is None
    assert consumer.events == [(event, True)]
    assert [kind for kind, _ in table.frames()] == [wire.EVENT]
    assert not table.routed
    with pytest.raises(BindError):
        table.table.post(event)


def test_a_table_is_at_home_where_its_event_loop_runs(table: Table) -> None:
    assert table.table.is_home()
    table.table.home = "elsewhere"
    assert not table.table.is_home()
    table.table.where = lambda: "elsewhere"
    assert table.table.is_home()


def test_what_is_posted_from_elsewhere_is_routed(table: Table) -> None:
    table.table.home = "elsewhere"
    event, config = Event(a=1), BroadcastConfig("peer")
    assert table.table.post(event) is None
    assert table.table.post(event, config) is None
    assert table.routed == [(event, None), (event, config)]
    assert not table.frames()
    assert not event.is_bound


def test_what_is_limited_or_wanted_by_nobody_where_somebody_should_is_routed(table: Table) -> None:
    topic = table.table.topic(Event)
    event = Event(a=1)
    topic.limited = True
    table.table.post(event)
    topic.limited = False
    topic.outlets = ()
    table.require_subscriber = True
    table.table.post(event)
    assert table.routed == [(event, None), (event, None)]
    assert not event.is_bound


def test_what_nobody_wants_is_counted_and_that_is_all(table: Table) -> None:
    topic = table.table.topic(Event)
    topic.outlets = ()
    event = Event(a=1)
    assert table.table.post(event) is None
    assert (topic.broadcasts, topic.sent, topic.delivered) == (1, 0, 0)
    assert table.table.debt == 1
    assert not table.routed
    assert not event.is_bound
    table.table.debt = 1000
    assert table.table.post(event) == ()


class Obliging(Event):
    """Have any attribute that is asked for."""

    def __getattr__(self, name: str) -> str:
        return name


class Native(Event):
    """Have, as a class, what binds an instance."""

    _origin = "elsewhere"


@pytest.mark.parametrize("cls", [Event, Obliging, Native])
def test_only_what_an_event_itself_has_binds_it(table: Table, cls: type[Event]) -> None:
    topic = table.table.topic(cls)
    topic.outlets = ()
    for _ in range(2):
        assert table.table.post(cls(a=1)) is None
    with pytest.raises(BindError):
        table.table.post(cls(_origin=None))
    topic.consumers = (Consumer(),)
    for _ in range(2):
        event = cls(a=1)
        assert table.table.post(event) is None
        assert state_of(event)["_origin"] == "me"
        with pytest.raises(BindError):
            table.table.post(event)
    assert topic.broadcasts == 4


def test_gates_hold_the_poster_back(table: Table) -> None:
    table.table.debt = 7
    assert table.table.post(Event(a=b"x" * 2000)) is None
    assert table.congested == [(table.outlet,)]
    table.gates = ["gate"]
    assert table.table.post(Event(a=1)) == ["gate"]  # there is still too much in the outlet
    assert table.table.debt == 0
    table.table.topic(Event).outlets = ()
    table.require_subscriber = True
    assert table.table.post(Event(a=1)) == ["gate"]
    assert len(table.congested) == 2
    assert len(table.routed) == 1


def test_others_get_a_turn_after_a_while(table: Table) -> None:
    turns = []
    for number in range(1100):
        table.outlet.high_water = 2**40
        if table.table.post(Event(a=number)) is not None:
            turns.append(number)
    assert turns == [256, 513, 770, 1027]
    table.table.debt = 10_000
    assert not table.table.post(Event(a=b"x" * 10))
    assert table.table.debt == 0


def test_an_event_for_one_endpoint_goes_to_that_one_only(table: Table) -> None:
    other, consumer = table.new_outlet("other"), Consumer()
    table.table.outlets["other"] = other
    topic = table.table.topic(Event)
    topic.outlets = (other, table.outlet)
    topic.consumers = (consumer,)
    event = Event(a=1)
    assert table.table.post(event, BroadcastConfig("peer")) is None
    assert [kind for kind, _ in table.frames()] == [wire.EVENT]
    assert not other.take()
    assert not consumer.events
    assert state_of(event)["_origin"] == "me"
    assert "_id" not in state_of(event)
    assert table.table.debt == 1
    with pytest.raises(BindError):
        table.table.post(event, BroadcastConfig("peer"))


def test_a_response_goes_to_who_asked_whatever_that_wants(table: Table) -> None:
    table.table.topic(Answer).outlets = ()
    answer = Answer(5)
    assert table.table.post(answer, BroadcastConfig("peer", RequestID(ID))) is None
    ((kind, rest),) = table.frames()
    assert kind == wire.RESPONSE
    assert rest[4:20] == ID
    assert state_of(answer)["_id"] == ID
    assert not table.routed


class OtherConfig(BroadcastConfig):
    __slots__ = ()


def internal() -> BroadcastConfig:
    config = BroadcastConfig("peer")
    config.internal = True
    return config


OTHER_WAYS: dict[str, Callable[[], Any]] = {
    "to all": lambda: BroadcastConfig(),
    "to who is not there": lambda: BroadcastConfig("nobody"),
    "a response to who is not there": lambda: BroadcastConfig("nobody", RequestID(ID)),
    "an id of another size": lambda: BroadcastConfig("peer", RequestID(b"short")),
    "an id of another type": lambda: BroadcastConfig("peer", "x" * 16),  # type: ignore[arg-type]
    "internal": lambda: BroadcastConfig(internal=True),
    "internal, by hand": internal,
    "a derived class": lambda: OtherConfig("peer"),
    "no configuration": lambda: 5,
}


@pytest.mark.parametrize("make", [*OTHER_WAYS.values()], ids=[*OTHER_WAYS])
def test_other_ways_are_routed(table: Table, make: Callable[[], Any]) -> None:
    event, config = Event(a=1), make()
    assert table.table.post(event, config) is None
    assert table.routed == [(event, config)]
    assert not table.frames()


def test_an_event_for_one_endpoint_is_routed_where_it_is_limited_or_unwanted(table: Table) -> None:
    topic = table.table.topic(Event)
    config = BroadcastConfig("peer")
    topic.limited = True
    table.table.post(Event(a=1), config)
    topic.limited = False
    topic.outlets = (table.new_outlet("other"),)
    table.table.post(Event(a=1), config)
    assert len(table.routed) == 2
    assert not table.frames()


def test_a_tapped_event_or_response_for_one_endpoint_is_routed(table: Table) -> None:
    table.table.topic(Event).tapped = True
    for config in (BroadcastConfig("peer"), BroadcastConfig("peer", RequestID(ID))):
        event = Event(a=1)
        table.table.post(event, config)
        assert table.routed.pop() == (event, config)
        assert not event.is_bound
    assert not table.frames()


def test_only_who_gets_an_event_has_a_say_in_its_form(table: Table) -> None:
    strict = table.new_outlet("strict")
    strict.accepts_pickle = False
    table.table.outlets["strict"] = strict
    for kind in (Event, helpers.Reduced):
        topic = table.table.topic(kind)
        topic.outlets, topic.strict = (table.outlet, strict), True
    assert table.table.post(Event(a=1j), BroadcastConfig("peer")) is None
    with pytest.raises(EncodeError, match=r"field 'a'.*and 'strict' accepts no pickled values"):
        table.table.post(Event(a=1j), BroadcastConfig("strict"))
    with pytest.raises(EncodeError, match=r"its class defines its own pickling, and 'strict'"):
        table.table.post(helpers.Reduced(1), BroadcastConfig("strict"))
    with pytest.raises(EncodeError, match=r"and 'strict' accepts no pickled values"):
        table.table.post(Event(a=1j))
    strict.limit = 10
    table.table.limit = 10
    with pytest.raises(EncodeError, match=r"'strict' accepts 10"):
        table.table.post(Event(a=b"x" * 100), BroadcastConfig("strict"))
    assert not strict.take()


def test_an_event_for_one_congested_endpoint_is_held_back(table: Table) -> None:
    table.gates = ["gate"]
    assert table.table.post(Event(a=b"x" * 2000), BroadcastConfig("peer")) == ["gate"]
    assert table.congested == [(table.outlet,)]


def test_a_table_that_no_endpoint_uses_routes_nothing(framing: ModuleType) -> None:
    table = framing.EventTable("me", True, lambda topic: None)
    with pytest.raises(RuntimeError, match=r"no endpoint uses this table"):
        table.post(Event(a=1))
    table.topic(Ask).tapped = True
    with pytest.raises(RuntimeError, match=r"no endpoint uses this table"):
        table.ask(Ask(1), None, True, print)
    assert not table.requests
    assert table.where() is not table.home
    assert table.on_congested(()) == ()
    assert table.targets(None, None, True) == ((), ())


def test_an_event_that_is_prepared_is_bound_and_not_sent(table: Table) -> None:
    event = Event(a=1)
    topic = table.table.topic(Event)
    shape, frame = table.table.prepare(topic, event, wire.REQUEST, ID, (table.outlet,))
    assert state_of(event)["_id"] == ID
    assert not table.outlet.take()
    assert frame[9:25] == ID
    assert shape.fields == ("a",)
    table.table.limit = table.outlet.limit = 5
    with pytest.raises(EncodeError):
        table.table.prepare(topic, Event(a=1), wire.EVENT, b"", (table.outlet,))


# -- Asking ----------------------------------------------------------------------------------


def test_a_request_is_sent_to_all_and_waits(table: Table) -> None:
    consumer = Consumer()
    table.table.topic(Ask).consumers = (consumer,)
    wakes: list[int] = []
    ask = Ask(1)
    request = table.table.ask(ask, None, True, lambda: wakes.append(1))
    ((kind, rest),) = table.frames()
    assert kind == wire.REQUEST
    assert rest[4:20] == request.id == state_of(ask)["_id"]
    assert table.table.requests == {request.id: request}
    assert consumer.events == [(ask, True)]
    assert request.asked == (table.outlet,)
    assert request.names == ("peer",)
    assert request.locally
    assert request.expected is Answer
    assert request.topic is table.table.topic(Answer)
    assert (request.response, request.error) == (None, None)
    assert not wakes
    assert not table.asked
    assert table.table.debt == 1


def test_ids_of_requests_are_random_and_do_not_repeat(table: Table) -> None:
    ids = [table.table.ask(Ask(number), None, True, print).id for number in range(1000)]
    assert len(set(ids)) == 1000
    assert {len(each) for each in ids} == {16}
    assert len({byte for each in ids for byte in each}) == 256


def test_a_request_to_one_endpoint_goes_to_it_alone(table: Table) -> None:
    other, consumer = table.new_outlet("other"), Consumer()
    topic = table.table.topic(Ask)
    topic.outlets, topic.consumers = (other, table.outlet), (consumer,)
    request = table.table.ask(Ask(1), BroadcastConfig("peer"), True, print)
    assert request.asked == (table.outlet,)
    assert not request.locally
    assert len(table.frames()) == 1
    assert not other.take()
    assert not consumer.events
    assert not table.asked


@pytest.mark.parametrize(
    "config",
    [
        BroadcastConfig("peer", require_subscriber=False),
        BroadcastConfig("nobody"),
        BroadcastConfig("me"),
        BroadcastConfig(internal=True),
    ],
    ids=["a peer without interest", "a stranger", "oneself", "internal"],
)
def test_a_request_with_another_aim_asks_for_its_targets(
    table: Table, config: BroadcastConfig
) -> None:
    other, consumer = table.new_outlet("other"), Consumer()
    topic = table.table.topic(Ask)
    topic.outlets = (other,)
    table.targets = (), (consumer,)
    request = table.table.ask(Ask(1), config, True, print)
    assert request.asked == ()
    assert request.locally
    assert table.asked == [(name_of(Ask), config, True)]
    assert len(consumer.events) == 1
    assert not table.frames()
    assert not other.take()


def test_a_request_that_goes_nowhere_by_itself_asks_for_its_targets(table: Table) -> None:
    topic = table.table.topic(Ask)
    topic.outlets = ()
    table.targets = (), ()
    with pytest.raises(NoSubscribers):
        table.table.ask(Ask(1), None, True, print)
    ask = Ask(2)
    request = table.table.ask(ask, None, False, print)
    assert request.asked == ()
    assert ask.is_bound
    assert table.asked == [(name_of(Ask), None, True), (name_of(Ask), None, False)]
    with pytest.raises(BindError):
        table.table.ask(ask, None, False, print)
    assert len(table.table.requests) == 1


def test_a_request_may_stay_here(table: Table) -> None:
    consumer = Consumer()
    topic = table.table.topic(Ask)
    topic.outlets, topic.consumers = (), (consumer,)
    ask = Ask(lambda: None)  # it is not encoded
    request = table.table.ask(ask, None, True, print)
    assert consumer.events == [(ask, True)]
    assert state_of(ask)["_id"] == request.id
    assert request.names == ()


def test_a_tapped_request_is_routed(table: Table) -> None:
    asked: list[tuple[Any, ...]] = []

    def route_request(*args: Any) -> str:
        asked.append(args)
        return "pending"

    table.table.route_request = route_request
    table.table.topic(Ask).tapped = True
    ask, config = Ask(1), BroadcastConfig("peer")
    assert table.table.ask(ask, config, True, print) == "pending"
    assert asked == [(ask, config, True, print)]
    assert not ask.is_bound
    assert not table.frames()
    assert not table.asked
    assert not table.table.requests
    table.table.topic(Ask).tapped = False
    assert table.table.ask(ask, None, True, print).asked == (table.outlet,)
    assert len(asked) == 1


def test_a_request_that_fails_leaves_nothing(table: Table) -> None:
    with pytest.raises(TypeError, match=r"expects a response of 'Answer', which is no class"):
        table.table.ask(Ask(1, "Answer"), None, True, print)
    with pytest.raises(EncodeError):
        table.table.ask(Ask(lambda: None), None, True, print)
    with pytest.raises(AttributeError):
        table.table.ask(Event(a=1), None, True, print)
    with pytest.raises(TypeError):
        table.table.ask(5, None, True, print)
    assert not table.table.requests
    assert not table.frames()
    request = table.table.ask(Ask(1, int), None, True, print)
    assert request.topic is None


# -- Responses -------------------------------------------------------------------------------


class Asking:
    """A link over which responses come, and a request that waits for one."""

    def __init__(self, framing: ModuleType, expected: type = Answer) -> None:
        self.link = Link(framing)
        self.consumer = Consumer()
        self.topic = framing.Topic(Answer)
        self.topic.consumers = (self.consumer,)
        self.outlet = self.link.reader.outlet = framing.Outlet(print, 1)
        self.woken: list[Any] = []
        topic = self.topic if expected is Answer else None
        self.request = framing.PendingRequest(
            ID, expected, topic, (self.outlet,), False, self._wake
        )
        self.link.reader.requests = {ID: self.request}
        self.link.reader.inlets[5] = framing.Inlet(5, name_of(Answer), wire.LAYOUT_FIELDS, ("v",))
        self.link.reader.inlets[6] = framing.Inlet(6, name_of(Event), wire.LAYOUT_FIELDS, ("v",))

    def _wake(self) -> None:
        self.woken.append((self.request.response, [*self.link.reader.requests]))

    def respond(self, payload: bytes = b"\0b\x07", type_id: int = 5, id: bytes = ID) -> bytes:
        body = bytes((wire.RESPONSE,)) + type_id.to_bytes(4, "little") + id + payload
        self.link.feed(len(body).to_bytes(4, "little") + body)
        return body


def test_a_response_ends_its_request_and_goes_to_subscribers(framing: ModuleType) -> None:
    asking = Asking(framing)
    asking.respond()
    ((response, left),) = asking.woken
    assert type(response) is Answer
    assert state_of(response) == {"v": 7, "_origin": "sender", "_id": ID}
    assert not left
    assert asking.consumer.events == [(response, False)]
    assert not asking.link.bodies
    late = asking.respond()
    assert asking.link.bodies == [late]
    assert len(asking.woken) == 1


@pytest.mark.parametrize(
    ("payload", "type_id", "id"),
    [(b"\0b\x07", 6, ID), (b"\0?", 5, ID), (b"\0b\x07", 5, bytes(16)), (b"", 5, ID)],
    ids=["another type", "broken", "another request", "no payload"],
)
def test_other_responses_are_somebody_elses_business(
    framing: ModuleType, payload: bytes, type_id: int, id: bytes
) -> None:
    asking = Asking(framing)
    body = asking.respond(payload, type_id, id)
    assert asking.link.bodies == [body]
    assert not asking.woken
    assert asking.link.reader.requests == {ID: asking.request}
    assert not asking.consumer.events


def test_a_response_of_who_was_not_asked_is_not_taken(framing: ModuleType) -> None:
    asking = Asking(framing)
    asking.link.reader.outlet = framing.Outlet(print, 1)
    body = asking.respond()
    assert asking.link.bodies == [body]
    assert not asking.woken


def test_a_response_to_what_expects_no_event_is_not_taken(framing: ModuleType) -> None:
    asking = Asking(framing, expected=int)
    assert asking.respond() in asking.link.bodies
    assert not asking.woken


def test_responses_are_ignored_where_nobody_takes_them(framing: ModuleType) -> None:
    asking = Asking(framing)
    asking.link.reader.requests = {}
    asking.link.reader.on_response = framing.Reader(5, print).on_response
    asking.respond()
    assert not asking.woken


# -- Iterators -------------------------------------------------------------------------------


def run(coroutine: Any) -> Any:
    """Run what never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


class Waiting:
    def __await__(self) -> Any:
        got = yield "waiting"
        return got


def iterator_class(framing: ModuleType) -> type[Any]:
    class Iterator(framing.EventIterator):  # type: ignore[name-defined, misc]
        ended = 0
        went_on = 0

        async def go_on(self) -> Any:
            self.went_on += 1
            if not self.mailbox.events:
                return "got", await Waiting()
            self.turns = 3
            return self.take()

        def close(self) -> None:
            self.ended += 1

    return Iterator


def make(framing: ModuleType, events: int, left: int = -1) -> Any:
    mailbox = framing.Mailbox()
    for number in range(events):
        mailbox.deliver(number, False)
    return iterator_class(framing)(mailbox, left)


def test_an_iterator_hands_over_what_is_there_and_goes_on_now_and_then(
    framing: ModuleType,
) -> None:
    iterator = make(framing, 10)
    assert aiter(iterator) is iterator
    assert [run(anext(iterator)) for _ in range(10)] == [*range(10)]
    assert iterator.went_on == 3  # at first, and after three events each
    assert iterator.left == -1


def test_it_is_an_iterator_for_async_for(framing: ModuleType) -> None:
    iterator = make(framing, 1000)
    taken = []

    async def take() -> None:
        async for event in iterator:
            taken.append(event)
            if event == 999:
                break

    run(take())
    assert taken == [*range(1000)]


def test_what_is_handed_over_may_be_anything(framing: ModuleType) -> None:
    things: list[Any] = [None, (), (1, 2), ValueError("x"), StopIteration(5), ValueError, {}, False]
    iterator = make(framing, 0)
    for thing in things:
        iterator.mailbox.deliver(thing, False)
    taken = []

    async def take() -> None:
        taken.extend([await anext(iterator) for _ in range(4)])

    run(take())
    iterator.turns = 100
    for _ in range(4):
        step = iterator.__anext__()
        with pytest.raises(StopIteration) as stopped:
            next(step.__await__())
        taken.append(stopped.value.value)
    assert taken == things


def test_reading_ends_where_no_more_are_wanted(framing: ModuleType) -> None:
    iterator = make(framing, 5, left=3)
    iterator.turns = 10
    read: list[Any] = []
    iterator.on_read = read.append
    assert [run(anext(iterator)) for _ in range(3)] == read == [0, 1, 2]
    assert iterator.ended == 1
    assert iterator.left == 0
    iterator.turns = 0
    run(anext(iterator))
    assert iterator.went_on == 1


def test_it_asks_where_it_may_not_be_quick(framing: ModuleType) -> None:
    iterator = make(framing, 5)
    iterator.turns = 10
    iterator.quick = False
    run(anext(iterator))
    assert iterator.went_on == 1


def test_waiting_goes_through_to_who_awaits(framing: ModuleType) -> None:
    iterator = make(framing, 0)
    step = iterator.__anext__()
    assert step.send(None) == "waiting"
    with pytest.raises(StopIteration) as stopped:
        step.send("this")
    assert stopped.value.value == ("got", "this")

    async def take() -> Any:
        return await anext(iterator)

    task = take()
    assert task.send(None) == "waiting"
    with pytest.raises(ZeroDivisionError):
        task.throw(ZeroDivisionError())
    task = take()
    assert task.send(None) == "waiting"
    task.close()


def test_a_step_may_be_given_up(framing: ModuleType) -> None:
    iterator = make(framing, 2)
    step = iterator.__anext__()
    step.close()
    step = iterator.__anext__()
    with pytest.raises(KeyError):
        step.throw(KeyError("x"))
    step = iterator.__anext__()
    with pytest.raises(KeyError):
        step.throw(KeyError)
    waiting = make(framing, 0)
    step = waiting.__anext__()
    step.send(None)
    step.close()
    step = waiting.__anext__()
    step.send(None)
    with pytest.raises(KeyError):
        step.throw(KeyError("x"))
    iterator.turns = 5
    assert [run(anext(iterator)) for _ in range(2)] == [0, 1]


def test_a_step_is_awaited_once(framing: ModuleType) -> None:
    iterator = make(framing, 5)
    iterator.turns = 5
    step = iterator.__anext__()
    assert run(step) == 0
    with pytest.raises(RuntimeError, match=r"cannot reuse already awaited"):
        step.send(None)
    waiting = make(framing, 0)
    step = waiting.__anext__()
    step.send(None)
    with pytest.raises(StopIteration):
        step.send(1)
    with pytest.raises(RuntimeError, match=r"cannot reuse already awaited"):
        step.send(None)


def test_a_step_is_a_coroutine_to_those_who_ask(framing: ModuleType) -> None:
    step = make(framing, 1).__anext__()
    assert isinstance(step, Coroutine)
    step.close()


def test_what_derives_says_what_else_there_is_to_do(framing: ModuleType) -> None:
    mailbox = framing.Mailbox()
    iterator = framing.EventIterator(mailbox, 1)
    with pytest.raises(NotImplementedError):
        run(anext(iterator))
    mailbox.deliver(1, False)
    with pytest.raises(NotImplementedError):
        iterator.take()
    with pytest.raises(IndexError):
        framing.EventIterator(framing.Mailbox(), -1).take()


def test_a_class_with_a_field_that_would_not_arrive_gets_no_topic(framing: ModuleType) -> None:
    table = framing.EventTable("here", True, lambda topic: None)
    cls = dataclasses.make_dataclass("Odd", [("_id", int)], bases=(BaseEvent,))
    for _ in range(2):
        with pytest.raises(TypeError, match=r"Odd has a field '_id'"):
            table.topic(cls)
    assert not table.topics
