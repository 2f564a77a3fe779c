"""
Keep the API reference complete.

At the end of the build, all that must be there is looked up: each name of the old documentation
under its old path, what ``import lahja`` offers, and every method of the contract. A name that is
missing is a warning, and so, with ``-W``, an error.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

import lahja

sys.path.append(str(Path(__file__).parents[2] / "tests"))
from documented_names import DOCUMENTED, parse

logger = logging.getLogger(__name__)


def wanted() -> Iterator[str]:
    """Yield the path of everything that must be in the reference."""
    for each in parse(DOCUMENTED):
        if isinstance(getattr(lahja.TrioEndpoint, each.path.rpartition(".")[2], None), TypeVar):
            continue  # they are there for old programs, and tell nobody anything
        # `driver` is a module, and in the namespace of its package the function.
        yield each.path.replace(".driver.driver", ".driver")
    for name in lahja.__all__:
        thing = getattr(lahja, name)
        yield f"{thing.__module__}.{thing.__qualname__}"
    for name in vars(lahja.EndpointAPI):
        if not name.startswith("_"):
            for path in ("base.EndpointAPI", "asyncio.endpoint.AsyncioEndpoint"):
                yield f"lahja.{path}.{name}"
            yield f"lahja.trio.endpoint.TrioEndpoint.{name}"


def check_completeness(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of each name that is missing."""
    known = env.domains.python_domain.objects
    for path in sorted(set(wanted()) - set(known)):
        logger.warning("the API reference lacks %s", path, type="reference")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("env-check-consistency", check_completeness)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
