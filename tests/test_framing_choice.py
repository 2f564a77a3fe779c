"""Which framing implementation is taken, and what is said when it is not the compiled one."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType

import pytest

import lahja

SHOW = "import lahja.framing as f; print(f.IMPLEMENTATION)"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the package without its compiled module."""
    root = tmp_path_factory.mktemp("bare")
    ignored = shutil.ignore_patterns("_framing.*", "__pycache__")
    shutil.copytree(Path(lahja.__file__).parent, root / "lahja", ignore=ignored)
    return root


def implementation(root: Path, *options: str, **environment: str) -> tuple[str, str]:
    """Return what a process says that has the package in ``root``: its framing, and its errors."""
    inherited = {key: value for key, value in os.environ.items() if key != "LAHJA_FRAMING"}
    done = subprocess.run(
        # -S: an editable install would bring the compiled module of the checkout back in.
        [sys.executable, "-S", *options, "-c", SHOW],
        env={**inherited, "PYTHONPATH": str(root), "PYTHONWARNINGS": "", **environment},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip(), done.stderr


def test_a_missing_module_falls_back_quietly(bare: Path) -> None:
    assert implementation(bare, "-W", "error") == ("python", "")


def test_a_missing_module_that_is_required_is_an_error(bare: Path) -> None:
    framing, errors = implementation(bare, LAHJA_FRAMING="cython")
    assert framing == ""
    assert "ImportError: LAHJA_FRAMING is 'cython', and the compiled module fails: No" in errors


def test_another_value_of_the_flag_is_an_error(bare: Path) -> None:
    framing, errors = implementation(bare, LAHJA_FRAMING="fast")
    assert framing == ""
    assert "LAHJA_FRAMING is 'fast'; it may be 'cython', 'python' or unset" in errors


@pytest.mark.parametrize(
    "source", ["import a_module_that_is_not_there", "raise ImportError('torn')"], ids=repr
)
def test_a_broken_module_falls_back_with_a_warning(bare: Path, tmp_path: Path, source: str) -> None:
    shutil.copytree(bare, tmp_path, dirs_exist_ok=True)
    (tmp_path / "lahja" / "_framing.py").write_text(source)
    framing, errors = implementation(tmp_path)
    assert framing == "python"
    assert (
        "RuntimeWarning: lahja uses plain Python, because its compiled module is broken" in errors
    )
    framing, errors = implementation(tmp_path, LAHJA_FRAMING="cython")
    assert framing == ""


def test_the_twin_can_be_forced() -> None:
    package = Path(lahja.__file__).parent.parent
    assert implementation(package, "-W", "error", LAHJA_FRAMING="python") == ("python", "")


# -- The choice itself, in this process ------------------------------------------------------


def choose() -> ModuleType:
    """Return the module that chooses, run once more."""
    spec = find_spec("lahja.framing")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Callable[[ImportError | None], None]:
    """Return what lets the compiled module be a fake, or fail to load."""
    monkeypatch.delenv("LAHJA_FRAMING", raising=False)

    def install(error: ImportError | None) -> None:
        def load(name: str, package: str) -> ModuleType:
            assert (name, package) == ("._framing", "lahja")
            if error is not None:
                raise error
            fake = ModuleType("lahja._framing")
            fake.__all__, fake.IMPLEMENTATION = ["IMPLEMENTATION"], "fake"  # type: ignore[attr-defined]
            return fake

        monkeypatch.setattr(importlib, "import_module", load)

    return install


def test_the_compiled_module_is_taken_where_it_is(
    compiled: Callable[[ImportError | None], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled(None)
    assert choose().IMPLEMENTATION == "fake"
    monkeypatch.setenv("LAHJA_FRAMING", "cython")
    assert choose().IMPLEMENTATION == "fake"
    monkeypatch.setenv("LAHJA_FRAMING", "python")
    assert choose().IMPLEMENTATION == "python"
    monkeypatch.setenv("LAHJA_FRAMING", "CYTHON")
    with pytest.raises(ImportError, match=r"'CYTHON'; it may be 'cython', 'python' or unset"):
        choose()


def test_only_a_module_that_is_missing_is_missed_quietly(
    compiled: Callable[[ImportError | None], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = ModuleNotFoundError("it is missing", name="lahja._framing")
    compiled(missing)
    assert choose().IMPLEMENTATION == "python"
    for broken in (
        ImportError("undefined symbol: PyWhat", name="lahja._framing", path="/x.so"),
        ModuleNotFoundError("what it needs is missing", name="numpy"),
    ):
        compiled(broken)
        with pytest.warns(RuntimeWarning, match=rf"compiled module is broken: {broken.msg}"):
            assert choose().IMPLEMENTATION == "python"
    monkeypatch.setenv("LAHJA_FRAMING", "cython")
    for error in (missing, broken):
        compiled(error)
        with pytest.raises(ImportError, match=error.msg):
            choose()
