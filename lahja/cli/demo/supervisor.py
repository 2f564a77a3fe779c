"""
The process that starts the six, and ends them.

It takes part in the bus with an endpoint of its own, to which the six report. Whatever happens
(the time is over, Ctrl-C, a process that dies), it ends with all of them gone; and if it is killed
itself, they notice, and leave.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import signal
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from importlib.util import find_spec
from multiprocessing.process import BaseProcess
from pathlib import Path

from ...asyncio import AsyncioEndpoint
from ...base import EndpointAPI
from ...common import ConnectionConfig
from .events import Begin, Leave, Ready, Report
from .node import REPORT_SECONDS, Plan, run_node
from .progress import Progress, Stage
from .view import View

__all__ = ["run_demo"]

_QUIET_SHARE = 0.25  # of the time, in which there are requests only
_PATIENCE = 15.0  # seconds in which nothing arrives, after which what is missing is lost
_END_SECONDS = 10.0
_RATE_SECONDS = 1.0

_LOOPS = {
    "ann": "asyncio",
    "bob": "asyncio",
    "cat": "uvloop",
    "dan": "trio",
    "eve": "trio",
    "fay": "trio",
}


def run_demo(seconds: float, view: View) -> Progress:
    """
    Let six processes talk to each other.

    :param seconds: for how long they send
    :param view: is shown what happens
    :return: what has happened
    """
    with tempfile.TemporaryDirectory(prefix="lahja-") as directory, _sigint_ignored():
        configs = {
            name: ConnectionConfig.from_name(name, Path(directory)) for name in ("demo", *_LOOPS)
        }
        supervisor = Supervisor(seconds, view, configs.pop("demo"))
        try:
            supervisor.start(list(configs.values()))
            with view:
                return asyncio.run(supervisor.run())
        finally:
            supervisor.kill()


@contextlib.contextmanager
def _sigint_ignored() -> Iterator[None]:
    """Let the processes that are started inherit that Ctrl-C is none of their business."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Supervisor:
    """Start the processes, conduct them, and see to it that they end."""

    def __init__(self, seconds: float, view: View, own: ConnectionConfig) -> None:
        self._own = own
        self._view = view
        self._quiet_seconds = seconds * _QUIET_SHARE
        self._full_seconds = seconds - self._quiet_seconds
        self._progress = Progress(dict(_LOOPS))
        self._processes: list[BaseProcess] = []
        self._running: set[BaseProcess] = set()
        self._rates: deque[tuple[float, int]] = deque()
        self._ending = False
        self._started = time.monotonic()
        self._stopped = asyncio.Event()
        self._all_ready = asyncio.Event()
        self._reported = asyncio.Event()
        self._all_ended = asyncio.Event()

    def start(self, configs: list[ConnectionConfig]) -> None:
        """Start the processes; no event loop may run yet."""
        loops = self._progress.loops
        if find_spec("uvloop") is None:
            loops |= {name: "asyncio" for name, loop in loops.items() if loop == "uvloop"}
        context = multiprocessing.get_context("spawn")
        for own in configs:
            others = [config for config in configs if config is not own]
            plan = Plan(loops[own.name], own, others, self._own)
            process = context.Process(target=run_node, name=own.name, args=(plan,), daemon=True)
            process.start()
            self._processes.append(process)

    def kill(self) -> None:
        """End what is left of the processes."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
            process.close()

    async def run(self) -> Progress:
        """Conduct the processes until the time is over, or something happens."""
        loop = asyncio.get_running_loop()
        for process in self._processes:
            self._running.add(process)
            loop.add_reader(process.sentinel, self._has_ended, process)
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, self._interrupt)
        async with AsyncioEndpoint.serve(self._own) as endpoint:
            endpoint.subscribe(Ready, self._on_ready)
            endpoint.subscribe(Report, self._on_report)
            async with asyncio.TaskGroup() as group:
                refreshing = group.create_task(self._refresh())
                conducting = group.create_task(self._conduct(endpoint))
                await self._stopped.wait()
                conducting.cancel()
                await self._end(endpoint)
                refreshing.cancel()
        self._progress.stage = Stage.OVER
        self._show()
        return self._progress

    # -- What happens ------------------------------------------------------------------------

    def _on_ready(self, event: Ready) -> None:
        self._progress.ready[event.get_origin()] = event
        if len(self._progress.ready) == len(self._processes):
            self._all_ready.set()

    def _on_report(self, event: Report) -> None:
        self._progress.ledger.take(event.get_origin(), event)
        self._reported.set()

    def _interrupt(self) -> None:
        self._progress.is_interrupted = True
        self._stopped.set()

    def _has_ended(self, process: BaseProcess) -> None:
        asyncio.get_running_loop().remove_reader(process.sentinel)
        process.join()
        self._running.discard(process)
        if not self._ending or process.exitcode not in (0, -signal.SIGTERM):
            how = f"exit code {process.exitcode}"
            if process.exitcode is not None and process.exitcode < 0:
                how = signal.Signals(-process.exitcode).name
            self._progress.failures.append(f"process {process.name} died ({how})")
            self._stopped.set()
        if not self._running:
            self._all_ended.set()

    # -- What is done about it ---------------------------------------------------------------

    async def _conduct(self, endpoint: EndpointAPI) -> None:
        progress, ledger = self._progress, self._progress.ledger
        await self._all_ready.wait()
        progress.stage = Stage.QUIET
        await endpoint.broadcast(Begin(self._quiet_seconds, self._full_seconds))
        await asyncio.sleep(self._quiet_seconds)
        progress.stage = Stage.FULL
        begun = arrived = time.monotonic()
        count = -1
        while ledger.missing or not ledger.is_finished:
            self._reported.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._reported.wait(), _PATIENCE)
            now = time.monotonic()
            if ledger.deliveries + ledger.requests != count:
                count = ledger.deliveries + ledger.requests
                arrived = now
                progress.full_seconds = now - begun
            elif now - arrived > _PATIENCE:
                break
            if ledger.is_finished:
                progress.stage = Stage.ARRIVING
        self._stopped.set()

    async def _end(self, endpoint: EndpointAPI) -> None:
        """Let the processes leave; those that do not, or never came, are killed later."""
        self._ending = True
        self._progress.stage = Stage.LEAVING
        await endpoint.broadcast(Leave())
        for process in self._running:
            if process.name not in self._progress.ready:
                process.terminate()
        try:
            await asyncio.wait_for(self._all_ended.wait(), _END_SECONDS)
        except TimeoutError:
            names = ", ".join(sorted(process.name for process in self._running))
            self._progress.failures.append(f"did not leave within {_END_SECONDS:g} s: {names}")

    async def _refresh(self) -> None:
        while True:
            self._show()
            await asyncio.sleep(REPORT_SECONDS)

    def _show(self) -> None:
        now = time.monotonic()
        progress = self._progress
        progress.seconds = now - self._started
        rates, deliveries = self._rates, progress.ledger.deliveries
        rates.append((now, deliveries))
        while now - rates[0][0] > _RATE_SECONDS:
            rates.popleft()
        then, before = rates[0]
        progress.rate = (deliveries - before) / (now - then) if now > then else 0.0
        try:
            self._view.update(progress)
        except SystemExit:  # so says rich that the pipe is closed: nobody reads this any more
            self._interrupt()
