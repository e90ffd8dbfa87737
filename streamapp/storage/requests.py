"""People's requests on stuck sagas: asked for here, carried out by the owner of the partition.

Nobody but the owner writes sagas, so whoever wants one resumed or resolved leaves a request. It
is carried out in the lane of the saga's lead, at most once, and noted in that same commit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from streamapp.saga.model import SagaStatus, SagaWrite
from streamapp.storage.batch import insert_rows, to_json
from streamapp.storage.connection import Connection, Pool, Session
from streamapp.storage.operations import Refused, Unknown, audit

MAX_REASON = 2000  # characters


class RequestKind(StrEnum):
    RESUME = "resume"
    RESOLVE = "resolve"


@dataclass(frozen=True, slots=True)
class Request:
    """A request that waits for the partition's owner."""

    request_id: int
    kind: RequestKind
    actor: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was taken in, or that waited already (``repeated``)."""

    processing_id: str
    request_id: int
    kind: RequestKind
    requested_at: datetime
    repeated: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "processing_id": self.processing_id,
            "requested": True,
            "request_id": self.request_id,
            "kind": self.kind.value,
            "requested_at": self.requested_at.isoformat(),
            "repeated": self.repeated,
        }


_ASK = """
INSERT INTO saga_requests (processing_id, kind, reason, actor) VALUES ($1, $2, $3, $4)
ON CONFLICT (processing_id, kind) WHERE carried_out_at IS NULL DO NOTHING
RETURNING request_id, requested_at
"""

_WAITING = """
SELECT request_id, requested_at FROM saga_requests
WHERE processing_id = $1 AND kind = $2 AND carried_out_at IS NULL
"""

_OPEN = """
SELECT s.processing_id, s.partition, s.original_key FROM sagas s
JOIN (SELECT processing_id, min(request_id) AS first FROM saga_requests
    WHERE carried_out_at IS NULL GROUP BY processing_id) r USING (processing_id)
WHERE s.consumer_group = $1 AND s.topic = $2 AND s.partition = ANY($3)
ORDER BY r.first LIMIT $4
"""

_CARRIED_OUT = """
UPDATE saga_requests AS r SET carried_out_at = now(), result = u.result
FROM unnest($1::bigint[], $2::text[]) AS u(request_id, result) WHERE r.request_id = u.request_id
"""

_AUDIT = """
INSERT INTO audit_log (actor, action, target, details)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::jsonb[])
"""


class SagaRequests:
    """Takes requests in, and tells the owner of a saga's partition of them. Every method raises
    ``faults.DATABASE_ERRORS``."""

    def __init__(self, pool: Pool, consumer_group: str, topic: str) -> None:
        self._pool = pool
        self._group = consumer_group
        self._topic = topic

    async def ask(
        self, kind: RequestKind, processing_id: str, actor: str, reason: str | None = None
    ) -> Asked:
        """Leave a request for a STUCK saga. Raises ``Unknown`` or ``Refused``.

        While one of this kind waits, who asks again is told of that one.
        """
        reason = reason.strip() if reason is not None else None
        if kind is RequestKind.RESOLVE and not reason:
            raise Refused("resolving a saga needs a reason")
        if reason is not None and (len(reason) > MAX_REASON or "\0" in reason):
            raise Refused(f"a reason has at most {MAX_REASON} characters, and no NUL")
        async with self._pool.acquire() as connection, connection.transaction():
            await self._check_stuck(connection, processing_id)
            row = await connection.fetchrow(_ASK, processing_id, kind.value, reason, actor)
            repeated = row is None
            if row is None:
                row = await connection.fetchrow(_WAITING, processing_id, kind.value)
            if row is None:
                raise Refused(f"the same request for saga {processing_id} was carried out just now")
            details = {"request_id": row["request_id"], "reason": reason, "repeated": repeated}
            await audit(connection, actor, f"saga.{kind.value}", processing_id, details)
        return Asked(processing_id, row["request_id"], kind, row["requested_at"], repeated)

    async def _check_stuck(self, connection: Session, processing_id: str) -> None:
        saga = await connection.fetchrow(
            "SELECT status, consumer_group, topic FROM sagas WHERE processing_id = $1",
            processing_id,
        )
        if saga is None:
            raise Unknown(f"there is no saga {processing_id!r}")
        if saga["status"] != SagaStatus.STUCK.value:
            raise Refused(f"saga {processing_id} is {saga['status']}, not STUCK")
        if (saga["consumer_group"], saga["topic"]) != (self._group, self._topic):
            raise Refused(
                f"saga {processing_id} belongs to consumer group {saga['consumer_group']} "
                f"and topic {saga['topic']}"
            )

    async def waiting(
        self, partitions: list[int], limit: int
    ) -> list[tuple[str, int, bytes | None]]:
        """Sagas with open requests, oldest first: (processing id, partition, record key)."""
        records = await self._pool.fetch(_OPEN, self._group, self._topic, partitions, limit)
        return [(r["processing_id"], r["partition"], r["original_key"]) for r in records]

    async def next(self, processing_id: str) -> Request | None:
        """The oldest open request on a saga."""
        record = await self._pool.fetchrow(
            "SELECT request_id, kind, actor FROM saga_requests "
            "WHERE processing_id = $1 AND carried_out_at IS NULL ORDER BY request_id LIMIT 1",
            processing_id,
        )
        if record is None:
            return None
        return Request(record["request_id"], RequestKind(record["kind"]), record["actor"])


async def lock_open(connection: Connection, writes: Iterable[SagaWrite]) -> set[int]:
    """Lock those requests of the writes that are open, in a transaction of the journal."""
    request_ids = [write.request.request_id for write in writes if write.request is not None]
    if not request_ids:
        return set()
    records = await connection.fetch(
        "SELECT request_id FROM saga_requests WHERE request_id = ANY($1::bigint[]) "
        "AND carried_out_at IS NULL ORDER BY request_id FOR UPDATE",
        request_ids,
    )
    return {record["request_id"] for record in records}


def still_open(write: SagaWrite, waiting: set[int]) -> bool:
    """Each request is carried out at most once, whoever owned its partition meanwhile."""
    return write.request is None or write.request.request_id in waiting


async def note_carried_out(connection: Connection, writes: Iterable[SagaWrite]) -> None:
    """Close the requests that these writes carry out, and audit what became of them."""
    done: list[tuple[int, str]] = []
    lines: list[tuple[Any, ...]] = []
    for write in writes:
        request = write.request
        if request is None:
            continue
        done.append((request.request_id, request.result))
        details = {
            "request_id": request.request_id,
            "asked_by": request.asked_by,
            "result": request.result,
            "run": write.state.run,
        }
        lines.append(
            (
                request.carried_out_by,
                f"saga.{request.kind}.carried_out",
                write.state.message.processing_id,
                to_json(details),
            )
        )
    await insert_rows(connection, _CARRIED_OUT, done)
    await insert_rows(connection, _AUDIT, lines)
