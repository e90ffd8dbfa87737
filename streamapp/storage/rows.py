"""All rows that a journal transaction inserts, in one statement.

Each statement waits for its answer, and between two of them the connection, the rows' locks and
those who wait for the commit stand still: one statement of five parts is over much sooner than
five. Its parts write different tables, so it makes no difference that they all see the same
snapshot and have no order among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from streamapp.saga.model import SagaWrite, StepRow
from streamapp.storage.batch import fragment, headers_fragment, recordset
from streamapp.storage.connection import Connection
from streamapp.storage.effects import Effects

INSERT = """
WITH new_tasks AS (
    INSERT INTO tasks (task_id, lead_id, business_id, tenant_id, processing_id, run, task_type,
        title, description, status, priority, assigned_to_type, assigned_to_id, due_date, metadata)
    SELECT task_id, lead_id, business_id, tenant_id, processing_id, run, task_type, title,
        description, 'pending', priority, assigned_to_type, assigned_to_id,
        now() + due_in * interval '1 second', metadata
    FROM json_to_recordset($1::json) AS u(task_id text, lead_id text, business_id text,
        tenant_id text, processing_id text, run int, task_type text, title text, description text,
        priority text, assigned_to_type text, assigned_to_id text, due_in float8, metadata jsonb)
    ON CONFLICT (task_id) DO NOTHING
), new_activities AS (
    INSERT INTO lead_activities (activity_id, lead_id, business_id, tenant_id, activity_type,
        activity_description, actor_type, actor_name, channel, message_content, metadata,
        activity_timestamp, created_at)
    SELECT activity_id, lead_id, business_id, tenant_id, activity_type, description, actor_type,
        actor_name, channel, message_content, metadata, now(), now()
    FROM json_to_recordset($2::json) AS u(activity_id text, lead_id text, business_id text,
        tenant_id text, activity_type text, description text, actor_type text, actor_name text,
        channel text, message_content text, metadata jsonb)
    ON CONFLICT (activity_id) DO NOTHING
), new_steps AS (
    INSERT INTO saga_steps AS s (processing_id, run, ordinal, direction, action, sub_step, status,
        key, attempts, in_doubt, circuit_wait, due_at, request, output, error, first_attempt_at,
        last_attempt_at, redrives, finished_at)
    SELECT processing_id, run, ordinal, direction, action, sub_step, status, key, attempts,
        in_doubt, circuit_wait, due_at, decode(request, 'base64'), output, error,
        first_attempt_at, last_attempt_at, redrives,
        CASE WHEN status IN ('DONE', 'FAILED') THEN now() END
    FROM json_to_recordset($3::json) AS u(processing_id text, run int, ordinal int,
        direction text, action text, sub_step text, status text, key text, attempts int,
        in_doubt bool, circuit_wait float8, due_at timestamptz, request text, output jsonb,
        error text, first_attempt_at timestamptz, last_attempt_at timestamptz, redrives jsonb)
    ON CONFLICT (processing_id, run, ordinal, direction) DO UPDATE SET status = excluded.status,
        key = excluded.key, attempts = excluded.attempts, in_doubt = excluded.in_doubt,
        circuit_wait = excluded.circuit_wait, due_at = excluded.due_at,
        request = excluded.request, output = excluded.output, error = excluded.error,
        first_attempt_at = excluded.first_attempt_at, last_attempt_at = excluded.last_attempt_at,
        redrives = excluded.redrives, finished_at = excluded.finished_at
), new_outbox AS (
    INSERT INTO outbox (record_id, consumer_group, source_topic, source_partition, topic, key,
        value, headers, lead_id)
    SELECT record_id, $4, source_topic, source_partition, topic, decode(key, 'base64'),
        decode(value, 'base64'), headers, lead_id
    FROM json_to_recordset($5::json) AS u(record_id text, source_topic text,
        source_partition int, topic text, key text, value text, headers jsonb, lead_id text,
        n bigint)
    ORDER BY n
    ON CONFLICT (record_id) DO NOTHING
)
INSERT INTO processed_messages AS p (message_id, lead_id, processing_status, processed_at,
    expires_at)
SELECT message_id, lead_id, processing_status, now(), now() + $6 * interval '1 second'
FROM json_to_recordset($7::json) AS u(message_id text, lead_id text, processing_status text)
ON CONFLICT (message_id) DO UPDATE SET processing_status = excluded.processing_status,
    processed_at = excluded.processed_at, expires_at = excluded.expires_at
"""


async def insert(
    connection: Connection,
    writes: Sequence[SagaWrite],
    effects: Effects,
    *,
    consumer_group: str,
    window: float,
) -> None:
    """Insert the steps, effects, outbox rows and marks of the writes. ``window`` is in seconds."""
    await connection.execute(
        INSERT,
        recordset(effects.tasks),
        recordset(effects.activities),
        recordset(step_rows(writes)),
        consumer_group,
        recordset(outbox_rows(writes)),
        window,
        recordset(processed_rows(writes)),
    )


def step_rows(writes: Iterable[SagaWrite]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for write in writes:
        processing_id, run = write.state.message.processing_id, write.state.run
        steps = write.state.plan.steps
        # The last row of a step wins: one write may stage it more than once.
        latest: dict[tuple[int, str], StepRow] = {
            (row.ordinal, row.direction): row for row in write.steps
        }
        for row in latest.values():
            step = steps[row.ordinal]
            rows.append(
                {
                    "processing_id": processing_id,
                    "run": run,
                    "ordinal": row.ordinal,
                    "direction": row.direction,
                    "action": step.action,
                    "sub_step": step.sub_step,
                    "status": row.status,
                    "key": row.key,
                    "attempts": row.attempts,
                    "in_doubt": row.in_doubt,
                    "circuit_wait": row.circuit_wait,
                    "due_at": row.due_at,
                    "request": row.request,
                    "output": None if row.output is None else fragment(row.output),
                    "error": row.error,
                    "first_attempt_at": row.first_attempt_at,
                    "last_attempt_at": row.last_attempt_at,
                    "redrives": row.redrives,
                }
            )
    return rows


def outbox_rows(writes: Iterable[SagaWrite]) -> list[dict[str, Any]]:
    """In the order in which they are published."""
    return [
        {
            "record_id": record.id,
            "source_topic": write.state.source.topic,
            "source_partition": write.state.source.partition,
            "topic": record.topic,
            "key": record.key,
            "value": record.value,
            "headers": headers_fragment(record.headers),
            "lead_id": write.state.message.lead_id,
            "n": number,
        }
        for number, (write, record) in enumerate(
            (write, record) for write in writes for record in write.outbox
        )
    ]


def processed_rows(writes: Iterable[SagaWrite]) -> list[dict[str, Any]]:
    return [
        {
            "message_id": write.state.message.processing_id,
            "lead_id": write.state.message.lead_id,
            "processing_status": write.processing_status,
        }
        for write in writes
        if write.processing_status
    ]
