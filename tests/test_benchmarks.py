"""
The comparison with other libraries: its arithmetic, its tables, and that it works.

What needs no installation runs as a user would run it, with few events. Failures are provoked with
contenders that do not do what they should.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lahja.framing import IMPLEMENTATION

CHECKOUT = Path(__file__).parents[1]
sys.path.append(str(CHECKOUT))  # where the package ``benchmarks`` is, which is not installed

from benchmarks.peers import contestants, environments, tables  # noqa: E402
from benchmarks.peers.__main__ import main  # noqa: E402
from benchmarks.peers.campaign import Campaign  # noqa: E402
from benchmarks.peers.contestants import CONTENDERS, QUICK, Contender  # noqa: E402
from benchmarks.peers.environments import Environments, Missing, pins  # noqa: E402
from benchmarks.peers.results import Probe, Results, Spread  # noqa: E402
from benchmarks.peers.rows import FULL, OTHERS, Claim, claims, comparisons, extras  # noqa: E402
from benchmarks.peers.rows import QUICK as SCALE  # noqa: E402
from benchmarks.peers.runner import Failed, Runner, quantiles, roles, summary  # noqa: E402
from benchmarks.peers.work import Node, Work  # noqa: E402

ABOUT = {"processor": "a", "cores": 2, "system": "b", "python": "c", "rounds": 3, "seconds": 1.0}
OURS = Probe("group", "lahja-asyncio", Work("stream"))
THEIRS = Probe("group", "pipe", Work("stream"))
RATIO = Claim(
    1, "ours against theirs", ((OURS, "rate"), (THEIRS, "rate")), lambda a, b: a / b, 4, True
)


def results_of(ours: list[float | None], theirs: list[float | None]) -> Results:
    """Return results with these rates, round by round."""
    results = Results(ABOUT)
    for probe, rates in ((OURS, ours), (THEIRS, theirs)):
        for rate in rates:
            results[probe].runs.append(None if rate is None else {"rate": rate})
    return results


# -- Figures ---------------------------------------------------------------------------------


def test_a_ratio_is_the_median_of_the_ratios_of_the_rounds() -> None:
    results = results_of([10, 60, 40], [10, 20, 1])  # the ratio of the medians would be 4
    assert RATIO.values(results) == [1, 3, 40]
    assert Spread.of(RATIO.values(results)) == Spread(3, 1, 40)
    assert RATIO.is_met(results) is False


def test_rounds_in_which_somebody_failed_do_not_count() -> None:
    results = results_of([10, None, 30, 40], [10, 10, None, 5])
    assert RATIO.values(results) == [1, 8]
    assert RATIO.is_met(results) is True


def test_a_target_is_not_met_where_lahja_failed_even_once() -> None:
    results = results_of([50, None, 50], [10, 10, 10])
    results[THEIRS].failures.append("theirs")
    assert RATIO.is_met(results) is True
    results[OURS].failures.append("ours")
    assert RATIO.is_met(results) is False
    assert RATIO.trouble(results) == "lahja-asyncio: stream failed in 1 of 3: ours"


def test_a_target_is_unknown_where_nothing_was_measured() -> None:
    results = Results(ABOUT)
    assert RATIO.is_met(results) is None
    results.left_out["pipe"] = "nobody asked"
    assert RATIO.trouble(results) == "pipe: nobody asked"
    assert Spread.of([]) is None


@pytest.mark.parametrize(
    ("at_least", "ours", "met"), [(True, 40, True), (True, 39, False), (False, 40, True)]
)
def test_a_bound_itself_is_within_the_bound(at_least: bool, ours: float, met: bool) -> None:
    claim = Claim(1, "", RATIO.terms, RATIO.combine, 4, at_least)
    assert claim.is_met(results_of([ours], [10])) is met
    assert (
        Claim(1, "", RATIO.terms, RATIO.combine, 4, False).is_met(results_of([41], [10])) is False
    )


def test_the_processor_time_of_a_further_receiver_is_compared_with_that_of_the_first() -> None:
    (claim,) = (claim for claim in claims(FULL) if claim.row == 11)
    results = Results(ABOUT)
    for (probe, figure), value in zip(claim.terms, (2.0, 2.6), strict=True):
        results[probe].runs.append({figure: value})
    assert claim.values(results) == [pytest.approx(0.1)]


def test_the_distance_from_the_limit_is_that_from_the_slower_half() -> None:
    (claim,) = (claim for claim in claims(FULL) if claim.row == 8)
    results = Results(ABOUT)
    for (probe, figure), value in zip(claim.terms, (30.0, 100.0, 60.0), strict=True):
        results[probe].runs.append({figure: value})
    assert claim.values(results) == [0.5]


def test_a_distribution_has_more_points_where_few_requests_are_slow() -> None:
    points = quantiles([float(number) for number in range(10_000)])
    assert points == sorted(points)
    assert points[0] == 0
    assert points[25] == 9000
    assert points[50] == 9900
    assert points[-1] == 9999
    assert quantiles([7.0])[0] == quantiles([7.0])[-1] == 7


def test_the_time_of_a_stream_ends_with_the_last_receiver() -> None:
    reports = {
        "receiver0": {"end": 12.0},
        "receiver1": {"end": 14.0},
        "sender0": {"begin": 10.0, "worked": 2.0},
    }
    assert summary(Work("stream", receivers=2), 100, 0.0, reports) == {
        "rate": 50.0,  # deliveries: two for each event
        "sender": 0.02,
    }


def test_the_time_of_a_mesh_begins_with_its_first_process() -> None:
    reports = {"member0": {"end": 11.5}, "member1": {"end": 13.0}}
    assert summary(Work("mesh", processes=2), 1, 10.0, reports) == {"seconds": 3.0}


def test_growth_is_that_of_the_process_that_grew_more() -> None:
    reports = {"receiver0": {"growth": 1.0}, "sender0": {"growth": 1.5}}
    assert summary(Work("endure"), 1, 0.0, reports) == {"growth": 1.5}


# -- What is measured ------------------------------------------------------------------------


def test_every_row_has_its_claims() -> None:
    assert [*dict.fromkeys(claim.row for claim in claims(FULL))] == [*range(1, 16)]


@pytest.mark.parametrize("claim", claims(FULL), ids=lambda claim: f"{claim.row}: {claim.text}")
def test_a_claim_compares_what_takes_turns(claim: Claim) -> None:
    assert len({probe.group for probe, _ in claim.terms}) == 1
    for probe, _ in claim.terms:
        assert probe.contender in CONTENDERS


def test_every_group_is_shown() -> None:
    shown = {comparison.group for comparison in comparisons(FULL)} | {*OTHERS}
    groups = {probe.group for claim in claims(FULL) for probe, _ in claim.terms}
    assert shown == groups
    for probe in extras(FULL):
        assert probe.group in groups or re.fullmatch(r"(size|fan-out) \d+", probe.group)


def test_everybody_warms_up_with_equally_many_events_and_no_more_than_memory_has_room_for() -> None:
    assert Work("stream").warm_up == Work("ask").warm_up == 1000
    assert Work("stream", size=1_000_000).warm_up == 16
    assert Work("stream", size=64 << 20).warm_up == 2


def test_a_node_is_told_everything_on_its_command_line() -> None:
    work = Work("stream", receivers=3)
    node = Node("raw_socket", "blocking", False, "receiver", 2, "/somewhere", work, 50)
    assert Node.loads(node.dumps()) == node
    assert node.total == 1050
    assert str(work) == "stream receivers=3"


@pytest.mark.parametrize("name", QUICK)
def test_there_is_somebody_for_every_role(name: str) -> None:
    contender = CONTENDERS[name]
    needed = {
        (probe.work.kind, role)
        for probe in (*extras(FULL), *(p for claim in claims(FULL) for p, _ in claim.terms))
        if probe.contender == name and not probe.work.kind.startswith("import ")
        for role, number in roles(contender, probe.work).items()
        if number
    }
    code = f"from benchmarks.peers.contenders.{contender.module} import ROLES; print(*ROLES)"
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert needed
    for kind, role in needed:
        assert repr((kind, role)) in told.stdout


# -- Results and tables ----------------------------------------------------------------------


def test_results_survive_being_written(tmp_path: Path) -> None:
    results = results_of([10, None], [5, 5])
    results[OURS].failures.append("it hung")
    results.left_out["zenoh"] = "no wheel"
    results.contenders["pipe"] = {"implementation": "blocking", "versions": {}}
    path = tmp_path / "results.json"
    results.write(path)
    read = Results.read(path)
    assert RATIO.values(read) == [2]
    assert [*read.failures()] == [(OURS, 1, "it hung")]
    assert (read.about, read.left_out, read.contenders) == (
        results.about,
        results.left_out,
        results.contenders,
    )
    again = tmp_path / "again.json"
    read.write(again)
    assert again.read_text() == path.read_text()


def test_a_table_is_aligned() -> None:
    assert tables.format_table(("a", "number"), [("long", "1"), ("x", "22")], "lr") == (
        textwrap.dedent("""\
            | a    | number |
            | ---- | -----: |
            | long |      1 |
            | x    |     22 |""")
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234567.8, "1,234,568"), (100, "100"), (99.96, "100.0"), (12.34, "12.3"), (0.256, "0.26")],
)
def test_a_figure_has_three_digits(value: float, text: str) -> None:
    assert tables.format_figure(value) == text


def test_the_table_of_the_targets_says_what_was_measured_and_what_was_not() -> None:
    results = results_of([40, 60, 50], [10, 10, 10])
    unknown = Claim(
        2, "ours against zenoh", ((OURS, "rate"), (Probe("group", "zenoh", OURS.work), "rate")),
        RATIO.combine, 6, True,
    )  # fmt: skip
    results.left_out["zenoh"] = "there is no wheel"
    lines = tables.targets([RATIO, unknown], results).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert cells == [
        ["1", "ours against theirs", "5.00", "4.00 to 6.00", "≥ 4", "met"],
        ["2", "ours against zenoh", "–", "zenoh: there is no wheel", "≥ 6", "?"],
    ]


def test_a_comparison_begins_with_the_best() -> None:
    results = Results(ABOUT)
    trips = {"pipe": 2e-5, "lahja-asyncio": 4e-5, "queue": 8e-5}
    for name, seconds in trips.items():
        results[Probe("round trip", name, Work("ask"))].runs.append({"p50": seconds})
    (comparison,) = (each for each in comparisons(FULL) if each.figure == "p50")
    lines = tables.comparison(comparison, results).splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [(row[0], row[1], row[3]) for row in cells] == [
        ("pipe", "20.0", "0.50"),
        ("lahja-asyncio", "40.0", "1.00"),
        ("queue", "80.0", "2.00"),
    ]
    assert tables.comparison(comparison, Results(ABOUT)) == ""


# -- Rounds ----------------------------------------------------------------------------------


class Pretender(Runner):
    """Measure nothing, and remember in which order it was asked."""

    def __init__(self, run: Callable[[str, int], dict[str, Any]]) -> None:
        self.asked: list[tuple[str, int]] = []
        self.answer = run

    def run(self, contender: Contender, work: Work, count: int) -> dict[str, Any]:
        self.asked.append((contender.name, count))
        return self.answer(contender.name, len(self.asked))


def measure(run: Callable[[str, int], dict[str, Any]], *probes: Probe) -> tuple[Pretender, Results]:
    """Measure in three rounds of half a second."""
    runner, results = Pretender(run), Results(ABOUT)
    Campaign(runner, results, rounds=3, seconds=0.5).measure(probes)
    return runner, results


def test_contenders_take_turns_with_as_many_events_as_take_the_time() -> None:
    runner, results = measure(
        lambda name, _: {"rate": {"pipe": 1000, "lahja-asyncio": 8000}[name]}, OURS, THEIRS, OURS
    )
    assert runner.asked[:2] == [("lahja-asyncio", 2000), ("pipe", 2000)]  # how fast are they?
    assert runner.asked[2:] == [("lahja-asyncio", 4000), ("pipe", 500)] * 3
    assert RATIO.values(results) == [8, 8, 8]


def test_one_who_fails_does_not_stop_the_others() -> None:
    def run(name: str, number: int) -> dict[str, Any]:
        if name == "pipe" or number == 5:
            raise Failed("it fell over")
        return {"rate": 1000}

    _, results = measure(run, THEIRS, OURS)
    assert results[THEIRS].runs == []
    assert results[THEIRS].failures == ["it fell over"] * 2  # once more, to be sure
    assert results[OURS].runs == [{"rate": 1000}, None, {"rate": 1000}]
    assert results[OURS].failures == ["it fell over"]


def test_one_who_cannot_be_installed_is_left_out_with_the_reason() -> None:
    def run(name: str, number: int) -> dict[str, Any]:
        if name == "pipe":
            raise Missing("no wheel for this Python")
        return {"rate": 1000, "about": {"implementation": "cython", "versions": {}}}

    runner, results = measure(run, OURS, THEIRS)
    assert results.left_out == {"pipe": "no wheel for this Python"}
    assert [name for name, _ in runner.asked].count("pipe") == 1
    assert [*results.contenders] == ["lahja-asyncio"]
    assert "left out, because no wheel for this Python: pipe" in tables.notes(results)


# -- Processes -------------------------------------------------------------------------------


class Fake(Environments):
    """Be one environment, whose interpreter is a script."""

    def __init__(self, script: str, folder: Path) -> None:
        super().__init__(None)
        self.program = folder / "python"
        self.program.write_text(f"#!{sys.executable}\n{script}")
        self.program.chmod(0o755)

    def python(self, name: str) -> str:
        return str(self.program)


def report(values: str) -> str:
    """Return the script of a process that reports these values."""
    return f"""
