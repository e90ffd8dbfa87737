"""Effects in our own database: the statements behind ``saga.operations``, many sagas' at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from streamapp.saga.model import SagaWrite, StepRow
from streamapp.saga.operations import (
    CancelTask,
    InsertActivity,
    InsertTask,
    Operation,
    RaisePriority,
    RestoreLeadStatus,
    SetLeadStatus,
)
from streamapp.storage.batch import fragment, insert_rows, recordset
from streamapp.storage.connection import Connection

TASKS = """
INSERT INTO tasks (task_id, lead_id, business_id, tenant_id, processing_id, run, task_type, title,
    description, status, priority, assigned_to_type, assigned_to_id, due_date, metadata)
SELECT task_id, lead_id, business_id, tenant_id, processing_id, run, task_type, title,
    description, 'pending', priority, assigned_to_type, assigned_to_id,
    now() + due_in * interval '1 second', metadata
FROM json_to_recordset($1::json) AS u(task_id text, lead_id text, business_id text, tenant_id text,
    processing_id text, run int, task_type text, title text, description text, priority text,
    assigned_to_type text, assigned_to_id text, due_in float8, metadata jsonb)
ON CONFLICT (task_id) DO NOTHING
"""

CANCEL_TASKS = """
UPDATE tasks AS t SET status = 'cancelled', updated_at = now(),
    metadata = t.metadata || jsonb_build_object('cancellation_reason', u.reason)
FROM unnest($1::text[], $2::text[]) AS u(task_id, reason)
WHERE t.task_id = u.task_id AND t.status IN ('pending', 'in_progress')
"""

RAISE_PRIORITY = """
UPDATE tasks AS t SET
    priority = CASE WHEN array_position($5::text[], t.priority)
        < array_position($5::text[], u.priority) THEN u.priority ELSE t.priority END,
    due_date = least(t.due_date, now() + u.due_within * interval '1 second'), updated_at = now()
FROM unnest($1::text[], $2::int[], $3::text[], $4::float8[])
    AS u(processing_id, run, priority, due_within)
WHERE t.processing_id = u.processing_id AND t.run = u.run
    AND t.status IN ('pending', 'in_progress')
"""
PRIORITIES = ["low", "normal", "high", "critical"]

ACTIVITIES = """
INSERT INTO lead_activities (activity_id, lead_id, business_id, tenant_id, activity_type,
    activity_description, actor_type, actor_name, channel, message_content, metadata,
    activity_timestamp, created_at)
SELECT activity_id, lead_id, business_id, tenant_id, activity_type, description, actor_type,
    actor_name, channel, message_content, metadata, now(), now()
FROM json_to_recordset($1::json) AS u(activity_id text, lead_id text, business_id text,
    tenant_id text, activity_type text, description text, actor_type text, actor_name text,
    channel text, message_content text, metadata jsonb)
ON CONFLICT (activity_id) DO NOTHING
"""

SET_LEADS = """
WITH before AS (
    SELECT l.lead_id, l.business_id, l.status, u.write_id, u.ordinal, u.status AS wanted
    FROM leads l JOIN unnest($1::text[], $2::text[], $3::uuid[], $4::int[], $5::text[])
        AS u(lead_id, business_id, write_id, ordinal, status)
        ON l.lead_id = u.lead_id AND l.business_id = u.business_id
), changed AS (
    UPDATE leads l SET status = b.wanted FROM before b
    WHERE l.lead_id = b.lead_id AND l.business_id = b.business_id
)
SELECT write_id, ordinal, status, wanted FROM before
"""

RESTORE_LEADS = """
UPDATE leads AS l SET status = u.previous
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
    AS u(lead_id, business_id, expected, previous)
WHERE l.lead_id = u.lead_id AND l.business_id = u.business_id AND l.status = u.expected
"""


_Row = TypeVar("_Row", bound=tuple[Any, ...])


def touches_lead(write: SagaWrite) -> bool:
    """Whether a write takes a lock in the CRM's own table, which others may hold for long."""
    return any(
        isinstance(operation, SetLeadStatus | RestoreLeadStatus)
        for _, operations in write.operations
        for operation in operations
    )


