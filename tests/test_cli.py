"""The command line, run as a user runs it; and how the demo counts."""

from __future__ import annotations

import fcntl
import importlib.util
import io
import os
import re
import signal
import struct
import subprocess
import termios
from pathlib import Path

import pytest
from programs import Program, run_program
from rich.console import Console

import lahja
from lahja.cli.demo.events import Report
from lahja.cli.demo.ledger import Ledger, percentile
from lahja.cli.demo.node import Tally
from lahja.cli.demo.progress import Progress
from lahja.cli.demo.view import print_summary
from lahja.cli.words import compact
from lahja.framing import IMPLEMENTATION

LOOPS = {
    "ann": "asyncio",
    "bob": "asyncio",
    "cat": "uvloop",
    "dan": "trio",
    "eve": "trio",
    "fay": "trio",
}


def without(*modules: str) -> tuple[str, str]:
    """Return the arguments that run lahja as if these modules were not installed."""
    hide = f"sys.modules.update(dict.fromkeys({modules!r}))"
    return "-c", f"import sys; {hide}; from lahja.cli import main; main()"


# -- The command ---------------------------------------------------------------------------------


MODULES = {
    "snappy": "snappy",
    "trio": "trio",
    "uvloop": "uvloop",
    "watch": "inotify_simple",
    "prometheus": "prometheus_client",
    "opentelemetry": "opentelemetry",
}


def test_version(ipc_dir: Path) -> None:
    outcome = run_program("-m", "lahja", "--version", directory=ipc_dir)
    assert outcome.code == 0
    lines = dict(line.split(maxsplit=1) for line in outcome.output.splitlines())
    assert list(lines) == ["lahja", "framing", *MODULES, "python"]
    assert lines["lahja"].strip() == lahja.__version__
    assert lines["framing"].strip() == IMPLEMENTATION
    for name, module in MODULES.items():
        if importlib.util.find_spec(module) is not None:
            assert re.match(r"\d+\.\d+", lines[name])


def test_version_tells_how_to_get_what_is_missing(ipc_dir: Path) -> None:
    arguments = (*without(*MODULES.values()), "--version")
    outcome = run_program(*arguments, directory=ipc_dir)
    assert outcome.code == 0
    for name in MODULES:
        line = rf"^{name} +not installed \(pip install 'lahja\[{name}\]'\)"
        assert re.search(line, outcome.output, re.MULTILINE)


@pytest.mark.parametrize("module", ["typer", "rich"])
def test_without_the_extra_it_says_what_to_install(module: str, ipc_dir: Path) -> None:
    outcome = run_program(*without(module), "--version", directory=ipc_dir)
    assert outcome.code == 1
    wanted = "lahja: the command line needs an optional package: pip install 'lahja[cli]'\n"
    assert outcome.output == wanted


def test_without_trio_the_demo_says_what_to_install(ipc_dir: Path) -> None:
    outcome = run_program(*without("trio"), "demo", directory=ipc_dir)
    assert outcome.code == 1
    assert outcome.output == (
        "lahja: the demo needs an optional package: pip install 'lahja[trio]'\n"
    )


def test_without_a_command_it_lists_them(ipc_dir: Path) -> None:
    outcome = run_program("-m", "lahja", directory=ipc_dir)
    assert outcome.code == 0
    assert "Usage: lahja" in outcome.output
    assert "demo" in outcome.output


def test_what_it_does_not_know_is_an_error(ipc_dir: Path) -> None:
    outcome = run_program("-m", "lahja", "demo", "--seconds", "-1", directory=ipc_dir)
    assert outcome.code == 2
    assert "--seconds" in outcome.output


# -- The demo ------------------------------------------------------------------------------------


def start_demo(directory: Path, seconds: float, errors: int = subprocess.STDOUT) -> Program:
    arguments = ("-m", "lahja", "demo", "--seconds", str(seconds))
    return Program(*arguments, directory=directory, errors=errors)


