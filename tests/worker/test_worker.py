"""A worker as a process, from the input topic to every place where its work shows."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import aiohttp.web
import asyncpg
import psutil
import pytest

from streamapp.settings import load
from tests.kafka.job import (
    check_done_once,
    job,
    lag,
    message,
    read_all,
    send,
    wait_until_done,
)
from tests.support.waiting import until_async
from tests.support.worker import WorkerProcess
from tests.worker.bad_input import BAD
from tests.worker.conftest import Stage
from tests.worker.fakes import eventually

WITHIN = 40.0  # seconds; reached only by a test that fails
REASON = "__streamapp.errors.reason"


async def rows(stage: Stage, query: str) -> list[Any]:
    connection = await asyncpg.connect(stage.environment["STREAMAPP_DATABASE_URL"])
    try:
        found: list[Any] = await connection.fetch(query)
        return found
    finally:
        await connection.close()


async def running(worker: WorkerProcess) -> WorkerProcess:
    worker.start()
    await worker.wait_until_ready()
    return worker


async def check_counters(worker: WorkerProcess, expected: dict[str, int]) -> None:
    """Deliveries by outcome, and that they add up."""
    metrics = await worker.metrics()
    outcomes = {
        labels[0]: int(value)
        for labels, value in metrics["streamapp_messages_processed_total"].items()
    }
    none = {"processed": 0, "duplicate": 0, "dead_lettered": 0, "released": 0}
    assert outcomes == none | expected
    received = sum(metrics["streamapp_messages_received_total"].values())
    assert received == sum(outcomes.values()) + metrics["streamapp_in_flight_messages"][()]


async def check_what_it_shows(worker: WorkerProcess) -> None:
    """A worker that is ready and has nothing to do."""
    listening = {
        (connection.laddr.ip, connection.laddr.port)
        for connection in psutil.Process(worker.pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {("127.0.0.1", worker.port)}
    ready = await worker.json("/health/ready")
    assert ready["ready"] is True
    assert set(ready["checks"]) >= {"database", "broker", "assigned", "restored"}
    assert await worker.json("/health/live") == {"live": True}
    for path in ("/table/", "/router/", "/graph", "/stats"):
        assert (await worker.get(path))[0] == 404, path

    async def owns_all() -> bool:
        stats = await worker.json("/api/stats")
        return bool(stats["worker"]["partitions"] == [0, 1, 2, 3])

    await until_async(owns_all)  # though no record came


async def test_everything_once_and_counted(stage: Stage) -> None:
    stage.create_topics(4)
    # Only `migrate` goes by this number: a worker asks the broker.
    worker = await running(stage.worker(STREAMAPP_TOPIC_PARTITIONS="7"))
    settings = load(stage.environment)
    await check_what_it_shows(worker)
    made = job("plain", messages=300, leads=50, duplicates=0.2, seed=1)
    await send(settings, made.records)
    await wait_until_done(settings, within=WITHIN)
    await check_done_once(settings, made, killed=False)
    repeated = len(made.records) - len(made.ids)
    assert repeated > 20
    await check_counters(worker, {"processed": len(made.ids), "duplicate": repeated})
    outbound = await read_all(settings, settings.outbound_topic)
    for record in outbound:
        body = json.loads(record.value)
        assert record.key.decode() == body["lead_id"]
        assert body["business_id"] == "business-1"
    assert len({json.loads(record.value)["message_id"] for record in outbound}) == len(made.ids)
    saga = await worker.json(f"/api/sagas/{made.ids[0]}")
    assert saga["status"] == "COMPLETED"
    assert await worker.stop() == 0


async def test_bad_input_is_parked_byte_for_byte_between_what_is_valid(stage: Stage) -> None:
    stage.create_topics(1)
    worker = await running(stage.worker())
    good = job("good", messages=3 * len(BAD) + 3, leads=7, duplicates=0, seed=3)
    key, value = good.records[0]
    twin = value.replace(b"three widgets", b"four widgets")
    assert twin != value
    bad = {**BAD, "the id of another message": (key, twin, "payload_mismatch")}
    records: list[tuple[bytes | None, bytes | None]] = []
    valid: list[tuple[bytes | None, bytes | None]] = list(good.records)
    for bad_key, bad_value, _ in bad.values():
        records += [*valid[:3], (bad_key, bad_value)]
        valid = valid[3:]
    error = {
        "event_id": "event-1",
        "event_type": "ai.error",
        "payload": {"lead_id": "lead", "error_type": "timeout", "error_message": "too slow"},
    }
    records += [*valid, (b"lead", json.dumps(error).encode())]
    await send(worker.settings, records)
    await wait_until_done(worker.settings, within=WITHIN)

    expected = sorted(bad.values(), key=repr)
    letters = await read_all(worker.settings, worker.settings.dlq_topic)
    assert sorted(((r.key, r.value, reason(r)) for r in letters), key=repr) == expected
    await wait_until_done(
        worker.settings.model_copy(update={"input_topic": worker.settings.dlq_topic}), WITHIN
    )
    table = await rows(stage, "SELECT original_key, original_value, reason FROM dead_letter_queue")
    assert sorted((tuple(row) for row in table), key=repr) == expected
    sagas = await rows(stage, "SELECT processing_id, status FROM sagas")
    assert Counter(row["status"] for row in sagas) == {"COMPLETED": len(good.ids) + 1}
    assert {row["processing_id"] for row in sagas} >= set(good.ids)
    replied = await read_all(worker.settings, worker.settings.outbound_topic)
    assert sorted(json.loads(r.value)["in_reply_to"] for r in replied) == sorted(good.ids)
    (activity,) = await rows(stage, "SELECT * FROM lead_activities WHERE lead_id = 'lead'")
    assert "too slow" in str(dict(activity))

    await check_counters(worker, {"processed": len(good.ids) + 1, "dead_lettered": len(bad)})
    counted = (await worker.metrics())["streamapp_dlq_messages_total"]
    assert {labels[0]: value for labels, value in counted.items() if value} == Counter(
        reason for _, _, reason in bad.values()
    )


def reason(record: Any) -> str:
    value: bytes = dict(record.headers)[REASON]
    return value.decode()


async def test_everything_once_though_killed_in_the_middle(stage: Stage) -> None:
    stage.create_topics(4)
    worker = await running(stage.worker())
    made = job("killed", messages=600, leads=80, duplicates=0.1, seed=2)
    sending = asyncio.create_task(send(worker.settings, made.records, rate=500))
    await under_way(worker, 100)
    worker.kill()
    assert await lag(worker.settings) > 0, "the kill came after the work: nothing is shown"
    worker.start()
    await sending
    await wait_until_done(worker.settings, within=WITHIN)
    await check_done_once(worker.settings, made, killed=True)
    # What was finished before the kill is known without a question to the database.
    before = await lookups(worker)
    await send(worker.settings, made.records[:100])
    await wait_until_done(worker.settings, within=WITHIN)
    await check_done_once(worker.settings, made, killed=True)
    found = await lookups(worker) - before
    assert found["hit", "rocksdb"] + found["hit", "postgresql"] == 100
    assert found["hit", "rocksdb"] > 50


async def lookups(worker: WorkerProcess) -> Counter[tuple[str, ...]]:
    return Counter((await worker.metrics())["streamapp_dedup_lookups_total"])


async def under_way(worker: WorkerProcess, processed: int) -> None:
    """Wait until the worker has finished some messages since its start."""
    async with asyncio.timeout(WITHIN):
        while True:
            counted = (await worker.metrics()).get("streamapp_messages_processed_total", {})
            if counted.get(("processed",), 0) >= processed:
                return
            await asyncio.sleep(0.02)


class Orders:
    """An order service that answers once it is let."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.open = asyncio.Event()
        self.url = ""

    async def create(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        self.keys.append(request.headers["Idempotency-Key"])
        await self.open.wait()
        return aiohttp.web.json_response({"order_id": "order-1"})


@pytest.fixture
async def orders() -> AsyncIterator[Orders]:
    orders = Orders()
    app = aiohttp.web.Application()
    app.router.add_post("/orders", orders.create)
    runner = aiohttp.web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
    orders.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield orders
    orders.open.set()
    await runner.cleanup()


async def test_sigterm_finishes_what_it_can_and_leaves_the_rest(
    stage: Stage, orders: Orders
) -> None:
    stage.create_topics(1)
    worker = stage.worker(STREAMAPP_ORDER_SERVICE_URL=orders.url, STREAMAPP_SHUTDOWN_TIMEOUT="0.2")
    await running(worker)
    record = (b"lead", message("order", "lead", "ORDER_REQUEST"))
    await send(worker.settings, [record])
    await eventually(lambda: orders.keys)
    assert await worker.stop() == 0, "though the order was not answered in time"
    assert await lag(worker.settings) == 1, "not acknowledged before its outcome is durable"
    assert await rows(stage, "SELECT status FROM sagas") == [("RUNNING",)]

    worker.environment["STREAMAPP_SHUTDOWN_TIMEOUT"] = "30"
    worker.log.unlink()
    worker.start()
    await eventually(lambda: len(orders.keys) == 2)
    worker.signal(signal.SIGTERM)
    await eventually(lambda: "StreamApp]: Stopping" in worker.log.read_text())
    orders.open.set()
    assert await worker.ended() == 0
    assert await lag(worker.settings) == 0
    assert await rows(stage, "SELECT status FROM sagas") == [("COMPLETED",)]
    assert len(orders.keys) == 2
    assert len(set(orders.keys)) == 1, "repeated under the same key"


async def test_records_that_faust_loses_are_fetched_again(stage: Stage) -> None:
    stage.create_topics(4)
    worker = stage.worker()
    worker.program = ("-m", "tests.worker.losing_faust")
    await running(worker)
    settings = load(stage.environment)
    made = job("lost", messages=400, leads=50, duplicates=0.1, seed=3)
    bad = [(b"bad", b"no JSON %d" % number) for number in range(60)]
    await send(settings, [*made.records, *bad])
    await wait_until_done(settings, within=WITHIN * 2)

    async def all_letters() -> bool:
        return len(await rows(stage, "SELECT 1 FROM dead_letter_queue")) == len(bad)

    await until_async(all_letters)
    await check_done_once(settings, made, killed=False, letters=len(bad))
    metrics = await worker.metrics()
    assert metrics["streamapp_deliveries_skipped_total"][(settings.input_topic,)] >= 4
    assert metrics["streamapp_deliveries_skipped_total"][(settings.dlq_topic,)] >= 1
    assert await worker.stop() == 0
