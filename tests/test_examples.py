"""The examples: each runs as a user runs it, under every way of starting processes."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import Program, run_program

EXAMPLES = Path(__file__).parent.parent / "examples"

# The start method is the program's default, whatever it is on this system and version of Python.
LAUNCHER = """
import multiprocessing, os, runpy, sys
_, method, *sys.argv = sys.argv
sys.path.insert(0, os.path.dirname(sys.argv[0]))  # as Python does
multiprocessing.set_start_method(method)
runpy.run_path(sys.argv[0], run_name="__main__")
"""

start_methods = pytest.mark.parametrize("start_method", ["fork", "spawn"])


def arguments(start_method: str, example: str, seconds: float | None) -> list[str]:
    limit = [] if seconds is None else ["--seconds", str(seconds)]
    return ["-c", LAUNCHER, start_method, str(EXAMPLES / f"{example}.py"), *limit]


def run(start_method: str, example: str, seconds: float, directory: Path) -> str:
    outcome = run_program(*arguments(start_method, example, seconds), directory=directory)
    outcome.assert_clean()
    assert outcome.code == 0, outcome.output
    return outcome.output


def test_every_example_is_tested() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert names <= tested


@start_methods
def test_inter_process_ping_pong(start_method: str, ipc_dir: Path) -> None:
    output = run(start_method, "inter_process_ping_pong", 0.3, ipc_dir)
    line = re.compile(r"INFO  \d\d-\d\d \d\d:\d\d:\d\d  (.+)")
    matches = [line.fullmatch(text) for text in output.splitlines()]
    assert sorted(match[1] if match else "" for match in matches) == [
        "Hello from proc1",
        "Hello from proc2",
        "Received via STREAM API in proc2: Hit from proc1",
        "Received via SUBSCRIBE API in proc1: Hit from proc2",
        "Received via SUBSCRIBE API in proc2: Hit from proc1",
    ]


@start_methods
def test_request_api(start_method: str, ipc_dir: Path) -> None:
    output = run(start_method, "request_api", 0.3, ipc_dir)
    assert output.splitlines() == ["Requesting", "Got answer: Yay"]


@start_methods
def test_trio_and_asyncio(start_method: str, ipc_dir: Path) -> None:
    lines = run(start_method, "trio_and_asyncio", 0.3, ipc_dir).splitlines()
    assert re.fullmatch(r"asyncio  thermometer measured 2[345]\.\d °C", lines[0])
    assert lines[1] == "asyncio  thermometer changed its offset from 4.5 to 1.5"
    assert lines[-1] == "trio     the thermometer is off"


@start_methods
def test_streams(start_method: str, ipc_dir: Path) -> None:
    output = run(start_method, "streams", 0.2, ipc_dir)
    lines = [line for line in output.splitlines() if ": a stream of" not in line]
    assert lines[:6] == [
        "num_events=3   [0, 1, 2]",
        "async with     the first price above 105 is 105.1",
        "drop_oldest    [95, 96, 97, 98, 99], 95 dropped",
        "drop_newest    [0, 1, 2, 3, 4], 95 dropped",
        "latest         [99], 99 dropped",
        "raise          the stream of __main__:Price was full: 5 events were waiting",
    ]
    block = re.fullmatch(
        r"block +none dropped: it took the sender ([\d.]+) s to send 100", lines[6]
    )
    assert block is not None, output
    assert float(block[1]) >= 0.1
    last = re.fullmatch(r"for some time +(\d+) prices in 0.2 s", lines[7])
    assert last is not None, output
    assert int(last[1]) >= 1000
    assert len(lines) == 8


COMPONENTS = {"database", "discovery", "metrics", "rpc", "syncer"}


def said(output: str, text: str) -> set[str]:
    """Return which processes of the component manager said so."""
    return set(re.findall(rf"^(\w+) +{text}", output, re.MULTILINE))


@start_methods
def test_component_manager(start_method: str, ipc_dir: Path) -> None:
    output = run(start_method, "component_manager", 3, ipc_dir)
    for name in COMPONENTS:
        assert f"main        {name} is available" in output
    found = re.findall(r"^rpc         block (\d+) has the hash [0-9a-f]{12}$", output, re.MULTILINE)
    blocks = [int(number) for number in found]
    assert blocks == sorted(set(blocks))
    assert len(blocks) >= 2
    counts = re.search(
        r"^metrics     counted (\d+) new blocks and (\d+) peers$", output, re.MULTILINE
    )
    assert counts is not None
    assert int(counts[1]) >= 2
    assert int(counts[2]) >= 1
    assert "main        shutting down: the time is over" in output
    assert said(output, "left the bus: the time is over") == COMPONENTS
    assert output.splitlines()[-1] == "main        all components have ended"


@start_methods
def test_join(start_method: str, ipc_dir: Path) -> None:
    output = run(start_method, "join", 1, ipc_dir)
    for name in COMPONENTS:
        assert f"main        '{name}' connected\n" in output
    found = re.findall(r"^rpc         block (\d+) has the hash [0-9a-f]{12}$", output, re.MULTILINE)
    blocks = [int(number) for number in found]
    assert blocks == sorted(set(blocks))
    assert blocks
    counts = re.search(
        r"^metrics     counted (\d+) new blocks and (\d+) peers$", output, re.MULTILINE
    )
    assert counts is not None
    assert said(output, "left the bus: 'main' said goodbye") == COMPONENTS
    assert output.splitlines()[-1] == "main        all components have ended"


def test_join_takes_a_quarter_of_the_lines() -> None:
    """Which is not to say that they should be counted to the last one."""
    joining, managing = (
        len((EXAMPLES / f"{name}.py").read_text().splitlines())
        for name in ("join", "component_manager")
    )
    assert round(managing / joining) >= 4


@pytest.mark.parametrize(
    ("example", "when"),
    [
        ("inter_process_ping_pong", "Received via SUBSCRIBE API in proc1"),
        ("request_api", "Got answer"),
        ("trio_and_asyncio", "measured"),
        ("streams", "block"),
    ],
)
def test_ctrl_c_ends_it_without_a_traceback(example: str, when: str, ipc_dir: Path) -> None:
    seconds = 1000 if example in ("streams", "trio_and_asyncio") else None
    with Program(*arguments("fork", example, seconds), directory=ipc_dir) as program:
        program.wait_for(when)
        program.signal_all(signal.SIGINT)
        outcome = program.finish()
        program.assert_tidy()
    outcome.assert_clean()
    assert outcome.code == 0


@pytest.fixture
def manager(ipc_dir: Path) -> Iterator[Program]:
    """Return a component manager whose components are all at work."""
    with Program(*arguments("fork", "component_manager", None), directory=ipc_dir) as program:
        for _ in COMPONENTS:
            program.wait_for("is available")
        program.wait_for("has the hash")
        yield program


def test_ctrl_c_ends_the_manager_and_its_components(manager: Program) -> None:
    manager.signal_all(signal.SIGINT)
    outcome = manager.finish()
    manager.assert_tidy()
    outcome.assert_clean()
    assert outcome.code == 0
    assert said(outcome.output, "left the bus: SIGINT") == COMPONENTS


def test_a_component_that_dies_ends_the_others(manager: Program) -> None:
    manager.children()[0].kill()
    outcome = manager.finish()
    manager.assert_tidy()
    outcome.assert_clean()
    assert outcome.code == 1
    assert len(said(outcome.output, "left the bus: ")) == len(COMPONENTS) - 1
    assert "has ended by itself, with exit code -9" in outcome.output


def test_components_end_when_the_manager_is_killed(manager: Program) -> None:
    manager.process.kill()
    outcome = manager.finish()
    manager.assert_gone()
    outcome.assert_clean()
    assert said(outcome.output, "left the bus: the main process is gone") == COMPONENTS


@pytest.fixture
def bus(ipc_dir: Path) -> Iterator[Program]:
    """Return the same application as processes that joined."""
    with Program(*arguments("fork", "join", None), directory=ipc_dir) as program:
        for _ in COMPONENTS:
            program.wait_for("' connected")
        program.wait_for("has the hash")
        yield program


def test_ctrl_c_ends_those_that_joined(bus: Program) -> None:
    bus.signal_all(signal.SIGINT)
    outcome = bus.finish()
    bus.assert_tidy()
    outcome.assert_clean()
    assert outcome.code == 0
    assert said(outcome.output, "left the bus: 'main' said goodbye") == COMPONENTS


def test_a_component_that_dies_ends_the_others_that_joined(bus: Program) -> None:
    bus.children()[0].kill()
    outcome = bus.finish()
    bus.assert_tidy()
    outcome.assert_clean()
    assert outcome.code == 1
    left = said(outcome.output, "left the bus: 'main' said goodbye")
    assert len(left) == len(COMPONENTS) - 1
    (dead,) = COMPONENTS - left
    assert f"main        '{dead}' left without saying goodbye" in outcome.output


def test_those_that_joined_end_when_the_main_process_is_killed(bus: Program) -> None:
    bus.process.kill()
    outcome = bus.finish()
    bus.assert_gone()
    outcome.assert_clean()
    assert said(outcome.output, "left the bus: 'main' left without saying goodbye") == COMPONENTS
