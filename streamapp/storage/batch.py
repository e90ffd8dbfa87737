"""The statements of a journal transaction: many sagas' rows at once.

Rows travel as one JSON text, which PostgreSQL takes apart: encoding arrays costs the client about
four times as much a value. Each statement names its columns and their types; bytes come in base64.
A batch holds at most one write a saga, so no statement meets the same row twice.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import orjson

from streamapp.pipeline.outcomes import Headers
from streamapp.saga.model import Message, SagaStatus, SagaWrite
from streamapp.saga.serialization import plan_to_json
from streamapp.storage.connection import Connection

TERMINAL = frozenset(
    {SagaStatus.COMPLETED, SagaStatus.COMPENSATED, SagaStatus.STUCK, SagaStatus.RESOLVED}
)


def to_json(value: Any) -> str:
    """JSON text for a ``jsonb`` parameter."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # integers beyond 64 bits, which jsonb holds and orjson does not
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def headers_to_json(headers: Headers) -> str:
    """Headers keep their order and may repeat a name, so they are a list of pairs."""
    return to_json([[name, base64.b64encode(value).decode()] for name, value in headers])


def headers_from_json(text: str) -> Headers:
    return tuple((name, base64.b64decode(value)) for name, value in orjson.loads(text))


async def insert_rows(connection: Connection, sql: str, rows: Sequence[Sequence[Any]]) -> None:
    """Execute a statement over ``unnest`` arrays, for the few rows of what is rare."""
    if rows:
        await connection.execute(sql, *(list(column) for column in zip(*rows, strict=True)))


