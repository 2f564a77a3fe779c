"""Unpickling between processes that mean different modules by ``__main__``."""

from __future__ import annotations

import importlib.util
import pickle
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from lahja.pickling import loads_from


def make_module(name: str) -> ModuleType:
    """Return a module with a class ``Thing``, which remembers where it is from."""
    module = ModuleType(name)
    module.Thing = type("Thing", (), {"__module__": name, "origin": name})  # type: ignore[attr-defined]
    return module


def pickled(module_name: str) -> bytes:
    """Return a pickle of ``Thing`` by its name in a module."""
    return f"c{module_name}\nThing\n.".encode()


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """Return what makes another module this process's main module, by its real name or None."""

    def install(real_name: str | None) -> None:
        module = make_module("__main__")
        if real_name is not None:
            module.__spec__ = importlib.util.spec_from_loader(real_name, None)
        for name in ("__main__", "__mp_main__"):
            monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setitem(sys.modules, "other_program", make_module("other_program"))

    return install


Main = Callable[[str | None], None]


@pytest.mark.parametrize("real_name", [None, "own_program"])
def test_where_both_mean_the_same_it_is_pickle_itself(main: Main, real_name: str | None) -> None:
    main(real_name)
    assert loads_from(real_name or "__main__") is pickle.loads


@pytest.mark.parametrize(
    ("ours", "theirs", "named", "found"),
    [
        # They are a program that was started with -m, and this one imports it or not.
        (None, "other_program", "__main__", "other_program"),
        (None, "other_program", "__mp_main__", "other_program"),
        (None, "other_program", "other_program", "other_program"),
        ("own_program", "other_program", "__main__", "other_program"),
        # They import what is the main module here.
        ("own_program", "other_program", "own_program", "__main__"),
        ("own_program", "__main__", "own_program", "__main__"),
        # They are a script: its main module is this one's, too, or nothing helps.
        ("own_program", "__main__", "__main__", "__main__"),
        ("own_program", "__main__", "__mp_main__", "__main__"),
    ],
)
@pytest.mark.parametrize("form", [bytes, bytearray, memoryview])
def test_a_main_module_is_found_by_what_its_process_calls_it(
    main: Main, ours: str | None, theirs: str, named: str, found: str, form: Callable[[bytes], Any]
) -> None:
    main(ours)
    thing = loads_from(theirs)(form(pickled(named)))
    assert thing.origin == found


def test_a_module_that_is_imported_under_its_own_name_is_preferred(
    main: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    main("own_program")
    twice = make_module("own_program")
    monkeypatch.setitem(sys.modules, "own_program", twice)
    assert loads_from("__main__")(pickled("own_program")).origin == "own_program"


def test_other_modules_are_found_as_ever(main: Main) -> None:
    main(None)
    value = {"a": [1, 2.5], "b": ValueError("x").args, "c": pickle.Pickler}
    assert loads_from("other_program")(pickle.dumps(value)) == value


def test_a_broken_pickle_raises_as_ever(main: Main) -> None:
    main(None)
    with pytest.raises((pickle.UnpicklingError, EOFError)):
        loads_from("other_program")(b"")
