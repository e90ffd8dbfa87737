"""Runs sagas: forward through the plan, backward when a required step fails for good.

What a passage does, and in which transactions, is in ``saga.running``; this is where it begins.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from streamapp.actions.registry import ActionRegistry
from streamapp.pipeline.outcomes import Reason
from streamapp.resilience.bulkhead import Bulkheads
from streamapp.resilience.circuit_breaker import CircuitBreakers
from streamapp.saga.journal import Journal
from streamapp.saga.letters import Letters
from streamapp.saga.model import (
    PLAN_VERSION,
    CarriedOut,
    SagaState,
    SagaStatus,
    Source,
    StepStatus,
    WriteRefused,
)
from streamapp.saga.observer import SagaObserver
from streamapp.saga.parking import Parking
from streamapp.saga.passage import Passage, failed_actions, required_step_failed
from streamapp.saga.redriving import Redriving
from streamapp.saga.retry import RetrySchedule
from streamapp.saga.running import Running
from streamapp.saga.serialization import error_text


@dataclass(frozen=True, slots=True)
class SagaConfig:
    """Limits of a saga; all times in seconds."""

    schedule: RetrySchedule
    max_wait_required: float
    max_wait_best_effort: float
    stuck_delays: tuple[float, ...]
    stuck_give_up: float
    outbound_topic: str


class SagaExecutor:
    """Everything a saga needs to run, and the ways into it: ``run`` for a record, ``resume``,
    ``resolve`` and ``refuse`` for a STUCK one, ``redrive_action`` and ``settle`` for one that
    ended.

    All but ``load`` write under an epoch and raise ``Fenced`` when the partition has another owner,
    or the saga is not where ``state`` has it.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        registry: ActionRegistry,
        breakers: CircuitBreakers,
        config: SagaConfig,
        letters: Letters,
        observer: SagaObserver,
    ) -> None:
        self.journal = journal
        self.registry = registry
        self.breakers = breakers
        self.bulkheads = Bulkheads()
        self.config = config
        self.letters = letters
        self.observer = observer

    async def load(self, processing_id: str) -> SagaState | None:
        """A saga as it stands; waits while the database is away."""
        return await self.journal.load(processing_id)

    async def run(
        self,
        state: SagaState,
        epoch: int,
        parking: Parking,
        *,
        claim: bool,
        revives: bool = False,
    ) -> None:
        """Bring a new saga, or one that was left on its way, to its end.

        A claim that ``revives`` begins the next run of a saga that stands COMPENSATED at the run
        before. On return ``state.status`` is COMPLETED, COMPENSATED or STUCK, durably. Raises
        ``AlreadyClaimed`` when a claim found its saga there, ``WriteRefused`` when not even the
        claim can be stored.
        """
        passage = Passage(self.journal, state, epoch, claim=claim, revives=revives)
        await self._bring_to_end(passage, parking)

    async def resume(
        self,
        state: SagaState,
        epoch: int,
        parking: Parking,
        request: CarriedOut | None = None,
    ) -> None:
        """Try a STUCK saga again: what failed of its compensation begins anew. ``request`` is noted
        in the commit that begins it."""
        state.stuck_retries += 1
        passage = Passage(self.journal, state, epoch, claim=False)
        if request is not None:
            passage.stage_request(request)
        if state.plan.version == PLAN_VERSION:  # else nobody here can tell its direction
            for (_, direction), row in state.steps.items():
                if direction == "compensate" and row.status is StepStatus.FAILED:
                    # Durably, or the next owner would begin with the attempts used up.
                    passage.stage(
                        replace(
                            row,
                            status=StepStatus.WAITING,
                            attempts=0,
                            circuit_wait=0.0,
                            due_at=None,
                        )
                    )
            # Nothing goes forward once a required step has failed, whatever parked the saga since.
            if required_step_failed(state):
                passage.stage_status(SagaStatus.COMPENSATING)
            else:
                state.reason = state.error = None
                passage.stage_status(SagaStatus.RUNNING)
            await passage.flush()
        await self._bring_to_end(passage, parking)

    async def resolve(self, state: SagaState, epoch: int, request: CarriedOut) -> None:
        """End a STUCK saga by a person's word. What was left undone stays as it is."""
        passage = Passage(self.journal, state, epoch, claim=False)
        passage.stage_status(SagaStatus.RESOLVED, processing="failed")
        passage.stage_settlement(self.letters.settlement(state))
        passage.stage_request(request)
        message, reason = state.message, state.reason
        passage.after(
            lambda: self.observer.saga_finished(
                message, SagaStatus.RESOLVED.value, reason and reason.value
            )
        )
        await passage.flush()

    async def refuse(self, state: SagaState, epoch: int, request: CarriedOut) -> None:
        """Note that a request came to nothing; the saga is left alone."""
        passage = Passage(self.journal, state, epoch, claim=False)
        passage.stage_request(request)
        await passage.flush()

    async def settle(self, state: SagaState, epoch: int, origin: Source) -> None:
        """The message that came in ``origin`` is done by this COMPLETED saga, or a person took it
        on: resolve its dead letters."""
        passage = Passage(self.journal, state, epoch, claim=False)
        settlement = self.letters.settlement(state, unsettled=failed_actions(passage))
        passage.stage_settlement(replace(settlement, origin=origin))
        await passage.flush()

    async def redrive_action(
        self, state: SagaState, action: str, redrive: str, epoch: int, parking: Parking
    ) -> bool | None:
        """Repeat what failed of a best-effort action of a COMPLETED saga, once a redrive.

        Gives whether the action is done now; None when this redrive was applied before, or there
        is nothing to repeat. Raises ``WriteRefused`` when not even its failure can be stored.
        """
        passage = Passage(self.journal, state, epoch, claim=False)
        try:
            return await Redriving(self, passage, parking, action, redrive).repeat()
        except WriteRefused:
            passage.drop_staged()
            again = Redriving(self, passage, parking, action, redrive, one_by_one=True)
            return await again.repeat()

    async def _bring_to_end(self, passage: Passage, parking: Parking) -> None:
        try:
            await Running(self, passage, parking).advance()
        except WriteRefused:
            # Something in a transaction of several steps is at fault: find out which.
            passage.drop_staged()
            saga = Running(self, passage, parking, one_by_one=True)
            try:
                await saga.advance()
            except WriteRefused as error:
                if not passage.claimed:
                    raise
                passage.drop_staged()
                await saga.park(Reason.HANDLER_ERROR, error_text(error))
