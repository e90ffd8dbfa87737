"""The table of dead letters: one row for each dead-lettered record, or action of it."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import asyncpg
import orjson

from streamapp.pipeline.dead_letter import MAX_NAME, DeadLetter, dead_letter
from streamapp.pipeline.outcomes import Reason, Record
from streamapp.saga.model import Source
from streamapp.storage.batch import headers_to_json
from streamapp.storage.connection import Pool

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = datetime(9999, 12, 31, tzinfo=UTC)

# A letter is news to its row when it tells of a later run, or of the failure of the redrive that
# answered the newest letter. Times decide nothing. One that was applied already, or is older than
# the row, changes nothing, and no letter brings a settled row back: it was overtaken by its
# redrive's success. The row that a settlement left without any letter is filled in.
_STORE = """
INSERT INTO dead_letter_queue AS d (
    dead_letter_id, letter_ids, message_id, lead_id, topic, partition, "offset",
    record_timestamp, action, run, has_saga, reason, original_key, original_value, headers,
    original_payload, error_message, error_stack, attempt_count, first_attempt_at,
    last_attempt_at, status
) VALUES (
    $1, ARRAY[$1], $2, $3, $4, $5, $6, $7, $8, $9, $20, $10, $11, $12, $13::jsonb, $14::jsonb,
    $15, $16, $17, $18, $19, 'failed'
)
ON CONFLICT (topic, partition, "offset", record_timestamp, action) DO UPDATE SET
    letter_ids = d.letter_ids || excluded.letter_ids,
    message_id = excluded.message_id,
    lead_id = excluded.lead_id,
    run = excluded.run,
    has_saga = d.has_saga OR excluded.has_saga,
    reason = excluded.reason,
    original_key = excluded.original_key,
    original_value = excluded.original_value,
    headers = excluded.headers,
    original_payload = excluded.original_payload,
    error_message = excluded.error_message,
    error_stack = excluded.error_stack,
    attempt_count = d.attempt_count + excluded.attempt_count,
    first_attempt_at = coalesce(d.first_attempt_at, excluded.first_attempt_at),
    last_attempt_at = coalesce(excluded.last_attempt_at, d.last_attempt_at),
    status = CASE WHEN d.settled_at IS NULL THEN 'failed' ELSE d.status END,
    updated_at = now()
WHERE NOT d.letter_ids @> excluded.letter_ids AND (
    cardinality(d.letter_ids) = 0 OR d.settled_at IS NULL AND (
        $21 > CASE WHEN d.has_saga THEN d.run ELSE -1 END
        OR $21 = CASE WHEN d.has_saga THEN d.run ELSE -1 END
            AND $22 = d.letter_ids[cardinality(d.letter_ids)]
    )
)
RETURNING true
"""


class DeadLetterStore:
    """Writes what the records of the dead-letter topic say into ``dead_letter_queue``."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def store(self, record: Record, letter: DeadLetter | None) -> bool:
        """Apply a dead letter; False when it was applied before or is older than its row.

        ``record`` is the one on the dead-letter topic and ``letter`` what its headers say:
        None for somebody else's record, which is stored under its own position. Raises
        ``faults.DATABASE_ERRORS`` when the database is at fault, never for a record's content.
        """
        if letter is None:
            letter = _foreign(record)
        payload = _text(record.value)
        if payload is not None:
            try:
                return await self._insert(record, letter, payload)
            except asyncpg.UniqueViolationError:
                return False  # the id was applied, to another origin: a forged header
            except asyncpg.PostgresError as error:
                # No JSON, or JSON that jsonb refuses: NUL and lone surrogates (22), depth (54).
                if not (error.sqlstate or "").startswith(("22", "54")):
                    raise
        try:
            return await self._insert(record, letter, _encoded(record.value))
        except asyncpg.UniqueViolationError:
            return False

    async def _insert(self, record: Record, letter: DeadLetter, payload: str | None) -> bool:
        stored: bool | None = await self._pool.fetchval(
            _STORE,
            letter.id,
            letter.processing_id or letter.origin.position,
            _lead_id(record),
            letter.origin.topic,
            letter.origin.partition,
            letter.origin.offset,
            moment(letter.origin.timestamp_ms),
            letter.action,
            letter.run,
            letter.reason.value,
            record.key,
            record.value,
            headers_to_json(tuple((_clean(name), value or b"") for name, value in record.headers)),
            payload,
            _clean(letter.message),
            _clean(letter.stacktrace),
            letter.attempts,
            letter.first_attempt_at,
            letter.last_attempt_at,
            letter.has_saga,
            letter.rank,
            letter.redrive,
        )
        return bool(stored)


def _foreign(record: Record) -> DeadLetter:
    source = Source(record.topic, record.partition, record.offset, record.timestamp_ms)
    return dead_letter(
        source,
        reason=Reason.INVALID_PAYLOAD,
        group="",
        message="a record on the dead-letter topic without the headers of a dead letter",
    )


def _text(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _encoded(value: bytes | None) -> str | None:
    if value is None:
        return None
    return f'{{"base64": "{base64.b64encode(value).decode()}"}}'


def _lead_id(record: Record) -> str | None:
    """The key, which names the lead; without one, what the payload says."""
    if record.key:
        return _identifier(_text(record.key))
    try:
        document = orjson.loads(record.value or b"")
    except orjson.JSONDecodeError:
        return None
    if not isinstance(document, dict):
        return None
    inner = document.get("payload")
    found = (inner if isinstance(inner, dict) else document).get("lead_id")
    return _identifier(found) if isinstance(found, str) else None


def _identifier(text: str | None) -> str | None:
    # An index row has a limit: a key may be any bytes, an id may not.
    if text and len(text) <= MAX_NAME and "\0" not in text:
        return text
    return None


def _clean(text: str) -> str:
    return text.replace("\0", "").encode(errors="replace").decode()


def moment(timestamp_ms: int) -> datetime:
    """A record's time; one that no calendar has is cut to the end of year 9999."""
    try:
        return min(_EPOCH + timedelta(milliseconds=timestamp_ms), _LATEST)
    except OverflowError:
        return _LATEST
