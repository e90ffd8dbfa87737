"""PostgreSQL is away for long, under steady load: nothing is lost, nothing grows, nobody shouts.

How long is set by ``STREAMAPP_TEST_OUTAGE_SECONDS`` (default 75, at least 60): longer than the
session timeout and than any interval at which a part of the worker looks for something. Ten
minutes and more are for the time before a release. ``STREAMAPP_TEST_OUTAGE_RATE`` is the load in
messages a second (default 60). What was measured is printed (``pytest -s`` shows it).
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from streamapp.demo.guardian import Guardian
from streamapp.demo.postgres import EmbeddedPostgres
from streamapp.demo.services import MailServer, OrderService
from streamapp.settings import Settings
from streamapp.storage.migrations import upgrade
from tests.faults.load import Load, Services, check, is_red, processed, steady, works
from tests.kafka.broker import Broker
from tests.support.worker import WorkerProcess

OUTAGE = max(60.0, float(os.environ.get("STREAMAPP_TEST_OUTAGE_SECONDS", "75")))
RATE = float(os.environ.get("STREAMAPP_TEST_OUTAGE_RATE", "60"))
SESSION_TIMEOUT = 6.0  # seconds; the least that a broker allows by default
WARM = 2000  # messages before the outage: caches are full, statements prepared
WARM_WITHIN = 240.0  # seconds
BACK_WITHIN = 30.0  # seconds until work goes on; a condition's deadline, not a measure of speed
STANDSTILL = 60.0  # seconds without anything done, where there is work
GROWTH = 1.2  # times the memory of before

# Lines that the worker may write while the database is away. The outage is said at once and once
# a minute; the rest is room for what a client of the broker says by the way.
LINES_AT_ONCE = 4
LINES_A_MINUTE = 2

pytestmark = pytest.mark.timeout(900 + 6 * OUTAGE)


@dataclass
class Figures:
    """What was measured; memory in KiB."""

    before: int = 0
    during: list[int] = field(default_factory=list)
    lines: int = 0
    back_after: float = 0.0
    caught_up_after: float = 0.0
    catching_up: list[int] = field(default_factory=list)
    after: int = 0


def memory(worker: WorkerProcess) -> int:
    """Resident memory of the worker's process in KiB."""
    for line in Path(f"/proc/{worker.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("the worker has ended")


def lines(worker: WorkerProcess) -> list[str]:
    return worker.log.read_text().splitlines()


async def members(settings: Settings) -> tuple[str, set[str]]:
    """The state of the consumer group, and the ids of its members."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await admin.start()
    try:
        (response,) = await admin.describe_consumer_groups([settings.consumer_group])
        (group,) = response.groups
        return group[2], {member[0] for member in group[5]}
    finally:
        await admin.close()


@pytest.fixture
async def server(guardian: Guardian) -> AsyncIterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(guardian, "long-outage")
    await asyncio.to_thread(server.start)
    await upgrade(server.dsn())
    yield server
    await asyncio.to_thread(server.stop)


@pytest.fixture
async def services() -> AsyncIterator[Services]:
    orders, mail = OrderService(), MailServer()
    environment = {
        "STREAMAPP_ORDER_SERVICE_URL": await orders.start(),
        "STREAMAPP_SMTP_URL": await mail.start(),
        "STREAMAPP_SALES_EMAIL": "sales@localhost.example",
    }
    yield Services(orders, mail, environment)
    await orders.stop()
    await mail.stop()


@pytest.fixture
async def worker(
    broker: Broker, server: EmbeddedPostgres, services: Services, tmp_path: Path
) -> AsyncIterator[WorkerProcess]:
    worker = WorkerProcess(
        tmp_path / "worker",
        {
            "STREAMAPP_KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap,
            "STREAMAPP_DATABASE_URL": server.dsn(),
            "STREAMAPP_INPUT_TOPIC": "long-ai-results",
            "STREAMAPP_DLQ_TOPIC": "long-ai-results-dlq",
            "STREAMAPP_OUTBOUND_TOPIC": "long-whatsapp-outbound",
            "STREAMAPP_CONSUMER_GROUP": "long",
            "STREAMAPP_TOPIC_PARTITIONS": "4",
            "STREAMAPP_SESSION_TIMEOUT": str(SESSION_TIMEOUT),
            **services.environment,
        },
    )
    status, _, errors = await worker.run("migrate")
    assert status == 0, errors
    worker.start()
    await worker.wait_until_ready()
    yield worker
    worker.kill()


async def test_a_long_outage_of_the_database(
    worker: WorkerProcess, server: EmbeddedPostgres, services: Services
) -> None:
    figures = Figures()
    most = int(RATE * (WARM / RATE + OUTAGE + 300))
    async with steady(worker.settings, "long", rate=RATE, leads=300, most=most) as load:
        await works(worker, WARM, within=WARM_WITHIN)
        figures.before = memory(worker)
        state, before = await members(worker.settings)
        assert (state, len(before)) == ("Stable", 1)
        said = len(lines(worker))

        await asyncio.to_thread(server.stop)
        await is_red(worker)
        stuck_at = await processed(worker)
        await away(worker, figures)
        figures.lines = len(lines(worker)) - said
        assert await processed(worker) == stuck_at
        assert await members(worker.settings) == ("Stable", before)

        await asyncio.to_thread(server.start)
        back = time.monotonic()
        async with asyncio.timeout(BACK_WITHIN):
            while await processed(worker) == stuck_at:  # noqa: ASYNC110 - another process works
                await asyncio.sleep(0.02)
        figures.back_after = time.monotonic() - back
    await caught_up(worker, load, figures)
    await check(worker, load, services, within=STANDSTILL)
    figures.after = memory(worker)
    assert await members(worker.settings) == ("Stable", before)
    since = "\n".join(lines(worker)[said:])
    assert "partitions given up" not in since, "the membership was lost"
    await report(worker, load, figures)

    allowed = LINES_AT_ONCE + LINES_A_MINUTE * OUTAGE / 60
    assert 1 <= figures.lines <= allowed, since
    assert max(figures.during) <= GROWTH * figures.before, figures
    assert figures.after <= GROWTH * figures.before, figures
    assert await worker.stop() == 0


async def away(worker: WorkerProcess, figures: Figures) -> None:
    """The outage: red, alive and a member all the time."""
    end = time.monotonic() + OUTAGE
    while time.monotonic() < end:
        status, text = await worker.get("/health/ready")
        checks = json.loads(text)["checks"]
        assert (status, checks["database"], checks["assigned"]) == (503, False, True)
        assert (await worker.get("/health/live"))[0] == 200
        figures.during.append(memory(worker))
        await asyncio.sleep(1.0)


async def caught_up(worker: WorkerProcess, load: Load, figures: Figures) -> None:
    """Return once all is done; a loaded machine may be slow, and must not stand still."""
    began = progress = time.monotonic()
    most = await processed(worker)
    while most < load.sent:
        figures.catching_up.append(memory(worker))
        await asyncio.sleep(0.5)
        done = await processed(worker)
        if done > most:
            most, progress = done, time.monotonic()
        assert time.monotonic() - progress < STANDSTILL, f"{load.sent - most} messages are left"
    figures.caught_up_after = time.monotonic() - began


async def report(worker: WorkerProcess, load: Load, figures: Figures) -> None:
    connection = await asyncpg.connect(worker.settings.database_url.get_secret_value())
    try:
        letters = await connection.fetchval("select count(*) from dead_letter_queue")
    finally:
        await connection.close()
    during, catching_up = figures.during, figures.catching_up or [figures.after]
    print(
        f"\noutage {OUTAGE:.0f} s at {RATE:.0f} messages/s: {load.sent} messages, all done; "
        f"{letters} dead letters; {figures.lines} lines logged meanwhile; "
        f"first commit {figures.back_after:.1f} s after the server's return, "
        f"all done {figures.caught_up_after:.0f} s later; memory in MiB: "
        f"{figures.before / 1024:.1f} before, {during[0] / 1024:.1f} to {during[-1] / 1024:.1f} "
        f"(at most {max(during) / 1024:.1f}) meanwhile, at most {max(catching_up) / 1024:.1f} "
        f"while catching up, {figures.after / 1024:.1f} after"
    )