import json, sys
node = json.loads(sys.argv[-1])
with open(f"{{node['folder']}}/{{node['role']}}{{node['index']}}.json", "w") as file:
    json.dump({values}, file)
"""


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("raise SystemExit('no luck')", "its (receiver|sender) said: no luck"),
        ("", "its (receiver|sender) ended without a report: it said nothing"),
        (
            report("{'about': {'implementation': 'python'}}"),
            "cython was to run, python has run",
        ),
        (
            report("{'about': {'implementation': 'cython', 'snappy': True}}"),
            "python-snappy was in use",
        ),
    ],
)
def test_a_process_that_does_not_do_its_work_ends_the_run(
    script: str, reason: str, tmp_path: Path
) -> None:
    runner = Runner(Fake(script, tmp_path), tmp_path, 30)
    with pytest.raises(Failed, match=reason):
        runner.run(CONTENDERS["lahja-asyncio"], Work("stream"), 10)


def test_a_process_that_hangs_ends_the_run(tmp_path: Path) -> None:
    runner = Runner(Fake("import time; time.sleep(600)", tmp_path), tmp_path, 1)
    with pytest.raises(Failed, match="it took more than 1 s; still at work: receiver0, sender0"):
        runner.run(CONTENDERS["lahja-asyncio"], Work("stream"), 10)


def test_no_process_outlives_a_run_that_failed(tmp_path: Path) -> None:
    script = f"""
