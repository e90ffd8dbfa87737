"""No room left for PostgreSQL: on its disk, in its table of connections. A worker waits."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest

from streamapp.demo.guardian import Guardian
from streamapp.demo.kafka import EmbeddedKafka
from streamapp.demo.postgres import EmbeddedPostgres
from streamapp.storage.migrations import upgrade
from tests.faults.full_disk import SmallDisk, Unavailable, full_table, small_disk
from tests.faults.load import Services, check, is_red, steady, works
from tests.faults.servers import start_again
from tests.kafka.job import lag
from tests.support.crowd import Crowd
from tests.support.waiting import until, until_async
from tests.support.worker import WorkerProcess
from tests.worker.conftest import Stage

pytestmark = pytest.mark.timeout(300)


async def waits(worker: WorkerProcess) -> None:
    """Red, and for a while nothing is finished though more and more arrives."""
    await is_red(worker)
    before = await lag(worker.settings)
    await until_async(lambda: more_than(worker, before + 100))


async def more_than(worker: WorkerProcess, records: int) -> bool:
    return await lag(worker.settings) > records


def server_log_of(data: Path) -> Path:
    return data.parent.with_name(f"{data.parent.name}.log")


async def data_directory(dsn: str) -> Path:
    connection = await asyncpg.connect(dsn)
    try:
        return Path(await connection.fetchval("show data_directory"))
    finally:
        await connection.close()


async def test_a_full_disk_is_waited_for(
    stage: Stage, server: EmbeddedPostgres, services: Services, dsn: str
) -> None:
    """Without root: every row of the journal's table of steps meets the full device."""
    worker = stage.worker(**services.environment)
    worker.start()
    await worker.wait_until_ready()
    data = await data_directory(dsn)
    try:
        async with full_table(dsn, data, "saga_steps"), steady(worker.settings, "full") as load:
            await waits(worker)
            # The first of its reasons may be a session that the server ended over it.
            assert "database is away" in worker.log.read_text()
            assert "No space left on device" in server_log_of(data).read_text()
    except Unavailable as reason:
        pytest.skip(str(reason))
    await check(worker, load, services)
    assert await worker.stop() == 0


@pytest.fixture
async def disk(guardian: Guardian, server: EmbeddedPostgres) -> AsyncIterator[SmallDisk]:
    path = guardian.directory / "small-disk"
    owner = (await data_directory(server.dsn())).stat()
    try:
        with small_disk(path, 128, (owner.st_uid, owner.st_gid)) as disk:
            yield disk
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
async def small_dsn(server: EmbeddedPostgres, disk: SmallDisk) -> AsyncIterator[str]:
    """A migrated database that lies on the small disk as a whole."""
    connection = await asyncpg.connect(server.dsn())
    try:
        await connection.execute(f"create tablespace small location '{disk.path}'")
        await connection.execute("create database small tablespace small")
        await upgrade(server.dsn("small"))
        yield server.dsn("small")
        disk.free()
        await connection.execute("drop database small with (force)")
        await connection.execute("drop tablespace small")
    finally:
        await connection.close()


async def test_a_disk_that_fills_up_under_load_is_waited_for(
    kafka: EmbeddedKafka, small_dsn: str, disk: SmallDisk, tmp_path: Path, services: Services
) -> None:
    """With root: the whole database is on a small file system."""
    stage = Stage(kafka, small_dsn, tmp_path)
    stage.create_topics(4)
    worker = stage.worker(**services.environment)
    worker.start()
    try:
        await worker.wait_until_ready()
        async with steady(worker.settings, "small") as load:
            await works(worker)
            await asyncio.to_thread(disk.fill)
            await waits(worker)
            assert "No space left on device" in worker.log.read_text()
            disk.free()
            await works(worker)
        await check(worker, load, services)
        assert await worker.stop() == 0
    finally:
        worker.kill()


@pytest.fixture
async def log_on_small_disk(
    server: EmbeddedPostgres, disk: SmallDisk
) -> AsyncIterator[EmbeddedPostgres]:
    """The server with its write-ahead log on the small disk."""
    log = await data_directory(server.dsn()) / "pg_wal"
    kept, small = log.with_name("pg_wal.kept"), disk.path / "pg_wal"
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(copy, log, small)
    log.rename(kept)
    log.symlink_to(small)
    await asyncio.to_thread(server.start)
    yield server
    disk.free()
    await until_async(lambda: answers(server))
    await asyncio.to_thread(server.stop)
    log.unlink()
    await asyncio.to_thread(copy, small, log)
    shutil.rmtree(kept)
    await asyncio.to_thread(server.start)


def copy(source: Path, target: Path) -> None:
    """With owners and permissions."""
    subprocess.run(["cp", "-a", source, target], check=True)


async def answers(server: EmbeddedPostgres) -> bool:
    """Start the server, should it have ended, and ask it."""
    await asyncio.to_thread(start_again, server)
    try:
        connection = await asyncpg.connect(server.dsn(), timeout=10)
    except (asyncpg.PostgresError, OSError, TimeoutError):
        return False
    await connection.close()
    return True


async def test_a_server_that_panics_as_its_log_has_no_room_is_waited_for(
    log_on_small_disk: EmbeddedPostgres, disk: SmallDisk, stage: Stage, services: Services
) -> None:
    """With root: it ends all sessions, and cannot recover before somebody makes room."""
    server = log_on_small_disk
    worker = stage.worker(**services.environment)
    worker.start()
    await worker.wait_until_ready()
    async with steady(worker.settings, "log") as load:
        await works(worker)
        await asyncio.to_thread(disk.fill)
        await use_up_log(server)
        await waits(worker)
        disk.free()
        await until_async(lambda: answers(server))
        await works(worker)
    await check(worker, load, services)
    assert await worker.stop() == 0


async def use_up_log(server: EmbeddedPostgres) -> None:
    """Begin new files of the log until there is no room for one, and the server panics."""
    server_log = server_log_of(await data_directory(server.dsn()))
    connection = await asyncpg.connect(server.dsn())
    with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        for _ in range(100):
            await connection.execute("create temp table t(); drop table t")
            await connection.execute("select pg_switch_wal()")
    connection.terminate()
    await until(lambda: "PANIC" in server_log.read_text())


async def test_too_many_connections_are_waited_for(
    stage: Stage, server: EmbeddedPostgres, services: Services
) -> None:
    """At the worker's start, and when it loses its sessions to others."""
    worker = stage.worker(**services.environment)
    crowd = Crowd(server.dsn())
    server_log = server_log_of(await data_directory(server.dsn()))
    await crowd.come()
    refused = server_log.read_text().count("too many clients already")
    worker.start()
    await until(lambda: server_log.read_text().count("too many clients already") >= refused + 3)
    assert (await worker.get("/health/ready"))[0] != 200
    await crowd.go()
    await worker.wait_until_ready()
    async with steady(worker.settings, "crowd") as load:
        await works(worker)
        await crowd.come()
        refused = server_log.read_text().count("too many clients already")
        await crowd.take_over()
        await waits(worker)
        # The worker's own log may have told of the lost session, and is silent for a minute.
        await until(lambda: server_log.read_text().count("too many clients already") >= refused + 3)
        await crowd.go()
        await works(worker)
    await check(worker, load, services)
    assert await worker.stop() == 0
