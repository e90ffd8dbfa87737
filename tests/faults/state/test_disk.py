"""A state directory that is full, cannot be written, or belongs to another worker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.state.disks import SizeLimit, SmallDisk, may_mount, mounted
from tests.faults.state.work import (
    WITHIN,
    Watch,
    check_duplicates,
    check_once,
    started,
    work_off,
)
from tests.kafka.job import job
from tests.worker.conftest import Stage

KINDS = ("file system", "file size")


@pytest.fixture(params=KINDS)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallDisk | SizeLimit]:
    path = tmp_path / "disk"
    if request.param == "file size":
        yield SizeLimit(path)
        return
    if not may_mount(tmp_path / "try"):
        pytest.skip("only root may mount a small file system")
    with mounted(path):
        yield SmallDisk(path)


async def test_a_disk_that_gets_full_and_has_room_again(
    stage: Stage, disk: SmallDisk | SizeLimit
) -> None:
    stage.create_topics(1)
    worker = await started(stage.worker(STREAMAPP_DATA_DIR=str(disk.path)))
    first = job("before", messages=60, leads=20, duplicates=0, seed=1)
    await work_off(worker, first)
    disk.fill(worker)
    watch = await Watch(worker).begin()
    second = job("full", messages=200, leads=20, duplicates=0, seed=2)
    await work_off(worker, second)
    assert await watch.since("dedup_table_faults") == {("unusable",): 1}, "told once"
    assert await watch.since("defects") == {}
    assert (await worker.get("/health/ready"))[0] == 200
    # Found by the database alone.
    assert await check_duplicates(worker, second) == {("hit", "postgresql"): len(second.ids)}
    if isinstance(disk, SmallDisk):  # the other kind limits the worker's log too
        assert worker.log.read_text().count("cannot be used") == 1
    disk.free(worker)
    probe = job("probe", messages=1, leads=1, duplicates=0, seed=3)
    await work_off(worker, probe)
    async with asyncio.timeout(WITHIN):
        while not (await check_duplicates(worker, probe))["hit", "rocksdb"]:
            pass  # it comes back by itself
    assert (await check_duplicates(worker, first))["hit", "rocksdb"] == len(first.ids)
    # The marks that found no room come back from the changelog with the next start.
    assert await worker.stop() == 0
    await started(worker)
    for made in (first, second, probe):
        assert await check_duplicates(worker, made) == {("hit", "rocksdb"): len(made.ids)}
    await check_once(worker, first, second, probe)


async def test_a_disk_that_is_full_when_the_worker_comes_back(stage: Stage, tmp_path: Path) -> None:
    if not may_mount(tmp_path / "try"):
        pytest.skip("only root may mount a small file system")
    stage.create_topics(1)
    with mounted(tmp_path / "disk") as path:
        disk = SmallDisk(path)
        worker = await started(stage.worker(STREAMAPP_DATA_DIR=str(path)))
        first = job("before", messages=60, leads=20, duplicates=0, seed=4)
        await work_off(worker, first)
        worker.kill()
        disk.fill()
        await started(worker)
        second = job("full", messages=60, leads=20, duplicates=0, seed=5)
        await work_off(worker, second)
        for made in (first, second):
            assert await check_duplicates(worker, made)
        await check_once(worker, first, second, killed=True)
        worker.kill()


# Start refused


async def test_two_workers_in_one_directory(stage: Stage, tmp_path: Path) -> None:
    stage.create_topics(2)
    directory = str(tmp_path / "shared")
    first = await started(stage.worker(STREAMAPP_DATA_DIR=directory))
    made = job("shared", messages=50, leads=20, duplicates=0, seed=6)
    await work_off(first, made)
    second = stage.worker(STREAMAPP_DATA_DIR=directory)
    code, _, errors = await second.run("worker")
    assert (code, errors) == (
        1,
        "streamapp does not start.\n"
        f"state directory: {directory} is in use by another worker (process {first.pid}); "
        "give each worker a STREAMAPP_DATA_DIR of its own.\n",
    )
    # The first one keeps its partitions, its table and its lock.
    assert await check_duplicates(first, made) == {("hit", "rocksdb"): len(made.ids)}
    assert (await first.json("/api/stats"))["worker"]["partitions"] == [0, 1]
    first.kill()
    await started(second)
    assert await check_duplicates(second, made)
    await check_once(second, made, killed=True)


@pytest.mark.parametrize(
    "why", ["Not a directory", "Read-only file system", "No space left on device"]
)
async def test_a_directory_that_cannot_be_written(stage: Stage, tmp_path: Path, why: str) -> None:
    stage.create_topics(1)
    path = tmp_path / "disk"
    with ExitStack() as stack:
        if why == "Not a directory":
            path.write_text("a file")
        elif not may_mount(tmp_path / "try"):
            pytest.skip("only root may mount a file system")
        elif why == "Read-only file system":
            stack.enter_context(mounted(path, "ro"))
        else:
            stack.enter_context(mounted(path))
            SmallDisk(path).fill()
        state = path / "state"
        code, _, errors = await stage.worker(STREAMAPP_DATA_DIR=str(state)).run("worker")
    assert code == 1
    assert errors == (
        "streamapp does not start.\n"
        f"state directory: {state} cannot be written ({why}); let the worker write there, or set "
        "STREAMAPP_DATA_DIR to a directory where it can.\n"
    )
