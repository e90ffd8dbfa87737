"""Workers that stop, die, freeze, run out of memory and come and go, under load."""

from __future__ import annotations

import asyncio
import os
import random
import re
import resource
import shutil
import signal
import time
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from aiokafka import AIOKafkaProducer

from streamapp.worker.dedup import changelog_topic
from tests.chaos.evidence import NUMBER, Kind, Sent
from tests.chaos.services import Mood
from tests.kafka.broker import Broker
from tests.kafka.conftest import NewStage
from tests.kafka.stage import Stage, eventually, repeated_requests
from tests.kafka.topics import delete_topic
from tests.support.worker import WorkerProcess

pytestmark = pytest.mark.timeout(400)

FROZEN = float(os.environ.get("KAFKA_TEST_FROZEN", "10"))  # seconds
REBALANCES = int(os.environ.get("KAFKA_TEST_REBALANCES", "20"))
GIVEN_UP = re.compile(r"^(\S+) .*partitions given up: (\d+) records released", re.MULTILINE)


async def test_sigterm_hands_over_without_doing_anything_twice(
    broker: Broker, new_stage: NewStage
) -> None:
    """Two workers take turns in leaving and coming back: what one has begun it finishes, and
    the other one does not do it again. The budgets are such that a slow machine meets them."""
    stage = new_stage(
        broker.bootstrap, STREAMAPP_SHUTDOWN_TIMEOUT="40", STREAMAPP_DRAIN_TIMEOUT="40"
    )
    workers = await stage.prepare(workers=2)
    async with stage.load():
        for leaving in workers:
            await stage.progress()
            assert await leaving.stop() == 0
            await stage.progress()
            leaving.start()
            await leaving.wait_until_ready()
        await stage.progress()
    case = await stage.check()
    assert repeated_requests(case) == {}
    assert len(case.evidence.outbound) == len(case.with_status("COMPLETED", "COMPENSATED"))
    for worker in workers:
        assert all(held == "0" for _, held in GIVEN_UP.findall(worker.log.read_text()))


AUDIT = """
create table audit (
    id bigserial, at timestamptz default clock_timestamp(), who text default session_user, what text
);
create function note() returns trigger language plpgsql as $$
begin
    insert into audit (what) values (tg_table_name);
    return null;
end $$;
"""
AUDITED = (
    "sagas",
    "saga_steps",
    "tasks",
    "lead_activities",
    "outbox",
    "processed_messages",
    "dead_letter_queue",
    "partition_owners",
)


async def audited(stage: Stage, user: str) -> str:
    """Note every write of every table with its user; gives an address for a further user."""
    connection = await stage.connect()
    try:
        await connection.execute(AUDIT)
        for table in AUDITED:
            await connection.execute(
                f"create trigger noted after insert or update or delete on {table} "
                "for each row execute function note()"
            )
        await connection.execute(f"create role {user} superuser login password 'frozen'")
    finally:
        await connection.close()
    parts = urlsplit(stage.dsn)
    address = f"{user}:frozen@{parts.hostname}:{parts.port}"
    return urlunsplit(parts._replace(netloc=address))


async def test_a_frozen_worker_that_wakes_up_changes_nothing(
    broker: Broker, new_stage: NewStage
) -> None:
    """Frozen with orders in flight, for longer than its session; another worker takes over; then
    it is woken. ``KAFKA_TEST_FROZEN`` sets for how many seconds (default 10; for a long run 90).

    The woken one says that it was fenced, and until the group has given it a share again, which
    the other one's hand-over precedes, it writes to no table: no epoch, no journal."""
    stage = new_stage(broker.bootstrap, STREAMAPP_ORDER_SERVICE_TIMEOUT="60")
    user = f"frozen_{os.getpid()}"
    (frozen,) = await stage.prepare(STREAMAPP_DATABASE_URL=await audited(stage, user))
    orders = stage.orders
    async with stage.load():
        await stage.progress()
        orders.temper.mood = Mood.LATE
        await eventually(lambda: len(in_flight(stage)) >= 3)
        frozen.signal(signal.SIGSTOP)
        began = time.monotonic()
        held = in_flight(stage)
        orders.temper.mood = Mood.WELL
        other = stage.new_worker()
        other.start()
        await other.wait_until_ready()
        ended = (
            "select count(*) from sagas where finished_at is not null and processing_id = any($1)"
        )
        await stage.until_more(ended, len(held) - 1, list(held))
        await asyncio.sleep(max(0.0, began + FROZEN - time.monotonic()))
        mark = await stage.fetchval("select max(id) from audit")
        said = len(other.log.read_text())
        frozen.signal(signal.SIGCONT)
        await eventually(lambda: "fenced" in frozen.log.read_text())
        # Its return makes the other one hand over, once it is a member again.
        await eventually(lambda: GIVEN_UP.search(other.log.read_text()[said:]) is not None)
        await frozen.wait_until_ready()
        await stage.progress()
    case = await stage.check()
    for id_ in held:
        requests = [r for r in case.evidence.requests if r.processing_id == id_]
        assert len({request.key for request in requests}) == 1
        assert case.status(id_) in ("COMPLETED", "COMPENSATED")
    handed_over = GIVEN_UP.search(other.log.read_text()[said:])
    assert handed_over is not None
    connection = await stage.connect()
    try:
        writes = await connection.fetch(
            "select at, what from audit where who = $1 and id > $2 order by id", user, mark
        )
        before = await connection.fetchval(
            "select count(*) from audit where who = $1 and id <= $2", user, mark
        )
        await connection.execute(f"drop role {user}")
    finally:
        await connection.close()
    assert before > 0, "its writes are not seen: nothing is shown"
    if writes:
        assert writes[0]["what"] == "partition_owners", "it wrote before it owned anything"
        assert writes[0]["at"] > datetime.fromisoformat(handed_over[1]), "it fenced its successor"
    assert [await frozen.stop(), await other.stop()] == [0, 0]


