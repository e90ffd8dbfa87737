"""Bulkheads: how many calls to one service may be under way at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    nullcontext,
)


class Bulkhead:
    """A bounded number of places, given out in the order in which they were asked for."""

    def __init__(self, limit: int) -> None:
        self._places = asyncio.Semaphore(limit)

    @asynccontextmanager
    async def place(
        self, while_waiting: Callable[[], AbstractAsyncContextManager[None]]
    ) -> AsyncIterator[None]:
        """Hold a place while the block runs; ``while_waiting`` is entered only for a wait."""
        waiting = while_waiting() if self._places.locked() else nullcontext()
        async with AsyncExitStack() as held:
            # The place is given back also when leaving the wait is cancelled.
            async with waiting:
                await self._places.acquire()
                held.callback(self._places.release)
            yield


class Bulkheads:
    """One bulkhead for each service, made when it is first asked for."""

    def __init__(self) -> None:
        self._bulkheads: dict[str, Bulkhead] = {}

    def get(self, service: str, limit: int) -> Bulkhead:
        if service not in self._bulkheads:
            self._bulkheads[service] = Bulkhead(limit)
        return self._bulkheads[service]
