"""
The bytes between a connected socket and the connection that is talked through it.

Shared by both event loops, which only say when a socket is readable or writable.
"""

from __future__ import annotations

import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from .exceptions import ProtocolError
from .flow import Gate
from .framing import Outlet
from .protocol import Connection, State

__all__ = ["Channel", "ChannelOwner", "MakeConnection"]

_FLUSH_SIZE = 64 * 1024
_NEVER = 2**62
_IDLE = (
    30e-6  # seconds without a write: about what the system call, and its receiver's waking, take
)
_MOST_BUFFERS = 64
_SEND_BUFFER = 512 * 1024  # of the system, once there are long frames; it may allow less
_NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)  # Python ignores SIGPIPE, a program may not

MakeConnection = Callable[[Callable[[], None]], Connection]
"""Makes a connection, given what to call when there is something to write."""


def _nothing() -> None:
    pass


class ChannelOwner(Protocol):
    """Be told what becomes of a channel."""

    writing: float
    """Seconds that all its channels have spent on writing."""

    def call_soon(self, function: Callable[[], None]) -> None:
        """Call the function in the event loop's next turn."""

    @property
    def gates(self) -> Mapping[Outlet, Gate]:
        """Those that wait for room in an outlet; where there are none, nobody asks for news."""

    def written(self, outlet: Outlet) -> None:
        """Take note that bytes of the outlet were written."""

    def channel_blocked(self, channel: Channel) -> None:
        """Take note that the system takes no more from now on."""

    def channel_unblocked(self, channel: Channel) -> None:
        """Take note that the system takes more again."""

    def channel_ended(self, channel: Channel) -> None:
        """Take note, once, that the channel is closed."""


