"""What ``lahja --version`` says."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from rich.table import Table

from ..compression import has_snappy
from ..framing import IMPLEMENTATION
from ..version import __version__

__all__ = ["describe_version"]

# By the extra that brings it: the module, and the distribution.
_OPTIONAL = {
    "trio": ("trio", "trio"),
    "uvloop": ("uvloop", "uvloop"),
    "watch": ("inotify_simple", "inotify-simple"),
    "prometheus": ("prometheus_client", "prometheus-client"),
    "opentelemetry": ("opentelemetry", "opentelemetry-api"),
}


def describe_version() -> Table:
    """Return the version of lahja, and of what it works with."""
    table = Table.grid(padding=(0, 2))
    table.add_row("[bold]lahja[/]", f"[bold]{__version__}[/]")
    table.add_row("framing", IMPLEMENTATION)
    table.add_row("snappy", _optional("python-snappy", "snappy", has_snappy()))
    for extra, (module, distribution) in _OPTIONAL.items():
        table.add_row(extra, _optional(distribution, extra, find_spec(module) is not None))
    table.add_row("python", f"{platform.python_version()} ({platform.python_implementation()})")
    return table


def _optional(distribution: str, extra: str, is_there: bool) -> str:
    if not is_there:
        return f"[yellow]not installed[/] (pip install 'lahja\\[{extra}]')"
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "installed"
