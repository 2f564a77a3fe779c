"""
One run: start the processes of a contender, wait for what they report, and end them.

Each process writes its report into a file of the run's folder, so that no pipe between it and
this process can fill. A process that fails, or takes too long, ends the run.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .contestants import Contender
from .environments import Environments
from .work import Node, Work, now

__all__ = ["ABOUT", "Failed", "Runner", "quantiles", "roles", "summary"]

_NODE = Path(__file__).with_name("node.py")
_POLL = 0.02  # seconds
_POINTS = 100  # of a distribution
_IMPORT = "import time; begin = time.perf_counter(); import {}; print(time.perf_counter() - begin)"

ABOUT = "about"
"""The key under which a run says which implementation, and which versions, were measured."""


class Failed(Exception):
    """A run gave no result, and the text says why."""


class Runner:
    """
    Run contenders.

    :param lahja: a folder that contains nothing but this package's lahja
    :param timeout: seconds that one run may take; one that endures, ten times as many
    """

    def __init__(self, environments: Environments, lahja: Path, timeout: float) -> None:
        self.environments = environments
        self.lahja = lahja
        self.timeout = timeout

    def run(self, contender: Contender, work: Work, count: int) -> dict[str, Any]:
        """
        Let a contender do something once, and return what was measured.

        :param count: how many events are measured
        :raise Failed: where a process fails, hangs, or is not what it should be
        :raise Missing: where the contender's environment cannot be made
        """
        python = self.environments.python(contender.environment)
        if work.kind.startswith("import "):
            return self._import(contender, python, work.kind.split()[1], count)
        with tempfile.TemporaryDirectory(prefix="peers") as folder:
            nodes = [
                Node(contender.module, contender.backend, contender.snappy, *each, work, count)
                for each in (
                    (role, index, folder)
                    for role, number in roles(contender, work).items()
                    for index in range(number)
                )
            ]
            begin = now()
            reports = self._reports(contender, python, nodes)
            for report in reports.values():
                _check(contender, report[ABOUT])
            return {
                **summary(work, count, begin, reports),
                ABOUT: next(iter(reports.values()))[ABOUT],
            }

    def _reports(
        self, contender: Contender, python: str, nodes: Sequence[Node]
    ) -> dict[str, dict[str, Any]]:
        """Start the processes, and return what they report, by role and index."""
        environment = contender.variables(self.lahja)
        processes: list[subprocess.Popen[bytes]] = []
        with contextlib.ExitStack() as stack:
            for node in nodes:
                errors = stack.enter_context(node.report_path.with_suffix(".errors").open("wb"))
                process = subprocess.Popen(
                    (python, "-P", str(_NODE), node.dumps()),
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=errors,
                    stderr=errors,
                    start_new_session=True,
                )
                stack.callback(_end, process)
                processes.append(process)
            self._wait(nodes, processes)
        return {f"{node.role}{node.index}": _read(node) for node in nodes}

    def _wait(self, nodes: Sequence[Node], processes: Sequence[subprocess.Popen[bytes]]) -> None:
        seconds = self.timeout * (10 if nodes[0].work.kind == "endure" else 1)
        deadline = now() + seconds
        stay = nodes[0].work.kind == "mesh"  # whoever has left would be missed by the others
        while True:
            codes = [process.poll() for process in processes]
            ended = [pair for pair in zip(nodes, codes, strict=True) if pair[1]]
            if ended:
                raise Failed(
                    "; ".join(f"its {node.role} said: {_last_line(node)}" for node, _ in ended)
                )
            done = [
                node.report_path.exists() and (stay or code == 0)
                for node, code in zip(nodes, codes, strict=True)
            ]
            if all(done):
                return
            for node, code in zip(nodes, codes, strict=True):
                if code == 0 and not node.report_path.exists():
                    raise Failed(f"its {node.role} ended without a report: {_last_line(node)}")
            if now() > deadline:
                waiting = ", ".join(
                    f"{node.role}{node.index}"
                    for node, is_done in zip(nodes, done, strict=True)
                    if not is_done
                )
                raise Failed(f"it took more than {seconds:g} s; still at work: {waiting}")
            time.sleep(_POLL)

    def _import(self, contender: Contender, python: str, module: str, times: int) -> dict[str, Any]:
        """Import a module in fresh processes, and return the median of the seconds it takes."""
        seconds = []
        for _ in range(times):
            try:
                ended = subprocess.run(
                    (python, "-P", "-c", _IMPORT.format(module)),
                    env=contender.variables(self.lahja),
                    capture_output=True,
                    text=True,
                    timeout=self.timeout,
                    check=True,
                )
            except subprocess.SubprocessError as error:
                said = getattr(error, "stderr", None) or str(error)
                raise Failed(f"{module} cannot be imported: {said[-300:]}") from error
            seconds.append(float(ended.stdout))
        return {"seconds": statistics.median(seconds)}


def roles(contender: Contender, work: Work) -> dict[str, int]:
    """Return how many processes of each role there are, in the order in which they are started."""
    if contender.is_alone or work.kind in ("encode", "decode", "keep"):
        return {"alone": 1}
    if work.kind == "mesh":
        return {"member": work.processes}
    if work.kind == "ask":
        return {"answerer": 1, "asker": 1}
    if work.kind == "unheard":
        return {"bystander": 1, "sender": 1}
    return {"receiver": work.receivers, "idle": min(1, work.idle), "sender": 1}


def summary(
    work: Work, count: int, begin: float, reports: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """
    Return the figures of one run.

    :param begin: when the first process was started
    :param reports: what the processes reported, by role and index
    """
    first = next(iter(reports.values()))
    if work.kind == "stream":
        sender = reports.get("sender0", first)
        end = max(report["end"] for report in reports.values() if "end" in report)
        figures = {"rate": work.receivers * count / (end - sender["begin"])}
        if "worked" in sender:
            figures["sender"] = sender["worked"] / count
        return figures
    if work.kind == "ask":
        asker = reports.get("asker0", first)
        times = sorted(asker["times"])
        if work.in_flight > 1:
            return {"rate": len(times) / (asker["end"] - asker["begin"])}
        points = quantiles(times)
        return {
            "p50": statistics.median(times),
            "p99": statistics.quantiles(times, n=100)[98],
            "distribution": points,
        }
    if work.kind == "mesh":
        return {"seconds": max(report["end"] for report in reports.values()) - begin}
    if work.kind == "endure":
        return {"growth": max(report["growth"] for report in reports.values())}
    wanted = "bytes" if work.kind in ("hold", "keep") else "rate"
    return {wanted: next(report[wanted] for report in reports.values() if wanted in report)}


def quantiles(ordered: Sequence[float]) -> list[float]:
    """Return points of a distribution that lie closer together towards its upper end."""
    shares = (1 - 10 ** (-4 * point / _POINTS) for point in range(_POINTS + 1))
    return [ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in shares]


def _check(contender: Contender, about: dict[str, Any]) -> None:
    """Make sure that what has run is what was to run."""
    if about["implementation"] != contender.implementation:
        raise Failed(f"{contender.implementation} was to run, {about['implementation']} has run")
    if about.get("snappy", False) != contender.snappy:
        raise Failed(f"python-snappy was {'not ' if contender.snappy else ''}in use")


def _read(node: Node) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(node.report_path.read_text())
    return report


def _last_line(node: Node) -> str:
    lines = node.report_path.with_suffix(".errors").read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")[:300]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that still runs, and those that it has started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
