"""
Every exception class of lahja.

::

    LahjaError
     ├─ BindError                     an event was broadcast twice
     ├─ ConnectionAttemptRejected     an endpoint refused the connection, or this one did
     ├─ ConnectTimeout                no connection within ``connect_timeout``  (a TimeoutError)
     ├─ EncodeError                   an event that cannot be sent, found before it was
     ├─ LifecycleError                a call at the wrong time, or from the wrong event loop
     │   └─ NoSuchAttribute           … for what it does not have then  (an AttributeError)
     ├─ MissingExtra                  an optional dependency is needed  (an ImportError)
     ├─ NoSubscribers                 nobody is there to receive the event
     ├─ ProtocolError                 a remote endpoint broke the wire format
     │   ├─ DecodeError               … in one event: the connection goes on
     │   ├─ FrameTooLarge             … by a frame over the limit
     │   └─ TruncatedFrame            … by leaving in the middle of a frame
     ├─ RemoteDisconnected            every endpoint that could have answered is gone
     ├─ RequestTimeout                no response within ``timeout``  (a TimeoutError)
     ├─ StreamOverflow                a bounded stream with ``overflow="raise"`` was full
     ├─ UnexpectedResponse            a response of another type than the request announced
     ├─ UnsupportedPlatform           there are no Unix sockets  (a NotImplementedError)
     └─ WaitTimeout                   not everybody was ready within ``timeout``  (a TimeoutError)

``ProtocolError`` and what derives from it are the remote's fault; the endpoint logs them and
goes on. All others are raised to the caller.
"""

from __future__ import annotations

import sys
from typing import ClassVar

__all__ = [
    "BindError",
    "ConnectTimeout",
    "ConnectionAttemptRejected",
    "DecodeError",
    "EncodeError",
    "FrameTooLarge",
    "LahjaError",
    "LifecycleError",
    "MissingExtra",
    "NoSubscribers",
    "NoSuchAttribute",
    "ProtocolError",
    "RemoteDisconnected",
    "RequestTimeout",
    "StreamOverflow",
    "TruncatedFrame",
    "UnexpectedResponse",
    "UnsupportedPlatform",
    "WaitTimeout",
]


class LahjaError(Exception):
    """Be the base of every exception of lahja."""


class BindError(LahjaError):
    """Report that an event is bound to an endpoint already: it was broadcast before."""


class ConnectionAttemptRejected(LahjaError):
    """Report that a connection was refused: by the remote endpoint, or by one's own."""


class ConnectTimeout(LahjaError, TimeoutError):
    """
    Report that no connection could be made in time.

    :param name: the name of the endpoint that was to be reached
    :param path: the path of its socket
    :param seconds: how long it was tried
    :param reason: what stood in the way at the end
    """

    def __init__(self, name: str, path: str, seconds: float, reason: str) -> None:
        super().__init__()
        self.args = (name, path, seconds, reason)  # an OSError would take them for its own
        self.name = name
        self.path = path
        self.seconds = seconds
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"no connection to endpoint {self.name!r} at {self.path} "
            f"within {self.seconds:g} s: {self.reason}"
        )


class EncodeError(LahjaError):
    """
    Report an event that cannot be sent to another process; it has reached nobody.

    :param event_type: the full name of the event's class
    :param reason: what is in the way
    :param field: the attribute that is in the way, where it is one
    """

    def __init__(self, event_type: str, reason: str, field: str | None = None) -> None:
        super().__init__(event_type, reason, field)
        self.event_type = event_type
        self.reason = reason
        self.field = field

    def __str__(self) -> str:
        where = "" if self.field is None else f", field {self.field!r}"
        return f"cannot send {self.event_type}{where}: {self.reason}"


class LifecycleError(LahjaError):
    """Report a call that does not fit the state of the endpoint, or comes from elsewhere."""


class NoSuchAttribute(LifecycleError, AttributeError):
    """Report that an endpoint has no such attribute in its state; so ``hasattr()`` is False."""


class MissingExtra(LahjaError, ImportError):
    """
    Report that a feature needs a package which is not installed.

    :param feature: what was asked for
    :param extra: the extra of lahja that brings the package
    """

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(feature, extra)
        self.feature = feature
        self.extra = extra

    def __str__(self) -> str:
        return f"{self.feature} needs an optional package: pip install 'lahja[{self.extra}]'"


