"""
Fuzz the compiled half of the hot path against its plain-Python twin.

Both get the same input, and must do the same: events, errors and their texts, the bytes that are
left over. An input is a small program: its first byte chooses what is tried, the rest are the
bytes for it. A stream is made of units of which most are frames with the right length, so that a
mutation of one byte does not hide all that follows.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from types import ModuleType
from typing import Any

from framing_helpers import (
    Empty,
    Event,
    Frozen,
    FrozenSlotted,
    Guarded,
    Half,
    Plain,
    Reduced,
    Request,
    Shadowed,
    Slotted,
    load,
    state_of,
)

from lahja import wire
from lahja.exceptions import DecodeError, EncodeError, LahjaError
from lahja.frames import APART
from lahja.layouts import set_by_descriptor
from lahja.names import name_of

__all__ = ["Difference", "one_input"]

CLASSES: list[tuple[type[Any], tuple[str, ...]]] = [
    (Empty, ()),
    (Event, ("a",)),
    (Event, ("", "__class__", "__dict__", "get_origin", "ä\ud800")),
    (Plain, ("number", "text", "data")),
    (Frozen, ("number", "text")),
    (Slotted, ("number", "text")),
    (FrozenSlotted, ("number", "texts")),
    (Half, ("_Half__private", "empty", "kept", "other")),
    (Guarded, ("value",)),
    (Shadowed, ("value", "settable")),
    (Request, ("question",)),
    (Reduced, ("value",)),
]
LONG = bytes(range(256)) * (APART // 256)
NAMES = {name_of(cls): cls for cls, _ in CLASSES}
SHAPES: dict[int, tuple[type[Any], int, tuple[str, ...]]] = {
    16 * layout + index: (cls, layout, () if layout else fields)
    for index, (cls, fields) in enumerate(CLASSES)
    for layout in (wire.LAYOUT_FIELDS, wire.LAYOUT_MAPPING, wire.LAYOUT_WHOLE)
}


class Difference(AssertionError):
    """Report that the twins do not do the same."""


def canonical(value: Any) -> Any:
    """Return what two values have in common exactly where they are alike to the type and bit."""
    kind = type(value)
    if kind is float:
        return "float", struct.pack("<d", value)
    if kind in (tuple, list):
        return kind.__name__, [canonical(part) for part in value]
    if kind is dict:
        return "dict", [(canonical(key), canonical(item)) for key, item in value.items()]
    if kind in (set, frozenset):
        return kind.__name__, sorted(repr(canonical(part)) for part in value)
    if kind in NAMES.values():
        return kind.__name__, canonical(state_of(value))
    return kind.__name__, value


def said(error: BaseException) -> tuple[str, str]:
    return type(error).__name__, str(error)


def loads(data: Any) -> Any:
    """Stand in for pickle, which would run what the fuzzer finds."""
    data = bytes(data)
    if data[:1] == b"!":
        raise ValueError("no pickle")
    if data[:1] == b"e":
        return Reduced(data)
    return tuple(data[1 : 1 + (data[0] & 7)]) if data else None


class Twin:
    """Be one of the two implementations, with a reader that is subscribed to everything."""

    def __init__(self, implementation: str) -> None:
        self.module: ModuleType = load(implementation)
        self.topics = {name: self.module.Topic(cls) for name, cls in NAMES.items()}
        self.seen: list[Any] = []
        self.consumers: tuple[Any, ...] = ()

    def deliver(self, event: Any, local: bool) -> None:
        self.seen.append(("event", local, canonical(event)))

    def on_error(self, inlet: Any, error: DecodeError) -> None:
        self.seen.append(("lost", inlet.name, said(error)))

    def inlet(self, type_id: int) -> Any:
        """Return a class in a layout, as a number stands for them; None where it does not."""
        if type_id not in SHAPES:
            return None
        cls, layout, fields = SHAPES[type_id]
        return self.module.Inlet(type_id, name_of(cls), layout, fields)

    def subscribe(self, consumers: tuple[Any, ...]) -> None:
        if consumers != self.consumers:
            self.consumers = consumers
            for topic in self.topics.values():
                topic.consumers = consumers

    def values(self, data: bytes) -> Any:
        """Decode one value, and encode it again."""
        try:
            value, end = self.module.decode_value(data, data[0] & 1 if data else 0)
        except DecodeError as error:
            return said(error)
        try:
            encoded = self.module.encode_value(value)
        except EncodeError as error:
            return canonical(value), end, said(error)
        again, _ = self.module.decode_value(encoded)
        if canonical(again) != canonical(value):
            raise Difference(f"{value!r} becomes {again!r}")
        return canonical(value), end, encoded

    def payload(self, data: bytes) -> Any:
        """Build one event."""
        index = data[0] % 48 if data else 0
        inlet = self.inlet(index) or self.inlet(3)
        cls = NAMES[inlet.name]
        results = []
        for _ in range(2):  # the second time is another way through the compiled module
            try:
                event = inlet.build(cls, data, 1, "peer", b"id" if index & 1 else None, loads)
                results.append(canonical(event))
            except LahjaError as error:
                results.append(said(error))
        return results

    def encode(self, data: bytes) -> Any:
        """Send an event of values that are decoded first."""
        index = data[0] % len(CLASSES) if data else 0
        cls, fields = CLASSES[index]
        outlet = self.module.Outlet(lambda: None, 1 << 40)
        outlet.threshold = 1 << 40
        table = self.module.EventTable("me", False, lambda topic: None)
        results: list[Any] = []
        offset = 1
        for _ in range(3):
            event = object.__new__(cls)
            try:
                for field, is_slot in zip(fields, set_by_descriptor(cls, fields), strict=True):
                    value, offset = self.module.decode_value(data, offset)
                    if is_slot:
                        object.__setattr__(event, field, value)
                    else:
                        event.__dict__[field] = value
            except DecodeError:
                pass  # then the event has fewer attributes
            table.topic(cls).outlets = (outlet,)
            try:
                results.append(table.publish(event))
            except LahjaError as error:
                results.append(said(error))
            results.append(b"".join(outlet.take()))
        return results

    def stream(self, data: bytes) -> Any:
        """Read a stream, in pieces."""
        head, program = data[:2].ljust(2, b"\0"), data[2:]
        flags, piece = head
        limit = (64, 1024, wire.MAX_FRAME_SIZE, wire.MAX_LENGTH)[flags & 3]
        reader = self.module.Reader(limit, self.on_error)
        reader.origin = "peer"
        reader.find_topic = self.topics.get
        text, type_ids = unrolled(program)
        inlets = {type_id: self.inlet(type_id) for type_id in type_ids if type_id in SHAPES}
        reader.inlets = None if flags & 4 else inlets
        reader.loads = None if flags & 8 else loads
        self.subscribe(() if flags & 16 else (self, self) if flags & 32 else (self,))
        self.seen = []
        size = max(piece + 1 if piece < 250 else len(text) + 1, len(text) // 256)
        try:
            for start in range(0, len(text), size):
                part = memoryview(text)[start : start + size]
                while part:
                    with reader.get_buffer() as room:
                        count = min(len(room), len(part))
                        room[:count] = part[:count]
                    reader.buffer_updated(count)
                    part = part[count:]
                    self.take_frames(reader)
            reader.end()
        except LahjaError as error:
            self.seen.append(said(error))
            try:
                reader.next_frame()
            except LahjaError as again:
                self.seen.append(said(again))
        return self.seen, reader.pending

    def take_frames(self, reader: Any) -> None:
        while (body := reader.next_frame()) is not None:
            kept = bytes(body)
            self.seen.append(kept)
            if kept[0] == wire.COMPRESSED:
                self.seen.append(reader.dispatch(kept[1:]) if len(kept) > 1 else None)


def unrolled(program: bytes) -> tuple[bytes, set[int]]:
    """Return the stream that a program stands for, and the numbers that may be type ids in it."""
    out = []
    type_ids = {0, 3}
    at = 0
    while at < len(program):
        size = program[at]
        if size < 0xF0:
            body = program[at + 1 : at + 1 + size]
            out.append(struct.pack("<I", len(body)) + body)
            type_ids.update(body[1:3])
            at += 1 + size
        elif size == 0xF0:  # an event with a long value, and with something around it
            kind, type_id, around = program[at + 1 : at + 4].ljust(3, b"\0")
            before = program[at + 4 : at + 4 + (around & 15)]
            behind = program[at + 4 + len(before) : at + 4 + len(before) + (around >> 4)]
            value = b"Y" + struct.pack("<I", APART) + LONG
            ids = struct.pack("<BI", kind, type_id) + bytes(16 * (kind != wire.EVENT))
            body = ids + b"\0" + before + value + behind
            out.append(struct.pack("<I", len(body)) + body)
            type_ids.add(type_id)
            at += 4 + len(before) + len(behind)
        else:
            out.append(program[at + 1 : at + 1 + (size & 15)])
            at += 1 + (size & 15)
    return b"".join(out), type_ids


TWINS = Twin("python"), Twin("cython")
TRIALS: list[Callable[[Twin, bytes], Any]] = [
    Twin.stream,
    Twin.values,
    Twin.payload,
    Twin.encode,
    Twin.stream,
    Twin.payload,
]


def one_input(data: bytes) -> None:
    """
    Try one input.

    :raise Difference: where the twins differ
    """
    if not data:
        return
    trial = TRIALS[data[0] % len(TRIALS)]
    specified, compiled = (trial(twin, data[1:]) for twin in TWINS)
    if specified != compiled:
        raise Difference(f"{trial.__name__}\n{specified!r}\n{compiled!r}")


def seeds() -> list[bytes]:
    """Return inputs to begin with."""
    module = TWINS[0].module
    values: list[Any] = [
        None, True, 5, -200, 1 << 40, 1 << 90, 1.5, "text", "ä\ud800", b"bytes", "x" * 300,
        (1, [2, {3: {4}}], frozenset((5,))), {"a": 1, "kept": (), "text": ""}, [[[[]]]],
    ]  # fmt: skip
    encoded = [module.encode_value(value) for value in values]
    found = [bytes((1,)) + each for each in encoded]
    frames = []
    for index, (_, fields) in enumerate(CLASSES):
        payload = b"".join(encoded[(index + i) % len(encoded)] for i in range(len(fields)))
        found.append(bytes((2, index)) + b"\0" + payload)
        found.append(bytes((2, index)) + b"\1" + bytes((len(fields),)) * 8)
        found.append(bytes((2, 16 + index)) + b"\0" + encoded[12])
        found.append(bytes((2, 32 + index)) + b"\1e")
        found.append(bytes((3, index)) + payload * 3)
        frames.append(struct.pack("<BI", wire.EVENT, index) + b"\0" + payload)
    frames.append(struct.pack("<BI", wire.REQUEST, 10) + bytes(16) + b"\0" + encoded[7])
    frames.append(bytes((wire.COMPRESSED,)) + frames[1])
    frames.append(b"\x0a(\0\0\0\0")
    program = b"".join(bytes((len(frame),)) + frame for frame in frames if len(frame) < 0xF0)
    found += [
        bytes((0, flags, piece)) + program for flags in (2, 6, 10, 18, 35) for piece in (0, 6, 255)
    ]
    for kind, index, around, part in (
        (wire.EVENT, 3, 5, b"b\5s\1x"),
        (wire.REQUEST, 10, 0, b""),
        (wire.EVENT, 3, 0x72, b"NN[\1\0\0\0N?"),
        (wire.RESPONSE, 1, 0x16, b"<\1\0\0\0NN"),
    ):
        long = bytes((0xF0, kind, index, around)) + part
        found += [bytes((0, 2, piece)) + long + program for piece in (0, 249, 255)]
    found.append(b"\0\2\xff" + b"\xf4\xff\xff\xff\xff")
    found.append(b"\0\2\xff" + b"\xf4\0\0\0\0")
    return found


if __name__ == "__main__":
    from run import fuzz  # type: ignore[import-not-found]

    fuzz(__file__, one_input)
