"""
Streams: events as an asynchronous iterator, and who comes and goes as another one.

A stream is subscribed when it is made. Events wait in its mailbox until they are read; a mailbox
with a bound does something about those for which it has no room. Reading takes what is there
without a turn of the event loop, though never so much that others starve.
"""

from __future__ import annotations

import functools
import logging
from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, Self, TypeVar, get_args

from .common import BaseEvent
from .exceptions import LahjaError, StreamOverflow
from .flow import Intake
from .framing import EventIterator, Mailbox, Topic
from .membership import MembershipChange
from .routing import Router

if TYPE_CHECKING:
    from .loops import EventLoop

__all__ = [
    "Feed",
    "Log",
    "Membership",
    "Overflow",
    "Stream",
    "StreamHost",
    "make_mailbox",
    "subscribe_mailbox",
]

Overflow = Literal["block", "drop_oldest", "drop_newest", "latest", "raise"]
"""What a stream does with events for which it has no room."""

TEvent = TypeVar("TEvent", bound=BaseEvent)
TItem = TypeVar("TItem")

_EVENTS_PER_TURN: Final = 128


class Log(Protocol):
    """Take lines, as a logger does."""

    def log(self, level: int, text: str, /, *args: Any) -> None:
        """Write a line."""


class StreamHost:
    """
    Be the endpoint, as far as its streams need it.

    :param loop: its event loop
    :param router: where its streams are subscribed
    :param check_if_here: raises LifecycleError where the endpoint runs in another event loop
    """

    def __init__(self, loop: EventLoop, router: Router, check_if_here: Callable[[], None]) -> None:
        self.make_waiter = loop.make_waiter
        self.checkpoint = loop.checkpoint
        self.check_if_here = check_if_here
        self._loop = loop
        self._router = router

    def close_stream(self, stream: Feed[Any], from_finalizer: bool) -> None:
        """Unsubscribe the stream; later, where a finalizer asks for it."""
        unsubscribe = stream.unsubscriber(self._router)
        if from_finalizer and self._loop.is_active:
            self._loop.call_soon_from_anywhere(unsubscribe)
        else:
            self.check_if_here()
            unsubscribe()


class _BlockingMailbox(Mailbox):
    """Hold senders back: each may have so many events under way."""

    __slots__ = ("backlog", "bound", "intake")

    policy = "block"

    def __init__(self, remaining: int, on_last: Callable[[], None], bound: int) -> None:
        super().__init__(remaining, on_last)
        self.bound = bound
        self.backlog: dict[str, int] = {}
        self.intake: Intake | None = None

    def __len__(self) -> int:
        return len(self.events)

    def deliver(self, event: Any, local: bool) -> None:
        counts = not local and self.remaining
        super().deliver(event, local)  # after the last one this is no holder any more
        if counts and self.intake is not None:
            self.intake.received(self, event._origin)

    def consumed(self, event: Any) -> None:
        """Take note that an event was read."""
        if self.intake is not None:
            self.intake.consumed(self, event._origin)


class _DroppingMailbox(Mailbox):
    """Drop events for which there is no room, and say so once per burst."""

    __slots__ = ("_in_burst", "_log", "_name", "_oldest", "bound", "dropped", "policy")

    def __init__(self, name: str, bound: int, policy: str, log: Log) -> None:
        super().__init__()
        self.bound = bound
        self.dropped = 0
        self.policy = policy
        self._name = name
        self._oldest = policy != "drop_newest"
        self._log = log
        self._in_burst = False

    @property
    def lost(self) -> int:
        """How many events found no room."""
        return self.dropped

    def deliver(self, event: Any, local: bool) -> None:
        if not self.remaining:
            return
        if 2 * len(self.events) <= self.bound:
            self._in_burst = False  # it was read; one event is not enough for that
        if len(self.events) >= self.bound:
            self.dropped += 1
            if not self._in_burst:
                self._in_burst = True
                # That all but the newest are dropped is what "latest" is for.
                self._log.log(
                    logging.DEBUG if self.policy == "latest" else logging.WARNING,
                    "a stream of %s is full with %d events and drops the %s: read it faster",
                    self._name,
                    self.bound,
                    "oldest" if self._oldest else "newest",
                )
            if not self._oldest:
                return
            self.events.popleft()
        super().deliver(event, local)