class NoSubscribers(LahjaError):
    """
    Report that no connected endpoint would receive the event.

    :param reason: what is not received, and who might
    :param connected: names of endpoints that are connected, each with the full names of types that
        it is subscribed to; the first eleven of each
    """

    most_shown: ClassVar[int] = 10
    """How many endpoints, and types of each, the text lists."""

    def __init__(
        self, reason: str, connected: tuple[tuple[str, tuple[str, ...]], ...] = ()
    ) -> None:
        super().__init__(reason, connected)
        self.reason = reason
        self.connected = connected

    @classmethod
    def _listed(cls, found: list[str]) -> str:
        shown = [*found[: cls.most_shown], *(["…"] if len(found) > cls.most_shown else [])]
        return ", ".join(shown) or "nothing"

    def __str__(self) -> str:
        if not self.connected:
            return self.reason
        found = [f"{name!r} ({self._listed([*types])})" for name, types in self.connected]
        return f"{self.reason}; connected, and subscribed to: {self._listed(found)}"


class ProtocolError(LahjaError):
    """Report that a remote endpoint sent what the wire format does not allow."""


class DecodeError(ProtocolError):
    """Report a payload that does not decode; its event is lost, the connection goes on."""


class FrameTooLarge(ProtocolError):
    """
    Report a frame over the limit, refused from its header alone.

    :param size: the announced size of the frame, in bytes
    :param limit: the largest size allowed, in bytes
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return f"a frame of {self.size} bytes is over the limit of {self.limit}"


class TruncatedFrame(ProtocolError):
    """
    Report a connection that ended in the middle of a frame.

    :param missing: how many bytes were still to come, or None where even the length was cut
    """

    def __init__(self, missing: int | None) -> None:
        super().__init__(missing)
        self.missing = missing

    def __str__(self) -> str:
        if self.missing is None:
            return "the connection ended in the middle of a frame's length"
        return f"the connection ended in a frame of which {self.missing} bytes were still to come"


class RemoteDisconnected(LahjaError):
    """Report that the remote endpoint left before it had answered."""


class RequestTimeout(LahjaError, TimeoutError):
    """
    Report that no response came in time.

    :param request: the full name of the request's class
    :param seconds: how long was waited
    :param asked: the names of the endpoints that the request went to, and that are connected
    :param details: what is known of each that it went to, for people
    """

    def __init__(
        self,
        request: str,
        seconds: float,
        asked: tuple[str, ...],
        details: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.args = (request, seconds, asked, details)  # an OSError would take them for its own
        self.request = request
        self.seconds = seconds
        self.asked = asked
        self.details = details

    def __str__(self) -> str:
        whom = ", ".join(self.asked) or "nobody"
        said = f"no response to {self.request} within {self.seconds:g} s (sent to: {whom})"
        return "; ".join([said, *self.details])


class StreamOverflow(LahjaError):
    """
    Report that a stream with ``overflow="raise"`` had no room for an event.

    :param event_type: the full name of the class that is streamed
    :param max_queue: how many events the stream was allowed to hold
    """

    def __init__(self, event_type: str, max_queue: int) -> None:
        super().__init__(event_type, max_queue)
        self.event_type = event_type
        self.max_queue = max_queue

    def __str__(self) -> str:
        return f"the stream of {self.event_type} was full: {self.max_queue} events were waiting"


class UnexpectedResponse(LahjaError):
    """Report that the type of a response is not the one that the request announced."""


class UnsupportedPlatform(LahjaError, NotImplementedError):
    """
    Report that the system has no Unix sockets, as Windows, for example.

    What stays within one endpoint works there, too.

    :param action: what was to be done
    """

    def __init__(self, action: str) -> None:
        super().__init__(action)
        self.action = action

    def __str__(self) -> str:
        return (
            f"cannot {self.action}: endpoints talk to each other through Unix sockets, "
            f"which Python does not have on this system ({sys.platform})"
        )


class WaitTimeout(LahjaError, TimeoutError):
    """
    Report that not all endpoints were ready in time.

    :param seconds: how long was waited
    :param not_connected: the names of those that are not connected
    :param not_subscribed: the names of the others that are not ready, each with the full names of
        the types that it has not subscribed to
    """

    def __init__(
        self,
        seconds: float,
        not_connected: tuple[str, ...],
        not_subscribed: tuple[tuple[str, tuple[str, ...]], ...] = (),
    ) -> None:
        super().__init__()
        self.args = (seconds, not_connected, not_subscribed)  # see ConnectTimeout
        self.seconds = seconds
        self.not_connected = not_connected
        self.not_subscribed = not_subscribed

    def __str__(self) -> str:
        missing = []
        if self.not_connected:
            missing.append(f"not connected: {', '.join(map(repr, self.not_connected))}")
        missing += [
            f"{name!r} is connected, but not subscribed to {', '.join(types)}"
            for name, types in self.not_subscribed
        ]
        return f"not everybody was ready within {self.seconds:g} s: {'; '.join(missing)}"
