"""The contenders' virtual environments: made once, from a file of pinned versions, and kept."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

__all__ = ["Environments", "Missing", "default_folder", "pins"]

_SECONDS = 600


class Missing(Exception):
    """An environment is not there, and the text says why."""


def pins() -> dict[str, list[str]]:
    """Return what is in each environment, as pip wants it."""
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text())


def default_folder() -> Path:
    """Return where environments are kept, unless somebody says otherwise."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "lahja-benchmarks"


class Environments:
    """
    Make environments when they are asked for, and keep them for the next time.

    All have the Python that runs this. An environment whose pins have changed is another one.

    :param folder: where they are; None to make none, and run what this interpreter can run
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._known: dict[str, str | Missing] = {}

    def python(self, name: str) -> str:
        """
        Return the interpreter of an environment.

        :raise Missing: where it cannot be made
        """
        if name not in self._known:
            try:
                self._known[name] = self._find(name)
            except Missing as error:
                self._known[name] = error
        found = self._known[name]
        if isinstance(found, Missing):
            raise found
        return found

    def _find(self, name: str) -> str:
        packages = pins()[name]
        if self.folder is None:
            if name in ("lahja", "stdlib"):
                return sys.executable
            raise Missing("it needs an environment of its own, and none is to be made")
        python = (platform.python_version(), sys.base_prefix, sys.base_exec_prefix)
        content = hashlib.sha256(json.dumps([python, packages]).encode()).hexdigest()[:12]
        place = self.folder / f"{name}-{content}"
        complete, executable = place / "complete", str(place / "bin" / "python")
        if not complete.exists():
            shutil.rmtree(place, ignore_errors=True)
            print(f"making the environment {name} ...", file=sys.stderr, flush=True)
            options = () if packages else ("--without-pip",)
            _command(sys.executable, "-m", "venv", *options, str(place))
            if packages:
                install = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
                _command(executable, *install, "--no-deps", *packages)
            complete.touch()
        return executable


def _command(*command: str) -> None:
    try:
        subprocess.run(
            command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=_SECONDS
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error).encode()
        lines = [line for line in said.decode(errors="replace").splitlines() if "ERROR" in line]
        raise Missing(f"it could not be installed: {lines[-1] if lines else error}") from error
