"""
Engines: what drivers need of an event loop.

An engine runs drivers at the same time, as one whole: when a driver fails, the others are cancelled
and its exception comes out as itself, never in a group. trio is imported when a
:class:`TrioEngine` is made, so that everybody else can do without.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from ..asyncio import AsyncioEndpoint
from ..base import BaseEndpoint
from ..exceptions import MissingExtra

__all__ = ["AsyncioEngine", "Driver", "EngineAPI", "TrioEngine"]

Driver: TypeAlias = Callable[["EngineAPI"], Awaitable[None]]
"""What one endpoint does, from its start to its end."""


class EngineAPI(ABC):
    """Run drivers in an event loop of one kind."""

    @property
    @abstractmethod
    def endpoint_class(self) -> type[BaseEndpoint]:
        """The class of endpoints that run in this event loop; a class attribute will do."""

    @abstractmethod
    def run_drivers(self, *drivers: Driver) -> Awaitable[None]:
        """
        Run the drivers at the same time, until all have ended.

        Where one fails, the others are cancelled, and its exception is raised.
        """

    @abstractmethod
    async def run_with_timeout(
        self, coro: Callable[..., Awaitable[Any]], *args: Any, timeout: float | None
    ) -> None:
        """
        Run the coroutine function with these arguments; cancel it when the time is over.

        :param timeout: seconds that it may take; None for any time
        :raise TimeoutError: when the time is over
        """

    @abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Wait for some time."""


class AsyncioEngine(EngineAPI):
    """Run drivers with :class:`~lahja.asyncio.endpoint.AsyncioEndpoint`, in any loop of asyncio."""

    endpoint_class: type[BaseEndpoint] = AsyncioEndpoint

    async def run_drivers(self, *drivers: Driver) -> None:
        async def run(driver: Driver) -> None:
            await driver(self)

        failures: tuple[BaseException, ...] = ()
        tasks: list[asyncio.Task[None]] = []
        try:
            async with asyncio.TaskGroup() as group:
                tasks.extend(group.create_task(run(driver)) for driver in drivers)
        except BaseExceptionGroup as group_of_failures:
            failures = group_of_failures.exceptions
        if failures:
            raise failures[0]
        if any(task.cancelled() for task in tasks):  # a task group takes that for success
            raise asyncio.CancelledError("a driver was cancelled by what it waited for")

    async def run_with_timeout(
        self, coro: Callable[..., Awaitable[Any]], *args: Any, timeout: float | None
    ) -> None:
        scope = asyncio.timeout(timeout)
        try:
            async with scope:
                await coro(*args)
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise TimeoutError(f"not done within {timeout:g} s") from error

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class TrioEngine(EngineAPI):
    """
    Run drivers with :class:`~lahja.trio.endpoint.TrioEndpoint`.

    :raise MissingExtra: where trio is not installed
    """

    def __init__(self) -> None:
        try:
            import trio  # noqa: F401
        except ModuleNotFoundError as error:
            raise MissingExtra("TrioEngine", "trio") from error

    @property
    def endpoint_class(self) -> type[BaseEndpoint]:
        from ..trio import TrioEndpoint

        return TrioEndpoint

    async def run_drivers(self, *drivers: Driver) -> None:
        import trio

        failures: list[BaseException] = []

        async def run(driver: Driver) -> None:
            try:
                await driver(self)
            except trio.Cancelled:
                raise
            except BaseException as error:
                failures.append(error)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for driver in drivers:
                nursery.start_soon(run, driver)
        if failures:
            raise failures[0]

    async def run_with_timeout(
        self, coro: Callable[..., Awaitable[Any]], *args: Any, timeout: float | None
    ) -> None:
        import trio

        with trio.move_on_after(float("inf") if timeout is None else timeout) as scope:
            await coro(*args)
        if scope.cancelled_caught:
            raise TimeoutError(f"not done within {timeout:g} s")

    async def sleep(self, seconds: float) -> None:
        import trio

        await trio.sleep(seconds)
