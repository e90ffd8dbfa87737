"""Effects in our own database: the statements behind ``saga.operations``, many sagas' at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

from streamapp.saga.model import Message, SagaWrite, StepRow
from streamapp.saga.operations import (
    CancelTask,
    InsertActivity,
    InsertTask,
    RaisePriority,
    RestoreLeadStatus,
    SetLeadStatus,
)
from streamapp.storage.batch import fragment, insert_rows
from streamapp.storage.connection import Connection

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


@dataclass(slots=True)
class Effects:
    """The operations of a transaction, as rows of the statements that carry them out."""

    tasks: list[dict[str, Any]] = field(default_factory=list)
    activities: list[dict[str, Any]] = field(default_factory=list)
    cancels: list[tuple[str, str]] = field(default_factory=list)
    raises: list[tuple[str, int, str, float]] = field(default_factory=list)
    sets: list[tuple[str, str, UUID, int, str]] = field(default_factory=list)
    restores: list[tuple[str, str, str, str | None]] = field(default_factory=list)
    set_by: list[tuple[SagaWrite, StepRow]] = field(default_factory=list)


def collect(writes: Iterable[SagaWrite]) -> Effects:
    """The operations of the writes."""
    effects = Effects()
    for write in writes:
        message = write.state.message
        for row, operations in write.operations:
            for operation in operations:
                match operation:
                    case InsertTask():
                        effects.tasks.append(_task_row(write, operation))
                    case InsertActivity():
                        effects.activities.append(_activity_row(message, operation))
                    case CancelTask():
                        effects.cancels.append((operation.task_id, operation.reason))
                    case RaisePriority():
                        effects.raises.append(
                            (
                                message.processing_id,
                                write.state.run,
                                operation.priority,
                                operation.due_within,
                            )
                        )
                    case SetLeadStatus():
                        effects.set_by.append((write, row))
                        effects.sets.append(
                            (
                                message.lead_id,
                                message.business_id,
                                write.write_id,
                                row.ordinal,
                                operation.status,
                            )
                        )
                    case RestoreLeadStatus():
                        effects.restores.append(
                            (
                                message.lead_id,
                                message.business_id,
                                operation.expected,
                                operation.previous,
                            )
                        )
    return effects


def _task_row(write: SagaWrite, task: InsertTask) -> dict[str, Any]:
    message = write.state.message
    return {
        "task_id": task.task_id,
        "lead_id": message.lead_id,
        "business_id": message.business_id,
        "tenant_id": message.tenant_id,
        "processing_id": message.processing_id,
        "run": write.state.run,
        "task_type": task.task_type,
        "title": task.title,
        "description": task.description,
        "priority": task.priority,
        "assigned_to_type": task.assigned_to_type,
        "assigned_to_id": task.assigned_to_id,
        "due_in": task.due_in,
        "metadata": fragment(task.metadata),
    }


def _activity_row(message: Message, activity: InsertActivity) -> dict[str, Any]:
    return {
        "activity_id": activity.activity_id,
        "lead_id": message.lead_id,
        "business_id": message.business_id,
        "tenant_id": message.tenant_id,
        "activity_type": activity.activity_type,
        "description": activity.description,
        "actor_type": activity.actor_type,
        "actor_name": activity.actor_name,
        "channel": activity.channel,
        "message_content": activity.message_content,
        "metadata": fragment(activity.metadata),
    }


async def set_leads(
    connection: Connection, effects: Effects
) -> dict[Any, dict[int, dict[str, Any]]]:
    """Change the leads' status; gives what it was before, by write id and step ordinal.

    The answers are also put into the output of their step row, which is written after.
    """
    outputs: dict[Any, dict[int, dict[str, Any]]] = {}
    for changed in _rounds(effects.sets, lambda row: row[:2]):
        records = await connection.fetch(
            SET_LEADS, *(list(column) for column in zip(*changed, strict=True))
        )
        for record in records:
            outputs.setdefault(record["write_id"], {})[record["ordinal"]] = {
                "previous_status": record["status"],
                "status": record["wanted"],
            }
    for write, row in effects.set_by:
        answer = outputs.get(write.write_id, {}).get(row.ordinal)
        if answer is not None:
            row.output = {**(row.output or {}), **answer}
    return outputs


async def change(connection: Connection, effects: Effects) -> None:
    """Change rows that are there, or were inserted by the same transaction."""
    await insert_rows(connection, CANCEL_TASKS, effects.cancels)
    # One UPDATE changes a row once, whatever number of rows it meets it in: two steps of a saga
    # that change the same, and are written at once, take their turns.
    for raised in _rounds(effects.raises, lambda row: row[0]):
        columns = (list(column) for column in zip(*raised, strict=True))
        await connection.execute(RAISE_PRIORITY, *columns, PRIORITIES)
    for restored in _rounds(effects.restores, lambda row: row[:2]):
        await insert_rows(connection, RESTORE_LEADS, restored)


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
