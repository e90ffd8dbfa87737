"""What the worker knows of businesses: kept for seconds, bounded, one query for all who wait.

Nothing is asked for a message whose business was asked for within ``refresh`` seconds. In the
second half of that time the first message has it asked for anew, and does not wait. So a change is
seen within ``refresh`` seconds, and a business at work never waits for it. While the database is
away nothing is handed out that is older, as no message could be claimed either.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from streamapp.actions.base import Capabilities
from streamapp.businesses.business import Business, business_of
from streamapp.businesses.model import InvalidBusiness, parse
from streamapp.storage.businesses import BusinessStore, Stored
from streamapp.storage.health import DatabaseHealth

log = logging.getLogger("streamapp.businesses")

BATCH = 500  # businesses in one query
GATHER = 0.005  # seconds; under load, what the next query waits for more to share it


@dataclass(slots=True)
class _Entry:
    business: Business
    revision: int | None  # None: it has no settings
    asked_at: float  # monotonic; before the query, so that nothing changed since is missed


class BusinessDirectory:
    """Implements ``pipeline.ports.Businesses`` on the table ``business_settings``.

    ``limit`` bounds the businesses kept; those asked for longest ago are forgotten first.
    """

    def __init__(
        self,
        store: BusinessStore,
        health: DatabaseHealth,
        defaults: Capabilities,
        *,
        refresh: float,
        limit: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._health = health
        self._plain = Business(defaults)
        self._refresh = refresh
        self._limit = limit
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._waiting: dict[str, asyncio.Future[Business]] = {}
        self._asking: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    async def find(self, business_id: str) -> Business:
        """The business as it stands; waits while the database is away."""
        entry = self._entries.get(business_id)
        if entry is not None:
            age = self._clock() - entry.asked_at
            if age < self._refresh:
                self._entries.move_to_end(business_id)
                if age >= self._refresh / 2 and business_id not in self._asking:
                    self._ask(business_id)
                return entry.business
        # Shielded: who gives up must not take the answer from the others.
        return await asyncio.shield(self._ask(business_id))

    def at_hand(self, business_id: str) -> Business:
        """The business as it was when it was asked for last; without its own settings where that
        is too long ago."""
        entry = self._entries.get(business_id)
        return self._plain if entry is None else entry.business

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for future in self._waiting.values():
            future.cancel()

    def __len__(self) -> int:
        return len(self._entries)

    def _ask(self, business_id: str) -> asyncio.Future[Business]:
        """Who asks while a query runs is in the next one."""
        future = self._waiting.get(business_id)
        if future is None:
            future = asyncio.get_running_loop().create_future()
            # Nobody may be waiting any more when it fails.
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._waiting[business_id] = future
            self._asking.add(business_id)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look_up(), name="businesses")
        return future

    async def _look_up(self) -> None:
        alone = True
        while self._waiting:
            if not alone and len(self._waiting) < BATCH:
                await asyncio.sleep(GATHER)
            alone = False
            batch = dict(list(self._waiting.items())[:BATCH])
            for business_id in batch:
                del self._waiting[business_id]
            try:
                await self._answer(batch)
            except Exception as error:
                for future in batch.values():
                    if not future.done():
                        future.set_exception(error)
            finally:
                self._asking.difference_update(batch.keys() - self._waiting.keys())

    async def _answer(self, batch: dict[str, asyncio.Future[Business]]) -> None:
        asked_at, found = await self._health.insist(lambda: self._query(list(batch)))
        for business_id, future in batch.items():
            business = self._keep(business_id, found.get(business_id), asked_at)
            if not future.done():
                future.set_result(business)

    async def _query(self, business_ids: list[str]) -> tuple[float, dict[str, Stored]]:
        asked_at = self._clock()
        found = await self._store.get_all(business_ids)
        return asked_at, {stored.business_id: stored for stored in found}

    def _keep(self, business_id: str, stored: Stored | None, asked_at: float) -> Business:
        before = self._entries.get(business_id)
        revision = None if stored is None else stored.revision
        if before is not None and before.revision == revision:
            business = before.business
        else:
            business = self._read(stored, before)
        self._entries[business_id] = _Entry(business, revision, asked_at)
        self._entries.move_to_end(business_id)
        while len(self._entries) > self._limit:
            self._entries.popitem(last=False)
        return business

    def _read(self, stored: Stored | None, before: _Entry | None) -> Business:
        if stored is None:
            return self._plain
        try:
            return business_of(parse(stored.document), self._plain.capabilities)
        except InvalidBusiness as error:
            # Written by another program or by hand: no message's fault.
            log.error(
                "the settings of business %s cannot be used, %s: %s",
                stored.business_id,
                "those before are" if before is not None else "the defaults are",
                ", ".join(field for field, _ in error.problems),
            )
            return before.business if before is not None else self._plain
