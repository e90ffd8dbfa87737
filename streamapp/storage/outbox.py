"""The outbox: records that were committed with a saga's state and wait to be published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from streamapp.saga.model import OutboxRecord
from streamapp.storage.batch import headers_from_json
from streamapp.storage.connection import Pool

MAX_ERROR = 2000  # characters kept of a broker's refusal


@dataclass(frozen=True, slots=True)
class Unpublished:
    """An outbox row; rows of a lead are published in the order of their ``row_id``."""

    row_id: int
    partition: int
    record: OutboxRecord


_UNPUBLISHED = """
WITH owned AS (
    SELECT o.partition FROM partition_owners o JOIN unnest($3::int[], $4::bigint[])
        AS u(partition, epoch) ON o.partition = u.partition AND o.epoch = u.epoch
    WHERE o.consumer_group = $1 AND o.topic = $2
)
SELECT x.* FROM outbox x JOIN owned ON x.source_partition = owned.partition
WHERE x.consumer_group = $1 AND x.source_topic = $2 AND x.published_at IS NULL
    AND x.failed_at IS NULL AND x.topic = $6 AND x.id <> ALL($7::bigint[])
ORDER BY x.id LIMIT $5
"""

_MARK = """
WITH owned AS (
    SELECT o.partition FROM partition_owners o JOIN unnest($3::int[], $4::bigint[])
        AS u(partition, epoch) ON o.partition = u.partition AND o.epoch = u.epoch
    WHERE o.consumer_group = $1 AND o.topic = $2 FOR SHARE OF o
)
UPDATE outbox x SET published_at = CASE WHEN $6::text IS NULL THEN now() END,
    failed_at = CASE WHEN $6::text IS NOT NULL THEN now() END, error = $6::text
FROM owned WHERE x.source_partition = owned.partition AND x.id = ANY($5)
"""


class Outbox:
    """Reads and marks the rows of the partitions that this worker owns.

    ``epochs`` gives the epoch under which each partition is owned: rows of a partition that has
    another owner by now are neither read nor marked (protocol, 7).
    """

    def __init__(self, pool: Pool, consumer_group: str, topic: str) -> None:
        self._pool = pool
        self._group = consumer_group
        self._topic = topic

    async def unpublished(
        self, epochs: Mapping[int, int], topic: str, held: Sequence[int], limit: int
    ) -> list[Unpublished]:
        """Rows for ``topic`` in the order of their ids, without those that are ``held`` already."""
        records = await self._pool.fetch(
            _UNPUBLISHED,
            self._group,
            self._topic,
            list(epochs),
            list(epochs.values()),
            limit,
            topic,
            list(held),
        )
        return [
            Unpublished(
                record["id"],
                record["source_partition"],
                OutboxRecord(
                    record["record_id"],
                    record["topic"],
                    record["key"],
                    record["value"],
                    headers_from_json(record["headers"]),
                ),
            )
            for record in records
        ]

    async def mark_published(self, epochs: Mapping[int, int], row_ids: Sequence[int]) -> None:
        await self._mark(epochs, row_ids, None)

    async def mark_failed(self, epochs: Mapping[int, int], row_id: int, error: str) -> None:
        """The broker refuses this row for good: it stays for people to look at."""
        await self._mark(epochs, [row_id], error[:MAX_ERROR])

    async def _mark(
        self, epochs: Mapping[int, int], row_ids: Sequence[int], error: str | None
    ) -> None:
        await self._pool.execute(
            _MARK,
            self._group,
            self._topic,
            list(epochs),
            list(epochs.values()),
            list(row_ids),
            error,
        )

    async def backlog(self) -> int:
        """Rows of this consumer group that wait to be published."""
        count: int = await self._pool.fetchval(
            "SELECT count(*) FROM outbox WHERE consumer_group = $1 AND published_at IS NULL "
            "AND failed_at IS NULL",
            self._group,
        )
        return count
