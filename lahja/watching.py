"""
Be told when an entry comes into a directory, or goes, where the system and the extra ``watch`` can.

It is inotify, by ``inotify_simple``: a file descriptor, which any event loop can wait for, and no
thread. Where there is none of it, whoever asks has to look by himself from time to time.
"""

from __future__ import annotations

import contextlib
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .sockets import close_in_children

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DirectoryWatch", "watch_directory"]

_MOST_BYTES = 1 << 16


class DirectoryWatch:
    """
    Be readable when an entry of a directory came or went, or the directory itself did.

    :param path: the directory
    :param library: the module ``inotify_simple``
    :raise OSError: where that cannot be watched, or the system has no room for another watch
    """

    def __init__(self, path: Path, library: Any) -> None:
        flags = library.flags
        self._inotify = library.INotify(nonblocking=True)
        try:
            self._inotify.add_watch(
                path,
                flags.CREATE
                | flags.DELETE
                | flags.MOVED_FROM
                | flags.MOVED_TO
                | flags.DELETE_SELF
                | flags.MOVE_SELF
                | flags.ONLYDIR,
            )
        except BaseException:
            self._inotify.close()
            raise
        close_in_children(self)

    def fileno(self) -> int:
        """Return the file descriptor, or -1 where the watch is closed."""
        return -1 if self._inotify.closed else self._inotify.fileno()

    def clear(self) -> None:
        """Take note of what has happened so far; what there is no room for is still to be read."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._inotify.fileno(), _MOST_BYTES)

    def close(self) -> None:
        """Watch no longer. Idempotent."""
        self._inotify.close()


def watch_directory(path: Path) -> DirectoryWatch | None:
    """Return a watch of a directory, or None where it has to be looked at instead."""
    try:
        library = import_module("inotify_simple")
        return DirectoryWatch(path, library)
    except ImportError:  # the extra is not installed
        return None
    except (OSError, AttributeError):  # no room for another one, or no inotify on this system
        return None
