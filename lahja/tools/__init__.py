"""
Declare what endpoints do, and run it: an API for tests of programs that use lahja.

A *driver* (:mod:`lahja.tools.drivers`) is what one endpoint does, step by step; an *engine*
(:mod:`lahja.tools.engine`) knows one event loop; a *runner* (:mod:`lahja.tools.runner`) runs
several drivers together, in one process or in one process each.
"""

from __future__ import annotations

__all__: list[str] = []
