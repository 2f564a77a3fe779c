"""
``lahja demo``: six processes that talk to each other, and one that watches.

``events`` is what they say, ``node`` is one of the six, ``supervisor`` starts and ends them,
``ledger`` adds up their reports, ``progress`` is what there is to show, ``view`` shows it.
"""

from __future__ import annotations

__all__: list[str] = []
