"""
Shake a bus of real processes, and see whether anything is lost, repeated, hung or leaked.

``python -m benchmarks.soak --minutes N [--seed S]``

Eight processes, on all event loops and both framings, are connected each with each. They broadcast
and ask at full speed, while every second one of them is killed, stopped, or restarted. The first
three are never killed or restarted: what they hold in memory is followed over the whole run.

At the beginning, then every minute, all is made quiet: who was stopped goes on, who was killed is
back, nobody sends any more. Then the books are compared, event by event (see
:mod:`benchmarks.soak_ledger`), every request must have ended, every connection that was lost must
have had a cause, every line that was logged too, and tasks, file descriptors and memory must be
where they were. The exit code is 1 where anything was not as it must be.

The faults, in their order and kind, follow from the seed; when exactly they hit does not.
"""

from __future__ import annotations

import argparse
import heapq
import importlib.util
import json
import os
import platform
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .soak_ledger import Epoch, compare

__all__ = ["Soak", "main", "plan"]

BACKENDS = ("asyncio", "trio", "uvloop")
RESIDENTS = 3  # never killed or restarted
ROUND_SECONDS = 60.0
WARM_UP_SECONDS = 5.0
MEMORY_GROWTH = 16 << 20  # bytes that a process may have more than at the beginning
SABOTAGE = ("lose", "repeat", "hang", "leak")
CHECKOUT = Path(__file__).parents[1]

# What may be logged at WARNING, and what it is called in the report.
EXPECTED_LINES = {
    "stalled": re.compile(r"closed the connection to '(\w+)': it took nothing for "),
    "truncated": re.compile(r"closed the connection to '(\w+)': the connection ended in "),
    "dropped": re.compile(r"dropped .*, which '(\w+)' "),
    "late response": re.compile(r"ignored a response of type \S+ from (\w+): it is late"),
    "stranger": re.compile(r"closed the connection to a (stranger): the connection ended in "),
}


@dataclass(order=True)
class Fault:
    """Be something bad that happens to a process, after some seconds, for some seconds."""

    at: float
    kind: str
    name: str
    seconds: float


def plan(
    chance: random.Random, names: Sequence[str], seconds: float, interval: float, stall: float
) -> Iterator[Fault]:
    """Give the faults of one round; nobody has two at a time, and half of the bus always works."""
    free = dict.fromkeys(names, 0.0)
    kinds = {"kill": 8, "restart": 4, "stop": 6, "long stop": 2, "stop and kill": 2}
    at = interval
    while at < seconds:
        kind = chance.choices([*kinds], [*kinds.values()])[0]
        allowed = names if kind in ("stop", "long stop") else names[RESIDENTS:]
        candidates = [name for name in allowed if free[name] <= at]
        length = {
            "kill": chance.uniform(0, 0.5),  # until it is back
            "restart": 0.0,
            "stop": chance.uniform(0.1, stall / 2),
            "long stop": stall + chance.uniform(1, 2),
            "stop and kill": chance.uniform(0.1, stall / 2),
        }[kind]
        name = chance.choice(candidates or [""])
        if name and sum(until > at for until in free.values()) < len(names) // 2:
            free[name] = at + length + 3  # it takes time to be connected again
            yield Fault(at, kind, name, length)
        at += interval