class _RaisingMailbox(Mailbox):
    """Take no more events after one for which there was no room."""

    __slots__ = ("_name", "bound", "error", "lost")

    policy = "raise"

    def __init__(self, remaining: int, on_last: Callable[[], None], name: str, bound: int) -> None:
        super().__init__(remaining, on_last)
        self.bound = bound
        self.lost = 0
        self.error: LahjaError | None = None
        self._name = name

    def deliver(self, event: Any, local: bool) -> None:
        if self.error is None and self.remaining and len(self.events) >= self.bound:
            self.error = StreamOverflow(self._name, self.bound)
        if self.error is None:
            super().deliver(event, local)
        else:
            self.lost += 1


def make_mailbox(
    topic: Topic,
    num_events: int | None,
    max_queue: int | None,
    overflow: str,
    on_last: Callable[[], None],
    log: Log,
) -> Mailbox:
    """
    Return the mailbox for a stream.

    :param log: where is said that events are dropped
    :raise ValueError: where a number or the policy is not one of those that make sense
    """
    if num_events is not None and num_events < 0:
        raise ValueError(f"num_events is {num_events}; it must not be negative")
    if max_queue is not None and max_queue < 1:
        raise ValueError(f"max_queue is {max_queue}; it must be at least 1, or None")
    if overflow not in get_args(Overflow):
        choice = ", ".join(map(repr, get_args(Overflow)))
        raise ValueError(f"overflow is {overflow!r}; it must be one of {choice}")
    remaining = -1 if num_events is None else num_events
    if overflow == "latest":
        return _DroppingMailbox(topic.name, 1, overflow, log)
    if max_queue is None:
        if overflow != "block":
            raise ValueError(f"overflow={overflow!r} needs a bound: give max_queue")
        return Mailbox(remaining, on_last)
    if overflow == "block":
        return _BlockingMailbox(remaining, on_last, max_queue)
    if overflow == "raise":
        return _RaisingMailbox(remaining, on_last, topic.name, max_queue)
    return _DroppingMailbox(topic.name, max_queue, overflow, log)


def subscribe_mailbox(router: Router, topic: Topic, mailbox: Mailbox) -> None:
    """Let a mailbox have the events of a topic; one that blocks sets the pace of the senders."""
    if isinstance(mailbox, _BlockingMailbox):
        mailbox.intake = router.intake(topic)
        mailbox.intake.join(mailbox)
    router.add_consumer(topic, mailbox)


