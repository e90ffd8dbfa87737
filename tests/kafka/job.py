"""A job for a worker on Apache Kafka: what is sent, and what must have become of it."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import TopicPartition

from streamapp.settings import Settings

_NO_KEY = object()
INTENTS = ("ORDER_REQUEST", "COMPLAINT", "PRICING_INQUIRY", "UNKNOWN")


@dataclass(slots=True)
class Job:
    """Messages in the order in which they are sent: (key, value)."""

    records: list[tuple[bytes, bytes]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    orders: set[str] = field(default_factory=set)


def message(processing_id: str, lead: str, intent: str, **more: Any) -> bytes:
    return json.dumps(
        {
            "processing_id": processing_id,
            "lead_id": lead,
            "business_id": "business-1",
            "tenant_id": "tenant-1",
            "intent": {"intent": intent, "confidence": 0.93},
            "entities": {"product": "Widget", "quantity": 3},
            "original_message": "three widgets, please",
            "processing_time_ms": 120,
            **more,
        }
    ).encode()


def job(name: str, messages: int, leads: int, duplicates: float, seed: int) -> Job:
    """Valid messages of many leads; a share of them comes a second time, at once or later."""
    rng = random.Random(seed)
    made = Job()
    late: list[tuple[bytes, bytes]] = []
    for number in range(messages):
        processing_id, lead = f"{name}-{number}", f"{name}-lead-{rng.randrange(leads)}"
        intent = rng.choice(INTENTS)
        record = (lead.encode(), message(processing_id, lead, intent))
        made.records.append(record)
        made.ids.append(processing_id)
        if intent == "ORDER_REQUEST":
            made.orders.add(processing_id)
        if rng.random() < duplicates:
            (made.records if rng.random() < 0.5 else late).append(record)
    made.records += late
    return made


async def send(
    settings: Settings, records: Sequence[tuple[bytes | None, bytes | None]], rate: float = 0
) -> None:
    """Send in order, all acknowledged on return; ``rate`` in records a second, 0: no limit."""
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        linger_ms=5,
        acks="all",
        key_serializer=lambda key: None if key is _NO_KEY else key,
    )
    await producer.start()
    try:
        futures = []
        for number, (key, value) in enumerate(records):
            # The client refuses a record without key and value, Kafka does not.
            given = _NO_KEY if key is None and value is None else key
            futures.append(await producer.send(settings.input_topic, key=given, value=value))
            if rate and number % 50 == 49:
                await asyncio.sleep(50 / rate)
        await asyncio.gather(*futures)
    finally:
        await producer.stop()


async def read_all(settings: Settings, topic: str) -> list[Any]:
    """Every record of a topic as it is now."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    try:
        partitions = [
            TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()
        ] or [TopicPartition(topic, n) for n in range(settings.topic_partitions)]
        consumer.assign(partitions)
        records: list[Any] = []
        for partition, end in (await consumer.end_offsets(partitions)).items():
            while await consumer.position(partition) < end:
                fetched = await consumer.getmany(partition, timeout_ms=1000)
                records += fetched.get(partition, [])
        return records
    finally:
        await consumer.stop()


async def lag(settings: Settings) -> int:
    """Records of the input topic that the consumer group has not committed."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        group_id=settings.consumer_group,
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        partitions = [
            TopicPartition(settings.input_topic, n) for n in range(settings.topic_partitions)
        ]
        ends = await consumer.end_offsets(partitions)
        return sum([end - (await consumer.committed(tp) or 0) for tp, end in ends.items()])
    finally:
        await consumer.stop()


async def wait_until_done(settings: Settings, within: float) -> None:
    """Wait until nothing is left to commit and the outbox is empty."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    try:
        while True:
            left = await lag(settings)
            unpublished = await connection.fetchval(
                "SELECT count(*) FROM outbox WHERE published_at IS NULL"
            )
            if not left and not unpublished:
                return
            assert loop.time() < deadline, f"{left} records and {unpublished} outbox rows are left"
            await asyncio.sleep(0.5)
    finally:
        await connection.close()


async def check_done_once(settings: Settings, made: Job, *, killed: bool, letters: int = 0) -> None:
    """Every id: one completed saga, one order task where ordered, one outbound message.

    ``letters`` are the dead letters of records beside these.
    """
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    try:
        sagas = await connection.fetch("SELECT processing_id, status, run FROM sagas")
        assert Counter(row["processing_id"] for row in sagas) == Counter(made.ids)
        assert {(row["status"], row["run"]) for row in sagas} == {("COMPLETED", 0)}
        tasks = await connection.fetch(
            "SELECT processing_id FROM tasks WHERE task_type = 'order_processing'"
        )
        assert Counter(row["processing_id"] for row in tasks) == Counter(made.orders)
        assert await connection.fetchval("SELECT count(*) FROM dead_letter_queue") == letters
    finally:
        await connection.close()
    assert len(await read_all(settings, settings.dlq_topic)) == letters
    outbound = await read_all(settings, settings.outbound_topic)
    values: dict[str, set[bytes]] = {}
    for record in outbound:
        values.setdefault(json.loads(record.value)["in_reply_to"], set()).add(record.value)
    assert sorted(values) == sorted(made.ids)
    # A kill between publishing and marking publishes again, byte for byte.
    assert all(len(same) == 1 for same in values.values())
    if not killed:
        assert len(outbound) == len(made.ids)
