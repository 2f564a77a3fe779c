"""
Join: be connected to whoever serves in one directory, those that come later included.

Who comes later connects to who was there before. An endpoint learns who that is in the moment in
which it begins to serve, while no other one can begin; so each pair has exactly one side that
connects, and both are connected as soon as the later one is there, however the directory is
watched.

All the rest is repair. Whoever is in the directory and stays unconnected for a moment is connected
to all the same: an endpoint that serves there without having joined, or one whose connection broke.
A socket that refuses connections is tried twice, and then removed; its endpoint is dead. Whoever is
in the way is reported once, and tried again more and more rarely.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from .directory import BusDirectory, Identity, Stamp
from .exceptions import ConnectionAttemptRejected
from .membership import MembershipChange, MembershipReason
from .peering import Peering
from .protocol import one_line
from .routing import Router
from .sockets import jitter, remove_stale
from .watching import DirectoryWatch, watch_directory

if TYPE_CHECKING:
    from .loops import EventLoop

__all__ = ["Joining"]

_POLL = 0.5  # seconds between two looks at the directory, where nothing tells of changes
_SETTLED = 2.0  # seconds after which a change has a stamp of its own on every file system
_UNWATCHED = 2.0  # seconds before a watch is begun: it takes a while, and all have much to do then
_GRACE = 0.5  # seconds that who comes later has to connect by itself
_FIRST_DELAY = 0.1  # seconds before the second attempt; doubled by each further one
_SLOWEST = 30.0
_LASTING = 60.0  # seconds after which a connection that breaks is not taken for a bad sign


class _Member:
    """
    Be another endpoint of the directory.

    :param identity: what its socket is told by
    :param due: when it is to be connected to, by the event loop's clock; infinity for never
    """

    __slots__ = ("complaint", "delay", "due", "identity", "since", "was_refused")

    def __init__(self, identity: Identity, due: float) -> None:
        self.identity = identity
        self.due = due
        self.delay = _FIRST_DELAY
        self.since = math.inf  # when it was connected
        self.was_refused = False
        self.complaint = ""  # what was logged of it

    def postpone(self, now: float) -> None:
        """Let it be tried later, and the next time later still."""
        self.due = now + self.delay * jitter()
        self.delay = min(2 * self.delay, _SLOWEST)


class Joining:
    """Keep one endpoint connected to all others in a directory, from :meth:`begin` on."""

    def __init__(
        self, loop: EventLoop, router: Router, peering: Peering, directory: BusDirectory
    ) -> None:
        self._loop = loop
        self._router = router
        self._peering = peering
        self._directory = directory
        self._path = directory.config(router.name).path
        self._members: dict[str, _Member] = {}
        self._watch: DirectoryWatch | None = None
        self._stamp: Stamp | None = None  # of the last look
        self._unsettled_until = 0.0
        self._watch_due = math.inf
        self._is_news = True  # whether something is to be seen in the directory
        self._trouble = ""  # what keeps this endpoint from being found, as it was logged
        self._woken = False
        self._wake_keeper: Callable[[], None] = _nothing
        self._stopped = False

    def begin(self) -> None:
        """
        Serve, and connect to those that are there; called once.

        :raise OSError: where the directory cannot be used, or another endpoint has the name
        """
        self._directory.prepare()
        self._listen()
        self._router.observers.add(self)
        self._loop.start_soon(self._keep)

    def stop(self) -> None:
        """Connect to nobody any more. Idempotent."""
        self._stopped = True
        self._router.observers.discard(self)
        self._end_watch()
        self._wake()

    def deliver(self, event: MembershipChange, local: bool) -> None:
        """Take note that an endpoint was connected, or is no more."""
        member = self._members.get(event.name)
        now = self._loop.time()
        if member is None:
            return  # it serves elsewhere, or has been here for too short a time to be seen
        if event.joined:
            member.since, member.was_refused = now, False
            return
        if now - member.since > _LASTING:
            member.delay = _FIRST_DELAY
        member.since = math.inf
        if event.reason is MembershipReason.GOODBYE:
            member.due = now + _GRACE  # it took its socket along; another one may have come
        else:
            member.postpone(now)
        self._wake()

    # -- The directory -----------------------------------------------------------------------

    def _listen(self) -> None:
        def look(own: tuple[int, int]) -> None:
            now = self._loop.time()
            self._members.clear()
            with contextlib.suppress(OSError):  # then all others have to wait for their turn
                for name, identity in self._directory.members().items():
                    if identity[:2] != own:
                        self._members[name] = _Member(identity, now)

        self._peering.listen(self._path, look)

    def _look(self, now: float) -> None:
        """Find out who has come and who has gone, if anybody has."""
        if self._watch is not None and not self._is_news:
            return
        try:
            stamp = self._directory.stamp()
            if self._stamp is None or stamp[:2] != self._stamp[:2]:
                self._end_watch()  # it was the one of another directory
                self._watch_due = now + _UNWATCHED
            if now >= self._watch_due:
                self._begin_watch()  # before the directory is read, so that nothing is missed
            if stamp != self._stamp:
                self._unsettled_until = now + _SETTLED
            elif not self._is_news and now > self._unsettled_until:
                return
            self._stamp = stamp
            self._is_news = False
            self._take(self._directory.members(), now)
        except OSError as error:
            self._stamp = None
            self._is_news = True
            self._end_watch()
            self._watch_due = math.inf
            path = self._directory.path
            if isinstance(error, FileNotFoundError):
                self._report(f"{path} is gone: until it is there again, nobody else can join")
            else:
                self._report(f"cannot look into {path}, and so does not see who joins: {error}")

    def _take(self, found: dict[str, Identity], now: float) -> None:
        """Compare who is in the directory with who is known."""
        listener = self._peering.listener
        own = {
            name
            for name, identity in found.items()
            if listener is not None and identity[:2] == listener.identity
        }
        others = {name: identity for name, identity in found.items() if name not in own}
        for name in self._members.keys() - others.keys():
            del self._members[name]
        for name, identity in others.items():
            member = self._members.get(name)
            if member is None or member.identity != identity:
                self._members[name] = _Member(identity, now + _GRACE)
        if not own:
            self._serve_again()
        elif self._trouble:
            self._router.logger.info("%s: it is in %s again", self._router.name, self._path)
            self._trouble = ""

    def _serve_again(self) -> None:
        """Serve anew: somebody has removed the socket, or the directory with all that was in it."""
        try:
            self._directory.check()
            self._listen()
        except OSError as error:
            self._is_news = True
            self._report(f"somebody removed its socket, and it cannot serve anew: {error}")
            return
        if not self._trouble:
            self._report(f"somebody removed its socket, {self._path}; it serves anew")
        self._wake()

    def _begin_watch(self) -> None:
        self._watch_due = math.inf
        self._watch = watch_directory(self._directory.path)
        if self._watch is not None:
            self._is_news = True
            self._loop.watch_readable(self._watch, self._noticed)

    def _end_watch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            self._loop.unwatch_readable(watch)
            watch.close()

    def _noticed(self) -> float:
        """Look soon, and then not for a while: when many come, they come together."""
        if self._watch is not None:
            self._watch.clear()
        self._is_news = True
        self._wake()
        return _GRACE

    def _report(self, trouble: str) -> None:
        """Log what keeps this endpoint from being found; once, not at every look."""
        if trouble != self._trouble:
            self._trouble = trouble
            self._router.logger.warning("%s: %s", self._router.name, trouble)

    # -- Connecting --------------------------------------------------------------------------

    async def _keep(self) -> None:
        while not self._stopped:
            self._woken = False
            now = self._loop.time()
            try:
                self._look(now)
                self._connect_due(now)
            except Exception as error:  # a fault of lahja itself: it must not end the endpoint
                self._router.logger.error(
                    "%s: cannot look after %s", self._router.name, self._path, exc_info=error
                )
            await self._rest()

    async def _rest(self) -> None:
        """Wait until there is something to do."""
        waiter = self._loop.make_waiter()
        self._wake_keeper = waiter.wake
        seconds = min((each.due for each in self._members.values()), default=math.inf)
        seconds -= self._loop.time()
        if self._watch is None or self._is_news:
            seconds = min(seconds, _POLL)
        if self._woken:
            waiter.wake()
        async with self._loop.deadline(max(seconds, 0.0)):
            await waiter.wait()
        self._wake_keeper = _nothing

    def _wake(self) -> None:
        self._woken = True
        self._wake_keeper()

    def _connect_due(self, now: float) -> None:
        """Begin to connect to whoever is to be connected to now."""
        for name, member in self._members.items():
            if member.due > now:
                continue
            member.due = math.inf
            if name in self._router.peers or name == self._router.name:
                member.since = min(member.since, now)
            elif self._peering.is_connecting_to(name):
                member.due = now + _GRACE
            else:
                self._loop.start_soon(self._connect, name, member)

    async def _connect(self, name: str, member: _Member) -> None:
        """Connect to an endpoint, or decide when to try it again."""
        path = self._directory.config(name).path
        failure: Exception | None
        try:
            failure = await self._peering.connect_by_itself(name, path)
        except (ConnectionAttemptRejected, OSError) as error:
            failure = error
        if failure is None or self._stopped or self._members.get(name) is not member:
            return
        if isinstance(failure, FileNotFoundError):
            del self._members[name]
            return
        if not isinstance(failure, ConnectionRefusedError):
            self._complain(member, one_line(failure))
        elif not member.was_refused:
            member.was_refused = True
        elif remove_stale(path):
            self._router.logger.info(
                "%s: removed %s, a socket that %s left behind",
                *(self._router.name, one_line(path), one_line(repr(name))),
            )
            del self._members[name]
            return
        member.postpone(self._loop.time())
        self._wake()

    def _complain(self, member: _Member, complaint: str) -> None:
        """Log why an endpoint is not connected to; once, not at every attempt."""
        if complaint != member.complaint:
            member.complaint = complaint
            self._router.logger.warning("%s: %s (it is tried again)", self._router.name, complaint)


def _nothing() -> None:
    pass
