"""The table of deliveries: one row for each reply, the truth about whether it was sent.

A row becomes ``sending`` before the request begins, by a claim of its own; only that claim may
write what came of it. Who finds a row ``sending`` that it did not claim finds a request that nobody
knows the end of. Every method raises ``faults.DATABASE_ERRORS``, and may be repeated after an
error: the repetition of a write that was made changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from streamapp.outbound.reply import Reply
from streamapp.outbound.statuses import ARRIVED, Status, StatusUpdate, lower
from streamapp.storage.connection import Pool

MAX_ERROR = 1000  # characters

_FIND = """
SELECT status, attempts, attempts_before, claim, lead_id, recipient, body, retried_at, reason,
    extract(epoch FROM now() - coalesce(retried_at, received_at))::float8 AS waited,
    extract(epoch FROM due_at - now())::float8 AS due_in
FROM outbound_deliveries WHERE message_id = $1
"""

_COLUMNS = """message_id, consumer_group, lead_id, business_id, tenant_id, recipient, body,
    in_reply_to, created_at"""

# A repetition of the same claim, after a commit that nobody knows of or one that came too late
# for its call, is the same attempt.
_BEGIN = f"""
INSERT INTO outbound_deliveries AS d ({_COLUMNS}, status, attempts, claim, sending_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'sending', 1, $10, now())
ON CONFLICT (message_id) DO UPDATE SET
    status = 'sending',
    attempts = d.attempts + CASE WHEN d.status = 'sending' THEN 0 ELSE 1 END,
    claim = excluded.claim,
    sending_at = now(),
    due_at = NULL,
    updated_at = now()
WHERE d.status = 'pending' OR d.status = 'sending' AND d.claim = excluded.claim
RETURNING attempts
"""  # noqa: S608

_SENT = """
UPDATE outbound_deliveries SET
    status = CASE WHEN status IN ('sending', 'unknown') THEN 'sent' ELSE status END,
    whatsapp_message_id = coalesce(whatsapp_message_id, $3),
    reason = CASE WHEN status = 'failed' THEN reason END,
    error_code = CASE WHEN status = 'failed' THEN error_code END,
    error = CASE WHEN status = 'failed' THEN error END,
    finished_at = coalesce(finished_at, now()),
    updated_at = now()
WHERE message_id = $1 AND claim = $2 AND status <> 'pending' RETURNING true
"""

_END = """
UPDATE outbound_deliveries SET status = $3, reason = $4, error_code = $5, error = $6,
    finished_at = coalesce(finished_at, now()), updated_at = now()
WHERE message_id = $1 AND claim = $2 AND status = ANY($7) RETURNING true
"""

_POSTPONE = """
UPDATE outbound_deliveries SET status = 'pending', reason = $3, error_code = $4, error = $5,
    attempts = attempts - $6, due_at = now() + $7 * interval '1 second', claim = NULL,
    sending_at = NULL, updated_at = now()
WHERE message_id = $1 AND claim = $2 AND status = 'sending' RETURNING true
"""

_KEEP = f"""
INSERT INTO outbound_deliveries AS d ({_COLUMNS}, status, reason, error, finished_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text, $11, $12,
    CASE WHEN $10::text = 'failed' THEN now() END)
ON CONFLICT (message_id) DO UPDATE SET status = excluded.status, reason = excluded.reason,
    error = excluded.error, finished_at = excluded.finished_at, updated_at = now()
WHERE d.status = 'pending' RETURNING true
"""  # noqa: S608

# What is told of an earlier attempt than the last counts only where the customer has it. A row
# that waits for another attempt is not brought down by the failure of the last one.
_APPLY = """
UPDATE outbound_deliveries SET
    status = $4::text,
    whatsapp_message_id = coalesce(whatsapp_message_id, $1),
    reason = CASE WHEN $4::text = 'failed' THEN 'told_by_whatsapp' END,
    error_code = $6,
    error = $7,
    status_at = $8,
    finished_at = coalesce(finished_at, now()),
    updated_at = now()