import json, os, pathlib, sys, time
role = json.loads(sys.argv[-1])["role"]
folder = pathlib.Path({str(tmp_path)!r})
if role == "receiver":
    (folder / f"{{os.getpid()}}.pid").touch()
    time.sleep(600)
while not [*folder.glob("*.pid")]:
    time.sleep(0.01)
raise SystemExit("enough")
"""
    runner = Runner(Fake(script, tmp_path), tmp_path, 30)
    with pytest.raises(Failed, match="its sender said: enough"):
        runner.run(CONTENDERS["lahja-asyncio"], Work("stream"), 10)
    (path,) = tmp_path.glob("*.pid")
    with pytest.raises(ProcessLookupError):
        os.kill(int(path.stem), 0)


def test_a_run_fails_where_the_compiled_module_is_missing_or_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"compiled module is not there: python setup\.py"):
        contestants.check_extension(tmp_path)
    built, source = tmp_path / "_framing.so", tmp_path / "_framing.pyx"
    for path, seconds in ((built, 2000), (source, 1000)):
        path.touch()
        os.utime(path, (seconds, seconds))
    spec = type("Spec", (), {"origin": str(built)})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    contestants.check_extension(tmp_path)
    os.utime(source, (3000, 3000))
    with pytest.raises(SystemExit, match=r"_framing\.pyx is newer than the compiled module"):
        contestants.check_extension(tmp_path)


# -- Environments ----------------------------------------------------------------------------


def test_everything_in_the_environments_is_pinned() -> None:
    found = pins()
    assert {contender.environment for contender in CONTENDERS.values()} <= {*found}
    for packages in found.values():
        assert packages == sorted(packages, key=lambda package: package.split("=="))
        assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", package) for package in packages)


def test_an_environment_is_made_once_and_again_when_its_pins_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[tuple[str, ...]] = []

    def pretend(*command: str) -> None:
        commands.append(command)
        if "venv" in command:
            Path(command[-1]).mkdir()

    monkeypatch.setattr(environments, "_command", pretend)
    monkeypatch.setattr(environments, "pins", lambda: {"one": ["a==1", "b==2"]})
    first = Environments(tmp_path).python("one")
    assert Path(first).is_relative_to(tmp_path)
    assert [command[1:3] for command in commands] == [("-m", "venv"), ("-m", "pip")]
    assert commands[1][0] == first
    assert commands[1][-3:] == ("--no-deps", "a==1", "b==2")
    assert Environments(tmp_path).python("one") == first
    assert len(commands) == 2
    monkeypatch.setattr(environments, "pins", lambda: {"one": ["a==1", "b==3"]})
    assert Environments(tmp_path).python("one") != first
    assert len(commands) == 4


def test_an_environment_that_was_not_completed_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pretend(*command: str) -> None:
        if "venv" in command:
            Path(command[-1]).mkdir()
        elif not has_network:
            raise Missing("no network")

    has_network = False
    monkeypatch.setattr(environments, "_command", pretend)
    with pytest.raises(Missing, match="no network"):
        Environments(tmp_path).python("zenoh")
    has_network = True
    assert Environments(tmp_path).python("zenoh")


def test_an_environment_without_packages_is_a_real_one(tmp_path: Path) -> None:
    python = Environments(tmp_path).python("stdlib")
    code = "import sys; print(sys.prefix != sys.base_prefix, *sys.version_info[:3])"
    told = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["True", *map(str, sys.version_info[:3])]


def test_an_environment_that_cannot_be_made_is_tried_once_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[object] = []

    def fail(command: object, **_: object) -> None:
        tries.append(command)
        raise subprocess.CalledProcessError(
            1, "pip", stderr=b"WARNING: a\nERROR: no such release\n"
        )

    monkeypatch.setattr(subprocess, "run", fail)
    made = Environments(tmp_path)
    for _ in range(2):
        with pytest.raises(Missing, match="could not be installed: ERROR: no such release"):
            made.python("zenoh")
    assert len(tries) == 1


def test_without_environments_only_what_needs_none_takes_part() -> None:
    none = Environments(None)
    assert none.python("stdlib") == none.python("lahja") == sys.executable
    with pytest.raises(Missing, match="needs an environment of its own"):
        none.python("pyzmq")


# -- The command -----------------------------------------------------------------------------

COMPILED = "lahja-asyncio,lahja-trio,lahja-uvloop,lahja-asyncio-python,lahja-trio-python"
FRAMING: str = IMPLEMENTATION
LAHJA = COMPILED if FRAMING == "cython" else "lahja-asyncio-python,lahja-trio-python"


def peers(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the comparison, with few events."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.peers", "--quick", "--rounds", "1", *arguments],
        cwd=CHECKOUT,
        env={**os.environ, "LAHJA_FRAMING": FRAMING},
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )


@pytest.mark.timeout(180)
def test_the_comparison_measures_all_that_needs_no_installation(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    contenders = f"{LAHJA},pipe,queue,socket"
    ended = peers("--everything", "--contenders", contenders, "--json", str(path))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    results = Results.read(path)
    assert not [*results.failures()]
    expected = {name: CONTENDERS[name].implementation for name in contenders.split(",")}
    found = {name: said["implementation"] for name, said in results.contenders.items()}
    assert found == expected
    assert {*results.left_out} == {*CONTENDERS} - {*expected}
    for claim in claims(SCALE):
        possible = all(probe.contender in expected for probe, _ in claim.terms)
        assert len(claim.values(results)) == possible, claim.text
    for name in expected:
        assert re.search(rf"^\| {name} +\| [ \d,.]+ \|", ended.stdout, re.MULTILINE), name
    document = json.loads(path.read_text())
    assert str(tmp_path) not in path.read_text()
    assert document["about"]["rounds"] == 1


def test_what_was_measured_can_be_shown_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.json"
    results = Results(ABOUT)
    claim = claims(FULL)[2]
    for (probe, _), rate in zip(claim.terms, (800, 100), strict=True):
        results[probe].runs.append({"rate": rate})
    results.write(path)
    assert main(["--load", str(path), "--rows", "1"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"\|   1 \| lahja-asyncio against pipe, events/s +\| +8\.00 \|.* met ", shown)
    assert "|   2 |" not in shown
    results[claim.terms[0][0]].failures.append("it hung")
    results.write(path)
    assert main(["--load", str(path)]) == 1
    assert "failed, runs: 1: lahja-asyncio: stream: it hung" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--contenders", "nobody"], "there is no 'nobody'; there are lahja-asyncio, "),
        (["--rows", "16"], "rows are numbers from 1 to 15, not '16'"),
        (["--rows", "one"], "rows are numbers from 1 to 15, not 'one'"),
        (["--rounds", "0"], "--rounds and --seconds must be more than nothing"),
    ],
)
def test_what_makes_no_sense_is_refused(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert complaint in capsys.readouterr().err


# -- Benchmarks of lahja alone ---------------------------------------------------------------


def benchmark(*arguments: str, framing: str, absent: bool = False) -> tuple[int, str]:
    """
    Run benchmarks, once each and without measuring, and return the exit code and the output.

    :param absent: whether the compiled module is as if it had not been built
    """
    hide = "sys.modules['lahja._framing'] = None; " if absent else ""
    program = f"import sys; {hide}import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    options = ("--benchmark-disable", "-p", "no:cacheprovider", "-p", "no:randomly", "-v")
    ended = subprocess.run(
        [sys.executable, "-P", "-c", program, *options, *arguments],
        cwd=CHECKOUT,
        env={**os.environ, "LAHJA_FRAMING": framing},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.timeout(120)
def test_the_benchmarks_run_and_say_which_implementation_did() -> None:
    some = (
        "nothing or asyncio and (types and 10- or idle and 10- or test_receivers and 2- "
        "or throughput and 100 or fan and 2- or round_trip)"
    )
    code, said = benchmark("benchmarks", "-k", some, framing=FRAMING)
    assert code == 0, said
    for name in (
        "test_framing.py::test_case[python-receive 20 events: nothing]",
        f"test_endpoints.py::test_throughput[100 bytes-asyncio-{FRAMING}]",
        f"test_endpoints.py::test_fan_out[2-asyncio-{FRAMING}]",
        f"test_endpoints.py::test_round_trip[asyncio-{FRAMING}]",
        f"test_growth.py::test_types[10-asyncio-{FRAMING}]",
        f"test_growth.py::test_idle_peers[10-asyncio-{FRAMING}]",
        f"test_growth.py::test_receivers[2-asyncio-{FRAMING}]",
    ):
        assert f"benchmarks/{name} PASSED" in said, said
    both = "test_framing.py::test_case[cython-receive 20 events: nothing] PASSED" in said
    assert both is (importlib.util.find_spec("lahja._framing") is not None)


@pytest.mark.parametrize("name", ["framing", "endpoints", "growth"])
def test_benchmarks_fail_where_the_compiled_module_is_expected_and_absent(name: str) -> None:
    path = f"benchmarks/test_{name}.py"
    code, said = benchmark(path, "-k", "nothing or 10-", framing="cython", absent=True)
    assert code != 0
    assert re.search(r"(ModuleNotFound|Import)Error: .*lahja\._framing", said), said
    assert "PASSED" not in said


def test_benchmarks_of_plain_python_need_nothing_else() -> None:
    code, said = benchmark(
        "benchmarks/test_framing.py", "-k", "nothing", framing="python", absent=True
    )
    assert code == 0, said
    assert "[cython-" not in said