class Feed(EventIterator, AsyncGenerator[TItem, None]):
    """
    Be an asynchronous iterator over what arrives in a mailbox.

    It ends its subscription when it is exhausted, closed, cancelled while it waits, or dropped. It
    may be used as an asynchronous context manager, which closes it.

    Its end is reached, by ``StopAsyncIteration``, where it is exhausted, or the endpoint stopped.
    It raises :class:`~lahja.exceptions.StreamOverflow` where ``overflow="raise"`` and an event
    found no room.

    :param num_items: how many items it gives; None for any number
    """

    def __init__(self, host: StreamHost, mailbox: Mailbox, num_items: int | None) -> None:
        super().__init__(mailbox, -1 if num_items is None else num_items)
        self._host = host
        self._waiting = False
        self._closed = False
        self._raising = mailbox if isinstance(mailbox, _RaisingMailbox) else None
        self.quick = self._raising is None
        self.turns = _EVENTS_PER_TURN
        self.on_read = getattr(mailbox, "consumed", None)

    if TYPE_CHECKING:  # inherited from the framing, which does not know the type of the events

        def __aiter__(self) -> Self: ...

        def __anext__(self) -> Coroutine[Any, Any, TItem]: ...

    @abstractmethod
    def unsubscriber(self, router: Router) -> Callable[[], None]:
        """Return what ends the subscription; it must not refer to this object, which may die."""

    async def go_on(self) -> TItem:
        """Return the next item, as soon as there is one and others had their turn."""
        if self._waiting:
            raise RuntimeError("another task waits for the next event of this stream already")
        if not self.left:
            self.close()
            raise StopAsyncIteration
        events = self.mailbox.events
        if not events or not self.turns:
            self.turns = _EVENTS_PER_TURN
            await self._suspend(bool(events))
        if self._raising is not None and self._raising.error is not None:
            self._abandon()
            raise self._raising.error
        if not events:
            self.close()
            raise StopAsyncIteration
        self.turns -= 1
        item: TItem = self.take()
        return item

    async def _suspend(self, briefly: bool) -> None:
        """Let others run: one turn, or until there is an event or nothing more to wait for."""
        self._host.check_if_here()
        self._waiting = True
        self.quick = False
        try:
            if briefly:
                await self._host.checkpoint()
            while not (self.mailbox.events or self._closed):
                waiter = self._host.make_waiter()
                self.mailbox.waker = waiter.wake
                await waiter.wait()
        except BaseException:
            self._abandon()
            raise
        finally:
            self._waiting = False
            self.quick = self._raising is None
            self.mailbox.waker = None

    async def asend(self, value: None) -> TItem:
        """Return the next item; nothing can be sent into a stream."""
        return await self.__anext__()

    async def athrow(self, *exc_info: Any) -> TItem:
        """Close the stream and raise the exception."""
        self._abandon()
        error, *arguments = exc_info
        if isinstance(error, BaseException):
            raise error
        instance = next((a for a in arguments if isinstance(a, BaseException)), None)
        raise instance if instance is not None else error(*arguments[:1])

    async def aclose(self) -> None:
        """Unsubscribe and forget what waits. Idempotent."""
        self._abandon()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _abandon(self) -> None:
        self.close()
        self.left = 0
        self.mailbox.events.clear()

    def close(self) -> None:
        """End the subscription; what has arrived may still be read, unless it was exhausted."""
        if not self._closed:
            self._host.close_stream(self, False)
            self._closed = True
            self.mailbox.remaining = 0  # a delivery that is under way goes past it
            self.wake()

    def wake(self) -> None:
        """Let a task that waits for an event look again."""
        waker, self.mailbox.waker = self.mailbox.waker, None
        if waker is not None:
            waker()

    def end(self) -> None:
        """Take note that the endpoint stopped: what has arrived is all that comes."""
        self._closed = True
        self.wake()

    def __del__(self) -> None:
        if not self._closed:
            self._closed = True
            self._host.close_stream(self, True)


class Stream(Feed[TEvent]):
    """
    Iterate over the events of one type, from the moment in which the stream was made.

    Made by :meth:`lahja.base.EndpointAPI.stream`. It unsubscribes when it is exhausted, closed,
    cancelled while it waits, or dropped. It may be used as an asynchronous context manager, which
    closes it.
    """

    def __init__(
        self, host: StreamHost, topic: Topic, mailbox: Mailbox, num_events: int | None
    ) -> None:
        super().__init__(host, mailbox, num_events)
        self.topic = topic

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self.mailbox.events)} events waiting"
        return f"<Stream of {self.topic.name}: {state}>"

    @property
    def dropped(self) -> int:
        """How many events were dropped because there was no room for them."""
        return getattr(self.mailbox, "dropped", 0)

    def unsubscriber(self, router: Router) -> Callable[[], None]:
        return functools.partial(router.remove_consumer, self.topic, self.mailbox)


class Membership(Feed[MembershipChange]):
    """
    Iterate over who is connected, and then over who comes and who leaves.

    Made by :meth:`lahja.base.EndpointAPI.membership`. It lives as a :class:`Stream` does.
    """

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self.mailbox.events)} changes waiting"
        return f"<Membership: {state}>"

    def unsubscriber(self, router: Router) -> Callable[[], None]:
        return functools.partial(router.observers.discard, self.mailbox)
