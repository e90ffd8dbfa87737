"""One passage through one saga: forward, backward, or through one action again.

The transactions of a run, in order: the claim with the own-database steps that come first and
STARTED of the first external one; for each external step its DONE with what follows, up to the
next STARTED; the last one carries the terminal state, the reply and what the record's delivery
needs. So n external steps one after the other cost n + 1 commits, none costs one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import orjson

from streamapp.actions.base import Executor, ExternalExecutor, OwnExecutor
from streamapp.actions.registry import REPLY
from streamapp.actions.topics import APOLOGY
from streamapp.actions.wording import fill_in, warn
from streamapp.pipeline.outcomes import Reason
from streamapp.saga.attempts import Attempts, Failure
from streamapp.saga.ids import Direction, row_id
from streamapp.saga.letters import was_dead_lettered
from streamapp.saga.model import (
    PLAN_VERSION,
    OutboxRecord,
    SagaStatus,
    Step,
    StepRow,
    StepStatus,
    WriteRefused,
)
from streamapp.saga.operations import Operation, SendMessage, SetLeadStatus
from streamapp.saga.parking import Parking
from streamapp.saga.passage import Passage, failed_actions, may_have_effect
from streamapp.saga.serialization import error_text

if TYPE_CHECKING:
    from streamapp.saga.executor import SagaExecutor

_AFTER = "; after "


class Running:
    """One passage through one saga, to its end.

    ``one_by_one``: a transaction was refused, so that each step has its own until it is found out
    which is at fault.
    """

    def __init__(
        self,
        executor: SagaExecutor,
        passage: Passage,
        parking: Parking,
        *,
        one_by_one: bool = False,
    ) -> None:
        self.executor = executor
        self.passage = passage
        self.parking = parking
        self.state = passage.state
        self.observer = executor.observer
        self._one_by_one = one_by_one

    async def advance(self) -> None:
        if self.state.plan.version != PLAN_VERSION:
            await self.park(Reason.PLAN_CHANGED, "the stored plan has a form of another version")
            return
        if self._one_by_one and not self.passage.claimed:
            await self.passage.flush()
        if self.state.status is SagaStatus.RUNNING:
            await self._forward()
        if self.state.status is SagaStatus.COMPENSATING:
            await self._compensate()

    # Forward

    async def _forward(self) -> None:
        for step in self.state.plan.steps:
            row = self.passage.row(step)
            if row is not None and row.status in (StepStatus.DONE, StepStatus.FAILED):
                continue
            executor = await self._executor(step)
            if executor is None:
                await self.park(Reason.PLAN_CHANGED, no_code_runs(step))
                return
            failure = await self._carry_out(step, executor)
            if failure is not None:
                if step.required:
                    await self._begin_compensation(failure)
                    return
                self._record_failed_action(step, failure)
        self.passage.stage_status(SagaStatus.COMPLETED, processing="success")
        if was_dead_lettered(self.state):
            unsettled = failed_actions(self.passage)
            self.passage.stage_settlement(
                self.executor.letters.settlement(self.state, unsettled=unsettled)
            )
        self._tell_end(SagaStatus.COMPLETED)
        await self.passage.flush()

    async def _executor(self, step: Step) -> Executor | None:
        """The code that runs a step here, with what it needs; None where it has to wait for it."""
        executor = self.executor.registry.executor(step.executor, step.version)
        if isinstance(executor, ExternalExecutor) and not await executor.ready(self.state.message):
            return None
        return executor

    async def _carry_out(self, step: Step, executor: Executor) -> Failure | None:
        if isinstance(executor, OwnExecutor):
            return await self._own(step, executor)
        return await self._external(step, executor, "forward")

    async def _own(self, step: Step, executor: OwnExecutor) -> Failure | None:
        row = _own_row(step, "forward", self.passage.row(step))
        await self._settle()
        try:
            context = self.passage.context(step)
            operations = executor.operations(context)
            row.output = executor.output(context)
        except Exception as error:
            return self._failed(row, Reason.HANDLER_ERROR, repr(error))
        self._stage(step, row, operations)
        action = step.action
        self.passage.after(lambda: self.observer.step_finished(action, "done", None))
        if self._one_by_one:
            try:
                await self.passage.flush()
            except WriteRefused as error:
                self.passage.drop_staged()
                return self._failed(row, Reason.HANDLER_ERROR, error)
        return None

    async def _settle(self) -> None:
        """One by one, a refused transaction must take nothing with it but its own step."""
        if self._one_by_one:
            await self.passage.flush()

    def _failed(self, row: StepRow, reason: Reason, error: object) -> Failure:
        """A step failed for good by a defect, or by what it wants to store."""
        text = error_text(error)
        row = replace(row, status=StepStatus.FAILED, error=text, output=None)
        self.passage.stage(row)
        action, direction = self.state.plan.steps[row.ordinal].action, row.direction
        if direction == "forward":
            self.passage.after(lambda: self.observer.step_finished(action, "failed", None))
        else:
            self.passage.after(lambda: self.observer.compensation_finished(action, "failed"))
        return Failure(reason, text, row)

    def _stage(self, step: Step, row: StepRow, operations: Sequence[Operation]) -> None:
        rows: list[Operation] = []
        for operation in operations:
            if isinstance(operation, SendMessage):
                self.passage.stage_record(self._outbound(operation))
                self.passage.after(self.observer.responded)
            else:
                rows.append(operation)
        self.passage.stage(row, rows)
        if any(isinstance(operation, SetLeadStatus) for operation in rows):
            self.passage.after(lambda: self._tell_lead_change(step))

    def _tell_lead_change(self, step: Step) -> None:
        output = self.state.steps[step.ordinal, "forward"].output or {}
        if "previous_status" in output:
            self.observer.lead_changed(output["previous_status"] or "none", output["status"])

    def _outbound(self, operation: SendMessage) -> OutboxRecord:
        message = self.state.message
        value = {
            "message_id": operation.message_id,
            "lead_id": message.lead_id,
            "business_id": message.business_id,
            "tenant_id": message.tenant_id,
            "to": operation.to,
            "text": operation.text,
            "in_reply_to": message.processing_id,
            "created_at": datetime.now(UTC).isoformat(),
        }
        return OutboxRecord(
            id=operation.message_id,
            topic=self.executor.config.outbound_topic,
            key=message.lead_id.encode(),
            value=orjson.dumps(value),
            headers=(),
        )

    async def _external(
        self, step: Step, executor: ExternalExecutor, direction: Direction
    ) -> Failure | None:
        config, circuit = self.executor.config, executor.circuit(self.state.message)
        attempts = Attempts(
            self.passage,
            step,
            executor,
            direction,
            breaker=self.executor.breakers.get(circuit),
            bulkhead=self.executor.bulkheads.get(circuit, executor.max_concurrent),
            schedule=config.schedule,
            max_wait=config.max_wait_required if step.required else config.max_wait_best_effort,
            parking=self.parking,
            observer=self.observer,
        )
        failure = await attempts.carry_out()
        if failure is None:
            try:
                await self._settle()
            except WriteRefused as error:
                # The effect is there, but its answer cannot be kept, so nobody can rely on it.
                self.passage.drop_staged()
                row = self.passage.row(step, direction)
                assert row is not None
                return self._failed(replace(row, in_doubt=True), Reason.HANDLER_ERROR, error)
        return failure

    def _record_failed_action(self, step: Step, failure: Failure) -> None:
        """A best-effort action failed: it alone is dead-lettered, in the commit of its FAILED."""
        self.passage.stage_record(
            self.executor.letters.for_saga(
                self.state,
                Reason.ACTION_FAILED,
                failure.error,
                action=step.action,
                row=failure.row,
            )
        )
        self.passage.after(lambda: self.observer.dead_lettered(Reason.ACTION_FAILED))

    # Backward

    async def _begin_compensation(self, failure: Failure) -> None:
        """COMPENSATING is durable before anything is undone; nothing goes forward after it."""
        step = self.state.plan.steps[failure.row.ordinal]
        self.state.reason = failure.reason
        self.state.error = f"{step.name}: {failure.error}"
        self.passage.stage_status(SagaStatus.COMPENSATING)
        await self.passage.flush()

    async def _compensate(self) -> None:
        """Undo, in reverse, every step that is done or in doubt."""
        for step in reversed(self.state.plan.steps):
            if not may_have_effect(self.passage.row(step)):
                continue
            row = self.passage.row(step, "compensate")
            if row is not None and row.status is StepStatus.DONE:
                continue
            executor = await self._executor(step)
            if executor is None:
                await self.park(
                    Reason.PLAN_CHANGED,
                    f"no code here undoes {step.executor} version {step.version}",
                )
                return
            if isinstance(executor, OwnExecutor):
                failure = await self._undo_own(step, executor)
            elif executor.compensable:
                failure = await self._external(step, executor, "compensate")
            else:
                continue
            if failure is not None:
                cause = (self.state.error or "").rsplit(_AFTER, 1)[-1]
                await self.park(
                    Reason.COMPENSATION_STUCK,
                    f"compensation of {step.name}: {failure.error}{_AFTER}{cause}",
                )
                return
        self.passage.stage_status(SagaStatus.COMPENSATED, processing="failed")
        self._apologise()
        self._stage_letter(self.state.reason or Reason.HANDLER_ERROR, self.state.error or "")
        self._tell_end(SagaStatus.COMPENSATED)
        await self.passage.flush()

    def _apologise(self) -> None:
        """Tell the customer that it came to nothing, in the commit that says so: once a message,
        however often it is sent again."""
        apology, state = self.state.plan.apology, self.state
        if apology is None:
            return
        context = self.passage.context(state.plan.steps[-1])
        text, error = fill_in(apology, context)
        if error is not None:
            warn(APOLOGY, context, error)
            self.passage.after(lambda: self.observer.text_failed(APOLOGY))
        message_id = row_id("message", state.message.processing_id, state.run, REPLY, APOLOGY)
        self.passage.stage_record(
            self._outbound(SendMessage(message_id, state.message.reply_to, text))
        )
        self.passage.after(self.observer.responded)

    async def _undo_own(self, step: Step, executor: OwnExecutor) -> Failure | None:
        row = _own_row(step, "compensate", None)
        await self._settle()
        forward = self.passage.row(step)
        try:
            operations = executor.compensation(
                self.passage.context(step), (forward and forward.output) or {}
            )
        except Exception as error:
            return self._failed(row, Reason.COMPENSATION_STUCK, repr(error))
        self._stage(step, row, operations)
        action = step.action
        self.passage.after(lambda: self.observer.compensation_finished(action, "done"))
        if self._one_by_one:
            try:
                await self.passage.flush()
            except WriteRefused as error:
                self.passage.drop_staged()
                return self._failed(row, Reason.COMPENSATION_STUCK, error)
        return None

    async def park(self, reason: Reason, error: str) -> None:
        """STUCK: an end for the record, so that the lead's later messages go on."""
        self.state.reason = reason
        self.state.error = error
        self.passage.stage_status(
            SagaStatus.STUCK, processing="failed", resume_in=self._next_retry()
        )
        self._stage_letter(reason, error)
        self._tell_end(SagaStatus.STUCK)
        await self.passage.flush()

    def _next_retry(self) -> float | None:
        """Seconds until the partition's owner tries again; None: a person has to."""
        delays = self.executor.config.stuck_delays
        if not delays:
            return None
        retries = self.state.stuck_retries
        spent = sum(delays[min(n, len(delays) - 1)] for n in range(retries))
        if spent >= self.executor.config.stuck_give_up:
            return None
        return delays[min(retries, len(delays) - 1)]

    def _stage_letter(self, reason: Reason, error: str) -> None:
        self.passage.stage_record(self.executor.letters.for_saga(self.state, reason, error))
        self.passage.after(lambda: self.observer.dead_lettered(reason))

    def _tell_end(self, status: SagaStatus) -> None:
        message, reason = self.state.message, self.state.reason
        self.passage.after(
            lambda: self.observer.saga_finished(message, status.value, reason and reason.value)
        )


def no_code_runs(step: Step) -> str:
    return f"no code here runs {step.executor} version {step.version}"


def _own_row(step: Step, direction: Direction, before: StepRow | None) -> StepRow:
    now = datetime.now(UTC)
    return StepRow(
        ordinal=step.ordinal,
        direction=direction,
        status=StepStatus.DONE,
        attempts=1,
        first_attempt_at=now,
        last_attempt_at=now,
        redrives=before.redrives if before is not None else (),
    )
