"""The pipeline: from a record to the one outcome of its delivery.

decode and validate, deduplicate, resolve the tenant, route the intent, run the saga. Read
``process`` top to bottom; each step is one method below it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from hashlib import sha256

from streamapp.actions.planner import AI_ERROR, plan_for_error
from streamapp.actions.registry import ActionRegistry
from streamapp.intents.base import Thresholds
from streamapp.intents.registry import Registry
from streamapp.pipeline.dead_letter import (
    NO_RUN,
    dead_letter,
    describe,
    letter_record,
    origin_of,
    source_of,
)
from streamapp.pipeline.messages import AIError, AIResult, InvalidPayload, decode
from streamapp.pipeline.outcomes import Outcome, Reason, Record
from streamapp.pipeline.planning import Planner
from streamapp.pipeline.ports import Businesses, DeadLetterSink, PipelineObserver, Seen, Tenants
from streamapp.pipeline.redrive import Redrive, redrive_of
from streamapp.saga.executor import SagaExecutor
from streamapp.saga.letters import first_source
from streamapp.saga.model import (
    Fenced,
    Message,
    Plan,
    SagaState,
    SagaStatus,
    WriteRefused,
)
from streamapp.saga.parking import Lease, Parking
from streamapp.saga.passage import AlreadyClaimed
from streamapp.values import value


@value
class Delivered:
    """The outcome of a delivery.

    ``seen`` is the payload hash to be marked in the local table under ``processing_id``; None
    where there is nothing to mark.
    """

    outcome: Outcome
    processing_id: str | None = None
    seen: bytes | None = None


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    consumer_group: str
    max_payload_bytes: int
    thresholds: Thresholds
    suggested_actions: bool


class Pipeline:
    """Turns records into outcomes. Knows nothing of Kafka clients, Faust or SQL."""

    def __init__(
        self,
        *,
        config: PipelineConfig,
        intents: Registry,
        actions: ActionRegistry,
        sagas: SagaExecutor,
        seen: Seen,
        tenants: Tenants,
        businesses: Businesses,
        dead_letters: DeadLetterSink,
        observer: PipelineObserver,
    ) -> None:
        self._config = config
        self._planner = Planner(
            intents,
            actions,
            thresholds=config.thresholds,
            suggested_actions=config.suggested_actions,
        )
        self._sagas = sagas
        self._seen = seen
        self._tenants = tenants
        self._businesses = businesses
        self._dead_letters = dead_letters
        self._observer = observer
        self.active = 0  # passages begun and not ended: in flight

    async def process(self, record: Record, lease: Lease, parking: Parking) -> Delivered:
        """Work a record off; on return its outcome is durable.

        Raises ``Fenced`` when the partition is no longer this worker's: then nothing of the
        record may be acknowledged. Whatever else goes wrong becomes a dead letter.
        """
        began = time.monotonic()
        try:
            input_: AIResult | AIError | InvalidPayload = decode(
                record, max_payload_bytes=self._config.max_payload_bytes
            )
        except InvalidPayload as error:
            input_ = error
        source = input_.source if isinstance(input_, AIResult) else "other"
        self._observer.received(source, getattr(input_, "business_id", None) or "other")
        outcome = Outcome.RELEASED
        self.active += 1
        try:
            delivered = await self._process(record, input_, lease, parking)
            outcome = delivered.outcome
        finally:
            self.active -= 1
            self._observer.delivered(outcome, source, time.monotonic() - began)
        return delivered

    async def _process(
        self,
        record: Record,
        input_: AIResult | AIError | InvalidPayload,
        lease: Lease,
        parking: Parking,
    ) -> Delivered:
        if isinstance(input_, InvalidPayload):
            return await self._dead_letter(
                record, Reason.INVALID_PAYLOAD, input_, input_.processing_id
            )
        try:
            redrive = redrive_of(record.headers)
            if redrive is not None:
                ended = await self._redriven(record, input_.processing_id, redrive, lease, parking)
                if ended is not None:
                    return ended
            if isinstance(input_, AIResult):
                return await self._result(record, input_, redrive, lease, parking)
            return await self._error(record, input_, redrive, lease, parking)
        except Fenced:
            raise
        except Exception as error:
            # A defect of ours is not the next message's problem: the record goes where people
            # look, and a saga that it left RUNNING is found again as an orphan.
            self._observer.defect("pipeline", error)
            return await self._dead_letter(
                record, Reason.HANDLER_ERROR, error, input_.processing_id
            )

    async def _result(
        self,
        record: Record,
        result: AIResult,
        redrive: Redrive | None,
        lease: Lease,
        parking: Parking,
    ) -> Delivered:
        known = self._known(record.partition, result.processing_id) if redrive is None else None
        if known is not None:
            return await self._repetition(record, result, known)
        run = _next_run(redrive)
        tenant_id = await self._tenants.resolve(
            result.lead_id, result.business_id, result.tenant_id
        )
        if tenant_id is None:
            return await self._dead_letter(
                record,
                Reason.UNKNOWN_TENANT,
                LookupError(f"no tenant for lead {result.lead_id} of {result.business_id}"),
                result.processing_id,
            )
        message = result.message(tenant_id)
        milliseconds = result.processing_time_ms
        self._observer.understood(message, None if milliseconds is None else milliseconds / 1000)
        business = await self._businesses.find(result.business_id)
        try:
            plan, _ = self._planner.plan(
                message,
                business.capabilities,
                suggested=result.suggested_actions,
                suggested_response=result.suggested_response,
                run=run,
            )
        except Exception as error:
            self._observer.defect("handler", error)
            return await self._dead_letter(
                record, Reason.HANDLER_ERROR, error, result.processing_id
            )
        return await self._saga(record, message, result.payload_hash, plan, run, lease, parking)

    async def _error(
        self,
        record: Record,
        error: AIError,
        redrive: Redrive | None,
        lease: Lease,
        parking: Parking,
    ) -> Delivered:
        """An ``ai.error`` is a message whose only action is a row in the lead's history."""
        message = Message(
            processing_id=error.processing_id,
            lead_id=error.lead_id,
            business_id=error.business_id or "",
            tenant_id=error.tenant_id or "",
            intent=AI_ERROR,
            confidence=0.0,
            entities={},
            text="",
        )
        if redrive is None and self._known(record.partition, message.processing_id) is not None:
            return Delivered(Outcome.DUPLICATE)
        plan = plan_for_error(error.error_type, error.error_message)
        # The event's id alone decides what is the same event.
        identity = sha256(error.processing_id.encode()).digest()
        return await self._saga(record, message, identity, plan, _next_run(redrive), lease, parking)

    def _known(self, partition: int, processing_id: str) -> bytes | None:
        """Ask the local table. One that fails knows nothing: the claim finds duplicates too."""
        try:
            known = self._seen.look_up(partition, processing_id)
        except Exception as error:
            self._observer.defect("worker", error)
            known = None
        self._observer.looked_up("rocksdb", "miss" if known is None else "hit")
        return known

    async def _saga(
        self,
        record: Record,
        message: Message,
        payload_hash: bytes,
        plan: Plan,
        run: int,
        lease: Lease,
        parking: Parking,
    ) -> Delivered:
        state = SagaState(
            message=message,
            run=run,
            status=SagaStatus.RUNNING,
            source=source_of(record),
            payload_hash=payload_hash,
            plan=plan,
            key=record.key,
            value=record.value or b"",
            headers=record.headers,
        )
        epoch = await lease.epoch()
        try:
            await self._sagas.run(state, epoch, parking, claim=True, revives=run > 0)
        except AlreadyClaimed as claimed:
            self._observer.looked_up("postgresql", "hit")
            return await self._found(record, state, claimed.existing, epoch, parking)
        except WriteRefused as error:
            return await self._dead_letter(
                record, Reason.HANDLER_ERROR, error, message.processing_id
            )
        self._observer.looked_up("postgresql", "miss")
        return _delivered(state)

    async def _found(
        self, record: Record, new: SagaState, saga: SagaState, epoch: int, parking: Parking
    ) -> Delivered:
        """A record finds its saga (protocol, 2)."""
        redriven = redrive_of(record.headers) is not None
        # Redriven beside the saga of another record, it is done when that one is.
        done = saga.status is SagaStatus.COMPLETED and saga.source.home == source_of(record).home
        if not saga.has_had(new.payload_hash) or (redriven and not done):
            return await self._dead_letter(
                record,
                Reason.PAYLOAD_MISMATCH,
                ValueError(f"the id is taken by another payload, from {saga.source.position}"),
                new.message.processing_id,
            )
        if redriven:
            await self._sagas.settle(saga, epoch, origin_of(record))
        if saga.status in (SagaStatus.RUNNING, SagaStatus.COMPENSATING):
            if saga.source != new.source:
                # Its own record is not acknowledged yet, and brings it to its end.
                return Delivered(Outcome.DUPLICATE)
            await self._sagas.run(saga, epoch, parking, claim=False)
            return _delivered(saga)
        # Its dead letter, if it has one, was committed together with this state.
        return _duplicate(saga)

    async def _redriven(
        self, record: Record, processing_id: str, redrive: Redrive, lease: Lease, parking: Parking
    ) -> Delivered | None:
        """What a redriven record comes to where its saga stands (protocol, 6); None where it starts
        the run after ``redrive.run``."""
        saga = await self._sagas.load(processing_id)
        if saga is None:
            if redrive.run == NO_RUN and not redrive.action:
                return None
            # Run afresh, it would do again what was done before the saga was deleted.
            gone = LookupError("the saga of this redrive is gone: it is not run again")
            return await self._dead_letter(record, Reason.HANDLER_ERROR, gone, processing_id)
        if first_source(saga) != origin_of(record) or saga.source.home != source_of(record).home:
            if redrive.run == NO_RUN and not redrive.action:
                return None  # another message of that id: its claim finds out
            other = ValueError(f"the id is taken by the message of {saga.source.position}")
            return await self._dead_letter(record, Reason.PAYLOAD_MISMATCH, other, processing_id)
        epoch = await lease.epoch()
        if saga.status in (SagaStatus.RUNNING, SagaStatus.COMPENSATING):
            if saga.source != source_of(record):
                return Delivered(Outcome.DUPLICATE)
            await self._sagas.run(saga, epoch, parking, claim=False)
            return _delivered(saga)
        stands = (saga.run, saga.status)
        if not redrive.action:
            if stands == (redrive.run, SagaStatus.COMPENSATED):
                return None
            if saga.status in (SagaStatus.COMPLETED, SagaStatus.RESOLVED):
                await self._sagas.settle(saga, epoch, origin_of(record))
        elif stands == (redrive.run, SagaStatus.COMPLETED):
            done = await self._sagas.redrive_action(
                saga, redrive.action, redrive.id, epoch, parking
            )
            if done is not None:
                outcome = Outcome.PROCESSED if done else Outcome.DEAD_LETTERED
                return Delivered(outcome, processing_id, saga.payload_hash)
        return _duplicate(saga)

    async def _repetition(self, record: Record, result: AIResult, known: bytes) -> Delivered:
        if known == result.payload_hash:
            return Delivered(Outcome.DUPLICATE)
        # The table knows the last payload only; a message that was redriven edited had others.
        saga = await self._sagas.load(result.processing_id)
        if saga is not None and saga.has_had(result.payload_hash):
            return Delivered(Outcome.DUPLICATE)
        return await self._dead_letter(
            record,
            Reason.PAYLOAD_MISMATCH,
            ValueError("the id is taken by another payload"),
            result.processing_id,
        )

    async def _dead_letter(
        self, record: Record, reason: Reason, error: BaseException, processing_id: str | None
    ) -> Delivered:
        """Park a record that never became a run; returns once the letter is durable. That of a
        redriven record goes where the letter is that it answers."""
        name, message, trace = describe(error)
        redrive = redrive_of(record.headers) or Redrive("", NO_RUN, "")
        letter = dead_letter(
            source_of(record),
            reason=reason,
            group=self._config.consumer_group,
            message=message,
            origin=origin_of(record),
            processing_id=processing_id,
            action=redrive.action,
            run=max(redrive.run, 0),
            has_saga=redrive.run != NO_RUN,
            redrive=redrive.id,
            exception=name,
            stacktrace=trace if reason is Reason.HANDLER_ERROR else "",
        )
        await self._dead_letters.publish(letter_record(record, letter))
        self._observer.dead_lettered(reason.value)
        return Delivered(Outcome.DEAD_LETTERED)


def _next_run(redrive: Redrive | None) -> int:
    """The run that a record starts, if it starts one."""
    return (redrive.run if redrive is not None else NO_RUN) + 1


def _duplicate(saga: SagaState) -> Delivered:
    """A saga that is STUCK is not at its end: the table must not hide it."""
    finished = saga.status is not SagaStatus.STUCK
    return Delivered(
        Outcome.DUPLICATE, saga.message.processing_id, saga.payload_hash if finished else None
    )


def _delivered(state: SagaState) -> Delivered:
    """A saga that compensated or got stuck left its dead letter in its own commit."""
    if state.status is SagaStatus.COMPLETED:
        return Delivered(Outcome.PROCESSED, state.message.processing_id, state.payload_hash)
    seen = state.payload_hash if state.status is SagaStatus.COMPENSATED else None
    return Delivered(Outcome.DEAD_LETTERED, state.message.processing_id, seen)
