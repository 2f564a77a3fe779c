"""The endpoint for trio: what its event loop makes different, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import trio

from ..api import TResponse, TStreamEvent, TSubscribeEvent
from ..base import BaseEndpoint
from .loop import TrioLoop, besides_cancellation

__all__ = ["TrioEndpoint"]


class TrioEndpoint(BaseEndpoint):
    """
    Communicate by events, in a trio program.

    See :class:`lahja.base.BaseEndpoint` for the parameters, and :class:`lahja.base.EndpointAPI`
    for what every method promises.
    """

    logger = logging.getLogger("lahja.trio.TrioEndpoint")

    TResponse = TResponse
    TStreamEvent = TStreamEvent
    TSubscribeEvent = TSubscribeEvent

    _loop: TrioLoop

    @staticmethod
    def _make_loop() -> TrioLoop:
        return TrioLoop()

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Self]:
        self._begin()
        failure: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                self._loop.live_in(nursery)
                try:
                    yield self
                except BaseException as error:
                    failure = error  # to be raised as itself, not by the nursery
                await self._finish(failure)
        except BaseException as error:
            failure = besides_cancellation(error) or failure or error
        finally:
            self._close()
        if failure is not None:
            raise failure
