"""
Run real programs: a command or a script, with the processes that it starts.

Each runs in a session of its own, so that signals can be sent to all of it, as a terminal does, and
whatever it leaves behind is found. Its temporary files go to an empty directory, which must be
empty afterwards. Warnings are errors, and debug modes are on.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

import psutil

import lahja

__all__ = ["Outcome", "Program", "run_program"]

# What asyncio's debug mode says of a machine that is busy with something else.
_SLOW = re.compile(r"^(?:[A-Z]+ [-: \d]+)?Executing <.* took [0-9.]+ seconds\n", re.MULTILINE)
_END_SECONDS = 10


@dataclass
class Outcome:
    """What a program has printed, and its exit code."""

    code: int
    output: str

    def assert_clean(self) -> None:
        """Assert that nobody complained."""
        bad = re.search(
            r"Traceback|\w+Warning|\w+Error\b|was never|Task was destroyed", self.output
        )
        assert bad is None, self.output


class Program:
    """
    Be a program that runs.

    :param directory: an empty one, for its temporary files
    :param output: where it writes; a pipe that :meth:`wait_for` and :meth:`finish` read, if not
        given
    :param errors: where it complains; the output, if not given
    """

    def __init__(
        self,
        *arguments: str,
        directory: Path,
        output: int | IO[bytes] = subprocess.PIPE,
        errors: int = subprocess.STDOUT,
    ) -> None:
        path = [str(Path(lahja.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, path)),  # the lahja that is tested
            "TERM": "xterm-256color",
            "TMPDIR": str(directory),
        }
        # They change what is printed, and when.
        for unwanted in ("COLUMNS", "FORCE_COLOR", "NO_COLOR", "PYTHONUNBUFFERED"):
            environment.pop(unwanted, None)
        self.directory = directory
        self.process = subprocess.Popen(
            [sys.executable, "-X", "dev", "-W", "error", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            cwd=directory,
            env=environment,
            start_new_session=True,
        )
        self._lines: list[str] = []

    def wait_for(self, text: str) -> None:
        """Read its output until the text has come."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.append(line.decode())
            if text in self._lines[-1]:
                return
        raise AssertionError(f"{text!r} never came:\n{''.join(self._lines)}")

    def finish(self) -> Outcome:
        """Wait for its end."""
        rest, _ = self.process.communicate()
        text = "".join(self._lines) + (rest or b"").decode()
        return Outcome(self.process.returncode, _SLOW.sub("", text))

    def processes(self) -> list[psutil.Process]:
        """Return what runs of it."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(ProcessLookupError, psutil.Error):
                if os.getsid(process.pid) == self.process.pid and (
                    process.status() != psutil.STATUS_ZOMBIE
                ):
                    found.append(process)
        return found

    def children(self) -> list[psutil.Process]:
        """Return the processes that it has started, without the helper of multiprocessing."""
        return [
            process
            for process in self.processes()
            if process.pid != self.process.pid
            and "resource_tracker" not in " ".join(process.cmdline())
        ]

    def signal_all(self, signum: int) -> None:
        """Send a signal to every process of it, as a terminal does."""
        os.killpg(self.process.pid, signum)

    def assert_gone(self) -> None:
        """Assert that, very soon, no process of it is left."""
        deadline = time.monotonic() + _END_SECONDS
        while left := self.processes():
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(0.01)

    def assert_tidy(self) -> None:
        """Assert that it has left neither a process nor a file."""
        self.assert_gone()
        assert list(self.directory.iterdir()) == []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.signal_all(signal.SIGKILL)
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def run_program(*arguments: str, directory: Path) -> Outcome:
    """Run a program to its end, and assert that it leaves nothing behind."""
    with Program(*arguments, directory=directory) as program:
        outcome = program.finish()
        program.assert_tidy()
    return outcome
