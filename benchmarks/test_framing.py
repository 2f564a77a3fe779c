"""
What it costs to encode and to decode an event, by size, in both implementations.

There is no socket and no event loop: a table puts frames into an outlet, a reader takes them out of
its buffer. Each result is for a batch of events; the time of one is in ``extra_info``.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from types import ModuleType
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from lahja import BaseEvent, wire

# Without the compiled module there is half as much to see, unless it is asked for: then it fails.
TWINS = ["cython", "python"]
if os.environ.get("LAHJA_FRAMING") != "cython" and not importlib.util.find_spec("lahja._framing"):
    TWINS = ["python"]

EVENTS = 500
VALUES: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    "100 bytes": lambda: bytes(100),
    "10 kB": lambda: bytes(10_000),
    "text": lambda: "plain text, then some more: é",
    "dict of lists": lambda: {"numbers": [1, 2, 300, 2.5], "names": ["a", "bc"], "more": {"x": ()}},
    "pickled": lambda: Decimal("1.20"),
}


@dataclass
class Event(BaseEvent):
    number: int
    time: float
    value: Any


@pytest.fixture(params=TWINS)
def framing(request: pytest.FixtureRequest) -> ModuleType:
    """Return one of the two implementations."""
    name = {"cython": "lahja._framing", "python": "lahja._framing_py"}[request.param]
    module = importlib.import_module(name)
    assert request.param == module.IMPLEMENTATION
    return module


def _table(framing: ModuleType) -> tuple[Any, Any, Any]:
    """Return a table, the topic of the event and the outlet to which it goes."""
    outlet = framing.Outlet(lambda: None, 2**40)
    outlet.threshold = 2**40
    table = framing.EventTable("sender", True, lambda topic: None)
    topic = table.topic(Event)
    topic.outlets = (outlet,)
    return table, topic, outlet


def _note(benchmark: BenchmarkFixture, framing: ModuleType) -> None:
    benchmark.extra_info["framing"] = framing.IMPLEMENTATION
    if benchmark.stats is not None:  # there are none with --benchmark-disable
        seconds = benchmark.stats.stats.median / EVENTS
        benchmark.extra_info["nanoseconds per event"] = round(seconds * 1e9)


@pytest.mark.parametrize("value", VALUES)
def test_encode(benchmark: BenchmarkFixture, framing: ModuleType, value: str) -> None:
    benchmark.group = f"encode, {value}"
    table, _, outlet = _table(framing)

    def events() -> tuple[tuple[list[Event]], dict[str, Any]]:
        outlet.take()  # what the round before has encoded
        outlet.size = 0
        return ([Event(number, 1.5, VALUES[value]()) for number in range(EVENTS)],), {}

    def encode(batch: list[Event]) -> None:
        publish = table.publish
        for event in batch:
            publish(event)

    benchmark.pedantic(encode, setup=events, rounds=200, warmup_rounds=20)  # type: ignore[no-untyped-call]
    assert len(outlet.take()) == EVENTS
    _note(benchmark, framing)


@pytest.mark.parametrize("value", VALUES)
def test_decode(benchmark: BenchmarkFixture, framing: ModuleType, value: str) -> None:
    benchmark.group = f"decode, {value}"
    table, topic, outlet = _table(framing)
    for number in range(EVENTS):
        table.publish(Event(number, 1.5, VALUES[value]()))
    announcement, *frames = outlet.take()
    data = b"".join(frames)
    (type_id, name, layout, fields), _ = framing.decode_value(announcement, wire.LENGTH_SIZE + 1)
    mailbox = framing.Mailbox()
    topic.consumers = (mailbox,)
    reader = framing.Reader(2**30, lambda inlet, error: pytest.fail(str(error)))
    reader.inlets = {type_id: framing.Inlet(type_id, name, layout, fields)}
    reader.find_topic = {name: topic}.get

    def decode() -> None:
        at = 0
        while at < len(data):
            buffer = reader.get_buffer()
            part = data[at : at + len(buffer)]
            buffer[: len(part)] = part
            reader.buffer_updated(len(part))
            reader.next_frame()
            at += len(part)

    def forget() -> None:
        mailbox.events.clear()

    benchmark.pedantic(decode, setup=forget, rounds=200, warmup_rounds=20)  # type: ignore[no-untyped-call]
    assert len(mailbox.events) == EVENTS
    assert mailbox.events[-1].value == VALUES[value]()
    _note(benchmark, framing)
