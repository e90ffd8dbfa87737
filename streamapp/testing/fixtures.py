"""Fixtures of pytest; a ``conftest.py`` that wants them imports them by name."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
import pytest_asyncio

from streamapp.demo.guardian import Guardian
from streamapp.demo.postgres import EmbeddedPostgres
from streamapp.testing.databases import create_template, fresh_database
from streamapp.testing.far_side import FarSide, far_side

_numbers = count(1)


@pytest.fixture(scope="session")
def streamapp_server() -> Iterator[str]:
    """Address of an embedded PostgreSQL, gone with the test run."""
    with Guardian() as guardian:
        server = EmbeddedPostgres(guardian)
        server.start()
        # In a thread: the test runner's own event loop may be running here.
        with ThreadPoolExecutor(1) as executor:
            executor.submit(asyncio.run, create_template(server.dsn())).result()
        yield server.dsn()


@pytest_asyncio.fixture
async def streamapp_database(streamapp_server: str) -> AsyncIterator[str]:
    """Address of an empty, migrated database of this test's own."""
    name = f"streamapp_{os.getpid()}_{next(_numbers)}"
    async with fresh_database(streamapp_server, name) as dsn:
        yield dsn


@pytest_asyncio.fixture
async def streamapp_far_side() -> AsyncIterator[FarSide]:
    """A service that listens (``FarSide.url``); the test fails when it was asked wrongly."""
    async with far_side() as far:
        yield far
    far.check()
