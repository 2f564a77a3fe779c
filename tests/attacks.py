"""
What somebody may send to an endpoint who means no good, and how an endpoint must bear it.

Each attack is a few bytes, and what is said about them in the log. ``STRANGERS`` send theirs in
place of a handshake, ``PEERS`` after it; both are cut off. ``EVENTS`` are lost alone. What is
``SILENT`` is odd and allowed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import logging
import os
import pickle
import random
import re
import struct
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from helpers import (
    Bus,
    Number,
    Question,
    Text,
    answer_questions,
    complaints,
    raw_frame,
    take,
    until,
)

from lahja import BaseEvent, wire
from lahja import survey as survey  # which an endpoint loads when it is first asked for statistics
from lahja.base import BaseEndpoint
from lahja.compression import has_snappy
from lahja.framing import Shape, encode_value
from lahja.names import name_of
from lahja.protocol import control_frame

__all__ = [
    "BOMB",
    "BOMBS",
    "Bomb",
    "CANARY",
    "COMPLETE",
    "EVENTS",
    "OBSERVERS",
    "PEERS",
    "PLAIN_TEXT",
    "SILENT",
    "STRANGERS",
    "TEXT",
    "Unasked",
    "announce",
    "cases",
    "event",
    "hello",
    "nothing_goes_off",
    "one_line",
    "random_frame",
    "response",
    "undisturbed",
    "value_frame",
    "varint",
]

CANARY = Path(tempfile.gettempdir()) / f"lahja-canary-{os.getpid()}"


class Bomb:
    """Create a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return io.open, (str(CANARY), "w")


BOMB = pickle.dumps(Bomb())
BOMBS = pickle.dumps((Bomb(),))


@dataclasses.dataclass
class Unasked(BaseEvent):
    """Be what no endpoint here ever subscribes to."""

    text: str


# -- Attacks ---------------------------------------------------------------------------------


def value_frame(kind: int, value: object) -> bytes:
    """Return a control frame that holds any value, not only a tuple."""
    return raw_frame(kind, encode_value(value))


def hello(*values: Any, **options: Any) -> bytes:
    """Return a HELLO frame in which the first values are replaced."""
    defaults: tuple[Any, ...] = (wire.PROTOCOL_VERSION, "mallory", bytes(16), options)
    return control_frame(wire.HELLO, *(*values, *defaults[len(values) :]))


def announce(
    type_id: int, name: str, layout: int = 0, fields: tuple[str, ...] = ("text",)
) -> bytes:
    return Shape(type_id, name, layout, fields).announcement


def event(type_id: int, payload: bytes) -> bytes:
    return raw_frame(wire.EVENT, struct.pack("<I", type_id) + payload)


def request(type_id: int, payload: bytes) -> bytes:
    return raw_frame(wire.REQUEST, struct.pack("<I", type_id) + bytes(16) + payload)


def response(type_id: int, request_id: bytes, payload: bytes) -> bytes:
    return raw_frame(wire.RESPONSE, struct.pack("<I", type_id) + request_id + payload)


def varint(number: int) -> bytes:
    """Return a number as snappy writes the size of what comes out."""
    data = b""
    while number >= 0x80:
        data += bytes((number & 0x7F | 0x80,))
        number >>= 7
    return data + bytes((number,))


def nested(levels: int) -> bytes:
    return b"(\1\0\0\0" * levels + b"N"


TEXT = name_of(Text)
PLAIN_TEXT = b"\0" + encode_value("text")
COMPLETE = control_frame(wire.SUBSCRIBE, {}, (), True)
HUGE = 1 << 100_000
HUGE_COUNT = b"[\xff\xff\xff\xff"

