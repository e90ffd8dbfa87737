"""Figures that nobody counts as they happen: looked up every few seconds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiokafka.errors import KafkaError

from streamapp.observability.metrics import OPEN_DELIVERIES
from streamapp.pipeline.orchestrator import Pipeline
from streamapp.storage.faults import DATABASE_ERRORS
from streamapp.storage.outbox import Outbox
from streamapp.worker.producer import ANY_TOPIC

if TYPE_CHECKING:
    from streamapp.worker.runtime import Runtime

EVERY = 2.0  # seconds
SLOW = 5  # once in so many rounds, what takes the database longer


class Gauges:
    """Keeps the gauges of this worker up to date."""

    def __init__(self, runtime: Runtime, pipeline: Pipeline, outbox: Outbox) -> None:
        self._runtime = runtime
        self._outbox = outbox
        self._partitions: set[tuple[str, int]] = set()
        # Asked when they are read: what is in flight has to add up with the counters.
        runtime.metrics.in_flight.set_function(lambda: pipeline.active)
        runtime.metrics.lanes.set_function(lambda: len(runtime.lanes))
        runtime.metrics.unrestored.set_function(lambda: runtime.membership.unrestored)

    def refresh(self) -> None:
        """Those that cost nothing."""
        runtime, metrics = self._runtime, self._runtime.metrics
        metrics.reachable("database", runtime.database.available)
        metrics.reachable("broker", runtime.broker.available)
        self._lag()

    def _lag(self) -> None:
        metrics, membership = self._runtime.metrics, self._runtime.membership
        deliveries = self._runtime.deliveries
        held: dict[tuple[str, int], int | None] = {
            key: lease.ledger.committable for key, lease in self._runtime.intake.leases.items()
        }
        if deliveries is not None:
            held |= {key: part.ledger.committable for key, part in deliveries.assignments.items()}
        gone = self._partitions - held.keys()
        for topic, partition in gone:
            metrics.partition_gone(topic, partition)
        self._partitions = set(held)
        for (topic, partition), committable in held.items():
            highwater = membership.highwater(topic, partition)
            if highwater is not None and committable is not None:
                metrics.lagging(topic, partition, max(0, highwater - committable))

    async def run(self) -> None:
        rounds = 0
        database = self._runtime.database
        while True:
            self.refresh()
            # In every round: a worker without work hears here that it is away, or back.
            try:
                await self._stuck()
                if rounds % SLOW == 0 or not database.available:
                    await self.ask_database()
            except DATABASE_ERRORS as error:
                database.report(error)
            else:
                database.report(None)
            if rounds % SLOW == 0 or not self._runtime.broker.available:
                await self._ask_broker()
            rounds += 1
            await asyncio.sleep(EVERY)

    async def _ask_broker(self) -> None:
        """A worker that has nothing to send hears here that the broker went away, or is back."""
        broker = self._runtime.broker
        waiting = any(relay.waiting for relay in self._runtime.relays)
        if waiting and ANY_TOPIC not in broker.away:
            return  # what waits for the broker tells of it
        try:
            await self._runtime.producer.reach()
        except (KafkaError, TimeoutError) as error:
            broker.report(ANY_TOPIC, error)
            return
        for topic in broker.away:
            if topic == ANY_TOPIC or not waiting:
                broker.report(topic, None)

    async def ask_database(self) -> None:
        """The figures that only the database has."""
        pool: Any = self._runtime.pool
        metrics = self._runtime.metrics
        metrics.outbox_backlog.set(await self._outbox.backlog())
        rows = await pool.fetch(
            "SELECT reason, count(*) AS n, extract(epoch FROM min(created_at))::float8 AS oldest "
            "FROM dead_letter_queue WHERE status IN ('failed', 'retrying') GROUP BY reason"
        )
        oldest = min((row["oldest"] for row in rows), default=None)
        metrics.dead_letters_open({row["reason"]: row["n"] for row in rows}, oldest)
        rows = await pool.fetch(
            "SELECT status, count(*) AS n FROM outbound_deliveries "
            "WHERE status = ANY($1) GROUP BY status",
            list(OPEN_DELIVERIES),
        )
        metrics.deliveries_open({row["status"]: row["n"] for row in rows})

    async def _stuck(self) -> None:
        """What people are called for, so in every round."""
        pool: Any = self._runtime.pool
        metrics = self._runtime.metrics
        stuck = await pool.fetchrow(
            "SELECT count(*) FILTER (WHERE resume_at IS NOT NULL) AS parked, "
            "count(*) FILTER (WHERE resume_at IS NULL) AS given_up "
            "FROM sagas WHERE consumer_group = $1 AND status = 'STUCK'",
            self._runtime.settings.consumer_group,
        )
        metrics.sagas_stuck.labels("parked").set(stuck["parked"])
        metrics.sagas_stuck.labels("given_up").set(stuck["given_up"])
