"""Epochs of partitions: the fence that keeps two workers from writing for the same one."""

from __future__ import annotations

from streamapp.storage.connection import Pool


async def raise_epoch(
    pool: Pool, consumer_group: str, topic: str, partition: int, worker: str
) -> int:
    """Take a partition over: every write under an older epoch is refused from here on.

    A counter of its own, as Kafka's generation starts anew with a deleted group. Raises
    ``faults.DATABASE_ERRORS``.
    """
    epoch: int = await pool.fetchval(
        "INSERT INTO partition_owners AS o (consumer_group, topic, partition, epoch, worker, since)"
        " VALUES ($1, $2, $3, 1, $4, clock_timestamp())"
        " ON CONFLICT (consumer_group, topic, partition) DO UPDATE"
        " SET epoch = o.epoch + 1, worker = excluded.worker, since = excluded.since"
        " RETURNING epoch",
        consumer_group,
        topic,
        partition,
        worker,
    )
    return epoch
