"""
How Sphinx builds this documentation: ``sphinx-build -W docs build/docs``.

It needs no network. With ``LAHJA_DOCS_INTERSPHINX=1`` it fetches the indexes of Python's and trio's
documentation, and links to them; whoever publishes the result sets it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import lahja

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "lahja"
author = "the lahja contributors"
project_copyright = author
version = release = lahja.__version__
if "dev" in version:
    tags.add("unreleased")  # noqa: F821  (Sphinx defines it)

extensions = [
    "myst_parser",
    "side_by_side",
    "reference",
    "root_pages",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]
nitpicky = True
# References to what others document are links only where their indexes may be fetched.
nitpick_ignore_regex = [
    ("py:.*", r"(?!lahja\b).*"),
    ("py:.*", r"lahja\..*\.T[A-Z]\w+"),  # type variables
]

if os.environ.get("LAHJA_DOCS_INTERSPHINX"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "trio": ("https://trio.readthedocs.io/en/stable", None),
    }

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
python_display_short_literal_types = True

html_theme = "furo"
html_title = f"lahja {release}"
