"""
Programs for the old lahja print what they printed there, or what docs/migrating.md says.

What the old ones print is recorded. Where ``LAHJA_OLD_PYTHONS`` names interpreters that have them,
the programs run there again, and the records must be true.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from old_lahja.record import (
    HERE,
    NOW,
    RECORDED,
    RELEASES,
    VARIABLE,
    old_pythons,
    programs,
    recorded,
    run,
    switched,
    versions_of,
)

import lahja

MIGRATING = HERE.parents[1] / "docs" / "migrating.md"
SAME = programs("same")
SINCE = programs("since_0_17")
DIFFERS = programs("differs")
SWITCHED = [program for program in DIFFERS if switched(program).exists()]
PYTHONS = old_pythons()


def by_name(program: Path) -> str:
    return program.stem


def run_here(program: Path) -> str:
    """Return what a program prints under the lahja that is tested."""
    path = str(Path(lahja.__file__).parents[1])
    output, errors = run(program, sys.executable, path, "-X", "dev", "-W", "error")
    assert "Traceback" not in errors, errors
    assert "Warning" not in errors, errors
    return output


def old_outputs(program: Path) -> set[str]:
    """Return what a program printed under the old versions."""
    return {recorded(program, version).read_text("utf-8") for version in versions_of(program)}


@pytest.mark.parametrize("program", SAME, ids=by_name)
def test_what_is_the_same(program: Path) -> None:
    assert versions_of(program) == [*RELEASES]
    assert old_outputs(program) == {run_here(program)}


@pytest.mark.parametrize("program", SINCE, ids=by_name)
def test_what_is_the_same_since_0_17(program: Path) -> None:
    assert versions_of(program) == ["0.17"]
    assert old_outputs(program) == {run_here(program)}


@pytest.mark.parametrize("program", DIFFERS, ids=by_name)
def test_what_differs(program: Path) -> None:
    output = run_here(program)
    assert output == recorded(program, NOW).read_text("utf-8")
    assert old_outputs(program) - {output}


@pytest.mark.parametrize("program", SWITCHED, ids=by_name)
def test_switches_give_an_old_behaviour_back(program: Path) -> None:
    output = run_here(switched(program))
    assert output in old_outputs(program)
    assert output != recorded(program, NOW).read_text("utf-8")


def test_every_switch_belongs_to_a_program() -> None:
    files = set((HERE / "differs").glob("*.py"))
    assert files == {*DIFFERS, *map(switched, SWITCHED)}


def test_every_record_belongs_to_a_program() -> None:
    old = {recorded(each, version) for each in [*SAME, *SINCE, *DIFFERS] for version in RELEASES}
    now = {recorded(each, NOW) for each in DIFFERS}
    files = set(RECORDED.rglob("*.txt"))
    assert now <= files <= old | now


def test_the_page_about_migrating_shows_every_program_that_differs() -> None:
    shown = re.findall(r"^```\{side-by-side\} (\w+)$", MIGRATING.read_text("utf-8"), re.MULTILINE)
    assert sorted(shown) == [program.stem for program in DIFFERS]


if PYTHONS:

    def test_all_old_versions_are_there() -> None:
        assert PYTHONS.keys() == RELEASES.keys(), f"{VARIABLE} must name an interpreter of each"

    @pytest.mark.parametrize("version", PYTHONS)
    @pytest.mark.parametrize("program", [*SAME, *SINCE, *DIFFERS], ids=by_name)
    def test_records_are_true(program: Path, version: str) -> None:
        output, errors = run(program, PYTHONS[version])
        record = recorded(program, version)
        assert output == (record.read_text("utf-8") if record.exists() else ""), errors
