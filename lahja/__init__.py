"""
lahja: an event bus for Python applications of many processes.

Each process opens an endpoint; endpoints connect to each other directly, over Unix sockets. An
event is an ordinary object of a class derived from :class:`BaseEvent`; it goes to the endpoints
that subscribed to its type.
"""

from __future__ import annotations

from importlib.util import find_spec as _find_spec
from typing import TYPE_CHECKING, Any

from .asyncio import AsyncioEndpoint
from .base import EndpointAPI
from .common import (
    BaseEvent,
    BaseRequestResponseEvent,
    BroadcastConfig,
    ConnectionConfig,
    Subscription,
)
from .exceptions import (
    BindError,
    ConnectionAttemptRejected,
    ConnectTimeout,
    EncodeError,
    LahjaError,
    LifecycleError,
    MissingExtra,
    NoSubscribers,
    NoSuchAttribute,
    RemoteDisconnected,
    RequestTimeout,
    StreamOverflow,
    UnexpectedResponse,
    UnsupportedPlatform,
    WaitTimeout,
)
from .membership import MembershipChange, MembershipReason
from .streams import Membership, Stream
from .version import __version__ as __version__

if TYPE_CHECKING:
    from .stats import EndpointStats as EndpointStats
    from .trio import TrioEndpoint as TrioEndpoint

__all__ = [
    "AsyncioEndpoint",
    "BaseEvent",
    "BaseRequestResponseEvent",
    "BindError",
    "BroadcastConfig",
    "ConnectTimeout",
    "ConnectionAttemptRejected",
    "ConnectionConfig",
    "EncodeError",
    "EndpointAPI",
    "EndpointStats",
    "LahjaError",
    "LifecycleError",
    "Membership",
    "MembershipChange",
    "MembershipReason",
    "MissingExtra",
    "NoSubscribers",
    "NoSuchAttribute",
    "RemoteDisconnected",
    "RequestTimeout",
    "Stream",
    "StreamOverflow",
    "Subscription",
    "UnexpectedResponse",
    "UnsupportedPlatform",
    "WaitTimeout",
]
if _find_spec("trio") is not None:  # a star import takes only what is there
    __all__ += ["TrioEndpoint"]


def __getattr__(name: str) -> Any:
    """Load what takes long, and few need at once, on first use."""
    if name == "TrioEndpoint":
        from .trio import TrioEndpoint

        return TrioEndpoint
    if name == "EndpointStats":
        from .stats import EndpointStats

        return EndpointStats
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the names of what is there, and of what would be loaded."""
    return sorted({*globals(), *__all__})
