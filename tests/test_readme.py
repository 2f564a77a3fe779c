"""The README: every code block in it does what the text around it says."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path

import pytest
from documents import Block, Page, assert_prints
from programs import run_program

from lahja.base import BaseEndpoint
from lahja.typing import EndpointOptions

ROOT = Path(__file__).parent.parent
PAGE = Page(ROOT / "README.md")
TEXT = PAGE.text
COMMANDS = [command for _, command in PAGE.commands]


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    assert TEXT.count("```") == 2 * len(PAGE.blocks)
    assert {block.language for block in PAGE.blocks} == {"python", "sh", "text"}
    assert len(PAGE.programs) == 3
    known = ("pip install ", "lahja ", "python examples/")
    assert all(command.startswith(known) for command in COMMANDS)


@pytest.mark.parametrize("block", PAGE.programs, ids=lambda block: block.name)
def test_programs_run(block: Block, ipc_dir: Path, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(block.code, encoding="utf-8")
    outcome = run_program(str(script), directory=ipc_dir)
    outcome.assert_clean()
    assert outcome.code == 0, outcome.output
    assert outcome.output
    assert_prints(outcome.output, PAGE.output_after(block))


def test_the_quickstart_is_compared_with_its_output() -> None:
    assert [PAGE.output_after(block) is not None for block in PAGE.programs] == [True, False, False]


def test_there_are_two_set_up_commands_and_their_extras_exist() -> None:
    commands = [line for line in TEXT.splitlines() if line.startswith("pip install ")]
    wanted = [re.fullmatch(r'pip install (?:-e )?"\.\[(.+)\]" && (.+)', line) for line in commands]
    assert [match[2] if match else None for match in wanted] == [
        "lahja demo",
        "pytest -n auto",
    ]
    assert commands == [line for line in COMMANDS if line.startswith("pip ")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for match in wanted:
        assert match is not None
        assert set(match[1].split(",")) <= set(project["optional-dependencies"])
    assert project["scripts"]["lahja"] == "lahja.cli:main"


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("lahja ")])
def test_commands_run(command: str, ipc_dir: Path) -> None:
    arguments = command.split()[1:]
    if "--seconds" in arguments:
        arguments[arguments.index("--seconds") + 1] = "0.5"  # a test has less time
    outcome = run_program("-m", "lahja", *arguments, directory=ipc_dir)
    outcome.assert_clean()
    assert outcome.code == 0
    if "demo" in arguments:
        shown = next(block.code for block in PAGE.blocks if "p50" in block.code)
        assert masked(shown) == masked(outcome.output.split("\n\n", maxsplit=1)[1])


def masked(text: str) -> list[str]:
    """Return the lines of a text without their numbers, and what those are set in."""
    numbers = re.sub(r"(cython|python) *$", "F", re.sub(r"\d[\d,.]*", "N", text), flags=re.M)
    return [" ".join(line.split()) for line in numbers.splitlines()]


def test_examples_are_there_and_all_are_listed() -> None:
    listed = {line.split()[1] for line in COMMANDS if line.startswith("python ")}
    assert listed == {f"examples/{path.name}" for path in (ROOT / "examples").glob("*.py")}


def test_files_that_it_links_to_are_there() -> None:
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert links
    assert all((ROOT / link).is_file() for link in links)


def test_options_are_those_of_the_endpoints() -> None:
    parameters = inspect.signature(BaseEndpoint.__init__).parameters.values()
    defaults = {
        parameter.name: repr(parameter.default)
        for parameter in parameters
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    assert dict(re.findall(r"^\| `(\w+)` \| `(.+?)` \|", TEXT, re.MULTILINE)) == defaults
    assert defaults.keys() == EndpointOptions.__annotations__.keys()
