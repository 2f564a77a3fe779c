"""
pynng: ``Pair0`` sockets over ``ipc://``, with asyncio or trio (``asend`` and ``arecv``).

Events are pickled with the highest protocol. Both buffers of a socket hold as many messages as it
allows, 8,192: with the default, which is none, it is slower. Each receiver has a pair of its own
with the sender, which pickles an event once: nng's publishers drop what a subscriber has no room
for. The sender leaves when each receiver has said that it has got everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import platform
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import pynng

from ..work import Answer, Event, Node, Question, now

__all__ = ["ROLES", "about"]

_BUFFERS = {"send_buffer_size": 8192, "recv_buffer_size": 8192}
_GRACE = 0.3  # seconds; nng closes a socket at once, and drops what is in its buffer


def about(node: Node) -> dict[str, Any]:
    """Return what runs."""
    return {
        "python": platform.python_version(),
        "implementation": node.backend,
        "versions": {"pynng": metadata.version("pynng")},
    }


def _address(node: Node, index: int) -> str:
    return f"ipc://{node.path(f'socket{index}')}"


def _dumps(value: object) -> bytes:
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


async def send(node: Node) -> None:
    """Send events to all receivers."""
    payload = node.payload()
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(pynng.Pair0(listen=_address(node, index), **_BUFFERS))
            for index in range(node.work.receivers)
        ]
        for socket in sockets:
            await socket.arecv()  # it is there
        begin = 0.0
        for numbers in (range(node.work.warm_up), range(node.work.warm_up, node.total)):
            begin = now()
            for number in numbers:
                data = _dumps(Event(number, time.time(), payload))
                for socket in sockets:
                    await socket.asend(data)
            for socket in sockets:
                await socket.arecv()
    node.report(begin=begin)


async def receive(node: Node) -> None:
    """Receive them."""
    with pynng.Pair0(**_BUFFERS) as socket:
        socket.dial(_address(node, node.index), block=False)
        await socket.asend(b"ready")
        for number in range(node.work.warm_up):
            assert pickle.loads(await socket.arecv()).number == number
        await socket.asend(b"warm")
        for number in range(node.work.warm_up, node.total):
            event = pickle.loads(await socket.arecv())
            assert event.number == number
        node.report(end=now())
        assert len(event.payload) == node.work.size
        await socket.asend(b"done")
        time.sleep(_GRACE)  # noqa: ASYNC251 - there is nobody else


async def ask(node: Node) -> None:
    """Send requests, one after the other."""
    payload = node.payload()
    times = []
    with pynng.Pair0(listen=_address(node, 0), **_BUFFERS) as socket:
        for number in range(node.total):
            asked = now()
            await socket.asend(_dumps(Question(number, time.time(), payload)))
            answer = pickle.loads(await socket.arecv())
            times.append(now() - asked)
            assert answer.number == number
    node.report(times=times[node.work.warm_up :])


async def answer(node: Node) -> None:
    """Answer the requests."""
    with pynng.Pair0(**_BUFFERS) as socket:
        socket.dial(_address(node, 0), block=False)
        for _ in range(node.total):
            question = pickle.loads(await socket.arecv())
            await socket.asend(_dumps(Answer(question.number, question.sent_at, question.payload)))
        node.report()
        time.sleep(_GRACE)  # noqa: ASYNC251 - there is nobody else


def _on_loop(function: Callable[[Node], Any]) -> Callable[[Node], None]:
    def play(node: Node) -> None:
        if node.backend == "trio":
            import trio

            trio.run(function, node)
        else:
            asyncio.run(function(node))

    return play


ROLES = {
    ("stream", "sender"): _on_loop(send),
    ("stream", "receiver"): _on_loop(receive),
    ("ask", "asker"): _on_loop(ask),
    ("ask", "answerer"): _on_loop(answer),
}
