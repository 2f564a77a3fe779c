"""
pyzmq: PAIR sockets over ``ipc://``, with asyncio (``zmq.asyncio``) or blocking.

Events are pickled with the highest protocol. The high-water mark is left at its default of 1,000
messages on each side: more made it no faster. One receiver has a PAIR with the sender. Several have
SUB sockets, and the sender an XPUB; it starts when all have subscribed. These have no high-water
mark, for what is above it they drop. A sender leaves when each receiver has said, by a PUSH
socket, that it has got everything. The event loop of asyncio is the standard one: with uvloop it
was no faster.
"""

from __future__ import annotations

import asyncio
import pickle
import platform
import time
from collections.abc import Callable
from typing import Any

import zmq
import zmq.asyncio

from ..work import Answer, Event, Node, Question, now

__all__ = ["ROLES", "about"]


def about(node: Node) -> dict[str, Any]:
    """Return what runs."""
    return {
        "python": platform.python_version(),
        "implementation": node.backend,
        "versions": {"pyzmq": zmq.pyzmq_version(), "libzmq": zmq.zmq_version()},
    }


def _address(node: Node, name: str = "socket") -> str:
    return f"ipc://{node.path(name)}"


def _dumps(value: object) -> bytes:
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def _open_sender(context: zmq.Context[Any], node: Node) -> Any:
    socket = context.socket(zmq.PAIR if node.work.receivers == 1 else zmq.XPUB)
    if node.work.receivers > 1:
        socket.set_hwm(0)
        socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # one message for each subscription
    socket.bind(_address(node))
    return socket


def _open_receiver(context: zmq.Context[Any], node: Node) -> Any:
    socket = context.socket(zmq.PAIR if node.work.receivers == 1 else zmq.SUB)
    if node.work.receivers > 1:
        socket.set_hwm(0)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
    socket.connect(_address(node))
    return socket


def _open_done(context: zmq.Context[Any], node: Node) -> Any:
    """Return the socket by which receivers say that they have got everything."""
    if node.role == "receiver":
        socket = context.socket(zmq.PUSH)
        socket.connect(_address(node, "done"))
    else:
        socket = context.socket(zmq.PULL)
        socket.bind(_address(node, "done"))
    return socket


# -- asyncio ---------------------------------------------------------------------------------


async def send(context: zmq.asyncio.Context, node: Node) -> None:
    """Send events."""
    payload = node.payload()
    with _open_sender(context, node) as socket, _open_done(context, node) as done:
        for _ in range(node.work.receivers if node.work.receivers > 1 else 0):
            await socket.recv()
        for number in range(node.work.warm_up):
            await socket.send(_dumps(Event(number, time.time(), payload)))
        for _ in range(node.work.receivers):
            await done.recv()
        begin = now()
        for number in range(node.work.warm_up, node.total):
            await socket.send(_dumps(Event(number, time.time(), payload)))
        for _ in range(node.work.receivers):
            await done.recv()
    node.report(begin=begin)


async def receive(context: zmq.asyncio.Context, node: Node) -> None:
    """Receive them."""
    with _open_receiver(context, node) as socket, _open_done(context, node) as done:
        for number in range(node.work.warm_up):
            assert pickle.loads(await socket.recv()).number == number
        await done.send(b"warm")
        for number in range(node.work.warm_up, node.total):
            event = pickle.loads(await socket.recv())
            assert event.number == number
        node.report(end=now())
        assert len(event.payload) == node.work.size
        await done.send(b"done")


async def ask(context: zmq.asyncio.Context, node: Node) -> None:
    """Send requests, one after the other."""
    payload = node.payload()
    times = []
    with _open_sender(context, node) as socket:
        for number in range(node.total):
            asked = now()
            await socket.send(_dumps(Question(number, time.time(), payload)))
            answer = pickle.loads(await socket.recv())
            times.append(now() - asked)
            assert answer.number == number
    node.report(times=times[node.work.warm_up :])


async def answer(context: zmq.asyncio.Context, node: Node) -> None:
    """Answer the requests."""
    with _open_receiver(context, node) as socket:
        for _ in range(node.total):
            question = pickle.loads(await socket.recv())
            response = Answer(question.number, question.sent_at, question.payload)
            await socket.send(_dumps(response))
    node.report()


# -- Blocking --------------------------------------------------------------------------------


def send_blocking(context: zmq.Context[Any], node: Node) -> None:
    """Send events."""
    payload = node.payload()
    with _open_sender(context, node) as socket, _open_done(context, node) as done:
        for _ in range(node.work.receivers if node.work.receivers > 1 else 0):
            socket.recv()
        for number in range(node.work.warm_up):
            socket.send(_dumps(Event(number, time.time(), payload)))
        for _ in range(node.work.receivers):
            done.recv()
        begin = now()
        for number in range(node.work.warm_up, node.total):
            socket.send(_dumps(Event(number, time.time(), payload)))
        for _ in range(node.work.receivers):
            done.recv()
    node.report(begin=begin)


def receive_blocking(context: zmq.Context[Any], node: Node) -> None:
    """Receive them."""
    with _open_receiver(context, node) as socket, _open_done(context, node) as done:
        for number in range(node.work.warm_up):
            assert pickle.loads(socket.recv()).number == number
        done.send(b"warm")
        for number in range(node.work.warm_up, node.total):
            event = pickle.loads(socket.recv())
            assert event.number == number
        node.report(end=now())
        assert len(event.payload) == node.work.size
        done.send(b"done")


def ask_blocking(context: zmq.Context[Any], node: Node) -> None:
    """Send requests, one after the other."""
    payload = node.payload()
    times = []
    with _open_sender(context, node) as socket:
        for number in range(node.total):
            asked = now()
            socket.send(_dumps(Question(number, time.time(), payload)))
            answer = pickle.loads(socket.recv())
            times.append(now() - asked)
            assert answer.number == number
    node.report(times=times[node.work.warm_up :])


def answer_blocking(context: zmq.Context[Any], node: Node) -> None:
    """Answer the requests."""
    with _open_receiver(context, node) as socket:
        for _ in range(node.total):
            question = pickle.loads(socket.recv())
            socket.send(_dumps(Answer(question.number, question.sent_at, question.payload)))
    node.report()


def _either(asynchronous: Callable[..., Any], blocking: Callable[..., None]) -> Callable[..., None]:
    async def in_loop(node: Node) -> None:
        with zmq.asyncio.Context() as context:
            await asynchronous(context, node)

    def play(node: Node) -> None:
        if node.backend == "asyncio":
            asyncio.run(in_loop(node))
            return
        with zmq.Context() as context:
            blocking(context, node)

    return play


ROLES = {
    ("stream", "sender"): _either(send, send_blocking),
    ("stream", "receiver"): _either(receive, receive_blocking),
    ("ask", "asker"): _either(ask, ask_blocking),
    ("ask", "answerer"): _either(answer, answer_blocking),
}
