"""What users subclass and set: events, requests, and where a broadcast goes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, NewType, TypeVar

from .exceptions import BindError

if TYPE_CHECKING:
    import pathlib

    from .base import EndpointAPI

__all__ = [
    "BaseEvent",
    "BaseRequestResponseEvent",
    "BroadcastConfig",
    "ConnectionConfig",
    "RequestID",
    "Subscription",
    "already_bound",
]


RequestID = NewType("RequestID", bytes)
"""What ties a response to its request: 16 random bytes."""
RequestID.__module__ = "lahja.typing"  # from where programs import it


class ConnectionConfig(NamedTuple):
    """
    Say where an endpoint is reached: its name, and the path of its socket.

    A path of a Unix socket is at most 107 bytes long (103 on macOS).
    """

    name: str
    path: pathlib.Path

    @classmethod
    def from_name(cls, name: str, base_path: pathlib.Path | None = None) -> ConnectionConfig:
        """
        Make the configuration of the endpoint ``name``, with the socket ``name.ipc``.

        :param base_path: the directory of the socket; the current one if None
        :raise TypeError: where ``base_path`` is not a directory
        """
        import pathlib  # not at the top: with all that it imports, it takes two milliseconds

        if base_path is None:
            return cls(name, pathlib.Path(f"{name}.ipc"))
        directory = pathlib.Path(base_path)
        if not directory.is_dir():
            raise TypeError(f"base_path must be a directory, which {str(base_path)!r} is not")
        return cls(name, directory / f"{name}.ipc")


class BroadcastConfig:
    """
    Decide where a broadcast goes; without one it goes to every endpoint that subscribed.

    :param filter_endpoint: the name of the only endpoint that may receive the event
    :param filter_event_id: the request that the event responds to
    :param internal: True keeps the event within the endpoint that broadcasts it
    :param require_subscriber: whether having no receiver raises
        :class:`~lahja.exceptions.NoSubscribers`. None leaves it to the endpoint's class attribute
        ``require_subscriber`` for broadcasts, and means True for requests.
    :raise ValueError: where both ``internal`` and ``filter_endpoint`` are given
    """

    __slots__ = ("filter_endpoint", "filter_event_id", "internal", "require_subscriber")

    def __init__(
        self,
        filter_endpoint: str | None = None,
        filter_event_id: RequestID | None = None,
        internal: bool = False,
        require_subscriber: bool | None = None,
    ) -> None:
        if internal and filter_endpoint is not None:
            raise ValueError(
                f"an internal event goes to no other endpoint: internal=True excludes "
                f"filter_endpoint={filter_endpoint!r}"
            )
        self.filter_endpoint = filter_endpoint
        self.filter_event_id = filter_event_id
        self.internal = internal
        self.require_subscriber = require_subscriber

    def allowed_to_receive(self, endpoint: str) -> bool:
        """Return whether the endpoint of this name may receive the event."""
        return self.filter_endpoint is None or self.filter_endpoint == endpoint

    def __eq__(self, other: object) -> bool:
        if type(other) is not BroadcastConfig:
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in self.__slots__))

    def __repr__(self) -> str:
        given = ", ".join(
            f"{name}={value!r}"
            for name in self.__slots__
            if (value := getattr(self, name)) not in (None, False) or name == "internal"
        )
        return f"BroadcastConfig({given})"


class _IsBound:
    """Tell, for an event, whether it has an origin; for its class, that it has none."""

    def __get__(self, instance: object, owner: type) -> bool:
        return instance is not None and "_origin" in instance.__dict__


class BaseEvent:
    """
    Be the base of every event.

    An event is an ordinary object: its attributes are sent, its class decides who gets it.
    Broadcasting it binds it to the endpoint that does so.
    """

    is_bound = _IsBound()
    """Whether the event was broadcast, or received."""

    if TYPE_CHECKING:  # they are no fields, whoever looks at the annotations of an event
        _origin: str
        _id: RequestID | None
    else:
        _id = None

    def get_origin(self) -> str:
        """
        Return the name of the endpoint that broadcast the event.

        :raise AttributeError: where the event was not broadcast yet
        """
        try:
            origin = self._origin
            return origin if type(origin) is str else str(origin)  # it may carry more: see tracing
        except AttributeError:
            raise AttributeError(
                f"this {type(self).__name__} has no origin: it was not broadcast yet"
            ) from None

    def bind(self, endpoint: EndpointAPI, id: RequestID | None) -> None:
        """
        Bind the event to an endpoint, as if that had broadcast it.

        Endpoints do the same without calling this: a class that overrides it changes nothing.

        :param id: what a response must carry, where the event is a request
        :raise BindError: where the event is bound already
        """
        if self.is_bound:
            raise already_bound(self)
        object.__setattr__(self, "_origin", endpoint.name)
        if id is not None:
            object.__setattr__(self, "_id", id)

    def broadcast_config(self, internal: bool = False) -> BroadcastConfig:
        """
        Return the configuration that sends another event to where this one came from.

        With it, the response to a request finds the caller.

        :param internal: True where this event came from the same endpoint
        :raise AttributeError: where the event was not broadcast yet
        """
        if internal:
            return BroadcastConfig(internal=True, filter_event_id=self._id)
        return BroadcastConfig(self.get_origin(), self._id)


def already_bound(event: BaseEvent) -> BindError:
    """Return the error for an event that is broadcast a second time."""
    return BindError(
        f"this {type(event).__name__} was broadcast by {event.get_origin()!r} already: "
        "make a new event for each broadcast"
    )


TResponse = TypeVar("TResponse", bound=BaseEvent)


class BaseRequestResponseEvent(ABC, BaseEvent, Generic[TResponse]):
    """Be the base of every event that gets a response."""

    @staticmethod
    @abstractmethod
    def expected_response_type() -> type[TResponse]:
        """Return the class of the response; a response of another class is an error."""


class Subscription:
    """
    Stand for a handler that was subscribed.

    :param unsubscribe_fn: what ends the subscription; not called again once it returned
    """

    __slots__ = ("_unsubscribe_fn",)

    def __init__(self, unsubscribe_fn: Callable[[], Any]) -> None:
        self._unsubscribe_fn: Callable[[], Any] | None = unsubscribe_fn

    def unsubscribe(self) -> None:
        """End the subscription at once; the handler gets no further event. Idempotent."""
        if self._unsubscribe_fn is not None:
            self._unsubscribe_fn()
            self._unsubscribe_fn = None  # not where it failed: then it may be tried again
