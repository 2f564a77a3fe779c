"""
Real processes for tests: start one, watch it, and demand that it ends well.

A worker runs under ``-X dev -W error`` unless it is asked to be fast. Whatever it writes to its
standard error is a failure: that is where Python reports an exception in a finalizer, a task that
was left behind and a resource that nobody closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.to_thread

import lahja
from lahja.base import BaseEndpoint

__all__ = [
    "BACKENDS",
    "SECONDS",
    "Worker",
    "backend_name",
    "call",
    "calling",
    "endpoint_class",
    "run_on",
]

SECONDS = 25.0
"""How long a worker may take; far more than it needs, and less than a test may."""

_LAST_RESORT = 300.0  # seconds after which an event loop ends by itself, so that nothing is left

BACKENDS: dict[str, tuple[str, dict[str, Any]]] = {
    "asyncio": ("asyncio", {"use_uvloop": False}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}

_PATH = (str(Path(lahja.__file__).parents[1]), str(Path(__file__).parent))


def backend_name(anyio_backend: tuple[str, dict[str, Any]]) -> str:
    """Return the name of an event loop, given as anyio's plugin for pytest wants it."""
    return next(name for name, backend in BACKENDS.items() if backend == anyio_backend)


def endpoint_class(backend: str) -> type[BaseEndpoint]:
    """Return the class of the endpoints of a backend."""
    return lahja.TrioEndpoint if backend == "trio" else lahja.AsyncioEndpoint


def run_on(backend: str, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
    """Run a coroutine function in a new event loop of the backend."""
    library, options = BACKENDS[backend]

    async def main() -> None:
        if library == "asyncio":  # it would complain, under -X dev, of a machine that is busy
            asyncio.get_running_loop().slow_callback_duration = math.inf
        with anyio.fail_after(_LAST_RESORT):
            await function(*args)

    anyio.run(main, backend=library, backend_options=options)


def calling(
    function: Callable[..., None], *arguments: str, without: str | None = None
) -> tuple[str, ...]:
    """
    Return the command line for a worker that calls a function of a test module.

    The module is loaded under the name that pytest gave it, so that both mean the same types.

    :param without: a package that the worker must not find
    """
    file = sys.modules[function.__module__].__file__
    assert file is not None  # it is a test module
    boot = "import process_helpers; process_helpers.call()"
    if without is not None:
        boot = f"import sys; sys.modules[{without!r}] = None; {boot}"
    return ("-c", boot, function.__module__, file, function.__name__, *arguments)


def call() -> None:
    """Call the function that :func:`calling` put on the command line of this process."""
    name, file, function, *arguments = sys.argv[1:]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None  # the file is there
    assert spec.loader is not None  # and it holds Python
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    getattr(module, function)(*arguments)


class Worker:
    """
    Run Python in another process; leaving the context waits for its end, and checks how it was.

    :param arguments: what follows the interpreter on the command line
    :param folder: where it runs
    :param environment: variables that are added to those of the test, or removed from them if None
    :param strict: False to run it without ``-X dev``, which makes it slow
    """

    def __init__(
        self,
        *arguments: str,
        folder: Path | None = None,
        environment: Mapping[str, str | None] | None = None,
        strict: bool = True,
    ) -> None:
        variables: dict[str, str | None] = {**os.environ, **(environment or {})}
        path = (*_PATH, variables.get("PYTHONPATH"))
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, path))
        variables["PYTHONUNBUFFERED"] = None  # a line of several parts is to be written as one
        if not strict:
            variables["PYTHONDEVMODE"] = None
        flags = ("-X", "dev", "-W", "error") if strict else ("-X", "faulthandler")
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._is_killed = False
        self.process = subprocess.Popen(
            (sys.executable, *flags, *arguments),
            bufsize=0,
            cwd=folder,
            env={name: value for name, value in variables.items() if value is not None},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.finish()
        if self.is_alive:
            self.process.send_signal(signal.SIGABRT)  # it says where it was
        code = self.process.wait()
        assert self.process.stdout is not None  # it was asked for
        self.process.stdout.close()
        errors = self.errors
        self._errors.close()
        expected = -signal.SIGKILL if self._is_killed else 0
        if exc is not None:
            exc.add_note(f"the worker ended with {code} and wrote:\n{errors}")
        elif errors or code != expected:
            raise AssertionError(f"the worker ended with {code} and wrote:\n{errors}")

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    @property
    def errors(self) -> str:
        """What the process has written to its standard error so far."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")

    def read_line(self) -> str:
        """Return the next line that the process writes to its standard output."""
        assert self.process.stdout is not None  # it was asked for
        return self.process.stdout.readline().decode().strip()

    def finish(self) -> None:
        """Wait until the process has ended."""
        self.process.wait(SECONDS)

    async def ended(self) -> None:
        """Wait until the process has ended, and let others run meanwhile."""
        await anyio.to_thread.run_sync(self.finish)

    def kill(self) -> None:
        """Kill the process; leaving the context does not mind."""
        self._is_killed = True
        self.process.kill()
