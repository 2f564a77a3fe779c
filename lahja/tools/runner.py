"""
Runners: run drivers together, and fail when one of them fails.

In one process, the exception of the first driver that fails cancels the others and comes out as
itself. Isolated runners give each driver a process of its own, and keep that promise: the child
sends its exception, and its traceback as text, through a pipe. The parent raises the exception
with the traceback as its cause, after it has stopped the other children: by SIGINT, so that they
can tidy up, and then by SIGKILL. A child that ends without a word, and one that never ends, are
failures too.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import pickle
import signal
import sys
import time
import traceback
from abc import ABC, abstractmethod
from asyncio import _get_running_loop as running_loop
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, Final, NoReturn

from ..exceptions import LahjaError
from .engine import AsyncioEngine, Driver, EngineAPI, TrioEngine

__all__ = [
    "AsyncioRunner",
    "BaseIsolatedProcessRunner",
    "DriverFailed",
    "IsolatedHeterogenousRunner",
    "IsolatedHomogenousRunner",
    "RemoteTraceback",
    "RunnerAPI",
    "TrioRunner",
]

_GRACE: Final = 3.0  # seconds that a child has to tidy up


class DriverFailed(LahjaError):
    """
    Report that a driver failed in its process, where its own exception cannot be raised.

    :param driver: which driver it was
    :param reason: what is known about it
    """

    def __init__(self, driver: str, reason: str) -> None:
        super().__init__(driver, reason)
        self.driver = driver
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.driver} failed: {self.reason}"


class RunnerAPI(ABC):
    """Run drivers."""

    @abstractmethod
    def __call__(self, *drivers: Driver) -> None:
        """Run the drivers at the same time, until all have ended, or one has failed."""


class AsyncioRunner(RunnerAPI):
    """
    Run drivers in one event loop of asyncio.

    :param engine: the engine, if not an :class:`~lahja.tools.engine.AsyncioEngine`
    :param loop_factory: what makes the event loop, as in :class:`asyncio.Runner`
    """

    def __init__(
        self,
        engine: EngineAPI | None = None,
        *,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    ) -> None:
        self._engine = AsyncioEngine() if engine is None else engine
        self._loop_factory = loop_factory

    def __call__(self, *drivers: Driver) -> None:
        if running_loop() is not None:
            raise RuntimeError("AsyncioRunner cannot be called from a running event loop")
        with asyncio.Runner(loop_factory=self._loop_factory) as runner:
            runner.run(self._run(*drivers))

    async def _run(self, *drivers: Driver) -> None:
        await self._engine.run_drivers(*drivers)


class TrioRunner(RunnerAPI):
    """
    Run drivers in one event loop of trio.

    :param engine: the engine, if not a :class:`~lahja.tools.engine.TrioEngine`
    :raise MissingExtra: where trio is not installed
    """

    def __init__(self, engine: EngineAPI | None = None) -> None:
        self._engine = TrioEngine() if engine is None else engine

    def __call__(self, *drivers: Driver) -> None:
        import trio

        trio.run(self._run, *drivers)

    async def _run(self, *drivers: Driver) -> None:
        await self._engine.run_drivers(*drivers)


class BaseIsolatedProcessRunner(RunnerAPI):
    """
    Run each driver in a process of its own.

    Drivers, and the runners of the processes, must be picklable where processes are spawned.

    :param timeout: seconds after which the runner fails with a :class:`TimeoutError`; None for
        never
    :param start_method: how processes are started, as in :func:`multiprocessing.get_context`;
        None for the platform's default
    """

    timeout: float | None = 60.0
    start_method: str | None = None

    def __init__(self, *, timeout: float | None = 60.0, start_method: str | None = None) -> None:
        self.timeout = timeout
        self.start_method = start_method

    @abstractmethod
    def get_runner(self) -> RunnerAPI:
        """Return the runner for the next driver, in its process."""

    def __call__(self, *drivers: Driver) -> None:
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        children: list[_Child] = []
        failure: BaseException | None = None
        try:
            for number, driver in enumerate(drivers, 1):
                children.append(_Child(self.start_method, number, self.get_runner(), driver))
            self._supervise(children, deadline)
        except BaseException as error:
            failure = error
            raise
        finally:
            stopped = _stop(children)
            if failure is not None and stopped:
                failure.add_note(f"stopped before its end: {'; '.join(stopped)}")

    def _supervise(self, children: list[_Child], deadline: float | None) -> None:
        """Wait until all children have ended well, or one of them has failed."""
        by_sign = {child.process.sentinel: child for child in children}
        while by_sign:
            by_report = {child.reports: child for child in by_sign.values() if child.is_heard}
            seconds = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = wait([*by_report, *by_sign], seconds)
            if not ready:
                raise TimeoutError(f"not done within {self.timeout:g} s")
            for sign in ready:
                if isinstance(sign, int):
                    by_sign.pop(sign).check_end()
                elif isinstance(sign, Connection):
                    by_report[sign].read_report()


class IsolatedHomogenousRunner(BaseIsolatedProcessRunner):
    """
    Run each driver in a process of its own, all by the same runner.

    :param runner: what runs each driver, in its process
    """

    def __init__(
        self,
        runner: RunnerAPI,
        *,
        timeout: float | None = 60.0,
        start_method: str | None = None,
    ) -> None:
        super().__init__(timeout=timeout, start_method=start_method)
        self._runner = runner

    def get_runner(self) -> RunnerAPI:
        return self._runner


class IsolatedHeterogenousRunner(BaseIsolatedProcessRunner):
    """
    Run each driver in a process of its own, by one runner after the other.

    :param choices: the runners, taken in turn
    :raise ValueError: where none is given
    """

    def __init__(
        self,
        *choices: RunnerAPI,
        timeout: float | None = 60.0,
        start_method: str | None = None,
    ) -> None:
        if not choices:
            raise ValueError("no runner was given to choose from")
        super().__init__(timeout=timeout, start_method=start_method)
        self._choices = itertools.cycle(choices)

    def get_runner(self) -> RunnerAPI:
        return next(self._choices)


# -- The parent's side of a child process ------------------------------------------------------


class _Child:
    """Run a driver in a process, and learn how it ends."""

    def __init__(
        self, start_method: str | None, number: int, runner: RunnerAPI, driver: Driver
    ) -> None:
        self.name = f"driver {number}, {driver!r}"
        self.is_heard = True  # whether a report may still come
        self._is_started = False
        self._is_done = False
        self._has_failed = False
        context: Any = multiprocessing.get_context(start_method)
        self.reports, reports = context.Pipe(duplex=False)
        self.process = context.Process(
            target=_run_isolated, args=(runner, driver, reports), name=f"driver-{number}"
        )
        try:
            self.process.start()
        except (AttributeError, TypeError, pickle.PicklingError) as error:
            self.reports.close()
            error.add_note(
                f"{self.name} cannot be sent to its process: use functions of modules in it "
                "instead of lambdas and inner functions, or start_method='fork'"
            )
            raise
        finally:
            reports.close()

    @property
    def is_stopped_early(self) -> bool:
        """Whether the process still runs its driver, as far as it is known."""
        return not (self._is_done or self._has_failed) and self.process.is_alive()

    def read_report(self) -> None:
        """
        Take note of the next report.

        :raise Exception: the one that is reported
        """
        try:
            report = self.reports.recv()
        except (EOFError, OSError):
            self.is_heard = False
            return
        if report == _STARTED:
            self._is_started = True
        elif report == _DONE:
            self._is_done = True
            self.is_heard = False
        else:
            self._has_failed = True
            self._raise(*report)

    def check_end(self) -> None:
        """
        Take note that the process has ended.

        :raise DriverFailed: where it did not end well
        """
        while self.is_heard and self.reports.poll():
            self.read_report()
        self.process.join()
        code = self.process.exitcode
        if code or not self._is_done:
            self._has_failed = True
            how = f"signal {-code}, {signal.strsignal(-code)}" if code < 0 else f"exit code {code}"
            raise DriverFailed(self.name, f"its process ended ({how}) and reported nothing")

    def _raise(self, pickled: bytes, summary: str, text: str) -> NoReturn:
        """Raise the exception of the child."""
        error: Any = None
        with suppress(Exception):  # an exception may have made itself unpicklable in any way
            error = pickle.loads(pickled)
        if not isinstance(error, Exception):
            error = DriverFailed(self.name, summary)
        raise error from RemoteTraceback(text)

    def interrupt(self) -> None:
        """Ask the process to tidy up and end; one that has not begun has nothing to tidy up."""
        if self._is_started:
            os.kill(self.process.pid, signal.SIGINT)
        else:
            self.process.kill()

    def close(self) -> None:
        """Forget the process, which has ended."""
        self.reports.close()
        self.process.close()


def _stop(children: list[_Child]) -> list[str]:
    """End all processes, and return the names of the drivers that were not done."""
    interrupted = [child for child in children if child.is_stopped_early]
    for child in interrupted:
        child.interrupt()
    deadline = time.monotonic() + _GRACE
    for child in children:
        child.process.join(max(0.0, deadline - time.monotonic()))
        if child.process.is_alive():
            child.process.kill()
            child.process.join()
        child.close()
    return [child.name for child in interrupted]


# -- The child's side --------------------------------------------------------------------------

_STARTED: Final = "started"
_DONE: Final = "done"


class RemoteTraceback(Exception):
    """
    Be the cause of an exception that was raised in another process.

    :param text: the traceback
    """

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _run_isolated(runner: RunnerAPI, driver: Driver, reports: Connection) -> None:
    """Run a driver in this process, and report how it ends."""
    # Not so where the parent ignores the signal, as the background jobs of shells do.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        reports.send(_STARTED)
        runner(driver)
        reports.send(_DONE)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except BaseException as error:
        pickled = b""
        with suppress(Exception):
            pickled = pickle.dumps(error)
        summary = f"{type(error).__qualname__}: {error}"
        reports.send((pickled, summary, "".join(traceback.format_exception(error))))
        sys.exit(1)