STRANGERS: dict[str, tuple[bytes, str]] = {
    "random bytes": (random.Random(1).randbytes(100), "over the limit of 65536"),
    "text": (b"GET / HTTP/1.1\r\n\r\n", "over the limit of 65536"),
    "4 GiB, as its length says": (b"\xff\xff\xff\xff", "frame of 4294967295 bytes is over"),
    "one byte too many": (struct.pack("<I", wire.HELLO_LIMIT + 1), "65537 bytes is over"),
    "empty frame": (bytes(4), "a frame is empty"),
    "old lahja": (
        struct.pack("<I", 40) + pickle.dumps({"hello": "world"}, 2).ljust(40, b"\0"),
        "speaks the format of lahja 0.x",
    ),
    "pickle as first frame": (
        struct.pack("<I", len(BOMB)) + BOMB,
        "speaks the format of lahja 0.x",
    ),
    "pickle in a hello": (raw_frame(wire.HELLO, BOMB), "0x80 is not the tag of a value"),
    "unknown kind": (raw_frame(0x7F), "0x7f is not a kind of frame"),
    "subscriptions before hello": (COMPLETE, "SUBSCRIBE frame came while waiting for"),
    "announcement before hello": (announce(0, TEXT), "ANNOUNCE frame came while waiting for"),
    "event before hello": (event(0, PLAIN_TEXT), "EVENT frame came while waiting for"),
    "request before hello": (request(0, PLAIN_TEXT), "REQUEST frame came while waiting for"),
    "response before hello": (response(0, bytes(16), b""), "RESPONSE frame came while"),
    "bomb before hello": (event(0, b"\1" + BOMBS), "EVENT frame came while waiting for"),
    "compressed hello": (raw_frame(wire.COMPRESSED, b"\1N"), "COMPRESSED frame came while"),
    "goodbye before hello": (control_frame(wire.GOODBYE), "GOODBYE frame came while"),
    "rejection": (control_frame(wire.REJECT, "name", "no"), "REJECT frame came from the conn"),
    "hello of nothing": (control_frame(wire.HELLO), "does not hold one tuple"),
    "hello of text": (value_frame(wire.HELLO, "hello"), "does not hold one tuple"),
    "hello with a tail": (raw_frame(wire.HELLO, b"(\0\0\0\0N"), "does not hold one tuple"),
    "hello cut short": (raw_frame(wire.HELLO, b"("), "a value is cut short"),
    "hello of 4 billion elements": (raw_frame(wire.HELLO, b"(\xff\xff\xff\xff"), "is cut short"),
    "hello nested too deeply": (raw_frame(wire.HELLO, nested(101)), "more than 100 deep"),
    "hello of three elements": (control_frame(wire.HELLO, 1, "a", bytes(16)), "does not have the"),
    "hello without name": (hello(1, ""), "does not have the fields"),
    "hello with a long name": (hello(1, "n" * 5000), "does not have the fields"),
    "hello with a short instance": (hello(1, "name", bytes(15)), "does not have the fields"),
    "hello without options": (hello(1, "name", bytes(16), None), "does not have the fields"),
    "hello with a wrong option": (hello(max_frame_size=-1), "does not have the fields"),
    "hello with wrong compressions": (hello(compression=7), "does not have the fields"),
    "hello of another version": (hello(2), "version 2 of the protocol meets version 1"),
    "hello of no version": (hello("1.0"), "of the protocol meets version 1"),
    "hello of a version like 1": (hello(True), "of the protocol meets version 1"),
    "hello of a huge version": (hello(HUGE), "of the protocol meets version 1"),
    "hello of a version of lines": (hello("1\nWARNING"), "of the protocol meets version 1"),
    "hello of who may observe": (hello(observe=1), "does not have the fields"),
    "hello by the endpoint's own name": (hello(1, "server"), "is the name of this endpoint"),
    "hello by a friend's name": (hello(1, "friend"), "of the name 'friend' is connected"),
    "hello to somebody else": (hello(to="other"), "this endpoint is 'server', not 'other'"),
    "hello twice": (hello() + hello(), "HELLO frame came while waiting for the peer's subscr"),
    "event before subscriptions": (hello() + event(0, PLAIN_TEXT), "EVENT frame came while"),
    "goodbye before subscriptions": (hello() + control_frame(wire.GOODBYE), "GOODBYE frame"),
}

