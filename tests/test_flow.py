"""Flow control without a connection: windows on the sending side, credit on the receiving one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lahja import wire
from lahja.flow import Gate, Intake, Window
from lahja.framing import Shape

SHAPE = Shape(0, "m:A", wire.LAYOUT_FIELDS, ())


class Queue:
    """Be a holder: a consumer with a bound."""

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.backlog: dict[str, int] = {}
        self.own = 0  # events of one's own endpoint

    def __len__(self) -> int:
        return sum(self.backlog.values()) + self.own


# -- Gates -----------------------------------------------------------------------------------


def test_a_gate_wakes_everybody_once_and_stays_open() -> None:
    gate, woken = Gate(), []
    gate.wakers += [lambda: woken.append(1), lambda: woken.append(2)]
    assert not gate.is_open
    gate.open()
    gate.open()
    assert gate.is_open
    assert woken == [1, 2]
    assert not gate.wakers


# -- The sending side ------------------------------------------------------------------------


def test_a_window_admits_its_size_and_holds_the_rest_in_order() -> None:
    window = Window(2)
    assert [window.admits() for _ in range(3)] == [True, True, False]
    gates = [window.hold(SHAPE, bytes((value,))) for value in range(3)]
    assert not list(window.release())
    window.credit(1)
    assert not window.admits()  # nothing overtakes what is held
    assert [frame for _, frame, _ in window.release()] == [b"\0"]
    window.credit(2)
    released = list(window.release())
    assert [frame for _, frame, _ in released] == [b"\1", b"\2"]
    assert [gate for _, _, gate in released] == gates[1:]
    assert not window.admits()
    window.credit(1)
    assert window.admits()


def test_credit_never_exceeds_the_size() -> None:
    window = Window(3)
    window.credit(100)
    assert [window.admits() for _ in range(4)] == [True, True, True, False]


def test_a_window_that_grows_admits_the_difference() -> None:
    window = Window(2)
    assert window.admits()
    assert window.admits()
    window.resize(5)
    assert [window.admits() for _ in range(4)] == [True, True, True, False]


def test_a_window_that_shrinks_waits_until_enough_was_consumed() -> None:
    window = Window(4)
    for _ in range(4):
        assert window.admits()
    window.resize(1)
    for _ in range(3):
        window.credit(1)
        assert not window.admits()
    window.credit(1)
    assert [window.admits() for _ in range(2)] == [True, False]


def test_a_window_that_is_lifted_releases_everything() -> None:
    window = Window(1)
    assert window.admits()
    for value in range(5):
        window.hold(SHAPE, bytes((value,)))
    window.lift()
    assert [frame[0] for _, frame, _ in window.release()] == [0, 1, 2, 3, 4]


# -- The receiving side ----------------------------------------------------------------------


@pytest.fixture
def granted() -> list[tuple[str, int]]:
    """Return what credit was granted, to whom."""
    return []


@pytest.fixture
def intake(granted: list[tuple[str, int]]) -> Intake:
    """Return an intake that notes what it grants."""
    return Intake(lambda origin, count: granted.append((origin, count)))


def test_the_smallest_holder_gives_the_size(intake: Intake) -> None:
    assert intake.size is None
    small, large = Queue(2), Queue(5)
    intake.join(large)
    assert intake.size == 5
    intake.join(small)
    assert intake.size == 2
    intake.leave(small)
    assert intake.size == 5
    intake.leave(large)
    assert intake.size is None


def test_credit_is_granted_in_portions_as_events_are_consumed(
    intake: Intake, granted: list[tuple[str, int]]
) -> None:
    queue = Queue(4)
    intake.join(queue)
    for _ in range(4):
        intake.received(queue, "a")
    intake.consumed(queue, "a")
    assert not granted
    intake.consumed(queue, "a")
    assert granted == [("a", 2)]
    intake.consumed(queue, "a")
    intake.consumed(queue, "a")
    assert granted == [("a", 2), ("a", 2)]
    assert not queue.backlog


def test_each_origin_has_its_own_credit(intake: Intake, granted: list[tuple[str, int]]) -> None:
    queue = Queue(1)
    intake.join(queue)
    intake.received(queue, "a")
    intake.received(queue, "b")
    intake.consumed(queue, "b")
    assert granted == [("b", 1)]
    intake.consumed(queue, "a")
    assert granted == [("b", 1), ("a", 1)]


def test_the_slowest_holder_sets_the_pace(intake: Intake, granted: list[tuple[str, int]]) -> None:
    fast, slow = Queue(1), Queue(1)
    intake.join(fast)
    intake.join(slow)
    for queue in (fast, slow):
        intake.received(queue, "a")
    intake.consumed(fast, "a")
    assert not granted
    intake.consumed(slow, "a")
    assert granted == [("a", 1)]


def test_a_slow_holder_that_leaves_sets_the_pace_no_longer(
    intake: Intake, granted: list[tuple[str, int]]
) -> None:
    fast, slow = Queue(1), Queue(1)
    intake.join(slow)
    intake.join(fast)
    for queue in (slow, fast):
        intake.received(queue, "a")
    intake.consumed(fast, "a")
    intake.leave(slow)
    assert granted == [("a", 1)]


def test_a_holder_that_left_grants_nothing(intake: Intake, granted: list[tuple[str, int]]) -> None:
    queue = Queue(1)
    intake.join(queue)
    intake.received(queue, "a")
    intake.leave(queue)
    intake.consumed(queue, "a")
    intake.received(queue, "a")
    intake.consumed(queue, "a")
    intake.consumed(queue, "a")  # what was never received
    assert not granted


def test_an_origin_that_connects_anew_has_all_its_credit(
    intake: Intake, granted: list[tuple[str, int]]
) -> None:
    queue = Queue(2)
    intake.join(queue)
    for _ in range(2):
        intake.received(queue, "a")
    intake.forget("a")
    for _ in range(2):
        intake.received(queue, "a")
    for _ in range(2):
        intake.consumed(queue, "a")
    assert not granted  # two from before still wait
    intake.consumed(queue, "a")
    assert granted == [("a", 1)]
    intake.consumed(queue, "a")
    assert granted == [("a", 1), ("a", 1)]


def test_a_full_holder_holds_back_its_own_endpoint(intake: Intake) -> None:
    queue = Queue(2)
    intake.join(queue)
    assert intake.gates() == []
    queue.own = 3
    first, second = intake.gates(), intake.gates()
    assert first == second
    assert not first[0].is_open
    intake.consumed(queue, "me")
    assert not first[0].is_open
    queue.own = 2
    intake.consumed(queue, "me")
    assert first[0].is_open
    assert intake.gates() == []
    queue.own = 3
    (gate,) = intake.gates()
    intake.leave(queue)
    assert gate.is_open


@given(
    bounds=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    steps=st.lists(st.integers(0, 3), max_size=120),
)
def test_no_holder_ever_has_more_than_the_smallest_bound_and_none_starves(
    bounds: list[int], steps: list[int]
) -> None:
    """One sender, and holders that read in any order: step 0 sends, the others let one read."""
    window = Window(min(bounds))
    intake = Intake(lambda origin, count: window.credit(count))
    queues = [Queue(bound) for bound in bounds]
    for queue in queues:
        intake.join(queue)

    def send() -> None:
        if window.admits():
            for queue in queues:
                intake.received(queue, "a")

    def read(queue: Queue) -> None:
        if queue.backlog:
            intake.consumed(queue, "a")

    for step in steps:
        if step == 0:
            send()
        else:
            read(queues[step % len(queues)])
        assert all(len(queue) <= min(bounds) for queue in queues)
    for queue in queues:
        while queue.backlog:
            read(queue)
    assert window.available > 0  # whoever has read everything can be sent more
