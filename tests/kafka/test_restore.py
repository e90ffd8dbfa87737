"""A lost table is restored from its changelog, killed and disturbed on the way."""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from pathlib import Path

import pytest
import rocksdict
from aiokafka import AIOKafkaProducer

from streamapp.worker.dedup import changelog_topic
from streamapp.worker.local_database import OFFSET_KEY
from tests.chaos.evidence import Kind
from tests.kafka.broker import Broker
from tests.kafka.conftest import NewStage
from tests.kafka.stage import Stage
from tests.kafka.test_worker_faults import send_again
from tests.support.worker import WorkerProcess

pytestmark = pytest.mark.timeout(400)

PARTITIONS = 4
MARKS = 150_000  # of each partition, beside those of real messages
DELETED = 500  # of them, by tombstones
WITHIN = 60.0  # seconds


async def fill(stage: Stage, marks: int = MARKS) -> None:
    """Marks as a busy day leaves them in each partition, some of them deleted again."""
    topic = changelog_topic(stage.settings.consumer_group)
    bucket = b"%010d|" % int(time.time() // (stage.settings.dedup_window / 2))
    producer = AIOKafkaProducer(
        bootstrap_servers=stage.settings.kafka_bootstrap_servers, max_batch_size=500_000
    )
    await producer.start()

    async def send(partition: int, changes: list[tuple[bytes, bytes | None]]) -> None:
        while changes:
            batch = producer.create_batch()
            taken = 0
            for key, value in changes:
                if batch.append(key=key, value=value, timestamp=None) is None:
                    break
                taken += 1
            await (await producer.send_batch(batch, topic, partition=partition))
            del changes[:taken]

    try:
        for partition in range(PARTITIONS):
            keys = [bucket + b"filler-%d" % number for number in range(marks)]
            changes: list[tuple[bytes, bytes | None]] = [(key, b"h" * 32) for key in keys]
            await send(partition, [*changes, *((key, None) for key in keys[:DELETED])])
    finally:
        await producer.stop()


async def until_restoring(worker: WorkerProcess) -> float:
    """Wait until a part of the table is there, and a part is missing; gives the missing one."""
    deadline = time.monotonic() + WITHIN
    while True:
        metrics = await worker.metrics()
        left = metrics.get("streamapp_table_restore_remaining", {}).get((), 0.0)
        if 0 < left < PARTITIONS * MARKS:
            return left
        assert time.monotonic() < deadline, f"{left} are left\n{worker.log.read_text()[-4000:]}"
        await asyncio.sleep(0.005)


def stored(directory: Path) -> int:
    """The marks in the databases of a worker that has ended."""
    count = 0
    for path in directory.glob("**/seen-*.db"):
        options = rocksdict.Options(raw_mode=True)
        access = rocksdict.AccessType.read_only()
        database = rocksdict.Rdict(str(path), options=options, access_type=access)
        count += sum(key != OFFSET_KEY for key in database.keys())  # noqa: SIM118 (no dict)
        database.close()
    return count


async def test_a_lost_table_is_restored_though_killed_on_the_way(
    broker: Broker, new_stage: NewStage
) -> None:
    stage = new_stage(broker.bootstrap)
    (worker,) = await stage.prepare()
    async with stage.load():
        await stage.progress(200)
    await stage.check()
    assert await worker.stop() == 0
    marks = stored(Path(stage.settings.data_dir))
    assert marks >= 200
    await fill(stage)
    shutil.rmtree(stage.settings.data_dir)
    worker.start()
    left = await until_restoring(worker)
    await asyncio.to_thread(worker.kill)
    worker.start()
    # What was restored before the kill is not restored again.
    assert await until_restoring(worker) <= left
    other = stage.new_worker()
    other.start()
    await other.wait_until_ready()
    await worker.wait_until_ready()
    again = [sent for sent in stage.traffic.sent.values() if sent.kind is not Kind.BAD]
    await send_again(stage, again)
    await stage.check()
    hits = 0.0
    for each in (worker, other):
        metrics = await each.metrics()
        hits += metrics["streamapp_dedup_lookups_total"].get(("hit", "rocksdb"), 0.0)
    assert hits == len(again), "all were known to a local table"
    assert await other.stop() == 0
    await stage.until_more("select max(epoch) from partition_owners", 0)
    await worker.wait_until_ready()
    assert await worker.stop() == 0
    assert stored(Path(stage.settings.data_dir)) == marks + PARTITIONS * (MARKS - DELETED)


RESTORED = re.compile(r"restored (\d+) records")
COPIED = 20_000  # marks of each partition


async def until_copied(workers: list[WorkerProcess], marks: int) -> None:
    """Wait until each worker has all marks in its databases, be it only as a copy."""
    deadline = time.monotonic() + WITHIN
    for worker in workers:
        while (found := stored_meanwhile(worker.settings.data_dir)) < marks:
            assert time.monotonic() < deadline, f"{found} of {marks}\n{worker.log.read_text()}"
            await asyncio.sleep(0.5)


def stored_meanwhile(directory: Path) -> int:
    """The same of a worker that runs, which may take files away that are being read; then 0."""
    try:
        return stored(directory)
    except Exception:
        return 0


async def test_who_takes_over_has_the_table_already(broker: Broker, new_stage: NewStage) -> None:
    stage = new_stage(broker.bootstrap)
    (worker,) = await stage.prepare()
    async with stage.load():
        await stage.progress(100)
    await stage.check()
    assert await worker.stop() == 0
    await fill(stage, COPIED)
    worker.start()
    await worker.wait_until_ready()
    survivor = stage.new_worker()
    survivor.start()
    await survivor.wait_until_ready()
    await worker.wait_until_ready()
    await until_copied([worker, survivor], PARTITIONS * (COPIED - DELETED) + 100)
    before = len(survivor.log.read_text())
    await asyncio.to_thread(worker.kill)
    again = [sent for sent in stage.traffic.sent.values() if sent.kind is not Kind.BAD]
    await send_again(stage, again)
    await stage.check()
    log = survivor.log.read_text()
    assert sum(map(int, RESTORED.findall(log[before:]))) < COPIED, log[before:]
    metrics = await survivor.metrics()
    assert metrics["streamapp_dedup_lookups_total"].get(("hit", "rocksdb"), 0.0) == len(again)
    assert await survivor.stop() == 0
