"""
Whoever can open the socket may send anything: what an endpoint does about it.

An attack is a few bytes on a raw connection to a real endpoint, while a friend of the endpoint
goes on exchanging numbered events and requests with it. After each attack one line was logged that
says what and from whom, no code ran, no module was imported, and the friend noticed nothing.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import random
import re
import socket
import sys
from collections.abc import Iterator

import anyio
import pytest
from attacks import (
    BOMB,
    BOMBS,
    CANARY,
    COMPLETE,
    EVENTS,
    OBSERVERS,
    PEERS,
    PLAIN_TEXT,
    SILENT,
    STRANGERS,
    TEXT,
    announce,
    cases,
    event,
    hello,
    nothing_goes_off,
    one_line,
    random_frame,
    response,
    undisturbed,
)
from helpers import (
    Answer,
    Bus,
    Question,
    RawServer,
    Text,
    complaints,
    raw_connection,
    raw_frame,
    raw_observer,
    raw_peer,
    until,
)

from lahja import ConnectionAttemptRejected, UnexpectedResponse, wire
from lahja.framing import encode_value
from lahja.names import name_of
from lahja.protocol import control_frame


@pytest.fixture(autouse=True)
def harmless() -> Iterator[None]:
    """Make sure that no bomb went off."""
    with nothing_goes_off():
        yield


def test_the_bomb_would_go_off() -> None:
    for data in (BOMB, BOMBS):
        with contextlib.suppress(TypeError):
            file = pickle.loads(data)
            (file[0] if isinstance(file, tuple) else file).close()
        assert CANARY.exists()
        CANARY.unlink()


@pytest.mark.anyio
@pytest.mark.parametrize(("attack", "line"), cases(STRANGERS))
async def test_a_bad_stranger_is_cut_off_with_one_line(
    bus: Bus, caplog: pytest.LogCaptureFixture, attack: bytes, line: str
) -> None:
    async with undisturbed(bus) as server:
        with raw_connection(server.ipc_path) as peer:
            await peer.send(attack)
            await peer.closed()
        one_line(caplog, re.escape(line), "connection")
        assert set(server._router.peers) == {"friend"}


@pytest.mark.anyio
@pytest.mark.parametrize(("attack", "line"), cases(PEERS))
async def test_a_bad_peer_is_cut_off_with_one_line(
    bus: Bus, caplog: pytest.LogCaptureFixture, attack: bytes, line: str
) -> None:
    async with undisturbed(bus) as server, raw_peer(server, "mallory") as peer:
        stream = server.stream(Text)
        await peer.send(attack)
        await peer.closed()
        one_line(caplog, re.escape(line), "closed the connection to 'mallory'")
        assert not server.is_connected_to("mallory")
        assert not stream.mailbox.events
        await stream.aclose()


@pytest.mark.anyio
@pytest.mark.parametrize(("attack", "line"), cases(OBSERVERS))
async def test_a_bad_observer_is_cut_off_with_one_line(
    bus: Bus, caplog: pytest.LogCaptureFixture, attack: bytes, line: str
) -> None:
    async with undisturbed(bus) as server, raw_observer(server, "mallory") as peer:
        stream = server.stream(Text)
        await peer.send(attack)
        await peer.closed()
        one_line(caplog, re.escape(line), "closed the connection to 'mallory'")
        assert not server.stats().observers
        assert not stream.mailbox.events
        await stream.aclose()


@pytest.mark.anyio
@pytest.mark.parametrize(("attack", "line"), cases(EVENTS))
async def test_a_bad_event_is_lost_with_one_line(
    bus: Bus, caplog: pytest.LogCaptureFixture, attack: bytes, line: str
) -> None:
    async with undisturbed(bus) as server, raw_peer(server, "mallory") as peer:
        async with server.stream(Text) as stream:
            await peer.send(announce(9, TEXT), attack, event(9, b"\0" + encode_value("after")))
            received = await anext(stream)
            assert received.text == "after"
            assert received.get_origin() == "mallory"
        one_line(caplog, re.escape(line), "from mallory")
        assert server.is_connected_to("mallory")


@pytest.mark.anyio
@pytest.mark.parametrize("attack", cases(SILENT))
async def test_what_is_odd_but_allowed_changes_nothing(
    bus: Bus, caplog: pytest.LogCaptureFixture, attack: bytes
) -> None:
    async with undisturbed(bus) as server, raw_peer(server, "mallory", {Text: None}) as peer:
        await peer.send(attack)
        await server.broadcast(Text("to whoever still wants it"))
        server.get_connected_endpoints_and_subscriptions()
        assert server.is_connected_to("mallory")
    assert not [line for line in complaints(caplog) if "connection ended in" not in line]
    assert len(complaints(caplog)) <= 1  # of the half frame, when its sender hangs up


@pytest.mark.anyio
async def test_goodbye_is_the_last_word(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    async with undisturbed(bus) as server, raw_peer(server, "mallory") as peer:
        stream = server.stream(Text)
        late = announce(0, TEXT) + event(0, PLAIN_TEXT) + b"\xff" * 100
        await peer.send(control_frame(wire.GOODBYE) + late)
        await peer.closed()
        assert not server.is_connected_to("mallory")
        assert not stream.mailbox.events
        await stream.aclose()
    assert not complaints(caplog)


@pytest.mark.anyio
async def test_names_cannot_forge_lines_of_the_log(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    name = "mal\nlory\x1b[2J\ud800"
    async with undisturbed(bus) as server, raw_peer(server, name) as peer:
        await peer.send(announce(0, TEXT), response(0, bytes(16), b""), raw_frame(0x7F))
        await peer.closed()
    lines = complaints(caplog)
    assert len(lines) == 2, lines
    assert all(line.isprintable() for line in lines)
    assert "mal\\nlory" in lines[0]


@pytest.mark.anyio
async def test_a_pickle_runs_only_for_a_type_that_was_asked_for(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    """The trust that security.md speaks of, and the control of all tests with bombs."""
    async with bus.serve("server") as server, raw_peer(server) as peer:
        async with server.stream(Text) as stream:
            await peer.send(announce(0, TEXT), event(0, b"\1" + BOMBS))
            (await anext(stream)).text.close()  # type: ignore[attr-defined]
        assert CANARY.exists()
        CANARY.unlink()
    assert not complaints(caplog)


@pytest.mark.anyio
async def test_a_type_unsubscribed_a_moment_ago_is_passed_over_in_silence(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with undisturbed(bus) as server, raw_peer(server, "mallory") as peer:
        await server.stream(Text).aclose()
        questions = server.stream(Question)
        await peer.send(announce(9, TEXT), event(9, b"\1" + BOMBS))
        await peer.send_event(Question(-1), wire.REQUEST, bytes(16))
        while (await anext(questions)).value >= 0:
            pass
        await questions.aclose()
    assert not complaints(caplog)


@pytest.mark.anyio
async def test_random_conversations_on_real_sockets(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(20_261_123)
    async with undisturbed(bus) as server:
        server.subscribe(Text, lambda text: None)
        for number in range(60):
            with raw_connection(server.ipc_path) as peer:
                if number % 2:
                    await peer.send(hello(1, f"mallory {number}"), COMPLETE, announce(9, TEXT))
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    await peer.send(*(random_frame(rng) for _ in range(20)))
                    peer.socket.shutdown(socket.SHUT_WR)
                await peer.closed()
        assert set(server._router.peers) == {"friend"}
        assert not server._peering._strangers
    records = [record for record in caplog.records if record.levelno > logging.WARNING]
    assert not records, [record.getMessage() for record in records]


# -- Forged answers --------------------------------------------------------------------------


@pytest.mark.anyio
async def test_only_whoever_was_asked_can_answer(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    payload = b"\0" + encode_value(666)
    async with (
        bus.serve("server") as server,
        raw_peer(server, "honest", {Question: None}) as honest,
        raw_peer(server, "mallory") as mallory,
        anyio.create_task_group() as tasks,
    ):
        answers: list[Answer] = []

        async def ask() -> None:
            answers.append(await server.request(Question(1), timeout=20))

        tasks.start_soon(ask)
        request_id = (await honest.read_kind(wire.REQUEST))[5:21]
        await mallory.send(announce(0, name_of(Answer), 0, ("value",)))
        await mallory.send(response(0, bytes(16), payload))  # a guess
        await mallory.send(response(0, request_id, payload))  # more than it can know
        await mallory.send(response(0, request_id, b"\1" + BOMBS))
        await until(lambda: len(complaints(caplog)) == 3)
        assert not answers
        await honest.send_event(Answer(1), wire.RESPONSE, request_id)
        await until(lambda: answers)
        assert answers[0].value == 1
        assert answers[0].get_origin() == "honest"
        await honest.send_event(Answer(2), wire.RESPONSE, request_id)
        await until(lambda: len(complaints(caplog)) == 4)
        assert not server._router.pending
    guess, *stolen, second = complaints(caplog)
    assert "from mallory: it is late, or the second one" in guess
    assert all("from mallory: it was not asked" in line for line in stolen)
    assert "from honest: it is late, or the second one" in second


@pytest.mark.anyio
async def test_a_wrong_answer_is_told_from_its_name_alone(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    modules = set(sys.modules)
    async with bus.serve("server") as server, raw_peer(server, "raw", {Question: None}) as peer:
        for type_id, name in enumerate(["antigravity:fly", TEXT, "no.such.module:Class"]):

            async def answer(type_id: int = type_id, name: str = name) -> None:
                request_id = (await peer.read_kind(wire.REQUEST))[5:21]
                await peer.send(announce(type_id, name))
                await peer.send(response(type_id, request_id, b"\1" + BOMBS))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(answer)
                with pytest.raises(UnexpectedResponse, match=re.escape(name)):
                    await server.request(Question(1), timeout=20)
        assert not server._router.pending
    assert not complaints(caplog)
    assert set(sys.modules) == modules


@pytest.mark.anyio
async def test_who_asks_for_statistics_and_does_not_read_them_is_cut_off(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async with undisturbed(bus) as server, raw_peer(server, "mallory") as peer:
        questions = control_frame(wire.ASK_STATS, 5) * 10_000
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(200):
                await peer.send(questions)
        await until(lambda: not server.is_connected_to("mallory"))
        one_line(caplog, "it asks for statistics and does not read them", "'mallory'")


@pytest.mark.anyio
async def test_patterns_that_match_slowly_are_matched_all_the_same(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    evil = {"*a" * 2000 + "b": None, "[" * 4000: None, "?" * 4000: None, "[!" + "]" * 4000: None}
    async with undisturbed(bus) as server, raw_observer(server, "mallory") as peer:
        await peer.send(control_frame(wire.SUBSCRIBE, evil, (), True))
        await peer.send(control_frame(wire.ASK_STATS, 1))
        assert (await peer.read_values(wire.STATS))[0] == 1
    assert not complaints(caplog)


@pytest.mark.anyio
async def test_a_server_that_only_observes_is_refused(bus: Bus) -> None:
    path = bus.config("mallory").path
    async with bus.serve("server") as server, anyio.create_task_group() as tasks:
        with RawServer(path) as raw_server:

            async def answer() -> None:
                peer = await raw_server.accept()
                with peer.socket:
                    await peer.send(hello(observe=True))
                    await peer.closed()

            tasks.start_soon(answer)
            with pytest.raises(ConnectionAttemptRejected, match="says that it only observes"):
                await server.connect_to_endpoints(bus.config("mallory"))


SERVED = {name: attack for name, attack in STRANGERS.items() if "by" not in name.split()}
del SERVED["rejection"], SERVED["hello to somebody else"]


@pytest.mark.anyio
@pytest.mark.parametrize(("attack", "line"), cases(SERVED))
async def test_a_server_that_is_none_is_refused_with_its_fault(
    bus: Bus, caplog: pytest.LogCaptureFixture, attack: bytes, line: str
) -> None:
    path = bus.config("mallory").path
    async with undisturbed(bus) as server, anyio.create_task_group() as tasks:
        with RawServer(path) as raw_server:

            async def answer() -> None:
                peer = await raw_server.accept()
                with peer.socket:
                    await peer.send(attack)
                    await peer.closed()

            tasks.start_soon(answer)
            with pytest.raises(ConnectionAttemptRejected, match=re.escape(line)) as caught:
                await server.connect_to_endpoints(bus.config("mallory"))
        assert str(path) in str(caught.value)
        assert set(server._router.peers) == {"friend"}
    assert not complaints(caplog)  # whoever called was told
