"""Whose lead it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from streamapp.storage.connection import Pool
from streamapp.storage.health import DatabaseHealth
from streamapp.storage.shared_lookups import SharedLookups

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
        self._owners = SharedLookups("tenants", self._query)

    async def resolve(self, lead_id: str, business_id: str, tenant_id: str | None) -> str | None:
        return tenant_of(await self._owners.get(lead_id), business_id, tenant_id)

    async def close(self) -> None:
        await self._owners.close()

    async def _query(self, leads: Sequence[str]) -> dict[str, list[Owner]]:
        records = await self._health.insist(
            lambda: self._pool.fetch(
                "SELECT lead_id, business_id, tenant_id FROM leads WHERE lead_id = ANY($1)", leads
            )
        )
        owners: dict[str, list[Owner]] = {lead_id: [] for lead_id in leads}
        for record in records:
            owners[record["lead_id"]].append((record["business_id"], record["tenant_id"]))
        return owners
