"""
Endpoints without pickles: plain values work in full, anything else is refused in both directions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from attacks import (
    BOMB,
    BOMBS,
    TEXT,
    Bomb,
    announce,
    event,
    nothing_goes_off,
    one_line,
    response,
    undisturbed,
)
from helpers import (
    Answer,
    Bus,
    Question,
    Text,
    answer_questions,
    complaints,
    raw_peer,
)

from lahja import BaseEvent, EncodeError, UnexpectedResponse, wire
from lahja.names import name_of


@pytest.fixture(autouse=True)
def harmless() -> Iterator[None]:
    """Make sure that no bomb went off."""
    with nothing_goes_off():
        yield


# -- Without pickles -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Frozen(BaseEvent):
    values: tuple[Any, ...]


@dataclasses.dataclass(slots=True)
class Slotted(BaseEvent):
    values: list[Any]


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenSlotted(BaseEvent):
    values: dict[str, Any]


PLAIN_EVENTS: list[Callable[[], Any]] = [
    lambda: Frozen((1, 2.5, None, True, "text", b"bytes", (1 << 99,), {1, 2}, frozenset("ab"))),
    lambda: Slotted([[[]], {"a": {1: (2,)}}, "ä\ud800"]),
    lambda: FrozenSlotted({"a": [1] * 2000}),
    lambda: FrozenSlotted({"many containers": [[] for _ in range(2000)]}),
    lambda: Text("plain" * 10_000),
]


@pytest.mark.anyio
@pytest.mark.parametrize("strict", ["server", "client", "both"])
async def test_plain_values_work_in_full_without_pickles(
    bus: Bus, caplog: pytest.LogCaptureFixture, strict: str
) -> None:
    async with (
        bus.serve("server", allow_pickle=strict == "client") as server,
        bus.connect("client", "server", allow_pickle=strict == "server") as client,
    ):
        answer_questions(server)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        assert (await client.request(Question(1 << 70))).value == 1 << 70
        streams = {cls: server.stream(cls) for cls in {type(make()) for make in PLAIN_EVENTS}}
        for make in PLAIN_EVENTS:
            await client.wait_until_endpoint_subscribed_to("server", type(make()))
            await client.broadcast(make())
            received = await anext(streams[type(make())])
            assert received == make()
            assert received.get_origin() == "client"
        for stream in streams.values():
            await stream.aclose()
    assert not complaints(caplog)


@pytest.mark.anyio
async def test_without_pickles_what_is_not_plain_names_the_field_in_the_way(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.pair(allow_pickle=False) as (server, client):
        stream = server.stream(Slotted)
        local = client.stream(Slotted)
        questions = server.stream(Question)
        for cls in (Slotted, Question):
            await client.wait_until_endpoint_subscribed_to("server", cls)
        for value in (1j, Path("x"), [Bomb()], len, Text):
            wrong = Slotted([value])
            with pytest.raises(EncodeError, match="allow_pickle=False") as caught:
                await client.broadcast(wrong)
            assert caught.value.field == "values"
            with pytest.raises(EncodeError, match="field 'values'"):
                client.broadcast_nowait(wrong)
            with pytest.raises(EncodeError, match="field 'value'"):
                await client.request(Question(value))  # type: ignore[arg-type]
            assert not wrong.is_bound
        await client.broadcast(Slotted([1]))
        assert (await anext(stream)).values == [1]
        assert (await anext(local)).values == [1]
        assert not any(each.mailbox.events for each in (stream, local, questions))
        for each in (stream, local, questions):
            await each.aclose()
        assert not client._router.pending
    assert not complaints(caplog)


@pytest.mark.anyio
async def test_without_pickles_a_peer_that_wants_none_is_named(bus: Bus) -> None:
    async with (
        bus.serve("server") as server,
        raw_peer(server, "strict", {Slotted: None}, pickle=False),
    ):
        with pytest.raises(EncodeError, match="'strict' accepts no pickled values") as caught:
            await server.broadcast(Slotted([1j]))
        assert caught.value.field == "values"


@pytest.mark.anyio
@pytest.mark.parametrize("layout", ["fields", "mapping", "whole"])
async def test_without_pickles_none_is_accepted(
    bus: Bus, caplog: pytest.LogCaptureFixture, layout: str
) -> None:
    number = {"fields": wire.LAYOUT_FIELDS, "mapping": wire.LAYOUT_MAPPING}.get(layout, 2)
    fields = ("text",) if layout == "fields" else ()
    async with undisturbed(bus, allow_pickle=False) as server:
        async with raw_peer(server, "mallory") as peer, server.stream(Text) as stream:
            await peer.send(announce(5, TEXT, number, fields))
            await peer.send(event(5, b"\1" + (BOMB if layout == "whole" else BOMBS)))
            await peer.send_event(Text("after"))
            assert (await anext(stream)).text == "after"
            assert server.is_connected_to("mallory")
        one_line(caplog, "it is pickled, and this endpoint has allow_pickle=False", "mallory")


@pytest.mark.anyio
async def test_without_pickles_a_pickled_answer_ends_the_request(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        bus.serve("server", allow_pickle=False) as server,
        raw_peer(server, "mallory", {Question: None}) as peer,
    ):

        async def answer() -> None:
            request_id = (await peer.read_kind(wire.REQUEST))[5:21]
            await peer.send(announce(0, name_of(Answer), 0, ("value",)))
            await peer.send(response(0, request_id, b"\1" + BOMBS))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer)
            with pytest.raises(UnexpectedResponse, match="allow_pickle=False"):
                await server.request(Question(1), timeout=20)
        assert not server._router.pending
    one_line(caplog, "allow_pickle=False", "mallory")
