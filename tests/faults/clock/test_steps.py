"""The wall clock of a worker is set by an hour while it works: nothing waits for that hour."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from tests.faults.clock.fake import FakeClock
from tests.faults.clock.orders import Orders, serving
from tests.kafka.job import Job, check_done_once, job, message, send, wait_until_done
from tests.support.waiting import until, until_async
from tests.support.worker import WorkerProcess
from tests.worker.conftest import Stage

HOUR = 3600.0
STEPS = pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["forward", "back"])
# Far below the hour; reached only by a test that fails.
WITHIN = 60.0


@pytest.fixture
def clock(tmp_path: Path) -> FakeClock:
    return FakeClock(tmp_path)


@pytest.fixture
async def orders() -> AsyncIterator[Orders]:
    async with serving() as orders:
        yield orders


async def started(stage: Stage, clock: FakeClock, orders: Orders, **more: str) -> WorkerProcess:
    stage.create_topics(2)
    worker = stage.worker(
        STREAMAPP_ORDER_SERVICE_URL=orders.url,
        STREAMAPP_DEDUP_WINDOW="1800",  # shorter than the step: it moves everything across edges
        STREAMAPP_INPUT_RETENTION="1800",
        **{
            # Longer than a busy machine keeps a process waiting, shorter than the step by far.
            "STREAMAPP_SESSION_TIMEOUT": "20",
            "STREAMAPP_CIRCUIT_MIN_CALLS": "1000",
            "STREAMAPP_RETRY_DELAYS": "3,3,3,3,3",
            **more,
        },
        **clock.environment,
    )
    worker.start()
    await worker.wait_until_ready()
    return worker


async def rows(stage: Stage, query: str) -> list[Any]:
    connection = await asyncpg.connect(stage.environment["STREAMAPP_DATABASE_URL"])
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def epochs(stage: Stage) -> dict[int, int]:
    """How often each partition changed hands, or was taken anew after a lost session."""
    return dict(await rows(stage, 'SELECT "partition", epoch FROM partition_owners'))


async def set_clock(worker: WorkerProcess, clock: FakeClock, offset: float) -> None:
    """Set it, and wait until the worker's answers are dated by it."""
    clock.set(offset)

    async def seen() -> bool:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{worker.port}/health/live") as response,
        ):
            dated = parsedate_to_datetime(response.headers["Date"])
        return abs((dated - datetime.now(UTC)).total_seconds() - offset) < HOUR / 4

    await until_async(seen)


def order(processing_id: str) -> tuple[bytes, bytes]:
    return b"lead", message(processing_id, "lead", "ORDER_REQUEST")


def alone(processing_id: str) -> Job:
    return Job([order(processing_id)], [processing_id], {processing_id})


def joined(*jobs: Job) -> Job:
    made = Job()
    for each in jobs:
        made.records += each.records
        made.ids += each.ids
        made.orders |= each.orders
    return made


async def outcomes(worker: WorkerProcess) -> Counter[str]:
    async with asyncio.timeout(WITHIN):
        # A busy machine does not answer every time.
        while not (metrics := await worker.metrics()):
            pass
    counted = metrics["streamapp_messages_processed_total"]
    return Counter({labels[0]: int(value) for labels, value in counted.items() if value})


@pytest.mark.timeout(300)
@STEPS
async def test_under_load(stage: Stage, clock: FakeClock, orders: Orders, step: float) -> None:
    worker = await started(stage, clock, orders)
    first = job("before", messages=50, leads=30, duplicates=0.1, seed=1)
    await send(worker.settings, first.records)
    await wait_until_done(worker.settings, WITHIN)
    owned = await epochs(stage)

    second = job("during", messages=150, leads=30, duplicates=0.1, seed=2)
    sending = asyncio.create_task(send(worker.settings, second.records, rate=50))
    for offset in (-step, 0.0, step):
        target = min((await outcomes(worker))["processed"] + 20, 200)

        async def went_on(target: int = target) -> bool:
            return (await outcomes(worker))["processed"] >= target

        await until_async(went_on)
        await set_clock(worker, clock, offset)
    await sending
    last = alone("last")
    await send(worker.settings, last.records)
    await wait_until_done(worker.settings, WITHIN)

    # All again: the marks are beyond the window now, or in buckets to come.
    before = await outcomes(worker)
    again = [*first.records, *second.records, *last.records]
    await send(worker.settings, again)
    await wait_until_done(worker.settings, WITHIN)
    assert await outcomes(worker) - before == Counter({"duplicate": len(again)})
    everything = joined(first, second, last)
    await check_done_once(worker.settings, everything, killed=False)
    assert Counter(orders.made) == Counter({key: 1 for key, _ in orders.requests})
    assert len(orders.made) == len(everything.orders)
    # The session outlived each step, and no write was refused.
    assert await epochs(stage) == owned
    metrics = await worker.metrics()
    assert sum(metrics.get("streamapp_partitions_fenced_total", {}).values()) == 0
    assert sum(metrics.get("streamapp_defects_total", {}).values()) == 0
    assert await worker.stop() == 0


