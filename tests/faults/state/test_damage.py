"""The state of a worker lost or damaged: it heals, and no message is lost or run twice."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.state.work import (
    check_duplicates,
    check_once,
    started,
    tables,
    work_off,
)
from tests.kafka.job import job
from tests.support.damage import FATAL, every, flip, truncated
from tests.support.worker import WorkerProcess
from tests.worker.conftest import Stage

DAMAGED = "is damaged and deleted"


async def worked(stage: Stage, partitions: int) -> WorkerProcess:
    stage.create_topics(partitions)
    return await started(stage.worker())


async def restarted(worker: WorkerProcess) -> WorkerProcess:
    assert await worker.stop() == 0
    return await started(worker)


async def test_each_partition_damaged_in_its_own_way_is_restored(stage: Stage) -> None:
    worker = await worked(stage, len(FATAL))
    first = job("before", messages=250, leads=60, duplicates=0, seed=5)
    await work_off(worker, first)
    await restarted(worker)  # what RocksDB finds in its log when it opens it goes to an SST file
    assert await worker.stop() == 0
    worker.log.unlink()
    databases = tables(stage, worker)
    assert len(databases) == len(FATAL)
    for database, damage in zip(databases, FATAL.values(), strict=True):
        damage(database)
    await started(worker)
    hits = await check_duplicates(worker, first)
    faults = (await worker.metrics())["streamapp_dedup_table_faults_total"]
    log = worker.log.read_text()
    undetected = [str(path) for path in databases if f"{path} {DAMAGED}" not in log]
    assert undetected == []
    assert faults["damaged",] == len(FATAL)
    assert faults["unusable",] == 0
    # What could be opened and only broke at a look-up is restored by the next start.
    assert hits["hit", "rocksdb"] > len(first.ids) / 2
    await restarted(worker)
    hits = await check_duplicates(worker, first)
    assert hits == {("hit", "rocksdb"): len(first.ids)}
    second = job("after", messages=100, leads=60, duplicates=0, seed=6)
    await work_off(worker, second)
    await check_once(worker, first, second)


async def test_damage_that_shows_in_the_middle_of_work(stage: Stage) -> None:
    worker = await worked(stage, 2)
    first = job("before", messages=200, leads=40, duplicates=0, seed=7)
    await work_off(worker, first)
    await restarted(worker)
    for database in tables(stage, worker):
        every("*.sst", lambda path: flip(path, 0.3))(database)
    hits = await check_duplicates(worker, first)
    assert hits["hit", "postgresql"] > 0, "no damage was met"
    faults = (await worker.metrics())["streamapp_dedup_table_faults_total"]
    assert faults["damaged",] == 2
    # It works on with empty tables, and the next start restores them.
    second = job("after", messages=100, leads=40, duplicates=0, seed=8)
    await work_off(worker, second)
    assert await check_duplicates(worker, second) == {("hit", "rocksdb"): len(second.ids)}
    await restarted(worker)
    for made in (first, second):
        assert await check_duplicates(worker, made) == {("hit", "rocksdb"): len(made.ids)}
    await check_once(worker, first, second)


def _remove_all(state: Path) -> None:
    shutil.rmtree(state)


def _in_every_log(damage: Callable[[Path], None]) -> Callable[[Path], None]:
    def apply(state: Path) -> None:
        for database in state.glob("v*/tables/seen-*.db"):
            every("*.log", damage)(database)

    return apply


@pytest.mark.parametrize(
    "damage",
    [
        _remove_all,
        _in_every_log(lambda path: flip(path, 0.4)),
        _in_every_log(truncated(1 << 30)),
        _in_every_log(lambda path: os.truncate(path, 0)),
    ],
    ids=["all lost", "log flipped", "log truncated", "log emptied"],
)
async def test_killed_and_its_state_suffers_before_it_comes_back(
    stage: Stage, damage: Callable[[Path], None]
) -> None:
    worker = await worked(stage, 2)
    first = job("before", messages=200, leads=40, duplicates=0, seed=9)
    await work_off(worker, first)
    worker.kill()
    damage(Path(worker.environment["STREAMAPP_DATA_DIR"]))
    await started(worker)
    hits = await check_duplicates(worker, first)
    # A mark whose changelog record was still on its way when the worker died costs a query.
    assert hits["hit", "rocksdb"] > len(first.ids) / 2
    second = job("after", messages=100, leads=40, duplicates=0, seed=10)
    await work_off(worker, second)
    assert await check_duplicates(worker, second) == {("hit", "rocksdb"): len(second.ids)}
    await check_once(worker, first, second, killed=True)


async def test_removed_while_the_worker_runs(stage: Stage) -> None:
    """Files that are open stay, and new ones cannot be made: until then all goes on."""
    worker = await worked(stage, 1)
    first = job("before", messages=100, leads=40, duplicates=0, seed=11)
    await work_off(worker, first)
    shutil.rmtree(worker.environment["STREAMAPP_DATA_DIR"])
    second = job("after", messages=100, leads=40, duplicates=0, seed=12)
    await work_off(worker, second)
    for made in (first, second):
        assert await check_duplicates(worker, made)
    await restarted(worker)
    for made in (first, second):
        assert await check_duplicates(worker, made) == {("hit", "rocksdb"): len(made.ids)}
    await check_once(worker, first, second)
