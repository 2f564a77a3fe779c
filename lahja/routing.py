"""
One endpoint: who wants an event, what was asked and not answered, and who is connected.

The :class:`Router` is the :class:`~lahja.protocol.Host` of all connections of an endpoint. Its
:class:`~lahja.framing.EventTable` carries plain broadcasts by itself; this module keeps the table's
topics up to date, and takes care of everything else: broadcasts that go to some endpoints only,
requests and their responses, flow control by credit, and whoever waits for a change.

Whoever waits is woken by a callable that takes nothing; what it does is the event loop's business.
"""

from __future__ import annotations

import functools
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from . import wire
from .common import BaseEvent, BroadcastConfig, already_bound
from .compression import Compressor, has_snappy
from .counting import NameCounter, RequestLog, Stopwatch
from .exceptions import (
    DecodeError,
    LahjaError,
    LifecycleError,
    NoSubscribers,
    RemoteDisconnected,
    UnexpectedResponse,
)
from .explaining import who_wants_what
from .flow import Gate, Intake, Window
from .frames import frame_size
from .framing import EventTable, Inlet, Outlet, PendingRequest, Topic
from .membership import MembershipChange, MembershipReason
from .names import find_class, main_module_name, name_of
from .observers import Observers
from .protocol import Connection, Hello, Rejection, one_line, traced_frame
from .reports import Reporter

__all__ = ["MembershipObserver", "Router", "Watcher", "has_stopped"]

_RACES_KEPT = 256


class Watcher:
    """
    Wait for a state of the endpoint.

    :param reached: returns whether the state is there
    :param wake: called when it is, or when the endpoint stops
    """

    __slots__ = ("error", "reached", "wake")

    def __init__(self, reached: Callable[[], bool], wake: Callable[[], None]) -> None:
        self.reached = reached
        self.wake = wake
        self.error: LahjaError | None = None


class MembershipObserver(Protocol):
    """Be told who comes and who leaves; the mailbox of a stream is one."""

    def deliver(self, event: Any, local: bool) -> None:
        """Take a change of the membership."""


