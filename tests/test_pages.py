"""The documentation: every code block in it does what the text around it says."""

from __future__ import annotations

import configparser
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from documents import Block, Page, assert_prints, run_commands
from programs import run_program

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [Page(path) for path in sorted(DOCS.rglob("*.md"))]
SESSIONS = [page for page in PAGES if page.files]

# Their libraries are not among what the tests need, so the programs are compiled only.
COMPILED_ONLY = {"redis", "zmq"}

KINDS = {"diff", "dockerfile", "ini", "python", "sh", "text", "toml", "yaml"}
DIRECTIVES = {"{image}", "{include}", "{side-by-side}", "{toctree}"}
RUN = ("python ", "pytest")
NOT_RUN = ("docker ", "git ", "pip install ", "redis-server", "sphinx-build ", "systemctl ")


def name_of(page: Page) -> str:
    return str(page.path.relative_to(DOCS))


def programs() -> list[Any]:
    """Return each program, and its page."""
    return [
        pytest.param(page, block, id=f"{name_of(page)}, {block.name}")
        for page in PAGES
        for block in page.programs
    ]


def imports_of(code: str) -> set[str]:
    """Return the names of the packages that a program imports."""
    return set(re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_is_of_a_kind_that_is_tested(page: Page) -> None:
    assert page.text.count("```") == 2 * len(page.blocks)
    assert {block.language for block in page.blocks} <= KINDS | DIRECTIVES
    for _, command in page.commands:
        assert command.startswith(RUN + NOT_RUN), command
        if command.startswith(RUN):
            assert page.files, "there is nothing to run"


@pytest.mark.parametrize(("page", "block"), programs())
def test_programs_run(page: Page, block: Block, ipc_dir: Path, tmp_path: Path) -> None:
    compile(block.code, block.name, "exec")
    if imports_of(block.code) & COMPILED_ONLY:
        return
    script = tmp_path / "program.py"
    script.write_text(block.code, encoding="utf-8")
    outcome = run_program(str(script), directory=ipc_dir)
    outcome.assert_clean()
    assert outcome.code == 0, outcome.output
    assert_prints(outcome.output, page.output_after(block))


@pytest.mark.parametrize("page", SESSIONS, ids=name_of)
def test_files_and_commands_of_a_page_work_together(page: Page, ipc_dir: Path) -> None:
    for name, code in page.files.items():
        (ipc_dir / name).write_text(code, encoding="utf-8")
    ran = 0
    for block in page.of("sh"):
        commands = [
            each for where, each in page.commands if where is block and each.startswith(RUN)
        ]
        if commands:
            ran += len(commands)
            assert_prints(run_commands(ipc_dir, commands), page.output_after(block))
    assert ran, "nothing runs these files"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_extras_that_it_installs_exist(page: Page) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for _, command in page.commands:
        if command.startswith("pip install "):
            for extras in re.findall(r"\[(.+?)\]", command):
                assert set(extras.split(",")) <= set(project["optional-dependencies"])


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_configuration_files_parse(page: Page) -> None:
    for block in page.of("ini"):
        parser = configparser.RawConfigParser(strict=False)
        parser.read_string(block.code)
        assert parser.sections()
    for block in page.of("toml"):
        assert tomllib.loads(block.code)


def test_there_is_something_to_test() -> None:
    assert len(programs()) > 10
    assert len(SESSIONS) > 1
