"""Work for a worker whose state suffers, and what must have become of it."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from tests.kafka.job import Job, check_done_once, send, wait_until_done
from tests.support.worker import WorkerProcess
from tests.worker.conftest import Stage

WITHIN = 60.0  # seconds; reached only by a test that fails


def joined(*jobs: Job) -> Job:
    """Several jobs as one."""
    made = Job()
    for each in jobs:
        made.records += each.records
        made.ids += each.ids
        made.orders |= each.orders
    return made


async def started(worker: WorkerProcess) -> WorkerProcess:
    worker.start()
    await worker.wait_until_ready()
    return worker


async def work_off(worker: WorkerProcess, made: Job) -> None:
    """Send it and wait until nothing is left of it."""
    await send(worker.settings, made.records)
    await wait_until_done(worker.settings, WITHIN)


class Watch:
    """What a worker counts from now on."""

    def __init__(self, worker: WorkerProcess) -> None:
        self._worker = worker
        self._before: dict[str, Counter[tuple[str, ...]]] = {}

    async def _counted(self) -> dict[str, Counter[tuple[str, ...]]]:
        metrics = await self._worker.metrics()
        return {
            name: Counter(metrics.get(f"streamapp_{name}_total", {}))
            for name in ("dedup_lookups", "messages_processed", "dedup_table_faults", "defects")
        }

    async def begin(self) -> Watch:
        self._before = await self._counted()
        return self

    async def since(self, name: str) -> Counter[tuple[str, ...]]:
        return +((await self._counted())[name] - self._before.get(name, Counter()))


async def check_duplicates(worker: WorkerProcess, made: Job) -> Counter[tuple[str, ...]]:
    """All of it comes again, and none of it is run twice; gives where it was recognised."""
    watch = await Watch(worker).begin()
    await work_off(worker, made)
    number = len(made.records)
    assert await watch.since("messages_processed") == {("duplicate",): number}
    assert await watch.since("defects") == {}
    # Labels in the order of their names: result, tier.
    found = await watch.since("dedup_lookups")
    hits = Counter({labels: int(n) for labels, n in found.items() if labels[0] == "hit"})
    assert hits["hit", "rocksdb"] + hits["hit", "postgresql"] == number
    return hits


async def check_once(worker: WorkerProcess, *jobs: Job, killed: bool = False) -> None:
    await check_done_once(worker.settings, joined(*jobs), killed=killed)


def tables(stage: Stage, worker: WorkerProcess) -> list[Path]:
    """The databases of all partitions, in their order."""
    directory = Path(worker.environment["STREAMAPP_DATA_DIR"])
    found = directory.glob("v*/tables/seen-*.db")
    return sorted(found, key=lambda path: int(re.findall(r"\d+", path.name)[-1]))
