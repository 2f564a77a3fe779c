"""
The directory in which the endpoints of an application find each other.

The endpoint ``name`` serves at ``name.ipc`` in it, as :meth:`ConnectionConfig.from_name
<lahja.common.ConnectionConfig.from_name>` has it. Where nobody names a directory, there is one for
each user and application, which nobody else can write to.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from .common import ConnectionConfig

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DEFAULT_APP", "BusDirectory", "Identity", "Stamp", "default_directory"]

DEFAULT_APP = "default"
"""The application of those that name none."""

_SUFFIX = ".ipc"
_FOR_OTHERS = stat.S_IWGRP | stat.S_IWOTH

Stamp = tuple[int, int, int]
"""Device and inode of a directory, and when an entry came or went."""


class Identity(NamedTuple):
    """Tell a socket from another one that has, or had, the same path."""

    device: int
    inode: int
    changed: int  # by the file system's clock: an inode may be used again


def default_directory(app: str | None = None) -> Path:
    """
    Return where the endpoints of an application of this user meet.

    It is ``lahja/APP`` in ``XDG_RUNTIME_DIR``, or ``lahja-UID/APP`` in the directory for temporary
    files where that variable names no directory of this user.

    :param app: the name of the application; ``default`` if None
    :raise ValueError: where it cannot be the name of a directory
    """
    app = DEFAULT_APP if app is None else app
    if not isinstance(app, str) or app in ("", ".", "..") or not _is_file_name(app):
        raise ValueError(
            f"app is {app!r}; it names a directory, and so is a text without '/', and not '..'"
        )
    return _default_base() / app


def _default_base() -> Path:
    from pathlib import Path  # see ConnectionConfig.from_name()

    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime):  # others are to be ignored, says its specification
        try:
            status = os.stat(runtime)
        except OSError:
            pass
        else:
            if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
                return Path(runtime, "lahja")
    import tempfile  # not at the top: it brings a dozen modules, and few need it

    return Path(tempfile.gettempdir(), f"lahja-{os.geteuid()}")


def _is_file_name(name: str) -> bool:
    try:
        encoded = os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return b"/" not in encoded and b"\0" not in encoded


class BusDirectory:
    """
    Be the directory of a bus.

    :param path: where it is; None for the default of the user and the application
    :param app: the name of the application, for that default
    :raise ValueError: where both are given, or the name cannot be that of a directory
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, app: str | None = None) -> None:
        if path is not None and app is not None:
            raise ValueError(
                "app chooses a directory, and so does directory: give one of them, not both"
            )
        from pathlib import Path

        self._is_default = path is None
        # Absolute, because the program may change its working directory.
        self.path = default_directory(app) if path is None else Path(os.path.abspath(path))

    def prepare(self) -> None:
        """
        Make the directory, with mode 0700, where it is missing, and check it.

        :raise OSError: where it cannot be used, or where it is the default and not safe
        """
        if self._is_default:
            for each in (self.path.parent, self.path):
                with contextlib.suppress(FileExistsError):
                    each.mkdir(mode=0o700)
                _check_own(each)
            return
        try:
            self.path.mkdir(mode=0o700)
        except FileExistsError:
            if not self.path.is_dir():
                reason = "endpoints join in a directory, and this is none"
                raise NotADirectoryError(errno.ENOTDIR, reason, str(self.path)) from None
        except FileNotFoundError:
            reason = "endpoints join in a directory whose parent is there; make it first"
            raise FileNotFoundError(errno.ENOENT, reason, str(self.path)) from None

    def check(self) -> None:
        """
        Check a directory that is there again.

        :raise OSError: where it is the default and not safe
        """
        if self._is_default:
            for each in (self.path.parent, self.path):
                _check_own(each)

    def config(self, name: str) -> ConnectionConfig:
        """
        Return where the endpoint of the name serves.

        :raise ValueError: where the name cannot be that of a file
        """
        if not _is_file_name(name):
            raise ValueError(
                f"{name!r} cannot be the name of a file, which an endpoint that joins needs for "
                "its socket: choose a name without '/'"
            )
        return ConnectionConfig(name, self.path / f"{name}{_SUFFIX}")

    def stamp(self) -> Stamp:
        """
        Return what changes when an entry comes or goes.

        Two changes within a few milliseconds may share one stamp.

        :raise OSError: where the directory is gone, or cannot be looked at
        """
        status = os.stat(self.path)
        return status.st_dev, status.st_ino, status.st_mtime_ns

    def members(self) -> dict[str, Identity]:
        """
        Return the endpoints that have a socket here, dead or alive, by their names.

        :raise OSError: where the directory is gone, or cannot be read
        """
        found = {}
        with os.scandir(self.path) as entries:
            for entry in entries:
                if not entry.name.endswith(_SUFFIX) or entry.name == _SUFFIX:
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError:  # it went in the meantime
                    continue
                if stat.S_ISSOCK(status.st_mode):
                    identity = Identity(status.st_dev, status.st_ino, status.st_ctime_ns)
                    found[entry.name.removesuffix(_SUFFIX)] = identity
        return found


def _check_own(path: Path) -> None:
    """Raise unless the directory is this user's, and nobody else can write to it."""
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode) and status.st_uid == os.geteuid():
        status = os.stat(path)  # one's own link may lead wherever it is safe
    if stat.S_ISLNK(status.st_mode) or not stat.S_ISDIR(status.st_mode):
        kind = "a link of another user" if stat.S_ISLNK(status.st_mode) else "not a directory"
        reason = f"endpoints join here, but it is {kind}: remove it, or name a directory to join"
        raise NotADirectoryError(errno.ENOTDIR, reason, str(path))
    if status.st_uid != os.geteuid():
        reason = (
            f"endpoints join here, but it belongs to user {status.st_uid}: "
            "remove it, or name a directory to join"
        )
        raise PermissionError(errno.EPERM, reason, str(path))
    if status.st_mode & _FOR_OTHERS:
        reason = (
            f"endpoints join here, but others may write to it (mode "
            f"{stat.S_IMODE(status.st_mode):04o}): chmod 700, or name a directory to join"
        )
        raise PermissionError(errno.EPERM, reason, str(path))
