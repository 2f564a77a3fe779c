"""The commands, and what they accept."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import rich.console
import typer

from ..exceptions import MissingExtra
from .places import directory_and_types, directory_or_default
from .running import Console, run
from .version import describe_version

__all__ = ["app"]

app = typer.Typer(
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
"""The command ``lahja``."""


Directory = Annotated[
    Path | None,
    typer.Argument(
        metavar="[DIRECTORY]",
        help="The directory that holds the sockets of the bus; by default that in which endpoints "
        "of this user join.",
    ),
]
App = Annotated[
    str | None,
    typer.Option("--app", help="The application, where no directory is named."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Seconds = Annotated[
    float,
    typer.Option("--timeout", min=0.1, max=3600, help="How many seconds an endpoint may take."),
]


@app.callback(invoke_without_command=True)
def lahja(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Say which version this is, and what it works with.")
    ] = False,
) -> None:
    """Typed events between the processes of one Python application."""
    if version:
        rich.console.Console(highlight=False).print(describe_version())
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

    console = rich.console.Console(highlight=False)
    result = run_demo(seconds, make_view(console))
    print_summary(console, result)
    raise typer.Exit(result.exit_code)


@app.command()
def ls(
    directory: Directory = None,
    application: App = None,
    as_json: Json = False,
    timeout: Seconds = 2.0,
) -> None:
    """Say which endpoints there are, and which of them are alive."""
    from .ls import list_endpoints

    run(
        lambda: list_endpoints(
            directory_or_default(directory, application), as_json, timeout, Console()
        )
    )


@app.command()
def top(
    directory: Directory = None,
    application: App = None,
    once: Annotated[bool, typer.Option("--once", help="Look for one interval, and end.")] = False,
    as_json: Json = False,
    interval: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds between two looks.")
    ] = 1.0,
) -> None:
    """
    Show what the endpoints do, until Ctrl-C.

    sent/s and recv/s count copies of events between processes; queued is what waits until others
    read it, waiting what waits in handlers and streams; lost are events that streams dropped, and
    those that could not be decoded.
    """
    from .top import show_top

    run(
        lambda: show_top(
            directory_or_default(directory, application), once, as_json, interval, Console()
        )
    )


@app.command()
def graph(
    directory: Directory = None,
    application: App = None,
    dot: Annotated[bool, typer.Option("--dot", help="For Graphviz; otherwise Mermaid.")] = False,
    timeout: Seconds = 2.0,
) -> None:
    """Draw who is connected to whom, who sends what, and who wants it."""
    from .graph import draw_graph

    run(lambda: draw_graph(directory_or_default(directory, application), dot, timeout))


@app.command()
def tap(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DIRECTORY] [TYPE]...",
            help="Where to look, as for the other commands; and at which events: Tick, "
            "app.events:Tick or 'app.*'.",
        ),
    ] = None,
    application: App = None,
    as_json: Json = False,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many events.")] = None,
    unpickle: Annotated[
        bool,
        typer.Option(
            "--unpickle", help="Unpickle what is pickled: it imports and runs what senders want."
        ),
    ] = False,
) -> None:
    """
    Show the events that are broadcast, until Ctrl-C.

    Behind each is where it goes: to how many other endpoints, and how many handlers and streams of
    its own. ? marks a request, ! a response. What is sent too fast to be shown is counted.
    """
    from .tap import show_events

    directory, types = directory_and_types(words or [])
    run(
        lambda: show_events(
            directory_or_default(directory, application), types, as_json, count, unpickle, Console()
        )
    )
