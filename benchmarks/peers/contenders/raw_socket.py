"""
The floor: a Unix stream socket and blocking calls, without any library.

Events are the bare payload: one ``sendall`` for each, and ``recv_into`` one buffer as long as the
payload, or 64 KiB where that is more. Nothing is pickled, and nobody tells one event from the next.
A request is pickled with its length in front, as all the others pickle it; the answer the same. The
buffers of the socket are as the system makes them, but for payloads of 64 KiB or more: then the
sender's is asked to be as long as lahja's, with which the loop is up to twice as fast.
"""

from __future__ import annotations

import pickle
import platform
import socket
import struct
import time
from contextlib import ExitStack
from typing import Any

from ..work import Answer, Node, Question, now

__all__ = ["ROLES", "about", "connect", "listen"]

_LENGTH = struct.Struct("<I")
_BUFFER = 1 << 16
_SEND_BUFFER = 1 << 19
_PATIENCE = 10.0  # seconds


def about(node: Node) -> dict[str, Any]:
    """Return what runs."""
    return {"python": platform.python_version(), "implementation": "blocking", "versions": {}}


def listen(node: Node, stack: ExitStack) -> socket.socket:
    """Return the connection of the other process."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(node.path("socket"))
        listener.listen()
        return stack.enter_context(listener.accept()[0])


def connect(node: Node, stack: ExitStack) -> socket.socket:
    """Return a connection to the process that listens, or will do so soon."""
    sock = stack.enter_context(socket.socket(socket.AF_UNIX))
    deadline = now() + _PATIENCE
    while True:
        try:
            sock.connect(node.path("socket"))
            return sock
        except (FileNotFoundError, ConnectionRefusedError):  # the other process is not ready
            if now() > deadline:
                raise
            time.sleep(0.01)


def send(node: Node) -> None:
    """Send the payload so many times."""
    payload = node.payload()
    with ExitStack() as stack:
        sock = connect(node, stack)
        if node.work.size >= _BUFFER:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        for _ in range(node.work.warm_up):
            sock.sendall(payload)
        sock.recv(1)
        begin = now()
        for _ in range(node.count):
            sock.sendall(payload)
        sock.recv(1)
    node.report(begin=begin)


def receive(node: Node) -> None:
    """Count the bytes."""
    buffer = memoryview(bytearray(max(_BUFFER, node.work.size)))

    def take(left: int) -> None:
        while left:
            received = sock.recv_into(buffer[: min(left, len(buffer))])
            assert received, "the sender has left"
            left -= received

    with ExitStack() as stack:
        sock = listen(node, stack)
        take(node.work.warm_up * node.work.size)
        sock.sendall(b".")
        take(node.count * node.work.size)
        end = now()
        sock.sendall(b".")
    node.report(end=end)


def _send_object(sock: socket.socket, value: object) -> None:
    data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    sock.sendall(_LENGTH.pack(len(data)) + data)


def _receive_object(sock: socket.socket) -> Any:
    data = sock.recv(_BUFFER)
    size = _LENGTH.size + _LENGTH.unpack_from(data)[0]
    while len(data) < size:
        data += sock.recv(_BUFFER)
    return pickle.loads(memoryview(data)[_LENGTH.size :])


def ask(node: Node) -> None:
    """Send requests, one after the other."""
    payload = node.payload()
    times = []
    with ExitStack() as stack:
        sock = connect(node, stack)
        for number in range(node.total):
            asked = now()
            _send_object(sock, Question(number, time.time(), payload))
            answer = _receive_object(sock)
            times.append(now() - asked)
            assert answer.number == number
    node.report(times=times[node.work.warm_up :])


def answer(node: Node) -> None:
    """Answer the requests."""
    with ExitStack() as stack:
        sock = listen(node, stack)
        for _ in range(node.total):
            question = _receive_object(sock)
            _send_object(sock, Answer(question.number, question.sent_at, question.payload))
    node.report()


ROLES = {
    ("stream", "sender"): send,
    ("stream", "receiver"): receive,
    ("ask", "asker"): ask,
    ("ask", "answerer"): answer,
}
