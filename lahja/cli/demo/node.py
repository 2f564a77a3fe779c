"""
One of the six processes of the demo.

What it does is written once, for :class:`~lahja.base.EndpointAPI`; only :func:`run_node` knows
which event loop that is.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from ...asyncio import AsyncioEndpoint
from ...base import EndpointAPI
from ...common import BroadcastConfig, ConnectionConfig
from ...exceptions import LahjaError
from ...framing import IMPLEMENTATION
from ...streams import Stream
from .events import Answer, Ask, Begin, Leave, Ready, Report, Sample, Tick

__all__ = ["REPORT_SECONDS", "Node", "Plan", "Tally", "run_node"]

REPORT_SECONDS = 0.1
"""Seconds between two reports of a node."""

_HIGH_WATER = 64 * 1024  # bytes; little, so that what is under way arrives soon after the end
_STREAM_BOUND = 500
_BATCH = 200
_QUIET_PAUSE = 0.005
_ANSWER_SECONDS = 20.0
_NICENESS = 5  # the machine stays usable


class Plan(NamedTuple):
    """Say what one process of the demo is."""

    loop: str  # "asyncio", "uvloop" or "trio"
    own: ConnectionConfig
    others: Sequence[ConnectionConfig]
    supervisor: ConnectionConfig


class Tally:
    """Count the events of one type from one endpoint, which are numbered from 0."""

    __slots__ = ("expected", "in_order", "misplaced")

    def __init__(self) -> None:
        self.expected = 0
        self.in_order = 0
        self.misplaced = 0

    def count(self, number: int) -> None:
        """Take note of the event of that number; what it skips is missing until it is lost."""
        if number >= self.expected:
            self.expected = number + 1
            self.in_order += 1
        else:
            self.misplaced += 1


class Node:
    """
    Do the work of one process.

    :param sleep: waits in the event loop at hand
    :param start_soon: starts a task there
    """

    def __init__(
        self,
        plan: Plan,
        endpoint: EndpointAPI,
        sleep: Callable[[float], Awaitable[object]],
        start_soon: Callable[..., object],
    ) -> None:
        self._plan = plan
        self._endpoint = endpoint
        self._sleep = sleep
        self._start_soon = start_soon
        self._to_supervisor = BroadcastConfig(filter_endpoint=plan.supervisor.name)
        names = [plan.own.name, *(other.name for other in plan.others)]
        self._ticks = {name: Tally() for name in names}
        self._samples = {name: Tally() for name in names}
        self._ticks_sent = 0
        self._samples_sent = 0
        self._asked = 0
        self._quiet_trips: list[int] = []
        self._full_trips: list[int] = []
        self._unfinished = 2  # tasks that send

    async def run(self) -> None:
        """Do all of it, until the supervisor says that it is enough, or is gone."""
        endpoint = self._endpoint
        leave = endpoint.stream(Leave)
        begin = endpoint.stream(Begin)
        samples = endpoint.stream(Sample, max_queue=_STREAM_BOUND, overflow="block")
        endpoint.subscribe(Tick, self._on_tick)
        endpoint.subscribe(Ask, self._on_ask)
        self._start_soon(self._read_samples, samples)
        self._start_soon(self._take_part, begin)
        await anext(leave)
        # A request that is given up now may still get its response, which is worth no warning.
        logging.getLogger("lahja").setLevel(logging.ERROR)

    async def _take_part(self, begin: Stream[Begin]) -> None:
        await self._join()
        order = await anext(begin)
        self._start_soon(self._send_requests_and_ticks, order)
        self._start_soon(self._send_samples, order)
        while True:
            await self._report()
            await self._sleep(REPORT_SECONDS)

    # -- Coming and going --------------------------------------------------------------------

    async def _join(self) -> None:
        """Connect to the supervisor and to everybody later in the alphabet, once each."""
        endpoint, plan = self._endpoint, self._plan
        await endpoint.connect_to_endpoints(plan.supervisor)
        self._start_soon(self._watch_supervisor)
        later = [other for other in plan.others if other.name > plan.own.name]
        await endpoint.connect_to_endpoints(*later)
        for other, wanted in itertools.product(plan.others, (Tick, Sample, Ask)):
            await endpoint.wait_until_endpoint_subscribed_to(other.name, wanted)
        await endpoint.broadcast(Ready(IMPLEMENTATION))

    async def _watch_supervisor(self) -> None:
        """Leave when nobody is there any more who could say so."""
        while self._endpoint.is_connected_to(self._plan.supervisor.name):
            await self._endpoint.wait_until_connections_change()
        await self._endpoint.broadcast(Leave(), BroadcastConfig(internal=True))

    # -- Receiving ---------------------------------------------------------------------------

    def _on_tick(self, event: Tick) -> None:
        self._ticks[event.get_origin()].count(event.number)

    async def _read_samples(self, samples: Stream[Sample]) -> None:
        async for event in samples:
            self._samples[event.get_origin()].count(event.number)

    async def _on_ask(self, request: Ask) -> None:
        await self._endpoint.broadcast(Answer(request.number), request.broadcast_config())

    # -- Sending -----------------------------------------------------------------------------

    async def _send_requests_and_ticks(self, order: Begin) -> None:
        """Send requests for some time; then batches of ticks, with a request after each."""
        names = itertools.cycle([other.name for other in self._plan.others])
        until = time.monotonic() + order.quiet_seconds
        while time.monotonic() < until:
            await self._ask(next(names), self._quiet_trips)
            await self._sleep(_QUIET_PAUSE)
        until += order.full_seconds
        while time.monotonic() < until:
            for _ in range(_BATCH):
                number = self._ticks_sent
                await self._endpoint.broadcast(Tick(number, "LAHJA", number / 100))
                self._ticks_sent += 1
            # Events and requests arrive in order, so that this keeps what is under way in bounds.
            await self._ask(next(names), self._full_trips)
        self._unfinished -= 1

    async def _ask(self, name: str, trips: list[int]) -> None:
        """Request something from another process, and take the time."""
        self._asked += 1
        number = self._asked
        only_there = BroadcastConfig(filter_endpoint=name)
        started = time.monotonic()
        try:
            answer = await self._endpoint.request(Ask(number), only_there, timeout=_ANSWER_SECONDS)
        except LahjaError:
            return  # it stays without answer, which the supervisor sees
        if answer.number == number:
            trips.append(round((time.monotonic() - started) * 1e6))

    async def _send_samples(self, order: Begin) -> None:
        """Broadcast samples as fast as the streams of the others take them."""
        await self._sleep(order.quiet_seconds)
        until = time.monotonic() + order.full_seconds
        while time.monotonic() < until:
            for _ in range(_BATCH):
                number = self._samples_sent
                values = (number * 0.5, number * 0.25, number * 0.125)
                await self._endpoint.broadcast(Sample(number, values))
                self._samples_sent += 1
            await self._sleep(0)
        self._unfinished -= 1

    async def _report(self) -> None:
        tallies = (*self._ticks.values(), *self._samples.values())
        report = Report(
            ticks_sent=self._ticks_sent,
            samples_sent=self._samples_sent,
            ticks={name: tally.in_order for name, tally in self._ticks.items()},
            samples={name: tally.in_order for name, tally in self._samples.items()},
            misplaced=sum(tally.misplaced for tally in tallies),
            asked=self._asked,
            quiet_trips=tuple(self._quiet_trips),
            full_trips=tuple(self._full_trips),
            finished=not self._unfinished,
        )
        self._quiet_trips.clear()
        self._full_trips.clear()
        await self._endpoint.broadcast(report, self._to_supervisor)


# -- The process -------------------------------------------------------------------------------


def run_node(plan: Plan) -> None:
    """Be one process of the demo, from its start to its end."""
    os.nice(_NICENESS)
    if plan.loop == "trio":
        import trio

        trio.run(_run_on_trio, plan)
    elif plan.loop == "uvloop":
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run_on_asyncio(plan))
    else:
        asyncio.run(_run_on_asyncio(plan))


async def _run_on_asyncio(plan: Plan) -> None:
    async with (
        AsyncioEndpoint.serve(plan.own, high_water=_HIGH_WATER) as endpoint,
        asyncio.TaskGroup() as group,
    ):
        tasks: list[asyncio.Task[None]] = []

        def start_soon(function: Callable[..., Coroutine[Any, Any, None]], *args: object) -> None:
            tasks.append(group.create_task(function(*args)))

        await Node(plan, endpoint, asyncio.sleep, start_soon).run()
        for task in tasks:
            task.cancel()


async def _run_on_trio(plan: Plan) -> None:
    import trio

    from ...trio import TrioEndpoint

    async with (
        TrioEndpoint.serve(plan.own, high_water=_HIGH_WATER) as endpoint,
        trio.open_nursery() as nursery,
    ):
        await Node(plan, endpoint, trio.sleep, nursery.start_soon).run()
        nursery.cancel_scope.cancel()
