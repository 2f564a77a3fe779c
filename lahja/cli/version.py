"""What ``lahja --version`` says."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from rich.table import Table

from ..compression import HAS_SNAPPY
from ..framing import IMPLEMENTATION
from ..version import __version__

__all__ = ["describe_version"]


def describe_version() -> Table:
    """Return the version of lahja, and of what it works with."""
    table = Table.grid(padding=(0, 2))
    table.add_row("[bold]lahja[/]", f"[bold]{__version__}[/]")
    table.add_row("framing", IMPLEMENTATION)
    table.add_row("snappy", _optional("python-snappy", "snappy", HAS_SNAPPY))
    table.add_row("uvloop", _optional("uvloop", "uvloop", find_spec("uvloop") is not None))
    table.add_row("trio", _optional("trio", "trio", find_spec("trio") is not None))
    table.add_row("python", f"{platform.python_version()} ({platform.python_implementation()})")
    return table


def _optional(distribution: str, extra: str, is_there: bool) -> str:
    if not is_there:
        return f"[yellow]not installed[/] (pip install 'lahja\\[{extra}]')"
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "installed"
