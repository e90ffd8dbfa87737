"""The statements of a journal transaction: many sagas' rows at once, over ``unnest`` arrays.

Each statement takes rows as columns. A batch holds at most one write a saga, so no statement
meets the same row twice.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import orjson

from streamapp.pipeline.outcomes import Headers
from streamapp.saga.model import SagaStatus, SagaWrite, StepRow
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
    if rows:
        await connection.execute(sql, *(list(column) for column in zip(*rows, strict=True)))


CLAIM = """
INSERT INTO sagas (processing_id, run, status, consumer_group, topic, partition, "offset",
    record_timestamp_ms, epoch, payload_hash, lead_id, business_id, tenant_id, intent, confidence,
    handler, escalate, message, plan, original_key, original_value, headers, reason, error,
    write_id, resume_at, finished_at)
SELECT u.a, u.b, u.c, $1, u.d, u.e, u.f, u.g, u.h, u.i, u.j, u.k, u.l, u.m, u.n, u.o, u.p,
    u.q::jsonb, u.r::jsonb, u.s, u.t, u.u, u.v, u.w, u.x,
    now() + u.y * interval '1 second', CASE WHEN u.z THEN now() END
FROM unnest($2::text[], $3::int[], $4::text[], $5::text[], $6::int[], $7::bigint[], $8::bigint[],
    $9::bigint[], $10::bytea[], $11::text[], $12::text[], $13::text[], $14::text[],
    $15::float8[], $16::text[], $17::bool[], $18::text[], $19::text[], $20::bytea[], $21::bytea[],
    $22::jsonb[], $23::text[], $24::text[], $25::uuid[], $26::float8[], $27::bool[])
    AS u(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x, y, z)
ON CONFLICT (processing_id) DO NOTHING
RETURNING write_id
"""


async def insert_claims(
    connection: Connection, consumer_group: str, writes: Sequence[SagaWrite]
) -> set[Any]:
    """Insert new sagas, in id order; gives the write ids of those that were not there yet."""
    ordered = sorted(writes, key=lambda write: write.state.message.processing_id)
    columns = zip(*(_run_row(write) for write in ordered), strict=True)
    records = await connection.fetch(CLAIM, consumer_group, *(list(column) for column in columns))
    return {record["write_id"] for record in records}


# The steps of the runs before stay: they are keyed by run.
REVIVE = """
UPDATE sagas AS s SET run = u.b, status = u.c, topic = u.d, partition = u.e, "offset" = u.f,
    record_timestamp_ms = u.g, epoch = u.h, payload_hash = u.i, lead_id = u.j, business_id = u.k,
    tenant_id = u.l, intent = u.m, confidence = u.n, handler = u.o, escalate = u.p,
    message = u.q::jsonb, plan = u.r::jsonb, original_key = u.s, original_value = u.t,
    headers = u.u, reason = u.v, error = u.w, write_id = u.x,
    resume_at = now() + u.y * interval '1 second', finished_at = CASE WHEN u.z THEN now() END,
    updated_at = now(), stuck_retries = 0,
    earlier_hashes = CASE WHEN s.payload_hash = u.i OR s.payload_hash = ANY (s.earlier_hashes)
        THEN s.earlier_hashes ELSE array_append(s.earlier_hashes, s.payload_hash) END
FROM unnest($1::text[], $2::int[], $3::text[], $4::text[], $5::int[], $6::bigint[], $7::bigint[],
    $8::bigint[], $9::bytea[], $10::text[], $11::text[], $12::text[], $13::text[],
    $14::float8[], $15::text[], $16::bool[], $17::text[], $18::text[], $19::bytea[], $20::bytea[],
    $21::jsonb[], $22::text[], $23::text[], $24::uuid[], $25::float8[], $26::bool[])
    AS u(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x, y, z)
WHERE s.processing_id = u.a
"""


async def revive_sagas(connection: Connection, writes: Iterable[SagaWrite]) -> None:
    """Begin the next run of sagas that are locked, and stand at the run before."""
    await insert_rows(connection, REVIVE, [_run_row(write) for write in writes if write.revives])


def _run_row(write: SagaWrite) -> tuple[Any, ...]:
    """What the saga's row says of a run when it begins."""
    state, message = write.state, write.state.message
    status = write.status or state.status
    return (
        message.processing_id,
        state.run,
        status.value,
        state.source.topic,
        state.source.partition,
        state.source.offset,
        state.source.timestamp_ms,
        write.epoch,
        state.payload_hash,
        message.lead_id,
        message.business_id,
        message.tenant_id,
        message.intent,
        message.confidence,
        state.plan.handler,
        state.plan.escalate,
        to_json(asdict(message)),
        to_json(plan_to_json(state.plan)),
        state.key,
        state.value,
        headers_to_json(state.headers),
        state.reason,
        state.error,
        write.write_id,
        write.resume_in,
        status in TERMINAL,
    )


UPDATE = """
UPDATE sagas AS s SET status = u.status, epoch = u.epoch, reason = u.reason, error = u.error,
    write_id = u.write_id, updated_at = now(), stuck_retries = u.stuck_retries,
    resume_at = now() + u.resume_in * interval '1 second',
    finished_at = CASE WHEN u.terminal THEN now() ELSE s.finished_at END
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::uuid[], $7::int[],
    $8::float8[], $9::bool[])
    AS u(processing_id, status, epoch, reason, error, write_id, stuck_retries, resume_in, terminal)
WHERE s.processing_id = u.processing_id
"""


