"""
The targets, row by row: what is measured for each, how it becomes one figure, and the bound.

A claim names the runs that it needs. The probes of one group take turns, and a claim is computed
round by round from probes of one group, so that each of its values is a ratio of neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .results import Probe, Results, Spread
from .work import Work

__all__ = [
    "FULL",
    "OTHERS",
    "QUICK",
    "Claim",
    "Comparison",
    "Scale",
    "claims",
    "comparisons",
    "extras",
    "floors",
]


@dataclass(frozen=True)
class Scale:
    """Be how large the works are whose size is not a matter of time."""

    types: int = 10_000
    idle: int = 100
    receivers: int = 4
    in_flight: int = 100
    waiting: int = 100_000
    endurance: int = 10_000_000
    imports: int = 15
    mesh: int = 30
    megabyte: int = 1_000_000
    sizes: tuple[int, ...] = (10, 100, 1000, 10_000, 100_000, 1_000_000, 8 << 20, 64 << 20)
    fan_out: tuple[int, ...] = (1, 2, 4, 8, 16)


FULL = Scale()
QUICK = Scale(
    types=100,
    idle=5,
    receivers=2,
    in_flight=10,
    waiting=2000,
    endurance=5000,
    imports=1,
    mesh=4,
    megabyte=100_000,
    sizes=(100, 10_000),
    fan_out=(1, 2),
)


@dataclass(frozen=True)
class Claim:
    """
    Be one target.

    :param row: the number of its row
    :param text: what is compared
    :param terms: the probes that it needs, and of each which figure
    :param combine: makes one value of their figures
    :param bound: what the value has to be, at least or at most
    """

    row: int
    text: str
    terms: tuple[tuple[Probe, str], ...]
    combine: Callable[..., float]
    bound: float
    at_least: bool

    def values(self, results: Results) -> list[float]:
        """Return the value of each round in which everything was measured."""
        columns = [results[probe].values(figure) for probe, figure in self.terms]
        rounds = zip(*columns, strict=False)
        return [self.combine(*row) for row in rounds if None not in row]

    def is_met(self, results: Results) -> bool | None:
        """Return whether the median is within the bound and lahja never failed; None if unknown."""
        spread = Spread.of(self.values(results))
        if spread is None:
            return None
        within = spread.median >= self.bound if self.at_least else spread.median <= self.bound
        ours = (probe for probe, _ in self.terms if probe.contender.startswith("lahja"))
        return within and not any(results[probe].failures for probe in ours)

    def trouble(self, results: Results) -> str:
        """Return what is missing, or what failed."""
        for probe, _ in self.terms:
            if probe.contender in results.left_out:
                return f"{probe.contender}: {results.left_out[probe.contender]}"
        for probe, _ in self.terms:
            series = results[probe]
            if series.failures:
                tries = len(series.runs) or 1
                return f"{probe} failed in {len(series.failures)} of {tries}: {series.failures[-1]}"
        return ""


def _quotient(first: float, second: float) -> float:
    return first / second


def claims(scale: Scale) -> list[Claim]:
    """Return all targets, in the order of their rows."""
    return [*_throughput(scale), *_requests(scale), *_limits(scale), *_resources(scale)]


def _ratio(
    row: int,
    text: str,
    group: str,
    ours: tuple[str, Work],
    theirs: tuple[str, Work],
    figure: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Claim:
    terms = tuple((Probe(group, *each), figure) for each in (ours, theirs))
    bound = at_most if at_least is None else at_least
    assert bound is not None
    return Claim(row, text, terms, _quotient, bound, at_least is not None)


def _throughput(scale: Scale) -> Iterator[Claim]:
    one, group = Work("stream"), "one to one"
    for variant in ("", "-snappy"):
        ours = f"lahja-asyncio{variant}"
        for other, times in (
            (f"upstream-asyncio{variant}", 20),
            ("pyzmq-asyncio", 15),
            ("pipe", 4),
            ("zenoh", 6),
        ):
            text = f"{ours} against {other}, events/s"
            yield _ratio(1, text, group, (ours, one), (other, one), "rate", at_least=times)
    for variant in ("", "-snappy"):
        ours = f"lahja-trio{variant}"
        for other, bound in (
            (f"upstream-trio{variant}", 50),
            ("pynng-trio", 50),
            (f"lahja-asyncio{variant}", 0.7),
        ):
            text = f"{ours} against {other}, events/s"
            yield _ratio(2, text, group, (ours, one), (other, one), "rate", at_least=bound)
    several = Work("stream", receivers=scale.receivers)
    yield _ratio(
        3,
        f"lahja-asyncio against upstream-asyncio, 1 to {scale.receivers}, deliveries/s",
        f"one to {scale.receivers}",
        ("lahja-asyncio", several),
        ("upstream-asyncio", several),
        "rate",
        at_least=20,
    )


def _requests(scale: Scale) -> Iterator[Claim]:
    ask, group = Work("ask"), "round trip"
    asyncio, socket = ("lahja-asyncio", ask), ("socket", ask)
    upstream = ("upstream-asyncio", ask)
    text = "lahja-asyncio against socket, p50 of a request"
    yield _ratio(4, text, group, asyncio, socket, "p50", at_most=1.3)
    text = "lahja-asyncio against upstream-asyncio, p50 of a request"
    yield _ratio(4, text, group, asyncio, upstream, "p50", at_most=1 / 3)
    probe = Probe(group, *asyncio)
    terms = ((probe, "p99"), (probe, "p50"))
    yield Claim(4, "lahja-asyncio, p99 of a request against p50", terms, _quotient, 3, False)
    text = "lahja-trio against socket, p50 of a request"
    yield _ratio(5, text, group, ("lahja-trio", ask), socket, "p50", at_most=2)

    large, group = Work("stream", size=scale.megabyte), "a megabyte"
    for variant in ("", "-snappy"):
        ours = f"lahja-asyncio{variant}"
        for other, bound in ((f"upstream-asyncio{variant}", 10), ("socket", 0.6)):
            text = f"{ours} against {other}, events/s of {scale.megabyte:,} random bytes"
            yield _ratio(6, text, group, (ours, large), (other, large), "rate", at_least=bound)

    many, group = Work("ask", in_flight=scale.in_flight), "in flight"
    yield _ratio(
        7,
        f"lahja-asyncio against upstream-asyncio, {scale.in_flight} in flight, requests/s",
        group,
        ("lahja-asyncio", many),
        ("upstream-asyncio", many),
        "rate",
        at_least=20,
    )


def _limits(scale: Scale) -> Iterator[Claim]:
    one = Work("stream")
    works = (one, Work("encode"), Work("decode"))
    terms = tuple((Probe("limit", "lahja-asyncio", work), "rate") for work in works)
    text = "lahja-asyncio, events/s, against the slower of make + encode and decode + hand over"
    yield Claim(8, text, terms, lambda rate, *limits: rate / min(limits), 0.7, True)

    twin, compiled = ("lahja-asyncio-python", one), ("lahja-asyncio", one)
    upstream = ("upstream-asyncio", one)
    text = "lahja-asyncio-python against upstream-asyncio, events/s"
    yield _ratio(9, text, "one to one", twin, upstream, "rate", at_least=3)
    text = "lahja-asyncio against lahja-asyncio-python, events/s"
    yield _ratio(9, text, "one to one", compiled, twin, "rate", at_least=4)

    few, many = Work("stream", types=10), Work("stream", types=scale.types)
    text = f"lahja-asyncio, cost of an event with {scale.types:,} subscribed types against 10"
    yield _cost(10, text, "types", many, few)
    few, many = Work("stream", idle=1), Work("stream", idle=scale.idle)
    text = f"lahja-asyncio, cost of an event with {scale.idle} idle peers against 1"
    yield _cost(10, text, "idle peers", many, few)

    more = scale.receivers
    pair = (one, Work("stream", receivers=more))
    terms = tuple((Probe("receivers", "lahja-asyncio", work), "sender") for work in pair)
    text = (
        "lahja-asyncio, sender's processor time for a further receiver against that for the first"
    )
    yield Claim(11, text, terms, lambda one, all: (all - one) / (more - 1) / one, 0.15, False)
    unheard = Work("unheard")
    text = "lahja-asyncio against upstream-asyncio, calls/s of a broadcast without subscriber"
    ours, theirs = ("lahja-asyncio", unheard), ("upstream-asyncio", unheard)
    yield _ratio(12, text, "unheard", ours, theirs, "rate", at_least=20)


def _cost(row: int, text: str, group: str, many: Work, few: Work) -> Claim:
    """Claim that events with a lot of something cost little more than with little of it."""
    ours, theirs = ("lahja-asyncio", few), ("lahja-asyncio", many)
    return _ratio(row, text, group, ours, theirs, "rate", at_most=1.1)


def _resources(scale: Scale) -> Iterator[Claim]:
    hold, keep = (Work(kind, count=scale.waiting) for kind in ("hold", "keep"))
    text = (
        f"lahja-asyncio, RSS of {scale.waiting:,} events in a stream against a list of equal ones"
    )
    ours, theirs = ("lahja-asyncio", hold), ("lahja-asyncio", keep)
    yield _ratio(13, text, "memory", ours, theirs, "bytes", at_most=1.2)
    endure = Probe("endurance", "lahja-asyncio", Work("endure", count=scale.endurance))
    text = f"lahja-asyncio, RSS after {scale.endurance:,} events against after a tenth of them"
    yield Claim(13, text, ((endure, "growth"),), float, 1.01, False)
    ours, theirs = (
        ("lahja-asyncio", Work(f"import {module}", count=scale.imports))
        for module in ("lahja", "asyncio")
    )
    text = "import lahja against import asyncio, in a fresh process"
    yield _ratio(14, text, "import", ours, theirs, "seconds", at_most=1.3)
    mesh = Work("mesh", processes=scale.mesh, count=1)
    ours, theirs = ("lahja-asyncio", mesh), ("upstream-asyncio", mesh)
    text = f"lahja-asyncio against upstream-asyncio, until a mesh of {scale.mesh} is complete"
    yield _ratio(15, text, "mesh", ours, theirs, "seconds", at_most=1 / 3)


@dataclass(frozen=True)
class Comparison:
    """Be one figure of a group whose members all do the same."""

    text: str
    group: str
    figure: str


def comparisons(scale: Scale) -> tuple[Comparison, ...]:
    """Return what is shown of all contenders side by side."""
    several = f"one to {scale.receivers}"
    megabyte = f"1 to 1, {scale.megabyte:,} random bytes"
    return (
        Comparison("1 to 1, events", "one to one", "rate"),
        Comparison(f"1 to {scale.receivers}, deliveries", several, "rate"),
        Comparison("request, p50", "round trip", "p50"),
        Comparison("request, p99", "round trip", "p99"),
        Comparison(megabyte, "a megabyte", "rate"),
        Comparison(f"requests, {scale.in_flight} in flight", "in flight", "rate"),
        Comparison("broadcast without subscriber", "unheard", "rate"),
    )


OTHERS = ("limit", "types", "idle peers", "receivers", "memory", "endurance", "import", "mesh")
"""The groups whose figures are shown without being compared."""


def floors(scale: Scale) -> Iterator[Probe]:
    """Give what nobody can do better on asyncio; no target, but it explains what is measured."""
    yield Probe("round trip", "socket-asyncio", Work("ask"))
    yield Probe("in flight", "socket-asyncio", Work("ask", in_flight=scale.in_flight))
    yield Probe("unheard", "socket-asyncio", Work("unheard"))
    yield Probe("mesh", "socket-asyncio", Work("mesh", processes=scale.mesh, count=1))


def extras(scale: Scale) -> Iterator[Probe]:
    """Give what is measured for the plots alone."""
    everybody = (
        "lahja-asyncio",
        "lahja-uvloop",
        "lahja-trio",
        "lahja-asyncio-python",
        "lahja-trio-python",
        "upstream-asyncio",
        "upstream-trio",
        "pyzmq-asyncio",
        "pyzmq-blocking",
        "pynng-asyncio",
        "pynng-trio",
        "zenoh",
        "pipe",
        "queue",
        "socket",
    )
    for name in everybody:
        yield Probe("one to one", name, Work("stream"))
        yield Probe("round trip", name, Work("ask"))
    yield from floors(scale)
    sweepers = ["lahja-asyncio", "lahja-trio", "upstream-asyncio", "pyzmq-asyncio"]
    sweepers += ["pynng-asyncio", "zenoh", "pipe"]
    for size in scale.sizes:
        for name in (*sweepers, "socket"):
            yield Probe(f"size {size}", name, Work("stream", size=size))
    for receivers in scale.fan_out:
        for name in sweepers:
            yield Probe(f"fan-out {receivers}", name, Work("stream", receivers=receivers))
