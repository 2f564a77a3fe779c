"""
``multiprocessing.Queue()``: a pipe behind a lock, with a thread that feeds it, and blocking calls.

The sender makes the queue, without a bound, and starts the receiver by spawn. It calls
``put(event)``, the receiver ``get()``. Requests go through one queue, answers through another one.
"""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.queues import Queue
from typing import Any

from ..work import Answer, Event, Node, Question, now
from .multiprocessing_pipe import about

__all__ = ["ROLES", "about"]

_spawn = multiprocessing.get_context("spawn")


def _receive(queue: Queue[Any], results: Queue[Any], warm_up: int, count: int) -> None:
    for number in range(warm_up):
        assert queue.get().number == number
    results.put(None)
    for number in range(warm_up, warm_up + count):
        assert queue.get().number == number
    results.put(now())


def stream(node: Node) -> None:
    """Start the receiver, and put events into the queue."""
    payload = node.payload()
    queue: Queue[Any] = _spawn.Queue()
    results: Queue[Any] = _spawn.Queue()
    arguments = (queue, results, node.work.warm_up, node.count)
    other = _spawn.Process(target=_receive, args=arguments, daemon=True)
    other.start()
    for number in range(node.work.warm_up):
        queue.put(Event(number, time.time(), payload))
    results.get()
    begin = now()
    for number in range(node.work.warm_up, node.total):
        queue.put(Event(number, time.time(), payload))
    end = results.get()
    other.join()
    node.report(begin=begin, end=end)


def _answer(questions: Queue[Any], answers: Queue[Any], count: int) -> None:
    for _ in range(count):
        question = questions.get()
        answers.put(Answer(question.number, question.sent_at, question.payload))


def ask(node: Node) -> None:
    """Start the other process, and send it requests, one after the other."""
    payload = node.payload()
    questions: Queue[Any] = _spawn.Queue()
    answers: Queue[Any] = _spawn.Queue()
    other = _spawn.Process(target=_answer, args=(questions, answers, node.total), daemon=True)
    other.start()
    times = []
    for number in range(node.total):
        asked = now()
        questions.put(Question(number, time.time(), payload))
        answer = answers.get()
        times.append(now() - asked)
        assert answer.number == number
    other.join()
    node.report(times=times[node.work.warm_up :])


ROLES = {("stream", "alone"): stream, ("ask", "alone"): ask}