async def update_sagas(connection: Connection, writes: Iterable[SagaWrite]) -> None:
    """Every write leaves its write id with its saga, by which an unknown COMMIT is recognised."""
    rows = [
        (
            write.state.message.processing_id,
            (write.status or write.state.status).value,
            write.epoch,
            write.state.reason,
            write.state.error,
            write.write_id,
            write.state.stuck_retries,
            write.resume_in,
            (write.status or write.state.status) in TERMINAL,
        )
        for write in writes
        if not write.claim
    ]
    await insert_rows(connection, UPDATE, rows)


STEPS = """
INSERT INTO saga_steps AS s (processing_id, run, ordinal, direction, action, sub_step, status, key,
    attempts, in_doubt, circuit_wait, due_at, request, output, error, first_attempt_at,
    last_attempt_at, redrives, finished_at)
SELECT u.a, u.b, u.c, u.d, u.e, u.f, u.g, u.h, u.i, u.j, u.k, u.l, u.m, u.n::jsonb, u.o, u.p, u.q,
    u.r::jsonb, CASE WHEN u.g IN ('DONE', 'FAILED') THEN now() END
FROM unnest($1::text[], $2::int[], $3::int[], $4::text[], $5::text[], $6::text[], $7::text[],
    $8::text[], $9::int[], $10::bool[], $11::float8[], $12::timestamptz[], $13::bytea[],
    $14::text[], $15::text[], $16::timestamptz[], $17::timestamptz[], $18::text[])
    AS u(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r)
ON CONFLICT (processing_id, run, ordinal, direction) DO UPDATE SET status = excluded.status,
    key = excluded.key, attempts = excluded.attempts, in_doubt = excluded.in_doubt,
    circuit_wait = excluded.circuit_wait, due_at = excluded.due_at, request = excluded.request,
    output = excluded.output, error = excluded.error,
    first_attempt_at = excluded.first_attempt_at, last_attempt_at = excluded.last_attempt_at,
    redrives = excluded.redrives, finished_at = excluded.finished_at
"""


async def upsert_steps(connection: Connection, writes: Iterable[SagaWrite]) -> None:
    rows = []
    for write in writes:
        # The last row of a step wins: one write may stage it more than once.
        latest: dict[tuple[int, str], StepRow] = {
            (row.ordinal, row.direction): row for row in write.steps
        }
        for row in latest.values():
            step = write.state.plan.steps[row.ordinal]
            rows.append(
                (
                    write.state.message.processing_id,
                    write.state.run,
                    row.ordinal,
                    row.direction,
                    step.action,
                    step.sub_step,
                    row.status.value,
                    row.key,
                    row.attempts,
                    row.in_doubt,
                    row.circuit_wait,
                    row.due_at,
                    row.request,
                    None if row.output is None else to_json(row.output),
                    row.error,
                    row.first_attempt_at,
                    row.last_attempt_at,
                    to_json(row.redrives),
                )
            )
    await insert_rows(connection, STEPS, rows)


OUTBOX = """
INSERT INTO outbox (record_id, consumer_group, source_topic, source_partition, topic, key, value,
    headers, lead_id)
SELECT u.a, $1, u.b, u.c, u.d, u.e, u.f, u.g, u.h
FROM unnest($2::text[], $3::text[], $4::int[], $5::text[], $6::bytea[], $7::bytea[], $8::jsonb[],
    $9::text[]) WITH ORDINALITY AS u(a, b, c, d, e, f, g, h, n)
ORDER BY u.n
ON CONFLICT (record_id) DO NOTHING
"""


async def insert_outbox(
    connection: Connection, consumer_group: str, writes: Iterable[SagaWrite]
) -> None:
    rows = [
        (
            record.id,
            write.state.source.topic,
            write.state.source.partition,
            record.topic,
            record.key,
            record.value,
            headers_to_json(record.headers),
            write.state.message.lead_id,
        )
        for write in writes
        for record in write.outbox
    ]
    if rows:
        columns = (list(column) for column in zip(*rows, strict=True))
        await connection.execute(OUTBOX, consumer_group, *columns)


PROCESSED = """
INSERT INTO processed_messages AS p (message_id, lead_id, processing_status, processed_at,
    expires_at)
SELECT u.a, u.b, u.c, now(), now() + $1 * interval '1 second'
FROM unnest($2::text[], $3::text[], $4::text[]) AS u(a, b, c)
ON CONFLICT (message_id) DO UPDATE SET processing_status = excluded.processing_status,
    processed_at = excluded.processed_at, expires_at = excluded.expires_at
"""


async def upsert_processed(
    connection: Connection, window: float, writes: Iterable[SagaWrite]
) -> None:
    rows = [
        (write.state.message.processing_id, write.state.message.lead_id, write.processing_status)
        for write in writes
        if write.processing_status
    ]
    if rows:
        columns = (list(column) for column in zip(*rows, strict=True))
        await connection.execute(PROCESSED, window, *columns)
