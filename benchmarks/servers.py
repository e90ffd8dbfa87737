"""Kafka, PostgreSQL and the order service of a benchmark, each real, each in its own process."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

import aiohttp
import asyncpg

from streamapp.demo.guardian import Guardian
from streamapp.demo.postgres import EmbeddedPostgres
from tests.kafka.broker import Broker

# The server's own defaults where the embedded one is set smaller; and the instant of each commit,
# from which latency and throughput are read.
POSTGRES = {
    "shared_buffers": "128MB",
    "max_connections": "100",
    "max_wal_size": "1GB",
    "min_wal_size": "80MB",
    "autovacuum_naptime": "1min",
    "track_commit_timestamp": "on",
}
_STARTS_WITHIN = 60.0  # seconds
_SYNCS = 50  # of which the machine's speed at durable writes is told


class Servers:
    """Starts both servers; ``close`` ends them and removes their data."""

    def __init__(self) -> None:
        self._directory = TemporaryDirectory(prefix="streamapp-bench-")
        self.directory = Path(self._directory.name)
        self.guardian = Guardian()
        self._postgres = EmbeddedPostgres(self.guardian)
        self._broker: Broker | None = None

    async def __aenter__(self) -> Servers:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def start(self) -> None:
        self._broker = Broker(self.directory / "kafka")
        self._broker.start()
        self._postgres.start()
        connection = await asyncpg.connect(self._postgres.dsn())
        for name, value in POSTGRES.items():
            await connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        await connection.close()
        self._postgres.stop()  # some of them need a restart
        self._postgres.start()

    @property
    def bootstrap(self) -> str:
        assert self._broker is not None
        return self._broker.bootstrap

    def dsn(self, database: str = "postgres") -> str:
        return self._postgres.dsn(database)

    async def new_database(self, name: str) -> str:
        """An empty database, and no dirty pages left of the one before; gives its address."""
        connection = await asyncpg.connect(self.dsn())
        try:
            await connection.execute(f'CREATE DATABASE "{name}"')
            await connection.execute("CHECKPOINT")
        finally:
            await connection.close()
        return self.dsn(name)

    async def drop_database(self, name: str) -> None:
        connection = await asyncpg.connect(self.dsn())
        try:
            await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        finally:
            await connection.close()

    async def version(self) -> str:
        connection = await asyncpg.connect(self.dsn())
        try:
            version: str = await connection.fetchval("SHOW server_version")
            return version
        finally:
            await connection.close()

    def sync_milliseconds(self) -> float:
        """Median time of an ``fdatasync`` after 8 KiB, on the disk that the database is on."""
        times = []
        path = self.guardian.directory / "sync"
        with path.open("wb", buffering=0) as file:
            for _ in range(_SYNCS):
                file.write(bytes(8192))
                began = time.perf_counter()
                os.fdatasync(file.fileno())
                times.append(time.perf_counter() - began)
        path.unlink()
        return sorted(times)[_SYNCS // 2] * 1000

    def close(self) -> None:
        if self._broker is not None:
            self._broker.kill()
        self.guardian.close()
        self._directory.cleanup()


class OrderServiceProcess:
    """``benchmarks.order_service`` in a process of its own; ``url`` once it runs."""

    def __init__(self, guardian: Guardian, delay: float) -> None:
        self._child = guardian.start(
            f"order-service-{delay}",
            [sys.executable, "-m", "benchmarks.order_service", str(delay)],
            directory=Path.cwd(),
        )
        deadline = time.monotonic() + _STARTS_WITHIN
        while "http" not in self._child.tail():
            if not self._child.running or time.monotonic() > deadline:
                raise RuntimeError(f"the order service did not start: {self._child.tail()}")
            time.sleep(0.05)
        self.url = self._child.tail().strip()

    async def take_counts(self) -> dict[str, int]:
        """What it has counted since it was asked last: orders created, refused, cancelled, and
        calls repeated."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.url}/take-counts") as response,
        ):
            counts: dict[str, int] = await response.json()
            return counts

    def close(self) -> None:
        self._child.stop()
