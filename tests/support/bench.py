"""A worker's storage and saga executor on a real database, and a look at what they left there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from pydantic import SecretStr

from streamapp.actions.registry import ActionRegistry
from streamapp.pipeline.dead_letter import DeadLetter, parse_headers
from streamapp.resilience.circuit_breaker import CircuitBreakers, CircuitConfig
from streamapp.saga.executor import SagaConfig, SagaExecutor
from streamapp.saga.journal import Journal, Written
from streamapp.saga.letters import Letters
from streamapp.saga.model import SagaState, SagaWrite
from streamapp.saga.retry import RetrySchedule
from streamapp.settings import Settings
from streamapp.storage.batch import headers_from_json
from streamapp.storage.connection import Pool
from streamapp.storage.journal import PostgresJournal
from streamapp.storage.owners import raise_epoch
from streamapp.testing.standins import NEVER_OPENS, Observer, Place, deliver
from tests.support.sagas import (
    DLQ,
    GROUP,
    OUTBOUND,
    TOPIC,
    MailSteps,
    OwnSteps,
    Service,
    ServiceSteps,
    registry_of,
)


def settings_for(dsn: str, **changes: Any) -> Settings:
    return Settings(database_url=SecretStr(dsn), consumer_group=GROUP, input_topic=TOPIC, **changes)


def ignore_outage(error: BaseException | None) -> None:
    """Nobody listens to the database's health here."""


@asynccontextmanager
async def running_journal(
    dsn: str,
    on_outage: Callable[[BaseException | None], None] = ignore_outage,
    **changes: Any,
) -> AsyncIterator[PostgresJournal]:
    """One writer, if not said otherwise: what is written at the same time is then one batch."""
    settings = settings_for(dsn, **{"journal_writers": 1, **changes})
    journal = PostgresJournal(settings, on_outage)
    await journal.start()
    try:
        yield journal
    finally:
        await journal.stop()


class Points:
    """The places at which a passage may be cancelled; at number ``stop_at`` it is."""

    def __init__(self, stop_at: int = 0) -> None:
        self.stop_at = stop_at
        self.reached = 0

    async def reach(self) -> None:
        self.reached += 1
        if self.reached == self.stop_at:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)


class PointsJournal:
    """Counts the writes, and makes a point of each before and after it is durable."""

    def __init__(self, journal: Journal, points: Points | None = None) -> None:
        self._journal = journal
        self._points = points or Points()
        self.writes: list[SagaWrite] = []

    async def write(self, write: SagaWrite) -> Written:
        await self._points.reach()
        self.writes.append(write)
        written = await self._journal.write(write)
        await self._points.reach()
        return written

    async def load(self, processing_id: str) -> SagaState | None:
        return await self._journal.load(processing_id)


@dataclass
class Bench:
    """What a test of sagas works with. All workers made here share service and observer."""

    journal: PostgresJournal
    pool: Pool
    epoch: int
    service: Service = field(default_factory=Service)
    observer: Observer = field(default_factory=Observer)
    place: Place = field(default_factory=Place)
    circuit: CircuitConfig = field(default_factory=lambda: NEVER_OPENS)

    def registry(self) -> ActionRegistry:
        return registry_of(OwnSteps(), ServiceSteps(self.service), MailSteps(self.service))

    def executor(
        self,
        *,
        journal: Journal | None = None,
        registry: ActionRegistry | None = None,
        breakers: CircuitBreakers | None = None,
        delays: tuple[float, ...] = (0.0, 0.0, 0.0),
        max_wait: float = 1.0,
        max_wait_best_effort: float = 1.0,
        stuck_delays: tuple[float, ...] = (60.0, 300.0),
        stuck_give_up: float = 1000.0,
    ) -> SagaExecutor:
        return SagaExecutor(
            journal=journal or self.journal,
            registry=registry or self.registry(),
            breakers=breakers or CircuitBreakers(self.circuit),
            config=SagaConfig(
                schedule=RetrySchedule(delays),
                max_wait_required=max_wait,
                max_wait_best_effort=max_wait_best_effort,
                stuck_delays=stuck_delays,
                stuck_give_up=stuck_give_up,
                outbound_topic=OUTBOUND,
            ),
            letters=Letters(GROUP, DLQ),
            observer=self.observer,
        )

    async def take_over(self, partition: int = 0) -> int:
        """Raise the epoch: every write under the older one is refused from here on."""
        self.epoch = await raise_epoch(self.pool, GROUP, TOPIC, partition, "worker")
        return self.epoch

    async def deliver(self, state: SagaState, executor: SagaExecutor | None = None) -> SagaState:
        """Run a saga as the pipeline does with its record, also when it was begun before."""
        return await deliver(executor or self.executor(), state, self.epoch, self.place)

    async def load(self, processing_id: str = "p-1") -> SagaState:
        state = await self.journal.load(processing_id)
        assert state is not None
        return state

    async def step(
        self, ordinal: int, direction: str = "forward", processing_id: str = "p-1"
    ) -> asyncpg.Record:
        """A step's row as another connection sees it now."""
        rows = await self.pool.fetch(
            "select * from saga_steps where processing_id = $1 and ordinal = $2 and direction = $3",
            processing_id,
            ordinal,
            direction,
        )
        assert len(rows) == 1
        return rows[0]

    async def steps(self, processing_id: str = "p-1") -> dict[tuple[str, str], str]:
        """The statuses of all steps by action and direction."""
        rows = await self.pool.fetch(
            "select action, direction, status from saga_steps where processing_id = $1",
            processing_id,
        )
        return {(row["action"], row["direction"]): row["status"] for row in rows}

    async def saga(self, processing_id: str = "p-1") -> asyncpg.Record:
        row = await self.pool.fetchrow(
            "select * from sagas where processing_id = $1", processing_id
        )
        assert row is not None
        return row

    async def tasks(self) -> dict[str, str]:
        """The statuses of all tasks by id."""
        rows = await self.pool.fetch("select task_id, status from tasks")
        return {row["task_id"]: row["status"] for row in rows}

    async def letters(self) -> list[DeadLetter]:
        """The dead letters in the outbox, in its order."""
        rows = await self.pool.fetch("select headers from outbox where topic = $1 order by id", DLQ)
        letters = []
        for row in rows:
            letter = parse_headers(headers_from_json(row["headers"]))
            assert letter is not None
            letters.append(letter)
        return letters

    async def processed(self, processing_id: str = "p-1") -> str | None:
        status: str | None = await self.pool.fetchval(
            "select processing_status from processed_messages where message_id = $1",
            processing_id,
        )
        return status


@asynccontextmanager
async def running_bench(dsn: str, **changes: Any) -> AsyncIterator[Bench]:
    """A bench that owns partition 0."""
    async with running_journal(dsn, **changes) as journal:
        pool = await asyncpg.create_pool(dsn, min_size=0, max_size=3)
        try:
            bench = Bench(journal, pool, 0)
            await bench.take_over()
            yield bench
        finally:
            pool.terminate()