async def apply_operations(
    connection: Connection, writes: Sequence[SagaWrite]
) -> dict[Any, dict[int, dict[str, Any]]]:
    """Write the operations; gives what the database answered, by write id and step ordinal.

    Answers are also put into the output of their step row, which is written after.
    """
    found: list[tuple[SagaWrite, StepRow, Operation]] = [
        (write, row, operation)
        for write in writes
        for row, operations in write.operations
        for operation in operations
    ]
    outputs: dict[Any, dict[int, dict[str, Any]]] = {}
    if not found:
        return outputs
    tasks, cancels, raises, activities, sets, restores = [], [], [], [], [], []
    for write, row, operation in found:
        state, message = write.state, write.state.message
        lead = (message.lead_id, message.business_id)
        owner = {
            "lead_id": message.lead_id,
            "business_id": message.business_id,
            "tenant_id": message.tenant_id,
        }
        match operation:
            case InsertTask():
                tasks.append(
                    {
                        "task_id": operation.task_id,
                        **owner,
                        "processing_id": message.processing_id,
                        "run": state.run,
                        "task_type": operation.task_type,
                        "title": operation.title,
                        "description": operation.description,
                        "priority": operation.priority,
                        "assigned_to_type": operation.assigned_to_type,
                        "assigned_to_id": operation.assigned_to_id,
                        "due_in": operation.due_in,
                        "metadata": fragment(operation.metadata),
                    }
                )
            case CancelTask():
                cancels.append((operation.task_id, operation.reason))
            case RaisePriority():
                raises.append(
                    (message.processing_id, state.run, operation.priority, operation.due_within)
                )
            case InsertActivity():
                activities.append(
                    {
                        "activity_id": operation.activity_id,
                        **owner,
                        "activity_type": operation.activity_type,
                        "description": operation.description,
                        "actor_type": operation.actor_type,
                        "actor_name": operation.actor_name,
                        "channel": operation.channel,
                        "message_content": operation.message_content,
                        "metadata": fragment(operation.metadata),
                    }
                )
            case SetLeadStatus():
                sets.append((*lead, write.write_id, row.ordinal, operation.status))
            case RestoreLeadStatus():
                restores.append((*lead, operation.expected, operation.previous))
    if tasks:
        await connection.execute(TASKS, recordset(tasks))
    await insert_rows(connection, CANCEL_TASKS, cancels)
    # One UPDATE changes a row once, whatever number of rows it meets it in: two steps of a saga
    # that change the same, and are written at once, take their turns.
    for raised in _rounds(raises, lambda row: row[0]):
        columns = (list(column) for column in zip(*raised, strict=True))
        await connection.execute(RAISE_PRIORITY, *columns, PRIORITIES)
    if activities:
        await connection.execute(ACTIVITIES, recordset(activities))
    for changed in _rounds(sets, lambda row: row[:2]):
        records = await connection.fetch(
            SET_LEADS, *(list(column) for column in zip(*changed, strict=True))
        )
        for record in records:
            outputs.setdefault(record["write_id"], {})[record["ordinal"]] = {
                "previous_status": record["status"],
                "status": record["wanted"],
            }
    if sets:
        for write, row, operation in found:
            if isinstance(operation, SetLeadStatus):
                answer = outputs.get(write.write_id, {}).get(row.ordinal)
                if answer is not None:
                    row.output = {**(row.output or {}), **answer}
    for restored in _rounds(restores, lambda row: row[:2]):
        await insert_rows(connection, RESTORE_LEADS, restored)
    return outputs


def _rounds(rows: Sequence[_Row], what: Callable[[_Row], object]) -> Iterable[Sequence[_Row]]:
    """The rows in as few turns as there may be, in none of which two change the same."""
    while rows:
        seen: set[object] = set()
        this: list[_Row] = []
        later: list[_Row] = []
        for row in rows:
            (later if what(row) in seen else this).append(row)
            seen.add(what(row))
        yield this
        rows = later