PEERS: dict[str, tuple[bytes, str]] = {
    "random bytes": (b"\xa0" + random.Random(2).randbytes(99), "is over the limit of 268435456"),
    "4 GiB, as its length says": (b"\xff\xff\xff\xff", "frame of 4294967295 bytes is over"),
    "one byte too many": (struct.pack("<I", wire.MAX_FRAME_SIZE + 1), "268435457 bytes is over"),
    "empty frame": (bytes(4), "a frame is empty"),
    "unknown kind": (raw_frame(0xFF, b"abc"), "0xff is not a kind of frame"),
    "pickle as a frame": (struct.pack("<I", len(BOMB)) + BOMB, "0x80 is not a kind of frame"),
    **{
        f"pickle in {wire.KIND_NAMES[kind]}": (raw_frame(kind, BOMB), "0x80 is not the tag of a")
        for kind in (wire.SUBSCRIBE, wire.ANNOUNCE, wire.CREDIT, wire.GOODBYE)
    },
    "hello again": (hello(), "a HELLO frame came while open"),
    "rejection": (control_frame(wire.REJECT, "name", "no"), "a REJECT frame came while open"),
    "event of an unknown type": (event(77, PLAIN_TEXT), "of a type that was not announced"),
    "request of an unknown type": (request(77, PLAIN_TEXT), "of a type that was not announced"),
    "response of an unknown type": (
        response(77, bytes(16), PLAIN_TEXT),
        "of a type that was not announced",
    ),
    "event too short": (raw_frame(wire.EVENT, b"\0\0\0"), "too short for an event"),
    "request too short": (raw_frame(wire.REQUEST, bytes(19)), "too short for an event"),
    "response too short": (raw_frame(wire.RESPONSE, bytes(19)), "too short for a response"),
    "announced twice": (announce(5, TEXT) * 2, "5 is no new id of a type"),
    "announced below 0": (control_frame(wire.ANNOUNCE, -1, TEXT, 0, ()), "no new id of a type"),
    "announced beyond 32 bits": (
        control_frame(wire.ANNOUNCE, 1 << 32, TEXT, 0, ()),
        "no new id of a type",
    ),
    "announced far beyond": (
        control_frame(wire.ANNOUNCE, HUGE, TEXT, 0, ()),
        "no new id of a type",
    ),
    "announced without a name": (control_frame(wire.ANNOUNCE, 0, "", 0, ()), "name of an event"),
    "announced by a long name": (
        control_frame(wire.ANNOUNCE, 0, "n" * 5000, 0, ()),
        "name of an event type",
    ),
    "announced in a fourth layout": (
        control_frame(wire.ANNOUNCE, 0, TEXT, 3, ()),
        "not a layout",
    ),
    "announced in a huge layout": (
        control_frame(wire.ANNOUNCE, 0, TEXT, HUGE, ()),
        "not a layout",
    ),
    "fields of a mapping": (control_frame(wire.ANNOUNCE, 0, TEXT, 1, ("a",)), "announces no f"),
    "fields of one name": (control_frame(wire.ANNOUNCE, 0, TEXT, 0, ("a", "a")), "different n"),
    "fields that are no names": (control_frame(wire.ANNOUNCE, 0, TEXT, 0, (1,)), "different n"),
    "fields in a list": (control_frame(wire.ANNOUNCE, 0, TEXT, 0, ["a"]), "of wrong types"),
    **{
        f"field {name}": (announce(0, TEXT, 0, (name,)), "fields that lahja itself sets")
        for name in ("_origin", "_id", "is_bound")
    },
    "window of 0": (control_frame(wire.SUBSCRIBE, {TEXT: 0}, (), True), "is not a window"),
    "huge window": (control_frame(wire.SUBSCRIBE, {TEXT: HUGE}, (), True), "is not a window"),
    "window of lines": (
        control_frame(wire.SUBSCRIBE, {TEXT: "1\n" * 10_000}, (), True),
        "is not a window",
    ),
    "subscription to a number": (control_frame(wire.SUBSCRIBE, {1: None}, (), True), "name of"),
    "subscription to nothing": (control_frame(wire.SUBSCRIBE, {"": None}, (), True), "name of"),
    "unsubscription of a number": (control_frame(wire.SUBSCRIBE, {}, (1,), True), "name of an"),
    "subscriptions in a list": (control_frame(wire.SUBSCRIBE, [], (), True), "of wrong types"),
    "credit of 0": (control_frame(wire.CREDIT, TEXT, 0), "is not a number of events"),
    "huge credit": (control_frame(wire.CREDIT, TEXT, HUGE), "is not a number of events"),
    "goodbye with a word": (control_frame(wire.GOODBYE, 1), "of wrong types"),
    "question without a number": (control_frame(wire.ASK_STATS), "of wrong types"),
    "question by a text": (control_frame(wire.ASK_STATS, "1"), "of wrong types"),
    "question of a huge number": (control_frame(wire.ASK_STATS, HUGE), "number of a question"),
    "question below 0": (control_frame(wire.ASK_STATS, -1), "number of a question"),
    "answer that nobody asked for": (control_frame(wire.STATS, 1, {}), "which nobody asked for"),
    "pickle as an answer": (raw_frame(wire.STATS, BOMB), "which nobody asked for"),
    "traced nothing": (raw_frame(wire.TRACED, b"\5\0{\0\0\0\0"), "TRACED frame holds no event"),
    "traced goodbye": (
        raw_frame(wire.TRACED, b"\5\0{\0\0\0\0" + control_frame(wire.GOODBYE)[4:]),
        "TRACED frame holds no event",
    ),
    "traced pickle": (raw_frame(wire.TRACED, b"\5\0" + BOMB), "0x80 is not the tag of a value"),
    "tapped event that nobody asked for": (
        raw_frame(wire.TAPPED, bytes(12) + event(9, PLAIN_TEXT)[4:]),
        "which nobody asked for",
    ),
    "control frame with a tail": (raw_frame(wire.CREDIT, b"(\0\0\0\0N"), "does not hold one"),
    "control frame nested too deeply": (raw_frame(wire.CREDIT, nested(101)), "more than 100 deep"),
    "control frame of 4 billion elements": (raw_frame(wire.CREDIT, HUGE_COUNT), "is cut short"),
    "control frame of 5 MB": (
        raw_frame(wire.CREDIT, encode_value((bytes(5_000_000),))),
        "CREDIT frame of 5000011 bytes is over the limit of 4194304",
    ),
}
if has_snappy():
    snappy: Any = importlib.import_module("snappy")

    PEERS |= {
        "compressed 4 GiB, as they say": (
            raw_frame(wire.COMPRESSED, varint(0xFFFF_FFFF) + b"\0N"),
            "frame of 4294967295 bytes is over the limit of 268435456",
        ),
        "compressed 256 MiB, as they say": (
            raw_frame(wire.COMPRESSED, varint(wire.MAX_FRAME_SIZE) + b"\0N"),
            "cannot become 268435456",
        ),
        "compressed without a size": (raw_frame(wire.COMPRESSED, b"\xff" * 9), "begin with its"),
        "compressed, and empty": (raw_frame(wire.COMPRESSED), "begin with its size"),
        "compressed to nothing": (raw_frame(wire.COMPRESSED, b"\0"), "another size than it says"),
        "compressed garbage": (raw_frame(wire.COMPRESSED, b"\x20" + b"\xfe" * 9), "cannot be unc"),
        "compressed twice": (
            raw_frame(wire.COMPRESSED, snappy.compress(b"\x08" + snappy.compress(b"\x0aabc"))),
            "a compressed frame holds another one",
        ),
        "compressed pickle": (
            raw_frame(wire.COMPRESSED, snappy.compress(BOMB)),
            "0x80 is not a kind of frame",
        ),
        "compressed hello": (
            raw_frame(wire.COMPRESSED, snappy.compress(hello()[4:])),
            "a HELLO frame came while open",
        ),
        "compressed event of an unknown type": (
            raw_frame(wire.COMPRESSED, snappy.compress(event(77, PLAIN_TEXT)[4:])),
            "of a type that was not announced",
        ),
    }

