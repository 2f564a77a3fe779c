"""
Take pages from the root of the repository, where its visitors look for them, too.

``{include} ../NAME.md`` stands for all of the file. Its links lead to files beside it; they are
made to lead to the pages that these files are here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

INCLUDE = re.compile(r"^```\{include\} \.\./(\S+\.md)\n```$", re.MULTILINE)
LINK = re.compile(r"\]\((\w[\w./-]*\.md)(#[\w-]+)?\)")
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}


def include(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the files into the page, before it is parsed."""

    def content(match: re.Match[str]) -> str:
        path = Path(app.srcdir).parent / match[1]
        app.env.note_dependency(path)
        return LINK.sub(link, path.read_text(encoding="utf-8"))

    def link(match: re.Match[str]) -> str:
        page = PAGES.get(match[1], match[1].removeprefix("docs/"))
        return f"]({page}{match[2] or ''})"

    source[0] = INCLUDE.sub(content, source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("source-read", include)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
