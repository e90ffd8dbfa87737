"""What people look at: dead letters, sagas, totals. Reading only.

Texts of customers and of errors are masked unless ``reveal`` is given.
"""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any

import orjson

from streamapp.observability.masking import mask
from streamapp.storage.connection import Pool

MAX_ROWS = 500  # of a list, whatever was asked for
MAX_SHOWN = 65_536  # characters of a payload shown as JSON
MAX_DEPTH = 64  # levels of the same
_UNRESOLVED = "status IN ('failed', 'retrying')"

_DEAD_LETTER_SUMMARY = """
SELECT dead_letter_id, message_id, lead_id, topic, partition, "offset", record_timestamp, action,
    run, reason, left(error_message, 300) AS error_message, attempt_count, first_attempt_at,
    last_attempt_at, status, created_at, updated_at
FROM dead_letter_queue
WHERE ($1::text IS NULL OR status = $1) AND ($2::text IS NULL OR reason = $2)
ORDER BY created_at DESC, dead_letter_id LIMIT $3 OFFSET $4
"""

_DEAD_LETTER = """
SELECT * FROM dead_letter_queue
WHERE dead_letter_id = $1 OR message_id = $1 OR letter_ids @> ARRAY[$1]
ORDER BY (dead_letter_id = $1 OR letter_ids @> ARRAY[$1]) DESC, (status <> 'resolved') DESC,
    (action = '') DESC, created_at DESC LIMIT 1
"""

_SAGA_SUMMARY = """
SELECT processing_id, run, status, lead_id, business_id, tenant_id, intent, handler, reason,
    left(error, 300) AS error, topic, partition, "offset", created_at, updated_at, finished_at
FROM sagas
WHERE ($1::text IS NULL OR status = $1) AND ($2::text IS NULL OR lead_id = $2)
ORDER BY updated_at DESC, processing_id LIMIT $3 OFFSET $4
"""

_SAGA = """
SELECT processing_id, run, status, lead_id, business_id, tenant_id, intent, confidence, handler,
    escalate, topic, partition, "offset", plan, reason, error, stuck_retries, resume_at,
    created_at, updated_at, finished_at
FROM sagas WHERE processing_id = $1
"""

_STUCK = """
SELECT processing_id, run, status, lead_id, business_id, tenant_id, intent, handler, reason,
    left(error, 300) AS error, topic, partition, "offset", stuck_retries, resume_at,
    CASE WHEN resume_at IS NULL THEN 'given_up' ELSE 'parked' END AS level,
    created_at, updated_at, finished_at
FROM sagas WHERE status = 'STUCK' AND ($1::text IS NULL OR lead_id = $1)
ORDER BY resume_at NULLS FIRST, processing_id LIMIT $2
"""

_REQUESTS = """
SELECT request_id, kind, reason, actor, requested_at, carried_out_at, result
FROM saga_requests WHERE processing_id = $1 ORDER BY request_id
"""

_STEPS = """
SELECT run, ordinal, direction, action, sub_step, status, key, attempts, in_doubt, circuit_wait,
    due_at, output, error, first_attempt_at, last_attempt_at, redrives, finished_at
FROM saga_steps WHERE processing_id = $1 ORDER BY run, direction DESC, ordinal
"""


