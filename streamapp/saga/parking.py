"""Waiting without holding a place among those that work."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Parking(Protocol):
    """The lane's side of a wait: its permit is given back meanwhile (protocol, 8)."""

    def parked(self, *, in_line: bool = False) -> AbstractAsyncContextManager[None]:
        """Give the permit back on entry, take one again on exit.

        With ``in_line`` the wait is for a turn that comes as others finish, not for a time or for
        a service to recover: no reason to take in more work than usual meanwhile.
        """
        ...


class Lease(Protocol):
    """A worker's hold on a partition."""

    async def epoch(self) -> int:
        """The epoch under which this worker may write, once the group confirmed it.

        Raises ``Fenced`` when the partition is no longer ours.
        """
        ...


async def sleep(parking: Parking, seconds: float) -> None:
    """Wait parked. A wait of zero keeps the permit."""
    if seconds > 0:
        async with parking.parked():
            await asyncio.sleep(seconds)
