"""
What the drivers of the tests do: in a module that processes can import, however they are started.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from typing import Any

from lahja import BaseEvent, BaseRequestResponseEvent, ConnectionConfig, EndpointAPI
from lahja.tools import drivers as d
from lahja.tools.engine import Driver, EngineAPI


@dataclass
class Greeting(BaseEvent):
    text: str = "hello"


@dataclass
class Answer(BaseEvent):
    number: int


@dataclass
class Question(BaseRequestResponseEvent[Answer]):
    number: int

    @staticmethod
    def expected_response_type() -> type[Answer]:
        return Answer


class Boom(Exception):
    """Be raised by a driver."""


class CannotBePickled(Exception):
    """Be raised by a driver in another process, and not fit through the pipe."""

    def __reduce__(self) -> Any:
        raise TypeError("not me")


class CannotBeUnpickled(Exception):
    """Be raised by a driver in another process, and not come out of the pipe."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def double(endpoint: EndpointAPI, question: Question) -> Answer:
    return Answer(question.number * 2)


def raise_boom(*args: Any) -> None:
    raise Boom("this driver is broken")


def server_and_client(config: ConnectionConfig) -> tuple[Driver, Driver]:
    """Return two drivers that do a bit of everything."""
    server_meets, client_meets = d.checkpoint("greeted")
    server = d.driver(
        d.serve_endpoint(config),
        d.wait_until_connected_to("client"),
        d.wait_for(Greeting),
        server_meets,
        d.serve_request(Question, double),
    )
    client = d.driver(
        d.run_endpoint("client"),
        d.connect_to_endpoints(config),
        d.wait_any_then_broadcast(Greeting()),
        client_meets,
        d.wait_until_any_endpoint_subscribed_to(Question),
        d.request(Question(21), on_response=check_answer),
    )
    return server, client


def check_answer(endpoint: EndpointAPI, answer: Answer) -> None:
    if answer.number != 42:
        raise AssertionError(f"the answer is {answer}")


def note_pid(engine: EngineAPI, endpoint: EndpointAPI, to: Any, at: int) -> None:
    to[at] = os.getpid()


def raise_awkwardly(engine: EngineAPI, endpoint: EndpointAPI, which: str) -> None:
    if which == "pickle":
        raise CannotBePickled("too big")
    if which == "unpickle":
        raise CannotBeUnpickled(1, 2)
    if which == "exit":
        sys.exit("enough")
    os.kill(os.getpid(), signal.SIGKILL)


def ignore_interrupts(engine: EngineAPI, endpoint: EndpointAPI) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
