"""
The wire format, version 1.

Two endpoints talk over a Unix stream socket. This text is all that a peer in another language
needs. Integers are little-endian.

**Frames.** A frame is an unsigned 32-bit length, then that many bytes: the *body*. The first byte
of the body is the frame's *kind*. A body has at least one byte. Until a peer has said hello its
frames have at most ``HELLO_LIMIT`` bytes; after that, at most what the receiver announced as
``max_frame_size``. A longer one ends the connection, from its length alone. So does one of the
kinds that hold a tuple (see below) with more than ``CONTROL_LIMIT`` bytes.

**Values.** What is sent is made of *plain values*: a tag byte, then what the tag says.

====== ============================ ==========================================================
tag    value                        what follows
====== ============================ ==========================================================
``N``  None                         nothing
``T``  True                         nothing
``F``  False                        nothing
``b``  integer                      1 byte, signed
``i``  integer                      4 bytes, signed
``q``  integer                      8 bytes, signed
``I``  integer of any size          u32 length, then that many bytes, two's complement
``d``  floating-point number        8 bytes, IEEE 754; every bit counts
``s``  text                         u8 length, then UTF-8
``S``  text                         u32 length, then UTF-8
``U``  text with lone surrogates    u32 length, then UTF-8 in which surrogates are encoded too
``y``  bytes                        u8 length, then the bytes
``Y``  bytes                        u32 length, then the bytes
``(``  tuple                        u32 count, then the elements
``[``  list                         u32 count, then the elements
``{``  dict                         u32 count, then key and value of each item, in their order
``<``  set                          u32 count, then the elements
``>``  frozenset                    u32 count, then the elements
====== ============================ ==========================================================

Only objects of exactly these types are plain; an instance of a subclass is not. Containers nest
at most ``MAX_DEPTH`` deep. A number may be sent in any form that holds it; the smallest is usual.

**Kinds.** HELLO, REJECT, SUBSCRIBE, ANNOUNCE, CREDIT, GOODBYE, ASK_STATS and STATS have one plain
value, a tuple, as the rest of their body:

HELLO ``(version, name, instance, options)``
    ``version`` is ``PROTOCOL_VERSION``. ``name`` is the endpoint's name. ``instance`` is 16 random
    bytes, new for each run. ``options`` is a dict from text to plain values; unknown ones are
    ignored. Known: ``"compression"``, the names of the compressions that the sender can undo, a
    tuple of text (``"snappy"``); ``"pickle"``, whether it accepts pickled payloads;
    ``"max_frame_size"``, the longest body that it accepts; ``"main"``, the real name of the module
    that its Python calls ``__main__``; ``"path"``, the absolute path of the socket at which the
    sender serves, if it does; ``"to"``, in the hello of the connecting side, the name of the
    endpoint that it means to reach; ``"observe"``, True where it only observes (see below).
REJECT ``(code, reason)``
    The accepting side's answer to a HELLO that it refuses; it closes the connection after it.
    ``code`` is one of the ``REJECT_…`` constants, ``reason`` a sentence for people.
SUBSCRIBE ``(added, removed, complete)``
    ``removed`` is a tuple of event type names, ``added`` a dict from such names to a window or
    None; what is removed is so before the others are added.
    A window is how many events of that type may be sent before a CREDIT. A name that is added
    again has its window replaced. ``complete`` is True in the last SUBSCRIBE of the handshake.
ANNOUNCE ``(type_id, name, layout, fields)``
    Gives an event type and one set of fields a number, for this connection and direction.
    ``fields`` is a tuple of text. An id is announced once. A peer announces and subscribes to at
    most ``MAX_TYPES`` types, by frames and names of at most ``MAX_NAMES_SIZE`` bytes in all.
CREDIT ``(name, count)``
    Allows ``count`` further events of a type for which there is a window.
GOODBYE ``()``
    The sender leaves on purpose. It sends nothing after it, and closes the connection.
ASK_STATS ``(number,)``
    Asks the receiver for its statistics. ``number``, of at most 32 bits, ties the answer to it.
STATS ``(number, answer)``
    The answer: a dict from text to plain values (what :class:`lahja.stats.EndpointStats` has, by
    the same names), or a text that says why there is none. Who is of another user gets none, and
    who asks very often gets not all. Rows that would make the frame too long are left out.

The others have a fixed layout:

EVENT ``u32 type_id, payload``
    An event of a type that was announced.
REQUEST ``u32 type_id, 16 bytes request id, payload``
    An event that asks for a response.
RESPONSE ``u32 type_id, 16 bytes request id, payload``
    The response to that request.
COMPRESSED ``data``
    Another body, of any kind but this one, compressed with snappy (raw format, not framed).
TRACED ``u16 size, context, body``
    The body of an EVENT or REQUEST that belongs to a trace. ``context`` takes ``size`` bytes: one
    plain value, a dict from text to text, with the fields of W3C Trace Context (``"traceparent"``)
    and whatever else the sender's propagators set. Who keeps no traces ignores it.
TAPPED ``u32 lost, u32 elsewhere, u32 here, body``
    For observers: the body of the EVENT, REQUEST or RESPONSE that the sender has just broadcast,
    to so many endpoints ``elsewhere`` and so many handlers and streams ``here``. ``lost`` is how
    many the observer was to get since the last TAPPED and did not get. The payload is missing
    where it is long, or the event did not leave the sender and is not made of plain values. There
    is no body where there is nothing to tell but what was lost.

**Payloads.** The first byte is ``PLAIN`` or ``PICKLED``. What follows depends on the announced
layout.

* ``LAYOUT_FIELDS``: the values of the announced fields in their order. Plain: one plain value
  after the other. Pickled: a pickle of the tuple of the values.
* ``LAYOUT_MAPPING``: no field is announced; the same with one value, a dict from field names to
  values.
* ``LAYOUT_WHOLE``: no field is announced; always pickled: the event object itself.

What an endpoint did not ask for it does not decode, and nothing but a payload is ever unpickled.

**Event types** go by name: ``module:qualified.name``. The main module of a Python program goes by
its real name where it was started with ``-m``, otherwise by ``__main__``.

**The conversation.** The connecting side sends HELLO, and at once one or more SUBSCRIBE. The
accepting side waits for all of these, then sends its HELLO and its SUBSCRIBE, or REJECT. From
then on each side sends SUBSCRIBE when its subscriptions change, ANNOUNCE before the first event
of a type id, and events. Two endpoints that connect to each other at the same moment keep the
connection that was begun by the one with the greater instance id; the other is rejected.

**Observers.** A peer whose HELLO has ``"observe"`` is no member of the bus. It is not among those
that are connected, whatever it is called, and may have a name that is taken, even the receiver's.
It must be of the receiver's user, or root. It sends SUBSCRIBE, ASK_STATS and GOODBYE, and nothing
else, and gets no event but as a TAPPED: a copy of each that the receiver broadcasts under a name
to which it is subscribed, those excepted that must not leave the receiver. There a name may be a
pattern, in which ``*`` stands for any text, ``?`` for any character, and ``[…]`` for one of those
that it lists; at most ``MAX_PATTERNS`` of them. Windows are ignored: nobody waits for an observer.
What is broadcast while it does not read is lost to it.

The old lahja began with a pickle, whose first byte is 0x80: a kind that is never used here.
"""

