"""
What both endpoints do alike: all of it, but for what their event loops make different.

That is in an object of its own, which :class:`BaseEndpoint` gets from its subclass: to suspend a
task, to start one, to watch a socket; see :mod:`lahja.loops`. It adds the life of an endpoint, its
connections, and the waits. Programs derive from endpoint classes and give what they add any name,
so nothing is public here but what is documented.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import time
import weakref
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, Self, Unpack

from . import wire
from .api import EndpointAPI, TResponse, TStreamEvent, TSubscribeEvent, TWaitForEvent
from .common import (
    BaseEvent,
    BaseRequestResponseEvent,
    BroadcastConfig,
    ConnectionConfig,
    Subscription,
)
from .compression import SnappySupport
from .counting import Life
from .directory import BusDirectory
from .exceptions import LifecycleError, NoSuchAttribute, RequestTimeout, WaitTimeout
from .flow import Gate
from .framing import Mailbox
from .handlers import Handler
from .joining import Joining
from .membership import MembershipChange, MembershipReason
from .names import name_of
from .peering import Peering, name_and_path
from .routing import Router, Watcher, has_stopped
from .sockets import check_platform
from .streams import Membership, Overflow, Stream, StreamHost, make_mailbox, subscribe_mailbox
from .tracing import Tracing, active_tracer

if TYPE_CHECKING:
    from pathlib import Path

    from .loops import EventLoop
    from .stats import EndpointStats
    from .typing import EndpointOptions

__all__ = [
    "BaseEndpoint",
    "EndpointAPI",
    "TResponse",
    "TStreamEvent",
    "TSubscribeEvent",
    "TWaitForEvent",
]

_NOWHERE: Final = object()  # no event loop


class BaseEndpoint(EndpointAPI):
    """
    Be the base of the endpoints of all event loops.

    :param name: the name by which other endpoints know this one; unique among them
    :param connect_timeout: seconds that connecting is tried (30)
    :param drain_timeout: seconds that leaving waits for slow peers to take what was broadcast, and
        for handlers of this endpoint to have done with it (5)
    :param stall_timeout: seconds after which a peer that takes nothing, while something waits for
        it, is disconnected (10); None for never
    :param hello_timeout: seconds that a connecting peer has to introduce itself (10)
    :param high_water: bytes that may wait for a peer before :meth:`broadcast` waits for it (1 MiB)
    :param max_frame_size: the longest event that is accepted, in bytes as it is sent (256 MiB)
    :param allow_pickle: False to send and accept nothing but plain values (True)
    :param allowed_uids: other users whose processes may connect, or be connected to; root and one's
        own always may
    :raise ValueError: where an option makes no sense
    """

    has_snappy_support: ClassVar[bool] = SnappySupport()  # type: ignore[assignment]
    """Whether python-snappy is installed, so that large events are sent compressed."""

    logger: logging.Logger = logging.getLogger("lahja.endpoint.Endpoint")
    """Where endpoints of the class say what goes wrong, and who comes and goes."""

    require_subscriber: bool = False
    """Whether broadcasts that do not say otherwise raise NoSubscribers when nobody gets them."""

    def __init__(
        self,
        name: str,
        *,
        connect_timeout: float = 30.0,
        drain_timeout: float = 5.0,
        stall_timeout: float | None = 10.0,
        hello_timeout: float = 10.0,
        high_water: int = 1024 * 1024,
        max_frame_size: int = wire.MAX_FRAME_SIZE,
        allow_pickle: bool = True,
        allowed_uids: Iterable[int] = (),
    ) -> None:
        if not isinstance(name, str) or not 0 < len(name) <= wire.MAX_NAME_LENGTH:
            raise ValueError(
                f"an endpoint's name is a text of 1 to {wire.MAX_NAME_LENGTH} characters, "
                f"not {name!r}"
            )
        for option, value in (
            ("connect_timeout", connect_timeout),
            ("drain_timeout", drain_timeout),
            ("stall_timeout", 0 if stall_timeout is None else stall_timeout),
            ("hello_timeout", hello_timeout),
            ("high_water", high_water),
        ):
            if value is None or not value >= 0:
                raise ValueError(f"{option} is {value!r}; it must be a number, and not negative")
        allowed_uids = frozenset(allowed_uids)
        if not all(isinstance(uid, int) for uid in allowed_uids):
            raise ValueError(
                f"allowed_uids is {set(allowed_uids)}; it must be user ids, which are numbers"
            )
        if not 1024 <= max_frame_size <= wire.MAX_LENGTH:
            raise ValueError(f"max_frame_size is {max_frame_size!r}; it must be 1 KiB to 4 GiB")
        self._name = name
        self._loop = loop = self._make_loop()
        self._make_waiter = loop.make_waiter
        self._checkpoint = loop.checkpoint
        self._pass_gate = loop.pass_gate
        self._deadline = loop.deadline
        self._drain_timeout = drain_timeout
        self._router = Router(name, allow_pickle, max_frame_size, self.logger)
        self._router.stopwatch.clock = time.perf_counter
        self._table = self._router.table
        self._table.owner = self
        self._table.route = self._route
        self._table.where = loop.current
        self._table.running_key = loop.running_key
        self._post = self._table.post
        self._ask = self._table.ask
        self._tracing: Tracing | None = None
        self._joining: Joining | None = None
        self._peering = Peering(
            loop,
            self._router,
            connect_timeout=connect_timeout,
            stall_timeout=stall_timeout,
            hello_timeout=hello_timeout,
            high_water=high_water,
            allowed_uids=allowed_uids,
        )
        self._stream_host = StreamHost(loop, self._router, self._check_if_here)
        self._streams: set[Any] = set()  # weak references
        self._handlers: set[Handler] = set()
        self._started = Gate()
        self._stopped = Gate()
        self._server_stopped = False
        self._running = False
        self._life = Life(time.monotonic)
        self._router.observed_by.statistics = self._survey

    def __repr__(self) -> str:
        state = (
            "running" if self._running else "stopped" if self._stopped.is_open else "not started"
        )
        return f"<{type(self).__name__} {self._name!r}: {state}>"

    def __reduce__(self) -> NoReturn:
        raise NotImplementedError("Endpoints cannot be pickled")

    @staticmethod
    @abstractmethod
    def _make_loop() -> EventLoop:
        """Return the event loop of an endpoint."""

    # -- Life --------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._name

    @property
    def is_running(self) -> bool:
        return self._running

    @property
    def is_serving(self) -> bool:
        return self._peering.listener is not None

    @property
    def is_stopped(self) -> bool:
        """Whether the endpoint has stopped for good."""
        return self._stopped.is_open

    @property
    def is_server_stopped(self) -> bool:
        """Whether the endpoint has served, and does so no more."""
        return self._server_stopped

    @property
    def ipc_path(self) -> Path:
        """
        The path of the socket on which the endpoint serves.

        :raise NoSuchAttribute: where it does not serve
        """
        if self._peering.path is None:
            raise NoSuchAttribute(f"endpoint {self._name!r} does not serve: use serve(config)")
        return self._peering.path

    def stats(self) -> EndpointStats:
        return self._survey()

    def _survey(self) -> EndpointStats:
        from .survey import survey  # not at the top: its dataclasses take milliseconds to define

        return survey(self._router, self._peering, self._life, self._loop.backend)

    async def wait_started(self) -> None:
        """Wait until the endpoint runs."""
        await self._pass_gate(self._started)

    async def wait_stopped(self) -> None:
        """Wait until the endpoint has stopped."""
        self._check_if_here()
        await self._pass_gate(self._stopped)

    @classmethod
    def serve(
        cls, config: ConnectionConfig, **options: Unpack[EndpointOptions]
    ) -> AbstractAsyncContextManager[Self]:
        name, path = name_and_path(config, "serve")
        return cls(name, **options)._serve(path)

    @asynccontextmanager
    async def _serve(self, path: Path) -> AsyncIterator[Self]:
        async with self.run():
            self._peering.listen(path)
            yield self

    @classmethod
    def join(
        cls,
        name: str,
        directory: str | os.PathLike[str] | None = None,
        *,
        app: str | None = None,
        **options: Unpack[EndpointOptions],
    ) -> AbstractAsyncContextManager[Self]:
        endpoint = cls(name, **options)
        check_platform(f"join as {name!r}")
        where = BusDirectory(directory, app)
        where.config(name)  # it may be that no file has such a name
        return endpoint._join(where)

    @asynccontextmanager
    async def _join(self, directory: BusDirectory) -> AsyncIterator[Self]:
        async with self.run():
            self._joining = Joining(self._loop, self._router, self._peering, directory)
            self._joining.begin()
            yield self

    def _begin(self) -> None:
        """Enter the running state, which is done once."""
        if self._running:
            raise LifecycleError(f"endpoint {self._name!r} runs already: make another endpoint")
        if self._stopped.is_open:
            raise LifecycleError(
                f"endpoint {self._name!r} has stopped and cannot run again: make another endpoint"
            )
        try:
            self._loop.begin()
        except RuntimeError as error:
            raise LifecycleError(
                f"endpoint {self._name!r} is one for {self._loop.library}, whose event loop does "
                "not run here: a trio program has TrioEndpoint, an asyncio program AsyncioEndpoint"
            ) from error
        self._running = True
        self._table.home = self._loop.current()
        self._trace()
        self._life.begin()
        self._router.reporter.begin(self._loop.time)
        self._started.open()

    def _trace(self) -> None:
        """Carry trace context, if the program keeps traces."""
        tracer = active_tracer()
        if tracer is not None:
            self._tracing = Tracing(self._router, tracer, self._route)
            self._post, self._ask = self._tracing.post, self._tracing.ask
            for handler in self._handlers:
                handler.wrap(self._tracing.call)

    async def _finish(self, error: BaseException | None) -> None:
        """Leave the running state; what was broadcast is written first, unless cancelled."""
        try:
            self._stop_listening()
            if error is None or isinstance(error, Exception):
                handlers_had_their_turn = self._make_waiter()
                self._loop.call_soon(handlers_had_their_turn.wake)
                await handlers_had_their_turn.wait()
                await self._drain()
        finally:
            self._close()

    async def _drain(self) -> None:
        """Let what was broadcast be handled here and written, for ``drain_timeout`` at most."""
        async with self._deadline(self._drain_timeout):
            while unfinished := [each for each in self._handlers if each.unfinished]:
                await self._pass_gate(unfinished[0].finishing())
            await self._peering.drain()
        self._peering.drained_for = self._drain_timeout
        for handler in [each for each in self._handlers if each.unfinished]:
            self._router.reporter.say(
                logging.WARNING,
                "unfinished",
                "",
                "left without what handler %r had not done of its own broadcasts within %g s: "
                "%d events; see drain_timeout",
                handler.function,
                self._drain_timeout,
                handler.unfinished,
            )

    def _stop_listening(self) -> None:
        if self._joining is not None:
            self._joining.stop()
        if self._peering.path is not None:
            self._peering.stop_listening()
            self._server_stopped = True

    def _close(self) -> None:
        """Stop at once: from here on nothing waits, and nobody is connected."""
        self._running = False
        self._loop.end()  # before its tasks are told that it stopped: nobody wants to read that
        self._stop_listening()
        for handler in self._handlers:
            handler.stop()
        self._handlers.clear()
        self._router.stop()
        self._peering.close()
        for reference in list(self._streams):
            stream = reference()
            if stream is not None:
                stream.end()
        self._streams.clear()
        self._life.end()
        self._router.reporter.end()
        self._stopped.open()
        self._table.home = _NOWHERE

    def _misused(self, kind: type[LifecycleError] = LifecycleError) -> NoReturn:
        """Raise the error for a call that needs a running endpoint, in its own event loop."""
        if self._stopped.is_open:
            raise kind(f"endpoint {self._name!r} has stopped: make another endpoint")
        if not self._running:
            raise kind(
                f"endpoint {self._name!r} does not run yet: use it within "
                "'async with endpoint.run()', or make it by serve(config)"
            )
        raise kind(
            f"endpoint {self._name!r} runs in another event loop: call its methods from there"
        )

    def _check(self) -> None:
        """Raise LifecycleError unless called in the event loop in which the endpoint runs."""
        if not self._table.is_home() and not self._loop.is_paused_here():
            self._misused()

    def _check_if_here(self) -> None:
        """Raise LifecycleError where the endpoint runs in another event loop."""
        if self._running:
            self._check()

    # -- Connections -------------------------------------------------------------------------

    async def connect_to_endpoints(self, *endpoints: ConnectionConfig) -> None:
        self._check()
        await self._loop.gather(
            [functools.partial(self._peering.connect, each) for each in endpoints]
        )

    def is_connected_to(self, endpoint_name: str) -> bool:
        self._check_if_here()
        return endpoint_name == self._name or endpoint_name in self._router.peers

    def get_connected_endpoints_and_subscriptions(
        self,
    ) -> tuple[tuple[str, set[type[BaseEvent]]], ...]:
        self._check_if_here()
        others = self._router.peers.items()
        return (
            (self._name, self._router.subscribed_types()),
            *((name, self._router.types_wanted_by(connection)) for name, connection in others),
        )

    async def wait_until_connected_to(self, endpoint_name: str) -> None:
        await self._wait_until(lambda: self.is_connected_to(endpoint_name))

    async def wait_until_connections_change(self) -> None:
        before = self._router.connections_version
        await self._wait_until(lambda: self._router.connections_version != before)

    # -- Subscriptions of others -------------------------------------------------------------

    def is_endpoint_subscribed_to(self, remote_endpoint: str, event_type: type[BaseEvent]) -> bool:
        self._check_if_here()
        return self._router.wants(remote_endpoint, event_type)

    def is_any_endpoint_subscribed_to(self, event_type: type[BaseEvent]) -> bool:
        self._check_if_here()
        names = (self._name, *self._router.peers)
        return any(self._router.wants(name, event_type) for name in names)

    def are_all_endpoints_subscribed_to(
        self, event_type: type[BaseEvent], include_self: bool = True
    ) -> bool:
        self._check_if_here()
        names = (self._name, *self._router.peers) if include_self else (*self._router.peers,)
        return all(self._router.wants(name, event_type) for name in names)

    async def wait_until_endpoint_subscribed_to(
        self, remote_endpoint: str, event: type[BaseEvent]
    ) -> None:
        await self._wait_until(lambda: self._router.wants(remote_endpoint, event))

    async def wait_until_any_endpoint_subscribed_to(self, event: type[BaseEvent]) -> None:
        await self._wait_until(lambda: self.is_any_endpoint_subscribed_to(event))

    async def wait_until_all_endpoints_subscribed_to(
        self, event: type[BaseEvent], *, include_self: bool = True
    ) -> None:
        await self._wait_until(
            lambda: self.are_all_endpoints_subscribed_to(event, include_self=include_self)
        )

    async def wait_until_endpoint_subscriptions_change(self) -> None:
        before = self._router.subscriptions_version
        await self._wait_until(lambda: self._router.subscriptions_version != before)

    async def wait_until_all_of(
        self,
        names: Iterable[str],
        *,
        subscribed_to: type[BaseEvent] | Iterable[type[BaseEvent]] | None = None,
        timeout: float | None = None,
    ) -> None:
        self._check()
        if isinstance(names, str):
            raise TypeError(
                f"names is the text {names!r}; give several names, such as {{{names!r}}}"
            )
        _check_timeout(timeout)
        wanted = tuple(dict.fromkeys(names))
        if isinstance(subscribed_to, type):
            subscribed_to = (subscribed_to,)
        types = tuple(subscribed_to or ())

        def are_ready() -> bool:
            return all(
                self.is_connected_to(name) and all(self._router.wants(name, each) for each in types)
                for name in wanted
            )

        if timeout is None:
            await self._wait_until(are_ready)
            return
        async with self._deadline(timeout) as is_over:
            await self._wait_until(are_ready)
        if is_over() and not are_ready():
            raise self._not_ready(wanted, types, timeout)

    def _not_ready(
        self, names: tuple[str, ...], types: tuple[type[BaseEvent], ...], timeout: float
    ) -> WaitTimeout:
        missing = {
            name: tuple(name_of(each) for each in types if not self._router.wants(name, each))
            for name in names
            if self.is_connected_to(name)
        }
        return WaitTimeout(
            timeout,
            tuple(name for name in names if name not in missing),
            tuple((name, unwanted) for name, unwanted in missing.items() if unwanted),
        )

    async def _wait_until(self, reached: Callable[[], bool]) -> None:
        self._check()
        if reached():
            await self._checkpoint()
            return
        waiter = self._make_waiter()
        watcher = Watcher(reached, waiter.wake)
        self._router.watch(watcher)
        try:
            await waiter.wait()
        finally:
            self._router.unwatch(watcher)
        if watcher.error is not None:
            raise watcher.error

    # -- Broadcasting ------------------------------------------------------------------------

    async def broadcast(self, item: BaseEvent, config: BroadcastConfig | None = None) -> None:
        gates = self._post(item, config)
        if gates is not None:
            if not gates:
                await self._checkpoint()
            for gate in gates:
                await self._pass_gate(gate)

    def broadcast_nowait(self, item: BaseEvent, config: BroadcastConfig | None = None) -> None:
        self._post(item, config)

    def _route(self, item: BaseEvent, config: BroadcastConfig | None) -> list[Gate]:
        """Broadcast an event whose way is not plain: see ``post`` in :mod:`lahja.framing`."""
        self._check()
        _check_config(config)
        required = self.require_subscriber
        if config is not None and config.require_subscriber is not None:
            required = config.require_subscriber
        return self._router.broadcast(item, config, required)

    async def request(
        self,
        item: BaseRequestResponseEvent[TResponse],
        config: BroadcastConfig | None = None,
        *,
        timeout: float | None = None,
    ) -> TResponse:
        self._check()
        _check_timeout(timeout)
        _check_config(config)
        required = config is None or config.require_subscriber is not False
        waiter = self._make_waiter()
        router = self._router
        since = router.stopwatch.clock()
        try:
            pending = self._ask(item, config, required, waiter.wake)
            pending.since = since
            asked = pending.asked
            if len(asked) > 1 or (asked and pending.locally):
                router.raced.append(pending.id)
            try:
                if timeout is None:
                    await waiter.wait()
                else:
                    async with self._deadline(timeout) as is_over:
                        await waiter.wait()
                    if is_over() and pending.response is None and pending.error is None:
                        details = self._peering.how_they_are([each.name for each in asked])
                        name = name_of(type(item))
                        names = pending.names + ((self._name,) if pending.locally else ())
                        raise RequestTimeout(name, timeout, names, details)
            finally:
                self._table.requests.pop(pending.id, None)
            if pending.error is not None:
                raise pending.error
        except BaseException as error:
            router.request_log.failed(error)
            if self._tracing is not None:
                self._tracing.asked(item, error)
            raise
        router.request_log.succeeded(router.stopwatch.clock() - since)
        if self._tracing is not None:
            self._tracing.asked(item, None)
        response: Any = pending.response
        return response  # type: ignore[no-any-return]

    # -- Receiving ---------------------------------------------------------------------------

    def subscribe(
        self, event_type: type[TSubscribeEvent], handler: Callable[[TSubscribeEvent], Any]
    ) -> Subscription:
        self._check_subscribing()
        if not callable(handler):
            raise TypeError(f"a handler must be callable, which {handler!r} is not")
        topic = self._table.topic(event_type)
        subscribed = Handler(handler, self._loop, self.logger, self._name, self._router.stopwatch)
        if self._tracing is not None:
            subscribed.wrap(self._tracing.call)
        self._handlers.add(subscribed)
        self._router.add_consumer(topic, subscribed)

        def unsubscribe() -> None:
            self._check_if_here()
            subscribed.stop()
            self._handlers.discard(subscribed)
            self._router.remove_consumer(topic, subscribed)

        return Subscription(unsubscribe)

    def stream(
        self,
        event_type: type[TStreamEvent],
        num_events: int | None = None,
        *,
        max_queue: int | None = None,
        overflow: Overflow = "block",
    ) -> Stream[TStreamEvent]:
        self._check_subscribing()
        router = self._router
        topic = self._table.topic(event_type)

        def unsubscribe() -> None:
            router.remove_consumer(topic, mailbox)

        log = router.reporter
        mailbox = make_mailbox(topic, num_events, max_queue, overflow, unsubscribe, log)
        stream: Stream[TStreamEvent] = Stream(self._stream_host, topic, mailbox, num_events)
        if num_events != 0:
            self._streams.add(weakref.ref(stream, self._streams.discard))
            subscribe_mailbox(router, topic, mailbox)
        return stream

    def membership(self) -> Membership:
        self._check_subscribing()
        mailbox = Mailbox()
        stream = Membership(self._stream_host, mailbox, None)
        self._streams.add(weakref.ref(stream, self._streams.discard))
        for name in self._router.peers:
            mailbox.deliver(MembershipChange(name, MembershipReason.PRESENT), True)
        self._router.observers.add(mailbox)
        return stream

    def wait_for(self, event_type: type[TWaitForEvent]) -> Coroutine[Any, Any, TWaitForEvent]:
        self._check()
        return self._first(self.stream(event_type, num_events=1))

    # Whoever asks is told that the call is awaited: mocks do. Before Python 3.12 it cannot be said.
    getattr(inspect, "markcoroutinefunction", id)(wait_for)

    async def _first(self, stream: Stream[TWaitForEvent]) -> TWaitForEvent:
        async with stream:
            async for event in stream:
                return event
        raise has_stopped(self._name)

    def get_subscribed_events(self) -> set[type[BaseEvent]]:
        self._check_if_here()
        return self._router.subscribed_types()

    def _check_subscribing(self) -> None:
        """Raise LifecycleError where nobody may subscribe: after the end, or from elsewhere."""
        if self._running or self._stopped.is_open:
            self._check()


def _check_timeout(timeout: float | None) -> None:
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout is {timeout!r}; it must not be negative")


def _check_config(config: BroadcastConfig | None) -> None:
    if config is not None and not isinstance(config, BroadcastConfig):
        raise TypeError(
            f"what follows the event is a BroadcastConfig, which {config!r} is not: say "
            "BroadcastConfig(filter_endpoint=name) where one endpoint is to get it, and timeout= "
            "for a timeout"
        )
