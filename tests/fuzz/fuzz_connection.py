"""
Fuzz a whole connection: a router, its handshake, and everything that a peer may say.

An input is a program whose steps are mostly well-formed frames with odd contents, so that the
fuzzer gets behind the handshake; others are raw bytes, and what the endpoint does meanwhile. What
must hold: nothing but a protocol error comes out, what the endpoint says is made of whole frames,
and once the peer is gone nothing is left of it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any
from unittest import mock

from proxy import Side, ended_well

from lahja import BaseEvent, BaseRequestResponseEvent, protocol, wire
from lahja.compression import _snappy, has_snappy
from lahja.exceptions import EncodeError, LahjaError
from lahja.framing import Shape, encode_value
from lahja.names import name_of
from lahja.protocol import control_frame
from lahja.streams import make_mailbox, subscribe_mailbox

__all__ = ["one_input"]


@dataclass
class First(BaseEvent):
    value: Any


@dataclass
class Second(BaseEvent):
    value: Any


@dataclass
class Answer(BaseEvent):
    value: Any


@dataclass
class Question(BaseRequestResponseEvent[Answer]):
    value: Any

    @staticmethod
    def expected_response_type() -> type[Answer]:
        return Answer


TYPES: list[type[Any]] = [First, Second, Answer, Question]
NAMES = [*map(name_of, TYPES), "no.such.module:Class", "os:system", "", "x" * 4097]
FIELDS: list[tuple[Any, ...]] = [("value",), (), ("value", "more"), ("_id",), ("a", "a"), (5,)]
VALUES: list[Any] = [None, True, 0, 1, -1, 1 << 32, 1 << 70, "", "text", b"x" * 16, (), {}, 1.5]


def loads(data: Any) -> Any:
    """Stand in for pickle, which would run what the fuzzer finds."""
    data = bytes(data)
    if data[:1] == b"!":
        raise ValueError("no pickle")
    return tuple(data[: data[0] & 3]) if data else First(data)


class Program:
    """Take an input apart."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1] if self.at <= len(self.data) else 0

    def bytes(self) -> bytes:
        size = self.byte()
        self.at += size
        return self.data[self.at - size : self.at]

    def pick(self, choices: list[Any]) -> Any:
        return choices[self.byte() % len(choices)]

    def __bool__(self) -> bool:
        return self.at < len(self.data)


def frame(kind: int, rest: bytes) -> bytes:
    return struct.pack("<IB", len(rest) + 1, kind) + rest


def hello(program: Program) -> bytes:
    odd = program.byte()
    options: dict[str, Any] = {"compression": ("snappy",), "pickle": bool(odd & 1)}
    if odd & 2:
        options["max_frame_size"] = program.pick([1024, 1023, 1 << 40, "", -1])
    if odd & 4:
        options[program.pick(["main", "to", "pickle", "compression"])] = program.pick(VALUES)
    name = program.pick(["peer", "peer", "peer", "me", "", "\ud800\n"]) if odd & 8 else "peer"
    version = program.pick([1, 2, True, "1", 1 << 70]) if odd & 16 else 1
    instance = program.pick([bytes(16), bytes(15), None]) if odd & 32 else bytes(16)
    return control_frame(wire.HELLO, version, name, instance, options)


def said_frame(program: Program, side: Side) -> bytes:
    """Return a frame, as the next bytes of the program describe it."""
    step = program.byte() % 12
    if step == 0:
        return hello(program)
    if step == 1:
        return control_frame(wire.SUBSCRIBE, {}, (), True)
    if step == 2:
        added = {program.pick(NAMES): program.pick([None, 1, 2, 0, "x"])}
        removed = (program.pick(NAMES),) if program.byte() & 1 else ()
        return control_frame(wire.SUBSCRIBE, added, removed, bool(program.byte() & 1))
    if step == 3:
        odd = program.byte()
        layout = program.pick([0, 1, 2, 3]) if odd & 1 else wire.LAYOUT_FIELDS
        fields = program.pick(FIELDS) if odd & 2 else ("value",)
        return Shape(odd >> 4, program.pick(NAMES), layout, fields).announcement
    type_id = struct.pack("<I", program.byte() & 15)
    if step in (4, 5):
        payload = b"\0" + encode_value(program.pick(VALUES)) if step == 4 else program.bytes()
        return frame(wire.EVENT, type_id + payload)
    if step == 6:
        return frame(wire.REQUEST, type_id + bytes(16) + program.bytes())
    if step == 7:
        ids = [*side.router.pending, bytes(16)]
        payload = b"\0" + encode_value(program.pick(VALUES))
        return frame(wire.RESPONSE, type_id + ids[program.byte() % len(ids)] + payload)
    if step == 8:
        return control_frame(wire.CREDIT, program.pick(NAMES), program.pick([1, 2, 0, 1 << 40]))
    if step == 9:
        if program.byte() & 1:
            return control_frame(wire.ASK_STATS, program.pick([1, 0, -1, 1 << 40, ""]))
        return control_frame(wire.GOODBYE)
    if step == 10 and has_snappy():
        inner = program.bytes()
        return frame(wire.COMPRESSED, bytes(_snappy().compress(inner)) if inner else b"\0")
    return frame(program.byte() & 15, program.bytes())


