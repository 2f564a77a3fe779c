"""The runners under the other name that the documentation gives them; see :mod:`.runner`."""

from __future__ import annotations

from .runner import (
    AsyncioRunner,
    BaseIsolatedProcessRunner,
    DriverFailed,
    IsolatedHeterogenousRunner,
    IsolatedHomogenousRunner,
    RunnerAPI,
    TrioRunner,
)

__all__ = [
    "AsyncioRunner",
    "BaseIsolatedProcessRunner",
    "DriverFailed",
    "IsolatedHeterogenousRunner",
    "IsolatedHomogenousRunner",
    "RunnerAPI",
    "TrioRunner",
]
