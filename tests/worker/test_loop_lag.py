"""Nothing blocks the event loop: under load, by the CPU time of its longest callbacks."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from streamapp.app import build
from streamapp.pipeline.messages import RESULT
from streamapp.settings import load
from streamapp.worker import loop_lag
from streamapp.worker.garbage import settle
from streamapp.worker.runtime import Runtime
from tests.crash.plain import PlainMembership, PlainProducer, PlainTable, Topics
from tests.support.loop import watched_callbacks
from tests.worker.fakes import FakeEvent, FakeMessage

LONG = 0.010  # CPU seconds; what is longer holds up heartbeats and every lead
MESSAGES = 4000
LEADS = 800
DONE_WITHIN = 120.0  # seconds; reached only by a worker that is stuck


@asynccontextmanager
async def running_worker(database: str, directory: Path) -> AsyncIterator[Runtime]:
    """A worker as it is, but for Faust and Kafka."""
    settings = load(
        {
            "STREAMAPP_DATABASE_URL": database,
            "STREAMAPP_DATA_DIR": str(directory),
            "STREAMAPP_LOG_LEVEL": "warning",
        }
    )
    _, worker = build(settings)
    (directory / "topics").mkdir()
    topics = Topics(directory / "topics")
    worker.membership = PlainMembership(topics)  # type: ignore[assignment]
    worker.producer = PlainProducer(  # type: ignore[assignment]
        topics, settings.dlq_topic, settings.outbound_topic
    )
    worker.table = PlainTable(directory / "seen")  # type: ignore[assignment]
    await worker.start()
    worker.intake.assigned([(settings.input_topic, 0)])
    try:
        yield worker
    finally:
        await worker.hand_over(stopping=True)
        await worker.stop()


def order(number: int) -> FakeEvent:
    lead = f"lead-{number * 7919 % LEADS}"
    payload: dict[str, Any] = {
        "processing_id": f"p-{number}",
        "lead_id": lead,
        "business_id": "business",
        "tenant_id": "tenant",
        "intent": {"intent": "ORDER_REQUEST", "confidence": 0.9},
        "entities": {"product": "Desk lamp", "quantity": 3},
        "original_message": "I would like to order this. " * 8,
    }
    value = orjson.dumps({"event_type": RESULT, "event_id": f"e-{number}", "payload": payload})
    return FakeEvent(FakeMessage(number, key=lead.encode(), value=value, timestamp=1.7e9 + number))


async def test_no_callback_holds_the_loop_up_under_load(database: str, tmp_path: Path) -> None:
    events = [order(number) for number in range(MESSAGES)]
    thresholds = gc.get_threshold()
    settle()  # as a worker does when it starts; here the suite's objects are in it, too
    try:
        async with running_worker(database, tmp_path) as worker:

            async def all_done() -> bool:
                done = await worker.pool.fetchval("SELECT count(*) FROM processed_messages")
                return bool(done == MESSAGES)

            with watched_callbacks(LONG) as found:
                for event in events:
                    await worker.accept(event)
                async with asyncio.timeout(DONE_WITHIN):
                    while not await all_done():  # noqa: ASYNC110 - a database sets no event
                        await asyncio.sleep(0.05)
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
    assert len(found.seconds) > MESSAGES
    assert found.quantile(0.999) <= LONG, found.told()


async def test_the_lag_is_told_again_and_again() -> None:
    lags: list[float] = []
    watching = asyncio.create_task(loop_lag.watch(lags.append))
    async with asyncio.timeout(20):
        while len(lags) < 2:  # noqa: ASYNC110 - what is told sets no event
            await asyncio.sleep(0.01)
    watching.cancel()
    assert all(lag >= 0 for lag in lags)
