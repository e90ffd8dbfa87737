"""Waits until everything has come to its end, and reads what is there then."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any, Protocol

import asyncpg
from aiokafka.errors import KafkaError

from streamapp.settings import Settings
from tests.chaos.evidence import Evidence, Logged, Row
from tests.chaos.services import MailServer, OrderService
from tests.chaos.traffic import Stream, Traffic
from tests.kafka.job import lag, read_all

LOOK = 1.0  # seconds
STUCK_PATIENCE = 60.0  # seconds that stuck sagas get to heal once all else is done

_SAGAS = """
select processing_id, run, status, partition, "offset", lead_id, reason, error, stuck_retries,
    epoch, created_at, updated_at, finished_at from sagas
"""
_STEPS = """
select processing_id, run, ordinal, direction, action, sub_step, status, key, attempts, in_doubt,
    circuit_wait, error, first_attempt_at, last_attempt_at, finished_at from saga_steps
"""
_TASKS = "select task_id, processing_id, lead_id, task_type, status, created_at from tasks"
_ACTIVITIES = """
select activity_id, lead_id, activity_type, created_at,
    (metadata -> 'entities' ->> 'seq')::int as seq from lead_activities
"""
_OUTBOX = "select id, lead_id, value, created_at, published_at from outbox where topic = $1"
_DEAD_LETTERS = """
select dead_letter_id, partition, "offset", action, reason, original_key, original_value
from dead_letter_queue
"""


class Running(Protocol):
    """What is looked at: the workers' settings, and connections to their database."""

    @property
    def settings(self) -> Settings: ...

    async def connect(self) -> asyncpg.Connection[asyncpg.Record]:
        """Raises while the database is away."""


async def wait_until_settled(cluster: Running, patience: float) -> str:
    """Wait until nothing is left to do; gives what is left once nothing of it has become less
    for ``patience`` seconds, else ""."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    least: dict[str, float] = {}
    settled_at: float | None = None
    while True:
        try:
            left = await _left(cluster)
        except (KafkaError, asyncpg.PostgresError, OSError) as error:
            left = {f"cannot be asked: {error!r}": 1}
        if not left:
            return ""
        if left.keys() == {"stuck"}:
            settled_at = settled_at or loop.time()
            if loop.time() > settled_at + STUCK_PATIENCE:
                return ""
        else:
            settled_at = None
        if any(count < least.get(name, math.inf) for name, count in left.items()):
            deadline = loop.time() + patience
        least = {name: min(count, least.get(name, math.inf)) for name, count in left.items()}
        if loop.time() > deadline:
            return ", ".join(f"{name}: {count}" for name, count in left.items())
        await asyncio.sleep(LOOK)


async def _left(cluster: Running) -> dict[str, int]:
    settings = cluster.settings
    left: dict[str, int] = {
        "records not committed": await lag(settings),
        "dead letters not committed": await lag(_of_dead_letters(settings)),
    }
    connection = await cluster.connect()
    try:
        left["outbox rows"] = await connection.fetchval(
            "select count(*) from outbox where published_at is null and failed_at is null"
        )
        rows = await connection.fetch("select status, count(*) from sagas group by status")
        count = {row["status"]: row["count"] for row in rows}
    finally:
        await connection.close()
    left["sagas running"] = count.get("RUNNING", 0) + count.get("COMPENSATING", 0)
    left["stuck"] = count.get("STUCK", 0)
    return {name: number for name, number in left.items() if number}


def _of_dead_letters(settings: Settings) -> Settings:
    return settings.model_copy(update={"input_topic": settings.dlq_topic})


async def collect(
    cluster: Running,
    traffic: Traffic,
    stream: Stream,
    orders: OrderService,
    mail: MailServer,
) -> Evidence:
    """Read everything. Nothing may be going on any more."""
    settings = cluster.settings
    evidence = Evidence(
        topic=settings.input_topic,
        sent=traffic.sent,
        acknowledged=frozenset(stream.acknowledged),
        log=await _read(settings, settings.input_topic),
        requests=orders.requests,
        effects=orders.effects,
        active=orders.active,
        mails=mail.mails,
        outbound=await _read(settings, settings.outbound_topic),
        letters=await _read(settings, settings.dlq_topic),
    )
    connection = await cluster.connect()
    try:
        evidence.sagas = await _rows(connection, _SAGAS)
        evidence.steps = await _rows(connection, _STEPS)
        evidence.tasks = await _rows(connection, _TASKS)
        evidence.activities = await _rows(connection, _ACTIVITIES)
        replies = await _rows(connection, _OUTBOX, settings.outbound_topic)
        evidence.outbox = [_with_id(row) for row in replies]
        evidence.dead_letters = await _rows(connection, _DEAD_LETTERS)
    finally:
        await connection.close()
    return evidence


async def _rows(
    connection: asyncpg.Connection[asyncpg.Record], sql: str, *arguments: Any
) -> list[Row]:
    return [dict(record) for record in await connection.fetch(sql, *arguments)]


def _with_id(row: Row) -> Row:
    fields = {name: value for name, value in row.items() if name != "value"}
    return fields | {"in_reply_to": json.loads(row["value"])["in_reply_to"]}


async def _read(settings: Settings, topic: str) -> list[Logged]:
    return [
        Logged(record.partition, record.offset, record.key, record.value, tuple(record.headers))
        for record in await read_all(settings, topic)
    ]
