"""A process that stands still in the middle of a transaction keeps its locks for a bounded time."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from streamapp.saga.model import Fenced
from streamapp.storage.connection import Connection, Pool, connect, create_pool
from streamapp.storage.health import DatabaseHealth
from streamapp.storage.owners import raise_epoch
from tests.storage.writes import claim, state_of
from tests.support.bench import Bench, settings_for
from tests.support.sagas import GROUP, TOPIC

DEADLINE = 30.0  # seconds

# A worker that has locked its partition's row, as each transaction of the journal does first.
FROZEN = """
import asyncio, sys
from pydantic import SecretStr
from streamapp.settings import Settings
from streamapp.storage import connection as module
from streamapp.storage.connection import connect

async def main():
    module.IDLE_IN_TRANSACTION = 1.0
    connection = await connect(Settings(database_url=SecretStr(sys.argv[1])), "frozen")
    await connection.execute("begin")
    await connection.execute("select 1 from partition_owners for share")
    print("holds", flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


@contextmanager
def frozen_in_a_transaction(dsn: str) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-c", FROZEN, dsn], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"holds\n"
        os.kill(process.pid, signal.SIGSTOP)
        yield
    finally:
        process.kill()
        process.wait(DEADLINE)
        assert process.stdout is not None
        process.stdout.close()


async def test_the_next_owner_takes_over_from_a_process_frozen_in_a_transaction(
    bench: Bench, database: str
) -> None:
    """Its lock keeps the epoch from being raised; the server ends its session for it."""
    settings = settings_for(database)
    pool = await create_pool(settings)
    try:
        with frozen_in_a_transaction(database):
            async with asyncio.timeout(DEADLINE):
                epoch = await DatabaseHealth().insist(
                    lambda: raise_epoch(pool, GROUP, TOPIC, 0, "next")
                )
            assert epoch == bench.epoch + 1
            async with asyncio.timeout(DEADLINE):
                await bench.journal.write(claim(epoch))
                with pytest.raises(Fenced):
                    await bench.journal.write(claim(bench.epoch, state_of("p-2")))
    finally:
        pool.terminate()


async def test_sessions_have_the_limits_that_keep_them_out_of_others_way(database: str) -> None:
    settings = settings_for(database, statement_timeout=7, lock_timeout=2)
    connection, pool = await connect(settings, "streamapp-test"), await create_pool(settings)
    try:
        assert await limits(connection) == ("5s", "7s", "2s", "on")
        assert await limits(pool) == ("5s", "7s", "2s", "on")
    finally:
        await connection.close()
        pool.terminate()


async def limits(connection: Connection | Pool) -> tuple[str, ...]:
    names = (
        "idle_in_transaction_session_timeout",
        "statement_timeout",
        "lock_timeout",
        "synchronous_commit",
    )
    return tuple([await connection.fetchval(f"show {name}") for name in names])
