"""Sagas as they are stored: reading them back, finding those that nobody works on."""

from __future__ import annotations

import json
from typing import Any

import orjson

from streamapp.pipeline.outcomes import Reason
from streamapp.saga.model import (
    UNREADABLE_PLAN,
    Message,
    Plan,
    SagaState,
    SagaStatus,
    SagaWrite,
    Source,
    StepRow,
    StepStatus,
)
from streamapp.saga.serialization import UnknownPlanVersion, plan_from_json
from streamapp.storage.batch import headers_from_json
from streamapp.storage.connection import Session


async def load_sagas(connection: Session, processing_ids: list[str]) -> dict[str, SagaState]:
    """Sagas with the steps of their present run, by processing id."""
    records = await connection.fetch(
        "SELECT * FROM sagas WHERE processing_id = ANY($1)", processing_ids
    )
    states = {record["processing_id"]: _state(record) for record in records}
    steps = await connection.fetch(
        "SELECT t.* FROM saga_steps t JOIN sagas s USING (processing_id, run) "
        "WHERE processing_id = ANY($1)",
        processing_ids,
    )
    for record in steps:
        row = _step(record)
        states[record["processing_id"]].steps[row.ordinal, row.direction] = row
    return states


def stands_where_expected(record: Any, write: SagaWrite, consumer_group: str) -> bool:
    """Whether a saga's row (run, status, consumer_group, topic, partition) is where a write, that
    is no new saga, expects it. A run is begun only from the run before, COMPENSATED, and in the
    partition that the saga lives in."""
    state, stands = write.state, (record["run"], SagaStatus(record["status"]))
    if not write.revives:
        return stands == (state.run, state.status)
    home = (record["consumer_group"], record["topic"], record["partition"])
    return stands == (state.run - 1, SagaStatus.COMPENSATED) and home == (
        consumer_group,
        *state.source.home,
    )


def _state(record: Any) -> SagaState:
    return SagaState(
        message=Message(**json.loads(record["message"])),
        run=record["run"],
        status=SagaStatus(record["status"]),
        source=Source(
            record["topic"],
            record["partition"],
            record["offset"],
            record["record_timestamp_ms"],
        ),
        payload_hash=record["payload_hash"],
        plan=_plan(record),
        key=record["original_key"],
        value=record["original_value"],
        headers=headers_from_json(record["headers"]),
        error=record["error"],
        reason=Reason(record["reason"]) if record["reason"] else None,
        stuck_retries=record["stuck_retries"],
        created_at=record["created_at"],
        earlier_hashes=tuple(record["earlier_hashes"]),
    )


def _plan(record: Any) -> Plan:
    """The stored plan; of one in a form that this code does not know, just that it is so."""
    # The standard library's reader keeps integers beyond 64 bits as they are.
    stored = json.loads(record["plan"])
    try:
        return plan_from_json(stored)
    except (UnknownPlanVersion, KeyError, TypeError):
        return Plan(
            handler=record["handler"],
            actions=(),
            steps=(),
            escalate=record["escalate"],
            metadata={},
            reply=None,
            version=UNREADABLE_PLAN,
        )


def _step(record: Any) -> StepRow:
    return StepRow(
        ordinal=record["ordinal"],
        direction=record["direction"],
        status=StepStatus(record["status"]),
        key=record["key"],
        attempts=record["attempts"],
        in_doubt=record["in_doubt"],
        circuit_wait=record["circuit_wait"],
        due_at=record["due_at"],
        request=record["request"],
        output=None if record["output"] is None else orjson.loads(record["output"]),
        error=record["error"],
        first_attempt_at=record["first_attempt_at"],
        last_attempt_at=record["last_attempt_at"],
        redrives=tuple(orjson.loads(record["redrives"])),
    )
