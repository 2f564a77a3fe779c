"""What an endpoint writes into its log: each line once, and no flood."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from lahja.reports import BURST, BURST_OF_KIND, WINDOW, Reporter


class Clock:
    """Be a clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reporter(clock: Clock, caplog: pytest.LogCaptureFixture) -> Iterator[Reporter]:
    caplog.set_level(logging.INFO)
    reporter = Reporter("me", logging.getLogger("lahja.test"))
    reporter.begin(clock)
    yield reporter
    reporter.end()


def complain(reporter: Reporter, peer: str = "bob", kind: str = "lost", number: int = 1) -> None:
    reporter.say(logging.WARNING, kind, peer, "lost event %d of %s", number, peer)


def test_a_line_names_the_endpoint(reporter: Reporter, caplog: pytest.LogCaptureFixture) -> None:
    complain(reporter)
    assert caplog.messages == ["me: lost event 1 of bob"]
    assert caplog.records[0].levelno == logging.WARNING


def test_a_flood_is_a_few_lines_and_a_number(
    reporter: Reporter, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(10_000):
        complain(reporter, number=number)
    assert len(caplog.messages) == BURST
    assert caplog.messages[-1] == (
        "me: lost event 4 of bob (more like this are only counted for 10 s)"
    )
    caplog.clear()
    clock.now += WINDOW
    complain(reporter, number=10_000)
    assert caplog.messages == [
        "me: 9995 more like this about bob in 10 s, the last one: lost event 9999 of bob",
        "me: lost event 10000 of bob",
    ]
    assert caplog.records[0].levelno == logging.WARNING


def test_neither_another_peer_nor_another_kind_is_limited_by_it(
    reporter: Reporter, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2 * BURST):
        complain(reporter)
    caplog.clear()
    complain(reporter, peer="ann")
    complain(reporter, kind="refused")
    assert caplog.messages == ["me: lost event 1 of ann", "me: lost event 1 of bob"]


def test_a_flood_of_names_is_limited_too(
    reporter: Reporter, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(10_000):
        complain(reporter, peer=f"mallory {number}")
    assert len(caplog.messages) == BURST_OF_KIND
    clock.now += WINDOW
    caplog.clear()
    complain(reporter)
    (summary, line) = caplog.messages
    assert summary.startswith(
        f"me: {10_000 - BURST_OF_KIND} more like this in 10 s, the last one: "
    )
    assert line == "me: lost event 1 of bob"


def test_no_more_is_remembered_than_there_is_room_for(
    reporter: Reporter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("lahja.reports._MOST_PEERS", 3)
    for number in range(10):
        complain(reporter, peer=f"peer {number}", kind=f"kind {number}")
    assert len(reporter._windows) == 3
    assert len(caplog.messages) == 10


def test_what_was_counted_is_said_in_the_end(
    reporter: Reporter, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(BURST + 2):
        complain(reporter)
    reporter.end()
    assert "me: 2 more like this about bob" in caplog.messages[-1]
    count = len(caplog.messages)
    reporter.end()
    assert len(caplog.messages) == count
    for _ in range(2 * BURST):  # nothing is limited any more
        complain(reporter)
    assert len(caplog.messages) == count + 2 * BURST


def test_the_last_complaint_about_a_peer_is_kept(reporter: Reporter) -> None:
    for number in range(3 * BURST):
        complain(reporter, number=number)
    complain(reporter, peer="ann")
    reporter.say(logging.INFO, "left", "ann", "ann left")
    assert reporter.last_errors == {
        "bob": f"lost event {3 * BURST - 1} of bob",
        "ann": "lost event 1 of ann",
    }
    for number in range(5000):
        complain(reporter, peer=f"mallory {number}")
    assert len(reporter.last_errors) == 1000
    assert "mallory 4999" in reporter.last_errors


def test_what_nobody_wants_to_read_is_not_made(
    reporter: Reporter, caplog: pytest.LogCaptureFixture
) -> None:
    reporter.say(logging.DEBUG, "connected", "bob", "%d", "no number")
    assert not caplog.messages


def test_lines_about_the_endpoint_itself_are_limited_where_they_are_the_same(
    reporter: Reporter, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3 * BURST):
        reporter.log(logging.WARNING, "a stream of %s is full", "a" if number % 3 else "b")
    assert len([line for line in caplog.messages if "of a is full" in line]) == BURST
    assert len([line for line in caplog.messages if "of b is full" in line]) == BURST
