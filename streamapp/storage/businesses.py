"""Settings of businesses in the database: written whole, audited, read in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from streamapp.storage.batch import to_json
from streamapp.storage.connection import Pool
from streamapp.storage.operations import audit


@dataclass(frozen=True, slots=True)
class Stored:
    """A business's document as it is stored, secrets and all. ``revision`` is never used twice."""

    business_id: str
    document: Any
    revision: int
    updated_at: datetime
    updated_by: str


_SET = """
INSERT INTO business_settings (business_id, settings, updated_by) VALUES ($1, $2::jsonb, $3)
ON CONFLICT (business_id) DO UPDATE SET settings = excluded.settings,
    revision = excluded.revision, updated_at = now(), updated_by = excluded.updated_by
RETURNING *
"""


class BusinessStore:
    """Every method raises ``faults.DATABASE_ERRORS``."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def get(self, business_id: str) -> Stored | None:
        record = await self._pool.fetchrow(
            "SELECT * FROM business_settings WHERE business_id = $1", business_id
        )
        return None if record is None else _stored(record)

    async def get_all(self, business_ids: Sequence[str]) -> list[Stored]:
        """Those of these businesses that have settings."""
        records = await self._pool.fetch(
            "SELECT * FROM business_settings WHERE business_id = ANY($1)", list(business_ids)
        )
        return [_stored(record) for record in records]

    async def list(self, limit: int) -> list[Stored]:
        """The most recently changed first."""
        records = await self._pool.fetch(
            "SELECT * FROM business_settings ORDER BY updated_at DESC, business_id LIMIT $1", limit
        )
        return [_stored(record) for record in records]

    async def set(
        self,
        business_id: str,
        actor: str,
        change: Callable[[Any], dict[str, Any]],
    ) -> Stored:
        """Replace a document by what ``change`` makes of the one before (None: there is none).

        The audit log says which fields changed, not what they hold.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            # Also where there is no row yet to be locked.
            await connection.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended('business ' || $1, 0))", business_id
            )
            record = await connection.fetchrow(
                "SELECT settings FROM business_settings WHERE business_id = $1", business_id
            )
            before = None if record is None else orjson.loads(record["settings"])
            after = change(before)
            record = await connection.fetchrow(_SET, business_id, to_json(after), actor)
            assert record is not None
            details = {"revision": record["revision"], "changed": changed(before or {}, after)}
            await audit(connection, actor, "business.set", business_id, details)
        return _stored(record)


def changed(before: dict[str, Any], after: dict[str, Any], path: str = "") -> list[str]:
    """The paths of what differs in two documents."""
    found = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += changed(old, new, f"{path}{name}.")
        elif old != new:
            found.append(f"{path}{name}")
    return found


def _stored(record: Any) -> Stored:
    return Stored(
        record["business_id"],
        orjson.loads(record["settings"]),
        record["revision"],
        record["updated_at"],
        record["updated_by"],
    )
