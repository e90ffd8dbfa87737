"""Dead letters of a saga: outbox records, so that a letter exists if and only if its state does.

And their end: what a saga settles in the commit of its own success.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from streamapp.pipeline.dead_letter import (
    FROM_SAGA,
    DeadLetter,
    dead_letter,
    dead_letter_headers,
    origin_of,
)
from streamapp.pipeline.outcomes import Reason, Record
from streamapp.pipeline.redrive import redrive_of
from streamapp.saga.model import OutboxRecord, SagaState, Settlement, Source, StepRow


def record_of(state: SagaState) -> Record:
    """The record that the saga's present run came in."""
    source = state.source
    return Record(
        source.topic,
        source.partition,
        source.offset,
        source.timestamp_ms,
        state.key,
        state.value,
        state.headers,
    )


def first_source(state: SagaState) -> Source:
    """The record in which the saga's message came first: that of run 0."""
    return origin_of(record_of(state))


def was_dead_lettered(state: SagaState) -> bool:
    """Whether a letter of the whole message may be there: it was redriven, or parked."""
    return state.stuck_retries > 0 or redrive_of(state.headers) is not None


@dataclass(frozen=True, slots=True)
class Letters:
    """Writes the dead letters of sagas."""

    consumer_group: str
    topic: str

    def for_saga(
        self,
        state: SagaState,
        reason: Reason,
        error: str,
        *,
        action: str = "",
        row: StepRow | None = None,
        redrive: str | None = None,
    ) -> OutboxRecord:
        """The letter of a saga that failed, or, with ``action``, of one action of it; ``redrive``
        is the one that failed where neither the run nor ``row`` tells it."""
        letter = self._letter(state, reason, error, action=action, row=row, redrive=redrive)
        return OutboxRecord(
            id=letter.id,
            topic=self.topic,
            key=state.key,
            value=state.value,
            headers=dead_letter_headers(state.headers, letter),
        )

    def settlement(
        self, state: SagaState, *, action: str = "", unsettled: Iterable[str] = ()
    ) -> Settlement:
        """The message is done, or its ``action`` is: so are its letters.

        Those of the actions in ``unsettled`` stay as they are.
        """
        # Of a saga that went forward again after it was parked, the reason is forgotten.
        reason = state.reason or Reason.PLAN_CHANGED
        letter = self._letter(state, reason, state.error or "", action=action)
        return Settlement(letter.id, letter.origin, reason, action, tuple(unsettled))

    def _letter(
        self,
        state: SagaState,
        reason: Reason,
        error: str,
        *,
        action: str,
        row: StepRow | None = None,
        redrive: str | None = None,
    ) -> DeadLetter:
        record = record_of(state)
        if redrive is None and row is not None and row.redrives:
            # An action that was repeated alone failed in that redrive, not in the run's.
            redrive = row.redrives[-1]
        if redrive is None and (began := redrive_of(state.headers)) is not None:
            redrive = began.id
        return dead_letter(
            state.source,
            reason=reason,
            group=self.consumer_group,
            message=error,
            origin=origin_of(record),
            processing_id=state.message.processing_id,
            action=action,
            run=state.run,
            has_saga=True,
            redrive=redrive or "",
            exception=FROM_SAGA,
            attempts=max(1, row.attempts if row else _attempts(state)),
            first_attempt_at=row.first_attempt_at if row else _first_attempt(state),
            last_attempt_at=row.last_attempt_at if row else _last_attempt(state),
        )


def _attempts(state: SagaState) -> int:
    return max((row.attempts for row in state.steps.values()), default=1)


def _first_attempt(state: SagaState) -> datetime | None:
    return min(
        (r.first_attempt_at for r in state.steps.values() if r.first_attempt_at), default=None
    )


def _last_attempt(state: SagaState) -> datetime | None:
    return max((r.last_attempt_at for r in state.steps.values() if r.last_attempt_at), default=None)
