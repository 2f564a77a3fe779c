"""``lahja ls``: who is there, and who of them is alive."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..protocol import one_line
from .observer import Observer, Sight
from .places import Lookout
from .running import Console, print_line
from .words import duration

__all__ = ["COLOURS", "list_endpoints", "listing"]

COLOURS = {
    Sight.ALIVE: "green",
    Sight.SILENT: "yellow",
    Sight.STALE: "red",
    Sight.REFUSED: "magenta",
    Sight.LEFT: "dim",
    Sight.DIED: "bold red",
}
"""How each sight is drawn."""


async def list_endpoints(directory: Path, as_json: bool, seconds: float, console: Console) -> int:
    """Show the endpoints in a directory; return the exit code."""
    lookout = Lookout(directory, "ls", seconds)
    try:
        await lookout.look()
        await lookout.ask()
        if as_json:
            print_line(json.dumps([_as_dict(observer) for observer in lookout.observers]))
        else:
            console.print(listing(directory, lookout.observers))
    finally:
        lookout.close()
    return 0


def listing(directory: Path, observers: list[Observer]) -> RenderableType:
    """Return the table."""
    title = Text.assemble((one_line(directory), "bold"), "   ", no_wrap=True, overflow="ignore")
    if not observers:
        return title.append("no endpoint has a socket here")
    alive = sum(observer.sight is Sight.ALIVE for observer in observers)
    title.append(f"{alive} of {len(observers)} endpoints alive")
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), header_style="dim", border_style="dim")
    for header in ("endpoint", "state", "pid", "runs on", "framing", "peers", "up", ""):
        is_number = header in ("pid", "peers")
        table.add_column(header, justify="right" if is_number else "left", no_wrap=bool(header))
    for observer in observers:
        stats, colour = observer.stats, COLOURS[observer.sight]
        table.add_row(
            Text(observer.name, "bold"),
            Text(observer.sight.value, colour),
            "" if observer.pid is None else str(observer.pid),
            Text(one_line(stats.backend) if stats else ""),
            Text(one_line(stats.framing) if stats else ""),
            str(len(stats.peers)) if stats else "",
            duration(stats.uptime if stats else None),
            Text(_note(observer), "dim"),
        )
    return Group(title, table)


def _note(observer: Observer) -> str:
    if observer.reason:
        return observer.reason
    return "" if observer.name == observer.path.stem else one_line(observer.path.name)


def _as_dict(observer: Observer) -> dict[str, Any]:
    stats = observer.stats
    return {
        "name": observer.name,
        "state": observer.sight.value,
        "reason": observer.reason,
        "path": str(observer.path),
        "pid": observer.pid,
        "backend": stats.backend if stats else None,
        "framing": stats.framing if stats else None,
        "version": stats.version if stats else None,
        "uptime": stats.uptime if stats else None,
        "peers": [peer.name for peer in stats.peers] if stats else None,
    }
