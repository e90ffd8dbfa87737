"""One worker's passage through one saga: what is staged, and what is durable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from streamapp.actions.base import StepContext
from streamapp.saga.ids import Direction
from streamapp.saga.journal import Journal
from streamapp.saga.model import (
    CarriedOut,
    OutboxRecord,
    ProcessingStatus,
    SagaState,
    SagaStatus,
    SagaWrite,
    Settlement,
    Step,
    StepRow,
    StepStatus,
)
from streamapp.saga.operations import Operation


class AlreadyClaimed(Exception):
    """A claim found its saga there already."""

    def __init__(self, existing: SagaState) -> None:
        super().__init__(f"saga {existing.message.processing_id} exists")
        self.existing = existing


class Passage:
    """Collects what belongs into one transaction and makes it durable.

    Rows that are staged replace nothing in ``state`` until ``flush`` returned: ``state`` is
    always what the journal holds. Callbacks given to ``after`` run once that is so.
    """

    def __init__(
        self,
        journal: Journal,
        state: SagaState,
        epoch: int,
        *,
        claim: bool,
        revives: bool = False,
    ) -> None:
        self._journal = journal
        self.state = state
        self._epoch = epoch
        self._claim = claim
        self._revives = revives
        self._write = self._new_write()
        self._after: list[Callable[[], None]] = []

    @property
    def claimed(self) -> bool:
        """Whether the saga's run is in the journal."""
        return not self._claim

    def _new_write(self) -> SagaWrite:
        return SagaWrite(
            state=self.state, epoch=self._epoch, claim=self._claim, revives=self._revives
        )

    def row(self, step: Step, direction: Direction = "forward") -> StepRow | None:
        """The step's row as staged, else as durable."""
        for row in reversed(self._write.steps):
            if (row.ordinal, row.direction) == (step.ordinal, direction):
                return row
        return self.state.steps.get((step.ordinal, direction))

    def context(self, step: Step) -> StepContext:
        """What the step's executor may know: the outputs of the steps that are done.

        Those that are staged count: they become durable in the same transaction as what the
        executor makes of them, or before.
        """
        outputs: dict[int, dict[str, Any]] = {}
        for row in chain(self.state.steps.values(), self._write.steps):
            if row.direction == "forward":
                if row.status is StepStatus.DONE and row.output is not None:
                    outputs[row.ordinal] = row.output
                else:
                    outputs.pop(row.ordinal, None)
        steps = self.state.plan.steps
        return StepContext(
            message=self.state.message,
            run=self.state.run,
            step=step,
            outputs=outputs,
            results={steps[ordinal].name: output for ordinal, output in outputs.items()},
        )

    def stage(self, row: StepRow, operations: Sequence[Operation] = ()) -> None:
        """Put a step's row, and the effects that belong to it, into the next transaction."""
        self._write.steps.append(row)
        if operations:
            self._write.operations.append((row, tuple(operations)))

    def stage_status(
        self,
        status: SagaStatus,
        *,
        processing: ProcessingStatus | None = None,
        resume_in: float | None = None,
    ) -> None:
        self._write.status = status
        self._write.processing_status = processing
        self._write.resume_in = resume_in

    def stage_processing(self, processing: ProcessingStatus) -> None:
        self._write.processing_status = processing

    def stage_record(self, record: OutboxRecord) -> None:
        self._write.outbox.append(record)

    def stage_settlement(self, settlement: Settlement) -> None:
        self._write.settlement = settlement

    def stage_request(self, request: CarriedOut) -> None:
        self._write.request = request

    def after(self, callback: Callable[[], None]) -> None:
        self._after.append(callback)

    def drop_staged(self) -> None:
        """Forget what is not durable, after the journal refused it."""
        self._write = self._new_write()
        self._after = []

    async def flush(self) -> float:
        """Make what is staged durable; gives the monotonic time of the commit in seconds.

        Raises ``AlreadyClaimed``, ``Fenced`` or ``WriteRefused``; nothing was written then.
        """
        write = self._write
        if write.empty:
            return 0.0
        written = await self._journal.write(write)
        if written.existing is not None:
            raise AlreadyClaimed(written.existing)
        for row in write.steps:
            answer = written.outputs.get(row.ordinal)
            if answer is not None and row.direction == "forward" and row.output != answer:
                row = replace(row, output={**(row.output or {}), **answer})
            self.state.steps[row.ordinal, row.direction] = row
        if write.status is not None:
            self.state.status = write.status
        self._claim = self._revives = False
        callbacks, self._after = self._after, []
        self._write = self._new_write()
        for callback in callbacks:
            callback()
        return written.at


def may_have_effect(row: StepRow | None) -> bool:
    """Whether the forward step did, or may have done, what its compensation undoes."""
    if row is None:
        return False
    return row.status in (StepStatus.DONE, StepStatus.STARTED) or row.in_doubt


def failed_actions(passage: Passage) -> list[str]:
    """The best-effort actions of the run of which a step failed for good."""
    found = []
    for step in passage.state.plan.steps:
        row = passage.row(step)
        if row is not None and row.status is StepStatus.FAILED:
            found.append(step.action)
    return found


def required_step_failed(state: SagaState) -> bool:
    """Whether the run can only go backward: it does so from this failure on."""
    return any(
        direction == "forward"
        and row.status is StepStatus.FAILED
        and any(step.ordinal == ordinal and step.required for step in state.plan.steps)
        for (ordinal, direction), row in state.steps.items()
    )
