"""
Programs for the old lahja, and what they print under it.

``python tests/old_lahja/record.py [--environments FOLDER] [--only-make]``

Runs every program here under lahja 0.14, lahja 0.17 and the lahja of this checkout, and writes what
they print to ``recorded/``, for the tests and for the page about migrating. The old ones run in
environments of their own, which are made in FOLDER where they are not there yet; this needs a
package index. Without FOLDER, ``LAHJA_OLD_PYTHONS`` names their interpreters, as for the tests.
At the end it prints what that variable must be.

``same/``
    programs that print the same under each version
``since_0_17/``
    the same, with what came with 0.16
``differs/``
    programs that print something else now; ``NAME.switched.py`` is ``NAME.py`` with the change that
    gives it an old behaviour back
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
RECORDED = HERE / "recorded"
NOW = "now"
# The last releases of their series that can be had. Their own pins of trio are out of date.
RELEASES = {"0.14": "0.14.5", "0.17": "0.17.0"}
NEEDED = ("async-generator", "trio", "trio-typing")
VARIABLE = "LAHJA_OLD_PYTHONS"
SECONDS = 50


def programs(kind: str) -> list[Path]:
    """Return the programs of a kind."""
    return sorted(path for path in (HERE / kind).glob("*.py") if path.suffixes == [".py"])


def switched(program: Path) -> Path:
    """Return the program with the change that gives it an old behaviour back."""
    return program.with_suffix(".switched.py")


def recorded(program: Path, version: str) -> Path:
    """Return where it is recorded what the program prints under a version."""
    return RECORDED / version / f"{program.stem}.txt"


def versions_of(program: Path) -> list[str]:
    """Return the old versions under which the program runs."""
    return [version for version in RELEASES if recorded(program, version).exists()]


def run(program: Path, python: str, path: str | None = None, *options: str) -> tuple[str, str]:
    """
    Run a program, and return what it writes to its standard output and to its standard error.

    :param path: where Python finds lahja, if not where it always does
    """
    environment = {**os.environ, "PYTHONPATH": path} if path else dict(os.environ)
    if not path:
        environment.pop("PYTHONPATH", None)
    with tempfile.TemporaryDirectory(prefix="lahja") as directory:
        completed = subprocess.run(
            [python, "-P", *options, str(program)],
            cwd=directory,
            env=environment | {"TMPDIR": directory},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    return completed.stdout, completed.stderr


def version_of(python: str) -> str:
    """Return which of the old versions an interpreter has."""
    code = "import importlib.metadata; print(importlib.metadata.version('lahja'))"
    command = [python, "-P", "-c", code]
    full = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return next(version for version, release in RELEASES.items() if release == full)


def old_pythons() -> dict[str, str]:
    """Return, by their version, the interpreters that the environment names."""
    named = filter(None, os.environ.get(VARIABLE, "").split(os.pathsep))
    return {version_of(python): python for python in named}


def make_environments(folder: Path) -> dict[str, str]:
    """Return, by their version, interpreters in the folder; make those that are missing."""
    found = {}
    for version, release in RELEASES.items():
        home = folder / version
        python = str(home / "bin" / "python")
        if not home.exists():
            venv.create(home, with_pip=True)
            install = [python, "-m", "pip", "install", "--quiet"]
            subprocess.run([*install, *NEEDED], check=True)
            subprocess.run([*install, "--no-deps", f"lahja=={release}"], check=True)
        found[version] = python
    return found


def kinds_of(version: str) -> Iterator[str]:
    """Yield the kinds of programs that are recorded under a version."""
    yield "differs"
    if version != NOW:
        yield "same"
    if version == "0.17":
        yield "since_0_17"


def record(pythons: dict[str, str]) -> None:
    """Write what the programs print under the old versions, and under this one."""
    for version, python in {**pythons, NOW: sys.executable}.items():
        path = str(HERE.parents[1]) if version == NOW else None
        (RECORDED / version).mkdir(parents=True, exist_ok=True)
        for kind in kinds_of(version):
            for program in programs(kind):
                output, errors = run(program, python, path)
                if output:
                    recorded(program, version).write_text(output, encoding="utf-8")
                else:  # it uses what came later
                    last = errors.splitlines()[-1]
                    print(f"{version} {program.name}: {last}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description="Record what programs for the old lahja print.")
    parser.add_argument("--environments", type=Path, help="a folder, for the old versions")
    parser.add_argument("--only-make", action="store_true", help="make them, and record nothing")
    arguments = parser.parse_args()
    folder: Path | None = arguments.environments
    pythons = old_pythons() if folder is None else make_environments(folder)
    if pythons.keys() != RELEASES.keys():
        sys.exit(f"name a folder for environments, or interpreters in {VARIABLE}")
    if not arguments.only_make:
        record(pythons)
    print(os.pathsep.join(pythons.values()))


if __name__ == "__main__":
    main()