WHERE status = ANY($5) AND NOT (status = 'pending' AND $4::text = 'failed') AND (
    whatsapp_message_id = $1
    OR message_id = $2 AND whatsapp_message_id IS NULL AND (attempts = $3 OR $9)
)
RETURNING message_id
"""

_KNOWN = """
SELECT true FROM outbound_deliveries WHERE whatsapp_message_id = $1 OR message_id = $2 LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A row, as a sender needs it; times in seconds. ``attempts`` are those since a person last
    asked for one, ``waited`` is counted from then, too."""

    status: Status
    attempts: int = 0
    claim: UUID | None = None
    waited: float = 0.0
    due_in: float = 0.0
    retried_at: datetime | None = None
    reason: str | None = None
    same: bool = True  # lead, number and text are those of the reply that was asked for


class Applied(StrEnum):
    """What became of a status that WhatsApp told."""

    APPLIED = "applied"
    STALE = "stale"  # the row says as much already, or more
    UNKNOWN = "unknown"  # no message of ours


class Deliveries:
    """The rows that senders of one consumer group write; the message id is the key for all."""

    def __init__(self, pool: Pool, consumer_group: str) -> None:
        self._pool = pool
        self._group = consumer_group

    async def find(self, reply: Reply) -> Delivery | None:
        """The reply's row; None where nobody tried to send it, or had to let it wait."""
        row = await self._pool.fetchrow(_FIND, reply.message_id)
        if row is None:
            return None
        return Delivery(
            Status(row["status"]),
            row["attempts"] - row["attempts_before"],
            row["claim"],
            max(0.0, row["waited"]),
            max(0.0, row["due_in"] or 0.0),
            row["retried_at"],
            row["reason"],
            (row["lead_id"], row["recipient"], row["body"])
            == (reply.lead_id, reply.recipient, reply.text),
        )

    async def begin(self, reply: Reply, claim: UUID) -> int | None:
        """Make the row ``sending``: gives the number of the attempt, counted from 1 over the
        row's whole life. None where it is not for us to send it (any more)."""
        number: int | None = await self._pool.fetchval(_BEGIN, *self._values(reply), claim)
        return number

    async def sent(self, message_id: str, claim: UUID, whatsapp_id: str) -> bool:
        """WhatsApp took it. A status that came before stays."""
        return bool(await self._pool.fetchval(_SENT, message_id, claim, whatsapp_id))

    async def failed(
        self, message_id: str, claim: UUID, reason: str, code: int | None, error: str
    ) -> bool:
        """It was definitely not sent, and will not be."""
        return await self._end(message_id, claim, Status.FAILED, reason, code, error)

    async def unknown(
        self, message_id: str, claim: UUID, reason: str, code: int | None, error: str
    ) -> bool:
        """It may have been sent; False where its end was told meanwhile."""
        return await self._end(message_id, claim, Status.UNKNOWN, reason, code, error)

    async def _end(
        self,
        message_id: str,
        claim: UUID,
        status: Status,
        reason: str,
        code: int | None,
        error: str,
    ) -> bool:
        before = [Status.SENDING, *([Status.UNKNOWN] if status is Status.FAILED else [])]
        arguments = (message_id, claim, status, reason, code, _text(error), before)
        return bool(await self._pool.fetchval(_END, *arguments))

    async def postpone(
        self,
        message_id: str,
        claim: UUID,
        reason: str,
        code: int | None,
        error: str,
        *,
        delay: float,
        spent: bool,
    ) -> bool:
        """It was definitely not sent: the next attempt is in ``delay`` seconds. ``spent``: this
        one counts. False where somebody else has the row."""
        arguments = (message_id, claim, reason, code, _text(error), 0 if spent else 1, delay)
        return bool(await self._pool.fetchval(_POSTPONE, *arguments))

    async def wait(self, reply: Reply, reason: str, error: str) -> None:
        """Show that it waits, and for what."""
        await self._keep(reply, Status.PENDING, reason, error)

    async def refuse(self, reply: Reply, reason: str, error: str) -> bool:
        """It is not sent, for a reason of our own; False where it is settled already."""
        return await self._keep(reply, Status.FAILED, reason, error)

    async def _keep(self, reply: Reply, status: Status, reason: str, error: str) -> bool:
        values = (*self._values(reply), status, reason, _text(error))
        return bool(await self._pool.fetchval(_KEEP, *values))

    async def apply(self, update: StatusUpdate) -> Applied:
        """Raise a row to a status that WhatsApp told; none is ever lowered."""
        message_id, attempt = update.referred or (None, 0)
        raised = await self._pool.fetchval(
            _APPLY,
            update.whatsapp_id,
            message_id,
            attempt,
            update.status,
            lower(update.status),
            update.code if update.status is Status.FAILED else None,
            update.error if update.status is Status.FAILED else None,
            update.at,
            update.status in ARRIVED,
        )
        if raised is not None:
            return Applied.APPLIED
        known = await self._pool.fetchval(_KNOWN, update.whatsapp_id, message_id)
        return Applied.STALE if known else Applied.UNKNOWN

    def _values(self, reply: Reply) -> tuple[Any, ...]:
        return (
            reply.message_id,
            self._group,
            reply.lead_id,
            reply.business_id,
            reply.tenant_id,
            reply.recipient,
            reply.text,
            reply.in_reply_to,
            reply.created_at,
        )


def _text(error: str) -> str:
    return error.replace("\0", "")[:MAX_ERROR]
