"""A steady stream of messages while something is broken, and what must have become of them."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncpg
from aiokafka import AIOKafkaProducer

from streamapp.demo.services import MailServer, OrderService
from streamapp.settings import Settings
from tests.kafka.job import Job, check_done_once, job, lag, read_all, wait_until_done
from tests.support.worker import WorkerProcess

MOST = 20_000  # messages of one stream
RATE = 40.0  # messages a second
LEADS = 40
WITHIN = 90.0  # seconds; reached only by a test that fails

_TICK = 0.05  # seconds


@dataclass
class Services:
    """What the worker calls; ``environment`` leads it there."""

    orders: OrderService
    mail: MailServer
    environment: dict[str, str]


@dataclass
class Load:
    """Messages in the order in which they were sent, all acknowledged by the broker."""

    job: Job = field(default_factory=Job)
    stopped: bool = False

    @property
    def sent(self) -> int:
        return len(self.job.ids)

    async def send(self, settings: Settings, name: str, rate: float, leads: int, most: int) -> None:
        made = job(name, most, leads, duplicates=0, seed=1)
        producer = AIOKafkaProducer(
            bootstrap_servers=settings.kafka_bootstrap_servers, linger_ms=5, acks="all"
        )
        await producer.start()
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            while not self.stopped:
                due = min(most, int((loop.time() - began) * rate))
                for number in range(self.sent, due):
                    key, value = made.records[number]
                    await producer.send(settings.input_topic, key=key, value=value)
                    self.job.records.append((key, value))
                    self.job.ids.append(made.ids[number])
                await asyncio.sleep(_TICK)
            await producer.flush()
        finally:
            await producer.stop()
        self.job.orders = made.orders & set(self.job.ids)


@asynccontextmanager
async def steady(
    settings: Settings, name: str, *, rate: float = RATE, leads: int = LEADS, most: int = MOST
) -> AsyncIterator[Load]:
    """Send at ``rate`` a second while the block runs; all is acknowledged at its end."""
    load = Load()
    sending = asyncio.create_task(load.send(settings, name, rate, leads, most))
    try:
        yield load
    finally:
        load.stopped = True
        await sending


async def processed(worker: WorkerProcess) -> int:
    """Messages that this worker process has finished."""
    counted = (await worker.metrics()).get("streamapp_messages_processed_total", {})
    return int(counted.get(("processed",), 0))


async def works(worker: WorkerProcess, messages: int = 100, within: float = WITHIN) -> None:
    """Return once the worker has finished so many more messages."""
    goal = await processed(worker) + messages
    async with asyncio.timeout(within):
        while await processed(worker) < goal:  # noqa: ASYNC110 - another process does the work
            await asyncio.sleep(0.05)


async def is_red(worker: WorkerProcess) -> None:
    """Return once the worker says that the database is away; it stays alive meanwhile."""
    async with asyncio.timeout(WITHIN):
        while True:
            status, text = await worker.get("/health/ready")
            if status == 503 and json.loads(text)["checks"]["database"] is False:
                break
            await asyncio.sleep(0.02)
    assert (await worker.get("/health/live"))[0] == 200


async def check(
    worker: WorkerProcess, load: Load, services: Services, *, within: float = WITHIN
) -> None:
    """Everything that was sent is done, once, in order per lead, in one attempt, by this process.

    Nothing is dead-lettered, and the worker is as it was before.
    """
    settings = worker.settings
    await _worked_off(worker, within)
    await wait_until_done(settings, within)
    await check_done_once(settings, load.job, killed=False)
    await worker.wait_until_ready()
    assert await processed(worker) == load.sent, "another process did some of it"
    sent = _by_lead(
        (key.decode(), id_) for (key, _), id_ in zip(load.job.records, load.job.ids, strict=True)
    )
    replies = (
        json.loads(record.value) for record in await read_all(settings, settings.outbound_topic)
    )
    assert _by_lead((each["lead_id"], each["in_reply_to"]) for each in replies) == sent
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    try:
        steps = await connection.fetch(
            "select processing_id, lead_id, key, s.attempts, in_doubt from saga_steps s "
            "join sagas using (processing_id, run) where key is not null"
        )
    finally:
        await connection.close()
    assert {step["attempts"] for step in steps} == {1}
    assert not any(step["in_doubt"] for step in steps)
    by_key = {step["key"]: (step["lead_id"], step["processing_id"]) for step in steps}
    calls = services.orders.ledger
    assert {call.status for call in calls} == {200}
    created = [by_key[call.key] for call in calls]
    assert sorted(id_ for _, id_ in created) == sorted(load.job.orders)
    assert _by_lead(created) == {
        lead: ordered
        for lead, ids in sent.items()
        if (ordered := [id_ for id_ in ids if id_ in load.job.orders])
    }
    assert set(services.mail.deliveries.values()) == {1}
    log = worker.log.read_text()
    assert "Traceback" not in log, log


async def _worked_off(worker: WorkerProcess, within: float) -> None:
    """Return once nothing is left to commit; fails when nothing more was for ``within`` seconds.

    A loaded machine may be slow, and must not stand still.
    """
    least = await lag(worker.settings)
    progress = time.monotonic()
    while least:
        await asyncio.sleep(0.2)
        left = await lag(worker.settings)
        if left < least:
            least, progress = left, time.monotonic()
        if time.monotonic() - progress > within:
            shown = await worker.get("/api/stats"), await worker.get("/health/ready")
            raise AssertionError(f"{left} are left\n{shown}\n{worker.log.read_text()}")


def _by_lead(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for lead, id_ in pairs:
        found[lead].append(id_)
    return dict(found)
