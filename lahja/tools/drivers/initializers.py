"""Initializers: how a driver gets its endpoint."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Unpack

from ...api import EndpointAPI
from ...common import ConnectionConfig
from ...typing import EndpointOptions
from ..engine import EngineAPI
from .actions import describe

__all__ = ["Initializer", "run_endpoint", "serve_endpoint"]


class Initializer:
    """
    Make the endpoint of a driver.

    :param fn: called with the engine and the other arguments; it returns the context in which the
        endpoint runs
    """

    def __init__(
        self, fn: Callable[..., AbstractAsyncContextManager[EndpointAPI]], **kwargs: Any
    ) -> None:
        self._fn = fn
        self._kwargs = kwargs

    def __call__(self, engine: EngineAPI) -> AbstractAsyncContextManager[EndpointAPI]:
        """Return the context in which the endpoint runs."""
        return self._fn(engine, **self._kwargs)

    def __repr__(self) -> str:
        return describe(self._fn, self._kwargs)


def serve_endpoint(config: ConnectionConfig, **options: Unpack[EndpointOptions]) -> Initializer:
    """
    Run an endpoint to which others can connect.

    :param options: as in the constructor of the endpoint
    """
    return Initializer(_serve_endpoint, config=config, **options)


def _serve_endpoint(
    engine: EngineAPI, config: ConnectionConfig, **options: Unpack[EndpointOptions]
) -> AbstractAsyncContextManager[EndpointAPI]:
    return engine.endpoint_class.serve(config, **options)


def run_endpoint(name: str | ConnectionConfig, **options: Unpack[EndpointOptions]) -> Initializer:
    """
    Run an endpoint that connects to others.

    :param name: its name, or a configuration of which only the name is used
    :param options: as in the constructor of the endpoint
    """
    if isinstance(name, ConnectionConfig):
        name = name.name
    return Initializer(_run_endpoint, name=name, **options)


def _run_endpoint(
    engine: EngineAPI, name: str, **options: Unpack[EndpointOptions]
) -> AbstractAsyncContextManager[EndpointAPI]:
    return engine.endpoint_class(name, **options).run()