OBSERVERS: dict[str, tuple[bytes, str]] = {
    "announcement": (announce(9, TEXT), "a ANNOUNCE frame came from an observer"),
    "event": (event(9, PLAIN_TEXT), "of a type that was not announced"),
    "request": (request(9, PLAIN_TEXT), "of a type that was not announced"),
    "response": (response(9, bytes(16), PLAIN_TEXT), "a response is of a type that was not an"),
    "credit": (control_frame(wire.CREDIT, TEXT, 5), "a CREDIT frame came from an observer"),
    "compressed": (raw_frame(wire.COMPRESSED, b"\1\0N"), "a COMPRESSED frame came from an obs"),
    "hello again": (hello(), "a HELLO frame came while open"),
    "answer": (control_frame(wire.STATS, 1, {}), "a STATS frame came from an observer"),
    "traced event": (raw_frame(wire.TRACED), "a TRACED frame came from an observer"),
    "tapped event": (raw_frame(wire.TAPPED, bytes(12)), "a TAPPED frame came from an observer"),
    "unknown kind": (raw_frame(0xFF, b"abc"), "0xff is not a kind of frame"),
    "question of a huge number": (control_frame(wire.ASK_STATS, HUGE), "number of a question"),
    "subscription to a number": (control_frame(wire.SUBSCRIBE, {1: None}, (), True), "name of"),
    "too many patterns": (
        control_frame(wire.SUBSCRIBE, {f"{i}*": None for i in range(257)}, (), True),
        "an observer has more than 256 subscriptions",
    ),
}

