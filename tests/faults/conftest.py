"""A worker on the embedded broker, and a PostgreSQL of its own that a test may break."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import asyncpg
import pytest

from streamapp.demo.guardian import Guardian
from streamapp.demo.kafka import EmbeddedKafka
from streamapp.demo.postgres import EmbeddedPostgres
from streamapp.demo.services import MailServer, OrderService
from streamapp.storage.migrations import upgrade
from tests.faults.load import Services
from tests.worker.conftest import Stage

_numbers = count(1)


@pytest.fixture(scope="module")
def server(guardian: Guardian) -> Iterator[EmbeddedPostgres]:
    """The module's own server; a test leaves it running."""
    server = EmbeddedPostgres(guardian, f"faults-{next(_numbers)}")
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def dsn(server: EmbeddedPostgres) -> str:
    """A migrated database on that server."""
    name = f"faults_{next(_numbers)}"
    connection = await asyncpg.connect(server.dsn())
    try:
        await connection.execute(f"create database {name}")
    finally:
        await connection.close()
    await upgrade(server.dsn(name))
    return server.dsn(name)


@pytest.fixture
def stage(kafka: EmbeddedKafka, dsn: str, tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(kafka, dsn, tmp_path)
    stage.create_topics(4)
    try:
        yield stage
    finally:
        for worker in stage.workers:
            worker.kill()


@pytest.fixture
async def services() -> AsyncIterator[Services]:
    """An order service and a mail server, which note what they are asked."""
    orders, mail = OrderService(), MailServer()
    environment = {
        "STREAMAPP_ORDER_SERVICE_URL": await orders.start(),
        "STREAMAPP_SMTP_URL": await mail.start(),
        "STREAMAPP_SALES_EMAIL": "sales@localhost.example",
    }
    yield Services(orders, mail, environment)
    await orders.stop()
    await mail.stop()
