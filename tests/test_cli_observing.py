"""The commands that observe, each run as a user runs it, on a real bus of six processes."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from bus_of_six import BACKENDS, BusOfSix, bus_of_six
from programs import Outcome, Program, run_program

import lahja
from lahja.framing import IMPLEMENTATION

SECONDS = 20.0  # far more than anything takes


@pytest.fixture(scope="module")
def six() -> Iterator[BusOfSix]:
    """Run a bus that every test of this module may look at."""
    directory = Path(tempfile.mkdtemp(prefix="lahja"))
    with bus_of_six(directory) as bus:
        yield bus
    shutil.rmtree(directory)


def run(*arguments: str | Path, directory: Path) -> Outcome:
    """Run the command line to its end; it must not complain."""
    outcome = run_program("-m", "lahja", *map(str, arguments), directory=directory)
    outcome.assert_clean()
    return outcome


def start(*arguments: str | Path, directory: Path, errors: int = subprocess.STDOUT) -> Program:
    return Program("-m", "lahja", *map(str, arguments), directory=directory, errors=errors)


def rows_of(output: str) -> dict[str, list[str]]:
    """Return the rows of a table, by their first cell."""
    found = {}
    for line in output.splitlines():
        cells = re.split(r"  +", line.strip())
        if cells[0] in BACKENDS:
            found[cells[0]] = cells
    return found


# -- ls ------------------------------------------------------------------------------------------


def test_ls_lists_who_is_alive(six: BusOfSix, ipc_dir: Path) -> None:
    outcome = run("ls", six.directory, directory=ipc_dir)
    assert outcome.code == 0
    assert f"{six.directory}   6 of 6 endpoints alive" in outcome.output
    rows = rows_of(outcome.output)
    assert list(rows) == list(BACKENDS)
    for name, row in rows.items():
        wanted = [name, "alive", str(six.pid(name)), BACKENDS[name], IMPLEMENTATION, "5"]
        assert row[:6] == wanted
        assert re.fullmatch(r"\d+ s|\d+ min \d+ s", row[6])


def test_ls_as_json(six: BusOfSix, ipc_dir: Path) -> None:
    outcome = run("ls", six.directory, "--json", directory=ipc_dir)
    endpoints = {each["name"]: each for each in json.loads(outcome.output)}
    assert list(endpoints) == list(BACKENDS)
    for name, endpoint in endpoints.items():
        assert endpoint["state"] == "alive"
        assert endpoint["pid"] == six.pid(name)
        assert endpoint["backend"] == BACKENDS[name]
        assert endpoint["version"] == lahja.__version__
        assert endpoint["path"] == str(six.directory / f"{name}.ipc")
        assert sorted([*endpoint["peers"], name]) == list(BACKENDS)
        assert endpoint["uptime"] > 0


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Let a process stand still."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def bound_socket(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    return sock


def test_ls_tells_who_is_there_no_more_or_says_nothing(ipc_dir: Path, tmp_path: Path) -> None:
    directory = Path(tempfile.mkdtemp(prefix="lahja"))
    bound_socket(directory / "stale.ipc").close()
    (directory / "no socket.ipc").touch()
    (directory / "folder.ipc").mkdir()
    with (
        bound_socket(directory / "silent.ipc") as silent,
        bound_socket(directory / "other.ipc") as other,
    ):
        silent.listen()
        other.listen()
        with start("ls", directory, "--json", "--timeout", "1", directory=ipc_dir) as program:
            stranger, _ = other.accept()
            with stranger:
                stranger.sendall(b"\x80\x04 is how a pickle begins")
                outcome = program.finish()
        outcome.assert_clean()
        endpoints = {each["name"]: each for each in json.loads(outcome.output)}
        states = {name: endpoint["state"] for name, endpoint in endpoints.items()}
        assert states == {"other": "refused", "silent": "silent", "stale": "stale"}
        assert "is over the limit of" in endpoints["other"]["reason"]
        assert endpoints["silent"]["pid"] == os.getpid()
        assert "nobody listens" in endpoints["stale"]["reason"]
        text = run("ls", directory, "--timeout", "0.2", directory=ipc_dir).output
        assert "0 of 3 endpoints alive" in text
        assert re.search(r"stale +stale .*nobody listens", text)
    shutil.rmtree(directory)


def test_ls_of_an_empty_directory(ipc_dir: Path, tmp_path: Path) -> None:
    outcome = run("ls", tmp_path, directory=ipc_dir)
    assert outcome.code == 0
    assert "no endpoint has a socket here" in outcome.output
    assert json.loads(run("ls", tmp_path, "--json", directory=ipc_dir).output) == []


COMMANDS = ("ls", "top", "graph", "tap")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_directory_that_is_none_is_an_error(command: str, ipc_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for path, complaint in (
        (tmp_path / "nowhere", "does not exist"),
        (file, "is not a directory"),
    ):
        outcome = run(command, path, directory=ipc_dir)
        assert outcome.code == 1
        assert outcome.output == f"lahja: {path} {complaint}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_where_nobody_has_joined_there_is_nothing_to_see(
    command: str, ipc_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)  # so that it is the temporary directory
    outcome = run(command, directory=ipc_dir)
    assert outcome.code == 1
    default = ipc_dir / f"lahja-{os.geteuid()}" / "default"
    wanted = f"lahja: {default} does not exist: nobody has joined a bus there; name a directory\n"
    assert outcome.output == wanted
    outcome = run(command, "--app", "..", directory=ipc_dir)
    assert outcome.code == 1
    assert outcome.output.startswith("lahja: app is '..'; it names a directory")
    outcome = run(command, ipc_dir, "--app", "trading", directory=ipc_dir)
    assert outcome.output == (
        "lahja: --app chooses a directory: give it, or a directory, not both\n"
    )


JOINED = """
import asyncio
from lahja import AsyncioEndpoint

