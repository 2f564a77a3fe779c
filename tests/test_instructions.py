"""
The guard of the instruction counts: what it compares, what it says, and that it counts.

Its cases run here on either implementation, without being counted.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
sys.path.append(str(CHECKOUT))  # where the package ``benchmarks`` is, which is not installed

from benchmarks.instructions import __main__ as command  # noqa: E402
from benchmarks.instructions.__main__ import BASELINE, judge, main  # noqa: E402
from benchmarks.instructions.baseline import (  # noqa: E402
    Baselines,
    Combination,
    Difference,
    compare,
    compiler_of,
)
from benchmarks.instructions.cases import CASES  # noqa: E402
from benchmarks.instructions.counting import Missing, count  # noqa: E402

HERE = Combination("CPython 3.11", "GCC 12.2.0", "x86_64", "gcc 12.2", "3.3")
THERE = dataclasses.replace(HERE, python="CPython 3.13", interpreter="Clang 18")
COUNTS = {"send": 1000, "receive": 2000}


@pytest.fixture
def baselines(tmp_path: Path) -> Baselines:
    """Return a file with the baseline of one combination."""
    made = Baselines(tmp_path / "baseline.json")
    made.renew(HERE, COUNTS)
    return Baselines(made.path)


# -- Comparison ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "fails"),
    [(1000, False), (1050, False), (1051, True), (950, False), (1, False), (10**9, True)],
)
def test_a_case_may_take_5_percent_more_and_no_more(now: int, fails: bool) -> None:
    found = compare({"send": 1000}, {"send": now})
    assert [each.is_failure for each in found if each.is_failure] == [True] * fails


def test_the_worst_comes_first_and_what_got_cheaper_is_told_too() -> None:
    baseline = {"a": 100, "b": 100, "c": 100, "d": 100}
    found = compare(baseline, {"a": 110, "b": 50, "c": 300, "d": 104})
    assert [(each.case, each.is_failure) for each in found] == [
        ("c", True),
        ("a", True),
        ("b", False),
    ]


def test_a_case_without_a_counterpart_is_a_failure() -> None:
    assert compare({"old": 1}, {"new": 2}) == [
        Difference("new", None, 2),
        Difference("old", 1, None),
    ]
    assert all(each.is_failure for each in compare({"old": 1}, {"new": 2}))


# -- What it says ----------------------------------------------------------------------------


def test_what_grew_is_named_with_by_how_much_and_how_to_renew(
    baselines: Baselines, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judge(baselines, HERE, {"send": 1100, "receive": 1500}) == 1
    assert capsys.readouterr().out.splitlines() == [
        "Over the limit of +5%, or without a counterpart:",
        "  send: 1,000 → 1,100 instructions, +10.00%",
        "Cheaper than the baseline says:",
        "  receive: 2,000 → 1,500 instructions, -25.00%",
        "Where this is meant to be so, renew the baseline: "
        "python -m benchmarks.instructions --renew",
    ]


def test_cases_that_came_and_went_are_named(
    baselines: Baselines, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judge(baselines, HERE, {"send": 1000, "new": 5}) == 1
    shown = capsys.readouterr().out
    assert "  new: takes 5 instructions, and has no baseline\n" in shown
    assert "  receive: has a baseline, and is no case any more\n" in shown


def test_nothing_new_takes_one_line(
    baselines: Baselines, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judge(baselines, HERE, COUNTS) == 0
    assert capsys.readouterr().out == f"2 cases are within +5% of the baseline for {HERE}.\n"


def test_only_like_is_compared_with_like(
    baselines: Baselines, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judge(baselines, THERE, {"send": 10**9}) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Not compared: there is no baseline for CPython 3.13 (Clang 18) on x86_64, "
        "module by gcc 12.2, Cython 3.3.",
        "The nearest one is another: its python is 'CPython 3.11' and not 'CPython 3.13', "
        "its interpreter is 'GCC 12.2.0' and not 'Clang 18'.",
        "Where this combination should be guarded, too: python -m benchmarks.instructions --renew",
    ]


def test_the_first_baseline_has_no_nearest_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judge(Baselines(tmp_path / "none.json"), HERE, COUNTS) == 0
    assert "nearest" not in capsys.readouterr().out


def test_the_nearest_baseline_is_that_which_differs_in_the_least(baselines: Baselines) -> None:
    baselines.renew(THERE, COUNTS)
    looked_for = dataclasses.replace(THERE, cython="3.4")
    assert Baselines(baselines.path).nearest(looked_for) == THERE


# -- Baselines -------------------------------------------------------------------------------


def test_one_baseline_is_renewed_and_the_others_stay(baselines: Baselines) -> None:
    baselines.renew(THERE, {"send": 7})
    baselines.renew(HERE, {"send": 8})
    assert Baselines(baselines.path).known == {HERE: {"send": 8}, THERE: {"send": 7}}


def test_there_are_baselines_and_each_has_all_cases() -> None:
    known = Baselines(BASELINE).known
    assert {each.python for each in known} >= {"CPython 3.11", "CPython 3.13"}
    for counts in known.values():
        assert {*counts} == {*CASES}
        assert all(instructions > 100 for instructions in counts.values())


def test_the_baseline_is_as_the_command_writes_it(tmp_path: Path) -> None:
    again = Baselines(BASELINE)
    again.path = tmp_path / "again.json"
    combination, counts = next(iter(again.known.items()))
    again.renew(combination, counts)
    assert again.path.read_text() == BASELINE.read_text()


@pytest.mark.parametrize(
    ("data", "compiler"),
    [
        (b"\0GCC: (Debian 12.2.0-14+deb12u1) 12.2.0\0", "gcc 12.2"),
        (b"\0GCC: (GNU) 14.2.1\0clang version 18.1.3 (1ubuntu1)\0", "clang 18.1"),
        (b"\0", "unknown"),
    ],
)
def test_a_module_says_what_compiled_it(data: bytes, compiler: str) -> None:
    assert compiler_of(data) == compiler


def test_a_module_for_coverage_is_refused(tmp_path: Path) -> None:
    module = tmp_path / "_framing.so"
    module.write_bytes(b"_cython_3_3_1\0GCC: (GNU) 12.2.0\0")
    found = Combination.here(module)
    assert (found.compiler, found.cython) == ("gcc 12.2", "3.3")
    assert found.python == "CPython {}.{}".format(*sys.version_info)
    module.write_bytes(b"\0PyThreadState_EnterTracing\0")
    with pytest.raises(SystemExit, match=r"_framing\.so was built with LAHJA_CYTHON_TRACE=1"):
        Combination.here(module)


# -- The command -----------------------------------------------------------------------------


@pytest.fixture
def fake_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Count nothing; the dictionary is what was counted."""
    counts = dict(COUNTS)
    module = tmp_path / "_framing.so"
    module.write_bytes(b"GCC: (GNU) 12.2.0")
    monkeypatch.setattr(command, "BASELINE", tmp_path / "baseline.json")
    monkeypatch.setattr(command, "compiled_module", lambda: module)
    monkeypatch.setattr(command, "count", lambda: counts)
    return counts


