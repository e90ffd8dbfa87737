"""How late the event loop is: whatever holds it up holds up heartbeats, timers and every lead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

EVERY = 0.25  # seconds


async def watch(observe: Callable[[float], None]) -> None:
    """Tell, until cancelled, how many seconds later than asked a sleep is over."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + EVERY
        await asyncio.sleep(EVERY)
        observe(max(0.0, loop.time() - due))
