"""However many rows there are, nobody reads them all: neither for a message, nor regularly."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest

from streamapp.storage.retention import Retention
from streamapp.worker import runtime
from tests.worker.whole import result, running_worker

ROWS = 20_000
DONE_WITHIN = 60.0  # seconds; reached only by a worker that is stuck

# Finished yesterday, and published: neither unfinished nor to be deleted.
FILL = f"""
INSERT INTO sagas (processing_id, run, status, consumer_group, topic, partition, "offset", lead_id,
    finished_at, updated_at, created_at, message, plan)
SELECT 'old-' || n, 0, 'COMPLETED', 'streamapp', 'ai-results', 0, n, 'old-lead-' || n % 5000,
    now() - interval '1 day', now() - interval '1 day', now() - interval '1 day', '{{}}', '{{}}'
FROM generate_series(1, {ROWS}) AS n;
INSERT INTO saga_steps (processing_id, run, ordinal, direction, action, sub_step, status)
SELECT 'old-' || n, 0, 0, 'forward', 'create_order', '', 'DONE'
FROM generate_series(1, {ROWS}) AS n;
INSERT INTO outbox (record_id, consumer_group, source_topic, source_partition, topic, lead_id,
    created_at, published_at, headers)
SELECT 'old-' || n, 'streamapp', 'ai-results', 0, 'whatsapp-outbound', 'old-lead-' || n % 5000,
    now() - interval '1 day', now() - interval '1 day', '[]' FROM generate_series(1, {ROWS}) AS n;
INSERT INTO processed_messages (message_id, lead_id, processing_status, expires_at)
SELECT 'old-' || n, 'old-lead-' || n % 5000, 'success', now() + interval '1 day'
FROM generate_series(1, {ROWS}) AS n;
INSERT INTO tasks (task_id, lead_id, task_type, title, processing_id, run)
SELECT 'old-' || n, 'old-lead-' || n % 5000, 'order_processing', 'old', 'old-' || n, 0
FROM generate_series(1, {ROWS}) AS n;
INSERT INTO leads (lead_id, business_id, tenant_id, status)
SELECT 'old-lead-' || n, 'business', 'tenant', 'new' FROM generate_series(1, {ROWS}) AS n;
INSERT INTO lead_activities (activity_id, lead_id) SELECT 'old-' || n, 'old-lead-' || n % 5000
FROM generate_series(1, {ROWS}) AS n;
INSERT INTO dead_letter_queue (dead_letter_id, letter_ids, message_id, lead_id, topic, partition,
    "offset", record_timestamp, reason, status)
SELECT 'old-' || n, ARRAY['old-' || n], 'dead-' || n, 'old-lead-' || n % 5000, 'ai-results', 0, n,
    now(), 'invalid_payload', 'resolved' FROM generate_series(1, {ROWS}) AS n;
INSERT INTO outbound_deliveries (message_id, consumer_group, lead_id, business_id, tenant_id,
    recipient, body, created_at, status, finished_at, updated_at)
SELECT 'old-' || n, 'streamapp', 'old-lead-' || n % 5000, 'business', 'tenant', '1', 'old',
    now() - interval '1 hour', 'delivered', now() - interval '1 hour', now() - interval '1 hour'
FROM generate_series(1, {ROWS}) AS n;
INSERT INTO business_settings (business_id, settings, updated_by)
SELECT 'old-' || n, '{{}}', 'somebody' FROM generate_series(1, {ROWS}) AS n;
ANALYZE;
"""


async def scans(dsn: str) -> dict[str, int]:
    """How often each table was read from its beginning to its end."""
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch("SELECT relname, seq_scan FROM pg_stat_user_tables")
    finally:
        await connection.close()
    return {row["relname"]: row["seq_scan"] for row in rows}


async def test_no_large_table_is_read_as_a_whole(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By orders, complaints, reviews and their compensation, by looks for what is left to do, by
    gauges and by retention."""
    monkeypatch.setattr(runtime, "STUCK_LOOK", 0.05)
    monkeypatch.setattr(runtime, "PURGE_EVERY", 0.05)
    connection = await asyncpg.connect(database)
    try:
        await connection.execute(FILL)
    finally:
        await connection.close()
    purges = 0
    purge = Retention.purge

    async def counted(retention: Retention) -> bool:
        nonlocal purges
        more = await purge(retention)
        purges += 1
        return more

    monkeypatch.setattr(Retention, "purge", counted)
    async with running_worker(database, tmp_path) as worker:
        intents = ("ORDER_REQUEST", "COMPLAINT", "UNKNOWN", "GENERAL_INQUIRY", "SCHEDULE_CALL")
        for number in range(100):
            lead = f"old-lead-{1 + number % 40}"
            await worker.accept(result(number, lead, intents[number % len(intents)]))
        async with asyncio.timeout(DONE_WITHIN):
            await worker.gauges.ask_database()
            before = purges
            while worker.lanes or purges < before + 2:  # noqa: ASYNC110 - neither sets an event
                await asyncio.sleep(0.05)
        done = await worker.pool.fetchval(
            "SELECT count(*) FROM sagas WHERE processing_id = ANY($1) AND status = 'COMPLETED'",
            [f"p-{number}" for number in range(100)],
        )
    assert done == 100
    # Those that are small by what they are for: a row a partition, and people's requests.
    small = {"partition_owners", "saga_requests", "audit_log", "streamapp_version"}
    counts = await scans(database)
    assert counts.keys() > small
    assert {table: n for table, n in counts.items() if n and table not in small} == {}
