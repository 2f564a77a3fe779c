"""
The hot path in plain Python: everything that runs once per event.

This is the specification of the compiled module ``_framing``, which has the same names in the same
order, and what runs where that module is absent. ``framing`` chooses between the two.

Its parts are modules of their own, in the order in which the compiled one has them: the codec of
plain values (``_codec_py``); the sending side, from an event to the outgoing queues of the peers
that want it (``_sending_py``); the receiving side, from a buffer that a socket fills to whoever
subscribed (``_receiving_py``). Bytes and objects go in and come out; sockets, clocks and event
loops are elsewhere. The formats are those of :mod:`lahja.wire`.

An event passes through no queue on its way in: :meth:`Reader.next_frame` takes a frame apart
where it lies in the buffer, builds the event and hands it to its consumers. On its way out it is
encoded once, and the same bytes are put into the :class:`Outlet` of every peer.
"""

from __future__ import annotations

from typing import Final

from ._codec_py import decode_value, encode_value
from ._receiving_py import EventIterator, Inlet, Mailbox, Reader
from ._sending_py import EventTable, Outlet, PendingRequest, Shape, Topic

__all__ = [
    "IMPLEMENTATION",
    "EventIterator",
    "EventTable",
    "Inlet",
    "Mailbox",
    "Outlet",
    "PendingRequest",
    "Reader",
    "Shape",
    "Topic",
    "decode_value",
    "encode_value",
]

IMPLEMENTATION: Final = "python"
"""Which of the two this is: ``"python"``, or ``"cython"`` for the compiled one."""
