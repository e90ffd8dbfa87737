"""Whether the database answers: shared by all who use it, said once a minute, not thousands."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from streamapp.resilience.outage import Outage
from streamapp.storage.faults import Fault, fault_of

T = TypeVar("T")
log = logging.getLogger("streamapp.database")

FIRST_BACKOFF = 0.1  # seconds
MAX_BACKOFF = 1.0

READ_ONLY = "25006"


class DatabaseHealth:
    """Knows since when the database is away. ``report`` is told of every success and failure.

    ``on_read_only`` is called when a write met a server that takes none: after a failover a
    session that began there never becomes writable.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._outage = Outage(clock)
        self.on_read_only: Callable[[], None] | None = None

    @property
    def available(self) -> bool:
        return not self._outage.away

    def report(self, error: BaseException | None) -> None:
        """A call succeeded (None) or failed with an outage."""
        if error is None:
            if (lasted := self._outage.answered()) is not None:
                log.warning("database is back after %.1f s", lasted)
            return
        if getattr(error, "sqlstate", None) == READ_ONLY and self.on_read_only is not None:
            self.on_read_only()
        if (seconds := self._outage.failed()) is not None:
            log.warning(
                "database is away, work waits for it (for %.0f s now): %s: %s",
                seconds,
                type(error).__name__,
                error,
            )

    async def insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call until the database answers; errors that are no outage are raised."""
        return await insist(call, self.report)


async def insist(
    call: Callable[[], Awaitable[T]], report: Callable[[BaseException | None], None]
) -> T:
    """Call until the database answers, and report each outage, and its end. Raises errors that
    are no outage."""
    backoff = FIRST_BACKOFF
    while True:
        try:
            result = await call()
        except Exception as error:
            if fault_of(error) not in (Fault.OUTAGE, Fault.LOCK):
                raise
            report(error)
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, MAX_BACKOFF)
        else:
            report(None)
            return result