def act(program: Program, side: Side, requests: list[Any]) -> None:
    """Let the endpoint do something."""
    router = side.router
    step = program.byte() % 7
    cls = program.pick(TYPES)
    try:
        if step == 0:
            side.subscribe(cls)
        elif step == 1:
            side.unsubscribe(cls)
        elif step == 2:
            router.broadcast(cls(program.pick(VALUES)), None, False)
        elif step == 3:
            requests.append(router.table.ask(Question(1), None, False, lambda: None))
        elif step == 4:
            topic = router.table.topic(cls)
            mailbox = make_mailbox(topic, None, 2, "block", lambda: None, router.logger)
            subscribe_mailbox(router, topic, mailbox)
        elif step == 5:
            router.broadcast(cls("x" * 3000 + str(1j)), None, False)
        else:
            for event in side.received[-3:]:
                if isinstance(event, Question):
                    router.broadcast(Answer(1), event.broadcast_config(), False)
    except EncodeError:
        pass  # the peer takes no frame of that size


def whole_frames(data: bytes) -> None:
    at = 0
    while at < len(data):
        size = struct.unpack_from("<I", data, at)[0]
        assert 0 < size <= len(data) - at - 4, "what the endpoint says is no whole frame"
        assert data[at + 4] in wire.KIND_NAMES
        at += 4 + size
    assert at == len(data)


def one_input(data: bytes) -> None:
    """Have one conversation."""
    if len(data) < 2:
        return
    with mock.patch.object(protocol, "loads_from", return_value=loads):
        converse(Program(data))


def converse(program: Program) -> None:
    flags = program.byte()
    side = Side("me", allow_pickle=not flags & 1, max_frame_size=1024 if flags & 2 else 1 << 20)
    if flags & 4:
        side.subscribe(*TYPES)
    side.open("peer" if flags & 8 else None)
    requests: list[Any] = []
    if not flags & 16:
        options = {"observe": True} if flags & 32 else {}
        side.hear(control_frame(wire.HELLO, 1, "peer", bytes(16), options))
        if side.connection is not None:
            side.hear(control_frame(wire.SUBSCRIBE, dict.fromkeys(NAMES[:4]), (), True))
        for type_id, name in enumerate(() if flags & 32 else NAMES[:4]):
            side.hear(Shape(type_id, name, wire.LAYOUT_FIELDS, ("value",)).announcement)
    while program and side.connection is not None and not side.connection.ended:
        step = program.byte()
        if step < 0xC0:
            side.hear(said_frame(program, side))
        elif step < 0xE0:
            act(program, side, requests)
        elif step < 0xF0:
            side.hear(program.bytes())
        else:
            whole_frames(side.said())
    if side.connection is not None:
        whole_frames(side.said())
    side.lose()
    router = side.router
    for request_id, pending in list(router.pending.items()):
        assert not pending.asked, "a request waits for an endpoint that is gone"
        del router.pending[request_id]
    for pending in requests:
        assert pending.response is None or isinstance(pending.response, Answer)
        assert pending.error is None or isinstance(pending.error, LahjaError)
    assert ended_well(router), "something is left of a peer that is gone"
    assert all(line.isprintable() for line in side.lines)
    assert all(type(event) in TYPES for event in side.received)


def seeds() -> list[bytes]:
    """Return inputs to begin with."""
    found = []
    events = b"".join(bytes((0, 4, type_id, 8)) for type_id in range(4))
    for flags in range(32):
        found.append(bytes((flags,)) + events)
        found.append(bytes((flags,)) + b"\0\0\0\0\1" + b"\0\3\0\0\0\4\0\7" + events)
    found += [bytes((4, 0, i)) + bytes((i, 1, 2, 3, 4, 5)) * 3 + events for i in range(12)]
    found += [
        bytes((4, 0xC0, action, cls, 1, 0xF0)) + events + bytes((0, 7, 2, 0, 3))
        for action in range(7)
        for cls in range(4)
    ]
    found.append(bytes((4, 0xE0, 4)) + b"\xff\xff\xff\xff")
    found += [  # an observer, which taps, asks, and leaves
        bytes((32, 0, 2, cls, 0, 0)) + bytes((0xC0, action, cls, 5)) * 3 + b"\0\x09\1\0\xf0\0\x09\0"
        for action in (2, 3, 5)
        for cls in range(4)
    ]
    return found


if __name__ == "__main__":
    from run import fuzz  # type: ignore[import-not-found]

    fuzz(__file__, one_input)
