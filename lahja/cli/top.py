"""``lahja top``: a table of what the endpoints do, kept up to date."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..protocol import one_line
from ..stats import EndpointStats
from .ls import COLOURS
from .observer import Observer, Sight
from .places import Lookout
from .rows import Row, row_of
from .running import Console, print_line
from .words import compact, duration, moment, size

__all__ = ["Top", "screen", "show_top"]

_PATIENCE = 1.0  # seconds that an endpoint has to answer
_LEFT_SECONDS = 3.0  # for which one that left is still shown
_SLOW_HANDLER = 0.1


class Top:
    """Know what was seen of every endpoint, now and before."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lookout = Lookout(directory, "top", _PATIENCE)
        self._looks: dict[Observer, tuple[EndpointStats | None, EndpointStats | None]] = {}
        self._left: dict[Observer, float] = {}

    async def look(self) -> None:
        """Ask everybody."""
        await self.lookout.look()
        await self.lookout.ask()
        now = time.monotonic()
        for observer in self.lookout.observers:
            _, latest = self._looks.get(observer, (None, None))
            if observer.stats is not latest:
                self._looks[observer] = latest, observer.stats
            left_at = self._left.setdefault(observer, now) if observer.sight is Sight.LEFT else now
            if now - left_at > _LEFT_SECONDS:
                self.lookout.forget(observer)

    async def look_later(self, seconds: float) -> None:
        """Do the same after some time."""
        await asyncio.sleep(seconds)
        await self.look()

    def rows(self) -> list[Row]:
        """Return what there is to show."""
        return [
            row_of(observer, self._looks.get(observer, (None, None))[0])
            for observer in self.lookout.observers
        ]


async def show_top(
    directory: Path, once: bool, as_json: bool, interval: float, console: Console
) -> int:
    """Show what the endpoints of a directory do, until interrupted; return the exit code."""
    top = Top(directory)
    is_live = console.is_terminal and not console.is_dumb_terminal and not (once or as_json)
    live = Live(console=console, auto_refresh=False, screen=True) if is_live else None

    def show() -> None:
        rows = top.rows()
        if as_json:
            endpoints = [dataclasses.asdict(row) for row in rows]
            print_line(json.dumps({"time": time.time(), "endpoints": endpoints}))
        elif live is not None:
            live.update(screen(directory, rows), refresh=True)
        else:
            console.print(screen(directory, rows))

    try:
        await top.look()
        if once:
            await asyncio.sleep(interval)
            await top.look()
            show()
            return 0
        with contextlib.nullcontext() if live is None else live:
            while True:
                show()
                await _meanwhile(top.look_later(interval), top, show if is_live else None)
    finally:
        top.lookout.close()


async def _meanwhile(
    looking: Coroutine[Any, Any, None], top: Top, show: Callable[[], None] | None
) -> None:
    """Wait for the next look; show at once who comes, leaves or dies until then."""
    changed = top.lookout.changed
    task = asyncio.ensure_future(looking)
    try:
        while not task.done():
            changing = asyncio.ensure_future(changed.wait())
            await asyncio.wait((task, changing), return_when=asyncio.FIRST_COMPLETED)
            changing.cancel()
            if changed.is_set():
                changed.clear()
                if show is not None:
                    show()
    finally:
        task.cancel()
    await task


def screen(directory: Path, rows: list[Row]) -> RenderableType:
    """Return the table."""
    counts = {sight: sum(row.sight == sight.value for row in rows) for sight in Sight}
    title = Text(no_wrap=True, overflow="ignore").append(one_line(directory), "bold")
    title.append(f"   {time.strftime('%H:%M:%S')}  ")
    for sight, count in counts.items():
        if count:
            title.append(f" {count} {sight.value}", COLOURS[sight])
    if not rows:
        return title.append(" no endpoint has a socket here")
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        header_style="dim",
        border_style="dim",
        expand=True,
    )
    for header in ("endpoint", "pid", "up"):
        table.add_column(header, no_wrap=True, justify="right" if header == "pid" else "left")
    for header in ("sent/s", "recv/s", "queued", "waiting", "stalls", "p99", "lost"):
        table.add_column(header, no_wrap=True, justify="right")
    table.add_column("slowest handler", overflow="ellipsis", no_wrap=True, ratio=1)
    for row in rows:
        table.add_row(*_cells(row), style=_style(row))
    return Group(title, table)


def _style(row: Row) -> str:
    sight = Sight(row.sight)
    return "" if sight is Sight.ALIVE else COLOURS[sight]


def _cells(row: Row) -> list[Text | str]:
    pid = "" if row.pid is None else str(row.pid)
    if Sight(row.sight) is not Sight.ALIVE:
        # Where it stood at the end is of no use any more; what became of it is.
        return [Text(row.name), pid, row.sight, *[""] * 7, Text(row.reason)]
    slowest: Text | str = ""
    if row.slowest is not None:
        name, seconds = row.slowest
        short = one_line(name).rpartition(":")[2].rpartition("<locals>.")[2]
        slowest = Text(f"{moment(seconds)} {short}", "yellow" if seconds > _SLOW_HANDLER else "")
    return [
        Text(row.name, "bold"),
        pid,
        duration(row.uptime),
        _rate(row.sent),
        _rate(row.received),
        Text(size(row.queue_bytes), "yellow" if row.stalled else ""),
        compact(row.waiting),
        Text(compact(row.stalls), "red" if row.stalled else ""),
        moment(row.requests_p99),
        Text(compact(row.lost), "red" if row.lost else ""),
        slowest,
    ]


def _rate(rate: float | None) -> str:
    return "…" if rate is None else compact(round(rate))
