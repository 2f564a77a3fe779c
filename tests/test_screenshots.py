"""The pictures in the documentation: the script that takes them does so."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from programs import run_program

DOCS = Path(__file__).parents[1] / "docs"
NAMES = ("database", "discovery", "main", "metrics", "rpc", "syncer")
WORDS = {
    "ls": [*NAMES, "6 of 6 endpoints alive", "asyncio", "trio"],
    "top": [*NAMES, "5 alive", "1 silent", "sent/s", "it does not say hello"],
    "graph": [*NAMES, "graph LR", "StoreBlock", "-.-"],
    "tap": ["--count 12", "NewBlock(number=", "StoreBlock(", "→ "],
}


def text_of(path: Path) -> str:
    """Return what an SVG shows."""
    root = ElementTree.parse(path).getroot()
    lines = ["".join(each.itertext()) for each in root.iter("{http://www.w3.org/2000/svg}text")]
    return " ".join(lines).replace("\xa0", " ")


@pytest.mark.timeout(180)
def test_pictures_can_be_taken(tmp_path: Path, ipc_dir: Path) -> None:
    outcome = run_program(str(DOCS / "screenshots.py"), str(tmp_path), directory=ipc_dir)
    outcome.assert_clean()
    assert outcome.code == 0, outcome.output
    assert {path.stem for path in tmp_path.iterdir()} == set(WORDS)
    for name, words in WORDS.items():
        text = text_of(tmp_path / f"{name}.svg")
        for word in words:
            assert word in text, f"{name}: {word}"


@pytest.mark.parametrize("name", WORDS)
def test_the_pictures_are_there(name: str) -> None:
    path = DOCS / "images" / f"{name}.svg"
    text = text_of(path)
    for word in WORDS[name]:
        assert word in text, word
    assert not re.search(r"https?://(?!www\.w3\.org|(www\.)?textualize\.io)", path.read_text())
