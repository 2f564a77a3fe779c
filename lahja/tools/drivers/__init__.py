"""
Drivers: declare what one endpoint does, step by step.

::

    from lahja.tools import drivers as d

    client = d.driver(
        d.run_endpoint("client"),
        d.connect_to_endpoints(config),
        d.wait_any_then_broadcast(MyEvent()),
    )

``driver`` is a module, and in this package's namespace the function.
"""

from __future__ import annotations

from .actions import (
    AsyncAction,
    DidNotThrow,
    SyncAction,
    broadcast,
    checkpoint,
    connect_to_endpoints,
    request,
    serve_request,
    throws,
    wait_any_then_broadcast,
    wait_for,
    wait_until_any_endpoint_subscribed_to,
    wait_until_connected_to,
)
from .driver import driver
from .initializers import run_endpoint, serve_endpoint

__all__ = [
    "AsyncAction",
    "DidNotThrow",
    "SyncAction",
    "broadcast",
    "checkpoint",
    "connect_to_endpoints",
    "driver",
    "request",
    "run_endpoint",
    "serve_endpoint",
    "serve_request",
    "throws",
    "wait_any_then_broadcast",
    "wait_for",
    "wait_until_any_endpoint_subscribed_to",
    "wait_until_connected_to",
]
