"""What is deleted, and when: in small batches, by PostgreSQL's clock.

A finished saga is kept for the window and the topic's retention, whichever is longer, and a day
more, and for as long as an unresolved dead letter or an unpublished record refers to it: until
then a repetition of its message has to find it.
"""

from __future__ import annotations

from streamapp.resilience import crash_points
from streamapp.storage.connection import Pool

DAY = 86_400.0
TROUBLE = 30 * DAY  # a delivery that failed, or that nobody knows the end of
BATCH = 500  # rows of one statement

_SAGAS = """
WITH old AS (
    SELECT found.processing_id
    FROM unnest(ARRAY['COMPLETED', 'COMPENSATED', 'RESOLVED']) AS ended(status)
    CROSS JOIN LATERAL (
        SELECT processing_id FROM sagas s
        WHERE s.status = ended.status AND s.consumer_group = $1
            AND s.updated_at < now() - $2 * interval '1 second'
            AND s.finished_at < now() - $2 * interval '1 second'
            AND NOT EXISTS (SELECT FROM dead_letter_queue d
                WHERE d.message_id = s.processing_id AND d.status <> 'resolved')
            AND NOT EXISTS (SELECT FROM outbox o
                WHERE o.consumer_group = s.consumer_group AND o.source_topic = s.topic
                AND o.source_partition = s.partition AND o.lead_id = s.lead_id
                AND o.published_at IS NULL)
        ORDER BY s.updated_at LIMIT $3 FOR UPDATE OF s SKIP LOCKED
    ) AS found
    LIMIT $3
), steps AS (
    DELETE FROM saga_steps t USING old WHERE t.processing_id = old.processing_id
), requests AS (
    DELETE FROM saga_requests r USING old WHERE r.processing_id = old.processing_id
)
DELETE FROM sagas s USING old WHERE s.processing_id = old.processing_id
"""

_OUTBOX = """
DELETE FROM outbox WHERE id IN (
    SELECT id FROM outbox WHERE consumer_group = $1
        AND published_at < now() - $2 * interval '1 second'
    ORDER BY published_at LIMIT $3 FOR UPDATE SKIP LOCKED
)
"""

_PROCESSED = """
DELETE FROM processed_messages WHERE message_id IN (
    SELECT p.message_id FROM processed_messages p
    WHERE p.expires_at < now() - $1 * interval '1 second'
    ORDER BY p.expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
"""

# A row outlives the time in which its reply may be sent, so that its record, read again, is not:
# what is older than a day is refused by itself. What somebody may want to look at stays longer.
_DELIVERIES = """
DELETE FROM outbound_deliveries WHERE message_id IN (
    SELECT message_id FROM outbound_deliveries WHERE consumer_group = $1
        AND status NOT IN ('pending', 'sending')
        AND finished_at < now() - $2 * interval '1 second'
        AND greatest(finished_at, created_at) < now() - interval '1 second'
            * CASE WHEN status IN ('unknown', 'failed') THEN greatest($2::float8, $4::float8)
            ELSE $2::float8 END
    ORDER BY finished_at LIMIT $3 FOR UPDATE SKIP LOCKED
)
"""


class Retention:
    """Deletes what is old enough; ``keep`` is in seconds, before the day that is added."""

    def __init__(self, pool: Pool, consumer_group: str, keep: float) -> None:
        self._pool = pool
        self._group = consumer_group
        self._keep = keep + DAY

    async def purge(self) -> bool:
        """Delete one batch of each kind; gives whether there may be more. Raises
        ``faults.DATABASE_ERRORS``."""
        counts = [
            await self._delete(_SAGAS, self._group, self._keep, BATCH),
            await self._delete(_OUTBOX, self._group, self._keep, BATCH),
            await self._delete(_PROCESSED, DAY, BATCH),
            await self._delete(_DELIVERIES, self._group, self._keep, BATCH, TROUBLE),
        ]
        return BATCH in counts

    async def _delete(self, sql: str, *arguments: object) -> int:
        tag: str = await self._pool.execute(sql, *arguments)
        crash_points.reach("retention.deleted")
        return int(tag.rpartition(" ")[2])
