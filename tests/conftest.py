"""Fixtures that all tests share: event loops, short directories for sockets, and endpoints."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import Bus

from lahja import AsyncioEndpoint, ConnectionConfig, TrioEndpoint
from lahja.base import BaseEndpoint

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background jobs ignore Ctrl-C, and so would the programs that are sent it here.
    signal.signal(signal.SIGINT, signal.default_int_handler)

BACKENDS: dict[str, tuple[str, dict[str, Any]]] = {
    "asyncio": ("asyncio", {"use_uvloop": False}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}


@pytest.fixture(params=[*BACKENDS.values()], ids=[*BACKENDS])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Return the event loop that the test runs on, as anyio's plugin wants it."""
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


@pytest.fixture
def endpoint_class(anyio_backend: tuple[str, dict[str, Any]]) -> type[BaseEndpoint]:
    """Return the endpoint class of the event loop that the test runs on."""
    return TrioEndpoint if anyio_backend[0] == "trio" else AsyncioEndpoint


@pytest.fixture
def ipc_dir() -> Iterator[Path]:
    """Return an empty directory whose path is short enough for the sockets in it."""
    directory = Path(tempfile.mkdtemp(prefix="lahja"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def config(ipc_dir: Path) -> ConnectionConfig:
    """Return where an endpoint named ``server`` may serve."""
    return ConnectionConfig.from_name("server", ipc_dir)


@pytest.fixture
def bus(endpoint_class: type[BaseEndpoint], ipc_dir: Path) -> Bus:
    """Return what makes endpoints that can find each other."""
    return Bus(endpoint_class, ipc_dir)