def in_flight(stage: Stage) -> set[str]:
    """Messages whose order the service has taken in and not answered yet."""
    return {
        request.processing_id
        for request in stage.orders.requests
        if request.operation == "create" and request.outcome == "under way"
    }


OUT_OF_MEMORY = re.compile(r"MemoryError|bad_alloc|Cannot allocate memory|can't start new thread")


async def test_a_worker_out_of_memory(broker: Broker, new_stage: NewStage) -> None:
    """Its address space is limited to what it has, while large records come in: allocations fail
    anywhere. Whether it ends or goes on, after a restart everything is done once."""
    stage = new_stage(broker.bootstrap)
    (worker,) = await stage.prepare(STREAMAPP_MAX_FETCH_BYTES=str(8 * 1024 * 1024))
    async with stage.load():
        await stage.progress()
        resource.prlimit(worker.pid, resource.RLIMIT_AS, (address_space(worker), -1))
        await send_large(stage, 60)
        await eventually(
            lambda: not alive(worker) or bool(OUT_OF_MEMORY.search(worker.log.read_text()))
        )
        await asyncio.sleep(3.0)  # what it does without memory
        worker.kill()
        worker.start()
        await worker.wait_until_ready()
        await stage.progress()
    await stage.check()
    assert await worker.stop() == 0


def address_space(worker: WorkerProcess) -> int:
    pages = int(Path(f"/proc/{worker.pid}/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def alive(worker: WorkerProcess) -> bool:
    return Path(f"/proc/{worker.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


async def send_large(stage: Stage, count: int) -> None:
    """Records as large as the broker takes, which are dead letters each."""
    producer = AIOKafkaProducer(
        bootstrap_servers=stage.settings.kafka_bootstrap_servers,
        enable_idempotence=True,
        max_request_size=1_048_588,
    )
    await producer.start()
    try:
        for _ in range(count):
            number = len(stage.traffic.sent)
            lead = f"lead-large-{number}"
            sent = Sent(number, Kind.BAD, "", lead, 0, lead.encode(), b"x" * 1_000_000)
            stage.traffic.sent[number] = sent
            headers = [(NUMBER, str(number).encode())]
            await producer.send_and_wait(
                stage.settings.input_topic, key=sent.key, value=sent.value, headers=headers
            )
    finally:
        await producer.stop()


@pytest.mark.timeout(900)
async def test_workers_come_and_go(broker: Broker, new_stage: NewStage) -> None:
    """Two workers at a time join one that stays, and leave, by SIGTERM or by SIGKILL. Effects of
    each lead stay in order and nothing gets a second key. ``KAFKA_TEST_REBALANCES`` sets how
    often one joins and leaves (default 20)."""
    # The group stands still in each rebalance: a slow machine must get through all the same.
    stage = new_stage(broker.bootstrap, rate=20.0)
    (stays,) = await stage.prepare()
    draw = random.Random(7)

    async def come_and_go(worker: WorkerProcess, times: int) -> None:
        for _ in range(times):
            worker.start()
            await worker.wait_until_ready()
            await stage.progress(10)
            if draw.random() < 0.5:
                assert await worker.stop() == 0
            else:
                await asyncio.to_thread(worker.kill)

    async with stage.load(), asyncio.TaskGroup() as group:
        for share in (REBALANCES // 2, REBALANCES - REBALANCES // 2):
            group.create_task(come_and_go(stage.new_worker(), share))
    case = await stage.check()
    owners = "select count(distinct worker) from partition_owners"
    # Those of the two may share a rebalance, those of one worker cannot.
    assert await stage.fetchval("select max(epoch) from partition_owners") >= REBALANCES // 2
    assert await stage.fetchval(owners) == 1, "who stays has all in the end"
    assert len(case.sagas) >= 10 * REBALANCES // 2
    assert await stays.stop() == 0


async def test_duplicates_are_known_without_the_changelog(
    broker: Broker, new_stage: NewStage
) -> None:
    """The table of duplicates lost altogether, topic and directory: the database knows them."""
    stage = new_stage(broker.bootstrap)
    (worker,) = await stage.prepare()
    async with stage.load():
        await stage.progress(200)
    await stage.check()
    assert await worker.stop() == 0
    await delete_topic(broker.bootstrap, changelog_topic(stage.settings.consumer_group))
    shutil.rmtree(stage.settings.data_dir)
    worker.start()
    await worker.wait_until_ready()
    again = [sent for sent in stage.traffic.sent.values() if sent.kind is not Kind.BAD]
    await send_again(stage, again)
    case = await stage.check()
    metrics = await worker.metrics()
    assert sum(metrics["streamapp_messages_duplicate_total"].values()) == len(again)
    assert len(case.evidence.log) >= len(stage.traffic.sent) + len(again)
    assert repeated_requests(case) == {}
    assert await worker.stop() == 0


async def send_again(stage: Stage, records: list[Sent]) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=stage.settings.kafka_bootstrap_servers, enable_idempotence=True
    )
    await producer.start()
    try:
        for sent in records:
            headers = [(NUMBER, str(sent.number).encode())]
            await producer.send(
                stage.settings.input_topic, key=sent.key, value=sent.value, headers=headers
            )
    finally:
        await producer.stop()
