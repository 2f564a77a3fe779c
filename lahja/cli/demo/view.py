"""What the demo shows: a live table in a terminal, a line now and then elsewhere; a summary."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..words import compact
from .ledger import percentile
from .progress import Progress, Stage

__all__ = ["LiveView", "PlainView", "View", "make_view", "print_summary"]

_COLOURS = {"asyncio": "cyan", "uvloop": "blue", "trio": "magenta"}
_TABLE_WIDTH = 80
_PLAIN_SECONDS = 1.0


class View(Protocol):
    """Show how it goes."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End."""

    def update(self, progress: Progress) -> None:
        """Show the news; called some ten times a second."""


def make_view(console: Console) -> View:
    """Return the view that suits the console."""
    if console.is_terminal and not console.is_dumb_terminal and console.width >= _TABLE_WIDTH:
        return LiveView(console)
    return PlainView(console)


class PlainView(View):
    """Print a line a second, and one whenever something else begins."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stage: Stage | None = None
        self._printed = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def update(self, progress: Progress) -> None:
        is_same = progress.stage is self._stage
        if is_same and progress.seconds - self._printed < _PLAIN_SECONDS:
            return
        if self._stage is None:
            self._console.print(_title(progress), soft_wrap=True)
        self._stage, self._printed = progress.stage, progress.seconds
        self._console.print(_stage(progress), soft_wrap=True)


class LiveView(View):
    """Keep a table up to date."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def update(self, progress: Progress) -> None:
        self._live.update(_screen(progress), refresh=True)


def _screen(progress: Progress) -> RenderableType:
    return Group(_title(progress), _stage(progress), _table(progress))


def _title(progress: Progress) -> Text:
    count = len(progress.loops)
    return Text.assemble(
        ("lahja demo", "bold"),
        (f"   {count} processes, {count * (count - 1) // 2} connections", "dim"),
        (f", framing {progress.framing}" if progress.framing else "", "dim"),
    )


def _stage(progress: Progress) -> Text:
    ledger, stage, colour = progress.ledger, progress.stage, "yellow"
    if stage is Stage.STARTING:
        what = f"{len(progress.ready)} of {len(progress.loops)} are connected to all others"
    elif stage is Stage.QUIET:
        what = f"{ledger.requests:,} requests answered"
    elif stage is Stage.FULL:
        what = f"{progress.rate:,.0f} events per second"
    else:
        what = f"{ledger.deliveries:,} events and {ledger.requests:,} requests delivered"
        colour = "green" if progress.exit_code == 0 else colour
    return Text.assemble(
        (f"{progress.seconds:8.1f} s", "dim"), "   ", (stage.value, f"bold {colour}"), f"   {what}"
    )


def _table(progress: Progress) -> Table:
    ledger = progress.ledger
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="dim", border_style="dim")
    for header in ("endpoint", "runs on"):
        table.add_column(header, vertical="bottom", no_wrap=True)
    table.add_column("sent", justify="right", vertical="bottom", min_width=5, no_wrap=True)
    for name in ledger.names:
        table.add_column(f"from\n{name}", justify="right", min_width=5, no_wrap=True)
    table.add_column("answers", justify="right", vertical="bottom", no_wrap=True)
    for name, loop in progress.loops.items():
        table.add_row(
            Text(name, "bold" if name in progress.ready else "dim"),
            Text(loop, _COLOURS[loop]),
            Text(compact(ledger.sent(name)), "bold"),
            *(
                Text(compact(ledger.received(name, origin)), "dim" if origin == name else "")
                for origin in ledger.names
            ),
            Text(compact(ledger.answered(name))),
        )
    return table


def print_summary(console: Console, progress: Progress) -> None:
    """Print what there is to say in the end."""
    ledger = progress.ledger
    rows = Table.grid(padding=(0, 3))
    rows.add_column(style="dim")
    rows.add_column(overflow="fold")
    if ledger.full_trips and progress.full_seconds:
        rate = ledger.deliveries / progress.full_seconds
        rows.add_row(
            "events",
            f"[bold]{rate:,.0f} per second[/] from process to process, "
            f"for {progress.full_seconds:.1f} s",
        )
    if ledger.quiet_trips:
        rows.add_row("round trip", f"{_trips(ledger.quiet_trips)}, with requests only")
    if ledger.full_trips:
        rows.add_row("", f"{_trips(ledger.full_trips)}, at full speed")
    if ledger.is_finished:
        lost, misplaced = ledger.missing, ledger.misplaced
        rows.add_row(
            "lost",
            f"[bold {'red' if lost or misplaced else 'green'}]{lost:,}[/] "
            f"of {ledger.expected:,} events and answers, "
            f"{misplaced:,} twice or out of order",
        )
    rows.add_row("framing", progress.framing or "unknown")
    console.print()
    console.print(rows)
    for failure in progress.failures:
        console.print(f"[bold red]failed[/]: {failure}", soft_wrap=True)
    if progress.is_interrupted:
        console.print("[yellow]interrupted[/]: events that were on their way are not counted")


def _trips(microseconds: list[int]) -> str:
    p50, p99 = (percentile(microseconds, percent) or 0 for percent in (50, 99))
    return f"[bold]p50 {p50 / 1000:.2f} ms, p99 {p99 / 1000:.2f} ms[/]"
