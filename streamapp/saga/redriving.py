"""A failed best-effort action of a COMPLETED saga, repeated alone (protocol, 6)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from streamapp.pipeline.outcomes import Reason
from streamapp.saga.attempts import Failure
from streamapp.saga.model import PLAN_VERSION, Step, StepRow, StepStatus
from streamapp.saga.parking import Parking
from streamapp.saga.passage import Passage
from streamapp.saga.running import Running, no_code_runs

if TYPE_CHECKING:
    from streamapp.saga.executor import SagaExecutor


class Redriving(Running):
    """One passage through one action: its steps that are not done, under their keys of the run.

    That a redrive was applied is stored with the steps, in the first commit: who comes back after
    a crash goes on with what is left of it, and the same redrive sent again finds nothing to do.
    """

    def __init__(
        self,
        executor: SagaExecutor,
        passage: Passage,
        parking: Parking,
        action: str,
        redrive: str,
        *,
        one_by_one: bool = False,
    ) -> None:
        super().__init__(executor, passage, parking, one_by_one=one_by_one)
        self._action = action
        self._redrive = redrive
        self._steps = [
            step
            for step in self.state.plan.steps
            if step.action == action and not step.required and passage.row(step) is not None
        ]

    async def repeat(self) -> bool | None:
        """Gives whether the action is done now; None when there was nothing to do."""
        if self.state.plan.version != PLAN_VERSION:
            self._stage_failure("the stored plan has a form of another version")
            await self.passage.flush()
            return False
        if not any(self._redrive in self._row(step).redrives for step in self._steps):
            self._apply()
        left = [step for step in self._steps if self._is_left(step)]
        if not left:
            return None
        for step in left:
            failure = await self._again(step)
            if failure is not None:
                self._record_failed_action(step, failure)
        done = all(self._row(step).status is StepStatus.DONE for step in self._steps)
        if done:
            self.passage.stage_settlement(
                self.executor.letters.settlement(self.state, action=self._action)
            )
        self.passage.stage_processing("success")  # the message was done before
        await self.passage.flush()
        return done

    def _row(self, step: Step) -> StepRow:
        row = self.passage.row(step)
        assert row is not None
        return row

    def _apply(self) -> None:
        """Begin anew with what is not done, also where an earlier redrive was broken off."""
        for step in self._steps:
            row = self._row(step)
            if row.status is not StepStatus.DONE:
                self.passage.stage(
                    replace(
                        row,
                        status=StepStatus.WAITING,
                        attempts=0,
                        in_doubt=row.in_doubt or row.status is StepStatus.STARTED,
                        circuit_wait=0.0,
                        due_at=None,
                        redrives=(*row.redrives, self._redrive),
                    )
                )

    def _is_left(self, step: Step) -> bool:
        row = self._row(step)
        return row.redrives[-1:] == (self._redrive,) and row.status in (
            StepStatus.WAITING,
            StepStatus.STARTED,
        )

    async def _again(self, step: Step) -> Failure | None:
        executor = await self._executor(step)
        if executor is not None:
            return await self._carry_out(step, executor)
        await self._settle()
        return self._failed(self._row(step), Reason.PLAN_CHANGED, no_code_runs(step))

    def _stage_failure(self, error: str) -> None:
        """The action fails again, and none of its steps can be told."""
        self.passage.stage_record(
            self.executor.letters.for_saga(
                self.state,
                Reason.ACTION_FAILED,
                error,
                action=self._action,
                redrive=self._redrive,
            )
        )
        self.passage.after(lambda: self.observer.dead_lettered(Reason.ACTION_FAILED))
