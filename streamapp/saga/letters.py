"""Dead letters of a saga: outbox records, so that a letter exists if and only if its state does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from streamapp.pipeline.dead_letter import dead_letter, dead_letter_headers, origin_of
from streamapp.pipeline.outcomes import Reason, Record
from streamapp.saga.model import OutboxRecord, SagaState, StepRow


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
    ) -> OutboxRecord:
        """The letter of a saga that failed, or, with ``action``, of one action of it."""
        source = state.source
        record = Record(
            source.topic,
            source.partition,
            source.offset,
            source.timestamp_ms,
            state.key,
            state.value,
            state.headers,
        )
        letter = dead_letter(
            source,
            reason=reason,
            group=self.consumer_group,
            message=error,
            origin=origin_of(record),
            processing_id=state.message.processing_id,
            action=action,
            run=state.run,
            exception="saga",
            attempts=max(1, row.attempts if row else _attempts(state)),
            first_attempt_at=row.first_attempt_at if row else _first_attempt(state),
            last_attempt_at=row.last_attempt_at if row else _last_attempt(state),
        )
        return OutboxRecord(
            id=letter.id,
            topic=self.topic,
            key=state.key,
            value=state.value,
            headers=dead_letter_headers(state.headers, letter),
        )


def _attempts(state: SagaState) -> int:
    return max((row.attempts for row in state.steps.values()), default=1)


def _first_attempt(state: SagaState) -> datetime | None:
    return min(
        (r.first_attempt_at for r in state.steps.values() if r.first_attempt_at), default=None
    )


def _last_attempt(state: SagaState) -> datetime | None:
    return max((r.last_attempt_at for r in state.steps.values() if r.last_attempt_at), default=None)
