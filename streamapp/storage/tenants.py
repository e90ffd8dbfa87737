"""Whose lead it is. Look-ups that come at the same time share one query."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from streamapp.storage.connection import Pool
from streamapp.storage.health import DatabaseHealth

BATCH = 500  # look-ups in one query
GATHER = 0.005  # seconds; under load, what the next query waits for more look-ups to share it

Owner = tuple[str, str | None]  # business id, tenant id


def tenant_of(owners: Iterable[Owner], business_id: str, tenant_id: str | None) -> str | None:
    """The tenant of a message, given what ``leads`` holds for its lead.

    A lead that is not there takes the message's word for it; a lead of another tenant does not.
    """
    owners = list(owners)
    same_business = [owner for business, owner in owners if business == business_id]
    candidates = same_business or [owner for _, owner in owners]
    if not candidates or None in candidates:
        return tenant_id
    if tenant_id is None:
        return candidates[0] if same_business else None
    return tenant_id if tenant_id in candidates else None


class TenantDirectory:
    """Implements ``pipeline.ports.Tenants`` on the table ``leads``."""

    def __init__(self, pool: Pool, health: DatabaseHealth) -> None:
        self._pool = pool
        self._health = health
        self._waiting: list[tuple[str, asyncio.Future[list[Owner]]]] = []
        self._task: asyncio.Task[None] | None = None

    async def resolve(self, lead_id: str, business_id: str, tenant_id: str | None) -> str | None:
        future: asyncio.Future[list[Owner]] = asyncio.get_running_loop().create_future()
        self._waiting.append((lead_id, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look_up(), name="tenants")
        return tenant_of(await future, business_id, tenant_id)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _look_up(self) -> None:
        # Whoever asks while a query runs is in the next one. A lone look-up is made at once.
        alone = True
        while self._waiting:
            if not alone and len(self._waiting) < BATCH:
                await asyncio.sleep(GATHER)
            alone = False
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            leads = list({lead_id for lead_id, _ in batch})
            try:
                records = await self._health.insist(
                    lambda leads=leads: self._pool.fetch(  # type: ignore[misc]
                        "SELECT lead_id, business_id, tenant_id FROM leads WHERE lead_id = ANY($1)",
                        leads,
                    )
                )
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            owners: dict[str, list[Owner]] = {}
            for record in records:
                owners.setdefault(record["lead_id"], []).append(
                    (record["business_id"], record["tenant_id"])
                )
            for lead_id, future in batch:
                if not future.done():
                    future.set_result(owners.get(lead_id, []))