from __future__ import annotations

import struct
from typing import Final

__all__ = [
    "ANNOUNCE",
    "ASK_STATS",
    "COMPRESSED",
    "COMPRESS_MINIMUM",
    "CONTROL_LIMIT",
    "CREDIT",
    "EVENT",
    "FIRST_BYTE_OF_A_PICKLE",
    "GOODBYE",
    "HELLO",
    "HELLO_LIMIT",
    "ID_SIZE",
    "INSTANCE_SIZE",
    "KIND_NAMES",
    "LAYOUT_FIELDS",
    "LAYOUT_MAPPING",
    "LAYOUT_WHOLE",
    "LENGTH_SIZE",
    "MAX_DEPTH",
    "MAX_FIELDS_SIZE",
    "MAX_FRAME_SIZE",
    "MAX_LENGTH",
    "MAX_NAME_LENGTH",
    "MAX_NAMES_SIZE",
    "MAX_PATTERNS",
    "MAX_PLAIN_CONTAINERS",
    "MAX_SHAPES",
    "MAX_TYPES",
    "PICKLED",
    "PLAIN",
    "PROTOCOL_VERSION",
    "REJECT",
    "REJECT_CONNECTED",
    "REJECT_NAME",
    "REJECT_OBSERVERS",
    "REJECT_SIMULTANEOUS",
    "REJECT_USER",
    "REJECT_VERSION",
    "REQUEST",
    "RESPONSE",
    "STATS",
    "SUBSCRIBE",
    "TAPPED",
    "TAPPED_SIZE",
    "TRACED",
    "payload_offset",
]

PROTOCOL_VERSION: Final = 1
"""What a HELLO says, and another version than one's own is refused for."""

LENGTH_SIZE: Final = struct.calcsize("<I")
"""Bytes of the length in front of a body."""

ID_SIZE: Final = 16
"""Bytes of the request id in a REQUEST and a RESPONSE."""

TAPPED_SIZE: Final = struct.calcsize("<BIII")
"""Bytes of a TAPPED before the body of the event."""

INSTANCE_SIZE: Final = 16
"""Bytes of the instance id in a HELLO."""

MAX_LENGTH: Final = 2**32 - 1
"""The most bytes of a body that a length can announce."""