@STEPS
async def test_an_order_that_waits_for_its_next_attempt(
    stage: Stage, clock: FakeClock, orders: Orders, step: float
) -> None:
    worker = await started(stage, clock, orders)
    orders.works = False
    made = alone("waits")
    await send(worker.settings, made.records)
    await until(lambda: len(orders.requests) == 1)
    asked = 1
    await set_clock(worker, clock, step)
    await until(lambda: len(orders.requests) > asked)  # its next attempt does not wait an hour
    orders.works = True
    await wait_until_done(worker.settings, WITHIN)
    await check_once(worker, orders, made)


@STEPS
async def test_an_order_that_waits_while_its_worker_is_killed(
    stage: Stage, clock: FakeClock, orders: Orders, step: float
) -> None:
    """Its due time was written by the other clock."""
    worker = await started(
        stage, clock, orders, STREAMAPP_CIRCUIT_MAX_WAIT="5", STREAMAPP_SESSION_TIMEOUT="6"
    )
    orders.works = False
    made = alone("waits")
    await send(worker.settings, made.records)
    await until(lambda: len(orders.requests) == 2)
    worker.kill()
    clock.set(step)
    asked = len(orders.requests)
    orders.works = True
    worker.start()
    await worker.wait_until_ready()
    await wait_until_done(worker.settings, WITHIN)
    assert len(orders.requests) == asked + 1
    await check_once(worker, orders, made, killed=True)


@STEPS
async def test_an_order_that_waits_for_an_open_circuit(
    stage: Stage, clock: FakeClock, orders: Orders, step: float
) -> None:
    worker = await started(
        stage,
        clock,
        orders,
        STREAMAPP_CIRCUIT_MIN_CALLS="2",
        STREAMAPP_CIRCUIT_OPEN_SECONDS="10",
        STREAMAPP_CIRCUIT_TRIAL_CALLS="1",
        STREAMAPP_RETRY_DELAYS="0.2,0.2,0.2",
    )
    orders.works = False
    made = alone("waits")
    await send(worker.settings, made.records)
    await until(lambda: len(orders.requests) == 2)

    async def circuit() -> Any:
        listed = await worker.json("/api/circuits")
        (found,) = [each for each in listed["circuits"] if each["name"] == "order"]
        return found

    async def opened() -> bool:
        return bool((await circuit())["state"] == "open")

    await until_async(opened)
    await set_clock(worker, clock, step)
    state = await circuit()
    assert state["state"] == "open", "the step alone neither closes it"
    assert 0 < state["seconds_until_retry"] <= 10, "nor keeps it open"
    orders.works = True
    await wait_until_done(worker.settings, WITHIN)
    assert (await circuit())["state"] == "closed"
    await check_once(worker, orders, made)
    (row,) = await rows(
        stage, "SELECT circuit_wait, attempts FROM saga_steps WHERE key IS NOT NULL"
    )
    assert 0 < row[0] <= 2 * WITHIN, "what it waited, not what the clock was set by"
    assert row[1] == 3


async def check_once(
    worker: WorkerProcess, orders: Orders, made: Job, *, killed: bool = False
) -> None:
    await check_done_once(worker.settings, made, killed=killed)
    assert len(orders.made) == 1
    assert len(set(orders.requests)) == 1, "the same key and bytes in every attempt"
