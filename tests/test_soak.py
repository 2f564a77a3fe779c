"""
A few seconds of the soak, and proof that it would notice.

The books are compared without any process. Then the soak runs as a user would run it: as it should
be, and with one process that loses, repeats, leaks or never gets something.
"""

from __future__ import annotations

import itertools
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
sys.path.append(str(CHECKOUT))  # where the package ``benchmarks`` is, which is not installed

from benchmarks.soak import RESIDENTS, plan  # noqa: E402
from benchmarks.soak_ledger import Book, Epoch, Runs, compare  # noqa: E402

NAMES = [f"n{number}" for number in range(8)]


# -- The books -------------------------------------------------------------------------------


def runs_of(*numbers: int) -> Runs:
    """Return the runs of numbers that came in this order."""
    runs = Runs()
    for number in numbers:
        runs.note(number)
    return runs


def test_runs_are_cut_where_numbers_are_missing() -> None:
    runs = runs_of(3, 4, 5, 8, 9)
    assert runs.runs == [[3, 6], [8, 10]]
    assert runs.next == 10
    assert not runs.complaints
    runs.forget()
    runs.note(10)
    assert runs.runs == [[10, 11]]


@pytest.mark.parametrize("number", [9, 8, 0])
def test_what_comes_twice_or_late_is_a_complaint(number: int) -> None:
    assert runs_of(8, 9, number).complaints == [f"{number} came after 9"]


def test_a_book_has_an_epoch_for_each_connection_with_each_receiver() -> None:
    book, first, second = Book(), object(), object()
    book.number = 5
    assert book.look({"a": (first, "a1")}, 0.0) == [Epoch("a1", 5)]
    assert book.look({"a": (first, "a1")}, 0.0) == []
    book.number = 8
    assert book.look({"a": (second, "a1")}, 1.0) == [Epoch("a1", 5, 8, 1.0), Epoch("a1", 8)]
    book.number = 9
    book.forget()
    assert book.epochs == [Epoch("a1", 9)]
    assert book.look({}, 2.0) == [Epoch("a1", 9, 9, 2.0)]


@pytest.mark.parametrize(
    ("epochs", "runs", "last", "violation"),
    [
        ([Epoch("b", 5)], [[5, 10]], 10, None),
        ([Epoch("b", 5)], [[5, 9]], 10, "the last 1 events before 10 did not arrive"),
        ([Epoch("b", 5)], [], 10, "the last 5 events before 10 did not arrive"),
        ([Epoch("b", 5)], [[6, 10]], 10, "of the events from 5 on, only 6–9 arrived"),
        ([Epoch("b", 5)], [[5, 7], [8, 10]], 10, "from 5 on, only 5–6, 8–9 arrived"),
        ([Epoch("b", 5)], [[4, 10]], 10, "4–4 arrived without having been sent"),
        ([Epoch("b", 5)], [[5, 7]], None, None),  # the sender was killed
        ([Epoch("b", 5, 9), Epoch("b", 12)], [[5, 7], [12, 15]], 15, None),
        ([Epoch("b", 5, 9), Epoch("b", 9)], [[5, 15]], 15, None),
        ([Epoch("b", 5, 9), Epoch("b", 9)], [[9, 15]], 15, None),
        ([Epoch("b", 5, 9), Epoch("b", 9)], [[5, 8], [10, 15]], 15, "from 9 on, only 10–14"),
        ([Epoch("b", 5, 9), Epoch("b", 12)], [[5, 15]], 15, "9–11 arrived without having been"),
        ([], [[1, 2]], 2, "1–1 arrived without having been sent"),
    ],
)
def test_the_books_of_both_sides_are_compared(
    epochs: list[Epoch], runs: list[list[int]], last: int | None, violation: str | None
) -> None:
    outcome = compare("x", epochs, runs, last=last, must_be_complete=True)
    if violation is None:
        assert not outcome.violations
    else:
        assert any(violation in text for text in outcome.violations)
    assert outcome.broken == [epoch for epoch in epochs if epoch.end is not None]


def test_what_a_lost_connection_cost_is_counted() -> None:
    epochs = [Epoch("b", 5, 20), Epoch("b", 20)]
    outcome = compare("x", epochs, [[5, 10], [20, 30]], last=30, must_be_complete=True)
    assert (outcome.arrived, outcome.lost_with_connections) == (15, 10)
    assert not outcome.violations


def test_the_faults_follow_from_the_seed_and_leave_half_of_the_bus_alone() -> None:
    first, again, other = (list(plan(random.Random(seed), NAMES, 600, 1, 3)) for seed in (0, 0, 1))
    assert first == again != other
    assert len(first) > 400
    assert {fault.kind for fault in first} == {
        "kill",
        "restart",
        "stop",
        "long stop",
        "stop and kill",
    }
    for fault in first:
        if fault.kind not in ("stop", "long stop"):
            assert fault.name not in NAMES[:RESIDENTS]
        under_way = {
            each.name for each in first if each.at <= fault.at < each.at + each.seconds + 3
        }
        assert len(under_way) <= len(NAMES) // 2
    for one, two in itertools.combinations(first, 2):
        assert one.name != two.name or abs(one.at - two.at) >= 3


# -- The soak --------------------------------------------------------------------------------


def soak(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the soak for some seconds, with few processes."""
    short = "--processes 5 --stall-timeout 1 --minutes 0.05 --interval 0.5 --seed 3"
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.soak", *short.split(), *arguments],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=55,
    )


def test_a_few_seconds_of_the_soak_find_nothing() -> None:
    ended = soak()
    assert not ended.stderr
    assert ended.returncode == 0, ended.stdout
    figures = {
        name: int(count.replace(",", ""))
        for count, name in re.findall(r"^ *([\d,]+)  (.*)$", ended.stdout, re.MULTILINE)
    }
    assert figures["violations"] == 0
    assert figures["events that arrived"] > 1000
    assert figures["requests answered"] > 100
    assert figures["kill"] + figures["stop"] > 0


def test_the_soak_notices_what_is_lost_repeated_leaked_and_hung() -> None:
    ended = soak("--sabotage", "lose", "repeat", "leak", "hang", "--patience", "3")
    assert not ended.stderr
    assert ended.returncode == 1, ended.stdout
    for violation in (
        r"(tick|flow)s from n1\.1 to n0\.1: of the events from \d+ on, only ",
        r"n1\.1: from n\d\.1, (\d+) came after \1",
        r"n1 began with \d+ files, and has \d+",
        r"n1: asker \d has waited for a response for ",
    ):
        assert re.search(rf"^VIOLATION: {violation}", ended.stdout, re.MULTILINE), ended.stdout
