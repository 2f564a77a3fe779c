"""
What only this lahja does: how near it comes to its limit, how it grows, and what it keeps.

The limit is the hot path without any socket: events are made and encoded, or decoded, handed to the
stream of an endpoint and read from it, all in one process. ``hold`` measures the resident memory
(RSS) that events take which wait in a stream, ``keep`` that of equal ones in a list, which the
class itself has made, of new values each. ``endure`` compares the resident memory that sender and
receiver have after a tenth of the events with that at the end, when each time all have arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from typing import Any

from lahja import AsyncioEndpoint, framing, wire

from ..work import Node, now, resident
from . import lahja_bus
from .lahja_bus import Event, WarmedUp, about, config_of, confirm, connect, finish, on_loop

__all__ = ["ROLES", "about"]

_BATCH = 100  # events that are encoded before they are thrown away, or decoded before they are read


# -- The limit -------------------------------------------------------------------------------


def _outgoing() -> tuple[Any, Any, Any]:
    """Return what encodes, the topic of the events, and the outlet into which they go."""
    outlet = framing.Outlet(lambda: None, 2**40)
    outlet.threshold = 2**40
    table = framing.EventTable("sender", True, lambda topic: None)
    topic = table.topic(Event)
    topic.outlets = (outlet,)
    return table, topic, outlet


def encode(node: Node) -> None:
    """Make events and encode them."""
    table, _, outlet = _outgoing()
    publish = table.publish
    payload = node.payload()

    def work(count: int) -> float:
        begin = now()
        for first in range(0, count, _BATCH):
            for number in range(first, min(first + _BATCH, count)):
                publish(Event(number, time.time(), payload))
            outlet.take()
            outlet.size = 0
        return now() - begin

    work(node.work.warm_up)
    node.report(rate=node.count / work(node.count))


async def _decode(node: Node) -> float:
    table, _, outlet = _outgoing()
    payload = node.payload()
    for number in range(_BATCH):
        table.publish(Event(number, time.time(), payload))
    sent = b"".join(outlet.take())  # what announces the type comes first
    (type_id, name, layout, fields), end = framing.decode_value(sent, wire.LENGTH_SIZE + 1)
    data = memoryview(sent)[end:]
    reader = framing.Reader(2**30, lambda inlet, error: None)
    reader.origin = "sender"
    reader.inlets = {type_id: framing.Inlet(type_id, name, layout, fields)}

    def receive() -> None:
        at = 0
        while at < len(data):
            buffer = reader.get_buffer()
            size = min(len(buffer), len(data) - at)
            buffer[:size] = data[at : at + size]
            reader.buffer_updated(size)
            reader.next_frame()
            at += size

    async def work(batches: int) -> float:
        left = batches
        async with AsyncioEndpoint("receiver").run() as endpoint:
            stream = endpoint.stream(Event, num_events=batches * _BATCH)
            reader.find_topic = {name: stream.topic}.get
            begin = now()
            receive()
            async for event in stream:
                if event.number == _BATCH - 1 and (left := left - 1):
                    receive()
            seconds = now() - begin
        assert not left
        return seconds

    await work(-(-node.work.warm_up // _BATCH))
    reader.inlets = {type_id: framing.Inlet(type_id, name, layout, fields)}  # of a new topic
    batches = -(-node.count // _BATCH)
    return batches * _BATCH / await work(batches)


def decode(node: Node) -> None:
    """Decode events, hand them to a stream and read it."""
    node.report(rate=asyncio.run(_decode(node)))


# -- Memory ----------------------------------------------------------------------------------


async def fill(endpoint_class: Any, node: Node) -> None:
    """Broadcast events that warm up, and the others when the receiver has looked at its memory."""
    payload = node.payload()
    async with endpoint_class("sender").run() as endpoint:
        await connect(endpoint, node, ["receiver0"])
        await endpoint.wait_until_endpoint_subscribed_to("receiver0", Event)
        for number in range(node.work.warm_up):
            await endpoint.broadcast(Event(number, time.time(), payload))
        await finish(endpoint, ["receiver0"], WarmedUp)
        for number in range(node.work.warm_up, node.total):
            await endpoint.broadcast(Event(number, time.time(), payload))
        await finish(endpoint, ["receiver0"])
    node.report()


async def hold(endpoint_class: Any, node: Node) -> None:
    """Let events wait in a stream."""
    async with endpoint_class.serve(config_of(node, "receiver0")) as endpoint:
        stream = endpoint.stream(Event)
        for _ in range(node.work.warm_up):
            await anext(stream)
        gc.collect()
        before = resident()
        await confirm(endpoint, WarmedUp)
        await confirm(endpoint)  # now they are all here
        gc.collect()
        held = resident() - before
        events = [await anext(stream) for _ in range(node.count)]
        assert events[-1].number == node.total - 1
    node.report(bytes=held / node.count)


def keep(node: Node) -> None:
    """Put equal events into a list."""
    payload = bytearray(node.payload())
    events = [Event(number, time.time(), bytes(payload)) for number in range(node.work.warm_up)]
    events.clear()
    gc.collect()
    before = resident()
    events.extend(Event(number, time.time(), bytes(payload)) for number in range(node.count))
    gc.collect()
    node.report(bytes=(resident() - before) / node.count)


async def send_long(endpoint_class: Any, node: Node) -> None:
    """Broadcast many events, and look at the memory twice, when nothing is under way."""
    payload = node.payload()
    early = 0
    async with endpoint_class("sender").run() as endpoint:
        await connect(endpoint, node, ["receiver0"])
        await endpoint.wait_until_endpoint_subscribed_to("receiver0", Event)
        for number in range(node.count):
            await endpoint.broadcast(Event(number, time.time(), payload))
            if number + 1 == node.count // 10:
                await finish(endpoint, ["receiver0"], WarmedUp)
                early = resident()
        await finish(endpoint, ["receiver0"])
        late = resident()
    node.report(growth=late / early)


async def receive_long(endpoint_class: Any, node: Node) -> None:
    """Take them from a stream, and look at the memory twice."""
    early = due = 0
    async with endpoint_class.serve(config_of(node, "receiver0")) as endpoint:
        async for event in endpoint.stream(Event, num_events=node.count):
            assert event.number == due
            due += 1
            if due == node.count // 10:
                await confirm(endpoint, WarmedUp)
                early = resident()
        await confirm(endpoint)
        late = resident()
    node.report(growth=late / early)


# -- Peers that want nothing -----------------------------------------------------------------


async def idle(endpoint_class: Any, node: Node) -> None:
    """Connect many endpoints to the sender, and want nothing."""
    async with contextlib.AsyncExitStack() as stack:
        for index in range(node.work.idle):
            endpoint = await stack.enter_async_context(endpoint_class(f"idle{index}").run())
            await connect(endpoint, node, ["sender"])
        while endpoint.is_connected_to("sender"):
            await endpoint.wait_until_connections_change()
    node.report()


ROLES = {
    **lahja_bus.ROLES,
    ("stream", "idle"): on_loop(idle),
    ("encode", "alone"): encode,
    ("decode", "alone"): decode,
    ("hold", "sender"): on_loop(fill),
    ("hold", "receiver"): on_loop(hold),
    ("keep", "alone"): keep,
    ("endure", "sender"): on_loop(send_long),
    ("endure", "receiver"): on_loop(receive_long),
}
