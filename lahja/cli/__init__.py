"""
The command line, ``lahja``.

Only :mod:`lahja.cli.app` imports what the extra ``cli`` brings, so that :func:`main` can say what
is missing, and the processes that a command starts need not load it.
"""

from __future__ import annotations

import sys

from ..exceptions import MissingExtra

__all__ = ["main"]


def main() -> None:
    """Run the command line with the arguments of this process."""
    try:
        from .app import app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "lahja":
            raise
        print(f"lahja: {MissingExtra('the command line', 'cli')}", file=sys.stderr)
        sys.exit(1)
    app(prog_name="lahja")