class Queries:
    """The views' data. Every method raises ``faults.DATABASE_ERRORS``.

    Values are those of JSON: times as ISO 8601 text, bytes as base64.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def dead_letters(
        self,
        status: str | None = None,
        reason: str | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> list[dict[str, Any]]:
        """Dead letters, newest first, with masked error texts."""
        records = await self._pool.fetch(
            _DEAD_LETTER_SUMMARY, status, reason, _bounded(limit), max(offset, 0)
        )
        rows = [_row(record) for record in records]
        for row in rows:
            row["error_message"] = _masked(row["error_message"])
        return rows

    async def dead_letter(self, name: str, *, reveal: bool = False) -> dict[str, Any] | None:
        """One dead letter by its id, that of any of its letters, or its message id: then one
        that is not resolved, if there is one, and rather the whole record's than an action's.

        With ``reveal`` the original record comes with it (``key_base64``, ``value_base64``,
        ``headers``) and nothing is masked; without, the payload's texts are. A payload that is
        very large or deep is not shown as JSON, its bytes are whole.
        """
        record = await self._pool.fetchrow(_DEAD_LETTER, name)
        if record is None:
            return None
        key, value = record["original_key"], record["original_value"]
        row = _row(record)
        del row["original_key"], row["original_value"]
        row["headers"] = _headers(record["headers"])
        row["original_payload"] = _document(record["original_payload"])
        if reveal:
            return {**row, "key_base64": _base64(key), "value_base64": _base64(value)}
        payload = row["original_payload"]
        if isinstance(payload, dict) and payload.keys() == {"base64"}:
            row["original_payload"] = "(not JSON)"
        else:
            row["original_payload"] = masked_document(payload)
        row["error_message"] = _masked(row["error_message"])
        row["error_stack"] = _masked(row["error_stack"])
        del row["headers"]
        return row

    async def dead_letter_stats(self) -> dict[str, Any]:
        """Counts by status, unresolved ones by reason, and the time of the oldest of them."""
        by_status = await self._pool.fetch(
            "SELECT status, count(*) AS n FROM dead_letter_queue GROUP BY status"
        )
        by_reason = await self._pool.fetch(
            f"SELECT reason, count(*) AS n FROM dead_letter_queue WHERE {_UNRESOLVED} "  # noqa: S608
            "GROUP BY reason"
        )
        oldest = await self._pool.fetchval(
            f"SELECT min(created_at) FROM dead_letter_queue WHERE {_UNRESOLVED}"  # noqa: S608
        )
        return {
            "by_status": {record["status"]: record["n"] for record in by_status},
            "unresolved_by_reason": {record["reason"]: record["n"] for record in by_reason},
            "oldest_unresolved": _value(oldest),
        }

    async def sagas(
        self,
        status: str | None = None,
        lead_id: str | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> list[dict[str, Any]]:
        """Sagas, the most recently changed first, with masked error texts."""
        records = await self._pool.fetch(
            _SAGA_SUMMARY, status, lead_id, _bounded(limit), max(offset, 0)
        )
        rows = [_row(record) for record in records]
        for row in rows:
            row["error"] = _masked(row["error"])
        return rows

    async def stuck_sagas(
        self, lead_id: str | None = None, limit: int = 50
    ) -> list[dict[str, Any]]:
        """STUCK sagas, those that nothing but a person moves (``level`` given_up) first, then
        those that are ``parked`` until ``resume_at``; with masked error texts."""
        records = await self._pool.fetch(_STUCK, lead_id, _bounded(limit))
        rows = [_row(record) for record in records]
        for row in rows:
            row["error"] = _masked(row["error"])
        return rows

    async def saga(self, processing_id: str, *, reveal: bool = False) -> dict[str, Any] | None:
        """A saga with its steps, people's requests on it and, in the words of the guide, its
        result.

        ``executed_actions`` are those whose steps of the present run are all done,
        ``failed_actions`` those of which one failed for good; both in the plan's order.
        """
        async with (
            self._pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            record = await connection.fetchrow(_SAGA, processing_id)
            if record is None:
                return None
            steps = await connection.fetch(_STEPS, processing_id)
            requests = await connection.fetch(_REQUESTS, processing_id)
        saga = _row(record)
        plan = _json(record["plan"]) or {}
        saga["plan"] = plan
        saga["steps"] = [
            {**_row(step), "output": _json(step["output"]), "redrives": _json(step["redrives"])}
            for step in steps
        ]
        saga["requests"] = [_row(request) for request in requests]
        executed, failed = _actions(plan, [step for step in steps if step["run"] == record["run"]])
        reply = plan.get("reply")
        saga.update(
            executed_actions=executed,
            failed_actions=failed,
            should_respond=bool(reply),
            response_message=reply,
        )
        return saga if reveal else _masked_saga(saga)

    async def stats(self) -> dict[str, Any]:
        """Totals: sagas by status, messages by status, dead letters, outbox, tasks by status."""
        sagas = await self._pool.fetch("SELECT status, count(*) AS n FROM sagas GROUP BY status")
        processed = await self._pool.fetch(
            "SELECT processing_status, count(*) AS n FROM processed_messages "
            "GROUP BY processing_status"
        )
        tasks = await self._pool.fetch("SELECT status, count(*) AS n FROM tasks GROUP BY status")
        outbox = await self._pool.fetchrow(
            "SELECT count(*) FILTER (WHERE failed_at IS NULL) AS backlog, "
            "count(*) FILTER (WHERE failed_at IS NOT NULL) AS failed, "
            "min(created_at) FILTER (WHERE failed_at IS NULL) AS oldest "
            "FROM outbox WHERE published_at IS NULL"
        )
        assert outbox is not None
        return {
            "sagas": {record["status"]: record["n"] for record in sagas},
            "processed_messages": {
                record["processing_status"]: record["n"] for record in processed
            },
            "tasks": {record["status"]: record["n"] for record in tasks},
            "outbox": _row(outbox),
            "dead_letters": await self.dead_letter_stats(),
        }


def masked_document(value: Any) -> Any:
    """A JSON document with every text in it masked; ids of ours stay readable."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, list):
        return [masked_document(item) for item in value]
    if isinstance(value, dict):
        return {
            name: item if name in _IDS and isinstance(item, str) else masked_document(item)
            for name, item in value.items()
        }
    return value


