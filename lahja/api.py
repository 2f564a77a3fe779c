"""The contract of an endpoint, whatever event loop it runs in."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, TypeVar

from .common import (
    BaseEvent,
    BaseRequestResponseEvent,
    BroadcastConfig,
    ConnectionConfig,
    Subscription,
)

if TYPE_CHECKING:
    from typing import Self, Unpack

    from .stats import EndpointStats
    from .streams import Membership, Overflow, Stream
    from .typing import EndpointOptions

__all__ = ["EndpointAPI", "TResponse", "TStreamEvent", "TSubscribeEvent", "TWaitForEvent"]

TResponse = TypeVar("TResponse", bound=BaseEvent)
"""The type of the response to a request."""

TStreamEvent = TypeVar("TStreamEvent", bound=BaseEvent)
"""The type of the events of a stream."""

TSubscribeEvent = TypeVar("TSubscribeEvent", bound=BaseEvent)
"""The type of the events that a handler gets."""

TWaitForEvent = TypeVar("TWaitForEvent", bound=BaseEvent)
"""The type of the event that is waited for."""


def _lacks(cls: type, name: str) -> NotImplementedError:
    return NotImplementedError(f"{cls.__qualname__} does not implement {name}() of EndpointAPI")


class EndpointAPI(ABC):
    """
    Communicate by events, within a process and between processes.

    Every method but :meth:`stats` must be called from the event loop in which the endpoint runs;
    from elsewhere it raises :class:`~lahja.exceptions.LifecycleError`, as does every method that
    needs a running endpoint before :meth:`run` or after it stopped. On asyncio, what is no
    coroutine may also be called while that loop is paused, in its thread.

    What is not abstract here came after lahja 0.17, and may be missing in implementations that are
    older.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The name by which other endpoints know this one."""

    @property
    @abstractmethod
    def is_running(self) -> bool:
        """Whether the endpoint runs: between entering and leaving :meth:`run`."""

    @property
    @abstractmethod
    def is_serving(self) -> bool:
        """Whether other endpoints can connect to this one."""

    # -- Life --------------------------------------------------------------------------------

    @abstractmethod
    def run(self) -> AbstractAsyncContextManager[Self]:
        """
        Run the endpoint within an asynchronous context; it can be done once.

        ::

            async with endpoint.run() as endpoint:
                ...  # it runs here
            ...  # it has stopped

        Leaving the context writes what was broadcast, for at most ``drain_timeout`` seconds; a
        context that is cancelled is left at once.

        :raise LifecycleError: where the endpoint was run before
        """

    @classmethod
    @abstractmethod
    def serve(
        cls, config: ConnectionConfig, **options: Unpack[EndpointOptions]
    ) -> AbstractAsyncContextManager[Self]:
        """
        Make and run an endpoint to which others can connect.

        ::

            async with EndpointClass.serve(config) as endpoint:
                ...  # it serves here

        :param options: as in the constructor of the class
        :raise OSError: where another endpoint serves at the path, or it cannot be used
        :raise UnsupportedPlatform: where the system has no Unix sockets
        """

    @classmethod
    def join(
        cls,
        name: str,
        directory: str | os.PathLike[str] | None = None,
        *,
        app: str | None = None,
        **options: Unpack[EndpointOptions],
    ) -> AbstractAsyncContextManager[Self]:
        """
        Make and run an endpoint that is connected to all others in a directory.

        ::

            async with EndpointClass.join("worker-3", directory) as endpoint:
                await endpoint.wait_until_connected_to("main")

        It serves at ``name.ipc`` in the directory, and is connected to every endpoint that serves
        there, those that come later included, by one connection each. Who restarts, or loses its
        connection, is connected again; the sockets of dead endpoints are removed. Entering the
        context does not wait for the connections: :meth:`wait_until_connected_to` and
        :meth:`wait_until_all_of` do, and :meth:`membership` tells who comes and goes.

        Without a directory it is the one of the user and the application: ``lahja/APP`` in
        ``XDG_RUNTIME_DIR``, or ``lahja-UID/APP`` in the directory for temporary files. It is made
        with mode 0700, and refused where others may write to it. A directory that is given is made,
        too, where it is missing; its parent must be there.

        :param name: the name of the endpoint, which must be able to name a file
        :param directory: where the endpoints are
        :param app: the name of the application; give it or the directory, not both
        :param options: as in the constructor of the class
        :raise ValueError: where the name of the endpoint or of the application cannot name a file
        :raise OSError: where an endpoint of the name serves in the directory, the directory is not
            safe or cannot be used, or the path of the socket is too long
        :raise UnsupportedPlatform: where the system has no Unix sockets
        """
        raise _lacks(cls, "join")

    def stats(self) -> EndpointStats:
        """
        Return what the endpoint has done so far, and how it is.

        Works before :meth:`run` and after the endpoint stopped, too, and may be called from any
        thread.
        """
        raise _lacks(type(self), "stats")

    # -- Connections -------------------------------------------------------------------------

    @abstractmethod
    async def connect_to_endpoints(self, *endpoints: ConnectionConfig) -> None:
        """
        Connect to the endpoints, at the same time, and wait until all of them are connected.

        It is tried again while nobody serves there, for at most ``connect_timeout`` seconds. Where
        one fails, the attempts that are still under way are given up; connections that were made
        stay.

        :raise ConnectionAttemptRejected: where an endpoint of the name is connected, or the other
            side refuses: it is another user's, speaks another protocol or has another name
        :raise ConnectTimeout: where an endpoint could not be reached in time
        :raise UnsupportedPlatform: where the system has no Unix sockets
        """

    @abstractmethod
    def is_connected_to(self, endpoint_name: str) -> bool:
        """Return whether an endpoint of the name is connected; to itself an endpoint always is."""

    @abstractmethod
    def get_connected_endpoints_and_subscriptions(
        self,
    ) -> tuple[tuple[str, set[type[BaseEvent]]], ...]:
        """
        Return name and subscribed event types of every connected endpoint, itself first.

        Types of which this process has not imported the class are left out.
        """

    @abstractmethod
    async def wait_until_connected_to(self, endpoint_name: str) -> None:
        """
        Wait until an endpoint of the name is connected.

        :raise LifecycleError: where this endpoint stops meanwhile
        """

    async def wait_until_all_of(
        self,
        names: Iterable[str],
        *,
        subscribed_to: type[BaseEvent] | Iterable[type[BaseEvent]] | None = None,
        timeout: float | None = None,
    ) -> None:
        """
        Wait until all endpoints of the names are connected, at the same time.

        ::

            await endpoint.wait_until_all_of({"db", "net"}, subscribed_to=StoreBlock, timeout=10)

        :param names: the endpoints; its own name may be among them
        :param subscribed_to: an event type, or several, that each of them must be subscribed to
        :param timeout: seconds to wait; None for any time
        :raise WaitTimeout: when the time is over; it is a :class:`TimeoutError`, and says who is
            not connected, and who is but has not subscribed
        :raise LifecycleError: where this endpoint stops meanwhile
        """
        raise _lacks(type(self), "wait_until_all_of")

    def membership(self) -> Membership:
        """
        Return an asynchronous iterator over the other endpoints that come and go, from now on.

        ::

            async for change in endpoint.membership():
                print(change.name, "joined" if change.joined else "left", change.reason)

        It begins with those that are connected now, in the order in which they were connected; so
        whoever waits for an endpoint and wants to know when it leaves makes it before the wait. It
        lives as what :meth:`stream` returns: it may be made before :meth:`run`, and ends when the
        endpoint stops.
        """
        raise _lacks(type(self), "membership")

    @abstractmethod
    async def wait_until_connections_change(self) -> None:
        """
        Wait until an endpoint connects or leaves.

        :raise LifecycleError: where this endpoint stops meanwhile
        """

    # -- Subscriptions of others -------------------------------------------------------------

    @abstractmethod
    def is_endpoint_subscribed_to(self, remote_endpoint: str, event_type: type[BaseEvent]) -> bool:
        """Return whether the endpoint of the name is connected and subscribed to the type."""

    @abstractmethod
    def is_any_endpoint_subscribed_to(self, event_type: type[BaseEvent]) -> bool:
        """Return whether any connected endpoint, this one included, is subscribed to the type."""

    @abstractmethod
    def are_all_endpoints_subscribed_to(
        self, event_type: type[BaseEvent], include_self: bool = True
    ) -> bool:
        """
        Return whether every connected endpoint is subscribed to the type.

        :param include_self: whether this endpoint counts, too
        """

    @abstractmethod
    async def wait_until_endpoint_subscribed_to(
        self, remote_endpoint: str, event: type[BaseEvent]
    ) -> None:
        """
        Wait until the endpoint of the name is connected and subscribed to the type.

        :raise LifecycleError: where this endpoint stops meanwhile
        """

    @abstractmethod
    async def wait_until_any_endpoint_subscribed_to(self, event: type[BaseEvent]) -> None:
        """
        Wait until any connected endpoint, this one included, is subscribed to the type.

        :raise LifecycleError: where this endpoint stops meanwhile
        """

    @abstractmethod
    async def wait_until_all_endpoints_subscribed_to(
        self, event: type[BaseEvent], *, include_self: bool = True
    ) -> None:
        """
        Wait until every connected endpoint is subscribed to the type.

        :param include_self: whether this endpoint counts, too
        :raise LifecycleError: where this endpoint stops meanwhile
        """

    @abstractmethod
    async def wait_until_endpoint_subscriptions_change(self) -> None:
        """
        Wait until the subscriptions of any endpoint change, or the set of endpoints does.

        :raise LifecycleError: where this endpoint stops meanwhile
        """

    # -- Broadcasting ------------------------------------------------------------------------

    @abstractmethod
    async def broadcast(self, item: BaseEvent, config: BroadcastConfig | None = None) -> None:
        """
        Send the event to every endpoint that subscribed to its type, this one included.

        Returns when the bytes are with the operating system, or few enough wait for each peer.

        :param config: where it goes, if not to everybody
        :raise BindError: where the event was broadcast before
        :raise EncodeError: where it cannot be sent; it has reached nobody then
        :raise NoSubscribers: where nobody gets it, if that was asked for
        """

    @abstractmethod
    def broadcast_nowait(self, item: BaseEvent, config: BroadcastConfig | None = None) -> None:
        """
        Do what :meth:`broadcast` does, without waiting for slow peers.

        Nothing limits what gathers in memory where this is called faster than peers read.
        """

    @abstractmethod
    async def request(
        self,
        item: BaseRequestResponseEvent[TResponse],
        config: BroadcastConfig | None = None,
        *,
        timeout: float | None = None,
    ) -> TResponse:
        """
        Broadcast a request and return the first response to it.

        :param config: where it goes, if not to everybody
        :param timeout: seconds to wait for the response; None for any time
        :raise NoSubscribers: where nobody gets the request, unless ``require_subscriber=False``
        :raise RemoteDisconnected: when all endpoints that got it have left
        :raise RequestTimeout: when the time is over; it is a :class:`TimeoutError`
        :raise UnexpectedResponse: where the response is of another type than announced
        :raise BindError: where this request was sent before
        :raise EncodeError: where it cannot be sent
        :raise ValueError: where the timeout is negative
        :raise LifecycleError: where this endpoint stops meanwhile
        """

    # -- Receiving ---------------------------------------------------------------------------

    @abstractmethod
    def subscribe(
        self, event_type: type[TSubscribeEvent], handler: Callable[[TSubscribeEvent], Any]
    ) -> Subscription:
        """
        Call the handler with every event of the type; allowed before :meth:`run`.

        A handler may return an awaitable. It gets its events one after the other.

        :return: what ends the subscription
        """

    @abstractmethod
    def stream(
        self,
        event_type: type[TStreamEvent],
        num_events: int | None = None,
        *,
        max_queue: int | None = None,
        overflow: Overflow = "block",
    ) -> Stream[TStreamEvent]:
        """
        Return an asynchronous iterator over all events of the type, from now on.

        :param num_events: how many events it gives; None for any number
        :param max_queue: how many events may wait in it, or how many of each sender with
            ``"block"``; None for any number. Requests are never held back.
        :param overflow: what happens to more than that. ``"block"`` holds back each endpoint that
            sends them, ``"drop_oldest"`` and ``"drop_newest"`` drop, ``"latest"`` keeps one event,
            the newest, and ``"raise"`` raises StreamOverflow when the stream is read next
        :raise ValueError: where a number or the policy makes no sense
        """

    @abstractmethod
    async def wait_for(self, event_type: type[TWaitForEvent]) -> TWaitForEvent:
        """
        Return the next event of the type; subscribed from the call.

        :raise LifecycleError: where this endpoint stops meanwhile
        """

    @abstractmethod
    def get_subscribed_events(self) -> set[type[BaseEvent]]:
        """Return the event types to which this endpoint is subscribed."""
