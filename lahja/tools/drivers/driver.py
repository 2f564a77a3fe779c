"""Drivers: what one endpoint does, from its start to its end."""

from __future__ import annotations

import logging

from ...api import EndpointAPI
from ..engine import Driver, EngineAPI
from .actions import Action, SyncAction
from .initializers import Initializer

__all__ = ["Driver", "driver"]

logger = logging.getLogger("lahja.tools.drivers")


def driver(
    initializer: Initializer, *actions: Action, action_timeout: float | None = 10.0
) -> Driver:
    """
    Declare a driver: make the endpoint, do one action after the other, stop the endpoint.

    The exception of an action that fails carries a note about which one it was.

    :param initializer: what makes the endpoint: ``serve_endpoint()`` or ``run_endpoint()``
    :param actions: what it does
    :param action_timeout: seconds that each action may take before it fails with a
        :class:`TimeoutError`; None for any time
    """
    return _Driver(initializer, actions, action_timeout)


# The package has this function under the name of this module, so what follows the module's name in
# a path (``lahja.tools.drivers.driver.driver``) is looked up here.
setattr(driver, "driver", driver)  # noqa: B010  (no type checker knows attributes of functions)


class _Driver:
    def __init__(
        self, initializer: Initializer, actions: tuple[Action, ...], action_timeout: float | None
    ) -> None:
        self._initializer = initializer
        self._actions = actions
        self._action_timeout = action_timeout

    def __repr__(self) -> str:
        return f"<driver of {self._initializer!r}>"

    async def __call__(self, engine: EngineAPI) -> None:
        async with self._initializer(engine) as endpoint:
            for number, action in enumerate(self._actions, 1):
                logger.debug("endpoint %r: action %d: %r", endpoint.name, number, action)
                try:
                    await engine.run_with_timeout(
                        _perform, action, engine, endpoint, timeout=self._action_timeout
                    )
                except Exception as error:
                    error.add_note(f"in endpoint {endpoint.name!r}, action {number}: {action!r}")
                    raise


async def _perform(action: Action, engine: EngineAPI, endpoint: EndpointAPI) -> None:
    if isinstance(action, SyncAction):
        action(engine, endpoint)
    else:
        await action(engine, endpoint)
