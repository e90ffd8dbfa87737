"""Broker, database and workers of a run, and the supervisor that restarts a worker that ended."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import asyncpg
import psutil

from streamapp.demo.guardian import Guardian
from streamapp.demo.postgres import EmbeddedPostgres
from streamapp.settings import Settings
from tests.chaos.schedule import WORKER
from tests.chaos.services import CLIENT_TIMEOUT
from tests.kafka.broker import Broker
from tests.support.worker import WorkerProcess

SESSION_TIMEOUT = 6  # seconds; the least that a broker allows by default
LOOK = 0.5  # seconds between looks at the workers

_ENVIRONMENT = {
    "STREAMAPP_CONSUMER_GROUP": "chaos",
    # As many for each of one to four workers: a worker without any would have nothing to do.
    "STREAMAPP_TOPIC_PARTITIONS": "12",
    "STREAMAPP_SESSION_TIMEOUT": str(SESSION_TIMEOUT),
    "STREAMAPP_SALES_EMAIL": "sales@localhost",
    "STREAMAPP_ORDER_SERVICE_TIMEOUT": str(CLIENT_TIMEOUT),
    "STREAMAPP_SMTP_TIMEOUT": str(CLIENT_TIMEOUT),
    # Shorter than the defaults, so that a short run sees every way to its end.
    "STREAMAPP_RETRY_DELAYS": "0.5,1,3",
    "STREAMAPP_CIRCUIT_OPEN_SECONDS": "4",
    "STREAMAPP_CIRCUIT_MAX_WAIT": "30",
    "STREAMAPP_CIRCUIT_MAX_WAIT_BEST_EFFORT": "10",
    "STREAMAPP_STUCK_DELAYS": "5,10,20",
}

Tell = Callable[[str], None]


class Worker(WorkerProcess):
    """A worker that may be down on purpose (``wanted`` is false then)."""

    def __init__(
        self, name: str, directory: Path, environment: dict[str, str], program: tuple[str, ...]
    ) -> None:
        super().__init__(directory, environment)
        self.program = program
        self.name = name
        self.wanted = False
        self.lock = asyncio.Lock()  # held while a fault is at it
        self._state = directory / "state"

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll() if self._process is not None else None

    def bring_up(self) -> None:
        self.start()
        self.wanted = True

    async def crash(self) -> None:
        self.wanted = False
        await asyncio.to_thread(self.kill)

    async def terminate(self) -> str:
        """SIGTERM; tells how it ended."""
        self.wanted = False
        if self.exit_code is not None:
            return f"by itself before, exit code {self.exit_code}"
        try:
            return f"exit code {await self.stop()}"
        except subprocess.TimeoutExpired:
            await asyncio.to_thread(self.kill)
            return "had to be killed: it did not stop in time"

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.exit_code is None:
            self.signal(number)

    @property
    def stopped(self) -> bool:
        """Whether it stands still by a signal."""
        return psutil.Process(self.pid).status() == psutil.STATUS_STOPPED

    def forget(self) -> bool:
        """Delete its local state, and tell whether it had any. It must not be running."""
        had_some = any(self._state.rglob("*.db"))
        shutil.rmtree(self._state, ignore_errors=True)
        return had_some


class Cluster:
    """Everything that runs, each under its own directory. ``close`` may be called at any time.

    ``program`` is what Python runs as a worker.
    """

    def __init__(
        self, directory: Path, tell: Tell, program: tuple[str, ...] = Worker.program
    ) -> None:
        self.directory = directory
        self.workers: list[Worker] = []
        self.restarts = 0  # of workers that ended by themselves
        self._tell = tell
        self._program = program
        self._guardian = Guardian()
        self.postgres = EmbeddedPostgres(self._guardian)
        self.broker: Broker | None = None
        self._environment: dict[str, str] = {}
        self._made = 0

    async def start(self, workers: int, order_service: str, mail_server: str) -> None:
        """Start all of it and wait until the workers are ready."""
        dsn, broker = await asyncio.gather(
            asyncio.to_thread(self.postgres.start), asyncio.to_thread(self._start_broker)
        )
        self._environment = {
            **_ENVIRONMENT,
            "STREAMAPP_KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap,
            "STREAMAPP_DATABASE_URL": dsn,
            "STREAMAPP_ORDER_SERVICE_URL": order_service,
            "STREAMAPP_SMTP_URL": mail_server,
        }
        for _ in range(workers):
            self.add()
        code, output, errors = await self.workers[0].run("migrate")
        if code != 0:
            raise RuntimeError(f"migrate failed: {output}{errors}")
        for worker in self.workers:
            worker.bring_up()
        for worker in self.workers:
            await worker.wait_until_ready()

    def _start_broker(self) -> Broker:
        # Known before it runs, so that ``close`` stops it whatever happens.
        broker = self.broker = Broker(self.directory / "kafka")
        broker.start()
        return broker

    def add(self) -> Worker:
        """A further worker, not started yet."""
        self._made += 1
        name = WORKER.format(self._made)
        worker = Worker(name, self.directory / name, self._environment, self._program)
        self.workers.append(worker)
        return worker

    @property
    def settings(self) -> Settings:
        return self.workers[0].settings

    async def connect(self) -> asyncpg.Connection[asyncpg.Record]:
        """A connection of our own. Raises while the database is away."""
        return await asyncpg.connect(self.postgres.dsn(), timeout=10)

    async def disconnect_all(self) -> int:
        """Terminate every other client's connection; gives their number."""
        connection = await self.connect()
        try:
            count: int = await connection.fetchval(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity "
                "where backend_type = 'client backend' and pid <> pg_backend_pid()"
            )
            return count
        finally:
            await connection.close()

    async def supervise(self) -> None:
        """Restart what ended by itself, as a service manager would; runs until cancelled."""
        while True:
            for worker in list(self.workers):
                code = worker.exit_code
                if worker.wanted and code is not None:
                    self.restarts += 1
                    self._tell(f"{worker.name} ended by itself, exit code {code}: started again")
                    worker.bring_up()
            await asyncio.sleep(LOOK)

    def close(self) -> None:
        """Stop everything, by process id, and keep only logs of it."""
        for worker in self.workers:
            worker.wanted = False
            worker.kill()
        if self.broker is not None:
            self.broker.stop()
        for log in self._guardian.directory.glob("*.log"):
            shutil.copy(log, self.directory)
        self._guardian.close()
        shutil.rmtree(self.directory / "kafka" / "data", ignore_errors=True)
        for worker in self.workers:
            worker.forget()
