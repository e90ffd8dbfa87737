"""What the worker knows of businesses: kept for seconds, bounded, one query for all who wait.

Nothing is asked for a message whose business was asked for within ``refresh`` seconds. In the
second half of that time the first message has it asked for anew, and does not wait. So a change is
seen within ``refresh`` seconds, and a business at work never waits for it. While the database is
away nothing is handed out that is older, as no message could be claimed either.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streamapp.actions.base import Capabilities
from streamapp.businesses.business import Business, business_of
from streamapp.businesses.model import InvalidBusiness, parse
from streamapp.storage.businesses import BusinessStore, Stored
from streamapp.storage.health import DatabaseHealth
from streamapp.storage.shared_lookups import SharedLookups

log = logging.getLogger("streamapp.businesses")


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
        self._lookups = SharedLookups("businesses", self._query)

    async def find(self, business_id: str) -> Business:
        """The business as it stands; waits while the database is away."""
        entry = self._entries.get(business_id)
        if entry is not None:
            age = self._clock() - entry.asked_at
            if age < self._refresh:
                self._entries.move_to_end(business_id)
                if age >= self._refresh / 2:
                    self._lookups.refresh(business_id)
                return entry.business
        return await self._lookups.get(business_id)

    def at_hand(self, business_id: str) -> Business:
        """The business as it was when it was asked for last; without its own settings where that
        is too long ago."""
        entry = self._entries.get(business_id)
        return self._plain if entry is None else entry.business

    async def close(self) -> None:
        await self._lookups.close()

    def __len__(self) -> int:
        return len(self._entries)

    async def _query(self, business_ids: Sequence[str]) -> dict[str, Business]:
        asked_at, found = await self._health.insist(lambda: self._ask(business_ids))
        return {name: self._keep(name, found.get(name), asked_at) for name in business_ids}

    async def _ask(self, business_ids: Sequence[str]) -> tuple[float, dict[str, Stored]]:
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
