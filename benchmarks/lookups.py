"""Look-ups in the deduplication table after it was closed and opened again, without a broker.

``python -m benchmarks.lookups fill|look DIRECTORY KEYS``: one step, in a process of its own, as it
is this process's memory that is told. It prints one JSON object.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sys
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import faust
import psutil
import rocksdict

from benchmarks.contenders.base import python
from benchmarks.figures import About, FigureReport
from benchmarks.statistics import percentile
from streamapp.settings import load
from streamapp.worker.dedup import DedupTable

KEYS = 10_000_000
QUICK_KEYS = 20_000
PARTITIONS = 4
ASKED = 200_000  # look-ups of each kind
_BATCH = 1000
_VALUE = b"h" * 32  # a payload hash

ABOUT = About(
    "lookups",
    "Look-ups of single ids in the deduplication table, default settings, all buckets of the "
    "window filled evenly; the table was closed and is opened by a new process.",
)


def id_of(number: int) -> str:
    """A processing id as random as a UUID, the same in every process."""
    digest = hashlib.blake2b(number.to_bytes(8, "big"), digest_size=16).digest()
    return str(uuid.UUID(bytes=digest))


def table_in(directory: Path) -> DedupTable:
    """The table with the default settings."""
    settings = load({})
    app = faust.App("group", broker="kafka://127.0.0.1:1", store="rocksdb://", datadir=directory)
    return DedupTable(
        app,
        window=settings.dedup_window,
        buckets=settings.dedup_buckets,
        partitions=PARTITIONS,
        memory=settings.dedup_memory,
    )


async def fill(directory: Path, keys: int) -> dict[str, float]:
    """Write so many marks, evenly over the partitions and buckets that are looked in."""
    table = table_in(directory)
    newest, buckets = table._bucket(), load({}).dedup_buckets + 1
    for partition in range(PARTITIONS):
        database = table._table.data._db_for_partition(partition)
        numbers = range(partition, keys, PARTITIONS)
        for begin in range(0, len(numbers), _BATCH):
            batch = rocksdict.WriteBatch(raw_mode=True)
            for place, number in enumerate(numbers[begin : begin + _BATCH]):
                prefix = table._prefix(newest - place % buckets)
                batch.put(prefix + id_of(number).encode(), _VALUE)
            database.write(batch)
    await table._table.data.stop()
    return {}


def look(directory: Path, keys: int) -> dict[str, dict[str, float]]:
    """Ask for ids that are there, and for others; gives the figures of both."""
    table = table_in(directory)
    chosen = random.Random(1)
    asked = min(ASKED, keys)
    there = [chosen.randrange(keys) for _ in range(asked)]
    table.look_up(0, "opens it")
    found = {
        "hits": _timed(table, there, present=True),
        "misses": _timed(table, range(keys, keys + asked), present=False),
    }
    disk = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    memory = psutil.Process().memory_info().rss
    for figures in found.values():
        figures["RSS MB"], figures["disk MB"] = memory / 1e6, disk / 1e6
    return found


def _timed(table: DedupTable, numbers: Iterable[int], *, present: bool) -> dict[str, float]:
    times = []
    for number in numbers:
        partition, processing_id = number % PARTITIONS, id_of(number)
        began = time.perf_counter_ns()
        value = table.look_up(partition, processing_id)
        times.append((time.perf_counter_ns() - began) / 1000)
        if (value is not None) is not present:
            raise SystemExit(f"{processing_id}: found {value!r}")
    return {
        "look-ups": len(times),
        "mean us": sum(times) / len(times),
        "p99 us": percentile(times, 0.99),
    }


async def measure(directory: Path, keys: int, rounds: int) -> FigureReport:
    """Fill once, then look in each round by a new process."""
    report = FigureReport(ABOUT)
    await _step("fill", directory, keys)
    for number in range(1, rounds + 1):
        found = await _step("look", directory, keys)
        for kind, figures in found.items():
            report.lines.append((f"{keys:,} keys, {kind}, round {number}", figures))
    return report


async def _step(step: str, directory: Path, keys: int) -> Any:
    process = await asyncio.create_subprocess_exec(
        *python("benchmarks.lookups"),
        step,
        str(directory),
        str(keys),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode != 0:
        raise RuntimeError(f"{step}: {errors.decode()}")
    return json.loads(output)


def main(step: str, directory: str, keys: str) -> None:
    place = Path(directory)
    result = asyncio.run(fill(place, int(keys))) if step == "fill" else look(place, int(keys))
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
