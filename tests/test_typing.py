"""
What users' type checkers see: mypy and pyright, both as strict as they get, over one file.

They run over a copy of ``typing_checks.py``, which is right, and more lines, which are wrong, in a
directory of its own, where nothing but the installed (or importable) lahja and its ``py.typed`` can
tell them anything. A checker that is not installed is a failure.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import lahja

CHECKS = Path(__file__).with_name("typing_checks.py")
LAHJA = Path(lahja.__file__).parents[1]
IS_INSTALLED = LAHJA.name in ("site-packages", "dist-packages")  # checkers then find it themselves

WRONG = """
def handle_pong(event: Pong) -> None: ...
async def wrong(endpoint: AsyncioEndpoint, other: TrioEndpoint) -> None:
    await endpoint.wait_for(int)
    endpoint.stream("Ping")
    endpoint.stream(Ping, overflow="explode")
    await endpoint.request(Ping(1))
    endpoint.subscribe(Ping, handle_pong)
    other.subscribe(Ping, lambda event: event.text)
    await other.broadcast("Ping")
    print((await other.wait_for(Ping)).text)
    print((await other.request(Ask("?"))).question)
    AsyncioEndpoint("name", conect_timeout=1)
    TrioEndpoint.serve("server")
    AsyncioEndpoint.serve(CONFIG, stall_timeout="long")
    TrioEndpoint.join(CONFIG)
    AsyncioEndpoint.join("name", "run", "trading")
    AsyncioEndpoint.join("name", high_water="much")
    await other.wait_until_all_of({"name"}, subscribed_to="Ping")
    await other.wait_until_all_of({"name"}, 5)
    print((await anext(other.membership())).left)
    endpoint.nothing_of_the_kind()
    d.run_endpoint("client", high_water="much")
    d.wait_for(Ping, on_event=on_pong)
    d.serve_request(Ask, on_ping)
    d.driver(d.wait_for(Ping))
    BroadcastConfig(filter_endpoint=1)
    BaseEndpoint("abstract")
    ConnectionConfig("server")
"""


def run(arguments: list[str], folder: Path, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1, result.stdout + result.stderr  # errors were found; not a crash
    return result.stdout


def errors_of_mypy(folder: Path) -> Mapping[int, str]:
    """Return the errors of each line of the file."""
    options = ["--strict", "--config-file=", "--follow-imports=silent", "--no-incremental"]
    path = {} if IS_INSTALLED else {"MYPYPATH": str(LAHJA)}
    found = run(["mypy", *options, CHECKS.name], folder, **path)
    pattern = rf"^{re.escape(CHECKS.name)}:(\d+): error: (.*)$"
    return {int(line): text for line, text in re.findall(pattern, found, re.MULTILINE)}


def errors_of_pyright(folder: Path) -> Mapping[int, str]:
    """Return the errors of each line of the file."""
    settings = {
        "include": [CHECKS.name],
        "typeCheckingMode": "strict",
        "extraPaths": [] if IS_INSTALLED else [str(LAHJA)],
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    options = ["--outputjson", "--pythonpath", sys.executable]
    found = run(["pyright", *options], folder, PYRIGHT_PYTHON_IGNORE_WARNINGS="1")
    return {
        each["range"]["start"]["line"] + 1: each["message"]
        for each in json.loads(found)["generalDiagnostics"]
    }


@pytest.mark.parametrize("errors_of", [errors_of_mypy, errors_of_pyright], ids=["mypy", "pyright"])
def test_checker_accepts_what_is_right_and_reports_what_is_wrong(
    errors_of: Callable[[Path], Mapping[int, str]], tmp_path: Path
) -> None:
    program = CHECKS.read_text() + WRONG
    (tmp_path / CHECKS.name).write_text(program)
    found = errors_of(tmp_path)
    lines = program.splitlines()
    wrong = range(lines.index(WRONG.splitlines()[3]) + 1, len(lines) + 1)  # counted from one
    assert {line: text for line, text in found.items() if line not in wrong} == {}
    assert [lines[line - 1] for line in wrong if line not in found] == []