def test_a_slow_down_fails_until_the_baseline_is_renewed(
    fake_counts: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--renew"]) == 0
    assert main([]) == 0
    assert capsys.readouterr().out.count("2 cases are within +5% of the baseline") == 1
    fake_counts["receive"] = 2101
    assert main(["--show"]) == 1
    shown = capsys.readouterr().out
    assert "       2,101  receive\n" in shown
    assert "  receive: 2,000 → 2,101 instructions, +5.05%\n" in shown
    assert main(["--renew"]) == 0
    assert main([]) == 0
    (written,) = json.loads((tmp_path / "baseline.json").read_text())
    assert written["counts"] == fake_counts


def test_what_is_missing_is_named(
    fake_counts: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "count", count)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match=r"no valgrind here, which counts: apt-get install valg"):
        main([])


# -- Counting --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_every_case_runs(name: str) -> None:
    prepare, run = CASES[name]()
    for rounds in (1, 3):
        run(prepare(rounds))


PLANTED = """
def case(extra):
    def run(rounds):
        for _ in range(rounds):
            for _ in range(100 + extra):
                pass
    return (lambda rounds: rounds), run

CASES = {"fast": lambda: case(0), "again": lambda: case(0), "slower": lambda: case(10)}
"""


def test_a_planted_slow_down_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planted.py").write_text(PLANTED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    if shutil.which("valgrind") is None:
        with pytest.raises(Missing, match="apt-get install valgrind"):
            count("planted")
        return
    counts = count("planted")
    assert compare({"slower": counts["fast"]}, {"slower": counts["again"]}) == []
    (found,) = compare({"slower": counts["fast"]}, {"slower": counts["slower"]})
    assert found.is_failure
    assert found.now is not None
    assert 1.08 < found.now / counts["fast"] < 1.11


def test_a_case_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planted.py").write_text("CASES = {'bad': lambda: 1 / 0}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: "/nowhere/valgrind")
    with pytest.raises(SystemExit, match=r"nothing was counted: (?s:.*)ZeroDivisionError"):
        count("planted")
