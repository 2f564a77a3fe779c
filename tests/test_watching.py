"""The watch of a directory, where the system and an extra can tell of changes."""

from __future__ import annotations

import errno
import select
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lahja.watching import DirectoryWatch, watch_directory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has inotify")


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[DirectoryWatch]:
    """Return a watch of a directory in which there is a file."""
    (tmp_path / "bus").mkdir()
    (tmp_path / "bus" / "file").touch()
    made = watch_directory(tmp_path / "bus")
    assert made is not None
    yield made
    made.close()


def is_readable(watch: DirectoryWatch) -> bool:
    return bool(select.select([watch], [], [], 0)[0])


CHANGES: dict[str, Callable[[Path], object]] = {
    "a file comes": lambda path: (path / "other").touch(),
    "a file goes": lambda path: (path / "file").unlink(),
    "a file is renamed": lambda path: (path / "file").rename(path / "other"),
    "a file comes from elsewhere": lambda path: (path.parent / "x").rename(path / "x"),
    "a file goes elsewhere": lambda path: (path / "file").rename(path.parent / "y"),
    "the directory is renamed": lambda path: path.rename(path.parent / "renamed"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_it_is_readable_after_a_change_and_not_before(
    watch: DirectoryWatch, change: str, tmp_path: Path
) -> None:
    (tmp_path / "x").touch()
    for _ in range(2):
        assert not is_readable(watch)
        watch.clear()
    CHANGES[change](tmp_path / "bus")
    assert is_readable(watch)
    watch.clear()
    assert not is_readable(watch)


def test_it_is_readable_when_the_directory_is_deleted(
    watch: DirectoryWatch, tmp_path: Path
) -> None:
    (tmp_path / "bus" / "file").unlink()
    watch.clear()
    (tmp_path / "bus").rmdir()
    assert is_readable(watch)


def test_what_is_written_to_a_file_is_no_change(watch: DirectoryWatch, tmp_path: Path) -> None:
    (tmp_path / "bus" / "file").write_text("text")
    assert not is_readable(watch)


def test_it_has_no_descriptor_once_it_is_closed(watch: DirectoryWatch) -> None:
    assert watch.fileno() >= 0
    watch.close()
    watch.close()
    assert watch.fileno() == -1


def test_there_is_none_of_what_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "missing"):
        assert watch_directory(tmp_path / name) is None


def test_there_is_none_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "inotify_simple", None)
    assert watch_directory(tmp_path) is None


def test_there_is_none_where_the_system_has_no_room_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(nonblocking: bool) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("inotify_simple.INotify", no_room)
    assert watch_directory(tmp_path) is None


def test_there_is_none_on_a_system_without_inotify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_such_function(nonblocking: bool) -> None:
        raise AttributeError("undefined symbol: inotify_init1")

    monkeypatch.setattr("inotify_simple.INotify", no_such_function)
    assert watch_directory(tmp_path) is None
