"""Waiting for a condition instead of sleeping for a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

_POLL = 0.005  # seconds
_DEADLINE = 20.0  # seconds; only a broken test or product ever waits as long


async def until(condition: Callable[[], bool]) -> None:
    """Return once ``condition()`` is true; fails the test after the deadline."""
    async with asyncio.timeout(_DEADLINE):
        while not condition():  # noqa: ASYNC110 - the code under test sets no event for it
            await asyncio.sleep(_POLL)


async def until_async(condition: Callable[[], Awaitable[bool]]) -> None:
    """The same for a condition that has to ask somebody."""
    async with asyncio.timeout(_DEADLINE):
        while not await condition():  # noqa: ASYNC110 - a database has no event to wait for
            await asyncio.sleep(_POLL)