async def main():
    async with AsyncioEndpoint.join("ann", app="trading"), AsyncioEndpoint.join("bob") as bob:
        print("joined", flush=True)
        await asyncio.to_thread(input)

asyncio.run(main())
"""


def test_those_who_joined_are_found_without_a_directory(
    ipc_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(ipc_dir))
    with subprocess.Popen(
        [sys.executable, "-c", JOINED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "joined\n"
        for arguments, name in (((), "bob"), (("--app", "trading"), "ann")):
            command = [sys.executable, "-m", "lahja", "ls", "--json", *arguments]
            listed = subprocess.run(command, capture_output=True, text=True, check=True)
            (endpoint,) = json.loads(listed.stdout)
            assert (endpoint["name"], endpoint["state"]) == (name, "alive")
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait(SECONDS) == 0


# -- top -----------------------------------------------------------------------------------------


def test_top_once(six: BusOfSix, ipc_dir: Path) -> None:
    outcome = run("top", six.directory, "--once", "--interval", "0.5", directory=ipc_dir)
    assert outcome.code == 0
    assert "6 alive" in outcome.output
    for header in ("sent/s", "recv/s", "queued", "waiting", "stalls", "p99", "lost"):
        assert header in outcome.output
    rows = rows_of(outcome.output)
    assert list(rows) == list(BACKENDS)
    assert "slow" in rows["ann"][-1]


def test_top_as_json(six: BusOfSix, ipc_dir: Path) -> None:
    arguments = ("top", six.directory, "--once", "--json", "--interval", "1")
    look = json.loads(run(*arguments, directory=ipc_dir).output)
    assert abs(look["time"] - time.time()) < 60
    rows = {row["name"]: row for row in look["endpoints"]}
    assert list(rows) == list(BACKENDS)
    for name, row in rows.items():
        assert (row["sight"], row["reason"], row["pid"]) == ("alive", "", six.pid(name))
        assert (row["backend"], row["peers"]) == (BACKENDS[name], 5)
        assert row["sent"] > 5
        assert row["received"] > 5
        assert 0 < row["requests_p99"] < 10
        assert row["requests_failed"] == 0
    name, seconds = rows["ann"]["slowest"]
    assert name.endswith("<locals>.slow")
    assert 0.15 <= seconds < 10
    assert rows["bob"]["lost"] == 59  # ten bursts of all six, and room for one event
    assert rows["bob"]["waiting"] >= 1


def test_top_goes_on_until_ctrl_c(six: BusOfSix, ipc_dir: Path) -> None:
    with start("top", six.directory, "--interval", "0.1", "--json", directory=ipc_dir) as program:
        for _ in range(3):
            program.wait_for('"endpoints"')
        program.signal_all(signal.SIGINT)
        outcome = program.finish()
        program.assert_tidy()
    outcome.assert_clean()
    assert outcome.code == 130


def test_top_without_a_terminal_prints_one_table_after_the_other(
    six: BusOfSix, ipc_dir: Path
) -> None:
    with start("top", six.directory, "--interval", "0.1", directory=ipc_dir) as program:
        for _ in range(2):
            program.wait_for("slowest handler")
            program.wait_for("fay")
        program.signal_all(signal.SIGTERM)
        outcome = program.finish()
        program.assert_tidy()
    outcome.assert_clean()
    assert "\x1b" not in outcome.output
    assert outcome.code == 143


class Screen:
    """
    Be a terminal, and what a program has written there.

    :param columns: how wide it is
    """

    def __init__(self, columns: int = 120) -> None:
        controller, self.terminal = os.openpty()
        size = struct.pack("4H", 30, columns, 0, 0)
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, size)
        self.file: IO[bytes] = open(controller, "rb", buffering=0)  # noqa: SIM115 - see close()
        self.written = b""

    def wait_for(self, condition: Callable[[str], Any]) -> float:
        """Read until the last picture is as wanted, and return when that was."""
        deadline = time.monotonic() + SECONDS
        while not condition(self.picture):
            assert time.monotonic() < deadline, self.picture
            self.written += self.file.read(65536)
        return time.monotonic()

    @property
    def picture(self) -> str:
        """What was drawn last, with its colours."""
        return self.written.decode(errors="replace").rpartition("\x1b[H")[2]

    def close(self) -> None:
        self.file.close()


RED = r"\x1b\[1;31m"


def shows(name: str, what: str) -> Callable[[str], Any]:
    """Return whether a row of the table says something."""
    pattern = re.compile(rf"{name}\b.*{what}")
    return lambda picture: any(pattern.search(line) for line in picture.splitlines())


@contextmanager
def live_top(directory: Path, tidy: Path) -> Iterator[Screen]:
    """Run ``lahja top`` in a terminal; it must end well."""
    screen = Screen()
    arguments = ("-m", "lahja", "top", str(directory), "--interval", "0.5")
    with open(screen.terminal, "wb", buffering=0) as output:
        program = Program(*arguments, directory=tidy, output=output)
    with program:
        yield screen
        program.signal_all(signal.SIGINT)
        try:
            while chunk := screen.file.read(65536):
                screen.written += chunk
        except OSError:  # how Linux says that nobody has the terminal open any more
            pass
        assert program.process.wait() == 130
        program.assert_tidy()
    screen.close()
    assert b"Traceback" not in screen.written
    assert screen.written.rstrip().endswith(b"\x1b[?1049l")  # the terminal is as it was


def test_what_is_killed_under_top_turns_red_within_a_second(ipc_dir: Path) -> None:
    directory = Path(tempfile.mkdtemp(prefix="lahja"))
    with bus_of_six(directory) as bus, live_top(directory, ipc_dir) as screen:
        for name in BACKENDS:
            screen.wait_for(shows(name, str(bus.pid(name))))
        assert not re.search(RED, screen.picture)
        bus.workers["dan"].kill()
        killed = time.monotonic()
        seen = screen.wait_for(shows(f"{RED}dan", "died.*it left without saying goodbye"))
        assert seen - killed < 1 + _delay_of_this_machine()
        screen.wait_for(lambda picture: "5 alive" in picture and "1 died" in picture)
        with stopped(bus.pid("eve")):
            screen.wait_for(shows("eve", "silent.*it does not answer"))
        screen.wait_for(shows("eve", r"\d+ s"))
        screen.wait_for(lambda picture: "5 alive" in picture)
    shutil.rmtree(directory)


def _delay_of_this_machine() -> float:
    """Return how late a program of no work at all is, where others keep the processors busy."""
    begun = time.monotonic()
    run_program("-c", "pass", directory=Path(tempfile.mkdtemp()))
    return time.monotonic() - begun


def test_top_shows_who_comes_and_who_leaves(ipc_dir: Path) -> None:
    directory = Path(tempfile.mkdtemp(prefix="lahja"))
    with live_top(directory, ipc_dir) as screen:
        screen.wait_for(lambda picture: "no endpoint has a socket here" in picture)
        with bus_of_six(directory):
            screen.wait_for(lambda picture: "6 alive" in picture)
        screen.wait_for(lambda picture: "6 left" in picture or "no endpoint" in picture)
        screen.wait_for(lambda picture: "no endpoint" in picture)
    shutil.rmtree(directory)


# -- graph ---------------------------------------------------------------------------------------


def test_graph_as_mermaid(six: BusOfSix, ipc_dir: Path) -> None:
    outcome = run("graph", six.directory, directory=ipc_dir)
    assert outcome.code == 0
    lines = outcome.output.splitlines()
    assert lines[0] == "graph LR"
    for name, backend in BACKENDS.items():
        assert sum(f'(["{name}<br/>{backend}, pid {six.pid(name)}"])' in li for li in lines) == 1
    types = dict(re.findall(r'(t\d+)\{\{"(\w+)"\}\}', outcome.output))
    assert sorted(types.values()) == ["Answer", "Ask", "Burst", "Tick", "Weather"]
    assert len(re.findall(r"e\d -\.- e\d", outcome.output)) == 15
    number = {name: node for node, name in types.items()}
    assert len(re.findall(rf"e\d -->\|\"[\d,]+\"\| {number['Tick']}$", outcome.output, re.M)) == 6
    assert len(re.findall(rf"^ +{number['Tick']} --> e\d$", outcome.output, re.M)) == 6
    assert len(re.findall(rf"^ +{number['Burst']} --> e\d$", outcome.output, re.M)) == 1
    assert not re.search(rf"{number['Weather']} -->", outcome.output)


def test_graph_as_dot(six: BusOfSix, ipc_dir: Path) -> None:
    outcome = run("graph", six.directory, "--dot", directory=ipc_dir)
    assert outcome.output.startswith("digraph bus {\n")
    assert outcome.output.endswith("}\n")
    assert len(re.findall(r"dir=none", outcome.output)) == 15
    assert rf'label="cat\nuvloop, pid {six.pid("cat")}"' in outcome.output


# -- tap -----------------------------------------------------------------------------------------


def test_tap_shows_events_as_they_would_be_printed(six: BusOfSix, ipc_dir: Path) -> None:
    outcome = run("tap", six.directory, "Tick", "--count", "20", directory=ipc_dir)
    assert outcome.code == 0
    lines = outcome.output.splitlines()
    assert len(lines) == 20
    pattern = r"\d\d:\d\d:\d\d\.\d{3} (\w+) +Tick\(number=(\d+), symbol='LAHJA', price=([\d.]+)\)"
    for line in lines:
        match = re.match(rf"{pattern}  → 5\+1$", line)
        assert match is not None, line
        assert int(match[2]) == float(match[3]) * 4


def test_tap_as_json(six: BusOfSix, ipc_dir: Path) -> None:
    with start("tap", six.directory, "--json", directory=ipc_dir) as program:
        for text in (*BACKENDS, "Tick", "Ask", "Answer", "Weather"):
            program.wait_for(f'"{text}"' if text in BACKENDS else f':{text}"')
        program.signal_all(signal.SIGTERM)
        outcome = program.finish()
    outcome.assert_clean()
    assert outcome.code == 143
    events = [json.loads(line) for line in outcome.output.splitlines()]
    by_type = {event["type"].rpartition(":")[2]: event for event in events}
    assert set(by_type) >= {"Tick", "Ask", "Answer", "Weather"}
    assert {event["origin"] for event in events} == set(BACKENDS)
    assert by_type["Ask"]["kind"] == "request"
    assert by_type["Answer"]["kind"] == "response"
    assert by_type["Tick"]["kind"] == "event"
    assert (by_type["Tick"]["elsewhere"], by_type["Tick"]["here"]) == (5, 1)
    assert (by_type["Ask"]["elsewhere"], by_type["Ask"]["here"]) == (1, 0)
    assert (by_type["Weather"]["elsewhere"], by_type["Weather"]["here"]) == (0, 0)
    assert by_type["Weather"]["fields"] is None
    assert by_type["Tick"]["fields"]["symbol"] == "LAHJA"
    # Nothing of one endpoint is missing, from the first that was shown on.
    ticks = [e["fields"]["number"] for e in events if e["origin"] == "fay" and "Tick" in e["type"]]
    ticks = ticks[:30]  # it may well be too slow for more
    assert ticks == list(range(ticks[0], ticks[0] + len(ticks)))


def test_tap_of_a_qualified_name_and_of_a_pattern(six: BusOfSix, ipc_dir: Path) -> None:
    for pattern in ("bus*:A?k", "bus_of_six:Ask"):
        outcome = run("tap", six.directory, pattern, "--json", "--count", "5", directory=ipc_dir)
        names = {json.loads(line)["type"] for line in outcome.output.splitlines()}
        assert {name.rpartition(":")[2] for name in names} == {"Ask"}


def test_tap_marks_what_nobody_gets_and_says_why_it_is_not_shown(
    six: BusOfSix, ipc_dir: Path
) -> None:
    outcome = run("tap", six.directory, "Weather", "--count", "2", directory=ipc_dir)
    for line in outcome.output.splitlines():
        assert re.search(r"Weather\(<too long to be shown, or .*>\)  → nobody$", line), line


def test_tap_ends_with_ctrl_c(six: BusOfSix, ipc_dir: Path) -> None:
    with start("tap", six.directory, directory=ipc_dir) as program:
        program.wait_for("Tick")
        program.signal_all(signal.SIGINT)
        outcome = program.finish()
        program.assert_tidy()
    outcome.assert_clean()
    assert outcome.code == 130


@pytest.mark.parametrize("arguments", [("tap",), ("tap", "--json"), ("top", "--interval", "0.1")])
def test_they_end_when_nobody_reads_their_output(
    arguments: tuple[str, ...], six: BusOfSix, ipc_dir: Path
) -> None:
    command, *options = arguments
    errors = subprocess.DEVNULL  # as in test_demo_ends_when_nobody_reads_its_output
    with start(command, six.directory, *options, directory=ipc_dir, errors=errors) as program:
        assert program.process.stdout is not None
        program.process.stdout.readline()
        program.process.stdout.close()
        assert program.process.wait(SECONDS) == 141
        program.assert_tidy()


def test_tap_says_whom_it_cannot_observe(ipc_dir: Path) -> None:
    directory = Path(tempfile.mkdtemp(prefix="lahja"))
    bound_socket(directory / "stale.ipc").close()
    with start("tap", directory, directory=ipc_dir) as program:
        program.wait_for("lahja: stale is stale: nobody listens")
        program.signal_all(signal.SIGINT)
        program.finish().assert_clean()
    shutil.rmtree(directory)


def test_the_bus_has_noticed_nothing(six: BusOfSix) -> None:
    """Run last: a healthy bus complains of nothing, whoever looks at it."""
    for worker in six.workers.values():
        assert worker.is_alive
        assert not worker.errors
