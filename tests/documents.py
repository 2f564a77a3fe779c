"""
Code in Markdown: find it, and run it as a reader would.

A block of Python is a program that runs as it stands. One with a caption is a file of that name;
the commands of the page run where its files are, those with an ``&`` in the background. What a
block of text says after "It prints:" is what must be printed, where ``...`` stands for anything.
Blocks in tabs side by side print the same.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import textwrap
from pathlib import Path
from typing import NamedTuple

from programs import Program

__all__ = ["Block", "Page", "assert_prints", "run_commands"]

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\{[\w-]+\}|\w*)(?P<argument>[^`\n]*)\n"
    r"(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_OPTION = re.compile(r"^:([\w-]+): *(.*)\n", re.MULTILINE)
_PRINTS = re.compile(r"(It|Both|Each|Either|The \w+) prints?:")


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    code: str
    caption: str | None
    line: int
    start: int
    end: int

    @property
    def name(self) -> str:
        """How a test calls it."""
        return f"line {self.line}"


class Page:
    """A file in Markdown, and its blocks in their order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path.read_text(encoding="utf-8")
        self.blocks = [self._block(match) for match in _FENCE.finditer(self.text)]

    def _block(self, match: re.Match[str]) -> Block:
        language, code = match["language"], textwrap.dedent(match["code"])
        options: dict[str, str] = {}
        if language.startswith("{"):
            while option := _OPTION.match(code):
                options[option[1]] = option[2]
                code = code[option.end() :]
        caption = None
        if language == "{code-block}":
            language, code = match["argument"].strip(), code.lstrip("\n")
            caption = options.get("caption")
        line = self.text.count("\n", 0, match.start()) + 1
        return Block(language, code, caption, line, match.start(), match.end())

    def of(self, language: str) -> list[Block]:
        """Return the blocks of a language."""
        return [block for block in self.blocks if block.language == language]

    @property
    def programs(self) -> list[Block]:
        """The blocks that are programs by themselves."""
        return [block for block in self.of("python") if block.caption is None]

    @property
    def files(self) -> dict[str, str]:
        """The content of the files that the page tells its readers to write."""
        return {block.caption: block.code for block in self.blocks if block.caption is not None}

    @property
    def commands(self) -> list[tuple[Block, str]]:
        """The commands of the page, and where they are."""
        return [
            (block, line.partition(" #")[0].strip())
            for block in self.of("sh")
            for line in block.code.splitlines()
        ]

    def output_after(self, block: Block) -> str | None:
        """Return what the page says that a block prints."""
        following = self.blocks[self.blocks.index(block) + 1 :]
        before = block
        for after in following:
            between = self.text[before.end : after.start]
            between = re.sub(r"^:::+.*$|^\+\+\+$|^:sync: .*$", "", between, flags=re.MULTILINE)
            if after.language == "text" and _PRINTS.fullmatch(between.strip()):
                return after.code
            if after.language != block.language or between.strip():
                return None
            before = after
        return None


def run_commands(directory: Path, commands: list[str]) -> str:
    """
    Run commands in a directory, each to a good end; return what they print.

    Those that end with ``&`` run in the background, and have ended when this returns.
    """
    outputs: list[str] = []
    with contextlib.ExitStack() as stack:
        background = []
        for command in commands:
            arguments = shlex.split(command.removesuffix("&"))
            if arguments[0] == "pytest":
                # Only what the reader has: none of the plugins of these tests.
                arguments[:0] = ["python", "-m"]
                arguments[3:3] = ["-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:xdist"]
            program = stack.enter_context(Program(*arguments[1:], directory=directory))
            if command.endswith("&"):
                background.append(program)
            else:
                outputs.append(_finish(program))
        outputs.extend(map(_finish, background))
    return "".join(outputs)


def _finish(program: Program) -> str:
    outcome = program.finish()
    program.assert_gone()
    assert outcome.code == 0, outcome.output
    outcome.assert_clean()
    return outcome.output


def assert_prints(output: str, expected: str | None) -> None:
    """Assert that a program prints what its page says, or anything where it says nothing."""
    if expected is None:
        return
    pattern = ".*".join(map(re.escape, expected.split("...")))
    assert re.fullmatch(pattern, output, re.DOTALL), f"{output}\nis not:\n{expected}"
