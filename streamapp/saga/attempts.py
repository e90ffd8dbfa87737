"""Carrying out one external effect: circuit, STARTED, call, verdict, next attempt.

The rules, all from ``docs/guarantees.md``: STARTED with key and request is durable before the
call; a call begins within ``CALL_WITHIN`` of that commit; an attempt whose outcome is unknown
leaves the step in doubt for good, whatever a later attempt says; waiting for a circuit, a busy
key and a shutdown spend no attempt.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial

from streamapp.actions.base import CallContext, ExternalExecutor
from streamapp.pipeline.outcomes import Reason
from streamapp.resilience import crash_points
from streamapp.resilience.bulkhead import Bulkhead
from streamapp.resilience.circuit_breaker import CircuitBreaker, Permit
from streamapp.saga.ids import Direction, idempotency_key
from streamapp.saga.model import Step, StepRow, StepStatus
from streamapp.saga.observer import SagaObserver
from streamapp.saga.parking import Parking, sleep
from streamapp.saga.passage import Passage
from streamapp.saga.retry import RetrySchedule
from streamapp.saga.serialization import error_text
from streamapp.services.errors import Busy, NothingThere, NotNow, Rejected, Retryable

CALL_WITHIN = 2.0  # seconds between the commit of STARTED and the call
BUSY_PAUSE = 1.0  # seconds before a busy key is asked again
CIRCUIT_NOTE = 10.0  # seconds; how often the time spent waiting for a circuit is made durable


@dataclass(frozen=True, slots=True)
class Failure:
    """A step that failed for good."""

    reason: Reason
    error: str
    row: StepRow


class _NoRequest(Exception):
    """The executor could not make its request: a defect of its code."""


class Attempts:
    """The attempts of one external step in one direction."""

    def __init__(
        self,
        passage: Passage,
        step: Step,
        executor: ExternalExecutor,
        direction: Direction,
        *,
        breaker: CircuitBreaker,
        bulkhead: Bulkhead,
        schedule: RetrySchedule,
        max_wait: float,
        parking: Parking,
        observer: SagaObserver,
    ) -> None:
        self._passage = passage
        self._step = step
        self._executor = executor
        self._direction = direction
        self._breaker = breaker
        self._bulkhead = bulkhead
        self._schedule = schedule
        self._max_wait = max_wait
        self._parking = parking
        self._observer = observer
        self._began = time.monotonic()
        state = passage.state
        self._key = idempotency_key(
            state.message.processing_id, state.run, step.action, step.sub_step, direction
        )
        row = passage.row(step, direction) or StepRow(
            ordinal=step.ordinal, direction=direction, status=StepStatus.WAITING, key=self._key
        )
        if row.status is StepStatus.STARTED:
            # Interrupted: whether it had its effect is unknown, and the attempt is made again.
            row = replace(
                row,
                status=StepStatus.WAITING,
                attempts=row.attempts - 1,
                in_doubt=True,
                due_at=None,
            )
        self._row = row

    async def carry_out(self) -> Failure | None:
        """Attempt until done, staged for the next transaction, or failed for good."""
        while True:
            await self._until_due()
            await self._executor.ready(self._passage.state.message)
            # The place is taken before STARTED: a call begins right after its commit.
            async with self._bulkhead.place(partial(self._parking.parked, in_line=True)):
                failure, finished = await self._attempt()
            if finished:
                return failure

    async def _attempt(self) -> tuple[Failure | None, bool]:
        """One attempt; gives the failure, if it is one, and whether the step is finished."""
        permit = await self._admitted()
        if permit is None:
            error = f"circuit {self._breaker.name} is open"
            return self._failed(Reason.CIRCUIT_OPEN, error), True
        try:
            await self._start()
            return await self._call(permit)
        except _NoRequest as problem:
            return self._failed(Reason.HANDLER_ERROR, error_text(problem)), True
        finally:
            permit.cancel()  # counts only where nothing else was reported

    async def _until_due(self) -> None:
        due = self._row.due_at
        if self._row.status is StepStatus.WAITING and due is not None:
            # A stepped clock must not turn a short wait into a long one.
            wait = min((due - datetime.now(UTC)).total_seconds(), self._max_wait_for_due())
            await self._passage.flush()
            await sleep(self._parking, wait)

    def _max_wait_for_due(self) -> float:
        return max(self._schedule.longest, self._max_wait, BUSY_PAUSE)

    async def _admitted(self) -> Permit | None:
        """A permit of the circuit; None when the step waited for it as long as it may.

        The time waited is summed up in the journal, so that a restart does not begin it anew.
        """
        while True:
            permit = self._breaker.try_acquire()
            if permit is not None:
                return permit
            left = self._max_wait - self._row.circuit_wait
            if left <= 0:
                return None
            self._passage.stage(self._row)
            self._passage.stage_processing("retrying")
            await self._passage.flush()
            since = time.monotonic()
            async with self._parking.parked():
                await self._breaker.wait_for_change(min(left, CIRCUIT_NOTE))
            waited = time.monotonic() - since
            self._row = replace(self._row, circuit_wait=self._row.circuit_wait + waited)

    async def _start(self) -> None:
        """Make STARTED durable, with the request as it is sent in every attempt."""
        row = self._row
        row = replace(
            row,
            status=StepStatus.STARTED,
            key=self._key,
            attempts=row.attempts + 1,
            due_at=None,
            request=row.request if row.request is not None else self._request(),
        )
        committed = 0.0
        while time.monotonic() - committed > CALL_WITHIN:
            # Written anew when the process stood still meanwhile: that write is fenced if the
            # partition has a new owner.
            now = datetime.now(UTC)
            self._row = replace(
                row, first_attempt_at=row.first_attempt_at or now, last_attempt_at=now
            )
            self._passage.stage(self._row)
            committed = await self._passage.flush()

    def _request(self) -> bytes:
        context = self._passage.context(self._step)
        try:
            if self._direction == "forward":
                return self._executor.request(context)
            forward = self._passage.row(self._step)
            state = self._passage.state
            key = idempotency_key(
                state.message.processing_id,
                state.run,
                self._step.action,
                self._step.sub_step,
                "forward",
            )
            output = forward.output if forward and forward.status is StepStatus.DONE else None
            return self._executor.compensation_request(context, key, output)
        except Exception as error:
            raise _NoRequest(f"{self._executor.name} made no request: {error!r}") from error

    async def _call(self, permit: Permit) -> tuple[Failure | None, bool]:
        row = self._row
        assert row.request is not None
        context = CallContext(
            step=self._passage.context(self._step), key=self._key, attempt=row.attempts
        )
        call = self._executor.call if self._direction == "forward" else self._executor.compensate
        permit.begin()
        crash_points.reach("step.started")
        try:
            try:
                output = await call(row.request, context)
            finally:
                crash_points.reach("step.answered")
        except Rejected as error:
            permit.success()  # the service works; it is the request that it refuses
            return self._failed(Reason.STEP_REJECTED, error_text(error)), True
        except NothingThere as error:
            permit.success()
            return self._nothing_there(error_text(error))
        except Busy as error:
            permit.success()
            return self._ask_again(row, error_text(error), in_doubt=True)
        except NotNow as error:
            permit.cancel()  # that too much is asked of it says nothing of the service's health
            pause = min(error.seconds, self._max_wait)
            return self._ask_again(row, error_text(error), in_doubt=False, pause=pause)
        except Retryable as error:
            permit.failure()
            return self._retry(error)
        except Exception as error:
            # A defect of the executor, after STARTED: whether the effect exists is unknown.
            permit.cancel()
            return self._retry(Retryable(f"{type(error).__name__}: {error}", in_doubt=True))
        permit.success()
        self._row = replace(row, status=StepStatus.DONE, output=output, error=None)
        self._passage.stage(self._row)
        self._tell_finished("done")
        return None, True

    def _retry(self, error: Retryable) -> tuple[Failure | None, bool]:
        row = replace(self._row, in_doubt=self._row.in_doubt or error.in_doubt)
        text = error_text(error)
        if row.attempts >= self._schedule.max_attempts:
            self._row = row
            return self._failed(Reason.RETRIES_EXHAUSTED, text), True
        delay = self._schedule.delay_after(
            row.attempts, retry_after=error.retry_after, cap=self._max_wait
        )
        self._wait(row, delay, text)
        action = self._step.action
        self._passage.after(lambda: self._observer.attempt_failed(action, text))
        return None, False

    def _ask_again(
        self, row: StepRow, error: str, *, in_doubt: bool, pause: float = BUSY_PAUSE
    ) -> tuple[Failure | None, bool]:
        """Repeat without spending an attempt, within the time that a step may wait."""
        if row.circuit_wait >= self._max_wait:
            self._row = replace(row, in_doubt=row.in_doubt or in_doubt)
            return self._failed(Reason.RETRIES_EXHAUSTED, error), True
        self._wait(
            replace(
                row,
                attempts=row.attempts - 1,
                in_doubt=row.in_doubt or in_doubt,
                circuit_wait=row.circuit_wait + pause,
            ),
            pause,
            error,
        )
        return None, False

    def _nothing_there(self, error: str) -> tuple[Failure | None, bool]:
        """A compensation found nothing to undo: true only once no request is on its way."""
        forward = self._passage.row(self._step)
        if forward is not None and forward.status is not StepStatus.DONE:
            # All creations were sent before the compensation began. By the monotonic clock: if
            # the other one were set forward, an order on its way would be given up as not there.
            left = self._began + self._executor.max_call_time - time.monotonic()
            if left > 0:
                return self._ask_again(self._row, error, in_doubt=False, pause=left)
        self._row = replace(
            self._row, status=StepStatus.DONE, output={"nothing_to_undo": True}, error=None
        )
        self._passage.stage(self._row)
        self._tell_finished("done")
        return None, True

    def _wait(self, row: StepRow, delay: float, error: str) -> None:
        self._row = replace(
            row,
            status=StepStatus.WAITING,
            due_at=datetime.now(UTC) + timedelta(seconds=delay),
            error=error,
        )
        self._passage.stage(self._row)
        self._passage.stage_processing("retrying")

    def _failed(self, reason: Reason, error: str) -> Failure:
        self._row = replace(self._row, status=StepStatus.FAILED, due_at=None, error=error)
        self._passage.stage(self._row)
        self._tell_finished("failed")
        return Failure(reason, error, self._row)

    def _tell_finished(self, status: str) -> None:
        action, observer, began = self._step.action, self._observer, self._row.first_attempt_at
        # Not below zero, though the clock may have been set back since.
        seconds = max((datetime.now(UTC) - began).total_seconds(), 0.0) if began else 0.0
        if self._direction == "forward":
            self._passage.after(lambda: observer.step_finished(action, status, seconds))
        else:
            self._passage.after(lambda: observer.compensation_finished(action, status))
