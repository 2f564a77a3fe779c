"""
The floor on asyncio: a Unix stream socket, and nothing that could be left out.

The loop watches the socket for what can be read, as asyncio's own streams do; a request is pickled
with its length in front and written at once; the task that has sent it waits for a future, which
the answer resolves. The other side answers in the callback that has read the question. There are no
types, no subscriptions, no errors and no limits: whoever waits for a future in a task cannot be
quicker than this. Nor is a method that is awaited quicker than one that does nothing, or a mesh of
processes complete before all of them have started.
"""

from __future__ import annotations

import asyncio
import pickle
import platform
import socket
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from ..work import Answer, Event, Node, Question, now
from .raw_socket import connect, listen

__all__ = ["ROLES", "about"]

_LENGTH = struct.Struct("<I")
_BUFFER = 1 << 16


def about(node: Node) -> dict[str, Any]:
    """Return what runs."""
    return {"python": platform.python_version(), "implementation": "asyncio", "versions": {}}


def _packed(value: object) -> bytes:
    data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(data)) + data


def _read_objects(sock: socket.socket, take: Callable[[Any], None]) -> Callable[[], None]:
    """Return what reads once, and hands over each object that is complete."""
    data = b""

    def read() -> None:
        nonlocal data
        data += sock.recv(_BUFFER)
        start = 0
        while len(data) - start >= _LENGTH.size:
            begin = start + _LENGTH.size
            end = begin + _LENGTH.unpack_from(data, start)[0]
            if len(data) < end:
                break
            take(pickle.loads(memoryview(data)[begin:end]))
            start = end
        data = data[start:]

    return read


async def ask(node: Node) -> None:
    """Send requests, one after the other or several at once."""
    loop = asyncio.get_running_loop()
    payload = node.payload()
    times: list[float] = []
    waiting: dict[int, asyncio.Future[Any]] = {}

    async def ask_several(numbers: range) -> None:
        for number in numbers:
            asked = now()
            answered = waiting[number] = loop.create_future()
            sock.send(_packed(Question(number, time.time(), payload)))
            answer = await answered
            times.append(now() - asked)
            assert answer.number == number

    with ExitStack() as stack:
        sock = connect(node, stack)
        sock.setblocking(False)
        take = _read_objects(sock, lambda answer: waiting.pop(answer.number).set_result(answer))
        loop.add_reader(sock, take)
        await ask_several(range(node.work.warm_up))
        times.clear()
        step = node.work.in_flight
        begin = now()
        await asyncio.gather(*(ask_several(range(i, node.count, step)) for i in range(step)))
        end = now()
        loop.remove_reader(sock)
    node.report(begin=begin, end=end, times=times)


async def answer(node: Node) -> None:
    """Answer the requests."""
    loop = asyncio.get_running_loop()
    left = node.total
    finished = loop.create_future()

    def take(question: Any) -> None:
        nonlocal left
        sock.send(_packed(Answer(question.number, question.sent_at, question.payload)))
        left -= 1
        if not left:
            finished.set_result(None)

    with ExitStack() as stack:
        sock = listen(node, stack)
        sock.setblocking(False)
        loop.add_reader(sock, _read_objects(sock, take))
        await finished
        loop.remove_reader(sock)
    node.report()


class _Nobody:
    """Be an endpoint that does nothing."""

    async def broadcast(self, event: Event, config: None = None) -> None:
        pass


async def call(node: Node) -> None:
    """Wait for what is done at once."""
    endpoint = _Nobody()
    event = Event(0, time.time(), node.payload())
    for _ in range(node.work.warm_up):
        await endpoint.broadcast(event, None)
    begin = now()
    for _ in range(node.count):
        await endpoint.broadcast(event, None)
    node.report(rate=node.count / (now() - begin))


async def start(node: Node) -> None:
    """Be there, which is all that a member of a mesh cannot do without."""
    node.report(end=now())


ROLES = {
    ("ask", "asker"): lambda node: asyncio.run(ask(node)),
    ("ask", "answerer"): lambda node: asyncio.run(answer(node)),
    ("unheard", "sender"): lambda node: asyncio.run(call(node)),
    ("unheard", "bystander"): lambda node: node.report(),
    ("mesh", "member"): lambda node: asyncio.run(start(node)),
}
