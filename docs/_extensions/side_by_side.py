"""
Show a program for the old lahja, and what it prints under each version.

``{side-by-side} NAME`` stands for ``tests/old_lahja/differs/NAME.py``. What it shows is what the
tests have compared: the records beside it, and the change that gives an old behaviour back.
"""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

sys.path.append(str(Path(__file__).parents[2] / "tests"))
from old_lahja.record import HERE, NOW, RECORDED, recorded, switched, versions_of


def fence(language: str, text: str) -> str:
    """Return a block of code."""
    return f"```{language}\n{text.rstrip()}\n```\n"


def outputs(program: Path) -> dict[str, str]:
    """Return what the program prints, by a title that says where."""
    by_output: dict[str, list[str]] = {}
    for version in versions_of(program):
        text = recorded(program, version).read_text("utf-8")
        by_output.setdefault(text, []).append(version)
    shown = {f"{' and '.join(versions)}": text for text, versions in by_output.items()}
    return shown | {"Now": recorded(program, NOW).read_text("utf-8")}


def changes(program: Path) -> str:
    """Return what must be changed in the program to have an old behaviour back."""
    lines = [path.read_text("utf-8").splitlines(True) for path in (program, switched(program))]
    diff = list(difflib.unified_diff(*lines, n=2))[2:]
    return "".join(line for line in diff if not line.startswith("@@"))


class SideBySide(SphinxDirective):
    """Show the program that is named."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        program = HERE / "differs" / f"{self.arguments[0]}.py"
        for path in (program, switched(program), *RECORDED.rglob(f"{program.stem}.txt")):
            self.env.note_dependency(path)
        cards = "".join(
            f":::{{grid-item-card}} {title}\n{fence('text', text)}:::\n"
            for title, text in outputs(program).items()
        )
        code = program.read_text("utf-8")
        text = f"::::{{grid}} 1 2 2 3\n:gutter: 2\n{cards}::::\n\n"
        text += f":::{{dropdown}} The program\n{fence('python', code)}:::\n"
        if switched(program).exists():
            title = "The change that brings the old behaviour back"
            text += f"\n:::{{dropdown}} {title}\n{fence('diff', changes(program))}:::\n"
        return self.parse_text_to_nodes(text)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.add_directive("side-by-side", SideBySide)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