@dataclass
class Life:
    """Be one process from its start to its end."""

    name: str
    number: int
    process: subprocess.Popen[bytes]
    control: socket.socket
    ledger: Path
    errors: Path
    instance: str = ""
    framing: str = ""
    received: bytes = b""
    stopped_at: float | None = None
    stops: list[tuple[float, float]] = field(default_factory=list)
    end: str | None = None  # "killed" or "left"

    @property
    def key(self) -> str:
        """Name and number, as events carry them."""
        return f"{self.name}.{self.number}"

    def say(self, do: str, **values: object) -> None:
        """Give a command."""
        self.control.sendall(json.dumps({"do": do, **values}).encode() + b"\n")

    def hear(self, seconds: float) -> dict[str, Any]:
        """Return the answer to the last command."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self.received:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.control], [], [], left)[0]:
                raise TimeoutError(f"{self.key} said nothing for {seconds:g} s")
            data = self.control.recv(1 << 20)
            if not data:
                raise EOFError(f"{self.key} ended: {self.errors.read_text()[-1000:]}")
            self.received += data
        line, _, self.received = self.received.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def lines(self) -> list[dict[str, Any]]:
        """Return what is in its ledger; the last line of one that was killed may be cut."""
        text = self.ledger.read_text() if self.ledger.exists() else ""  # killed before it began
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def was_stopped_for(self, seconds: float) -> bool:
        """Return whether it was stopped for so long since the books were last compared."""
        return any(end - begin >= seconds for begin, end in self.stops)


class Soak:
    """
    Run the whole thing.

    :param seconds: how long, without the pauses in which the books are compared
    :param processes: how many; at least 4
    :param interval: seconds from fault to fault
    :param stall: the ``stall_timeout`` of all endpoints
    :param patience: seconds in which everything must become quiet
    :param sabotage: what one of the processes does wrong once, to see that it is noticed
    """

    def __init__(
        self,
        seconds: float,
        processes: int = 8,
        seed: int = 0,
        interval: float = 1.0,
        stall: float = 3.0,
        patience: float = 60.0,
        sabotage: Sequence[str] = (),
    ) -> None:
        self.seconds = seconds
        self.names = [f"n{number}" for number in range(processes)]
        self.seed = seed
        self.interval = interval
        self.stall = stall
        self.patience = patience
        self.sabotage = sabotage
        self.directory = Path(tempfile.mkdtemp(prefix="soak"))
        self.framings = ["python"]
        if importlib.util.find_spec("lahja._framing") is not None:
            self.framings = ["cython", "python"]
        self.now: dict[str, Life] = {}  # by name
        self.dead: list[Life] = []  # since the books were last compared
        self.lives: Counter[str] = Counter()
        self.violations: list[str] = []
        self.figures: Counter[str] = Counter()
        self.slowest = 0.0
        self.beginning: dict[str, dict[str, int]] = {}  # what was measured first, by name
        self.memory: list[dict[str, int]] = []

    # -- Processes ---------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Start a new life."""
        self.lives[name] += 1
        index = self.names.index(name)
        ours, theirs = socket.socketpair()
        key = f"{name}.{self.lives[name]}"
        ledger, errors = (self.directory / f"{key}.{what}" for what in ("ledger", "errors"))
        options = {
            "name": name,
            "life": key,
            "names": self.names,
            "backend": BACKENDS[index % len(BACKENDS)],
            "directory": str(self.directory),
            "ledger": str(ledger),
            "seed": self.seed,
            "stall_timeout": self.stall,
            "control": theirs.fileno(),
            "sabotage": self.sabotage if key == "n1.1" else (),
        }
        framing = self.framings[index // len(BACKENDS) % len(self.framings)]
        path = [str(CHECKOUT), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "LAHJA_FRAMING": framing,
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
        }
        with theirs, errors.open("wb") as stderr:
            process = subprocess.Popen(
                (sys.executable, "-m", "benchmarks.soak_node", json.dumps(options)),
                env=environment,
                stdin=subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=(theirs.fileno(),),
            )
        self.now[name] = Life(name, self.lives[name], process, ours, ledger, errors)

    def welcome(self, life: Life) -> None:
        """Wait until a process runs, the first time that it is talked to."""
        if not life.instance:
            ready = life.hear(self.patience)
            life.instance, life.framing = ready["ready"], ready["framing"]

    def bury(self, life: Life, how: str) -> None:
        """Take note that a process has ended."""
        self.go_on(life)
        if not life.instance:  # it may have said so, and was not listened to
            try:
                self.welcome(life)
            except EOFError:
                pass
        life.end = how
        life.control.close()
        self.dead.append(life)

    def stop(self, life: Life) -> None:
        """Let a process do nothing."""
        os.kill(life.process.pid, signal.SIGSTOP)
        life.stopped_at = time.monotonic()

    def go_on(self, life: Life) -> None:
        """Continue a process that was stopped."""
        if life.stopped_at is not None:
            life.stops.append((life.stopped_at, time.monotonic()))
            life.stopped_at = None
            if life.process.poll() is None:
                os.kill(life.process.pid, signal.SIGCONT)

    def kill(self, life: Life) -> None:
        """End a process at once."""
        life.process.kill()
        life.process.wait()
        self.bury(life, "killed")

    def leave(self, life: Life) -> None:
        """Wait until a process that was told to leave has done so."""
        try:
            code = life.process.wait(self.stall + self.patience)
        except subprocess.TimeoutExpired:
            self.violations.append(f"{life.key} did not leave")
            self.kill(life)
            return
        if code:
            self.violations.append(f"{life.key} ended with exit code {code}")
        self.bury(life, "left")

    # -- Faults ------------------------------------------------------------------------------

    def shake(self, faults: Iterator[Fault], seconds: float) -> None:
        """Let the faults of one round happen."""
        begin = time.monotonic()
        actions: list[tuple[float, int, Callable[[], None]]] = []
        for fault in faults:
            self.figures[fault.kind] += 1
            for at, action in self.actions(fault):
                heapq.heappush(actions, (at, len(actions), action))
        while actions:
            at, _, action = heapq.heappop(actions)
            time.sleep(max(0.0, begin + min(at, seconds) - time.monotonic()))
            action()
        time.sleep(max(0.0, begin + seconds - time.monotonic()))

    def actions(self, fault: Fault) -> Iterator[tuple[float, Callable[[], None]]]:
        """Give what is to be done for a fault, and when."""
        name, later = fault.name, fault.at + fault.seconds

        def leave() -> None:
            self.welcome(self.now[name])
            self.now[name].say("leave")

        def come_back() -> None:
            self.leave(self.now[name])
            self.start(name)

        if "stop" in fault.kind:
            yield fault.at, lambda: self.stop(self.now[name])
        if fault.kind in ("stop", "long stop"):
            yield later, lambda: self.go_on(self.now[name])
        elif fault.kind == "stop and kill":
            yield later, lambda: self.kill(self.now[name])
            yield later, lambda: self.start(name)
        elif fault.kind == "kill":
            yield fault.at, lambda: self.kill(self.now[name])
            yield later, lambda: self.start(name)
        else:
            yield fault.at, leave
            yield fault.at + 1, come_back

    # -- Quiet -------------------------------------------------------------------------------

    def ask(self, do: str, patience: float | None = None, **values: object) -> dict[str, Any]:
        """Give all processes a command, and return their answers by name."""
        for life in self.now.values():
            life.say(do, **values)
        patience = self.patience if patience is None else patience
        return {name: life.hear(patience) for name, life in self.now.items()}

    def poll(self, do: str, good: Callable[[dict[str, Any]], bool], seconds: float) -> Any:
        """Give a command until the answers are good, or the time is over; return the last ones."""
        deadline = time.monotonic() + seconds
        while not good(answers := self.ask(do)) and time.monotonic() < deadline:
            time.sleep(0.05)
        return answers

    def be_quiet(self, title: str) -> None:
        """Make everything quiet, compare the books, measure, and let it go on."""
        for life in self.now.values():
            self.go_on(life)
            self.welcome(life)
        everybody = len(self.names) - 1
        counts = self.poll(
            "count", lambda a: all(v["receivers"] == everybody for v in a.values()), self.patience
        )
        for name, count in counts.items():
            if count["receivers"] != everybody:
                self.violate(f"{name} reaches only {count['receivers']} of the others")
        pauses = self.ask("pause", self.patience + 10, seconds=self.patience)
        for name, pause in pauses.items():
            for whom, seconds in pause["hung"].items():
                self.violate(f"{name}: {whom} has waited for a response for {seconds:.1f} s")
        self.poll("position", self.all_arrived, min(10, self.patience))
        self.compare(self.ask("report"))
        self.measure()
        self.check_lines()
        self.ask("forget")
        self.ask("resume")
        for life in (*self.dead, *self.now.values()):
            life.stops.clear()
        for life in self.dead:
            life.ledger.unlink(missing_ok=True)
            life.errors.unlink(missing_ok=True)
        self.dead.clear()
        sizes = " ".join(f"{name} {size >> 20:3d}" for name, size in self.memory[-1].items())
        arrived = self.figures["events that arrived"]
        print(f"{title}: {arrived:,} events arrived; memory in MiB: {sizes}", flush=True)

    def violate(self, text: str) -> None:
        """Take note of a violation."""
        self.violations.append(text)
        print(f"VIOLATION: {text}", flush=True)

    def all_arrived(self, positions: dict[str, Any]) -> bool:
        """Return whether each has got the last event of each other one."""
        return all(
            positions[receiver]["got"][kind].get(self.now[sender].key, 0) == number
            for sender in positions
            for kind, number in positions[sender]["sent"].items()
            for receiver in positions
            if sender != receiver and number
        )

    def compare(self, reports: dict[str, Any]) -> None:
        """Compare what was sent with what arrived at those that live."""
        for name, report in reports.items():
            for complaint in report["complaints"]:
                self.violate(complaint)
            self.slowest = max(self.slowest, report["slowest"])
            self.figures[f"requests answered to {self.now[name].key}"] = report["replies"]
            self.figures[f"requests disconnected of {self.now[name].key}"] = report["disconnected"]
            self.figures[f"connects rejected to {self.now[name].key}"] = report["rejected"]
        for sender in (*self.dead, *self.now.values()):
            books, last, excused = self.books_of(sender, reports)
            for receiver in self.now.values():
                if receiver.name == sender.name:
                    continue
                for kind, epochs in books.items():
                    outcome = compare(
                        f"{kind}s from {sender.key} to {receiver.key}",
                        [epoch for epoch in epochs if epoch.peer == receiver.instance],
                        reports[receiver.name]["runs"][kind].get(sender.key, []),
                        last=last.get(kind),
                        must_be_complete=sender.end is None
                        or (sender.end == "left" and receiver.name not in excused),
                    )
                    self.figures["events that arrived"] += outcome.arrived
                    self.figures["events lost with connections"] += outcome.lost_with_connections
                    if kind == "tick":  # once for both kinds
                        self.figures["connections lost between survivors"] += len(outcome.broken)
                    for text in outcome.violations:
                        self.violate(text)
                    if outcome.broken and not self.has_cause(sender, receiver):
                        self.violate(f"{sender.key} lost {receiver.key} without a cause")

    def books_of(
        self, sender: Life, reports: dict[str, Any]
    ) -> tuple[dict[str, list[Epoch]], dict[str, int], set[str]]:
        """Return a sender's epochs by kind, how many it sent, and whom it gave up in leaving."""
        if sender.end is None:
            report = reports[sender.name]
            books = {
                kind: [Epoch(**epoch) for epoch in epochs]
                for kind, epochs in report["epochs"].items()
            }
            return books, {}, set()
        found: dict[str, dict[tuple[str, int], Epoch]] = {"tick": {}, "flow": {}}
        last: dict[str, int] = {}
        excused: set[str] = set()
        for line in sender.lines():
            if "left" in line:
                last = line["left"]
            elif "log" in line:
                excused.update(re.findall(r"'(\w+)'", line["log"]))
            else:
                epoch = Epoch(line["peer"], line["first"], line["end"])
                found[line["kind"]][epoch.peer, epoch.first] = epoch
        return {kind: [*epochs.values()] for kind, epochs in found.items()}, last, excused

    def has_cause(self, one: Life, other: Life) -> bool:
        """Return whether there is a reason for a connection to have been lost."""
        return any(life.was_stopped_for(0.9 * self.stall) for life in (one, other))

    def check_lines(self) -> None:
        """Look at what the processes logged, or wrote to their standard error."""
        for life in (*self.dead, *self.now.values()):
            errors = life.errors.read_text()
            if errors:
                self.violate(f"{life.key} wrote: {errors[-2000:]}")
            for line in life.lines():
                if "log" not in line:
                    continue
                matches = ((what, it.search(line["log"])) for what, it in EXPECTED_LINES.items())
                found = next(((what, match) for what, match in matches if match), None)
                if found is None or line["level"] != "WARNING":
                    self.violate(f"{life.key} logged: {line['log'][-2000:]}")
                    continue
                what, match = found
                self.figures[f"lines about: {what}"] += 1
                named = [x for x in (*self.dead, *self.now.values()) if x.name == match[1]]
                has_cause = {
                    "stalled": any(x.was_stopped_for(0.9 * self.stall) for x in named),
                    "late response": life.end == "left",  # its own requests were cancelled
                }
                if not has_cause.get(what, True):
                    self.violate(f"{life.key} logged without a cause: {line['log']}")

    def measure(self) -> None:
        """Compare what each process holds with what it held in the beginning."""

        def is_as_before(measured: dict[str, Any]) -> bool:
            return not self.beginning or all(
                measured[name][what] == self.beginning[name][what]
                for name in measured
                for what in measured[name]
                if what != "memory"
            )

        if not self.beginning:
            time.sleep(self.stall + 0.5)  # until no timer runs
        measured = self.poll("measure", is_as_before, self.stall + min(10, self.patience))
        self.memory.append({name: values["memory"] for name, values in measured.items()})
        if not self.beginning:
            self.beginning = measured
            for name, values in measured.items():
                if values["requests"] or values["bytes to write"] or values["strangers"]:
                    self.violate(f"{name} is not quiet: {values}")
        for name, values in measured.items():
            for what, value in values.items():
                before = self.beginning[name][what]
                grown = value > before + MEMORY_GROWTH if what == "memory" else value != before
                if grown:
                    self.violate(f"{name} began with {before} {what}, and has {value}")

    # -- The run -----------------------------------------------------------------------------

    def run(self) -> None:
        """Run until the time is over."""
        try:
            for name in self.names:
                self.start(name)
            for life in self.now.values():
                self.welcome(life)
            time.sleep(min(WARM_UP_SECONDS, self.seconds / 2))
            self.be_quiet("warm-up")
            chance = random.Random(self.seed)
            done = 0.0
            while done < self.seconds and not self.violations:
                seconds = min(ROUND_SECONDS, self.seconds - done)
                self.shake(plan(chance, self.names, seconds, self.interval, self.stall), seconds)
                done += seconds
                self.be_quiet(f"after {done:.0f} s")
            for life in self.now.values():
                life.say("leave")
            for life in self.now.values():
                self.leave(life)
            self.check_lines()
        except (EOFError, TimeoutError, BrokenPipeError) as error:  # somebody died, or is mute
            self.violate(str(error))
        finally:
            for life in self.now.values():
                life.process.kill()
                life.process.wait()
                life.control.close()
            shutil.rmtree(self.directory, ignore_errors=True)

    def report(self) -> None:
        """Print what happened."""
        totals: Counter[str] = Counter()
        for what, count in self.figures.items():
            totals[re.sub(r" (to|of) n\d+\.\d+$", "", what)] += count
        print(f"\n{platform.python_implementation()} {platform.python_version()}, ", end="")
        print(
            f"{len(self.names)} processes, framings: {', '.join(self.framings)}, seed {self.seed}"
        )
        for what, count in sorted(totals.items()):
            print(f"{count:>14,}  {what}")
        print(f"{self.slowest:>14.3f}  seconds that the slowest request took")
        for name in self.names[:RESIDENTS] if self.memory else ():
            first, last = self.memory[0][name], self.memory[-1][name]
            print(
                f"{last - first:>+14,}  bytes of memory of {name}, which lived all the time, "
                f"since the warm-up (it had {first:,})"
            )
        print(f"{len(self.violations):>14,}  violations")
        for text in self.violations[:50]:
            print(f"  {text}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak, print its report, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (%(default)g)")
    parser.add_argument("--processes", type=int, default=8, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the faults (%(default)s)")
    parser.add_argument(
        "--interval", type=float, default=1.0, help="s between faults (%(default)g)"
    )
    parser.add_argument("--stall-timeout", type=float, default=3.0, help="s (%(default)g)")
    parser.add_argument("--patience", type=float, default=60.0, help="s to get quiet (%(default)g)")
    parser.add_argument(
        "--sabotage", choices=SABOTAGE, nargs="+", default=(), help="do wrong, to see that it shows"
    )
    options = parser.parse_args(arguments)
    if options.processes <= RESIDENTS:
        parser.error(f"--processes must be more than {RESIDENTS}")
    soak = Soak(
        options.minutes * 60,
        options.processes,
        options.seed,
        options.interval,
        options.stall_timeout,
        options.patience,
        options.sabotage,
    )
    soak.run()
    soak.report()
    return 1 if soak.violations else 0


if __name__ == "__main__":
    sys.exit(main())
