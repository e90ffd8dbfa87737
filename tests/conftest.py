"""Databases and brokers for any test: embedded, on free ports, gone with the test run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import asyncpg
import pytest

from streamapp.demo.guardian import Guardian
from streamapp.demo.kafka import EmbeddedKafka
from streamapp.demo.postgres import EmbeddedPostgres

# Address of a running server that has a database of this name already: many short runs of pytest
# need not start one each (``tests.mutants``).
SERVER = "TEST_POSTGRES"
TEMPLATE = "migrated"
_numbers = count(1)


@pytest.fixture(scope="session")
def guardian() -> Iterator[Guardian]:
    """Owner of all processes that fixtures start; removes what they leave."""
    with Guardian() as guardian:
        yield guardian


@pytest.fixture(scope="session")
def postgres(guardian: Guardian) -> EmbeddedPostgres:
    """The server that the tests share. A test that stops one starts its own."""
    server = EmbeddedPostgres(guardian)
    server.start()
    return server


@pytest.fixture(scope="session")
def postgres_dsn(request: pytest.FixtureRequest) -> str:
    """Address of the shared server's empty default database."""
    if given := os.environ.get(SERVER):
        return given
    server: EmbeddedPostgres = request.getfixturevalue("postgres")
    return server.dsn()


@pytest.fixture(scope="session")
def _template(postgres_dsn: str) -> str:
    """A database with all migrations applied, which others are copied from."""
    if SERVER not in os.environ:
        # In a thread: the test runner's own event loop may be running here.
        with ThreadPoolExecutor(1) as executor:
            executor.submit(asyncio.run, create_template(postgres_dsn)).result()
    return TEMPLATE


async def create_template(postgres_dsn: str) -> None:
    from streamapp.storage.migrations import upgrade

    connection = await asyncpg.connect(postgres_dsn)
    try:
        await connection.execute(f"create database {TEMPLATE}")
    finally:
        await connection.close()
    await upgrade(_beside(postgres_dsn, TEMPLATE))


def _beside(postgres_dsn: str, name: str) -> str:
    """Address of another database of the same server."""
    return f"{postgres_dsn.rpartition('/')[0]}/{name}"


@pytest.fixture
async def database(postgres_dsn: str, _template: str) -> AsyncIterator[str]:
    """Address of a fresh, migrated database of this test's own."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    connection = await asyncpg.connect(postgres_dsn)
    try:
        await connection.execute(f"create database {name} template {_template}")
        try:
            yield _beside(postgres_dsn, name)
        finally:
            await connection.execute(f"drop database if exists {name} with (force)")
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def kafka() -> Iterator[EmbeddedKafka]:
    """A broker without topics of this module's own; ``create_topic`` makes them."""
    broker = EmbeddedKafka()
    broker.start({})
    try:
        yield broker
    finally:
        broker.stop()