class Channel(ABC):
    """
    Move the bytes between a connected socket and the connection that is talked through it.

    What is queued on an idle socket is written at once. What follows within some microseconds is
    gathered, and written at the end of the event loop's turn or as soon as there are 64 KiB.

    :param owner: what to tell the news
    :param make: makes the connection
    """

    def __init__(
        self,
        sock: socket.socket,
        owner: ChannelOwner,
        make: MakeConnection,
    ) -> None:
        self.socket = sock
        self.connection = make(self._wake)
        self.settled = Gate()  # opens when the handshake is over, one way or the other
        self.drained: Gate | None = None  # opens when all is written, where somebody waits for it
        self.blocked = False  # the system takes no more
        self.blocked_since = 0.0  # by the event loop's clock
        self.blocked_at = 0.0  # the same by the clock of :func:`time.monotonic`
        self.is_watched = False  # whether a timer looks after a peer that takes nothing
        self.is_stalled = False  # whether it was said that the peer takes nothing
        self.stalls = 0  # how often it took nothing for a while
        self.since = 0.0  # when the handshake was over, in Unix time
        self.pid: int | None = None  # of the peer's process
        self.bytes_sent = 0
        self.heard_at = time.monotonic()  # when something came from the peer
        self.cancel_timer: Callable[[], None] = _nothing  # one at a time: hello, then stall
        self.by_itself = False  # whether it was opened though the program did not ask for it
        self.closed = False
        self.error: Exception | None = None  # what ended it, if something did
        self._owner = owner
        self._outlet = self.connection.outlet
        self._reader = self.connection.reader
        self._get_buffer = self._reader.get_buffer
        self._is_going_on = False  # whether the next turn is asked for
        self._chunks: list[Any] = []  # taken from the outlet, not written yet
        self._gathering = False
        self._written_at = 0.0  # when something was last written
        self._written_when = 0.0  # how long all channels had been writing by then
        self._broken = False  # writing failed; what the peer sent before may still be read
        self._is_wide = False  # whether the system was asked for a longer buffer

    @abstractmethod
    def watch_readable(self) -> None:
        """Call :meth:`on_readable` from now on, whenever there is something to read."""

    @abstractmethod
    def watch_writable(self) -> None:
        """Call :meth:`on_writable` once, when the socket takes more."""

    @abstractmethod
    def release(self) -> None:
        """Give up what the event loop has of the socket, which is about to be closed."""

    def on_readable(self) -> bool:
        """
        Read once, and handle it; return whether there was anything.

        What consumers take long for is handled in several turns. Nothing is read meanwhile.
        """
        if self.closed:
            return False
        if self._reader.has_more:
            self._handle(0)
            return True
        try:
            count = self.socket.recv_into(self._get_buffer())
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._at_end(error)
            return False
        if not count:
            self._at_end(None)
            return False
        self.heard_at = time.monotonic()
        self._handle(count)
        return True

    def _handle(self, count: int) -> None:
        """Handle what waits in the reader's buffer, and so many bytes more."""
        try:
            if self.connection.receive(count):
                state = self.connection.state
                if state is State.LEFT or (state is State.REFUSED and not self._outlet.size):
                    self.close()
        except ProtocolError as error:
            self.close(error)
        except Exception as error:  # a fault of lahja itself, or of memory: it stays in here
            self.close(error)
        if self._reader.has_more and not self._is_going_on:
            self._is_going_on = True
            self._owner.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Handle what was left for this turn."""
        self._is_going_on = False
        if self._reader.has_more and not self.closed:
            self._handle(0)

    def _at_end(self, error: OSError | None) -> None:
        try:
            self.connection.end()
        except ProtocolError as truncation:
            self.close(truncation)
        else:
            self.close(error)

    def on_writable(self) -> None:
        """Go on writing."""
        if self.closed or self._broken:
            return
        self.blocked = False
        self._outlet.threshold = _FLUSH_SIZE if self._gathering else 0
        self._owner.channel_unblocked(self)
        self._write(time.monotonic())

    def _wake(self) -> None:
        """Write what is there, or let it gather; called by the outlet."""
        if self.closed or self.blocked or self._broken:
            return
        # What the other channels wrote meanwhile is no pause of those who broadcast: it would make
        # each event of a flood be written by itself as soon as there are enough peers.
        now = time.monotonic()
        pause = now - self._written_at - (self._owner.writing - self._written_when)
        if self._gathering or pause > _IDLE:
            self._write(now)
        else:
            self._gathering = True
            self._outlet.threshold = _FLUSH_SIZE
            self._owner.call_soon(self._gathered)

    def _gathered(self) -> None:
        """Write what gathered."""
        self._gathering = False
        if not (self.closed or self.blocked or self._broken):
            self._outlet.threshold = 0
            self._write(time.monotonic())

    def _write(self, begun: float) -> None:
        """Write until nothing is left, or the system takes no more."""
        outlet = self._outlet
        chunks = self._chunks
        try:
            while chunks or (outlet.size and (chunks := outlet.take())):
                self._chunks = chunks
                if outlet.has_long and not self._is_wide:
                    self._widen()
                if len(chunks) == 1:
                    count = self.socket.send(chunks[0], _NO_SIGNAL)
                    outlet.size -= count
                    self.bytes_sent += count
                    if count == len(chunks[0]):
                        chunks.clear()
                        continue
                else:
                    count = self.socket.sendmsg(chunks[:_MOST_BUFFERS], (), _NO_SIGNAL)
                    outlet.size -= count
                    self.bytes_sent += count
                _advance(chunks, count)
            self._written_at = now = time.monotonic()
            self._owner.writing = self._written_when = self._owner.writing + now - begun
        except (BlockingIOError, InterruptedError):
            if not self.blocked:
                self.blocked = True
                outlet.threshold = _NEVER
                self.watch_writable()
                self._owner.channel_blocked(self)
        except OSError as error:
            # The peer is gone, most likely; what it said before that may still be read.
            self._broken = True
            outlet.take()
            self._chunks.clear()
            outlet.size = 0
            outlet.threshold = _NEVER
            self.error = error
            self._owner.call_soon(self._give_up)
        if not outlet.size:
            if self.drained is not None:
                self.drained.open()
            if self.connection.state is State.REFUSED:
                self._owner.call_soon(self.close)
        if self._owner.gates:
            self._owner.written(outlet)

    def _widen(self) -> None:
        """Let the system take much at a time, so that the two processes take turns less often."""
        self._is_wide = True
        size = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        if size < _SEND_BUFFER:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)

    def read_the_rest(self) -> None:
        """Handle what a peer that is gone had said, and close."""
        while self.on_readable():
            pass
        self.close(self.error)

    def _give_up(self) -> None:
        """Do the same, in as many turns as consumers need."""
        while self.on_readable():
            if self._reader.has_more:
                self._owner.call_soon(self._give_up)
                return
        self.close(self.error)

    def flush(self) -> None:
        """Write what the system takes now."""
        if not (self.closed or self.blocked or self._broken):
            self._write(time.monotonic())

    def nudge(self) -> bool:
        """
        Return whether the system takes anything, of which it has not told yet.

        It tells when there is much room, or in a turn that this process was too busy to begin.
        """
        size = self._outlet.size
        self._write(time.monotonic())
        return self._outlet.size < size

    def close(self, error: Exception | None = None) -> None:
        """End the connection at once. Idempotent."""
        if self.closed:
            return
        self.closed = True
        self.error = error
        self.release()
        self.socket.close()
        self._outlet.threshold = _NEVER
        if self.drained is not None:
            self.drained.open()
        self.settled.open()
        self._owner.channel_ended(self)
        # What a connection held may be large. It is freed now, and not with other garbage.
        self.connection.release()
        self.cancel_timer = _nothing
        if error is not None:
            error.__traceback__ = error.__context__ = None


def _advance(chunks: list[Any], count: int) -> None:
    """Drop so many bytes from the front."""
    done = 0
    for chunk in chunks:
        if count < len(chunk):
            break
        count -= len(chunk)
        done += 1
    del chunks[:done]
    if count:
        chunks[0] = memoryview(chunks[0])[count:]
