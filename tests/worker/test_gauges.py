"""Gauges: figures that are looked up, also while parts of the worker are away."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError

from streamapp.observability.metrics import Metrics, new_registry
from streamapp.storage.health import DatabaseHealth
from streamapp.worker import gauges as module
from streamapp.worker.gauges import Gauges
from streamapp.worker.ledger import Ledger
from streamapp.worker.producer import ANY_TOPIC, BrokerHealth
from tests.worker.fakes import eventually


class FakeDatabase:
    """Pool and outbox in one; ``away`` is raised while it is set."""

    def __init__(self) -> None:
        self.away: BaseException | None = None
        self.asked = 0
        self.stuck = {"parked": 2, "given_up": 1}

    async def backlog(self) -> int:
        self.asked += 1
        if self.away is not None:
            raise self.away
        return 4

    async def fetch(self, query: str, *_: Any) -> list[dict[str, Any]]:
        if "outbound_deliveries" in query:
            return [{"status": "unknown", "n": 2}]
        return [
            {"reason": "invalid_payload", "n": 3, "oldest": 500.0},
            {"reason": "circuit_open", "n": 1, "oldest": 400.0},
        ]

    async def fetchrow(self, query: str, group: str) -> dict[str, int]:
        return self.stuck


class FakeProducer:
    """``away`` is raised while it is set."""

    def __init__(self) -> None:
        self.away: BaseException | None = None
        self.asked = 0

    async def reach(self) -> None:
        self.asked += 1
        if self.away is not None:
            raise self.away


class Bench:
    def __init__(self) -> None:
        self.producer, self.relay = FakeProducer(), SimpleNamespace(waiting=False)
        self.metrics = Metrics(new_registry())
        self.database, self.health = FakeDatabase(), DatabaseHealth()
        self.leases: dict[tuple[str, int], Any] = {}
        self.highwaters: dict[tuple[str, int], int] = {}
        runtime: Any = SimpleNamespace(
            metrics=self.metrics,
            lanes=range(3),
            database=self.health,
            broker=BrokerHealth(),
            producer=self.producer,
            relays=[SimpleNamespace(waiting=False), self.relay],
            membership=SimpleNamespace(
                highwater=lambda *key: self.highwaters.get(key), unrestored=7
            ),
            intake=SimpleNamespace(leases=self.leases),
            deliveries=None,
            pool=self.database,
            settings=SimpleNamespace(consumer_group="group"),
        )
        self.broker: BrokerHealth = runtime.broker
        self.pipeline: Any = SimpleNamespace(active=5)
        self.gauges = Gauges(runtime, self.pipeline, self.database)  # type: ignore[arg-type]

    def lease(self, partition: int, *offsets: int) -> Ledger:
        ledger = Ledger()
        for offset in offsets:
            ledger.add(offset)
        self.leases["ai-results", partition] = SimpleNamespace(ledger=ledger)
        return ledger

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"streamapp_{name}", labels)

    def lag(self, partition: int) -> float | None:
        return self.value("consumer_lag", topic="ai-results", partition=str(partition))


def test_what_costs_nothing() -> None:
    bench = Bench()
    bench.health.report(ConnectionResetError())
    bench.gauges.refresh()
    assert bench.value("in_flight_messages") == 5
    assert bench.value("lanes_active") == 3
    assert bench.value("table_restore_remaining") == 7
    bench.pipeline.active = 6
    assert bench.value("in_flight_messages") == 6, "as it is now: the counters are, too"
    assert bench.value("outage", dependency="database") == 1
    assert bench.value("outage", dependency="broker") == 0


def test_lag_counts_what_is_not_acknowledged() -> None:
    bench = Bench()
    ledger = bench.lease(0, 10, 11)
    bench.lease(1)
    bench.highwaters["ai-results", 0] = 15
    bench.highwaters["ai-results", 1] = 7
    bench.gauges.refresh()
    assert bench.lag(0) == 5
    assert bench.lag(1) is None, "nothing of it was taken in yet"
    ledger.finish(11)
    bench.gauges.refresh()
    assert bench.lag(0) == 5
    ledger.finish(10)
    bench.gauges.refresh()
    assert bench.lag(0) == 3
    bench.leases.clear()
    bench.gauges.refresh()
    assert bench.lag(0) is None, "its next owner tells it from now on"


async def test_what_the_database_tells_and_that_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "EVERY", 0.0)
    monkeypatch.setattr(module, "SLOW", 1_000_000)
    bench = Bench()
    running = asyncio.create_task(bench.gauges.run())
    await eventually(lambda: bench.value("outbox_backlog") == 4)
    assert bench.value("dlq_unresolved", reason="invalid_payload") == 3
    assert bench.value("dlq_oldest_unresolved_timestamp_seconds") == 400
    assert bench.value("sagas_stuck", level="parked") == 2
    assert bench.value("sagas_stuck", level="given_up") == 1
    bench.database.away = ConnectionRefusedError()
    bench.health.report(bench.database.away)
    asked = bench.database.asked
    await eventually(lambda: bench.database.asked > asked + 2)
    assert not bench.health.available
    bench.database.away = None
    await eventually(lambda: bench.health.available)
    asked = bench.database.asked
    await asyncio.sleep(0)
    assert bench.database.asked == asked, "not in every round"
    assert not running.done()
    running.cancel()


async def test_what_people_are_called_for_shows_in_every_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "EVERY", 0.0)
    monkeypatch.setattr(module, "SLOW", 1_000_000)
    bench = Bench()
    running = asyncio.create_task(bench.gauges.run())
    await eventually(lambda: bench.value("sagas_stuck", level="parked") == 2)
    bench.database.stuck = {"parked": 0, "given_up": 3}
    await eventually(lambda: bench.value("sagas_stuck", level="given_up") == 3)
    assert bench.value("sagas_stuck", level="parked") == 0
    assert bench.database.asked == 1, "and nothing else does"
    running.cancel()


@pytest.mark.parametrize("away", [KafkaConnectionError(), TimeoutError()])
async def test_a_worker_with_nothing_to_send_hears_that_the_broker_goes_and_is_back(
    monkeypatch: pytest.MonkeyPatch, away: BaseException
) -> None:
    monkeypatch.setattr(module, "EVERY", 0)
    bench = Bench()
    task = asyncio.create_task(bench.gauges.run())
    try:
        await eventually(lambda: bench.producer.asked > 2)
        assert bench.broker.available
        bench.producer.away = away
        await eventually(lambda: not bench.broker.available)
        bench.broker.report("topic", away)
        asked = bench.producer.asked
        await eventually(lambda: bench.producer.asked > asked + 2)
        assert bench.broker.away == [ANY_TOPIC, "topic"]
        bench.producer.away = None
        await eventually(lambda: bench.broker.available)
    finally:
        task.cancel()


async def test_what_waits_for_the_broker_tells_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY", 0)
    bench = Bench()
    bench.relay.waiting = True
    bench.broker.report("topic", TimeoutError())
    task = asyncio.create_task(bench.gauges.run())
    try:
        await eventually(lambda: bench.database.asked > 2)
        assert bench.producer.asked == 0
        assert not bench.broker.available
    finally:
        task.cancel()


async def test_a_cluster_that_answers_again_is_heard_of_under_load(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Something waits for the broker at nearly every moment then."""
    monkeypatch.setattr(module, "EVERY", 0)
    bench = Bench()
    bench.relay.waiting = True
    bench.broker.report(ANY_TOPIC, TimeoutError())
    bench.broker.report("topic", TimeoutError())
    task = asyncio.create_task(bench.gauges.run())
    try:
        await eventually(lambda: bench.broker.away == ["topic"])
    finally:
        task.cancel()