def recordset(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows for ``json_to_recordset``. A value that is JSON already is put in by ``fragment``."""
    return orjson.dumps(rows, default=_base64).decode()


def _base64(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} in a row")


def fragment(value: Any) -> orjson.Fragment:
    """A value of any JSON type, for a column of type ``jsonb``."""
    try:
        return orjson.Fragment(orjson.dumps(value))
    except TypeError:
        return orjson.Fragment(to_json(value))


def headers_fragment(headers: Headers) -> orjson.Fragment:
    return orjson.Fragment(headers_to_json(headers)) if headers else _NO_HEADERS


_NO_HEADERS = orjson.Fragment("[]")

# What the saga's row says of a run when it begins; ``_run_row`` makes it.
_RUN = """
    processing_id text, run int, status text, topic text, partition int, "offset" bigint,
    record_timestamp_ms bigint, epoch bigint, payload_hash text, lead_id text, business_id text,
    tenant_id text, intent text, confidence float8, handler text, escalate bool, message jsonb,
    plan jsonb, original_key text, original_value text, headers jsonb, reason text, error text,
    write_id uuid, resume_in float8, terminal bool
"""

CLAIM = f"""
INSERT INTO sagas (processing_id, run, status, consumer_group, topic, partition, "offset",
    record_timestamp_ms, epoch, payload_hash, lead_id, business_id, tenant_id, intent, confidence,
    handler, escalate, message, plan, original_key, original_value, headers, reason, error,
    write_id, resume_at, finished_at)
SELECT processing_id, run, status, $1, topic, partition, "offset", record_timestamp_ms, epoch,
    decode(payload_hash, 'base64'), lead_id, business_id, tenant_id, intent, confidence, handler,
    escalate, message, plan, decode(original_key, 'base64'), decode(original_value, 'base64'),
    headers, reason, error, write_id, now() + resume_in * interval '1 second',
    CASE WHEN terminal THEN now() END
FROM json_to_recordset($2::json) AS u({_RUN})
ON CONFLICT (processing_id) DO NOTHING
RETURNING write_id
"""  # noqa: S608 (a constant)


async def insert_claims(
    connection: Connection, consumer_group: str, writes: Sequence[SagaWrite]
) -> set[Any]:
    """Insert new sagas, in id order; gives the write ids of those that were not there yet."""
    ordered = sorted(writes, key=lambda write: write.state.message.processing_id)
    rows = recordset([_run_row(write) for write in ordered])
    records = await connection.fetch(CLAIM, consumer_group, rows)
    return {record["write_id"] for record in records}


# The steps of the runs before stay: they are keyed by run.
REVIVE = f"""
UPDATE sagas AS s SET run = u.run, status = u.status, topic = u.topic, partition = u.partition,
    "offset" = u."offset", record_timestamp_ms = u.record_timestamp_ms, epoch = u.epoch,
    payload_hash = u.hash, lead_id = u.lead_id, business_id = u.business_id,
    tenant_id = u.tenant_id, intent = u.intent, confidence = u.confidence, handler = u.handler,
    escalate = u.escalate, message = u.message, plan = u.plan,
    original_key = decode(u.original_key, 'base64'),
    original_value = decode(u.original_value, 'base64'), headers = u.headers, reason = u.reason,
    error = u.error, write_id = u.write_id,
    resume_at = now() + u.resume_in * interval '1 second',
    finished_at = CASE WHEN u.terminal THEN now() END, updated_at = now(), stuck_retries = 0,
    earlier_hashes = CASE WHEN s.payload_hash = u.hash OR s.payload_hash = ANY (s.earlier_hashes)
        THEN s.earlier_hashes ELSE array_append(s.earlier_hashes, s.payload_hash) END
FROM (
    SELECT *, decode(payload_hash, 'base64') AS hash FROM json_to_recordset($1::json) AS r({_RUN})
) AS u
WHERE s.processing_id = u.processing_id
"""  # noqa: S608 (a constant)


async def revive_sagas(connection: Connection, writes: Iterable[SagaWrite]) -> None:
    """Begin the next run of sagas that are locked, and stand at the run before."""
    rows = [_run_row(write) for write in writes if write.revives]
    if rows:
        await connection.execute(REVIVE, recordset(rows))


def _run_row(write: SagaWrite) -> dict[str, Any]:
    state, message = write.state, write.state.message
    status = write.status or state.status
    return {
        "processing_id": message.processing_id,
        "run": state.run,
        "status": status,
        "topic": state.source.topic,
        "partition": state.source.partition,
        "offset": state.source.offset,
        "record_timestamp_ms": state.source.timestamp_ms,
        "epoch": write.epoch,
        "payload_hash": state.payload_hash,
        "lead_id": message.lead_id,
        "business_id": message.business_id,
        "tenant_id": message.tenant_id,
        "intent": message.intent,
        "confidence": message.confidence,
        "handler": state.plan.handler,
        "escalate": state.plan.escalate,
        "message": _message(message),
        "plan": fragment(plan_to_json(state.plan)),
        "original_key": state.key,
        "original_value": state.value,
        "headers": headers_fragment(state.headers),
        "reason": state.reason,
        "error": state.error,
        "write_id": write.write_id,
        "resume_in": write.resume_in,
        "terminal": status in TERMINAL,
    }


def _message(message: Message) -> orjson.Fragment:
    try:
        return orjson.Fragment(orjson.dumps(message))
    except TypeError:  # integers beyond 64 bits
        return orjson.Fragment(to_json(asdict(message)))


UPDATE = """
UPDATE sagas AS s SET status = u.status, epoch = u.epoch, reason = u.reason, error = u.error,
    write_id = u.write_id, updated_at = now(), stuck_retries = u.stuck_retries,
    resume_at = now() + u.resume_in * interval '1 second',
    finished_at = CASE WHEN u.terminal THEN now() ELSE s.finished_at END
FROM json_to_recordset($1::json) AS u(processing_id text, status text, epoch bigint, reason text,
    error text, write_id uuid, stuck_retries int, resume_in float8, terminal bool)
WHERE s.processing_id = u.processing_id
"""


async def update_sagas(connection: Connection, writes: Iterable[SagaWrite]) -> None:
    """Every write leaves its write id with its saga, by which an unknown COMMIT is recognised."""
    rows = []
    for write in writes:
        if write.claim:
            continue
        state = write.state
        status = write.status or state.status
        rows.append(
            {
                "processing_id": state.message.processing_id,
                "status": status,
                "epoch": write.epoch,
                "reason": state.reason,
                "error": state.error,
                "write_id": write.write_id,
                "stuck_retries": state.stuck_retries,
                "resume_in": write.resume_in,
                "terminal": status in TERMINAL,
            }
        )
    if rows:
        await connection.execute(UPDATE, recordset(rows))
