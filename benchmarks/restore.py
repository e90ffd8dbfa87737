"""How long a worker's start takes with its table at hand, and with one that has to be restored."""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from pathlib import Path

import aiohttp

from benchmarks.contenders.own import Streamapp
from benchmarks.contenders.place import Place
from benchmarks.figures import About, FigureReport
from benchmarks.kafka import Kafka
from benchmarks.lookups import id_of
from benchmarks.process import Worker
from benchmarks.servers import Servers
from streamapp.settings import load
from streamapp.worker.dedup import changelog_topic

KEYS = 2_000_000
QUICK_KEYS = 20_000
READY_WITHIN = 3600.0  # seconds; a restore may take its time, and that is what is measured
LOOK = 0.02  # seconds between looks at a worker

RESTORED = re.compile(r"restored (\d+) records in ([\d.]+) s")

ABOUT = About(
    "restore",
    "A worker's start, from its launch to its readiness: with its state directory lost (the table "
    "is restored from its changelog), and with it intact.",
)


class Restoring:
    """``keys`` marks in a changelog of ``partitions``."""

    def __init__(self, servers: Servers, kafka: Kafka, partitions: int, keys: int) -> None:
        self._servers = servers
        self._kafka = kafka
        self._partitions = partitions
        self._keys = keys
        self._streamapp = Streamapp()

    async def measure(self, rounds: int) -> FigureReport:
        report = FigureReport(ABOUT)
        place = await self._place()
        await self._started(place)  # makes the changelog
        await self._fill(changelog_topic(place.group))
        for number in range(1, rounds + 1):
            shutil.rmtree(place.directory / "state")
            for case in ("lost", "intact"):
                figures, restored = await self._started(place)
                report.lines.append((f"{self._keys:,} keys, state {case}, round {number}", figures))
                expected = self._keys if case == "lost" else 0
                if restored != expected:
                    report.problems.append(f"{case}: {restored} of {expected} records restored")
        return report

    async def _place(self) -> Place:
        group = "bench-restore"
        database = await self._servers.new_database(group)
        directory = self._servers.directory / group
        directory.mkdir()
        await self._kafka.create(f"{group}-in", self._partitions)
        place = Place(
            self._servers.bootstrap, database, f"{group}-in", self._partitions, group, directory
        )
        # It needs no connection: ``migrate`` is a program.
        await self._streamapp.prepare(place, None)  # type: ignore[arg-type]
        return place

    async def _fill(self, topic: str) -> None:
        settings = load({})
        bucket = int(time.time() // (settings.dedup_window / settings.dedup_buckets))
        prefix = b"%010d|" % bucket
        producer = self._kafka.producer()
        await producer.start()
        try:
            for partition in range(self._partitions):
                batch = producer.create_batch()
                for number in range(partition, self._keys, self._partitions):
                    mark = {"key": prefix + id_of(number).encode(), "value": b"h" * 32}
                    if batch.append(**mark, timestamp=None) is None:
                        await (await producer.send_batch(batch, topic, partition=partition))
                        batch = producer.create_batch()
                        batch.append(**mark, timestamp=None)
                await (await producer.send_batch(batch, topic, partition=partition))
        finally:
            await producer.stop()

    async def _started(self, place: Place) -> tuple[dict[str, float], int]:
        """Start a worker and stop it when it is ready; gives the figures of its start, and how
        many records it says that it restored."""
        environment = self._streamapp.environment(place)
        began = time.monotonic()
        worker = Worker(self._servers.guardian, self._streamapp.command(place), environment)
        try:
            await self._until_ready(worker, int(environment["STREAMAPP_WEB_PORT"]))
            seconds = time.monotonic() - began
            said = RESTORED.search(worker.log())
            records, lasted = (int(said[1]), float(said[2])) if said else (0, 0.0)
            return {
                "seconds to ready": seconds,
                "records/s": records / lasted if lasted else 0.0,
                "CPU s": worker.cpu_seconds(),
                "RSS MB": worker.memory() / 1e6,
                "most RSS MB": _most_memory(worker.pid) / 1e6,
            }, records
        finally:
            await asyncio.to_thread(worker.stop)

    async def _until_ready(self, worker: Worker, port: int) -> None:
        deadline = time.monotonic() + READY_WITHIN
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(5)) as session:
            while time.monotonic() < deadline:
                worker.check()
                try:
                    async with session.get(f"http://127.0.0.1:{port}/health/ready") as response:
                        if response.status == 200:
                            return
                except (aiohttp.ClientError, TimeoutError):
                    pass  # it does not listen yet
                await asyncio.sleep(LOOK)
        raise TimeoutError(f"not ready after {READY_WITHIN} s: {worker.log()}")


def _most_memory(pid: int) -> int:
    """The most resident bytes that the process has had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
