"""The testing API: drivers, actions and runners, in one process and in several."""

import tempfile
from pathlib import Path

from lahja import BaseEvent, BaseRequestResponseEvent, ConnectionConfig, EndpointAPI
from lahja.exceptions import ConnectionAttemptRejected
from lahja.tools import drivers as d
from lahja.tools.runner import (
    AsyncioRunner,
    IsolatedHeterogenousRunner,
    IsolatedHomogenousRunner,
    RunnerAPI,
    TrioRunner,
)


class Text(BaseEvent):
    def __init__(self, text: str) -> None:
        self.text = text


class Shout(BaseRequestResponseEvent[Text]):
    def __init__(self, text: str) -> None:
        self.text = text

    @staticmethod
    def expected_response_type() -> type[Text]:
        return Text


def shout(endpoint: EndpointAPI, request: Shout) -> Text:
    return Text(request.text.upper())


def check_response(endpoint: EndpointAPI, response: Text) -> None:
    assert response.text == "HELLO"


def check_greeting(endpoint: EndpointAPI, event: Text) -> None:
    assert (event.text, event.get_origin()) == ("greeting", "client")


def run(runner: RunnerAPI) -> None:
    with tempfile.TemporaryDirectory() as directory:
        config = ConnectionConfig.from_name("server", Path(directory))
        here, there = d.checkpoint("the end")
        server = d.driver(
            d.serve_endpoint(config),
            d.wait_until_connected_to("client"),
            d.serve_request(Shout, shout),
            d.wait_for(Text, check_greeting),
            here,
        )
        client = d.driver(
            d.run_endpoint("client"),
            d.connect_to_endpoints(config),
            d.throws(d.connect_to_endpoints(config), ConnectionAttemptRejected),
            d.wait_until_any_endpoint_subscribed_to(Shout),
            d.request(Shout("hello"), on_response=check_response),
            d.wait_any_then_broadcast(Text("greeting")),
            there,
        )
        runner(client, server)


if __name__ == "__main__":
    for runner in (
        AsyncioRunner(),
        TrioRunner(),
        IsolatedHomogenousRunner(AsyncioRunner()),
        IsolatedHeterogenousRunner(AsyncioRunner(), TrioRunner()),
    ):
        run(runner)
        print(type(runner).__name__, "is done")
