"""Sagas that no record brings back by itself: stuck ones that are due, and orphans."""

from __future__ import annotations

from collections.abc import Mapping

from streamapp.storage.connection import Pool


class UnfinishedSagas:
    """Finds, for the owner of their partitions, the sagas it has to take up by itself."""

    def __init__(self, pool: Pool, consumer_group: str, topic: str) -> None:
        self._pool = pool
        self._group = consumer_group
        self._topic = topic

    async def stuck(self, partitions: list[int], limit: int) -> list[tuple[str, int, bytes | None]]:
        """Stuck sagas to be tried again now: (processing id, partition, record key)."""
        records = await self._pool.fetch(
            "SELECT processing_id, partition, original_key FROM sagas "
            "WHERE consumer_group = $1 AND topic = $2 AND partition = ANY($3) "
            "AND status = 'STUCK' AND resume_at <= now() ORDER BY resume_at LIMIT $4",
            self._group,
            self._topic,
            partitions,
            limit,
        )
        return [(r["processing_id"], r["partition"], r["original_key"]) for r in records]

    async def orphans(
        self, committed: Mapping[int, int], limit: int
    ) -> list[tuple[str, int, bytes | None]]:
        """Sagas under way whose record lies below the committed offset, by partition: no
        redelivery brings them to their end (protocol, 2)."""
        records = await self._pool.fetch(
            "SELECT s.processing_id, s.partition, s.original_key FROM sagas s "
            "JOIN unnest($3::int[], $4::bigint[]) AS u(partition, committed) "
            'ON s.partition = u.partition AND s."offset" < u.committed '
            "WHERE s.consumer_group = $1 AND s.topic = $2 "
            "AND s.status IN ('RUNNING', 'COMPENSATING') "
            'ORDER BY s."offset" LIMIT $5',
            self._group,
            self._topic,
            list(committed),
            list(committed.values()),
            limit,
        )
        return [(r["processing_id"], r["partition"], r["original_key"]) for r in records]
