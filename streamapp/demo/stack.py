"""Everything that the demo runs, started and stopped in order."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

import aiohttp
import asyncpg

from streamapp.demo.guardian import Child, Guardian, GuardianError
from streamapp.demo.kafka import EmbeddedKafka, KafkaUnavailable
from streamapp.demo.postgres import EmbeddedPostgres, PostgresError
from streamapp.demo.services import HOST, MailServer, OrderService
from streamapp.demo.traffic import BUSINESSES, leads
from streamapp.settings import PREFIX, Settings, load
from streamapp.storage.migrations import upgrade
from streamapp.worker.dedup import changelog_topic

PARTITIONS = 4
UNREAD_TOPIC = "nobody-reads-this"
_PREFERRED_PORT = 6066
_READY_WITHIN = 60.0  # seconds
_POLL = 0.05  # seconds
_ORDER_TAKES = 0.02  # seconds

# Failures, retries and recoveries that one can watch, instead of minutes.
_TEMPO = {
    "RETRY_DELAYS": "0.2,0.5,1",
    "STUCK_DELAYS": "1,2,5",
    "CIRCUIT_OPEN_SECONDS": "2",
    "CIRCUIT_WINDOW_CALLS": "10",
    "COMMIT_INTERVAL": "0.5",
    "OUTBOX_INTERVAL": "0.2",
    "SHUTDOWN_TIMEOUT": "3",
    "ORDER_SERVICE_TIMEOUT": "1",
    "SMTP_TIMEOUT": "1",
}
# A service that fails for less than that finds every message still within its attempts.
OUTAGE = 1.5  # seconds


class DemoError(Exception):
    """The demo cannot go on; the message is for the person who started it."""


@dataclass(frozen=True, slots=True)
class Stack:
    """What runs, and where. ``settings`` are those of the worker."""

    settings: Settings
    dsn: str
    web: str
    worker: Child
    orders: OrderService
    mail: MailServer

    def check(self) -> None:
        """Raise ``DemoError`` if the worker has ended."""
        if not self.worker.running:
            raise DemoError(f"the worker has ended:\n{self.worker.tail()}")


@asynccontextmanager
async def running(port: int | None) -> AsyncIterator[Stack]:
    """Start everything; the worker is ready on entry, nothing is left on exit.

    ``port`` is that of the views; None prefers the usual one and takes any that is free.
    Raises ``DemoError``.
    """
    async with AsyncExitStack() as cleanup:
        try:
            stack = await _start(cleanup, _web_port(port))
        except (GuardianError, KafkaUnavailable, PostgresError) as error:
            raise DemoError(str(error)) from error
        yield stack


async def _start(cleanup: AsyncExitStack, port: int) -> Stack:
    guardian = await asyncio.to_thread(Guardian)
    cleanup.push_async_callback(asyncio.to_thread, guardian.close)
    broker = EmbeddedKafka()
    cleanup.callback(broker.stop)
    bootstrap = await asyncio.to_thread(broker.start, {})
    database = EmbeddedPostgres(guardian)
    dsn = await asyncio.to_thread(database.start)

    orders = OrderService(work=lambda: asyncio.sleep(_ORDER_TAKES))
    cleanup.push_async_callback(orders.stop)
    mail = MailServer()
    cleanup.push_async_callback(mail.stop)
    data = guardian.directory / "state"
    data.mkdir(mode=0o700)
    variables = _TEMPO | {
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
        "DATABASE_URL": dsn,
        "DATA_DIR": str(data),
        "WEB_HOST": HOST,
        "WEB_PORT": str(port),
        "TOPIC_PARTITIONS": str(PARTITIONS),
        "DECLARE_TOPICS": "false",
        "BUSINESSES": ",".join(BUSINESSES),
        "ORDER_SERVICE_URL": await orders.start(),
        "SMTP_URL": await mail.start(),
        "SALES_EMAIL": "sales@localhost.example",
    }
    ours = {PREFIX + name: value for name, value in variables.items()}
    settings = load(ours)
    for topic in _topics(settings):
        broker.create_topic(topic, PARTITIONS)
    await _prepare(dsn)

    # Not the caller's settings: they may point to something that is not to be played with.
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(PREFIX) and name != "DATABASE_URL"
    }
    worker = await asyncio.to_thread(
        guardian.start,
        "worker",
        [sys.executable, "-m", "streamapp", "worker"],
        environment=inherited | ours,
        signals=(signal.SIGTERM,),
    )
    cleanup.push_async_callback(asyncio.to_thread, _stop, worker)
    stack = Stack(settings, dsn, f"http://{HOST}:{port}", worker, orders, mail)
    await _wait_until_ready(stack)
    return stack


def _topics(settings: Settings) -> tuple[str, ...]:
    """Topics that have to be there: this broker creates none on demand as we need it."""
    group = settings.consumer_group
    return (
        settings.input_topic,
        settings.dlq_topic,
        settings.outbound_topic,
        changelog_topic(group),
        f"{group}-__assignor-__leader",
        UNREAD_TOPIC,
    )


async def _prepare(dsn: str) -> None:
    await upgrade(dsn)
    connection = await asyncpg.connect(dsn)
    try:
        await connection.executemany(
            "insert into leads (lead_id, business_id, tenant_id, status) values ($1, $2, $3, $4)",
            [(row.lead_id, row.business_id, row.tenant_id, row.status) for row in leads()],
        )
    finally:
        await connection.close()


async def _wait_until_ready(stack: Stack) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _READY_WITHIN
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        while loop.time() < deadline:
            stack.check()
            try:
                async with session.get(f"{stack.web}/health/ready") as response:
                    if response.status == 200:
                        return
            except (aiohttp.ClientError, TimeoutError):
                pass  # it does not listen yet
            await asyncio.sleep(_POLL)
    raise DemoError(f"the worker was not ready in time:\n{stack.worker.tail()}")


def _stop(worker: Child) -> None:
    # Whoever ended the guardian has to see to its processes.
    with suppress(GuardianError):
        worker.stop()


def _web_port(wanted: int | None) -> int:
    for port in (_PREFERRED_PORT, 0) if wanted is None else (wanted,):
        with socket.socket() as probe:
            # As the server does: a port that was in use a moment ago is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            free: int = probe.getsockname()[1]
            return free
    raise DemoError(f"port {wanted} is taken: choose another with --port")
