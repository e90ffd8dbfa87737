"""A deduplication table on RocksDB, without a broker: what goes to the changelog is kept in a list.

Run as a program it marks what it is told to, in a directory, and waits to be killed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faust

from streamapp.worker.dedup import DedupTable
from tests.worker.fakes import event

WINDOW, BUCKETS = 300.0, 3  # so a bucket covers 100 seconds
NOON = 1_700_000_000.0  # the beginning of a bucket
READY = "ready"


class Bench:
    """A table in ``directory`` whose clock is ``now``; ``changelog`` has what it sent."""

    def __init__(
        self,
        directory: Path,
        *,
        now: float = NOON,
        window: float = WINDOW,
        buckets: int = BUCKETS,
        memory: int = 1024 * 1024,
    ) -> None:
        self.now = now
        self.app = faust.App(
            "group", broker="kafka://127.0.0.1:1", store="rocksdb://", datadir=str(directory)
        )
        self.table = DedupTable(
            self.app,
            window=window,
            buckets=buckets,
            partitions=4,
            memory=memory,
            clock=lambda: self.now,
        )
        self.changelog: list[tuple[int, bytes, bytes]] = []
        self.faust: Any = self.table._table
        self.faust._verified_source_topics_for_partitions.add("ai-results")
        self.faust.send_changelog = self._send

    def _send(self, partition: int, key: bytes, value: bytes, *_: Any) -> Any:
        self.changelog.append((partition, key, value))
        return SimpleNamespace(message=SimpleNamespace(partition=partition))

    def mark(self, processing_id: str, value: bytes = b"hash", partition: int = 0) -> None:
        # Faust refers to the event weakly: it has to be held while the table is written.
        held = event(0, partition=partition)
        self.table.mark(held, processing_id, value)

    def look_up(self, processing_id: str, partition: int = 0) -> bytes | None:
        return self.table.look_up(partition, processing_id)

    def database(self, partition: int = 0) -> Any:
        return self.faust.data._db_for_partition(partition)

    def stored(self, partition: int = 0) -> list[bytes]:
        return list(self.database(partition).keys())

    def path(self, partition: int = 0) -> Path:
        return Path(self.faust.data.partition_path(partition))

    async def close(self) -> None:
        """Close as Faust does, which collects garbage and takes its time."""
        await self.faust.data.stop()

    def drop(self) -> None:
        """Close the databases where nobody opens them again."""
        self.faust.data._dbs.clear()


def killed_after_marking(run: Callable[..., Any], directory: Path, *ids: str) -> None:
    """Mark ids in another process, which ends by kill -9."""
    process = run([sys.executable, "-m", __name__, str(directory), *ids])
    assert process.stdout.readline().strip() == READY
    process.kill()
    process.wait()


def _main(directory: str, *ids: str) -> None:
    bench = Bench(Path(directory))
    for processing_id in ids:
        bench.mark(processing_id, b"hash of " + processing_id.encode())
    print(READY, flush=True)
    time.sleep(600)


if __name__ == "__main__":
    _main(*sys.argv[1:])
