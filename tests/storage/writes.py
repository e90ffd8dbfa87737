"""Writes for the journal, and what became of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from streamapp.saga.model import OutboxRecord, SagaState, SagaStatus, SagaWrite, StepRow, StepStatus
from streamapp.saga.operations import InsertTask, Operation
from streamapp.storage.connection import Pool
from tests.support.sagas import DLQ, external, own, saga

TABLES = ("sagas", "saga_steps", "tasks", "outbox", "processed_messages")


def state_of(processing_id: str = "p-1", **place: Any) -> SagaState:
    """A saga of an own step, then an external one; its lead has its name."""
    return saga(
        own("note"),
        external("order"),
        processing_id=processing_id,
        lead_id=place.pop("lead_id", f"lead of {processing_id}"),
        **place,
    )


def row(ordinal: int = 0, status: StepStatus = StepStatus.DONE, **columns: Any) -> StepRow:
    return StepRow(ordinal, columns.pop("direction", "forward"), status, **columns)


def task(task_id: str, description: str = "", **columns: Any) -> InsertTask:
    return InsertTask(
        task_id=task_id,
        task_type="type",
        title="title",
        description=description,
        priority=columns.pop("priority", "normal"),
        assigned_to_type="team",
        assigned_to_id="team",
        due_in=columns.pop("due_in", 3600.0),
        metadata=columns.pop("metadata", {}),
    )


def letter(record_id: str) -> OutboxRecord:
    return OutboxRecord(record_id, DLQ, b"key", b"value", (("name", b"\x00\xff"), ("name", b"")))


def claim(
    epoch: int,
    state: SagaState | None = None,
    *operations: Operation,
    status: SagaStatus | None = None,
) -> SagaWrite:
    """A claim that leaves a row in every table, unless ``operations`` say otherwise."""
    state = state or state_of()
    name = state.message.processing_id
    done = row()
    return SagaWrite(
        state=state,
        epoch=epoch,
        claim=True,
        steps=[done],
        operations=[(done, operations or (task(f"task of {name}"),))],
        status=status,
        processing_status="success" if status is SagaStatus.COMPLETED else "retrying",
        outbox=[letter(f"letter of {name}")],
    )


def update(
    epoch: int,
    state: SagaState,
    *operations: Operation,
    status: SagaStatus | None = None,
    step: StepRow | None = None,
    outbox: tuple[OutboxRecord, ...] = (),
) -> SagaWrite:
    """A later write of a saga; the operations belong to ``step``."""
    step = step or row(1)
    return SagaWrite(
        state=state,
        epoch=epoch,
        claim=False,
        steps=[step],
        operations=[(step, operations)] if operations else [],
        status=status,
        outbox=list(outbox),
    )


def started(**columns: Any) -> StepRow:
    now = datetime.now(UTC)
    return row(
        1,
        StepStatus.STARTED,
        key="key",
        attempts=1,
        request=b"\x00request\xff",
        first_attempt_at=now,
        last_attempt_at=now,
        **columns,
    )


async def counts(pool: Pool) -> dict[str, int]:
    """Rows in each table that the journal writes."""
    return {name: await pool.fetchval(f"select count(*) from {name}") for name in TABLES}


async def transactions(pool: Pool) -> set[str]:
    """The transactions that wrote what is in those tables now."""
    found: set[str] = set()
    for name in TABLES:
        rows = await pool.fetch(f"select distinct xmin::text as xmin from {name}")
        found |= {row["xmin"] for row in rows}
    return found


NOTHING = dict.fromkeys(TABLES, 0)
ONE = dict.fromkeys(TABLES, 1)
