"""The endpoint for asyncio: what its event loop makes different, and nothing else."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar

from ..base import BaseEndpoint
from ..exceptions import NoSuchAttribute
from .loop import AsyncioLoop

__all__ = ["AsyncioEndpoint", "TFunc"]

TFunc = TypeVar("TFunc", bound=Callable[..., Any])
"""The type of a method that is decorated."""


class AsyncioEndpoint(BaseEndpoint):
    """
    Communicate by events, in an asyncio program.

    See :class:`lahja.base.BaseEndpoint` for the parameters, and :class:`lahja.base.EndpointAPI`
    for what every method promises.
    """

    _loop: AsyncioLoop

    @staticmethod
    def _make_loop() -> AsyncioLoop:
        return AsyncioLoop()

    @property
    def event_loop(self) -> asyncio.AbstractEventLoop:
        """
        The event loop in which the endpoint runs.

        :raise NoSuchAttribute: where it does not run
        """
        if not self._running:
            self._misused(NoSuchAttribute)
        return self._loop.event_loop

    def check_event_loop(target: Any) -> Any:
        """
        Make sure that a method is called from the event loop of its endpoint.

        Called as a method, check it at once. As a decorator of a method, of a subclass for
        example, check it at each call.

        :raise LifecycleError: where it is called from elsewhere
        """
        if isinstance(target, AsyncioEndpoint):
            target._check()
            return None

        @functools.wraps(target)
        def checked(self: AsyncioEndpoint, *args: Any, **kwargs: Any) -> Any:
            self._check()
            return target(self, *args, **kwargs)

        return checked

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Self]:
        self._begin()
        try:
            yield self
        except BaseException as error:
            await self._leave(error)
            raise
        else:
            await self._leave(None)

    async def _leave(self, error: BaseException | None) -> None:
        try:
            await self._finish(error)
        finally:
            if not isinstance(error, GeneratorExit):  # then nothing may be awaited any more
                await self._loop.wait_ended()