def test_demo(ipc_dir: Path) -> None:
    outcome = run_program("-m", "lahja", "demo", "--seconds", "0.5", directory=ipc_dir)
    outcome.assert_clean()
    assert outcome.code == 0
    lines = outcome.output.splitlines()
    assert lines[0] == "lahja demo   6 processes, 15 connections"
    for stage in ("starting", "requests only", "full speed", "done"):
        assert any(stage in line for line in lines)
    rate = re.search(r"^events +([\d,]+) per second from process to process", outcome.output, re.M)
    assert rate is not None
    assert int(rate[1].replace(",", "")) > 0
    trips = re.findall(r"p50 ([\d.]+) ms, p99 ([\d.]+) ms", outcome.output)
    assert len(trips) == 2
    assert all(0 < float(p50) <= float(p99) for p50, p99 in trips)
    lost = r"^lost +0 of [\d,]+ events and answers, 0 twice or out of order$"
    assert re.search(lost, outcome.output, re.M)
    assert re.search(rf"^framing +{IMPLEMENTATION} *$", outcome.output, re.M)


def test_demo_shows_a_live_table_in_a_terminal(ipc_dir: Path) -> None:
    controller, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    arguments = ("-m", "lahja", "demo", "--seconds", "0.5")
    with open(terminal, "wb", buffering=0) as output:
        program = Program(*arguments, directory=ipc_dir, output=output)
    shown = b""
    with program, open(controller, "rb", buffering=0) as screen:
        while True:
            try:
                chunk = screen.read(65536)
            except OSError:  # how Linux says that nobody has the terminal open any more
                break
            if not chunk:
                break
            shown += chunk
        outcome = program.finish()
        program.assert_tidy()
    assert outcome.code == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    assert "Traceback" not in text
    last_table = text[text.rindex("endpoint") :].replace("\r", "")
    rows = [re.split(r"  +", line.strip()) for line in last_table.splitlines()[2:8]]
    assert {row[0]: row[1] for row in rows} == LOOPS
    # What one has sent is what all have received from it.
    for index, row in enumerate(rows):
        assert {other[3 + index] for other in rows} == {row[2]}
    assert re.search(r"lost +0 of", last_table)


def test_ctrl_c_ends_the_demo(ipc_dir: Path) -> None:
    with start_demo(ipc_dir, 1000) as program:
        program.wait_for("requests only")
        program.signal_all(signal.SIGINT)
        outcome = program.finish()
        program.assert_tidy()
    outcome.assert_clean()
    assert outcome.code == 130
    assert "interrupted" in outcome.output


def test_ctrl_c_ends_the_demo_while_it_starts(ipc_dir: Path) -> None:
    with start_demo(ipc_dir, 1000) as program:
        program.wait_for("starting")
        program.signal_all(signal.SIGINT)
        outcome = program.finish()
        program.assert_tidy()
    outcome.assert_clean()
    assert outcome.code == 130


def test_demo_ends_when_nobody_reads_its_output(ipc_dir: Path) -> None:
    # Not to the same pipe: if a line about a slow machine is left in it, Python's exit code is 120.
    with start_demo(ipc_dir, 1000, errors=subprocess.DEVNULL) as program:
        program.wait_for("starting")
        assert program.process.stdout is not None
        program.process.stdout.close()
        program.process.wait()
        program.assert_tidy()
    assert program.process.returncode == 130


def test_demo_fails_when_a_process_dies(ipc_dir: Path) -> None:
    with start_demo(ipc_dir, 1000) as program:
        program.wait_for("requests only")
        program.children()[0].kill()
        outcome = program.finish()
        program.assert_tidy()
    outcome.assert_clean()
    assert outcome.code == 1
    assert re.search(r"failed: process \w+ died \(SIGKILL\)", outcome.output)


def test_nobody_is_left_when_the_demo_is_killed(ipc_dir: Path) -> None:
    with start_demo(ipc_dir, 1000) as program:
        program.wait_for("requests only")
        assert len(program.children()) == 6
        program.process.kill()
        outcome = program.finish()
        program.assert_gone()
    outcome.assert_clean()


DEAF = """
import sys
from lahja.cli import main
from lahja.cli.demo import node, supervisor

def run_deaf_node(plan):
    count = node.Tally.count
    if plan.own.name == "eve":
        node.Tally.count = lambda tally, number: None if number == 0 else count(tally, number)
    node.run_node(plan)

if __name__ == "__main__":
    supervisor._PATIENCE = 1.5
    supervisor.run_node = run_deaf_node
    main()
"""