MAX_NAME_LENGTH: Final = 4096
"""The most characters in the name of an endpoint or of an event type."""

MAX_FRAME_SIZE: Final = 256 * 1024 * 1024
"""The most bytes of a body that an endpoint accepts, unless it is told otherwise."""

HELLO_LIMIT: Final = 64 * 1024
"""The most bytes of a body that are accepted from a peer that has not said hello yet."""

CONTROL_LIMIT: Final = 4 * 1024 * 1024
"""The most bytes of a body that holds a tuple."""

MAX_DEPTH: Final = 100
"""The most levels of containers in a plain value."""

MAX_TYPES: Final = 100_000
"""The most type ids, and the most subscriptions, that one peer may announce."""

MAX_NAMES_SIZE: Final = 16 * 1024 * 1024
"""The most bytes of announcements, and the most characters of subscriptions, that are kept."""

MAX_PATTERNS: Final = 256
"""The most subscriptions of an observer."""

MAX_SHAPES: Final = 32
"""The most sets of fields of one class that get a type id each; after that it is a mapping."""

MAX_PLAIN_CONTAINERS: Final = 1_000
"""The most containers, plus KiB and 1024 elements in them, sent plain where they may be pickled:
pickling keeps shared parts shared, so that it does not grow without bound, and is fast by then."""

MAX_FIELDS_SIZE: Final = 64 * 1024
"""The most characters in the names of a shape's fields; where there are more it is a mapping."""

COMPRESS_MINIMUM: Final = 1024
"""The shortest body that it is worth trying to compress."""

HELLO: Final = 0x01
"""The kind of the introduction of an endpoint."""

REJECT: Final = 0x02
"""The kind of the refusal of a connection."""

SUBSCRIBE: Final = 0x03
"""The kind of a change of subscriptions."""

ANNOUNCE: Final = 0x04
"""The kind of a new type id."""

EVENT: Final = 0x05
"""The kind of an event."""

REQUEST: Final = 0x06
"""The kind of an event that asks for a response."""

RESPONSE: Final = 0x07
"""The kind of the response to a request."""

COMPRESSED: Final = 0x08
"""The kind of another body, compressed."""

CREDIT: Final = 0x09
"""The kind of the leave to send further events."""

GOODBYE: Final = 0x0A
"""The kind of the end of a connection on purpose."""

ASK_STATS: Final = 0x0B
"""The kind of a question for statistics."""

STATS: Final = 0x0C
"""The kind of the answer to it."""

TAPPED: Final = 0x0D
"""The kind of a copy of an event, for an observer."""

TRACED: Final = 0x0E
"""The kind of an event or request that belongs to a trace."""

FIRST_BYTE_OF_A_PICKLE: Final = 0x80
"""What the first frame of the old lahja begins with."""

KIND_NAMES: Final = {
    HELLO: "HELLO",
    REJECT: "REJECT",
    SUBSCRIBE: "SUBSCRIBE",
    ANNOUNCE: "ANNOUNCE",
    EVENT: "EVENT",
    REQUEST: "REQUEST",
    RESPONSE: "RESPONSE",
    COMPRESSED: "COMPRESSED",
    CREDIT: "CREDIT",
    GOODBYE: "GOODBYE",
    ASK_STATS: "ASK_STATS",
    STATS: "STATS",
    TAPPED: "TAPPED",
    TRACED: "TRACED",
}
"""The name of each kind, for people."""

PLAIN: Final = 0
"""The first byte of a payload of plain values."""

PICKLED: Final = 1
"""The first byte of a payload that is a pickle."""

LAYOUT_FIELDS: Final = 0
"""The layout of a payload that has the values of the announced fields."""

LAYOUT_MAPPING: Final = 1
"""The layout of a payload that has a dict of all fields."""

LAYOUT_WHOLE: Final = 2
"""The layout of a payload that is the pickled event."""

REJECT_VERSION: Final = "version"
"""The code of a refusal because the peer speaks another version of the protocol, or another one."""

REJECT_USER: Final = "user"
"""The code of a refusal because the process belongs to another user."""

REJECT_NAME: Final = "name"
"""The code of a refusal because of a name: it is unusable, or not the one that was meant."""

REJECT_CONNECTED: Final = "connected"
"""The code of a refusal because an endpoint of the name is connected."""

REJECT_SIMULTANEOUS: Final = "simultaneous"
"""The code of a refusal because the two have just connected to each other the other way round."""

REJECT_OBSERVERS: Final = "observers"
"""The code of a refusal because too many observers are connected."""


def payload_offset(kind: int) -> int:
    """Return where the payload begins in the body of an EVENT, a REQUEST or a RESPONSE."""
    return 5 if kind == EVENT else 5 + ID_SIZE
