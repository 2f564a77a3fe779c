"""Statistics as data: they become plain values, and themselves again, and believe nothing."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from lahja import EndpointStats
from lahja.counting import (
    LARGE_BATCH,
    LATENCIES_KEPT,
    SAMPLE_SECONDS,
    NameCounter,
    RequestLog,
    Stopwatch,
    percentile,
)
from lahja.framing import decode_value, encode_value
from lahja.stats import PeerStats, RequestStats, SubscriptionStats, TypeStats

STATS = EndpointStats(
    name="ann",
    pid=4711,
    instance="00" * 16,
    state="running",
    path="/run/ann.ipc",
    backend="trio",
    framing="python",
    version="1.0",
    taken_at=1_700_000_000.25,
    uptime=12.5,
    observers=1,
    peers=(
        PeerStats(
            name="bob",
            pid=None,
            connected_at=1_700_000_000.0,
            path=None,
            bytes_sent=1,
            bytes_received=2,
            events_sent=3,
            events_received=4,
            queue_bytes=5,
            held_events=6,
            stalls=7,
            stalled_for=8.5,
            last_error="it is tired",
            subscriptions=("m:A", "m:B"),
        ),
    ),
    types=(TypeStats("m:A", 1, 2, 3, 4, 5, 6),),
    subscriptions=(
        SubscriptionStats("m:A", "handler", "m:f", 1, 2, None, 0, 3, 0.25, 0.0),
        SubscriptionStats("m:A", "stream", "block", 1, 2, 10, 0, 0, 0.0, 0.0),
    ),
    requests=RequestStats(1, 0.5, 2, 0.001, None, {"RequestTimeout": 3, "cancelled": 1}),
)


def test_they_become_themselves_again_by_json() -> None:
    assert EndpointStats.from_dict(json.loads(json.dumps(STATS.to_dict()))) == STATS


def test_they_become_themselves_again_by_plain_values() -> None:
    value, _ = decode_value(encode_value(STATS.to_dict()))
    assert EndpointStats.from_dict(value) == STATS


def test_they_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        STATS.name = "bob"  # type: ignore[misc]


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return the dict in which one value, at a path, is another one."""
    data: Any = json.loads(json.dumps(STATS.to_dict()))
    *parents, last = path.split(".")
    place = data
    for key in parents:
        place = place[int(key) if key.isdigit() else key]
    place[int(last) if last.isdigit() else last] = value
    return data  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("name", 5, "stats.name is a int, not a str"),
        ("pid", True, "stats.pid is a bool, not a int"),
        ("pid", None, "stats.pid is a NoneType, not a int"),
        ("uptime", "1", "stats.uptime is a str, not a float"),
        ("peers", {}, "stats.peers is no list"),
        ("peers.0", [], "stats.peers is no dict"),
        ("peers.0.pid", "1", "stats.peers.pid is a str, not a int"),
        ("peers.0.subscriptions.1", b"", "stats.peers.subscriptions is a bytes, not a str"),
        ("requests", None, "stats.requests is no dict"),
        ("requests.failures", [], "stats.requests.failures is no dict"),
        ("requests.failures", {"a": "b"}, "stats.requests.failures is a str, not a int"),
    ],
)
def test_what_is_of_another_type_is_an_error(path: str, value: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        EndpointStats.from_dict(changed(path, value))


@pytest.mark.parametrize("value", [None, [], "stats", 5])
def test_what_is_no_dict_is_an_error(value: object) -> None:
    with pytest.raises(ValueError, match="stats is no dict"):
        EndpointStats.from_dict(value)


def test_what_is_missing_is_an_error_and_what_is_unknown_is_not() -> None:
    data = STATS.to_dict() | {"shoe size": 42}
    assert EndpointStats.from_dict(data) == STATS
    del data["left_out"]  # has a default
    assert EndpointStats.from_dict(data) == STATS
    del data["uptime"]
    with pytest.raises(ValueError, match=r"stats\.uptime is missing"):
        EndpointStats.from_dict(data)


def test_whole_numbers_may_stand_for_seconds() -> None:
    stats = EndpointStats.from_dict(changed("uptime", 3))
    assert stats.uptime == 3.0
    assert type(stats.uptime) is float


def test_rows_can_be_left_out() -> None:
    assert STATS.limited(2) == STATS
    shorter = STATS.limited(1)
    assert shorter.left_out == 1
    assert shorter.subscriptions == STATS.subscriptions[:1]
    assert shorter.peers[0].subscriptions == ("m:A",)
    nothing = shorter.limited(0)
    assert (nothing.peers, nothing.types, nothing.subscriptions) == ((), (), ())
    assert nothing.left_out == 4
    assert nothing.name == "ann"


# -- What is counted -----------------------------------------------------------------------------


def test_percentile() -> None:
    assert percentile([], 50) is None
    assert percentile([7.0], 99) == 7
    values = [float(number) for number in range(100, 0, -1)]
    assert (percentile(values, 50), percentile(values, 99)) == (50, 99)


def test_a_request_log_keeps_the_latest_times() -> None:
    log = RequestLog()
    for number in range(LATENCIES_KEPT + 500):
        log.succeeded(number)
    assert log.answered == LATENCIES_KEPT + 500
    assert min(log.latencies) == 500
    assert len(log.latencies) == LATENCIES_KEPT


def test_a_request_log_names_failures() -> None:
    log = RequestLog()
    for error in (TimeoutError(), KeyError(), KeyError(), KeyboardInterrupt(), GeneratorExit()):
        log.failed(error)
    assert dict(log.failures) == {"TimeoutError": 1, "KeyError": 2, "cancelled": 2}


def test_names_of_peers_do_not_pile_up() -> None:
    counter = NameCounter()
    for number in range(30_000):
        counter.add(f"name {number}")
    counter.add("name 5", 3)
    assert counter.counts["name 5"] == 4
    assert len(counter.counts) < 15_000
    assert sum(counter.counts.values()) == 30_003


def test_a_stopwatch_begins_when_it_is_started() -> None:
    times = iter([5.0, 7.0])
    watch = Stopwatch(lambda: next(times))
    watch.start(1)
    assert (watch.last, watch.clock()) == (5.0, 7.0)
    assert Stopwatch().clock() == 0.0


def test_a_stopwatch_times_a_few_of_many_large_batches_and_all_that_are_small_or_slow() -> None:
    now = 1000.0
    watch = Stopwatch(lambda: now)
    timed = 0
    for _ in range(100):  # in one second
        watch.start(LARGE_BATCH)
        timed += watch.is_on
        now += 0.01
    assert 9 <= timed <= 11
    watch.start(LARGE_BATCH - 1)
    assert watch.is_on
    for _ in range(5):
        now += SAMPLE_SECONDS * 1.001
        watch.start(LARGE_BATCH)
        assert watch.is_on
