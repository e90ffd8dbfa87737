"""A PostgreSQL that answers and does not do what it should: slow, read-only, another one."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import asyncpg
import pytest

from streamapp.demo.guardian import Guardian
from streamapp.demo.postgres import EmbeddedPostgres
from streamapp.storage.migrations import upgrade
from tests.faults.load import Services, check, is_red, processed, steady, works
from tests.faults.standby import Standby
from tests.support.proxy import Proxy, proxy_to
from tests.support.waiting import until
from tests.worker.conftest import Stage

pytestmark = pytest.mark.timeout(300)

READ_ONLY = "in a read-only transaction"  # what the server says of each write


@pytest.fixture
async def proxy(dsn: str) -> AsyncIterator[Proxy]:
    async with proxy_to(dsn) as proxy:
        yield proxy


async def test_a_slow_network_makes_work_slow_and_no_more(
    stage: Stage, services: Services, proxy: Proxy
) -> None:
    """200 ms for each reply: some ten of them make a transaction."""
    worker = stage.worker(STREAMAPP_DATABASE_URL=proxy.dsn, **services.environment)
    worker.start()
    await worker.wait_until_ready()
    async with steady(worker.settings, "slow", rate=20, leads=400) as load:
        await works(worker, 40)
        proxy.latency = 0.2
        await works(worker, 200)
    proxy.latency = 0.0
    await check(worker, load, services)
    assert "database is away" not in worker.log.read_text()
    assert await worker.stop() == 0


async def set_read_only(server: EmbeddedPostgres, dsn: str, *, on: bool) -> None:
    """For sessions that begin from now on; those under way are ended before."""
    name = urlsplit(dsn).path[1:]
    connection = await asyncpg.connect(server.dsn())
    try:
        await connection.execute(
            f"alter database {name} set default_transaction_read_only = on"
            if on
            else f"alter database {name} reset default_transaction_read_only"
        )
        if on:
            await connection.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = $1",
                name,
            )
    finally:
        await connection.close()


async def refuses_writes(guardian: Guardian, name: str) -> None:
    """Return once the server has refused one more write."""
    log = guardian.directory / f"{name}.log"
    before = log.read_text().count(READ_ONLY)
    await until(lambda: log.read_text().count(READ_ONLY) > before)


async def test_a_read_only_server_is_left_for_one_that_takes_writes(
    stage: Stage, server: EmbeddedPostgres, dsn: str, services: Services
) -> None:
    """At the start, when epochs are raised, and under load: no session of before is kept."""
    await set_read_only(server, dsn, on=True)
    worker = stage.worker(**services.environment)
    worker.start()
    async with steady(worker.settings, "read-only") as load:
        await is_red(worker)
        await until(lambda: READ_ONLY in worker.log.read_text())
        assert await processed(worker) == 0
        await set_read_only(server, dsn, on=False)
        await works(worker)
        await set_read_only(server, dsn, on=True)
        await is_red(worker)
        await set_read_only(server, dsn, on=False)
        await works(worker)
    await check(worker, load, services)
    assert await worker.stop() == 0


async def test_a_failover_to_a_standby(
    stage: Stage, guardian: Guardian, dsn: str, services: Services
) -> None:
    """The primary is killed; for a while everybody is led to a standby that takes no writes."""
    primary = EmbeddedPostgres(guardian, "primary")
    standby = Standby(guardian, "standby", primary)
    try:
        await asyncio.to_thread(primary.start)
        await upgrade(primary.dsn())
        await asyncio.to_thread(standby.start)
        await standby.follow_closely()
        async with proxy_to(primary.dsn()) as proxy:
            worker = stage.worker(STREAMAPP_DATABASE_URL=proxy.dsn, **services.environment)
            worker.start()
            await worker.wait_until_ready()
            async with steady(worker.settings, "failover") as load:
                await works(worker)
                assert primary.pid is not None
                os.kill(primary.pid, signal.SIGKILL)
                proxy.lead_to(standby.dsn())
                await asyncio.to_thread(primary.stop)
                await refuses_writes(guardian, "standby")
                await is_red(worker)
                await standby.promote()
                await works(worker)
            await check(worker, load, services)
            assert await worker.stop() == 0
    finally:
        for server in (standby, primary):
            await asyncio.to_thread(server.stop)
