"""
eclipse-zenoh: sessions in peer mode, without a router, over Unix sockets.

Its API for Python is a blocking one. Each receiver listens on a Unix stream socket and the sender
connects to all of them; nothing is looked for on the network. TCP on the loopback is as quick for
small events and slower for large ones. Shared memory is on: zenoh itself decides for which
messages. Events are pickled with the highest protocol and put by a declared publisher that blocks
where there is no room (``CongestionControl.BLOCK``; by default it drops) and may batch, which gives
several times the throughput of ``express``. They are received by callbacks; its channels are as
quick. Requests and answers are two publishers that are ``express``, as in zenoh's own example for
latency.
"""

from __future__ import annotations

import json
import pickle
import platform
import queue
import threading
import time
from importlib import metadata
from typing import Any

import zenoh

from ..work import Answer, Event, Node, Question, now

__all__ = ["ROLES", "about"]

_PATIENCE = 60.0  # seconds


def about(node: Node) -> dict[str, Any]:
    """Return what runs."""
    return {
        "python": platform.python_version(),
        "implementation": "blocking",
        "versions": {"eclipse-zenoh": metadata.version("eclipse-zenoh")},
    }


def _dumps(value: object) -> bytes:
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def _open(listen: list[str], connect: list[str]) -> zenoh.Session:
    config = zenoh.Config()
    settings: dict[str, Any] = {
        "mode": "peer",
        "scouting/multicast/enabled": False,
        "scouting/gossip/enabled": False,
        "transport/shared_memory/enabled": True,
        "listen/endpoints": listen,
        "connect/endpoints": connect,
        "connect/timeout_ms": int(1000 * _PATIENCE),
    }
    for key, value in settings.items():
        config.insert_json5(key, json.dumps(value))
    return zenoh.open(config)


def _address(node: Node, index: int) -> str:
    return f"unixsock-stream/{node.path(f'socket{index}')}"


def _publisher(session: zenoh.Session, key: str, express: bool = False) -> zenoh.Publisher:
    return session.declare_publisher(
        key, congestion_control=zenoh.CongestionControl.BLOCK, express=express
    )


def send(node: Node) -> None:
    """Put events."""
    payload = node.payload()
    said: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def wait_for_all(word: bytes) -> None:
        missing = {word + str(index).encode() for index in range(node.work.receivers)}
        while missing:
            missing.discard(said.get(timeout=_PATIENCE))

    addresses = [_address(node, index) for index in range(node.work.receivers)]
    with _open([], addresses) as session:
        session.declare_subscriber("said", lambda sample: said.put(sample.payload.to_bytes()))
        publisher = _publisher(session, "events")
        wait_for_all(b"ready")
        for number in range(node.work.warm_up):
            publisher.put(_dumps(Event(number, time.time(), payload)))
        wait_for_all(b"warm")
        begin = now()
        for number in range(node.work.warm_up, node.total):
            publisher.put(_dumps(Event(number, time.time(), payload)))
        wait_for_all(b"done")
    node.report(begin=begin)


def receive(node: Node) -> None:
    """Get them by a callback."""
    due = 0
    end = 0.0
    failure = ""
    arriving, warm, done = threading.Event(), threading.Event(), threading.Event()

    def take(sample: zenoh.Sample) -> None:
        nonlocal due, end, failure
        event = pickle.loads(sample.payload.to_bytes())
        if event.number != due or len(event.payload) != node.work.size:
            failure = failure or f"{event.number} came instead of {due}"
        due += 1
        if due == 1:
            arriving.set()
        if due == node.work.warm_up:
            warm.set()
        if due == node.total:
            end = now()
            done.set()

    name = str(node.index).encode()
    with _open([_address(node, node.index)], []) as session:
        session.declare_subscriber("events", take)
        said = _publisher(session, "said", express=True)
        while not arriving.wait(0.05):
            said.put(b"ready" + name)
        for arrived, word in ((warm, b"warm"), (done, b"done")):
            assert arrived.wait(_PATIENCE), f"only {due} events came"
            said.put(word + name)
    assert not failure, failure
    node.report(end=end)


def ask(node: Node) -> None:
    """Put requests, one after the other."""
    payload = node.payload()
    answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    ready = threading.Event()
    times = []
    with _open([], [_address(node, 0)]) as session:
        session.declare_subscriber("said", lambda sample: ready.set())
        session.declare_subscriber("answers", lambda sample: answers.put(sample.payload.to_bytes()))
        publisher = _publisher(session, "questions", express=True)
        assert ready.wait(_PATIENCE)
        for number in range(node.total):
            asked = now()
            publisher.put(_dumps(Question(number, time.time(), payload)))
            answer = pickle.loads(answers.get(timeout=_PATIENCE))
            times.append(now() - asked)
            assert answer.number == number
    node.report(times=times[node.work.warm_up :])


def answer(node: Node) -> None:
    """Answer them in the callback."""
    asked = 0
    begun, done = threading.Event(), threading.Event()

    def reply(sample: zenoh.Sample) -> None:
        nonlocal asked
        question = pickle.loads(sample.payload.to_bytes())
        publisher.put(_dumps(Answer(question.number, question.sent_at, question.payload)))
        asked += 1
        begun.set()
        if asked == node.total:
            done.set()

    with _open([_address(node, 0)], []) as session:
        publisher = _publisher(session, "answers", express=True)
        session.declare_subscriber("questions", reply)
        said = _publisher(session, "said", express=True)
        while not begun.wait(0.05):
            said.put(b"ready")
        assert done.wait(_PATIENCE), f"only {asked} requests came"
        time.sleep(0.2)  # what is under way is dropped when the session closes
    node.report()


ROLES = {
    ("stream", "sender"): send,
    ("stream", "receiver"): receive,
    ("ask", "asker"): ask,
    ("ask", "answerer"): answer,
}
