"""What people see of deliveries, and their word that one is to be sent again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from streamapp.observability.masking import mask
from streamapp.outbound.statuses import Status
from streamapp.storage.connection import Pool
from streamapp.storage.operations import Refused, Unknown, audit
from streamapp.storage.queries import MAX_ROWS

# A request is over by then, whoever made it: what still says that it is under way was left behind.
ABANDONED = 600.0  # seconds

_COLUMNS = """message_id, lead_id, business_id, tenant_id, recipient, status, reason, error_code,
    error, attempts, whatsapp_message_id, in_reply_to, created_at, received_at, due_at, sending_at,
    finished_at, retried_at, status_at, updated_at"""

_LIST = f"""
SELECT {_COLUMNS} FROM outbound_deliveries
WHERE ($1::text IS NULL OR status = $1) AND ($2::text IS NULL OR lead_id = $2)
ORDER BY updated_at DESC, message_id LIMIT $3
"""  # noqa: S608
_SHOW = f"SELECT {_COLUMNS}, body FROM outbound_deliveries WHERE message_id = $1"  # noqa: S608

_LOCK = """
SELECT *, sending_at < now() - $2 * interval '1 second' AS abandoned
FROM outbound_deliveries WHERE message_id = $1 FOR UPDATE
"""
# The id at WhatsApp goes: the next attempt gets its own.
_AGAIN = """
UPDATE outbound_deliveries SET status = 'pending', retried_at = now(), attempts_before = attempts,
    claim = NULL, whatsapp_message_id = NULL, due_at = NULL, finished_at = NULL, status_at = NULL,
    updated_at = now()
WHERE message_id = $1
"""


class DeliveryViews:
    """Deliveries as JSON values, phone numbers masked. Raises ``faults.DATABASE_ERRORS``."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def list(
        self, status: str | None = None, lead_id: str | None = None, limit: int = 50
    ) -> list[dict[str, Any]]:
        """Deliveries, the most recently changed first, without their texts."""
        rows = await self._pool.fetch(_LIST, status, lead_id, min(max(limit, 1), MAX_ROWS))
        return [_shown(row) for row in rows]

    async def show(self, message_id: str) -> dict[str, Any] | None:
        """One delivery, its text masked too."""
        row = await self._pool.fetchrow(_SHOW, message_id)
        return None if row is None else _shown(row)


@dataclass(frozen=True, slots=True)
class Again:
    """A delivery that waits for another attempt: the record that brings it to a sender."""

    message_id: str
    key: bytes
    value: bytes


class DeliveryRetries:
    """Lets a reply be sent once more, on a person's word."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def mark(self, message_id: str, actor: str) -> Again:
        """Make a delivery pending that failed or is unknown, and write down by whom.

        Marked already, it gives the same record: who died before it was sent repeats the command.
        Raises ``Refused`` (``Unknown``), and ``faults.DATABASE_ERRORS``.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(_LOCK, message_id, ABANDONED)
            if row is None:
                raise Unknown(f"there is no delivery {message_id!r}")
            status = Status(row["status"])
            asked_before = status is Status.PENDING and row["retried_at"] is not None
            if not asked_before:
                left_behind = status is Status.SENDING and row["abandoned"]
                if status not in (Status.UNKNOWN, Status.FAILED) and not left_behind:
                    raise Refused(
                        f"delivery {message_id} is {status}: only what failed or is unknown is "
                        "sent again"
                    )
                await connection.execute(_AGAIN, message_id)
            details = {"status": status, "whatsapp_message_id": row["whatsapp_message_id"]}
            await audit(connection, actor, "outbound.retry", message_id, details)
        return Again(message_id, row["lead_id"].encode(), _value(row))


def _value(row: Any) -> bytes:
    """The record, as the saga published it."""
    return orjson.dumps(
        {
            "message_id": row["message_id"],
            "lead_id": row["lead_id"],
            "business_id": row["business_id"],
            "tenant_id": row["tenant_id"],
            "to": row["recipient"],
            "text": row["body"],
            "in_reply_to": row["in_reply_to"],
            "created_at": row["created_at"].isoformat(),
        }
    )


def _shown(row: Any) -> dict[str, Any]:
    shown = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in row.items()
    }
    digits = [character for character in shown["recipient"] if character.isdigit()]
    shown["recipient"] = f"***{''.join(digits[-2:])}" if digits else ""
    for name in ("error", "body"):
        if shown.get(name) is not None:
            shown[name] = mask(shown[name])
    return shown