def test_demo_fails_when_events_are_lost(ipc_dir: Path, tmp_path: Path) -> None:
    script = tmp_path / "deaf.py"
    script.write_text(DEAF)
    outcome = run_program(str(script), "demo", "--seconds", "0.5", directory=ipc_dir)
    outcome.assert_clean()
    assert outcome.code == 1
    lost = re.search(r"^lost +(\d+) of [\d,]+ events", outcome.output, re.M)
    assert lost is not None
    assert 1 <= int(lost[1]) <= 12  # the first of two types, from six processes


# -- Counting ------------------------------------------------------------------------------------


def report(
    *, sent: int = 0, ticks: dict[str, int] | None = None, asked: int = 0, misplaced: int = 0
) -> Report:
    return Report(
        ticks_sent=sent,
        samples_sent=0,
        ticks=ticks or {"a": 0, "b": 0},
        samples={"a": 0, "b": 0},
        misplaced=misplaced,
        asked=asked,
        quiet_trips=(100, 300),
        full_trips=(),
        finished=True,
    )


def test_tally_counts_gaps_and_repetitions() -> None:
    tally = Tally()
    for number in (0, 1, 3, 4, 2, 4):
        tally.count(number)
    assert (tally.in_order, tally.misplaced) == (4, 2)


def test_ledger_misses_what_has_not_arrived() -> None:
    ledger = Ledger(("a", "b"))
    assert not ledger.is_finished
    ledger.take("a", report(sent=10, ticks={"a": 10, "b": 5}, asked=2))
    assert not ledger.is_finished
    ledger.take("b", report(sent=5, ticks={"a": 8, "b": 5}, asked=3, misplaced=1))
    assert ledger.is_finished
    assert ledger.broadcasts == 15
    assert ledger.deliveries == 13
    assert ledger.expected == 2 * 15 + 5
    assert ledger.missing == 2 + 1  # events, and the answer to a request
    assert ledger.misplaced == 1
    assert (ledger.answered("a"), ledger.requests) == (2, 4)
    ledger.take("b", report(sent=5, ticks={"a": 10, "b": 5}, asked=4))
    assert (ledger.missing, ledger.misplaced, ledger.requests) == (0, 0, 6)


def test_only_a_complete_demo_succeeds() -> None:
    progress = Progress({"a": "asyncio", "b": "trio"})
    assert progress.exit_code == 1  # it has not even begun
    progress.ledger.take("a", report(sent=1, ticks={"a": 1, "b": 0}, asked=2))
    progress.ledger.take("b", report(ticks={"a": 1, "b": 0}, asked=2))
    assert progress.exit_code == 0
    progress.is_interrupted = True
    assert progress.exit_code == 130
    progress.failures.append("process b died")
    assert progress.exit_code == 1


@pytest.mark.parametrize("misplaced", [0, 1])
@pytest.mark.parametrize("received", [0, 1])
def test_a_loss_is_an_error_that_the_summary_names(received: int, misplaced: int) -> None:
    progress = Progress({"a": "asyncio", "b": "trio"})
    ticks = {"a": received, "b": 0}
    progress.ledger.take("a", report(sent=1, ticks={"a": 1, "b": 0}, asked=2))
    progress.ledger.take("b", report(ticks=ticks, asked=2, misplaced=misplaced))
    assert progress.exit_code == (0 if received and not misplaced else 1)
    output = io.StringIO()
    print_summary(Console(file=output, width=100), progress)
    lost = f"{1 - received} of 6 events and answers, {misplaced} twice or out of order"
    assert lost in output.getvalue()


def test_percentile() -> None:
    assert percentile([], 50) is None
    assert percentile([7], 99) == 7
    assert percentile(list(range(1, 101)), 50) == 50
    assert percentile(list(range(100, 0, -1)), 99) == 99
    assert percentile([1, 2], 99) == 2


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "·"),
        (1, "1"),
        (999, "999"),
        (1000, "1.00k"),
        (9994, "9.99k"),
        (9996, "10.0k"),
        (99_960, "100k"),
        (999_499, "999k"),
        (999_500, "1.00M"),
        (1_234_567_890, "1.23G"),
    ],
)
def test_compact_numbers_fit_into_their_column(number: int, text: str) -> None:
    assert compact(number) == text
    assert len(text) <= 5
