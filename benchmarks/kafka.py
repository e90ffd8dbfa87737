"""What the benchmark itself does on Kafka: topics, messages, offsets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
)
from aiokafka.structs import TopicPartition

from benchmarks.messages import Sent

_PATIENCE_MS = 120_000
# The first group of a broker makes it create its topic of offsets.
NOT_YET = (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
)
DAY_MS = 86_400_000


class Kafka:
    """One connection for all questions; ``start`` before, ``close`` after."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._admin: Any = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        self._consumer: Any = AIOKafkaConsumer(
            bootstrap_servers=bootstrap, enable_auto_commit=False
        )

    async def start(self) -> None:
        await self._admin.start()
        await self._consumer.start()

    async def close(self) -> None:
        await self._consumer.stop()
        await self._admin.close()

    async def create(self, topic: str, partitions: int) -> None:
        """A topic with the retention that streamapp asks of its input."""
        config = {"retention.ms": str(DAY_MS)}
        response = await self._admin.create_topics(
            [NewTopic(topic, partitions, 1, topic_configs=config)]
        )
        if any(error[1] for error in response.topic_errors):
            raise RuntimeError(f"topic {topic}: {response.topic_errors}")

    async def delete(self, topics: Iterable[str]) -> None:
        """Delete those of the topics that exist."""
        there = set(await self._admin.list_topics())
        await self._admin.delete_topics([topic for topic in topics if topic in there])

    async def named(self, prefix: str) -> list[str]:
        """The topics whose name begins so."""
        return [topic for topic in await self._admin.list_topics() if topic.startswith(prefix)]

    def producer(self) -> Any:
        return AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            acks="all",
            linger_ms=20,
            max_batch_size=256 * 1024,
            request_timeout_ms=_PATIENCE_MS,
        )

    async def produce(self, topic: str, records: Iterable[Sent]) -> None:
        """Send all, each acknowledged on return."""
        producer = self.producer()
        await producer.start()
        try:
            futures = [await producer.send(topic, key=r.key, value=r.value) for r in records]
            await asyncio.gather(*futures)
        finally:
            await producer.stop()

    async def produce_slowly(
        self, topic: str, records: Iterable[Sent], rate: float
    ) -> dict[str, float]:
        """Send at ``rate`` a second; gives the record timestamp (seconds) of each id."""
        producer = AIOKafkaProducer(bootstrap_servers=self._bootstrap, acks="all", linger_ms=0)
        await producer.start()
        stamps: dict[str, float] = {}
        began = time.monotonic()
        try:
            for number, record in enumerate(records):
                await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
                sent = await producer.send_and_wait(topic, key=record.key, value=record.value)
                stamps[record.id] = sent.timestamp / 1000
        finally:
            await producer.stop()
        return stamps

    async def committed(self, group: str, topic: str) -> int:
        """Records of a topic that the group has committed, all partitions together."""
        try:
            offsets = await self._admin.list_consumer_group_offsets(group)
        except NOT_YET:
            return 0
        return sum(
            entry.offset
            for partition, entry in offsets.items()
            if partition.topic == topic and entry.offset > 0
        )

    async def records(self, topic: str, partitions: int) -> int:
        """Records that a topic has had so far; 0 where there is none."""
        if topic not in await self._admin.list_topics():
            return 0
        ends = await self._consumer.end_offsets(
            [TopicPartition(topic, number) for number in range(partitions)]
        )
        return sum(ends.values())
