"""One life of the worker from plain sources, in a process that may be killed at any point."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
from prometheus_client import CollectorRegistry

from streamapp.resilience import crash_points
from streamapp.services import slack
from streamapp.services.http import HttpService
from streamapp.settings import Settings, load
from streamapp.worker import gauges, runtime
from tests.crash.plain import PlainMembership, PlainProducer, PlainTable, Source, Topics
from tests.crash.plan import add_actions, intents, refused_order
from tests.crash.recorder import Recorder

REDRIVE = "a letter to be redriven"
DONE_WITHIN = 60.0  # seconds; reached only by a run that is stuck


@dataclass(frozen=True, slots=True)
class Life:
    """What one process is told: where things are, and where it has to die."""

    name: str
    directory: str
    dsn: str
    ledger: str
    smtp: str
    point: str | None = None
    number: int = 1
    record: bool = False


def settings_of(life: Life) -> Settings:
    """Topics, group and ids of a run are its own; the database is shared."""
    return load(
        {
            "STREAMAPP_DATABASE_URL": life.dsn,
            "STREAMAPP_DATA_DIR": life.directory,
            "STREAMAPP_CONSUMER_GROUP": life.name,
            "STREAMAPP_INPUT_TOPIC": f"{life.name}-in",
            "STREAMAPP_DLQ_TOPIC": f"{life.name}-dlq",
            "STREAMAPP_OUTBOUND_TOPIC": f"{life.name}-out",
            "STREAMAPP_ORDER_SERVICE_URL": life.ledger,
            "STREAMAPP_INVENTORY_SERVICE_URL": life.ledger,
            "STREAMAPP_CALENDAR_SERVICE_URL": life.ledger,
            "STREAMAPP_SALES_SLACK_WEBHOOK_URL": f"{life.ledger}/slack",
            "STREAMAPP_SMTP_URL": life.smtp,
            "STREAMAPP_SMTP_TIMEOUT": "3",
            "STREAMAPP_SALES_EMAIL": "sales@example.org",
            "STREAMAPP_RETRY_DELAYS": "0,0,0",
            "STREAMAPP_STUCK_DELAYS": "0.05",
            "STREAMAPP_CIRCUIT_MIN_CALLS": "100000",
            "STREAMAPP_COMMIT_INTERVAL": "0.02",
            "STREAMAPP_OUTBOX_INTERVAL": "0.02",
        }
    )


def live(life: Life) -> None:
    """The process: works until everything is done, or dies before."""
    # Looks that wait for people's time are shortened; what they do is the worker's own.
    runtime.STUCK_LOOK = 0.02
    slack.INTERVAL = 0.01
    gauges.EVERY = 3600.0
    log = os.open(Path(life.directory) / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    asyncio.run(_live(life))


async def _live(life: Life) -> None:
    recorder = Recorder()
    this = asyncio.current_task()
    assert this is not None
    this.set_name("main")
    if life.record:
        recorder.install()
    elif life.point is not None:
        crash_points.kill_at(life.point, life.number)
    async with _worker(life, recorder) as worker:
        await _until_done(life, worker)
        await worker.hand_over(stopping=True)
    directory = Path(life.directory)
    (directory / "counts.json").write_text(json.dumps(_counts(worker.metrics.registry)))
    if life.record:
        entries = [(entry.flow, entry.kind, entry.name) for entry in recorder.entries]
        (directory / "recorded.json").write_text(json.dumps(entries))


@asynccontextmanager
async def _worker(life: Life, recorder: Recorder) -> AsyncIterator[runtime.Runtime]:
    from streamapp.app import build

    settings = settings_of(life)
    _, worker = build(settings)
    topics = Topics(Path(life.directory))
    membership = PlainMembership(topics)
    producer = PlainProducer(topics, settings.dlq_topic, settings.outbound_topic)
    table = PlainTable(Path(life.directory) / "seen")
    membership.on_commit = lambda: recorder.action("offsets")
    producer.on_send = lambda topic: recorder.action(f"produce {topic}")
    table.on_mark = lambda: recorder.action("mark")
    ledger = HttpService("ledger", life.ledger)
    add_actions(worker.actions, ledger)
    worker.intents = intents()
    worker.membership = membership  # type: ignore[assignment]
    worker.producer = producer  # type: ignore[assignment]
    worker.table = table  # type: ignore[assignment]
    await worker.start()
    worker.intake.assigned([(settings.input_topic, 0)])
    sources = [
        asyncio.create_task(Source(topics, topic).run(accept), name=f"source {topic}")
        for topic, accept in (
            (settings.input_topic, worker.accept),
            (settings.dlq_topic, worker.accept_dead_letter),
        )
    ]
    try:
        yield worker
    finally:
        for source in sources:
            source.cancel()
        await worker.stop()
        await ledger.close()


async def _until_done(life: Life, worker: runtime.Runtime) -> None:
    """Wait until nothing is left to do; a saga that got stuck is healed from outside."""
    settings, topics = worker.settings, Topics(Path(life.directory))
    deadline = time.monotonic() + DONE_WITHIN
    connection = await asyncpg.connect(life.dsn)
    try:
        while left := await _left(connection, settings, topics):
            assert time.monotonic() < deadline, f"{life}: {left} is left"
            if left == "a stuck saga":
                await _tell(life, "heal")
            elif left == REDRIVE:
                await _tell(life, "reform")
                redrive = worker.views.redriver.retry(refused_order(life.name), "somebody")
                await asyncio.create_task(redrive, name="redrive")
            await asyncio.sleep(0.01)
    finally:
        await connection.close()


async def _left(connection: Any, settings: Settings, topics: Topics) -> str | None:
    for topic in (settings.input_topic, settings.dlq_topic):
        if topics.committed(topic) < len(topics.read(topic)):
            return topic
    if await connection.fetchval(
        "select true from outbox where consumer_group = $1 and published_at is null "
        "and failed_at is null limit 1",
        settings.consumer_group,
    ):
        return "outbox"
    status = await connection.fetchval(
        "select status from sagas where consumer_group = $1 "
        "and status not in ('COMPLETED', 'COMPENSATED') limit 1",
        settings.consumer_group,
    )
    if status is not None:
        return "a stuck saga" if status == "STUCK" else str(status)
    settled = await connection.fetchval(
        "select status = 'resolved' from dead_letter_queue where message_id = $1",
        refused_order(settings.consumer_group),
    )
    return None if settled else REDRIVE


async def _tell(life: Life, what: str) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{life.ledger}/{what}") as response,
    ):
        assert response.status == 200


def _counts(registry: CollectorRegistry) -> dict[str, float]:
    """Deliveries of this life, received and by outcome."""
    counts: dict[str, float] = {}
    for metric in registry.collect():
        for sample in metric.samples:
            if sample.name == "streamapp_messages_received_total":
                counts["received"] = counts.get("received", 0) + sample.value
            if sample.name == "streamapp_messages_processed_total":
                counts[sample.labels["outcome"]] = sample.value
    return counts
