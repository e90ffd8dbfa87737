"""PostgreSQL is stopped, restarted, crashed, killed under load: a worker waits and goes on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from streamapp.demo.postgres import EmbeddedPostgres
from tests.faults.load import Services, check, is_red, steady, works
from tests.faults.servers import start_again
from tests.kafka.job import lag
from tests.support.worker import WorkerProcess
from tests.worker.conftest import Stage

pytestmark = pytest.mark.timeout(300)

# Longer than the session timeout of the stage, and than any interval at which a part of the worker
# looks for something.
OUTAGE = float(os.environ.get("STREAMAPP_TEST_OUTAGE_SECONDS", "5"))

Fault = Callable[[EmbeddedPostgres, WorkerProcess], Awaitable[None]]


async def stopped(server: EmbeddedPostgres, worker: WorkerProcess) -> None:
    await asyncio.to_thread(server.stop)
    await is_red(worker)
    await asyncio.sleep(OUTAGE)
    assert (await worker.get("/health/live"))[0] == 200
    assert await lag(worker.settings) > 0
    await asyncio.to_thread(server.start)


async def restarted(server: EmbeddedPostgres, worker: WorkerProcess) -> None:
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)


async def crashed(server: EmbeddedPostgres, worker: WorkerProcess) -> None:
    """Ended at once, without a checkpoint: its log is replayed at the start."""
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)


async def killed(server: EmbeddedPostgres, worker: WorkerProcess) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    await asyncio.to_thread(server.stop)  # waits for its end
    await asyncio.to_thread(start_again, server)


async def a_backend_crashed(server: EmbeddedPostgres, worker: WorkerProcess) -> None:
    """One session dies, and the server ends all others and recovers by itself."""
    connection = await asyncpg.connect(worker.settings.database_url.get_secret_value())
    pid: int = await connection.fetchval("select pg_backend_pid()")
    os.kill(pid, signal.SIGKILL)
    connection.terminate()


async def test_stops_restarts_crashes_and_kills_under_load(
    stage: Stage, server: EmbeddedPostgres, services: Services
) -> None:
    """One worker process lives through all of them."""
    worker = stage.worker(**services.environment)
    worker.start()
    await worker.wait_until_ready()
    faults: tuple[Fault, ...] = (stopped, restarted, crashed, killed, a_backend_crashed)
    async with steady(worker.settings, "away") as load:
        await works(worker)
        for fault in faults:
            await fault(server, worker)
            await works(worker)
    await check(worker, load, services)
    log = worker.log.read_text()
    assert log.count("database is away") >= 1
    assert await worker.stop() == 0
