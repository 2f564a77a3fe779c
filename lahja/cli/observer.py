"""
Observe one endpoint: ask it for statistics, and be shown what it broadcasts.

The endpoint is looked at as a stranger would: through its socket, by the protocol alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import errno
import os
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

from .. import wire
from ..asyncio.loop import AsyncioChannel
from ..channels import Channel
from ..exceptions import DecodeError, ProtocolError
from ..flow import Gate
from ..framing import Inlet, Outlet
from ..names import main_module_name
from ..protocol import Connection, Hello, Rejection, State, one_line
from ..sockets import allowed_user, connect, peer_process, peer_user
from ..stats import EndpointStats

__all__ = ["Observer", "Sight", "TapEvent"]

_HIGH_WATER = 1024 * 1024
_MAX_FRAME_SIZE = 16 * 1024 * 1024
_RETRY_SECONDS = 0.01

TapEvent = Callable[["Observer", Inlet, memoryview, int, int], None]
"""Is called with an event that is shown, and to how many it goes, elsewhere and there."""


class Sight(enum.Enum):
    """Say what can be seen of an endpoint."""

    ALIVE = "alive"
    SILENT = "silent"  # it is there, and does not answer
    STALE = "stale"  # nobody listens on its socket any more
    REFUSED = "refused"  # it does not want to be observed, or is no endpoint of ours
    LEFT = "left"
    DIED = "died"

    @property
    def is_over(self) -> bool:
        """Whether there is nothing to be expected any more."""
        return self not in (Sight.ALIVE, Sight.SILENT)


class Observer:
    """
    Be connected to one endpoint, in an asyncio program.

    :param path: of its socket
    :param command: how the observer introduces itself
    :param changed: called when ``sight`` has changed
    :param tapped: called with each event that is shown
    :param missed: called with how many events were not shown
    """

    def __init__(
        self,
        path: Path,
        command: str,
        changed: Callable[[Observer], None] = lambda observer: None,
        tapped: TapEvent = lambda *args: None,
        missed: Callable[[Observer, int], None] = lambda observer, count: None,
    ) -> None:
        self.path = path
        self.sight = Sight.SILENT
        self.reason = ""  # why it is not alive
        self.pid: int | None = None
        self.is_trusted = False  # enough to unpickle what it sends
        self.stats: EndpointStats | None = None  # the latest
        self.connection: Connection | None = None
        self.gates: dict[Outlet, Gate] = {}  # nobody waits for room in an outlet here
        self.writing = 0.0
        self._on_change = changed
        self._on_tapped = tapped
        self._on_missed = missed
        self._patterns: tuple[str, ...] = ()
        self._channel: AsyncioChannel | None = None
        self._loop = asyncio.get_running_loop()
        self._settled: asyncio.Future[None] = self._loop.create_future()
        self._answers: dict[int, asyncio.Future[EndpointStats]] = {}
        self._questions = 0
        instance = os.urandom(wire.INSTANCE_SIZE)
        options = {
            "compression": (),
            "pickle": True,
            "max_frame_size": _MAX_FRAME_SIZE,
            "main": main_module_name(),
            "observe": True,
        }
        name = f"lahja {command} ({os.getpid()})"
        self._hello = Hello(wire.PROTOCOL_VERSION, name, instance, options)

    @property
    def name(self) -> str:
        """The name of the endpoint; that of its socket, as long as it has said none."""
        if self.connection is not None and self.connection.name:
            return one_line(self.connection.name)
        return one_line(self.path.stem)

    # -- What it is asked --------------------------------------------------------------------

    async def open(self, seconds: float, patterns: Iterable[str] = ()) -> bool:
        """
        Connect; return whether the endpoint is there and wants it.

        :param seconds: how long to wait for it
        :param patterns: of the types whose events are to be shown
        """
        self._patterns = tuple(patterns)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                sock = await self._connect()
                if sock is None:
                    return False
                self._channel = AsyncioChannel(self._loop, sock, self, self._make_connection)
                self.connection = self._channel.connection
                self.connection.audience = self
                self.connection.start()
                self._channel.watch_readable()
                await asyncio.shield(self._settled)
        if not self._settled.done():
            self._become(Sight.SILENT, "it does not say hello: is it stopped, or busy?")
        return self.sight is Sight.ALIVE

    async def _connect(self) -> socket.socket | None:
        while True:
            try:
                sock = connect(self.path)
                break
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    self._become(*_cause(error))
                    return None
            await asyncio.sleep(_RETRY_SECONDS)  # its backlog is full
        self.pid = peer_process(sock)
        try:
            user = peer_user(sock)
        except OSError as error:
            sock.close()
            self._become(Sight.STALE, str(error))
            return None
        self.is_trusted = allowed_user(user, frozenset())
        if not self.is_trusted and os.geteuid() != 0:  # root may look at anybody's endpoints
            sock.close()
            self._become(Sight.REFUSED, f"it is of user {user}")
            return None
        return sock

    def _make_connection(self, wake: Callable[[], None]) -> Connection:
        patterns = dict.fromkeys(self._patterns)
        return Connection(
            self, self._hello, lambda: patterns, wake, _HIGH_WATER, self.path.stem or "?"
        )

    async def ask(self, seconds: float) -> EndpointStats | None:
        """Ask for statistics, and return them; None where they do not come in time."""
        connection = self.connection
        if connection is None or connection.state is not State.OPEN:
            return None
        self._questions += 1
        number = self._questions
        answer: asyncio.Future[EndpointStats] = self._loop.create_future()
        self._answers[number] = answer
        connection.ask_stats(number)
        try:
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError:
            if not self.sight.is_over:
                self._become(Sight.SILENT, "it does not answer: is it stopped, or busy?")
            return None
        except ProtocolError as error:
            if not self.sight.is_over:
                self._become(Sight.REFUSED, one_line(error))
            return None
        finally:
            del self._answers[number]

    def close(self) -> None:
        """Observe it no longer. Idempotent."""
        channel = self._channel
        if channel is not None and not channel.closed:
            channel.connection.say_goodbye()
            channel.flush()
            channel.close()

    def _become(self, sight: Sight, reason: str) -> None:
        is_news = sight is not self.sight
        self.sight, self.reason = sight, reason
        if is_news:
            self._on_change(self)

    # -- What its connection tells it --------------------------------------------------------

    def admit(self, connection: Connection) -> Rejection | None:
        """Take any endpoint, whatever it is called."""

    def established(self, connection: Connection) -> None:
        """Take note that the handshake is over."""
        self._become(Sight.ALIVE, "")
        self._settle()

    def refused(self, connection: Connection, rejection: Rejection) -> None:
        """Take note that the endpoint does not want to be observed."""
        self._become(Sight.REFUSED, one_line(rejection.reason))
        self._settle()

    def subscribed(
        self, connection: Connection, added: dict[str, int | None], removed: Iterable[str]
    ) -> None:
        """Leave it to the statistics."""

    def responded(
        self, connection: Connection, inlet: Inlet, request_id: bytes, body: Any, offset: int
    ) -> None:
        """Refuse a response: nothing was requested."""
        self._unwanted("response")

    def credited(self, connection: Connection, name: str, count: int) -> None:
        """Refuse credit: nothing is sent."""
        self._unwanted("credit")

    def undecodable(self, connection: Connection, name: str, error: DecodeError) -> None:
        """Leave it alone: no event is decoded here."""

    def asked(self, connection: Connection, number: int) -> None:
        """Refuse a question: there is nothing to tell."""
        self._unwanted("question")

    def _unwanted(self, what: str) -> NoReturn:
        raise ProtocolError(f"it sent a {what} to an observer")

    def answered(self, number: int, answer: dict[str, Any] | str) -> None:
        """Hand statistics to whoever asked."""
        future = self._answers.get(number)
        if future is None or future.done():
            return
        try:
            if isinstance(answer, str):
                raise ProtocolError(answer)
            self.stats = EndpointStats.from_dict(answer)
            self.pid = self.stats.pid
            self._become(Sight.ALIVE, "")  # at once: it may have left when the asker goes on
            future.set_result(self.stats)
        except (ProtocolError, ValueError) as error:
            future.set_exception(ProtocolError(f"{one_line(error)}"))

    def tapped(self, inlet: Inlet, body: memoryview, elsewhere: int, here: int) -> None:
        """Hand an event to whoever looks."""
        self._on_tapped(self, inlet, body, elsewhere, here)

    def missed(self, count: int) -> None:
        """Take note that some events were not shown."""
        self._on_missed(self, count)

    # -- What its channel tells it -----------------------------------------------------------

    def call_soon(self, function: Callable[[], None]) -> None:
        """Call the function in the event loop's next turn."""
        self._loop.call_soon(function)

    def written(self, outlet: Outlet) -> None:
        """Leave it alone: nobody waits for room."""

    def channel_blocked(self, channel: Channel) -> None:
        """Leave it alone: questions wait, and are not answered in time."""

    def channel_unblocked(self, channel: Channel) -> None:
        """Leave it alone, as before."""

    def channel_ended(self, channel: Channel) -> None:
        """Take note that the connection is over."""
        connection = channel.connection
        error = channel.error
        if error is not None and not isinstance(error, OSError):
            self._become(Sight.REFUSED, one_line(error))
        elif connection.state is State.LEFT:
            self._become(Sight.LEFT, "it left")
        elif connection.state is not State.REFUSED and not connection.goodbye_sent:
            self._become(Sight.DIED, "it left without saying goodbye: it crashed, or was killed")
        self._settle()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ProtocolError("it is gone"))

    def _settle(self) -> None:
        if not self._settled.done():
            self._settled.set_result(None)


def _cause(error: OSError) -> tuple[Sight, str]:
    """Return what an error of connect() says of an endpoint."""
    if isinstance(error, ConnectionRefusedError):
        return Sight.STALE, "nobody listens: it crashed; whoever serves there next removes it"
    if isinstance(error, FileNotFoundError):
        return Sight.LEFT, "it left"
    return Sight.REFUSED, one_line(error.strerror or error)
