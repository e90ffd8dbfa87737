"""Databases and brokers for any test: embedded, on free ports, gone with the test run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from streamapp.demo.guardian import Guardian
from streamapp.demo.kafka import EmbeddedKafka
from streamapp.demo.postgres import EmbeddedPostgres
from streamapp.testing.databases import create_template, fresh_database

# Address of a running server that has a database of this name already: many short runs of pytest
# need not start one each (``tests.mutants``).
SERVER = "TEST_POSTGRES"
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
def _template(postgres_dsn: str) -> None:
    """A database with all migrations applied, which others are copied from."""
    if SERVER not in os.environ:
        # In a thread: the test runner's own event loop may be running here.
        with ThreadPoolExecutor(1) as executor:
            executor.submit(asyncio.run, create_template(postgres_dsn)).result()


@pytest.fixture
async def database(postgres_dsn: str, _template: None) -> AsyncIterator[str]:
    """Address of a fresh, migrated database of this test's own."""
    async with fresh_database(postgres_dsn, f"test_{os.getpid()}_{next(_numbers)}") as dsn:
        yield dsn


@pytest.fixture(scope="module")
def kafka() -> Iterator[EmbeddedKafka]:
    """A broker without topics of this module's own; ``create_topic`` makes them."""
    broker = EmbeddedKafka()
    broker.start({})
    try:
        yield broker
    finally:
        broker.stop()
