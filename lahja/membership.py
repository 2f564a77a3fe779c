"""Who comes to a bus, and who leaves it, and why."""

from __future__ import annotations

import enum
from typing import NamedTuple

__all__ = ["MembershipChange", "MembershipReason"]


class MembershipReason(enum.Enum):
    """Say why an endpoint is there, or is not any more."""

    PRESENT = "was there already"
    """It was connected when the stream was made."""

    CONNECTED = "connected"
    """It connected, or was connected to."""

    GOODBYE = "said goodbye"
    """It stopped on purpose."""

    CRASHED = "left without saying goodbye"
    """Its process crashed or was killed, or it closed the connection for a reason of its own."""

    STALLED = "took nothing for too long"
    """It was disconnected, because of ``stall_timeout``."""

    FAULTY = "sent what it must not send"
    """It was disconnected, because it broke the protocol."""


_ARRIVALS = (MembershipReason.PRESENT, MembershipReason.CONNECTED)


class MembershipChange(NamedTuple):
    """
    Tell that another endpoint is connected from now on, or that it is no more.

    One that restarts leaves, and joins.
    """

    name: str
    """The name of the other endpoint."""

    reason: MembershipReason
    """Why it is there, or is not any more."""

    detail: str = ""
    """More about it, for people, where there is more to say."""

    @property
    def joined(self) -> bool:
        """Whether the endpoint is connected now; it left where this is False."""
        return self.reason in _ARRIVALS

    def __str__(self) -> str:
        detail = f": {self.detail}" if self.detail else ""
        return f"{self.name!r} {self.reason.value}{detail}"
