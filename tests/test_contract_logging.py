"""The log: one line for everything that happens, with names, reason and remedy, and no flood."""

from __future__ import annotations

import logging
import socket
from typing import Any

import pytest
from fault_helpers import Blob
from helpers import (
    Answer,
    Bus,
    Number,
    Question,
    Text,
    answer_questions,
    complaints,
    raw_connection,
    raw_observer,
    raw_peer,
    take,
    until,
)

from lahja import TrioEndpoint, wire
from lahja.names import name_of
from lahja.protocol import control_frame

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "lahja")


def lines_of(caplog: pytest.LogCaptureFixture, endpoint: str = "server") -> list[tuple[str, str]]:
    """Return level and text of what an endpoint has logged, without its name."""
    prefix = f"{endpoint}: "
    return [
        (record.levelname, record.getMessage().removeprefix(prefix))
        for record in caplog.records
        if record.name.startswith("lahja") and record.getMessage().startswith(prefix)
    ]


async def test_the_loggers_have_the_documented_names(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.pair():
        pass
    wanted = "lahja.endpoint.Endpoint"
    if issubclass(bus.endpoint_class, TrioEndpoint):
        wanted = "lahja.trio.TrioEndpoint"
    assert {r.name for r in caplog.records if r.name.startswith("lahja")} == {wanted}


async def test_a_healthy_run_is_no_reason_to_warn(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.pair() as (server, client):
        answer_questions(server)
        numbers = server.stream(Number)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        async with raw_observer(server, "observer", "*"):
            for value in range(100):
                await client.broadcast(Number(value))
                assert await client.request(Question(value)) == Answer(value)
            await take(numbers, 100)
    assert not complaints(caplog)
    assert lines_of(caplog, "client")[0] == ("DEBUG", "connected to server")
    lines = lines_of(caplog)
    assert lines[0] == ("DEBUG", "connected to client")
    assert ("DEBUG", "observed by observer") in lines
    assert ("DEBUG", "no longer observed by 'observer'") in lines
    assert ("DEBUG", "'client' left") in lines
    assert len(lines) == 4


async def test_a_crash_is_told_from_leaving(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    async with bus.serve("server") as server:
        async with raw_peer(server, "crashed"):
            pass
        await until(lambda: len(lines_of(caplog)) == 2)
        async with raw_peer(server, "polite") as peer:
            await peer.send(control_frame(wire.GOODBYE))
            await peer.closed()
    assert lines_of(caplog)[1::2] == [
        ("INFO", "'crashed' left without saying goodbye: did it crash, or was it killed?"),
        ("DEBUG", "'polite' left"),
    ]
    assert not complaints(caplog)


async def test_refusals_say_what_to_do(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    async with bus.pair() as (server, _):
        for values, line in (
            ((2, "new"), "refused the connection of a stranger: version 2 of the protocol meets "),
            ((1, "server"), "refused the connection of 'server': 'server' is the name of this e"),
            ((1, "client"), "refused the connection of 'client': another endpoint of the name "),
        ):
            caplog.clear()
            with raw_connection(server.ipc_path) as peer:
                await peer.send(control_frame(wire.HELLO, *values, bytes(16), {}))
                await peer.read_kind(wire.REJECT)
                await peer.closed()
            await until(lambda: lines_of(caplog))
            level, text = lines_of(caplog)[-1]
            assert level == "WARNING"
            assert text.startswith(line)
            remedy = "; update lahja in" if values[0] == 2 else "; names must be unique"
            assert remedy in text


async def test_a_stall_is_said_when_it_begins_and_when_it_ends(
    bus: Bus, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lahja.peering._STALL_NOTICE", 0.2)
    async with (
        bus.serve("server", stall_timeout=None) as server,
        raw_peer(server, "slow", {Blob: None}) as peer,
    ):
        for _ in range(30):
            server.broadcast_nowait(Blob(bytes(100_000)))
        await until(lambda: len(lines_of(caplog)) == 2)
        level, text = lines_of(caplog)[-1]
        assert level == "INFO"
        assert text.startswith("'slow' has taken nothing for 0.")
        assert "bytes wait for it: is it stopped, or is its event loop kept busy?" in text
        for _ in range(30):
            await peer.read_kind(wire.EVENT)
        await until(lambda: len(lines_of(caplog)) == 3)
        level, text = lines_of(caplog)[-1]
        assert (level, text[:39]) == ("INFO", "'slow' takes again what waits for it, a")
    assert not complaints(caplog)


async def test_a_stall_that_lasts_ends_the_connection_with_one_complaint(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        bus.serve("server", stall_timeout=0.2) as server,
        raw_peer(server, "slow", {Blob: None}),
    ):
        for _ in range(30):
            server.broadcast_nowait(Blob(bytes(100_000)))
        await until(lambda: not server.is_connected_to("slow"))
    (line,) = complaints(caplog)
    assert line.startswith("server: closed the connection to 'slow': it took nothing for 0.2 s, ")
    assert line.endswith("is it stopped, or is its event loop kept busy? See stall_timeout")


async def test_a_flood_of_events_that_do_not_decode_is_a_few_lines(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with bus.serve("server") as server, raw_peer(server, "other") as peer:
        stream = server.stream(Text)
        type_id = await peer.announce(Text("x"))
        bad = b"\x07\0\0\0" + bytes((wire.EVENT,)) + type_id.to_bytes(4, "little") + b"\0\xff"
        for _ in range(20):
            await peer.send(bad * 500)
        await peer.send_event(Text("good"))
        assert (await anext(stream)).text == "good"
    lines = [text for level, text in lines_of(caplog) if level == "WARNING"]
    assert len(lines) == 6
    assert lines[0] == (
        f"lost an event of type {name_of(Text)} from other: 0xff is not the tag of a value; "
        "do both run the same version of it?"
    )
    assert lines[4].endswith("(more like this are only counted for 10 s)")
    assert lines[5].startswith("9995 more like this about other in 10 s, the last one: lost an ")


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
async def test_a_drop_says_which_stream_and_what_to_do(
    bus: Bus, caplog: pytest.LogCaptureFixture, overflow: Any
) -> None:
    async with (
        bus.run("alone") as endpoint,
        endpoint.stream(Number, max_queue=2, overflow=overflow) as stream,
    ):
        for _ in range(100):
            for value in range(5):
                await endpoint.broadcast(Number(value))
            await take(stream, 2)
    lines = [text for level, text in lines_of(caplog, "alone") if level == "WARNING"]
    which = overflow.partition("_")[2]
    wanted = f"a stream of helpers:Number is full with 2 events and drops the {which}: read it "
    assert len(lines) == 6
    assert all(wanted in line for line in lines)
    assert "95 more like this in 10 s" in lines[-1]


async def test_what_is_lost_in_the_end_is_said(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    async with (
        bus.serve("server", drain_timeout=0.1) as server,
        raw_peer(server, "slow", {Blob: None}) as peer,
    ):
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(30):
            server.broadcast_nowait(Blob(bytes(100_000)))
        await server._finish(None)
    (line,) = complaints(caplog)
    assert line.startswith("server: dropped ")
    assert line.endswith(" bytes, which 'slow' did not take within 0.1 s")
