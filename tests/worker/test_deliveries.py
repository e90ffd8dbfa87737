"""A worker that sends replies: from the outbound topic to WhatsApp, killed at every point of it."""

from __future__ import annotations

import hashlib
import hmac
import json
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import aiohttp
import asyncpg
import pytest

from streamapp.resilience.crash_points import POINTS
from tests.kafka.job import lag, send
from tests.support.waiting import until_async
from tests.support.whatsapp import NUMBER, TOKEN, Cloud, cloud
from tests.support.worker import WorkerProcess
from tests.worker.conftest import Stage

SECRET = "app-secret-of-the-test"
# What is left of a reply whose worker died there: its status, and the messages at WhatsApp.
ENDS = {
    "delivery.sending": ("unknown", 0),
    "delivery.answered": ("unknown", 1),
    "delivery.settled": ("sent", 1),
    "delivery.committed": ("sent", 1),
}


@pytest.fixture
async def far() -> AsyncIterator[Cloud]:
    async with cloud() as far:
        yield far


def record(message_id: str, **changes: Any) -> tuple[bytes, bytes]:
    value = {
        "message_id": message_id,
        "lead_id": "lead-1",
        "business_id": "business-1",
        "tenant_id": "tenant-1",
        "to": "491701234567",
        "text": f"text of {message_id}",
        "in_reply_to": "p",
        "created_at": datetime.now(UTC).isoformat(),
        **changes,
    }
    return b"lead-1", json.dumps(value).encode()


def worker_of(stage: Stage, far: Cloud) -> WorkerProcess:
    return stage.worker(
        STREAMAPP_WHATSAPP_API_URL=far.url,
        STREAMAPP_WHATSAPP_PHONE_NUMBER_ID=NUMBER,
        STREAMAPP_WHATSAPP_ACCESS_TOKEN=TOKEN,
        STREAMAPP_WHATSAPP_APP_SECRET=SECRET,
        STREAMAPP_WHATSAPP_VERIFY_TOKEN="verify-me",
        STREAMAPP_WHATSAPP_RECIPIENT_INTERVAL="0",
    )


async def publish(worker: WorkerProcess, *records: tuple[bytes, bytes]) -> None:
    settings = worker.settings
    await send(settings.model_copy(update={"input_topic": settings.outbound_topic}), records)


async def fetch(worker: WorkerProcess, sql: str) -> list[Any]:
    connection = await asyncpg.connect(worker.environment["STREAMAPP_DATABASE_URL"])
    try:
        return [tuple(row) for row in await connection.fetch(sql)]
    finally:
        await connection.close()


async def until_acknowledged(worker: WorkerProcess) -> None:
    settings = worker.settings
    outbound = settings.model_copy(update={"input_topic": settings.outbound_topic})

    async def done() -> bool:
        return await lag(outbound) == 0

    await until_async(done)


async def test_replies_arrive_in_order_and_bad_records_stop_nobody(
    stage: Stage, far: Cloud
) -> None:
    stage.create_topics(1)
    worker = worker_of(stage, far)
    worker.start()
    await worker.wait_until_ready()
    first = record("m-1")
    await publish(
        worker,
        first,
        (b"lead-1", b"no JSON"),
        first,
        (b"other", record("m-x")[1]),
        (first[0], first[1].replace(b"text of", b"another of")),
        record("m-2", to=None),
        record("m-3"),
    )
    await until_acknowledged(worker)
    assert far.texts == ["text of m-1", "text of m-3"]
    rows = await fetch(
        worker, "select message_id, status, reason from outbound_deliveries order by 1"
    )
    assert rows == [
        ("m-1", "sent", None),
        ("m-2", "failed", "no_recipient"),
        ("m-3", "sent", None),
    ]

    async def all_letters() -> bool:
        found = await fetch(worker, "select reason from dead_letter_queue order by 1")
        return found == [("invalid_payload",), ("invalid_payload",), ("payload_mismatch",)]

    await until_async(all_letters)
    counted = (await worker.metrics())["streamapp_responses_total"]
    assert counted["whatsapp", "sent"] == 2
    assert counted["whatsapp", "failed"] == 1
    assert TOKEN not in worker.log.read_text()

    body = json.dumps(
        {
            "entry": [
                {
                    "changes": [
                        {
                            "value": {
                                "statuses": [
                                    {"id": "wamid.1", "status": "read"},
                                    {"id": "wamid.77", "status": "read"},
                                ]
                            }
                        }
                    ]
                }
            ]
        }
    ).encode()
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    url = f"http://127.0.0.1:{worker.port}/webhooks/whatsapp"
    async with aiohttp.ClientSession() as session:
        for given, status in (("0" * 64, 401), (signature, 200)):
            headers = {"X-Hub-Signature-256": f"sha256={given}"}
            async with session.post(url, data=body, headers=headers) as answer:
                assert answer.status == status
    rows = await fetch(worker, "select message_id from outbound_deliveries where status = 'read'")
    assert rows == [("m-1",)]
    told = (await worker.metrics())["streamapp_delivery_statuses_total"]
    assert told == {("applied", "read"): 1, ("unknown", "read"): 1}
    status, text = await worker.get(
        "/webhooks/whatsapp?hub.mode=subscribe&hub.verify_token=verify-me&hub.challenge=42"
    )
    assert (status, text) == (200, "42")
    assert await worker.stop() == 0


async def test_without_whatsapp_nobody_reads_the_topic(stage: Stage) -> None:
    stage.create_topics(1)
    worker = stage.worker()
    worker.start()
    await worker.wait_until_ready()
    assert (await worker.get("/webhooks/whatsapp"))[0] == 404
    assert await fetch(worker, "select * from outbound_deliveries") == []
    assert await worker.stop() == 0


def test_every_point_of_a_delivery_has_its_end() -> None:
    assert {point for point in POINTS if point.startswith("delivery.")} == ENDS.keys()


@pytest.mark.parametrize("point", ENDS)
async def test_killed_there_nothing_is_sent_twice(stage: Stage, far: Cloud, point: str) -> None:
    stage.create_topics(1)
    worker = worker_of(stage, far)
    worker.environment |= {
        "STREAMAPP_ENVIRONMENT": "test",
        "STREAMAPP_CRASH_POINT": point,
    }
    worker.start()
    await publish(worker, record("m-1"))
    assert await worker.ended() == -signal.SIGKILL, worker.log.read_text()
    del worker.environment["STREAMAPP_CRASH_POINT"]
    worker.start()
    await worker.wait_until_ready()
    await until_acknowledged(worker)
    rows = await fetch(worker, "select status from outbound_deliveries")
    assert (rows, len(far.messages)) == ([(ENDS[point][0],)], ENDS[point][1])
