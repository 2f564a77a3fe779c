"""
``multiprocessing.Pipe()``: two connected sockets and blocking calls.

The sender makes the pipes and starts the receivers, by spawn, as users of multiprocessing do. With
one receiver it calls ``send(event)``, which pickles. With several it pickles once and gives each
pipe the same bytes, which is what they do for whom the pickling of each event counts.
"""

from __future__ import annotations

import multiprocessing
import platform
import time
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

from ..work import Answer, Event, Node, Question, now

__all__ = ["ROLES", "about"]

_spawn = multiprocessing.get_context("spawn")


def about(node: Node) -> dict[str, Any]:
    """Return what runs."""
    return {"python": platform.python_version(), "implementation": "blocking", "versions": {}}


def _receive(connection: Connection, warm_up: int, count: int, size: int) -> None:
    receive = connection.recv
    for number in range(warm_up):
        assert receive().number == number
    connection.send(None)
    for number in range(warm_up, warm_up + count):
        event = receive()
        assert event.number == number
    connection.send(now())
    assert len(event.payload) == size


def stream(node: Node) -> None:
    """Start the receivers, and send them events."""
    payload = node.payload()
    pipes = [_spawn.Pipe() for _ in range(node.work.receivers)]
    others = [
        _spawn.Process(
            target=_receive, args=(end, node.work.warm_up, node.count, node.work.size), daemon=True
        )
        for _, end in pipes
    ]
    for other in others:
        other.start()
    connections = [connection for connection, _ in pipes]
    _send(connections, payload, range(node.work.warm_up))
    for connection in connections:
        connection.recv()
    begin = now()
    _send(connections, payload, range(node.work.warm_up, node.total))
    ends = [connection.recv() for connection in connections]
    for other in others:
        other.join()
    node.report(begin=begin, end=max(ends))


def _send(connections: list[Connection], payload: bytes, numbers: range) -> None:
    if len(connections) == 1:
        send = connections[0].send
        for number in numbers:
            send(Event(number, time.time(), payload))
    else:
        senders = [connection.send_bytes for connection in connections]
        for number in numbers:
            data = ForkingPickler.dumps(Event(number, time.time(), payload))
            for send_bytes in senders:
                send_bytes(data)


def _answer(connection: Connection, count: int) -> None:
    for _ in range(count):
        question = connection.recv()
        connection.send(Answer(question.number, question.sent_at, question.payload))


def ask(node: Node) -> None:
    """Start the other process, and send it requests, one after the other."""
    payload = node.payload()
    connection, end = _spawn.Pipe()
    other = _spawn.Process(target=_answer, args=(end, node.total), daemon=True)
    other.start()
    times = []
    for number in range(node.total):
        asked = now()
        connection.send(Question(number, time.time(), payload))
        answer = connection.recv()
        times.append(now() - asked)
        assert answer.number == number
    other.join()
    node.report(times=times[node.work.warm_up :])


ROLES = {("stream", "alone"): stream, ("ask", "alone"): ask}