EVENTS: dict[str, tuple[bytes, str]] = {
    "traced, and unknown tag": (
        raw_frame(wire.TRACED, b"\5\0{\0\0\0\0" + event(9, b"\0\xff")[4:]),
        "0xff is not the tag",
    ),
    "no payload": (event(9, b""), "a payload is missing"),
    "fourth form": (event(9, b"\3"), "3 is not a form of payload"),
    "one field too few": (event(9, b"\0"), "cut short"),
    "one field too many": (event(9, PLAIN_TEXT + b"N"), "1 bytes too many"),
    "unknown tag": (event(9, b"\0\xff"), "0xff is not the tag"),
    "text cut short": (event(9, b"\0s\xff"), "cut short"),
    "text that is not UTF-8": (event(9, b"\0s\2\xff\xff"), "is not UTF-8"),
    "4 billion elements": (event(9, b"\0" + HUGE_COUNT + bytes(64)), "0x00 is not the tag"),
    "4 billion elements, again and again": (event(9, b"\0" + HUGE_COUNT * 90), "cut short"),
    "nested too deeply": (event(9, b"\0" + nested(101)), "more than 100 deep"),
    "nested far too deeply": (event(9, b"\0" + nested(100_000)), "more than 100 deep"),
    "set of lists": (event(9, b"\0<\1\0\0\0[\0\0\0\0"), "cannot be hashed"),
    "pickle of garbage": (event(9, b"\1garbage"), "UnpicklingError"),
    "pickle of an error of many lines": (event(9, b"\1cno\\\nsuch\n."), "lost an event"),
    "pickle of too many fields": (event(9, b"\1" + pickle.dumps((1, 2))), "announced fields"),
    "pickle of no tuple": (event(9, b"\1" + pickle.dumps("text")), "announced fields"),
    "pickle of another class": (
        announce(10, TEXT, wire.LAYOUT_WHOLE, ()) + event(10, b"\1" + pickle.dumps({})),
        "the pickle holds a dict",
    ),
    "whole, and plain": (
        announce(10, TEXT, wire.LAYOUT_WHOLE, ()) + event(10, PLAIN_TEXT),
        "0 is not a form of payload",
    ),
    "mapping of no names": (
        announce(10, TEXT, wire.LAYOUT_MAPPING, ()) + event(10, b"\0" + encode_value({1: 2})),
        "not a dict of names",
    ),
    "mapping that sets the origin": (
        announce(10, TEXT, wire.LAYOUT_MAPPING, ())
        + event(10, b"\0" + encode_value({"_origin": "friend"})),
        "not a dict of names",
    ),
    "request of no payload": (request(9, b""), "a payload is missing"),
    "response that nobody waits for": (response(9, bytes(16), PLAIN_TEXT), "ignored a response"),
    "response with a bomb": (response(9, bytes(16), b"\1" + BOMBS), "ignored a response"),
    "type that nobody asked for": (
        announce(10, name_of(Unasked)) + event(10, PLAIN_TEXT),
        "nobody here asked for it",
    ),
    "bomb of a type that nobody asked for": (
        announce(10, name_of(Unasked)) + event(10, b"\1" + BOMBS),
        "nobody here asked for it",
    ),
    "whole bomb of a type that nobody asked for": (
        announce(10, name_of(Unasked), wire.LAYOUT_WHOLE, ()) + event(10, b"\1" + BOMB),
        "nobody here asked for it",
    ),
    "request of a type that nobody asked for": (
        announce(10, name_of(Unasked)) + request(10, b"\1" + BOMBS),
        "nobody here asked for it",
    ),
    "type of a module that is not imported": (
        announce(10, "antigravity:fly") + event(10, PLAIN_TEXT),
        "nobody here asked for it",
    ),
    "type of a module that does not exist": (
        announce(10, "no.such.module:Class") + event(10, b"\1" + BOMBS),
        "nobody here asked for it",
    ),
    "type that is no event": (
        announce(10, "os:system") + event(10, PLAIN_TEXT),
        "nobody here asked for it",
    ),
    "type with a name of several lines": (
        announce(10, "os:system\nWARNING all is lost\x1b[31m\ud800") + event(10, PLAIN_TEXT),
        "nobody here asked for it",
    ),
}

SILENT: dict[str, bytes] = {
    "subscription to a module that is not imported": control_frame(
        wire.SUBSCRIBE, {"antigravity:fly": None, "no.such:Class": 5, "\ud800:": None}, (), True
    ),
    "the end of a subscription that never was": control_frame(
        wire.SUBSCRIBE, {}, ("antigravity:fly", TEXT), True
    ),
    "credit for what is not limited": control_frame(wire.CREDIT, TEXT, 5),
    "announcement that is never used": announce(10, "antigravity:fly"),
    "half a frame": event(9, bytes(100))[:50],
    "half a length": b"\1\0",
}


