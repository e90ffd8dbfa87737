"""The rows that a journal transaction locks before it writes, and those that others have locked.

READ COMMITTED statements see different snapshots, so what a later statement relies on is locked
by an earlier one. With ``skip`` a row that somebody else has locked is told apart from one that
is not there, instead of being waited for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from streamapp.storage.connection import Connection

Partition = tuple[str, int]  # topic, number
Lead = tuple[str, str]  # lead id, business id

_SKIP = " SKIP LOCKED"

_EPOCHS = """
SELECT topic, partition, epoch FROM partition_owners
WHERE consumer_group = $1
    AND (topic, partition) IN (SELECT * FROM unnest($2::text[], $3::int[]))
ORDER BY topic, partition
"""

_LEADS = """
SELECT l.lead_id, l.business_id FROM leads l
JOIN (SELECT DISTINCT * FROM unnest($1::text[], $2::text[]) AS u(lead_id, business_id)) AS u
    USING (lead_id, business_id)
ORDER BY lead_id, business_id
"""

_SAGAS = """
SELECT processing_id, run, status, write_id, consumer_group, topic, partition
FROM sagas WHERE processing_id = ANY($1) ORDER BY processing_id
"""


async def lock_owners(
    connection: Connection, consumer_group: str, partitions: Iterable[Partition], *, skip: bool
) -> tuple[dict[Partition, int], set[Partition]]:
    """Hold off the next owners until the commit; gives the epochs, and what others have locked."""
    wanted = sorted(set(partitions))
    arguments = (consumer_group, [topic for topic, _ in wanted], [number for _, number in wanted])
    sql = _EPOCHS + " FOR SHARE" + (_SKIP if skip else "")
    records = await connection.fetch(sql, *arguments)
    epochs = {(record["topic"], record["partition"]): record["epoch"] for record in records}
    locked: set[Partition] = set()
    if skip and len(epochs) < len(wanted):
        there = await connection.fetch(_EPOCHS, *arguments)
        locked = {(record["topic"], record["partition"]) for record in there} - epochs.keys()
    return epochs, locked


async def lock_leads(connection: Connection, leads: Iterable[Lead]) -> set[Lead]:
    """Lock the leads that are free; gives those that others have locked."""
    wanted = list(leads)
    arguments = ([lead for lead, _ in wanted], [business for _, business in wanted])
    free = await connection.fetch(_LEADS + " FOR UPDATE OF l" + _SKIP, *arguments)
    there = await connection.fetch(_LEADS, *arguments)
    return {_lead(record) for record in there} - {_lead(record) for record in free}


async def lock_sagas(
    connection: Connection, processing_ids: Iterable[str], *, skip: bool
) -> tuple[Mapping[str, Any], set[str]]:
    """Lock sagas in id order; gives where they stand, and those that others have locked."""
    ids = sorted(set(processing_ids))
    sql = _SAGAS + " FOR UPDATE" + (_SKIP if skip else "")
    found = {record["processing_id"]: record for record in await connection.fetch(sql, ids)}
    locked: set[str] = set()
    if skip and len(found) < len(ids):
        there = await connection.fetch(_SAGAS, ids)
        locked = {record["processing_id"] for record in there} - found.keys()
    return found, locked


def _lead(record: Any) -> Lead:
    return record["lead_id"], record["business_id"]
