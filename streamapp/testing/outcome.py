"""What a message has left behind in the database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from streamapp.pipeline.dead_letter import parse_headers
from streamapp.storage.batch import headers_from_json
from streamapp.storage.connection import Pool

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that is there in the end.

    ``steps`` gives the status of each journalled step by its name, that of an undoing with a minus
    before it. ``letters`` are the dead letters: reason and action, which is empty for the whole
    message. Rows are those of the tables, with the table's columns.
    """

    status: str
    error: str | None
    steps: dict[str, str]
    tasks: list[Row]
    activities: list[Row]
    lead_status: str | None
    replies: list[str]
    letters: list[tuple[str, str]]

    @property
    def shape(self) -> dict[str, Any]:
        """The same without what differs from run to run: ids, times, texts of errors."""
        refused = {f"-{name}" for name, status in self.steps.items() if status == "FAILED"}
        return {
            "status": self.status,
            # A step that was refused is undone all the same where a death left it in doubt.
            "steps": {n: status for n, status in self.steps.items() if n not in refused},
            "tasks": sorted(
                (task["task_type"], task["status"], task["priority"]) for task in self.tasks
            ),
            "activities": sorted(row["activity_type"] for row in self.activities),
            "lead status": self.lead_status,
            "replies": len(self.replies),
            "letters": sorted(self.letters),
        }


async def read_outcome(pool: Pool, processing_id: str, dlq: str, outbound: str) -> Outcome:
    """The outcome of a message whose saga is there."""
    saga = await pool.fetchrow("SELECT * FROM sagas WHERE processing_id = $1", processing_id)
    assert saga is not None, f"there is no saga of {processing_id}"
    lead = saga["lead_id"]
    steps = await pool.fetch(
        "SELECT * FROM saga_steps WHERE processing_id = $1 AND run = $2 ORDER BY ordinal",
        processing_id,
        saga["run"],
    )
    outbox = await pool.fetch(
        "SELECT topic, value, headers FROM outbox WHERE lead_id = $1 ORDER BY id", lead
    )
    return Outcome(
        status=saga["status"],
        error=saga["error"],
        steps={_name(step): step["status"] for step in steps},
        tasks=await _rows(pool, "tasks", lead),
        activities=await _rows(pool, "lead_activities", lead),
        lead_status=await pool.fetchval("SELECT status FROM leads WHERE lead_id = $1", lead),
        replies=[orjson.loads(row["value"])["text"] for row in outbox if row["topic"] == outbound],
        letters=[_letter(row["headers"]) for row in outbox if row["topic"] == dlq],
    )


async def _rows(pool: Pool, table: str, lead_id: str) -> list[Row]:
    found = await pool.fetch(
        f"SELECT * FROM {table} WHERE lead_id = $1 ORDER BY created_at",  # noqa: S608  # ours
        lead_id,
    )
    return [dict(row) | {"metadata": orjson.loads(row["metadata"])} for row in found]


def _name(step: Any) -> str:
    sign = "-" if step["direction"] == "compensate" else ""
    sub_step = f".{step['sub_step']}" if step["sub_step"] else ""
    return f"{sign}{step['action']}{sub_step}"


def _letter(headers: str) -> tuple[str, str]:
    letter = parse_headers(headers_from_json(headers))
    assert letter is not None
    return letter.reason.value, letter.action
