"""Reads what is in the input topic, beside the consumer group: nothing is committed."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from streamapp.pipeline.outcomes import Record
from streamapp.pipeline.rehearsal import Place
from streamapp.settings import Settings
from streamapp.worker.topics import topic_admin

FETCH_WAIT = 1000  # milliseconds
SILENCE = 15  # fetches in a row without a record, after which no more is waited for


class HistoryError(Exception):
    """The topic cannot be read to the end; the message says why."""


@dataclass(frozen=True, slots=True)
class Range:
    """Offsets of one partition: from ``start`` up to ``end``, which is not part of it."""

    partition: int
    start: int
    end: int


class History:
    """The records of one topic as they are at the moment of asking."""

    def __init__(self, consumer: Any, topic: str, partitions: int) -> None:
        self._consumer = consumer
        self._topic = topic
        self._partitions = [TopicPartition(topic, number) for number in range(partitions)]

    async def last(self, number: int) -> list[Range]:
        """What may hold the newest ``number`` records: so many of each partition."""
        starts, ends = await self._bounds()
        return [Range(tp.partition, max(starts[tp], ends[tp] - number), ends[tp]) for tp in starts]

    async def between(self, since: int | None, until: int | None) -> list[Range]:
        """From the first record at ``since`` to the first at ``until`` (Unix time in ms)."""
        starts, ends = await self._bounds()
        if since is not None:
            starts = await self._first_at(since, ends)
        if until is not None:
            ends = await self._first_at(until, ends)
        return [Range(tp.partition, starts[tp], ends[tp]) for tp in starts]

    async def _bounds(self) -> tuple[dict[Any, int], dict[Any, int]]:
        self._consumer.assign(self._partitions)
        starts = await self._consumer.beginning_offsets(self._partitions)
        ends = await self._consumer.end_offsets(self._partitions)
        return dict(starts), dict(ends)

    async def _first_at(self, milliseconds: int, ends: dict[Any, int]) -> dict[Any, int]:
        found = await self._consumer.offsets_for_times(dict.fromkeys(ends, milliseconds))
        return {tp: ends[tp] if at is None else at.offset for tp, at in found.items()}

    async def read(self, ranges: list[Range]) -> AsyncIterator[Record]:
        """The records of these ranges, one partition after the other. Raises ``HistoryError``
        where no more come before the end."""
        for each in ranges:
            if each.start >= each.end:
                continue
            partition = TopicPartition(self._topic, each.partition)
            self._consumer.assign([partition])
            self._consumer.seek(partition, each.start)
            silent = 0
            while (at := await self._consumer.position(partition)) < each.end:
                if silent == SILENCE:
                    raise HistoryError(
                        f"nothing comes from partition {each.partition} of {self._topic} after "
                        f"offset {at}, though it goes up to {each.end}"
                    )
                fetched = await self._consumer.getmany(partition, timeout_ms=FETCH_WAIT)
                silent = 0 if fetched else silent + 1
                for record in fetched.get(partition, ()):
                    if record.offset < each.end:
                        yield _record(record)


async def newest(records: AsyncIterator[Record], number: int) -> set[Place]:
    """Which are the newest ``number`` by their time. Keeps their places, not what they hold."""
    kept: list[tuple[int, int, int]] = []
    async for record in records:
        entry = (record.timestamp_ms, record.partition, record.offset)
        if len(kept) < number:
            heapq.heappush(kept, entry)
        else:
            heapq.heappushpop(kept, entry)
    return {(partition, offset) for _, partition, offset in kept}


def spanning(places: Collection[Place]) -> list[Range]:
    """The smallest ranges that hold all of these."""
    offsets: dict[int, list[int]] = {}
    for partition, offset in places:
        offsets.setdefault(partition, []).append(offset)
    return [Range(number, min(found), max(found) + 1) for number, found in sorted(offsets.items())]


def _record(found: Any) -> Record:
    return Record(
        found.topic,
        found.partition,
        found.offset,
        found.timestamp,
        found.key,
        found.value,
        tuple(found.headers),
    )


@asynccontextmanager
async def history(settings: Settings) -> AsyncIterator[History]:
    """Connect without a group. Raises ``BROKER_ERRORS``, and ``HistoryError`` where the topic is
    missing."""
    async with topic_admin(settings) as admin:
        partitions = (await admin.partitions()).get(settings.input_topic)
    if partitions is None:
        raise HistoryError(f"there is no topic {settings.input_topic}")
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    try:
        await consumer.start()
        yield History(consumer, settings.input_topic, partitions)
    finally:
        await consumer.stop()
