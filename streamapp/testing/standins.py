"""What a saga needs around it, where no worker is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from streamapp.resilience.circuit_breaker import CircuitConfig
from streamapp.saga.executor import SagaExecutor
from streamapp.saga.model import Message, SagaState, SagaStatus
from streamapp.saga.passage import AlreadyClaimed

NEVER_OPENS = CircuitConfig(window_calls=100_000, min_calls=100_000)


class Observer:
    """Keeps what a saga told, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def step_finished(self, action: str, status: str, seconds: float | None) -> None:
        self.events.append(("step", action, status))

    def attempt_failed(self, action: str, error: str) -> None:
        self.events.append(("attempt failed", action, error))

    def compensation_finished(self, action: str, status: str) -> None:
        self.events.append(("compensation", action, status))

    def lead_changed(self, from_state: str, to_state: str) -> None:
        self.events.append(("lead", from_state, to_state))

    def saga_finished(self, message: Message, status: str, reason: str | None) -> None:
        self.events.append(("saga", status, reason))

    def dead_lettered(self, reason: str) -> None:
        self.events.append(("letter", str(reason)))

    def text_failed(self, topic: str) -> None:
        self.events.append(("text failed", topic))

    def responded(self) -> None:
        self.events.append(("responded",))

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [event[1:] for event in self.events if event[0] == kind]


class Place:
    """Implements ``saga.parking.Parking``: counts the waits."""

    def __init__(self) -> None:
        self.waits = 0
        self.in_line = 0  # of these, those for a turn at a service
        self.waiting = False

    @asynccontextmanager
    async def parked(self, *, in_line: bool = False) -> AsyncIterator[None]:
        self.waits += 1
        self.in_line += in_line
        self.waiting = True
        try:
            yield
        finally:
            self.waiting = False


async def deliver(executor: SagaExecutor, state: SagaState, epoch: int, place: Place) -> SagaState:
    """Run a saga as the pipeline does with its record, also when it was begun before."""
    try:
        await executor.run(state, epoch, place, claim=True)
    except AlreadyClaimed as claimed:
        state = claimed.existing
        if state.status in (SagaStatus.RUNNING, SagaStatus.COMPENSATING):
            await executor.run(state, epoch, place, claim=False)
    return state