_IDS = frozenset({"processing_id", "lead_id", "business_id", "tenant_id", "event_id", "timestamp"})


def _actions(plan: dict[str, Any], steps: list[Any]) -> tuple[list[str], list[str]]:
    states = {step["ordinal"]: step["status"] for step in steps if step["direction"] == "forward"}
    executed, failed = [], []
    for action in plan.get("actions", []):
        found = [
            states.get(step["ordinal"])
            for step in plan.get("steps", [])
            if step["action"] == action
        ]
        if "FAILED" in found:
            failed.append(action)
        elif found and all(status == "DONE" for status in found):
            executed.append(action)
    return executed, failed


def _masked_saga(saga: dict[str, Any]) -> dict[str, Any]:
    plan = saga["plan"]
    return {
        **saga,
        "error": _masked(saga["error"]),
        "plan": {
            **plan,
            "metadata": masked_document(plan.get("metadata")),
            "reply": _masked(plan.get("reply")),
            "steps": [
                {**step, "params": masked_document(step.get("params"))}
                for step in plan.get("steps", [])
            ],
        },
        "steps": [
            {**step, "output": masked_document(step["output"]), "error": _masked(step["error"])}
            for step in saga["steps"]
        ],
        "requests": [
            {**request, "reason": _masked(request["reason"])} for request in saga["requests"]
        ],
        "response_message": _masked(saga["response_message"]),
    }


def _bounded(limit: int) -> int:
    return min(max(limit, 1), MAX_ROWS)


def _row(record: Any) -> dict[str, Any]:
    return {name: _value(value) for name, value in record.items()}


def _value(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _json(text: str | None) -> Any:
    return None if text is None else orjson.loads(text)


def _document(text: str | None) -> Any:
    """A payload for showing. It may be anything that jsonb takes: size, depth, numbers."""
    if text is None:
        return None
    if len(text) > MAX_SHOWN:
        return "(too large to show)"
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    level = [document]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return document
    return text


def _headers(text: str) -> list[dict[str, str]]:
    """Headers as text where they are some, else as base64; names may repeat."""
    shown = []
    for name, encoded in orjson.loads(text):
        try:
            shown.append({"name": name, "value": base64.b64decode(encoded).decode()})
        except UnicodeDecodeError:
            shown.append({"name": name, "value_base64": encoded})
    return shown


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _masked(text: str | None) -> str | None:
    return None if text is None else mask(text)