class Router:
    """
    Route the events of one endpoint.

    :param name: the name of the endpoint
    :param allow_pickle: whether pickled payloads are sent and accepted
    :param max_frame_size: the longest body that is accepted, in bytes
    :param logger: where faults of peers are reported
    """

    def __init__(
        self, name: str, allow_pickle: bool, max_frame_size: int, logger: logging.Logger
    ) -> None:
        self.name = name
        self.logger = logger
        self.reporter = Reporter(name, logger)
        self.undecodable_events = NameCounter()  # by the name of the type
        self.dropped_events = NameCounter()  # the same, by streams that have ended
        self.request_log = RequestLog()
        self.stopwatch = Stopwatch()
        self.table = EventTable(name, allow_pickle, self._fill_topic)
        self.table.on_congested = self.full
        self.table.targets = self._targets
        self.table.route_request = self.request
        self.pending: dict[bytes, PendingRequest] = self.table.requests
        self.raced: deque[bytes] = deque(maxlen=_RACES_KEPT)  # requests that several may answer
        self.gates: dict[Outlet, Gate] = {}  # of those that have too much to write
        self.observed_by = Observers(
            self.table, lambda: self.stopwatch.clock(), self._limit, self.gates
        )
        compresses = has_snappy()
        if compresses:
            self.table.compressor = Compressor()
        options = {
            "compression": ("snappy",) if compresses else (),
            "pickle": allow_pickle,
            "max_frame_size": max_frame_size,
            "main": main_module_name(),
        }
        self.hello = Hello(wire.PROTOCOL_VERSION, name, os.urandom(wire.INSTANCE_SIZE), options)
        self.peers: dict[str, Connection] = {}
        self.connecting: dict[str, Connection] = {}  # attempts whose hello was sent, by name
        self.is_peer_gone: Callable[[Connection], bool] = lambda connection: False
        self.on_settled: Callable[[Connection], None] = lambda connection: None
        self.observers: set[MembershipObserver] = set()
        self.trace_context: bytes | None = None  # of what is broadcast now, if it is traced
        self.traced_origin: Callable[[str, dict[str, str]], str] | None = None
        self.connections_version = 0
        self.subscriptions_version = 0
        self._interest: dict[str, dict[Connection, int | None]] = {}  # of peers, by type name
        self._topics: dict[str, list[Topic]] = {}  # more than one only for classes of one name
        self._own_windows: dict[str, int | None] = {}  # own subscriptions, as SUBSCRIBE has them
        self._ever_wanted: set[str] = set()  # names of the types that peers may still be sending
        self._intakes: dict[str, Intake] = {}  # of the types for which somebody set a bound
        self._watchers: set[Watcher] = set()
        self._connections: dict[Outlet, Connection] = {}

    # -- Who is there ------------------------------------------------------------------------

    def admit(self, connection: Connection) -> Rejection | None:
        """Decide whether a peer may connect; of two connections to one peer, one is refused."""
        peer = connection.peer
        assert peer is not None  # it just said hello
        if connection.observes and connection.to is None:
            return self.observed_by.admit(connection)
        if connection.to is not None:
            if peer.name != connection.to:
                reason = f"the endpoint there is {peer.name!r}, not {connection.to!r}"
                return Rejection(wire.REJECT_NAME, reason)
        elif peer.name == self.name:
            return Rejection(wire.REJECT_NAME, f"{self.name!r} is the name of this endpoint")
        elif peer.options.get("to", self.name) != self.name:
            wanted = peer.options["to"]
            return Rejection(wire.REJECT_NAME, f"this endpoint is {self.name!r}, not {wanted!r}")
        present = self.peers.get(peer.name)
        if present is not None and self.is_peer_gone(present):
            self.remove(present)
            present = None
        if present is not None:
            if present.instance == peer.instance:
                return Rejection(wire.REJECT_CONNECTED, f"{peer.name!r} is connected already")
            reason = f"another endpoint of the name {peer.name!r} is connected"
            return Rejection(wire.REJECT_NAME, reason)
        meets = connection.to is None and peer.name in self.connecting
        if meets and self.hello.instance > peer.instance:
            reason = f"{self.name!r} connects to {peer.name!r} at this moment"
            return Rejection(wire.REJECT_SIMULTANEOUS, reason)
        return None

    def established(self, connection: Connection) -> None:
        """Take a peer in; it is connected from now on."""
        name = connection.name
        if connection.observes:
            self.observed_by.add(connection)
            self.reporter.say(logging.DEBUG, "observed", "", "observed by %s", one_line(name))
            self.on_settled(connection)
            return
        self.peers[name] = connection
        self._connections[connection.outlet] = connection
        self.table.outlets[name] = connection.outlet
        connection.traced_origin = self.traced_origin
        connection.reader.requests = self.pending
        connection.reader.find_topic = functools.partial(self._find_topic, connection)
        connection.on_receive = self.stopwatch.start
        connection.reader.clock = self.stopwatch.clock
        self.stopwatch.start(0)  # events may follow in what has arrived already
        for intake in self._intakes.values():
            intake.forget(name)
        self._limits_changed()
        for type_name, window in connection.subscriptions.items():
            self._add_interest(connection, type_name, window)
        self.connections_version += 1
        self.subscriptions_version += 1
        self.reporter.say(logging.DEBUG, "connected", name, "connected to %s", one_line(name))
        self.on_settled(connection)
        self._observe(MembershipChange(name, MembershipReason.CONNECTED))
        self._changed()

    def _find_topic(self, connection: Connection, name: str) -> Topic | None:
        """Return what wants the events that a peer sends under a name, if anything does."""
        topic = self.table.by_name.get(name)
        if topic is None and name not in self._ever_wanted and name not in connection.unasked:
            connection.unasked.add(name)
            self.reporter.say(
                logging.WARNING,
                "unasked",
                connection.name,
                "ignored events of type %s from %s: nobody here asked for it",
                one_line(name),
                one_line(connection.name),
            )
        return topic

    def remove(
        self,
        connection: Connection,
        reason: MembershipReason = MembershipReason.CRASHED,
        detail: str = "",
    ) -> None:
        """
        Forget a peer at once: nobody waits for it any more.

        :param reason: why it is gone
        :param detail: more about that, for people
        """
        if self.observed_by.remove(connection):
            return
        if self.peers.get(connection.name) is not connection:
            return
        del self.peers[connection.name]
        del self._connections[connection.outlet]
        del self.table.outlets[connection.name]
        for type_name in list(connection.subscriptions):
            self._drop_interest(connection, type_name)
        self._limits_changed()
        gate = self.gates.pop(connection.outlet, None)
        if gate is not None:
            gate.open()
        for request_id, request in list(self.pending.items()):
            if connection.outlet in request.asked:
                request.asked = tuple(o for o in request.asked if o is not connection.outlet)
                if not request.asked and not request.locally:
                    said = f"{connection.name!r} left before it responded"
                    self._finish(request_id, error=RemoteDisconnected(said))
        self.connections_version += 1
        self.subscriptions_version += 1
        self._observe(MembershipChange(connection.name, reason, detail))
        self._changed()

    def _observe(self, change: MembershipChange) -> None:
        for observer in tuple(self.observers):
            observer.deliver(change, False)

    def refused(self, connection: Connection, rejection: Rejection) -> None:
        """Leave it to the attempt to connect, which looks at its connection now."""
        self.on_settled(connection)

    def _limits_changed(self) -> None:
        limits = [connection.outlet.limit for connection in self.peers.values()]
        self.table.limit = min(limits, default=wire.MAX_FRAME_SIZE)

    # -- Who wants what ----------------------------------------------------------------------

    def own_subscriptions(self) -> Mapping[str, int | None]:
        """Return the names of the types wanted here, each with its window or None."""
        return self._own_windows

    def subscribed_types(self) -> set[type[BaseEvent]]:
        """Return the classes that are wanted here."""
        return {topic.cls for topic in self.table.topics.values() if topic.consumers}

    def subscribed(
        self, connection: Connection, added: dict[str, int | None], removed: Iterable[str]
    ) -> None:
        """Take note of a change of a peer's subscriptions."""
        if connection.observes:
            self.observed_by.subscribed(connection)
            return
        for name in removed:
            self._drop_interest(connection, name)
        for name, window in added.items():
            self._add_interest(connection, name, window)
        self.subscriptions_version += 1
        self._changed()

    def wants(self, endpoint: str, event_type: type[BaseEvent]) -> bool:
        """Return whether the endpoint, or this one, is subscribed to the type."""
        if endpoint == self.name:
            topic = self.table.topics.get(event_type)
            return topic is not None and bool(topic.consumers)
        connection = self.peers.get(endpoint)
        return connection is not None and name_of(event_type) in connection.subscriptions

    def types_wanted_by(self, connection: Connection) -> set[type[BaseEvent]]:
        """Return the classes that the peer subscribed to, as far as this process has them."""
        classes = (find_class(name) for name in connection.subscriptions)
        return {cls for cls in classes if cls is not None}

    def add_consumer(self, topic: Topic, consumer: Any) -> None:
        """Subscribe a consumer to a type."""
        topic.consumers += (consumer,)
        self.table.by_name[topic.name] = topic
        self._own_changed(topic)

    def intake(self, topic: Topic) -> Intake:
        """Return what limits how much of a type comes in, for consumers that hold it back."""
        intake = self._intakes.get(topic.name)
        if intake is None:

            def grant(origin: str, count: int) -> None:
                connection = self.peers.get(origin)
                if connection is not None:
                    connection.grant(topic.name, count)

            intake = self._intakes[topic.name] = Intake(grant)
        return intake

    def remove_consumer(self, topic: Topic, consumer: Any) -> None:
        """End the subscription of a consumer; no-op where it has ended."""
        if consumer not in topic.consumers:
            return
        if lost := getattr(consumer, "lost", 0):
            self.dropped_events.add(topic.name, lost)
        topic.consumers = tuple(other for other in topic.consumers if other is not consumer)
        intake = self._intakes.get(topic.name)
        if intake is not None:
            intake.leave(consumer)
        if not topic.consumers and self.table.by_name.get(topic.name) is topic:
            del self.table.by_name[topic.name]
            for other in self._topics[topic.name]:
                if other.consumers:
                    self.table.by_name[topic.name] = other
        self._own_changed(topic)

    def _own_changed(self, topic: Topic) -> None:
        """Tell the peers what changed in this endpoint's subscription to a type."""
        name = topic.name
        intake = self._intakes.get(name)
        window = intake.size if intake is not None else None
        if window is None:
            self._intakes.pop(name, None)
        self._limit(name)
        topics = self._topics[name]
        for other in topics:
            other.twins = tuple(each for each in topics if each is not other and each.consumers)
        if name not in self.table.by_name:
            del self._own_windows[name]
            self._tell({}, (name,))
        elif name not in self._own_windows or self._own_windows[name] != window:
            self._own_windows[name] = window
            self._ever_wanted.add(name)
            self._tell({name: window}, ())
        self.subscriptions_version += 1
        self._changed()

    def _tell(self, added: Mapping[str, int | None], removed: Iterable[str]) -> None:
        for connection in (*self.peers.values(), *self.connecting.values()):
            connection.tell_subscriptions(added, removed)

    def _fill_topic(self, topic: Topic) -> None:
        self._topics.setdefault(topic.name, []).append(topic)
        self.observed_by.topic_made(topic.name)
        self._refresh(topic.name)

    def _add_interest(self, connection: Connection, name: str, window: int | None) -> None:
        self._interest.setdefault(name, {})[connection] = window
        self._refresh(name)

    def _drop_interest(self, connection: Connection, name: str) -> None:
        interested = self._interest.get(name, {})
        interested.pop(connection, None)
        if not interested:
            self._interest.pop(name, None)
        self._refresh(name)

    def _refresh(self, name: str) -> None:
        """Bring the topics of a name up to date with the peers that want it."""
        interested = self._interest.get(name, {})
        outlets = tuple(connection.outlet for connection in interested)
        for topic in self._topics.get(name, ()):
            topic.outlets = outlets
            topic.strict = not all(outlet.accepts_pickle for outlet in outlets)
            windows: dict[Outlet, Window] = dict(topic.windows)
            limited = {c.outlet: size for c, size in interested.items() if size is not None}
            for outlet, size in limited.items():
                if outlet in windows:
                    windows[outlet].resize(size)
                else:
                    windows[outlet] = Window(size)
            topic.windows = {outlet: windows[outlet] for outlet in limited}
            for outlet, window in windows.items():
                if outlet not in limited:
                    window.lift()
                self._release(topic, outlet, window, drop=outlet not in outlets)
        self._limit(name)

    def _limit(self, name: str) -> None:
        """Say of the topics of a name whether this module must route them, and not the table."""
        is_tapped = name in self.observed_by.taps
        is_limited = is_tapped or name in self._intakes
        for topic in self._topics.get(name, ()):
            topic.tapped = is_tapped
            topic.limited = is_limited or bool(topic.windows)

    # -- Broadcasting ------------------------------------------------------------------------

    def broadcast(self, event: Any, config: BroadcastConfig | None, required: bool) -> list[Gate]:
        """
        Broadcast an event, and return the gates that hold the caller back.

        :param required: whether it is an error that nobody gets it
        :raise NoSubscribers: in that case
        :raise BindError: where it was broadcast before
        :raise EncodeError: where it cannot be sent; it has reached nobody then
        """
        table = self.table
        topic = table.topic(type(event))
        if config is not None and config.filter_event_id is not None:
            return self._respond(topic, event, config)
        outlets, consumers = self._targets(topic, config, required)
        gates = self._send(topic, event, wire.EVENT, b"", outlets, len(consumers), config)
        topic.delivered += len(consumers)
        for consumer in consumers:
            consumer.deliver(event, True)
        if consumers and topic.name in self._intakes:
            gates += self._intakes[topic.name].gates()
        return gates

    def _targets(
        self, topic: Topic, config: BroadcastConfig | None, required: bool
    ) -> tuple[tuple[Outlet, ...], tuple[Any, ...]]:
        """
        Return the outlets that an event goes to, and the consumers here.

        :raise NoSubscribers: where there is none, and one is required
        """
        outlets, consumers = topic.outlets, topic.consumers
        if config is not None and config.internal:
            outlets = ()
        elif config is not None and type(config) is not BroadcastConfig:
            # A class of the program's own may decide otherwise than by the name of one endpoint.
            outlets = tuple(each for each in outlets if config.allowed_to_receive(each.name))
            consumers = consumers if config.allowed_to_receive(self.name) else ()
        elif config is not None and config.filter_endpoint is not None:
            target = self.table.outlets.get(config.filter_endpoint)
            outlets = (target,) if target in topic.outlets else ()
            consumers = topic.consumers if config.filter_endpoint == self.name else ()
        if required and not outlets and not consumers:
            raise self._nobody(topic, config)
        return outlets, consumers

    def request(
        self, event: Any, config: BroadcastConfig | None, required: bool, wake: Callable[[], None]
    ) -> PendingRequest:
        """Send a request of a type that is tapped; see ``ask`` in :mod:`lahja.framing`."""
        topic = self.table.topic(type(event))
        outlets, consumers = self._targets(topic, config, required)
        request = self.table.new_request(topic, event, outlets, bool(consumers), wake)
        self._send(topic, event, wire.REQUEST, request.id, outlets, len(consumers), config)
        self.pending[request.id] = request
        topic.delivered += len(consumers)
        for consumer in consumers:
            consumer.deliver(event, True)
        return request

    def _nobody(self, topic: Topic, config: BroadcastConfig | None) -> NoSubscribers:
        if config is not None and config.internal:
            whom = "nothing in this endpoint"
        elif config is not None and config.filter_endpoint is not None:
            present = config.filter_endpoint in (*self.peers, self.name)
            state = "which is not subscribed" if present else "which is not connected"
            whom = f"only {config.filter_endpoint!r} may, {state}, so nobody"
        else:
            whom = f"of {len(self.peers)} connected endpoints none"
        connected = () if config and config.internal else who_wants_what(self.peers, topic.name)
        return NoSubscribers(f"{whom} would receive {topic.name}", connected)

    def _send(
        self,
        topic: Topic,
        event: Any,
        kind: int,
        request_id: bytes,
        outlets: tuple[Outlet, ...],
        here: int,
        config: BroadcastConfig | None,
    ) -> list[Gate]:
        """Encode, bind and queue an event; nothing has happened where that fails."""
        table = self.table
        gates: list[Gate] = []
        is_tapped = topic.name in self.observed_by.taps and not (config and config.internal)
        if not outlets:
            if event.is_bound:
                raise already_bound(event)
            if is_tapped:
                self.observed_by.tap(topic, event, kind, request_id, None, 0, here)
            if here or kind != wire.EVENT:
                table.bind(event, request_id or None)
            topic.broadcasts += 1
            table.debt += 1
            return gates
        shape, frame = table.prepare(topic, event, kind, request_id, outlets)
        if is_tapped:
            encoded = shape, frame
            self.observed_by.tap(topic, event, kind, request_id, encoded, len(outlets), here)
        if self.trace_context is not None and kind != wire.RESPONSE:
            traced = traced_frame(frame, self.trace_context)
            if frame_size(traced) - wire.LENGTH_SIZE <= table.limit:
                frame = traced
        windows: dict[Outlet, Window] = topic.windows if kind == wire.EVENT else {}
        if windows:
            free = []
            for outlet in outlets:
                window = windows.get(outlet)
                if window is None or window.admits():
                    free.append(outlet)
                else:
                    gates.append(window.hold(shape, frame))
            outlets = tuple(free)
        table.send(outlets, shape, frame)
        topic.broadcasts += 1
        topic.sent += len(outlets)
        table.debt += 1
        return gates + self.full(outlets)

    def full(self, outlets: Iterable[Outlet]) -> list[Gate]:
        """Return the gates of those outlets that are over their high-water mark."""
        self.table.congested = False
        return [
            self.gates.setdefault(outlet, Gate())
            for outlet in outlets
            if outlet.size > outlet.high_water and outlet in self._connections
        ]

    def written(self, outlet: Outlet) -> None:
        """Take note that bytes of an outlet were written: whoever waited for room may go on."""
        if outlet.size <= outlet.high_water // 2:
            gate = self.gates.pop(outlet, None)
            if gate is not None:
                gate.open()

    def held_gates(self, connection: Connection) -> list[Gate]:
        """Return the gates of the events that are held for want of the peer's credit."""
        return [
            gate
            for topic in self.table.topics.values()
            if connection.outlet in topic.windows
            for _, _, gate in topic.windows[connection.outlet].held
        ]

    def held_events(self, connection: Connection) -> int:
        """Return how many events are held for want of the peer's credit; in any thread."""
        windows = [topic.windows for topic in self.table.topics.copy().values()]
        return sum(len(each[o].held) for each in windows if (o := connection.outlet) in each)

    def credited(self, connection: Connection, name: str, count: int) -> None:
        """Let the peer have further events of a type."""
        for topic in self._topics.get(name, ()):
            window: Window | None = topic.windows.get(connection.outlet)
            if window is not None:
                window.credit(count)
                self._release(topic, connection.outlet, window, drop=False)

    def _release(self, topic: Topic, outlet: Outlet, window: Window, drop: bool) -> None:
        for shape, frame, gate in window.release():
            if not drop:
                self.table.send((outlet,), shape, frame)
                topic.sent += 1
            gate.open()

    # -- Responses ---------------------------------------------------------------------------

    def _respond(self, topic: Topic, event: Any, config: BroadcastConfig) -> list[Gate]:
        """
        Send a response to the endpoint that asked, or to all where none is named.

        Who has asked may have left: only the configuration itself can make an error of that.
        """
        request_id = config.filter_event_id
        if type(request_id) is not bytes or len(request_id) != wire.ID_SIZE:
            raise ValueError(
                f"filter_event_id is {request_id!r}, which is the id of no request: respond with "
                "the broadcast_config() of the request"
            )
        outlets: tuple[Outlet, ...] = ()
        locally = config.internal or config.allowed_to_receive(self.name)
        if not config.internal:
            outlets = tuple(
                outlet
                for name, outlet in self.table.outlets.items()
                if config.allowed_to_receive(name)
            )
        request = self.pending.get(request_id) if locally else None
        was_asked = request is not None and request.locally
        if not was_asked and (config.internal or config.filter_endpoint == self.name):
            self._ignored(topic.name, self.name, request_id, is_late=request is None)
        if not was_asked:
            request = None
        consumers = topic.consumers if locally else ()
        reaches_nobody = not outlets and not consumers and request is None
        if config.require_subscriber and reaches_nobody:
            raise self._nobody(topic, config)
        here = len(consumers) + (request is not None)
        gates = self._send(topic, event, wire.RESPONSE, request_id, outlets, here, config)
        if request is not None:
            if isinstance(event, request.expected):
                topic.delivered += 1
                self._finish(request_id, response=event)
            else:
                self._finish(request_id, error=_unexpected(request, topic.name, self.name))
        topic.delivered += len(consumers)
        for consumer in consumers:
            consumer.deliver(event, True)
        return gates

    def _ignored(self, type_name: str, sender: str, request_id: bytes, is_late: bool) -> None:
        self.reporter.say(
            # Where several were asked, all but one are too late.
            logging.DEBUG if request_id in self.raced else logging.WARNING,
            "response",
            sender,
            "ignored a response of type %s from %s: %s",
            one_line(type_name),
            one_line(sender),
            "it is late, or the second one" if is_late else "it was not asked",
        )

    def responded(
        self, connection: Connection, inlet: Inlet, request_id: bytes, body: Any, offset: int
    ) -> None:
        """Hand a response to the request that waits for it, and to whoever subscribed to it."""
        request = self.pending.get(request_id)
        if request is None or connection.outlet not in request.asked:
            self._ignored(inlet.name, connection.name, request_id, is_late=request is None)
            return
        cls: type[BaseEvent] | None = request.expected
        if inlet.name != name_of(request.expected):
            cls = find_class(inlet.name)
            if cls is None or not issubclass(cls, request.expected):
                error = _unexpected(request, inlet.name, connection.name)
                self._finish(request_id, error=error)
                return
        assert cls is not None  # the expected class, or one derived from it
        reader = connection.reader
        try:
            event = inlet.build(cls, body, offset, connection.name, request_id, reader.loads)
        except DecodeError as error:
            self._lost(connection, inlet.name, error)
            failure = UnexpectedResponse(f"{connection.name!r} sent a broken response: {error}")
            self._finish(request_id, error=failure)
            return
        self._finish(request_id, response=event)
        topic = self.table.topic(cls)
        reader.events += 1
        topic.received += 1
        topic.delivered += 1 + len(topic.consumers)
        for consumer in topic.consumers:
            consumer.deliver(event, False)

    def _finish(
        self,
        request_id: bytes,
        response: BaseEvent | None = None,
        error: LahjaError | None = None,
    ) -> None:
        request = self.pending.pop(request_id)
        request.response, request.error = response, error
        request.wake()

    def undecodable(self, connection: Connection, name: str, error: DecodeError) -> None:
        """Report an event that was lost because it does not decode; it takes no room."""
        self._lost(connection, name, error)
        intake = self._intakes.get(name)
        if intake is not None:
            intake.lost(connection.name)

    def asked(self, connection: Connection, number: int) -> None:
        """Answer with statistics."""
        self.observed_by.asked(connection, number)

    def _lost(self, connection: Connection, name: str, error: DecodeError) -> None:
        self.undecodable_events.add(name)
        self.reporter.say(
            logging.WARNING,
            "undecodable",
            connection.name,
            "lost an event of type %s from %s: %s; do both run the same version of it?",
            one_line(name),
            one_line(connection.name),
            one_line(error),
        )

    # -- Waiting -----------------------------------------------------------------------------

    def watch(self, watcher: Watcher) -> None:
        """Wake the watcher once its state is reached."""
        self._watchers.add(watcher)

    def unwatch(self, watcher: Watcher) -> None:
        """Forget a watcher."""
        self._watchers.discard(watcher)

    def _changed(self) -> None:
        for watcher in [watcher for watcher in self._watchers if watcher.reached()]:
            self._watchers.discard(watcher)
            watcher.wake()

    def stop(self) -> None:
        """End every request and every wait, because the endpoint stops."""
        for request_id in list(self.pending):
            self._finish(request_id, error=has_stopped(self.name))
        self.observers.clear()
        watchers, self._watchers = self._watchers, set()
        for watcher in watchers:
            watcher.error = has_stopped(self.name)
            watcher.wake()
        for intake in self._intakes.values():
            intake.stop()


def has_stopped(name: str) -> LifecycleError:
    """Return the error for what waits in an endpoint when that stops."""
    return LifecycleError(f"endpoint {name!r} stopped")


def _unexpected(request: PendingRequest, name: str, sender: str) -> UnexpectedResponse:
    expected = name_of(request.expected)
    return UnexpectedResponse(f"{sender!r} responded with {name}; the request expects {expected}")
