"""
Every name that the documentation of the system that we implement names, under its path.

The tests find each of them in the package; Sphinx finds each of them in the API reference.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = ["DOCUMENTED", "Documented", "parse"]

# Each paragraph is a path, with its bases behind a colon, and what is documented below it; the
# signatures are the documented ones, without annotations.
DOCUMENTED = """
lahja.base.EndpointAPI : abc.ABC
    are_all_endpoints_subscribed_to(event_type)
    broadcast(item, config=None)
    broadcast_nowait(item, config=None)
    connect_to_endpoints(*endpoints)
    get_connected_endpoints_and_subscriptions()
    get_subscribed_events()
    is_any_endpoint_subscribed_to(event_type)
    is_connected_to(endpoint_name)
    is_endpoint_subscribed_to(remote_endpoint, event_type)
    request(item, config=None)
    run()
    classmethod serve(config)
    stream(event_type, num_events=None)
    subscribe(event_type, handler)
    wait_for(event_type)
    wait_until_all_endpoints_subscribed_to(event, *, include_self=True)
    wait_until_any_endpoint_subscribed_to(event)
    wait_until_connected_to(endpoint_name)
    wait_until_connections_change()
    wait_until_endpoint_subscribed_to(remote_endpoint, event)
    wait_until_endpoint_subscriptions_change()
    is_running
    is_serving
    name

lahja.base.BaseEndpoint(name) : lahja.base.EndpointAPI
    are_all_endpoints_subscribed_to(event_type, include_self=True)
    get_connected_endpoints_and_subscriptions()
    is_any_endpoint_subscribed_to(event_type)
    is_connected_to(endpoint_name)
    is_endpoint_subscribed_to(remote_endpoint, event_type)
    wait_for(event_type)
    wait_until_all_endpoints_subscribed_to(event, *, include_self=True)
    wait_until_any_endpoint_subscribed_to(event)
    wait_until_connected_to(endpoint_name)
    wait_until_connections_change()
    wait_until_endpoint_subscribed_to(remote_endpoint, event)
    wait_until_endpoint_subscriptions_change()
    has_snappy_support
    logger

lahja.asyncio.endpoint.AsyncioEndpoint(name) : lahja.base.BaseEndpoint
    broadcast(item, config=None)
    broadcast_nowait(item, config=None)
    check_event_loop()
    connect_to_endpoints(*endpoints)
    get_subscribed_events()
    request(item, config=None)
    run()
    classmethod serve(config)
    stream(event_type, num_events=None)
    subscribe(event_type, handler)
    event_loop
    ipc_path
    is_running
    is_serving

lahja.trio.endpoint.TrioEndpoint(name) : lahja.base.BaseEndpoint
    broadcast(item, config=None)
    broadcast_nowait(item, config=None)
    connect_to_endpoints(*endpoints)
    get_subscribed_events()
    request(item, config=None)
    run()
    classmethod serve(config)
    stream(event_type, num_events=None)
    subscribe(event_type, handler)
    wait_started()
    wait_stopped()
    TResponse
    TStreamEvent
    TSubscribeEvent
    is_running
    is_server_stopped
    is_serving
    is_stopped
    logger

lahja.common.ConnectionConfig : tuple
    classmethod from_name(name, base_path=None)
    name
    path

lahja.common.BaseEvent : object
    bind(endpoint, id)
    broadcast_config(internal=False)
    get_origin()
    is_bound

lahja.common.BaseRequestResponseEvent : abc.ABC lahja.common.BaseEvent typing.Generic
    static expected_response_type()

lahja.common.BroadcastConfig(filter_endpoint=None, filter_event_id=None, internal=False) : object
    allowed_to_receive(endpoint)

lahja.common.Subscription(unsubscribe_fn) : object
    unsubscribe()

lahja.exceptions.BindError : lahja.exceptions.LahjaError
lahja.exceptions.ConnectionAttemptRejected : lahja.exceptions.LahjaError
lahja.exceptions.LahjaError : Exception
lahja.exceptions.LifecycleError : lahja.exceptions.LahjaError
lahja.exceptions.RemoteDisconnected : lahja.exceptions.LahjaError
lahja.exceptions.UnexpectedResponse : lahja.exceptions.LahjaError

lahja.tools.runner.RunnerAPI : abc.ABC
lahja.tools.runners.TrioRunner() : lahja.tools.runner.RunnerAPI
    __call__(*drivers)
lahja.tools.engine.EngineAPI : abc.ABC
    run_drivers(*drivers)
    run_with_timeout(coro, *args, timeout)
    sleep(seconds)

lahja.tools.drivers.driver.driver(initializer, *actions)
lahja.tools.drivers.initializers.Initializer
lahja.tools.drivers.initializers.serve_endpoint(config)
lahja.tools.drivers.initializers.run_endpoint(name)
lahja.tools.drivers.actions.SyncAction
lahja.tools.drivers.actions.AsyncAction
lahja.tools.drivers.actions.broadcast(event, config=None)
lahja.tools.drivers.actions.connect_to_endpoints(*configs)
lahja.tools.drivers.actions.throws(action, exc_type)
lahja.tools.drivers.actions.wait_for(event_type, on_event=None)
lahja.tools.drivers.actions.wait_until_any_endpoint_subscribed_to(event_type)
lahja.tools.drivers.actions.wait_until_connected_to(name)
lahja.tools.drivers.actions.wait_any_then_broadcast(event, config=None)
lahja.tools.drivers.actions.serve_request(request_type, get_response)
lahja.tools.drivers.actions.request(event, config=None, on_response=None)
lahja.tools.drivers.actions.checkpoint(name)
"""


class Documented(NamedTuple):
    """One thing that the documentation names."""

    path: str
    kind: str  # "class", "static", or nothing
    parameters: str | None
    bases: tuple[str, ...]

    @property
    def signature(self) -> inspect.Signature:
        """What the documentation says about the parameters."""
        namespace: dict[str, Any] = {}
        exec(f"def documented({self.parameters}): pass", namespace)
        return inspect.signature(namespace["documented"])


def parse(text: str) -> Iterator[Documented]:
    """Yield what the text above names."""
    pattern = re.compile(
        r"(?P<indent> *)(?:(?P<kind>class|static)(?:method)? )?(?P<name>[\w.]+)"
        r"(?:\((?P<parameters>.*)\))?(?: : (?P<bases>.*))?"
    )
    owner = ""
    for line in filter(None, text.splitlines()):
        match = pattern.fullmatch(line)
        assert match, line
        name, bases = match["name"], tuple((match["bases"] or "").split())
        path = f"{owner}.{name}" if match["indent"] else name
        if not match["indent"]:
            owner = name
        yield Documented(path, match["kind"] or "", match["parameters"], bases)
