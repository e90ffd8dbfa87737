"""Marks dead letters for their redrive, and says why one cannot be sent again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from streamapp.pipeline.dead_letter import NO_RUN, DeadLetter, parse_headers
from streamapp.pipeline.messages import InvalidPayload, decode
from streamapp.pipeline.outcomes import Headers, Record
from streamapp.pipeline.redrive import Redrive, redrive_headers, redrive_of
from streamapp.saga.letters import first_source
from streamapp.saga.model import SagaState, SagaStatus
from streamapp.storage.batch import headers_from_json
from streamapp.storage.connection import Pool, Session
from streamapp.storage.operations import Refused, Unknown, audit
from streamapp.storage.sagas import load_sagas


@dataclass(frozen=True, slots=True)
class Redriven:
    """A dead letter that is marked: what has to be sent, and to which partition."""

    dead_letter_id: str
    message_id: str
    redrive: Redrive
    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers


# By the name of a message, what is unresolved comes first.
_FIND = """
SELECT * FROM dead_letter_queue
WHERE dead_letter_id = $1 OR message_id = $1 OR letter_ids @> ARRAY[$1]
ORDER BY (dead_letter_id = $1 OR letter_ids @> ARRAY[$1]) DESC, (status <> 'resolved') DESC,
    (action = '') DESC, created_at DESC LIMIT 1 FOR UPDATE
"""

_MARK = "UPDATE dead_letter_queue SET status = $2, updated_at = now() WHERE dead_letter_id = $1"

# Unless the letter was answered meanwhile by another one, or settled.
_TAKE_BACK = """
UPDATE dead_letter_queue SET status = 'failed', updated_at = now()
WHERE dead_letter_id = $1 AND status = 'retrying' AND letter_ids[cardinality(letter_ids)] = $2
RETURNING true
"""


class Redrives:
    """Every method raises ``faults.DATABASE_ERRORS``."""

    def __init__(self, pool: Pool, *, input_topic: str, max_payload_bytes: int) -> None:
        self._pool = pool
        self._topic = input_topic
        self._max_payload_bytes = max_payload_bytes

    async def mark(self, name: str, actor: str, value: bytes | None = None) -> Redriven:
        """Mark a dead letter ``retrying``, by its id or its message's, and write down by whom.

        ``value`` is sent in place of the letter's own. Marked again, a letter gives the same
        redrive: who died before it was sent repeats the command, and who sends it twice has the
        second one dropped. Raises ``Unknown`` or ``Refused``; nothing is marked then.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(_FIND, name)
            if row is None:
                raise Unknown(f"there is no dead letter {name!r}")
            redriven = await self._check(connection, row, value)
            await connection.execute(_MARK, redriven.dead_letter_id, "retrying")
            details = {
                "message_id": redriven.message_id,
                "redrive": redriven.redrive.id,
                "run": redriven.redrive.run,
                "action": redriven.redrive.action,
                "edited": value is not None,
            }
            await audit(connection, actor, "dlq.retry", redriven.dead_letter_id, details)
        return redriven

    async def take_back(self, redriven: Redriven, actor: str, error: str) -> None:
        """The broker refused it for good: the letter stands as before."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.fetchval(_TAKE_BACK, redriven.dead_letter_id, redriven.redrive.id)
            details = {"redrive": redriven.redrive.id, "error": error}
            await audit(connection, actor, "dlq.retry.refused", redriven.dead_letter_id, details)

    async def _check(self, connection: Session, row: Any, value: bytes | None) -> Redriven:
        id_, action = row["dead_letter_id"], row["action"]
        if row["status"] == "resolved":
            raise Refused(f"dead letter {id_} is resolved already")
        headers = headers_from_json(row["headers"])
        letter = parse_headers(headers)
        if letter is None or letter.origin.topic != self._topic:
            raise Refused(f"dead letter {id_} does not come from topic {self._topic}")
        if action and value is not None:
            raise Refused("an action is repeated as it was planned: its value cannot be edited")
        sent = value if value is not None else row["original_value"]
        processing_id = self._processing_id(row, letter, sent)
        saga = (await load_sagas(connection, [processing_id])).get(processing_id)
        if saga is not None and first_source(saga) != letter.origin:
            saga = None  # another message has this id: that is for the pipeline to say
        if saga is not None:
            self._check_saga(saga, row)
        elif row["has_saga"] or action:
            raise Refused(
                f"the saga of dead letter {id_} is gone by retention, or the value is another "
                "message's: it is not run again, as nobody knows what was done"
            )
        run = row["run"] if saga is not None else NO_RUN
        redrive = Redrive(row["letter_ids"][-1], run, action)
        return Redriven(
            dead_letter_id=id_,
            message_id=row["message_id"],
            redrive=redrive,
            topic=letter.origin.topic,
            partition=letter.origin.partition,
            key=row["original_key"],
            value=sent,
            headers=redrive_headers(headers, letter.origin, redrive),
        )

    def _processing_id(self, row: Any, letter: DeadLetter, value: bytes | None) -> str:
        """Whose saga is asked for: what the record says that will be sent."""
        origin = letter.origin
        record = Record(
            origin.topic,
            origin.partition,
            origin.offset,
            origin.timestamp_ms,
            row["original_key"],
            value,
        )
        try:
            return decode(record, max_payload_bytes=self._max_payload_bytes).processing_id
        except InvalidPayload as error:
            if row["has_saga"]:
                raise Refused(f"the value is no valid message: {error}") from None
            return error.processing_id or row["message_id"]

    def _check_saga(self, saga: SagaState, row: Any) -> None:
        id_ = saga.message.processing_id
        if saga.status is SagaStatus.STUCK:
            raise Refused(f"saga {id_} is STUCK: resume it, do not redrive it")
        if saga.status is SagaStatus.RESOLVED:
            raise Refused(f"saga {id_} was resolved by a person: it is not run again")
        if saga.status in (SagaStatus.RUNNING, SagaStatus.COMPENSATING):
            under_way = redrive_of(saga.headers)
            # Sent once more, the redrive that is under way is dropped as a duplicate.
            if under_way is None or under_way.id != row["letter_ids"][-1]:
                raise Refused(f"saga {id_} is {saga.status}: wait for its end")
        if saga.status is SagaStatus.COMPENSATED and row["action"]:
            raise Refused(
                f"saga {id_} was undone, its actions with it: redrive the letter of the whole "
                "message"
            )
