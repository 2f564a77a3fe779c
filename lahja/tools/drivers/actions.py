"""
Actions: the steps of a driver.

An action is a function and its arguments, and nothing else: so it can be pickled, and its driver
can run in another process, where the arguments allow it. It can be run again, too.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Awaitable, Callable, MutableSequence
from multiprocessing.sharedctypes import RawArray
from typing import Any, Generic, TypeAlias, TypeVar

from ...api import EndpointAPI
from ...common import BaseEvent, BaseRequestResponseEvent, BroadcastConfig, ConnectionConfig
from ...exceptions import LahjaError
from ..engine import EngineAPI

__all__ = [
    "Action",
    "AsyncAction",
    "DidNotThrow",
    "SyncAction",
    "broadcast",
    "checkpoint",
    "connect_to_endpoints",
    "describe",
    "request",
    "serve_request",
    "throws",
    "wait_any_then_broadcast",
    "wait_for",
    "wait_until_any_endpoint_subscribed_to",
    "wait_until_connected_to",
]

TEvent = TypeVar("TEvent", bound=BaseEvent)
TRequest = TypeVar("TRequest", bound=BaseRequestResponseEvent[Any])
TResponse = TypeVar("TResponse", bound=BaseEvent)

_LOOK_AGAIN = 0.005  # seconds between two looks at the other side of a checkpoint


class DidNotThrow(LahjaError):
    """Report that an action did not raise what it was expected to raise."""


class SyncAction:
    """
    Do a step that takes no time.

    :param fn: called with the engine, the endpoint and the other arguments
    """

    def __init__(self, fn: Callable[..., Any], **kwargs: Any) -> None:
        self._fn = fn
        self._kwargs = kwargs

    def __call__(self, engine: EngineAPI, endpoint: EndpointAPI) -> None:
        """Do it."""
        self._fn(engine, endpoint, **self._kwargs)

    def __repr__(self) -> str:
        return describe(self._fn, self._kwargs)


class AsyncAction:
    """
    Do a step that may have to wait.

    :param coro: called with the engine, the endpoint and the other arguments, and awaited
    """

    def __init__(self, coro: Callable[..., Awaitable[Any]], **kwargs: Any) -> None:
        self._coro = coro
        self._kwargs = kwargs

    async def __call__(self, engine: EngineAPI, endpoint: EndpointAPI) -> None:
        """Do it, and wait until it is done."""
        await self._coro(engine, endpoint, **self._kwargs)

    def __repr__(self) -> str:
        return describe(self._coro, self._kwargs)


Action: TypeAlias = SyncAction | AsyncAction
"""A step of a driver."""


def describe(function: Callable[..., Any], kwargs: dict[str, Any]) -> str:
    """Return a call in the words of whoever declared it."""
    name = getattr(function, "__name__", type(function).__name__).removeprefix("_")
    given = (
        f"{key}={getattr(value, '__qualname__', None) or repr(value)}"
        for key, value in kwargs.items()
        if value is not None
    )
    return f"{name}({', '.join(given)})"


class _Supply(Generic[TEvent]):
    """Give the event of an action; a copy when it is run again, as an event is sent once."""

    def __init__(self, event: TEvent) -> None:
        self._event = event
        self._is_used = False

    def take(self) -> TEvent:
        """Return an event to broadcast."""
        if not self._is_used:
            self._is_used = not self._event.is_bound
            return self._event
        event = copy.copy(self._event)
        for name in ("_origin", "_id"):
            event.__dict__.pop(name, None)
        return event

    def __repr__(self) -> str:
        return type(self._event).__qualname__


async def _call(function: Callable[..., Any], *args: Any) -> None:
    """Call a user's function, and await the result if it can be awaited."""
    result = function(*args)
    if inspect.isawaitable(result):
        await result


# -- Connecting --------------------------------------------------------------------------------


def connect_to_endpoints(*configs: ConnectionConfig) -> AsyncAction:
    """See :meth:`lahja.base.EndpointAPI.connect_to_endpoints`."""
    return AsyncAction(_connect_to_endpoints, configs=configs)


async def _connect_to_endpoints(
    engine: EngineAPI, endpoint: EndpointAPI, configs: tuple[ConnectionConfig, ...]
) -> None:
    await endpoint.connect_to_endpoints(*configs)


def wait_until_connected_to(name: str) -> AsyncAction:
    """See :meth:`lahja.base.EndpointAPI.wait_until_connected_to`."""
    return AsyncAction(_wait_until_connected_to, name=name)


async def _wait_until_connected_to(engine: EngineAPI, endpoint: EndpointAPI, name: str) -> None:
    await endpoint.wait_until_connected_to(name)


def wait_until_any_endpoint_subscribed_to(event_type: type[BaseEvent]) -> AsyncAction:
    """See :meth:`lahja.base.EndpointAPI.wait_until_any_endpoint_subscribed_to`."""
    return AsyncAction(_wait_until_any_endpoint_subscribed_to, event_type=event_type)


async def _wait_until_any_endpoint_subscribed_to(
    engine: EngineAPI, endpoint: EndpointAPI, event_type: type[BaseEvent]
) -> None:
    await endpoint.wait_until_any_endpoint_subscribed_to(event_type)


# -- Sending -----------------------------------------------------------------------------------


def broadcast(event: BaseEvent, config: BroadcastConfig | None = None) -> AsyncAction:
    """See :meth:`lahja.base.EndpointAPI.broadcast`."""
    return AsyncAction(_broadcast, event=_Supply(event), config=config)


async def _broadcast(
    engine: EngineAPI,
    endpoint: EndpointAPI,
    event: _Supply[BaseEvent],
    config: BroadcastConfig | None,
) -> None:
    await endpoint.broadcast(event.take(), config)


