"""Where to look: the directory that holds the sockets of a bus, and the endpoints there."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from ..directory import default_directory
from .observer import Observer, TapEvent

__all__ = [
    "Lookout",
    "NoDirectoryError",
    "directory_and_types",
    "directory_or_default",
    "sockets_in",
]


class NoDirectoryError(Exception):
    """Report that there is no directory to look into."""


def directory_or_default(given: Path | None, app: str | None) -> Path:
    """
    Return the directory to look into: that of an application of this user where none is given.

    :raise NoDirectoryError: where there is none
    """
    if given is not None and app is not None:
        raise NoDirectoryError("--app chooses a directory: give it, or a directory, not both")
    try:
        directory = default_directory(app) if given is None else given
    except ValueError as error:
        raise NoDirectoryError(str(error)) from error
    if not directory.is_dir():
        what = "is not a directory" if directory.exists() else "does not exist"
        hint = "" if given is not None else ": nobody has joined a bus there; name a directory"
        raise NoDirectoryError(f"{directory} {what}{hint}")
    return directory


def directory_and_types(words: list[str]) -> tuple[Path | None, list[str]]:
    """Tell a directory, which comes first, from names of types; a word with a slash is one."""
    if words and ("/" in words[0] or words[0] in (".", "..") or Path(words[0]).is_dir()):
        return Path(words[0]), words[1:]
    return None, words


def sockets_in(directory: Path) -> list[Path]:
    """
    Return the sockets in a directory, sorted by name.

    :raise NoDirectoryError: where it cannot be read
    """
    found = []
    try:
        for path in directory.iterdir():
            try:
                if stat.S_ISSOCK(path.lstat().st_mode):
                    found.append(path)
            except FileNotFoundError:
                pass  # it was removed meanwhile
    except OSError as error:
        raise NoDirectoryError(f"{directory}: {error.strerror}") from error
    return sorted(found)


class Lookout:
    """
    Observe every endpoint in a directory, those that come later included.

    :param directory: where their sockets are
    :param command: how to introduce oneself
    :param patience: seconds that an endpoint has to answer
    :param patterns: of the types whose events are to be shown
    :param tapped: called with each event that is shown
    :param missed: called with an observer, and how many events were not shown to it
    """

    def __init__(
        self,
        directory: Path,
        command: str,
        patience: float,
        patterns: Iterable[str] = (),
        tapped: TapEvent = lambda *args: None,
        missed: Callable[[Observer, int], None] = lambda observer, count: None,
    ) -> None:
        self.changed = asyncio.Event()  # set when an endpoint comes, leaves or dies
        self._directory = directory
        self._command = command
        self._patience = patience
        self._patterns = tuple(patterns)
        self._tapped = tapped
        self._missed = missed
        self._observers: dict[Path, Observer] = {}
        self._identities: dict[Path, tuple[int, int]] = {}  # of the sockets

    @property
    def observers(self) -> list[Observer]:
        """Those of all endpoints that were ever seen, and not replaced, sorted by name."""
        return sorted(self._observers.values(), key=lambda observer: observer.name)

    async def look(self) -> None:
        """
        Connect to whoever is new, and to those that are there again.

        :raise NoDirectoryError: where the directory cannot be read any more
        """
        new = []
        for path in sockets_in(self._directory):
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue  # it was removed meanwhile
            identity = status.st_ino, status.st_ctime_ns
            if self._identities.get(path) == identity:
                continue  # it is observed, or gone, or as stale as it was
            self._identities[path] = identity
            known = self._observers.get(path)
            if known is not None:
                known.close()
            observer = Observer(path, self._command, self._on_change, self._tapped, self._missed)
            self._observers[path] = observer
            new.append(observer)
        await asyncio.gather(*(self._open(observer) for observer in new))

    async def _open(self, observer: Observer) -> None:
        await observer.open(self._patience, self._patterns)

    async def ask(self) -> None:
        """Ask all of them for statistics, at the same time."""
        await asyncio.gather(*(each.ask(self._patience) for each in self._observers.values()))

    def forget(self, observer: Observer) -> None:
        """Show an endpoint no more, which is gone."""
        del self._observers[observer.path]

    def close(self) -> None:
        """Observe nobody any more."""
        for observer in self._observers.values():
            observer.close()

    def _on_change(self, observer: Observer) -> None:
        self.changed.set()
