"""
Take the pictures of the commands that observe: ``python docs/screenshots.py [FOLDER]``.

It runs ``examples/component_manager.py``, six processes, lets each command look at them, and writes
what it shows as SVG, into ``docs/images`` if no folder is named. For ``lahja top`` one of the
processes is stopped for a moment, so that there is something to see.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import rich.terminal_theme
from rich.text import Text

from lahja.cli.graph import draw_graph
from lahja.cli.ls import list_endpoints
from lahja.cli.observer import Sight
from lahja.cli.places import Lookout, NoDirectoryError
from lahja.cli.running import Console
from lahja.cli.tap import show_events
from lahja.cli.top import show_top

ROOT = Path(__file__).parents[1]
APPLICATION = ROOT / "examples" / "component_manager.py"
PROCESSES = 6
STOPPED = "metrics"
WIDTH = 110
START_SECONDS = 30.0
WORK_SECONDS = 3.0  # after which there is something to count
PATIENCE = 10.0

Command = Callable[[Path, Console], Coroutine[Any, Any, int]]


async def _alive(directory: Path) -> dict[str, int]:
    """Return the endpoints that are alive, with the ids of their processes."""
    lookout = Lookout(directory, "screenshots", PATIENCE)
    try:
        await lookout.look()
        await lookout.ask()
        found = [each for each in lookout.observers if each.sight is Sight.ALIVE]
        return {each.name: each.pid for each in found if each.pid is not None}
    finally:
        lookout.close()


@contextlib.contextmanager
def application() -> Iterator[tuple[Path, dict[str, int]]]:
    """Run the application; return where it is, and who."""
    with tempfile.TemporaryDirectory(prefix="bus-") as folder:
        process = subprocess.Popen(
            [sys.executable, str(APPLICATION)],
            env={**os.environ, "TMPDIR": folder},
            stdout=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + START_SECONDS
            found: dict[str, int] = {}
            while len(found) < PROCESSES:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise SystemExit(f"error: {APPLICATION.name} does not come up")
                time.sleep(0.1)
                for directory in Path(folder).glob("lahja-*"):
                    with contextlib.suppress(NoDirectoryError):
                        found = asyncio.run(_alive(directory))
            time.sleep(WORK_SECONDS)
            yield directory, found
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


async def _graph(directory: Path, console: Console) -> int:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = await draw_graph(directory, False, PATIENCE)
    console.print(Text(printed.getvalue().rstrip()))
    return code


COMMANDS: dict[str, tuple[str, Command]] = {
    "ls": ("", lambda directory, console: list_endpoints(directory, False, PATIENCE, console)),
    "tap": (
        " --count 12",
        lambda directory, console: show_events(directory, [], False, 12, False, console),
    ),
    "graph": ("", _graph),
    "top": ("", lambda directory, console: show_top(directory, True, False, 1.0, console)),
}


def picture(name: str, directory: Path) -> str:
    """Return what a command shows, as SVG."""
    options, command = COMMANDS[name]
    console = Console(
        record=True, file=io.StringIO(), width=WIDTH, force_terminal=True, color_system="truecolor"
    )
    console.print(Text.assemble(("$ ", "dim"), f"lahja {name} {directory}{options}"))
    if asyncio.run(command(directory, console)):
        raise SystemExit(f"error: lahja {name} failed")
    svg = console.export_svg(
        title=f"lahja {name}",
        theme=rich.terminal_theme.MONOKAI,
        unique_id=f"lahja-{name}",  # the same each time, so that only what differs differs
    )
    # Whoever looks at it need not fetch a font from somewhere.
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    with application() as (directory, pids):
        for name in COMMANDS:
            if name == "top":
                os.kill(pids[STOPPED], signal.SIGSTOP)
            try:
                (folder / f"{name}.svg").write_text(picture(name, directory), encoding="utf-8")
            finally:
                if name == "top":
                    os.kill(pids[STOPPED], signal.SIGCONT)
            print(f"wrote {folder / name}.svg", flush=True)


if __name__ == "__main__":
    main()
