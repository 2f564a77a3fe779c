"""
One endpoint's life, in any order, against a model.

:class:`Life` drives an endpoint and its peers without I/O: each step is followed by as much of the
traffic as Hypothesis chooses, and the model says after every step who is connected, who is known to
want what, which events have arrived where, and which requests are answered. The test at the end
leads shorter lives on the real event loops.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
from helpers import Answer, Number, Question, Text, answer_questions, until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from process_helpers import BACKENDS, endpoint_class, run_on
from proxy import ended_well

from lahja import BaseEvent, BroadcastConfig, ConnectionConfig, NoSubscribers, wire
from lahja.base import BaseEndpoint
from lahja.exceptions import RemoteDisconnected
from lahja.framing import Mailbox, PendingRequest
from lahja.protocol import Connection, State
from lahja.routing import Router
from lahja.typing import RequestID

PEERS = ("ada", "bob", "eve")
TYPES: tuple[type[Any], ...] = (Number, Text)
QUESTION_TOO: tuple[type[Any], ...] = (*TYPES, Question)

peers = st.sampled_from(PEERS)
types = st.sampled_from(TYPES)
anybody = st.sampled_from(("me", *PEERS))
Heard = tuple[str, str, Any]


class Node:
    """Be an endpoint without I/O, as it really is: a router, and what it received."""

    def __init__(self, name: str) -> None:
        self.lines: list[str] = []
        logger = logging.Logger(name, logging.WARNING)  # noqa: LOG001 - of this node alone
        handler = logging.Handler()
        handler.emit = lambda record: self.lines.append(record.getMessage())  # type: ignore[method-assign]
        logger.addHandler(handler)
        self.router = Router(name, True, wire.MAX_FRAME_SIZE, logger)
        self.heard: list[Heard] = []
        self.questions: list[Question] = []
        self.wanted: dict[type, Any] = {}

    def deliver(self, event: Any, local: bool) -> None:
        if isinstance(event, Question):
            self.questions.append(event)
            return
        value = event.value if isinstance(event, Number) else event.text
        self.heard.append((type(event).__name__, event.get_origin(), value))

    def subscribe(self, cls: type[BaseEvent], count: int | None) -> None:
        topic = self.router.table.topic(cls)
        consumer: Any = self
        if count is not None:
            consumer = Some(self, count, lambda: self.unsubscribe(cls))
        self.wanted[cls] = consumer
        self.router.add_consumer(topic, consumer)

    def unsubscribe(self, cls: type[BaseEvent]) -> None:
        consumer = self.wanted.pop(cls, None)
        if consumer is not None:
            self.router.remove_consumer(self.router.table.topic(cls), consumer)


class Some(Mailbox):
    """Be a stream that wants so many events."""

    def __init__(self, node: Node, count: int, on_last: Any) -> None:
        super().__init__(count, on_last)
        self.node = node

    def deliver(self, event: Any, local: bool) -> None:
        super().deliver(event, local)
        while self.events:
            self.node.deliver(self.events.popleft(), local)


@dataclass
class Wire:
    """Join a peer with the endpoint; what each says waits until it is carried over."""

    peer: Connection
    own: Connection

    def carry(self, to_own: bool) -> None:
        source, target = (self.peer, self.own) if to_own else (self.own, self.peer)
        data = memoryview(b"".join(source.outlet.take()))
        source.outlet.size = 0
        while data and not target.ended:
            room = target.reader.get_buffer()
            count = min(len(room), len(data))
            room[:count] = data[:count]
            room.release()
            data = data[count:]
            target.receive(count)


@dataclass
class Model:
    """Be what the machine expects of one endpoint."""

    wants: dict[type, int | None] = field(default_factory=dict)  # with how many are still wanted
    heard: list[Heard] = field(default_factory=list)
    questions: list[int] = field(default_factory=list)
    known: dict[str, set[type]] = field(default_factory=dict)  # of connected others, by name
    queues: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)  # said, not carried


class Life(RuleBasedStateMachine):
    """Lead the life of ``me``, to which peers are connected, and compare it with the model."""

    @initialize()
    def begin(self) -> None:
        self.nodes = {name: Node(name) for name in ("me", *PEERS)}
        self.models = {name: Model() for name in ("me", *PEERS)}
        self.wires: dict[str, Wire] = {}
        self.requests: dict[int, tuple[bytes, PendingRequest]] = {}
        self.asked: dict[int, set[str]] = {}  # of requests that are not answered yet
        self.outcome: dict[int, Any] = {}
        self.ignored = 0
        self.serial = 0
        for peer in PEERS:
            if peer != "eve":
                self.subscribe(peer, Question, None)
            self.connect(peer, True)

    def number(self) -> int:
        self.serial += 1
        return self.serial

    # -- Connections -------------------------------------------------------------------------

    @rule(peer=peers, calls=st.booleans())
    def connect(self, peer: str, calls: bool) -> None:
        if peer in self.wires:
            return
        self.wires[peer] = self.meet(peer, calls)
        assert self.wires[peer].own.state is self.wires[peer].peer.state is State.OPEN
        for one, other in ((peer, "me"), ("me", peer)):
            self.models[one].known[other] = set(self.models[other].wants)
            self.models[one].queues[other] = []

    def meet(self, peer: str, calls: bool) -> Wire:
        """Let a peer connect to the endpoint, or the reverse, and both finish the handshake."""

        def begin(node: Node, to: str | None) -> Connection:
            router = node.router
            hello = router.hello
            return Connection(router, hello, router.own_subscriptions, lambda: None, 1 << 20, to)

        wire_ = Wire(
            begin(self.nodes[peer], "me" if calls else None),
            begin(self.nodes["me"], None if calls else peer),
        )
        (wire_.peer if calls else wire_.own).start()
        for _ in range(3):
            wire_.carry(True)
            wire_.carry(False)
        return wire_

    @rule(peer=peers, calls=st.booleans(), restarted=st.booleans())
    def connect_again(self, peer: str, calls: bool, restarted: bool) -> None:
        """Be refused, whether it is the same endpoint or another one of its name."""
        if peer not in self.wires:
            return
        if restarted:
            original = self.nodes[peer]
            self.nodes[peer] = Node(peer)
            second = self.meet(peer, calls)
            self.nodes[peer] = original
        else:
            second = self.meet(peer, calls)
        connection = second.own if calls else second.peer
        if restarted and not calls:
            assert second.own.state is State.REFUSED  # the peer itself sees nothing wrong
        else:
            assert connection.state is State.REFUSED
        assert second.own is not self.nodes["me"].router.peers[peer]

    @rule(peer=peers, survives=st.booleans())
    def die(self, peer: str, survives: bool) -> None:
        """Lose the connection, or the process."""
        if peer in self.wires:
            self.part(peer)
        if not survives:
            self.nodes[peer], self.models[peer] = Node(peer), Model()

    @rule(peer=peers)
    def leave(self, peer: str) -> None:
        """Say goodbye; what was said before still arrives."""
        if peer not in self.wires:
            return
        wire_ = self.wires[peer]
        wire_.peer.say_goodbye()
        self.carry(peer, True)
        assert wire_.own.state is State.LEFT
        self.part(peer)

    def part(self, peer: str) -> None:
        wire_ = self.wires.pop(peer)
        self.nodes["me"].router.remove(wire_.own)
        self.nodes[peer].router.remove(wire_.peer)
        for one, other in ((peer, "me"), ("me", peer)):
            del self.models[one].known[other]
            del self.models[one].queues[other]
        for request, asked in list(self.asked.items()):
            if peer in asked:
                asked.discard(peer)
                if not asked:
                    self.finish(request, RemoteDisconnected)

    # -- Traffic -----------------------------------------------------------------------------

    @rule(peer=peers, to_own=st.booleans())
    def carry(self, peer: str, to_own: bool) -> None:
        """Let arrive what one side has said."""
        if peer not in self.wires:
            return
        source, target = (peer, "me") if to_own else ("me", peer)
        said = self.models[source].queues[target]
        model = self.models[target]
        self.wires[peer].carry(to_own)
        while said:
            kind, cls, value, *_ = said.pop(0)
            if kind == "subscribe":
                model.known[source].add(cls)
            elif kind == "unsubscribe":
                model.known[source].discard(cls)
            elif kind == "answer":
                if source in self.asked.get(value, ()):
                    self.finish(value, source)
                else:
                    self.ignored += 1
            elif cls in model.wants:
                self.arrive(target, kind, cls, value, source)

    @rule()
    def carry_everything(self) -> None:
        while any(queue for model in self.models.values() for queue in model.queues.values()):
            for peer in list(self.wires):
                self.carry(peer, True)
                self.carry(peer, False)

    def arrive(self, name: str, kind: str, cls: type, value: Any, origin: str) -> None:
        model = self.models[name]
        if kind == "question":
            model.questions.append(value)
        else:
            model.heard.append((cls.__name__, origin, value))
        left = model.wants[cls]
        if left is not None:
            model.wants[cls] = left - 1
            if left == 1:
                self.forget(name, cls)

    def forget(self, name: str, cls: type) -> None:
        del self.models[name].wants[cls]
        for queue in self.models[name].queues.values():
            queue.append(("unsubscribe", cls, None))

    @rule(name=anybody, cls=st.sampled_from(QUESTION_TOO), count=st.sampled_from((None, 1, 2)))
    def subscribe(self, name: str, cls: type[BaseEvent], count: int | None) -> None:
        if cls in self.models[name].wants:
            return
        self.nodes[name].subscribe(cls, count)
        self.models[name].wants[cls] = count
        for queue in self.models[name].queues.values():
            queue.append(("subscribe", cls, None))

    @rule(name=anybody, cls=st.sampled_from(QUESTION_TOO))
    def unsubscribe(self, name: str, cls: type[BaseEvent]) -> None:
        self.nodes[name].unsubscribe(cls)
        if cls in self.models[name].wants:
            self.forget(name, cls)

    @rule(name=anybody, cls=types, only=st.sampled_from((None, "me", *PEERS)))
    def broadcast(self, name: str, cls: type[Any], only: str | None) -> None:
        model = self.models[name]
        value: Any = self.number() if cls is Number else str(self.number())
        targets = [other for other in model.known if cls in model.known[other]]
        if only is not None:
            targets = [other for other in targets if other == only]
        locally = cls in model.wants and only in (None, name)
        for other in targets:
            model.queues[other].append(("event", cls, value))
        config = BroadcastConfig(filter_endpoint=only, require_subscriber=True)
        try:
            self.nodes[name].router.broadcast(cls(value), config, True)
        except NoSubscribers:
            assert not targets
            assert not locally
        else:
            assert targets or locally
        if locally:
            self.arrive(name, "event", cls, value, name)

    # -- Requests ----------------------------------------------------------------------------

    @rule()
    def request(self) -> None:
        model = self.models["me"]
        targets = {name for name, known in model.known.items() if Question in known}
        question = self.number()
        if Question in model.wants:
            return
        router = self.nodes["me"].router
        try:
            pending = router.table.ask(Question(question), None, True, lambda: None)
            self.requests[question] = pending.id, pending
        except NoSubscribers:
            assert not targets
            return
        self.asked[question] = targets
        for name in targets:
            model.queues[name].append(("question", Question, question))

    @rule(peer=peers)
    def respond(self, peer: str) -> None:
        """Answer the oldest question, for which it may be too late."""
        if not self.nodes[peer].questions:
            return
        question = self.nodes[peer].questions.pop(0)
        assert question.value == self.models[peer].questions.pop(0)
        router = self.nodes[peer].router
        router.broadcast(Answer(question.value), question.broadcast_config(), False)
        if peer in self.wires:
            self.models[peer].queues["me"].append(("answer", Answer, question.value))

    @precondition(lambda self: bool(self.asked))
    @rule(peer=peers, data=st.data())
    def forge(self, peer: str, data: st.DataObject) -> None:
        """Answer what another peer was asked."""
        question = data.draw(st.sampled_from(sorted(self.asked)))
        if peer not in self.wires or peer in self.asked[question]:
            return
        config = BroadcastConfig("me", RequestID(self.requests[question][0]))
        self.nodes[peer].router.broadcast(Answer(666), config, False)
        self.models[peer].queues["me"].append(("answer", Answer, question))

    @precondition(lambda self: bool(self.asked))
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        question = data.draw(st.sampled_from(sorted(self.asked)))
        self.nodes["me"].router.pending.pop(self.requests[question][0], None)
        self.finish(question, None)

    def finish(self, question: int, outcome: Any) -> None:
        del self.asked[question]
        self.outcome[question] = outcome

    # -- What must hold ----------------------------------------------------------------------

    @invariant()
    def the_endpoint_is_as_the_model(self) -> None:
        for name, node in self.nodes.items():
            model = self.models[name]
            assert set(node.router.peers) == set(model.known)
            assert node.heard == model.heard
            assert [question.value for question in node.questions] == model.questions
            assert node.router.subscribed_types() == set(model.wants)
            for other, known in model.known.items():
                for cls in QUESTION_TOO:
                    assert node.router.wants(other, cls) == (cls in known)
                assert node.router.types_wanted_by(node.router.peers[other]) == known
            if name != "me":
                assert not node.lines

    @invariant()
    def requests_end_as_they_should(self) -> None:
        router = self.nodes["me"].router
        assert set(router.pending) == {self.requests[question][0] for question in self.asked}
        for question, outcome in self.outcome.items():
            pending = self.requests[question][1]
            if outcome is RemoteDisconnected:
                assert isinstance(pending.error, RemoteDisconnected)
            elif outcome is None:
                assert pending.response is None
                assert pending.error is None
            else:
                assert isinstance(pending.response, Answer)
                assert pending.response.value == question
                assert pending.response.get_origin() == outcome
        assert Counter("ignored a response" in line for line in self.nodes["me"].lines) == Counter(
            {True: self.ignored} if self.ignored else {}
        )

    def teardown(self) -> None:
        if not hasattr(self, "nodes"):
            return
        for peer in list(self.wires):
            self.part(peer)
        self.requests_end_as_they_should()
        for node in self.nodes.values():
            assert ended_well(node.router)


def test_life() -> None:
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=150,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


# -- On real event loops ---------------------------------------------------------------------

Step = tuple[Any, ...]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("join"), peers),
        st.tuples(st.just("leave"), peers),
        st.tuples(st.just("die"), peers),
        st.tuples(st.just("subscribe"), anybody, types),
        st.tuples(st.just("stream"), anybody, types),
        st.tuples(st.just("unsubscribe"), anybody, types),
        st.tuples(st.just("broadcast"), anybody, types),
        st.tuples(st.just("request"), peers),
    ),
    min_size=5,
    max_size=20,
)


class Group:
    """Lead the lives of a serving endpoint and its peers, on a real event loop."""

    def __init__(self, cls: type[BaseEndpoint], directory: Path) -> None:
        self.cls = cls
        self.config = ConnectionConfig.from_name("me", directory)
        self.endpoints: dict[str, BaseEndpoint] = {}
        self.stops: dict[str, anyio.Event] = {}
        self.wanted: dict[str, dict[type, Any]] = {}
        self.heard: dict[str, list[Heard]] = {}
        self.expected: dict[str, list[Heard]] = {}
        self.serial = 0

    async def run(self, steps: list[Step]) -> None:
        with anyio.fail_after(10):
            async with self.cls.serve(self.config) as me, anyio.create_task_group() as tasks:
                self.tasks = tasks
                self.present("me", me)
                answer_questions(me)
                await self.join("ada")
                for kind, *arguments in steps:
                    await getattr(self, kind)(*arguments)
                    await until(lambda: self.heard == self.expected)
                    await until(lambda: set(me._router.peers) == set(self.endpoints) - {"me"})
                    assert not any(each._router.pending for each in self.endpoints.values())
                for name in set(self.endpoints) - {"me"}:
                    await self.leave(name)
                for cls in list(self.wanted["me"]):
                    await self.unsubscribe("me", cls)
                assert ended_well(me._router)

    def present(self, name: str, endpoint: BaseEndpoint) -> None:
        self.endpoints[name] = endpoint
        self.wanted[name] = {}
        self.heard[name], self.expected[name] = [], []

    async def join(self, name: str) -> None:
        if name in self.endpoints:
            return
        self.stops[name] = anyio.Event()
        await self.tasks.start(self.live, name)
        await until(lambda: self.endpoints["me"].is_connected_to(name))

    async def live(
        self, name: str, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        endpoint = self.cls(name)
        async with endpoint.run():
            await endpoint.connect_to_endpoints(self.config)
            self.present(name, endpoint)
            task_status.started()
            await self.stops[name].wait()

    async def leave(self, name: str) -> None:
        endpoint = self.endpoints.pop(name, None)
        if endpoint is not None:
            del self.heard[name], self.expected[name], self.wanted[name]
            self.stops.pop(name).set()
            await endpoint.wait_stopped()
            await until(lambda: not self.endpoints["me"].is_connected_to(name))

    async def die(self, name: str) -> None:
        """Be cut off as by SIGKILL, without a word; then stop."""
        if name in self.endpoints:
            for channel in list(self.endpoints[name]._peering._channels.values()):
                channel.close()
            await until(lambda: not self.endpoints["me"].is_connected_to(name))
            await self.leave(name)

    async def subscribe(self, name: str, cls: type[Any]) -> None:
        if name in self.endpoints and cls not in self.wanted[name]:
            heard = self.heard[name]

            def note(event: Any) -> None:
                value = event.value if isinstance(event, Number) else event.text
                heard.append((type(event).__name__, event.get_origin(), value))

            self.wanted[name][cls] = self.endpoints[name].subscribe(cls, note)
            await self.agree(name, cls)

    async def stream(self, name: str, cls: type[Any]) -> None:
        """Iterate until somebody unsubscribes."""
        if name in self.endpoints and cls not in self.wanted[name]:
            stream = self.endpoints[name].stream(cls)
            heard = self.heard[name]

            async def read() -> None:
                async for event in stream:
                    value = event.value if isinstance(event, Number) else event.text
                    heard.append((cls.__name__, event.get_origin(), value))

            self.wanted[name][cls] = stream
            self.tasks.start_soon(read)
            await self.agree(name, cls)

    async def unsubscribe(self, name: str, cls: type[Any]) -> None:
        if name in self.endpoints and cls in self.wanted[name]:
            wanted = self.wanted[name].pop(cls)
            if hasattr(wanted, "unsubscribe"):
                wanted.unsubscribe()
            else:
                await wanted.aclose()
            await self.agree(name, cls)

    async def agree(self, name: str, cls: type[Any]) -> None:
        """Wait until those that are connected to an endpoint know what it wants."""
        others = set(self.endpoints) - {"me"} if name == "me" else {"me"}
        wanted = cls in self.wanted[name]
        for other in others:
            is_subscribed = self.endpoints[other].is_endpoint_subscribed_to
            await until(functools.partial(self.same, is_subscribed, name, cls, wanted))

    def same(self, query: Callable[..., bool], name: str, cls: type[Any], wanted: bool) -> bool:
        return query(name, cls) == wanted

    async def broadcast(self, name: str, cls: type[Any]) -> None:
        if name not in self.endpoints:
            return
        self.serial += 1
        value: Any = self.serial if cls is Number else str(self.serial)
        others = set(self.endpoints) if name == "me" else {"me", name}
        for other in others:
            if cls in self.wanted[other]:
                self.expected[other].append((cls.__name__, name, value))
        await self.endpoints[name].broadcast(cls(value))

    async def request(self, name: str) -> None:
        if name in self.endpoints:
            self.serial += 1
            endpoint = self.endpoints[name]
            await endpoint.wait_until_endpoint_subscribed_to("me", Question)
            assert (await endpoint.request(Question(self.serial))).value == self.serial


@pytest.mark.parametrize("backend", BACKENDS)
def test_life_on_a_real_event_loop(backend: str, caplog: pytest.LogCaptureFixture) -> None:
    @settings(
        max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(steps=STEPS)
    def lead(steps: list[Step]) -> None:
        directory = Path(tempfile.mkdtemp(prefix="lahja"))
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, directory)
            run_on(backend, Group(endpoint_class(backend), directory).run, steps)

    lead()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
