"""What the project says about itself: the contributor's guide, the changelog, its version."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

import lahja

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def tracked() -> list[str]:
    """Return the files of the repository."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return listed.stdout.splitlines()


def listed_paths() -> list[Path]:
    """Return the paths in the table; one without a folder is beside the one before it."""
    paths: list[Path] = []
    for cell in re.findall(r"^\| (`.+?`) \|", GUIDE, re.MULTILINE):
        folder = ROOT
        for name in re.findall(r"`(.+?)`", cell):
            path = ROOT / name if (ROOT / name).exists() else folder / name
            if name.startswith("lahja/"):
                folder = ROOT / "lahja"
            paths.append(path)
    return paths


# -- The contributor's guide -----------------------------------------------------------------


def test_the_guide_fits_a_screen() -> None:
    assert len(GUIDE.splitlines()) <= 50


@pytest.mark.parametrize("path", listed_paths(), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_the_guide_lists_is_there(path: Path) -> None:
    assert path.exists()


def test_the_guide_lists_every_module_and_every_folder() -> None:
    package = {Path(name).parts[1] for name in tracked() if name.startswith("lahja/")}
    supplements = {name for name in package if Path(name).suffix in (".pxd", ".pyi", ".typed")}
    listed = {path.name for path in listed_paths()}
    assert package - supplements <= listed
    folders = {Path(name).parts[0] for name in tracked() if "/" in name}
    assert folders - {"lahja"} <= listed


def test_the_guides_of_the_project_link_to_files_that_exist() -> None:
    for path in ROOT.glob("*.md"):
        for link in re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8")):
            assert link.startswith("https://") or (path.parent / link).exists(), (path.name, link)


def test_the_tools_that_the_guide_names_are_hooks() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = {hook["id"] for repo in config["repos"] for hook in repo["hooks"]}
    line = re.search(r"^pre-commit install +# (.+) …$", GUIDE, re.MULTILINE)
    assert line is not None
    assert {name.strip() for name in line[1].split(",")} <= hooks | {"ruff"}


# -- The changelog and the version -----------------------------------------------------------


def test_the_version_is_the_same_everywhere() -> None:
    assert lahja.__version__ == VERSION


def test_the_changelog_begins_with_this_version_and_what_may_break() -> None:
    headings = re.findall(r"^## (.+)$", CHANGELOG, re.MULTILINE)
    assert headings[0].split()[0] == VERSION
    for heading in headings:
        assert re.fullmatch(r"\S+ \((not released yet|\d{4}-\d\d-\d\d)\)", heading)
    for section in re.split(r"^## ", CHANGELOG, flags=re.MULTILINE)[1:]:
        parts = re.findall(r"^### (.+)$", section, re.MULTILINE)
        breaking = [part for part in parts if "break" in part]
        assert parts[: len(breaking)] == breaking


def test_changes_are_sentences_of_a_list() -> None:
    for entry in re.split(r"^- ", CHANGELOG, flags=re.MULTILINE)[1:]:
        text = entry.partition("\n#")[0].strip()
        assert text.endswith((".", ":"))
