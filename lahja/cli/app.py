"""The commands, and what they accept."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

import typer
from rich.console import Console

from ..exceptions import MissingExtra
from .version import describe_version

__all__ = ["app"]

app = typer.Typer(
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
"""The command ``lahja``."""


@app.callback(invoke_without_command=True)
def lahja(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Say which version this is, and what it works with.")
    ] = False,
) -> None:
    """Typed events between the processes of one Python application."""
    if version:
        Console(highlight=False).print(describe_version())
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def demo(
    seconds: Annotated[
        float,
        typer.Option(min=0.1, max=3600, help="How long the processes talk to each other."),
    ] = 4.0,
) -> None:
    """
    Let six processes talk to each other, and count what arrives.

    Three run on asyncio (one of them on uvloop, if it is there), three on trio.

    First they only send requests, then they broadcast as fast as they can.
    """
    if find_spec("trio") is None:
        typer.echo(f"lahja: {MissingExtra('the demo', 'trio')}", err=True)
        raise typer.Exit(1)
    from .demo.supervisor import run_demo
    from .demo.view import make_view, print_summary

    console = Console(highlight=False)
    result = run_demo(seconds, make_view(console))
    print_summary(console, result)
    raise typer.Exit(result.exit_code)
