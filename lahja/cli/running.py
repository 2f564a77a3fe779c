"""How a command that observes runs: on asyncio, to its end, without a traceback."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

import rich.console

from .places import NoDirectoryError

__all__ = ["Console", "print_line", "run"]

_WIDTH_OF_A_FILE = 120
_INTERRUPTED = 128 + signal.SIGINT
_TERMINATED = 128 + signal.SIGTERM
_NOBODY_READS = 128 + 13  # SIGPIPE, which not every system has


class Console(rich.console.Console):
    """Write for people; that nobody reads it any more is an error like any other."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, **options)
        if not self.is_terminal and "COLUMNS" not in os.environ and "width" not in options:
            self.width = _WIDTH_OF_A_FILE

    def on_broken_pipe(self) -> NoReturn:
        """Raise what a plain write would raise."""
        raise BrokenPipeError


def print_line(text: str) -> None:
    """Write a line for programs, at once."""
    print(text, flush=True)


def run(command: Callable[[], Coroutine[Any, Any, int]]) -> NoReturn:
    """Run a command, and leave with the exit code that it returns, or that says what ended it."""
    try:
        code = asyncio.run(_until_terminated(command))
    except NoDirectoryError as error:
        print(f"lahja: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except BrokenPipeError:
        code = _NOBODY_READS
        # What is left in the buffer would complain, when the interpreter ends, of the same thing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


async def _until_terminated(command: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run a command; SIGTERM cancels it, as Ctrl-C does, and ends it at once the second time."""
    task = asyncio.current_task()
    assert task is not None  # it is this one
    loop = asyncio.get_running_loop()
    signals = 0

    def terminate(signum: int, frame: object) -> None:
        nonlocal signals
        signals += 1
        if signals > 1:
            sys.exit(_TERMINATED)
        loop.call_soon_threadsafe(task.cancel)  # which wakes it, too

    signal.signal(signal.SIGTERM, terminate)
    try:
        return await command()
    except asyncio.CancelledError:
        if not signals:
            raise
        return _TERMINATED
