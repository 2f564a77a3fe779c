"""
How endpoints meet: serving, connecting, and what becomes of a connection.

It belongs to one endpoint, and owns its listener and its channels. Time and tasks come from the
endpoint; who is let in is the router's decision, for all but the user that a process belongs to.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from . import wire
from .channels import Channel
from .common import ConnectionConfig
from .exceptions import (
    ConnectionAttemptRejected,
    ConnectTimeout,
    FrameTooLarge,
    ProtocolError,
    TruncatedFrame,
)
from .explaining import how_they_are
from .flow import Gate
from .framing import Outlet
from .membership import MembershipReason
from .protocol import Connection, Hello, State, control_frame, one_line
from .routing import Router, has_stopped
from .sockets import (
    RETRIED,
    Listener,
    allowed_user,
    connect,
    jitter,
    peer_is_gone,
    peer_process,
    peer_user,
)

if TYPE_CHECKING:
    from pathlib import Path

    from .loops import EventLoop

__all__ = ["Peering", "name_and_path"]

_MOST_STRANGERS = 256
_ACCEPTED_PER_TURN = 64
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
_PAUSE_WHEN_FULL = 0.2  # seconds, where there is no file descriptor for another connection
_SUSPICIOUS = (wire.REJECT_VERSION, wire.REJECT_NAME)  # the others are part of connecting
_NOBODY_IS_THERE = (FileNotFoundError, ConnectionRefusedError)
_FIRST_RETRY = 0.002
_REMEDIES = {
    wire.REJECT_VERSION: "; update lahja in the older of the two",
    wire.REJECT_NAME: "; names must be unique, and sockets where their names say",
}
_SLOWEST_RETRY = 0.1
_STALL = 0.1  # seconds in which a peer takes nothing, and after which that counts as a stall
_STALL_NOTICE = 1.0  # seconds after which it is worth a line


def name_and_path(config: ConnectionConfig, purpose: str) -> tuple[str, Path]:
    """
    Return what a configuration says.

    :param purpose: what it was given for, as the error says it
    :raise TypeError: where it is no configuration
    """
    from pathlib import Path  # see ConnectionConfig.from_name()

    try:
        return config.name, Path(config.path)
    except AttributeError:
        raise TypeError(
            f"to {purpose} takes a ConnectionConfig, which {config!r} is not: make one by "
            "ConnectionConfig.from_name(name)"
        ) from None


class Peering:
    """
    Own the listener and the channels of one endpoint.

    The other parameters are those of :class:`lahja.base.BaseEndpoint`.

    :param loop: the event loop of the endpoint
    """

    def __init__(
        self,
        loop: EventLoop,
        router: Router,
        *,
        connect_timeout: float,
        stall_timeout: float | None,
        hello_timeout: float,
        high_water: int,
        allowed_uids: frozenset[int],
    ) -> None:
        self.listener: Listener | None = None
        self.path: Path | None = None
        self._loop = loop
        self._router = router
        self._connect_timeout = connect_timeout
        self._stall_timeout = stall_timeout
        self._hello_timeout = hello_timeout
        self._high_water = high_water
        self._allowed_uids = allowed_uids
        self._channels: dict[Connection, Channel] = {}
        self._strangers: dict[Channel, None] = {}  # those that said no hello yet, oldest first
        self._attempts: set[str] = set()  # names of endpoints that are being connected to
        self._by_itself: dict[str, Gate] = {}  # the same, where nobody asked for it
        self.drained_for: float | None = None  # seconds, when writing the rest is over
        self._closed = False
        router.is_peer_gone = self._is_peer_gone
        router.on_settled = self._settled
        self.call_soon = loop.call_soon
        self.gates = router.gates
        self.writing = 0.0
        self.written: Callable[[Outlet], None] = router.written

    # -- Serving -----------------------------------------------------------------------------

    def listen(self, path: Path, look: Callable[[tuple[int, int]], None] | None = None) -> None:
        """Let other endpoints connect at a path; see :class:`lahja.sockets.Listener`."""
        listener = Listener(path, look)
        self.stop_listening()
        self.listener = listener
        self.path = self.listener.path
        self._router.hello.options["path"] = _real(path)
        self._loop.watch_readable(self.listener.socket, self._accept)

    def stop_listening(self) -> bool:
        """Let no more endpoints connect; return whether they could until now."""
        listener, self.listener = self.listener, None
        if listener is None:
            return False
        del self._router.hello.options["path"]
        self._loop.unwatch_readable(listener.socket)
        listener.close()
        return True

    def _accept(self) -> float:
        """Take connections in; return how long to take no more."""
        for _ in range(_ACCEPTED_PER_TURN):
            if self.listener is None:
                break
            try:
                sock = self.listener.accept()
            except OSError as error:
                if error.errno in _NO_DESCRIPTORS and self._strangers:
                    oldest = next(iter(self._strangers))
                    oldest.close(
                        ProtocolError(f"it says nothing, while there are {error.strerror}")
                    )
                    continue
                self._warn(
                    "accept",
                    "",
                    f"cannot accept connections for a moment: {error}; see ulimit -n, "
                    "and who has so many files open",
                )
                return _PAUSE_WHEN_FULL
            if sock is None:
                break
            self._welcome(sock)
        return 0.0

    def _welcome(self, sock: socket.socket) -> None:
        try:
            user = peer_user(sock)
        except OSError:  # it left in the meantime
            sock.close()
            return
        if not allowed_user(user, self._allowed_uids):
            self._warn("refused", "", f"refused a process of user {user}; see allowed_uids")
            reason = f"processes of user {user} may not connect; see allowed_uids"
            with contextlib.suppress(OSError):
                sock.send(control_frame(wire.REJECT, wire.REJECT_USER, reason))
            sock.close()
            return
        channel = self._open(sock, user, None)
        self._strangers[channel] = None
        channel.on_readable()  # a peer introduces itself as soon as it connects
        if not channel.closed:
            channel.watch_readable()
        if len(self._strangers) > _MOST_STRANGERS:
            oldest = next(iter(self._strangers))
            oldest.close(ProtocolError("too many connections that say nothing"))
        if channel in self._strangers:
            channel.cancel_timer = self._loop.call_later(
                self._hello_timeout, lambda: self._expect_hello(channel)
            )

    def _expect_hello(self, channel: Channel) -> None:
        channel.on_readable()  # it may have come while this endpoint was busy
        if channel in self._strangers:
            channel.close(ProtocolError(f"no hello within {self._hello_timeout:g} s"))

    # -- Connecting --------------------------------------------------------------------------

    async def connect(self, config: ConnectionConfig) -> None:
        """Connect to one endpoint; see :meth:`lahja.base.EndpointAPI.connect_to_endpoints`."""
        name, path = name_and_path(config, "connect")
        if name == self._router.name:
            raise ConnectionAttemptRejected(f"{name!r} cannot connect to itself")
        if self._is_connected_already(name, path):
            return
        if name in self._attempts:
            raise ConnectionAttemptRejected(f"{name!r} is being connected to already")
        self._attempts.add(name)
        try:
            failure = await self._persist(name, path, by_itself=False)
        finally:
            self._attempts.discard(name)
        if failure is not None and name not in self._router.peers:
            raise ConnectTimeout(name, str(path), self._connect_timeout, str(failure))

    async def connect_by_itself(self, name: str, path: Path) -> OSError | ConnectTimeout | None:
        """
        Connect to an endpoint without being told to by the program.

        :return: None where it is connected then, or what is in the way; that nobody serves there
            is known at once
        :raise ConnectionAttemptRejected: as when connecting otherwise
        """
        ended = self._by_itself[name] = Gate()
        try:
            failure = await self._persist(name, path, by_itself=True)
        finally:
            del self._by_itself[name]
            ended.open()
        if failure is None or isinstance(failure, OSError):
            return failure
        return ConnectTimeout(name, str(path), self._connect_timeout, failure)

    def is_connecting_to(self, name: str) -> bool:
        """Return whether somebody tries to connect to the endpoint."""
        return name in self._attempts or name in self._by_itself

    def _is_connected_already(self, name: str, path: Path) -> bool:
        """Return whether connecting is done; raise where it must not be done."""
        present = self._router.peers.get(name)
        if present is None or self._is_peer_gone(present):
            return False
        # Of two that connect to each other the other one was faster, or join was.
        unasked = present.to is None or self._channels[present].by_itself
        if unasked and present.serves_at == _real(path):
            return True
        raise ConnectionAttemptRejected(f"{name!r} is connected already")

    async def _persist(self, name: str, path: Path, by_itself: bool) -> OSError | str | None:
        """Try until it is connected, and return None, or what was in the way in the end."""
        failure: OSError | str | None = "it was not tried"
        delay = _FIRST_RETRY
        async with self._loop.deadline(self._connect_timeout):
            while True:
                failure = f"it has not said hello ({path} exists)"
                if not by_itself and (ended := self._by_itself.get(name)) is not None:
                    await self._loop.pass_gate(ended)
                    if self._is_connected_already(name, path):
                        return None
                failure = await self._attempt(name, path, by_itself)
                if self._closed and not by_itself:
                    raise has_stopped(self._router.name)
                if failure is None or (by_itself and isinstance(failure, _NOBODY_IS_THERE)):
                    return failure
                await self._loop.sleep(delay * jitter())
                if self._closed and not by_itself:
                    raise has_stopped(self._router.name)
                delay = min(2 * delay, _SLOWEST_RETRY)
        return failure

    async def _attempt(
        self, name: str, path: Path, by_itself: bool = False
    ) -> OSError | str | None:
        """Try once; return None where the endpoint is connected then, or why it is not yet."""
        if name in self._router.peers:
            return None  # the other side was faster
        try:
            sock = connect(path)
        except OSError as error:
            if error.errno in RETRIED:
                return error
            text = f"cannot connect to {name!r} at {path}: {error}"
            raise ConnectionAttemptRejected(text) from error
        try:
            user = peer_user(sock)
        except OSError as error:
            sock.close()
            return error
        if not allowed_user(user, self._allowed_uids):
            sock.close()
            text = f"{name!r} at {path} is served by user {user}; see allowed_uids"
            raise ConnectionAttemptRejected(text)
        channel = self._open(sock, user, name)
        channel.by_itself = by_itself
        connection = channel.connection
        self._router.connecting[name] = connection
        try:
            connection.start()
            channel.watch_readable()
            await self._loop.pass_gate(channel.settled)
        finally:
            self._router.connecting.pop(name, None)
            if connection.state is not State.OPEN:
                connection.say_goodbye()
                channel.flush()
                channel.close()
        if connection.state in (State.OPEN, State.LEFT) or name in self._router.peers:
            return None  # one that has left in the meantime was connected before
        if connection.rejection is not None:
            code, reason = connection.rejection
            if code in (wire.REJECT_SIMULTANEOUS, wire.REJECT_CONNECTED):
                return reason  # there is another connection, which this side will see soon
            raise ConnectionAttemptRejected(f"{name!r} at {path} refused the connection: {reason}")
        if isinstance(channel.error, ProtocolError) and not isinstance(
            channel.error, TruncatedFrame
        ):
            text = f"what serves {name!r} at {path} does not speak our protocol: {channel.error}"
            raise ConnectionAttemptRejected(text) from channel.error
        return "it closed the connection before it said hello"

    # -- Channels ----------------------------------------------------------------------------

    def _open(self, sock: socket.socket, user: int | None, to: str | None) -> Channel:
        router = self._router

        def make_connection(wake: Callable[[], None]) -> Connection:
            hello: Hello = router.hello
            return Connection(router, hello, router.own_subscriptions, wake, self._high_water, to)

        channel = self._loop.open_channel(sock, self, make_connection)
        self._channels[channel.connection] = channel
        channel.connection.is_trusted = allowed_user(user, frozenset())
        channel.pid = peer_process(sock)
        return channel

    def _settled(self, connection: Connection) -> None:
        channel = self._channels[connection]
        if channel in self._strangers:
            del self._strangers[channel]
            if not channel.is_watched:  # then the timer is another one already
                channel.cancel_timer()
        channel.since = time.time()
        channel.settled.open()

    def channel_of(self, connection: Connection) -> Channel | None:
        """Return the channel of a connection; None where it is closed."""
        return self._channels.get(connection)

    def stalled_for(self, channel: Channel) -> float:
        """Return for how many seconds the peer has taken nothing; 0.0 where that is no stall."""
        if not channel.blocked or channel.closed:
            return 0.0
        seconds = time.monotonic() - channel.blocked_at  # in any thread, as a loop's clock is not
        return seconds if seconds >= _STALL else 0.0

    def how_they_are(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return for each of the endpoints whether it is alive, for people."""
        peers = self._router.peers
        channels = {
            name: self._channels.get(peers[name]) if name in peers else None for name in names
        }
        return how_they_are(channels, time.monotonic())

    def channel_blocked(self, channel: Channel) -> None:
        """Disconnect the peer if it takes nothing for too long."""
        channel.blocked_since = self._loop.time()
        channel.blocked_at = time.monotonic()
        if not channel.is_watched:
            channel.is_watched = True
            self._watch_stall(channel, 0.0)

    def _watch_stall(self, channel: Channel, blocked_for: float) -> None:
        """Look again when there may be something to do about a peer that takes nothing."""
        limit = math.inf if self._stall_timeout is None else self._stall_timeout

        def look() -> None:
            blocked_for = self._loop.time() - channel.blocked_since
            if not channel.blocked:
                channel.is_watched = False
            elif blocked_for < limit:
                if blocked_for >= _STALL_NOTICE and not channel.is_stalled:
                    self._notice_stall(channel, blocked_for)
                self._watch_stall(channel, blocked_for)
            elif channel.nudge():
                channel.blocked_since = self._loop.time()
                self._watch_stall(channel, 0.0)
            else:
                waiting = channel.connection.outlet.size
                reason = f"it took nothing for {limit:g} s, while {waiting} bytes waited for it"
                channel.close(TimeoutError(reason))

        left = limit - blocked_for
        if not channel.is_stalled:
            left = min(left, max(_STALL_NOTICE - blocked_for, 0.0))
        if left < math.inf:
            channel.cancel_timer = self._loop.call_later(left, look)
        else:
            channel.is_watched = False

    def _notice_stall(self, channel: Channel, seconds: float) -> None:
        channel.is_stalled = True
        self._say(
            logging.INFO,
            "stall",
            channel.connection.name,
            f"{_shown(channel)} has taken nothing for {seconds:.1f} s, while "
            f"{channel.connection.outlet.size} bytes wait for it: is it stopped, or is its event "
            "loop kept busy?",
        )

    def channel_unblocked(self, channel: Channel) -> None:
        """Count what was a stall, and say that it is over where it was said before."""
        seconds = time.monotonic() - channel.blocked_at
        if seconds >= _STALL:
            channel.stalls += 1
        if channel.is_stalled:
            channel.is_stalled = False
            text = f"{_shown(channel)} takes again what waits for it, after {seconds:.1f} s"
            self._say(logging.INFO, "stall", channel.connection.name, text)

    def channel_ended(self, channel: Channel) -> None:
        """Forget a channel that is closed."""
        connection = channel.connection
        del self._channels[connection]
        self._strangers.pop(channel, None)
        channel.cancel_timer()
        was_connected = self._router.peers.get(connection.name) is connection
        name, error, rejection = connection.name, channel.error, connection.rejection
        whom = _shown(channel)
        if isinstance(error, OSError) and not isinstance(error, TimeoutError):
            error = None  # how a process that is killed looks
        detail = "" if error is None else one_line(error)
        self._router.remove(connection, _reason_for_leaving(connection, error), detail)
        if connection.observes and rejection is None and not isinstance(error, ProtocolError):
            self._say(logging.DEBUG, "observed", "", f"no longer observed by {whom}")
        elif error is not None and not isinstance(error, (ProtocolError, TimeoutError)):
            self._router.reporter.logger.error(
                "%s: closed the connection to %s", self._router.name, whom, exc_info=error
            )
        elif error is not None and (connection.to is None or was_connected):
            text = f"closed the connection to {whom}: {one_line(error)}"
            self._warn("closed", name, text + (_remedy(error) if was_connected else ""))
        elif rejection is not None:
            is_suspicious = connection.to is None and rejection.code in _SUSPICIOUS
            level = logging.WARNING if is_suspicious else logging.DEBUG
            how = "refused the connection of" if connection.to is None else "was refused by"
            text = f"{how} {whom}: {one_line(rejection.reason)}"
            self._say(level, "refused", name, text + _REMEDIES.get(rejection.code, ""))
        elif was_connected and connection.state is State.LEFT:
            self._say(logging.DEBUG, "left", name, f"{whom} left")
        elif was_connected and not connection.goodbye_sent:
            text = f"{whom} left without saying goodbye: did it crash, or was it killed?"
            self._say(logging.INFO, "left", name, text)

    def _is_peer_gone(self, connection: Connection) -> bool:
        channel = self._channels.get(connection)
        if channel is None or channel.closed:
            return True
        if not peer_is_gone(channel.socket):
            return False
        channel.read_the_rest()  # before its successor says anything
        return True

    def _warn(self, kind: str, peer: str, text: str) -> None:
        self._say(logging.WARNING, kind, peer, text)

    def _say(self, level: int, kind: str, peer: str, text: str) -> None:
        self._router.reporter.say(level, kind, peer, "%s", text)

    # -- Leaving -----------------------------------------------------------------------------

    async def drain(self) -> None:
        """Write all that was broadcast, to all peers at once."""
        while (gate := self._undrained()) is not None:
            await self._loop.pass_gate(gate)

    def _undrained(self) -> Gate | None:
        """Return what opens when a peer has got what waits for it; None where nothing does."""
        for connection, channel in self._channels.items():
            if connection.observes:
                continue
            held = self._router.held_gates(connection)
            if held:
                return held[-1]
            if connection.outlet.size:
                channel.drained = Gate()
                return channel.drained
        return None

    def close(self) -> None:
        """Say goodbye, close every channel at once, and say what was not written."""
        self._closed = True
        for connection, channel in list(self._channels.items()):
            channel.flush()
            size, held = connection.outlet.size, len(self._router.held_gates(connection))
            if connection.state is State.OPEN and (size or held) and not connection.observes:
                self._warn_of_loss(connection.name, size, held)
            connection.say_goodbye()
            channel.flush()
            channel.close()

    def _warn_of_loss(self, name: str, size: int, held: int) -> None:
        sizes = {f"{size} bytes": size, f"{held} events held back by flow control": held}
        what = " and ".join(text for text, count in sizes.items() if count)
        if self.drained_for is None:
            text = f"dropped {what}, which {name!r} had not taken yet"
        else:
            text = f"dropped {what}, which {name!r} did not take within {self.drained_for:g} s"
        self._warn("loss", name, one_line(text))


def _shown(channel: Channel) -> str:
    """Return whom a channel leads to, as it may stand in a log."""
    name = channel.connection.name
    return one_line(repr(name)) if name else "a stranger"


def _remedy(error: Exception) -> str:
    """Return what can be done about the end of a connection; empty where that is said already."""
    if isinstance(error, TimeoutError):
        return "; is it stopped, or is its event loop kept busy? See stall_timeout"
    if isinstance(error, FrameTooLarge):
        return "; see max_frame_size"
    return ""


def _reason_for_leaving(connection: Connection, error: Exception | None) -> MembershipReason:
    if connection.state is State.LEFT:
        return MembershipReason.GOODBYE
    if error is None or isinstance(error, TruncatedFrame):  # it was killed while it wrote
        return MembershipReason.CRASHED
    stalled = isinstance(error, TimeoutError)
    return MembershipReason.STALLED if stalled else MembershipReason.FAULTY


def _real(path: Path) -> str:
    return os.path.realpath(path)