def wait_any_then_broadcast(event: BaseEvent, config: BroadcastConfig | None = None) -> AsyncAction:
    """Wait until any endpoint is subscribed to the type of the event, then broadcast it."""
    return AsyncAction(_wait_any_then_broadcast, event=_Supply(event), config=config)


async def _wait_any_then_broadcast(
    engine: EngineAPI,
    endpoint: EndpointAPI,
    event: _Supply[BaseEvent],
    config: BroadcastConfig | None,
) -> None:
    item = event.take()
    await endpoint.wait_until_any_endpoint_subscribed_to(type(item))
    await endpoint.broadcast(item, config)


def request(
    event: BaseRequestResponseEvent[TResponse],
    config: BroadcastConfig | None = None,
    on_response: Callable[[EndpointAPI, TResponse], Any] | None = None,
) -> AsyncAction:
    """
    See :meth:`lahja.base.EndpointAPI.request`.

    :param on_response: called with the endpoint and the response; awaited, if it can be
    """
    return AsyncAction(_request, event=_Supply(event), config=config, on_response=on_response)


async def _request(
    engine: EngineAPI,
    endpoint: EndpointAPI,
    event: _Supply[BaseRequestResponseEvent[BaseEvent]],
    config: BroadcastConfig | None,
    on_response: Callable[[EndpointAPI, BaseEvent], Any] | None,
) -> None:
    response = await endpoint.request(event.take(), config)
    if on_response is not None:
        await _call(on_response, endpoint, response)


# -- Receiving ---------------------------------------------------------------------------------


def wait_for(
    event_type: type[TEvent], on_event: Callable[[EndpointAPI, TEvent], Any] | None = None
) -> AsyncAction:
    """
    Wait for an event of the type.

    :param on_event: called with the endpoint and the event; awaited, if it can be
    """
    return AsyncAction(_wait_for, event_type=event_type, on_event=on_event)


async def _wait_for(
    engine: EngineAPI,
    endpoint: EndpointAPI,
    event_type: type[BaseEvent],
    on_event: Callable[[EndpointAPI, BaseEvent], Any] | None,
) -> None:
    event = await endpoint.wait_for(event_type)
    if on_event is not None:
        await _call(on_event, endpoint, event)


def serve_request(
    request_type: type[TRequest], get_response: Callable[[EndpointAPI, TRequest], BaseEvent]
) -> AsyncAction:
    """
    Wait for a request of the type, and respond to it.

    :param get_response: called with the endpoint and the request; it returns the response
    """
    return AsyncAction(_serve_request, request_type=request_type, get_response=get_response)


async def _serve_request(
    engine: EngineAPI,
    endpoint: EndpointAPI,
    request_type: type[BaseEvent],
    get_response: Callable[[EndpointAPI, BaseEvent], BaseEvent],
) -> None:
    item = await endpoint.wait_for(request_type)
    await endpoint.broadcast(get_response(endpoint, item), item.broadcast_config())


# -- Around other actions ----------------------------------------------------------------------


def throws(action: Action, exc_type: type[Exception]) -> Action:
    """
    Check that the action raises an exception of the type; it is a :class:`DidNotThrow` if not.

    The time limit of the driver is around this action, so that it is not what is thrown.
    """
    if isinstance(action, SyncAction):
        return SyncAction(_throws_at_once, action=action, exc_type=exc_type)
    return AsyncAction(_throws, action=action, exc_type=exc_type)


async def _throws(
    engine: EngineAPI, endpoint: EndpointAPI, action: AsyncAction, exc_type: type[Exception]
) -> None:
    try:
        await action(engine, endpoint)
    except exc_type:
        return
    raise _did_not_throw(action, exc_type)


def _throws_at_once(
    engine: EngineAPI, endpoint: EndpointAPI, action: SyncAction, exc_type: type[Exception]
) -> None:
    try:
        action(engine, endpoint)
    except exc_type:
        return
    raise _did_not_throw(action, exc_type)


def _did_not_throw(action: Action, exc_type: type[Exception]) -> DidNotThrow:
    return DidNotThrow(f"{action!r} did not raise {exc_type.__qualname__}")


# -- Between drivers ---------------------------------------------------------------------------


def checkpoint(name: str) -> tuple[AsyncAction, AsyncAction]:
    """
    Return two actions for two drivers, of which each waits until the other one is reached.

    They work within a process and between processes.

    :param name: for error messages
    """
    # Each side counts its arrivals, in memory that processes share and no lock guards: a process
    # that is killed can leave nothing locked. As any engine can, the sides look again and again.
    arrivals = RawArray("Q", 2)
    return (
        AsyncAction(_checkpoint, name=name, arrivals=_Arrivals(arrivals, 0)),
        AsyncAction(_checkpoint, name=name, arrivals=_Arrivals(arrivals, 1)),
    )


class _Arrivals:
    """Count how often each side has reached a checkpoint."""

    def __init__(self, counts: MutableSequence[int], side: int) -> None:
        self._counts = counts
        self._side = side

    def arrive(self) -> None:
        self._counts[self._side] += 1

    def withdraw(self) -> None:
        self._counts[self._side] -= 1

    def is_reached(self) -> bool:
        return self._counts[1 - self._side] >= self._counts[self._side]

    def __repr__(self) -> str:
        return f"<side {self._side + 1}>"


async def _checkpoint(
    engine: EngineAPI, endpoint: EndpointAPI, name: str, arrivals: _Arrivals
) -> None:
    arrivals.arrive()
    try:
        while not arrivals.is_reached():
            await engine.sleep(_LOOK_AGAIN)
    except BaseException:
        arrivals.withdraw()  # so that the next run starts even
        raise
