"""The main job on Apache Kafka and PostgreSQL: everything once, also across kill -9."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.kafka.broker import Broker
from tests.kafka.job import (
    check_done_once,
    job,
    lag,
    message,
    read_all,
    send,
    wait_until_done,
)
from tests.support.worker import WorkerProcess

pytestmark = pytest.mark.timeout(300)

_names = count(1)
NewWorker = Callable[..., WorkerProcess]


@pytest.fixture
def new_worker(broker: Broker, database: str, tmp_path: Path) -> Iterator[NewWorker]:
    """Makes workers that share topics, consumer group and database of this test's own."""
    name = f"t{next(_names)}"
    made: list[WorkerProcess] = []

    def make(**more: str) -> WorkerProcess:
        environment = {
            "STREAMAPP_KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap,
            "STREAMAPP_DATABASE_URL": database,
            "STREAMAPP_INPUT_TOPIC": f"{name}-ai-results",
            "STREAMAPP_DLQ_TOPIC": f"{name}-ai-results-dlq",
            "STREAMAPP_OUTBOUND_TOPIC": f"{name}-whatsapp-outbound",
            "STREAMAPP_CONSUMER_GROUP": name,
            "STREAMAPP_TOPIC_PARTITIONS": "4",
            "STREAMAPP_SESSION_TIMEOUT": "6",
            **more,
        }
        worker = WorkerProcess(tmp_path / f"worker-{len(made)}", environment)
        made.append(worker)
        return worker

    yield make
    for worker in made:
        worker.kill()


async def migrated(worker: WorkerProcess) -> WorkerProcess:
    status, _, errors = await worker.run("migrate")
    assert status == 0, errors
    return worker


async def test_every_message_once(new_worker: NewWorker) -> None:
    worker = await migrated(new_worker())
    worker.start()
    await worker.wait_until_ready()
    made = job("plain", messages=2500, leads=250, duplicates=0.1, seed=1)
    await send(worker.settings, made.records)
    await wait_until_done(worker.settings, within=120)
    assert await worker.stop() == 0
    await check_done_once(worker.settings, made, killed=False)


async def test_every_message_once_though_killed_twice(new_worker: NewWorker) -> None:
    worker = await migrated(new_worker())
    worker.start()
    await worker.wait_until_ready()
    made = job("killed", messages=2500, leads=250, duplicates=0.1, seed=2)
    sending = asyncio.create_task(send(worker.settings, made.records, rate=500))
    for _ in range(2):
        await under_way(worker)
        worker.kill()
        assert await lag(worker.settings), "the kill came after the work: nothing is shown"
        worker.start()
    await sending
    await wait_until_done(worker.settings, within=120)
    assert await worker.stop() == 0
    await check_done_once(worker.settings, made, killed=True)


async def under_way(worker: WorkerProcess) -> None:
    """Wait until the worker has finished some messages since its start."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 60
    while True:
        _, text = await worker.get("/metrics")
        if metric(text, 'streamapp_messages_processed_total{outcome="processed"}') > 200:
            return
        assert loop.time() < deadline, worker.log.read_text()
        await asyncio.sleep(0.05)


def metric(text: str, name: str) -> float:
    for line in text.splitlines():
        if line.startswith(name):
            return float(line.rsplit(" ", 1)[1])
    return 0.0


BAD: dict[str, tuple[bytes | None, bytes | None, str]] = {
    "not UTF-8": (b"bad", b"\xff\xfe{}", "invalid_payload"),
    "not JSON": (b"bad", b"hello", "invalid_payload"),
    "null value": (b"bad", None, "invalid_payload"),
    "no key and no value": (None, None, "invalid_payload"),
    "no key": (None, message("bad-key", "bad", "UNKNOWN"), "invalid_payload"),
    "key of another lead": (b"bad", message("bad-lead", "good", "UNKNOWN"), "invalid_payload"),
    "no ids": (b"bad", b'{"lead_id": "bad"}', "invalid_payload"),
    "deep": (b"bad", b"[" * 100_000, "invalid_payload"),
    "NUL": (
        b"bad",
        message("bad-nul", "bad", "UNKNOWN", entities={"a": "\0"}),
        "invalid_payload",
    ),
    "NaN": (
        b"bad",
        message("bad-nan", "bad", "UNKNOWN").replace(b"0.93", b"NaN"),
        "invalid_payload",
    ),
    "unknown tenant": (
        b"bad",
        message("bad-tenant", "bad", "UNKNOWN", tenant_id=None),
        "unknown_tenant",
    ),
    "as large as the broker takes": (
        b"bad",
        b"x" * (1_048_588 - 200),
        "invalid_payload",
    ),
}


async def test_bad_input_is_parked_byte_for_byte(new_worker: NewWorker) -> None:
    worker = await migrated(new_worker(STREAMAPP_TOPIC_PARTITIONS="1"))
    worker.start()
    await worker.wait_until_ready()
    good = job("good", messages=60, leads=7, duplicates=0, seed=3)
    twin = message(good.ids[0], good.records[0][0].decode(), "COMPLAINT", original_message="other")
    bad = {**BAD, "same id, other payload": (good.records[0][0], twin, "payload_mismatch")}
    records: list[tuple[bytes | None, bytes | None]] = []
    rest: list[tuple[bytes | None, bytes | None]] = list(good.records)
    for key, value, _ in bad.values():
        records += rest[:4]
        rest = rest[4:]
        records.append((key, value))
    await send(worker.settings, records + rest)
    await wait_until_done(worker.settings, within=60)
    await stored(worker, len(bad))

    letters = await read_all(worker.settings, worker.settings.dlq_topic)
    found = sorted(((r.key, r.value, reason(r)) for r in letters), key=repr)
    assert found == sorted(bad.values(), key=repr)
    status, output, _ = await worker.run("dlq", "list", "--json")
    assert status == 0
    listed = json.loads(output)
    rows = listed if isinstance(listed, list) else listed["dead_letters"]
    shown = []
    for row in rows:
        status, output, _ = await worker.run("dlq", "show", row["dead_letter_id"], "--json")
        assert status == 0
        letter = json.loads(output)
        shown.append(
            (decoded(letter["key_base64"]), decoded(letter["value_base64"]), letter["reason"])
        )
    assert sorted(shown, key=repr) == sorted(bad.values(), key=repr)
    _, text = await worker.get("/metrics")
    count_of = 'streamapp_messages_processed_total{outcome="%s"}'
    assert metric(text, count_of % "processed") == len(good.ids)
    assert metric(text, count_of % "dead_lettered") == len(bad)
    assert await worker.stop() == 0


def reason(record: Any) -> str:
    value: bytes = dict(record.headers)["__streamapp.errors.reason"]
    return value.decode()


def decoded(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


async def stored(worker: WorkerProcess, letters: int) -> None:
    """Wait until the dead letters are in the table."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 30
    while True:
        status, text = await worker.get("/api/stats")
        if (
            status == 200
            and sum(json.loads(text)["database"]["dead_letters"]["by_status"].values()) >= letters
        ):
            return
        assert loop.time() < deadline, text
        await asyncio.sleep(0.1)