def cases(attacks: dict[str, Any]) -> list[Any]:
    return [pytest.param(*(a if isinstance(a, tuple) else (a,)), id=i) for i, a in attacks.items()]


@asynccontextmanager
async def undisturbed(bus: Bus, **options: Any) -> AsyncIterator[BaseEndpoint]:
    """Serve, while a friend exchanges numbered events and requests; all of them must arrive."""
    modules = set(sys.modules)
    async with bus.serve("server", **options) as server, bus.connect("friend", "server") as friend:
        answer_questions(server)
        numbers = server.stream(Number)
        await friend.wait_until_endpoint_subscribed_to("server", Number)
        sent = 0
        is_over = False

        async def talk() -> None:
            nonlocal sent
            while not is_over:
                await friend.broadcast(Number(sent))
                assert (await friend.request(Question(sent), timeout=20)).value == sent
                sent += 1
                await anyio.sleep(0.001)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(talk)
            yield server
            before = sent
            await until(lambda: sent > before + 1)
            is_over = True
        assert [number.value for number in await take(numbers, sent)] == list(range(sent))
        assert server.is_connected_to("friend")
        assert not server._router.pending
        assert not friend._router.pending
    assert set(sys.modules) == modules


def one_line(caplog: pytest.LogCaptureFixture, pattern: str, whom: str) -> None:
    """Make sure that exactly one line was logged, at WARNING, which says what and from whom."""
    lines = complaints(caplog)
    assert len(lines) == 1, lines
    assert re.search(pattern, lines[0]), lines
    assert whom in lines[0]
    assert lines[0].startswith("server: ")
    assert len(lines[0]) < 1000
    assert lines[0].isprintable()
    mine = [r for r in caplog.records if r.name.startswith("lahja")]
    assert [r.levelno for r in mine if r.levelno > logging.INFO] == [logging.WARNING]


def random_value(rng: random.Random, depth: int = 0) -> Any:
    """Return a plain value as a peer might send it."""
    kind = rng.randrange(12 if depth < 3 else 8)
    if kind < 8:
        simple = [None, True, "", TEXT, rng.randrange(-3, 300), 1 << 40, rng.randbytes(16), 1.5]
        return simple[kind]
    parts = [random_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 8:
        return parts
    if kind == 9:
        return tuple(parts)
    return dict(zip((TEXT, "a", 5), parts, strict=False))


def random_frame(rng: random.Random) -> bytes:
    """Return a frame that looks valid, and may be so."""
    kind = rng.choice([*wire.KIND_NAMES, wire.EVENT, wire.EVENT, wire.ANNOUNCE, wire.SUBSCRIBE])
    if kind in (wire.EVENT, wire.REQUEST, wire.RESPONSE):
        type_id = struct.pack("<I", rng.choice([0, 1, 9, 9, 1 << 31]))
        identity = b"" if kind == wire.EVENT else rng.randbytes(16)
        values = b"".join(encode_value(random_value(rng)) for _ in range(rng.randrange(1, 3)))
        return raw_frame(kind, type_id + identity + bytes((rng.randrange(2),)) + values)
    if kind == wire.COMPRESSED:
        return raw_frame(kind, varint(rng.randrange(1 << 33)) + rng.randbytes(rng.randrange(20)))
    makers: dict[int, Callable[[], tuple[Any, ...]]] = {
        wire.ANNOUNCE: lambda: (rng.randrange(20), rng.choice((TEXT, "a:b")), rng.randrange(4), ()),
        wire.SUBSCRIBE: lambda: ({TEXT: rng.choice((None, 1, 0))}, (), rng.random() < 0.5),
        wire.CREDIT: lambda: (TEXT, rng.randrange(5)),
        wire.GOODBYE: lambda: (),
    }
    if rng.random() < 0.8 and kind in makers:
        return control_frame(kind, *makers[kind]())
    return value_frame(kind, random_value(rng))


@contextlib.contextmanager
def nothing_goes_off() -> Iterator[None]:
    """Make sure that no bomb goes off in the context."""
    CANARY.unlink(missing_ok=True)
    yield
    went_off = CANARY.exists()
    CANARY.unlink(missing_ok=True)
    assert not went_off
