"""The directory of a bus: where it is, whose it is, and who is in it."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import tempfile
from pathlib import Path

import pytest

from lahja.directory import DEFAULT_APP, BusDirectory, default_directory

OTHER_USER = 12345


@pytest.fixture
def runtime(ipc_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory that ``XDG_RUNTIME_DIR`` names."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(ipc_dir))
    return ipc_dir


@pytest.fixture
def temporary(ipc_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory for temporary files; there is no ``XDG_RUNTIME_DIR``."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(ipc_dir))
    return ipc_dir


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# -- Where it is -----------------------------------------------------------------------------


def test_the_default_is_in_the_runtime_directory_of_the_user(runtime: Path) -> None:
    assert default_directory() == runtime / "lahja" / DEFAULT_APP
    assert default_directory("trading") == runtime / "lahja" / "trading"
    assert BusDirectory(app="trading").path == runtime / "lahja" / "trading"


def test_without_a_runtime_directory_it_is_among_the_temporary_files(temporary: Path) -> None:
    assert default_directory() == temporary / f"lahja-{os.geteuid()}" / DEFAULT_APP
    assert BusDirectory().path == temporary / f"lahja-{os.geteuid()}" / DEFAULT_APP


@pytest.mark.parametrize("value", ["", "relative", "/no/such/directory", __file__])
def test_a_runtime_directory_that_is_none_is_ignored(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", value)
    assert default_directory() == temporary / f"lahja-{os.geteuid()}" / DEFAULT_APP


def test_the_runtime_directory_of_another_user_is_ignored(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is inherited through ``su`` or ``sudo``."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(temporary))
    monkeypatch.setattr(os, "geteuid", lambda: OTHER_USER)
    assert default_directory() == temporary / f"lahja-{OTHER_USER}" / DEFAULT_APP


@pytest.mark.parametrize("app", ["", ".", "..", "a/b", "/etc", "a\0b", "\ud800", b"bytes", 5])
def test_an_application_that_cannot_name_a_directory_is_a_value_error(
    app: str, temporary: Path
) -> None:
    for call in (default_directory, lambda app: BusDirectory(app=app)):
        with pytest.raises(ValueError, match=r"app is .*; it names a directory"):
            call(app)
    assert list(temporary.iterdir()) == []


def test_an_application_and_a_directory_exclude_each_other(ipc_dir: Path) -> None:
    with pytest.raises(ValueError, match=r"give one of them, not both"):
        BusDirectory(ipc_dir, "trading")


def test_a_directory_that_is_given_is_absolute(
    ipc_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ipc_dir)
    directory = BusDirectory("bus")
    monkeypatch.chdir("/")
    assert directory.path == ipc_dir / "bus"


# -- Whose it is -----------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["runtime", "temporary"])
def test_the_default_is_made_for_its_user_alone(where: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(where)
    umask = os.umask(0)
    try:
        directory = BusDirectory(app="trading")
        directory.prepare()
        directory.prepare()  # another endpoint of the application
        directory.check()
    finally:
        os.umask(umask)
    assert mode_of(directory.path) == mode_of(directory.path.parent) == 0o700


@pytest.mark.parametrize("which", ["the directory", "its parent"])
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o720, 0o777, 0o1777])
def test_a_default_to_which_others_may_write_is_refused(
    temporary: Path, which: str, mode: int
) -> None:
    directory = BusDirectory()
    directory.prepare()
    path = directory.path if which == "the directory" else directory.path.parent
    path.chmod(mode)
    said = rf"others may write to it \(mode {mode:04o}\): chmod 700, .*{path.name}"
    for call in (BusDirectory().prepare, directory.check):
        with pytest.raises(PermissionError, match=said):
            call()
    path.chmod(0o755)  # others may look
    BusDirectory().prepare()


@pytest.mark.parametrize("which", ["the directory", "its parent"])
def test_a_default_that_belongs_to_someone_else_is_refused(
    temporary: Path, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = os.geteuid()
    name = f"lahja-{OTHER_USER}"
    (temporary / name / DEFAULT_APP).mkdir(parents=True, mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: OTHER_USER)
    if which == "the directory":
        real = os.lstat

        def lstat(path: Path) -> os.stat_result:
            found = real(path)
            if Path(path).name == name:
                found = os.stat_result((*found[:4], OTHER_USER, *found[5:]))
            return found

        monkeypatch.setattr("lahja.directory.os.lstat", lstat)
    with pytest.raises(PermissionError, match=rf"it belongs to user {own}: remove it, or name"):
        BusDirectory().prepare()


@pytest.mark.parametrize("which", ["the directory", "its parent"])
def test_a_link_to_a_safe_directory_is_followed_where_it_is_ones_own(
    temporary: Path, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = BusDirectory()
    target = temporary / "target"
    target.mkdir(mode=0o700)
    path = directory.path if which == "the directory" else directory.path.parent
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.symlink_to(target)
    directory.prepare()
    target.chmod(0o777)
    with pytest.raises(PermissionError, match=r"others may write to it \(mode 0777\)"):
        directory.prepare()


def test_a_link_of_another_user_is_refused(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = temporary / "target"
    target.mkdir(mode=0o700)
    (temporary / f"lahja-{OTHER_USER}").symlink_to(target)
    monkeypatch.setattr(os, "geteuid", lambda: OTHER_USER)
    with pytest.raises(NotADirectoryError, match=r"it is a link of another user: remove it, or"):
        BusDirectory().prepare()


def test_a_file_in_the_place_of_the_default_is_refused(temporary: Path) -> None:
    directory = BusDirectory()
    directory.path.parent.mkdir(mode=0o700)
    directory.path.touch()
    with pytest.raises(NotADirectoryError, match=r"it is not a directory: remove it, or name"):
        directory.prepare()


def test_a_directory_that_is_given_is_made_where_it_is_missing(ipc_dir: Path) -> None:
    directory = BusDirectory(ipc_dir / "bus")
    directory.prepare()
    assert mode_of(directory.path) == 0o700
    directory.path.chmod(0o777)  # whoever gives one has decided who may write to it
    directory.prepare()
    directory.check()
    assert mode_of(directory.path) == 0o777


def test_a_directory_that_is_given_needs_its_parent(ipc_dir: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"whose parent is there; make it first.*a/b"):
        BusDirectory(ipc_dir / "a" / "b").prepare()


def test_a_directory_that_is_given_and_is_none_is_refused(ipc_dir: Path) -> None:
    (ipc_dir / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"and this is none.*file"):
        BusDirectory(ipc_dir / "file").prepare()


# -- Who is in it ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", ".", "..", "a b", ".hidden", "ä–ö", "a.ipc", "-"])
def test_an_endpoint_is_found_by_its_name(ipc_dir: Path, name: str) -> None:
    directory = BusDirectory(ipc_dir)
    config = directory.config(name)
    assert config == (name, ipc_dir / f"{name}.ipc")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(config.path))
        assert directory.members().keys() == {name}


@pytest.mark.parametrize("name", ["a/b", "/", "../a", "a\0b", "\ud800"])
def test_a_name_that_cannot_be_that_of_a_file_is_a_value_error(ipc_dir: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be the name of a file.*choose a name without"):
        BusDirectory(ipc_dir).config(name)


def test_what_is_not_the_socket_of_an_endpoint_is_passed_over(ipc_dir: Path) -> None:
    with (
        socket.socket(socket.AF_UNIX) as sock,
        socket.socket(socket.AF_UNIX) as nameless,
        socket.socket(socket.AF_UNIX) as other,
    ):
        sock.bind(str(ipc_dir / "real.ipc"))
        nameless.bind(str(ipc_dir / ".ipc"))
        other.bind(str(ipc_dir / "other.sock"))
        (ipc_dir / "file.ipc").touch()
        (ipc_dir / "directory.ipc").mkdir()
        (ipc_dir / "link.ipc").symlink_to(ipc_dir / "real.ipc")
        (ipc_dir / "dangling.ipc").symlink_to(ipc_dir / "nothing")
        assert BusDirectory(ipc_dir).members().keys() == {"real"}


def test_a_socket_that_is_replaced_is_another_one(ipc_dir: Path) -> None:
    directory = BusDirectory(ipc_dir)
    identities = set()
    for _ in range(3):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(ipc_dir / "a.ipc"))
            identities.add(directory.members()["a"])
            stamp = directory.stamp()
            (ipc_dir / "a.ipc").unlink()
            while directory.stamp() == stamp:  # the clock of the file system is a coarse one
                (ipc_dir / "x").touch()
                (ipc_dir / "x").unlink()
    assert len(identities) == 3


def test_a_directory_that_is_gone_is_an_error(ipc_dir: Path) -> None:
    directory = BusDirectory(ipc_dir / "bus")
    for call in (directory.stamp, directory.members):
        with pytest.raises(FileNotFoundError):
            call()


def test_a_socket_that_goes_while_the_directory_is_read_is_passed_over(
    ipc_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = BusDirectory(ipc_dir)
    listing = os.scandir

    def list_and_remove(path: Path) -> contextlib.AbstractContextManager[list[os.DirEntry[str]]]:
        with listing(path) as entries:
            found = list(entries)
        directory.config("gone").path.unlink()
        return contextlib.nullcontext(found)

    for name in ("gone", "here"):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(directory.config(name).path))
    monkeypatch.setattr(os, "scandir", list_and_remove)
    assert directory.members().keys() == {"here"}
