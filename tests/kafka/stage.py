"""Workers of one consumer group under load, and the audit of what became of each message.

Messages, order service and checks are those of the chaos run: many leads and a hot one,
repetitions, bad input and refused orders; what the log of the input topic says is the truth
that tables, topics and the order service's own ledger are compared with.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from streamapp.settings import Settings
from tests.chaos.checks import Case
from tests.chaos.collect import collect, wait_until_settled
from tests.chaos.evidence import Violation
from tests.chaos.order import CHECKS
from tests.chaos.services import MailServer, OrderService
from tests.chaos.traffic import Stream, Traffic
from tests.support.worker import WorkerProcess

RATE = 60.0  # records a second
PROGRESS_WITHIN = 90.0  # seconds
SETTLED_WITHIN = 240.0  # seconds
FOREVER = 3600.0  # seconds; a load ends when its block does


class Stage:
    """One group's topics, database, order service and workers. ``close`` ends the workers.

    ``program`` is what Python runs as a worker.
    """

    program = WorkerProcess.program

    def __init__(
        self,
        name: str,
        bootstrap: str,
        dsn: str,
        orders: OrderService,
        orders_url: str,
        directory: Path,
        rate: float = RATE,
        **more: str,
    ) -> None:
        self.orders = orders
        self.dsn = dsn
        self.workers: list[WorkerProcess] = []
        self.traffic = Traffic(seed=sum(name.encode()))
        self._name = name
        self._directory = directory
        self._bootstrap = bootstrap
        self._environment = {
            "STREAMAPP_KAFKA_BOOTSTRAP_SERVERS": bootstrap,
            "STREAMAPP_DATABASE_URL": dsn,
            "STREAMAPP_INPUT_TOPIC": f"{name}-ai-results",
            "STREAMAPP_DLQ_TOPIC": f"{name}-ai-results-dlq",
            "STREAMAPP_OUTBOUND_TOPIC": f"{name}-whatsapp-outbound",
            "STREAMAPP_CONSUMER_GROUP": name,
            "STREAMAPP_TOPIC_PARTITIONS": "4",
            "STREAMAPP_SESSION_TIMEOUT": "6",  # the least that a broker allows by default
            "STREAMAPP_ORDER_SERVICE_URL": orders_url,
            "STREAMAPP_RETRY_DELAYS": "0.5,1,3",
            **more,
        }
        self.stream = Stream(self.traffic, bootstrap, f"{name}-ai-results", rate)

    def new_worker(self, **more: str) -> WorkerProcess:
        """A further worker of the group, not started yet."""
        number = len(self.workers) + 1
        worker = WorkerProcess(self._directory / f"worker-{number}", {**self._environment, **more})
        worker.program = self.program
        self.workers.append(worker)
        return worker

    async def prepare(self, workers: int = 1, **more: str) -> list[WorkerProcess]:
        """Create the topics and start so many workers; returns once they are ready."""
        made = [self.new_worker(**more) for _ in range(workers)]
        status, _, errors = await made[0].run("migrate")
        assert status == 0, errors
        for worker in made:
            worker.start()
        for worker in made:
            await worker.wait_until_ready()
        return made

    @property
    def settings(self) -> Settings:
        return self.workers[0].settings

    async def connect(self) -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(self.dsn, timeout=10)

    @asynccontextmanager
    async def load(self) -> AsyncIterator[None]:
        """A steady stream of messages while the block runs; all of them confirmed after it.

        One that the broker would not confirm by then fails the test by its deadline.
        """
        sending = asyncio.create_task(self.stream.run(FOREVER))
        try:
            yield
        except BaseException:
            # The broker may be away, and its client waits for it.
            while not sending.done():
                sending.cancel()
                await asyncio.wait([sending], timeout=1.0)
            raise
        assert not sending.done(), f"the stream broke off: {sending}"
        sending.cancel()
        await asyncio.wait([sending])

    async def fetchval(self, sql: str, *arguments: object) -> int:
        connection = await self.connect()
        try:
            value: int = await connection.fetchval(sql, *arguments)
            return value
        finally:
            await connection.close()

    async def finished(self) -> int:
        """Sagas that have ended."""
        return await self.fetchval("select count(*) from sagas where finished_at is not null")

    async def progress(self, count: int = 60) -> None:
        """Wait until so many more messages are finished."""
        goal = await self.finished() + count
        deadline = time.monotonic() + PROGRESS_WITHIN
        while await self.finished() < goal:
            assert time.monotonic() < deadline, self.logs()
            await asyncio.sleep(0.1)

    async def until_more(self, sql: str, than: int, *arguments: object) -> None:
        """Wait until the query gives more."""
        deadline = time.monotonic() + PROGRESS_WITHIN
        while (now := await self.fetchval(sql, *arguments)) <= than:
            assert time.monotonic() < deadline, f"{now} <= {than}: {sql}\n{self.logs()}"
            await asyncio.sleep(0.1)

    def logs(self) -> str:
        """The ends of the workers' logs, for the message of a failed test."""
        return "\n".join(
            f"--- {worker.log}\n{worker.log.read_text()[-4000:]}" for worker in self.workers
        )

    async def check(self, without: Collection[str] = ()) -> Case:
        """Wait until all has come to its end, and hold the promises against what is there.

        All is: every record of the input topic and of the dead-letter topic committed, no saga
        unfinished, no outbox row that waits. ``without`` names checks that do not apply.
        """
        case, violations = await self.audit(without)
        shown = "\n".join(f"{each.kind}: {each.text}" for each in violations[:20])
        assert not violations, f"{len(violations)} violations\n{shown}\n{self.logs()}"
        return case

    async def audit(self, without: Collection[str] = ()) -> tuple[Case, list[Violation]]:
        """The same, and gives what was found wrong."""
        left = await wait_until_settled(self, SETTLED_WITHIN)
        assert not left, f"{left}\n{self.logs()}"
        case = Case(
            await collect(
                self, self.traffic, self.stream, self.orders, MailServer(time.monotonic, 0)
            )
        )
        assert set(without) <= CHECKS.keys()
        violations = [
            violation
            for name, check in CHECKS.items()
            if name not in without
            for violation in check(case)[1]
        ]
        assert len(case.sagas) > 0
        return case, violations

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()


def repeated_requests(case: Case) -> dict[str, int]:
    """Creations that the order service was asked for more than once, by key: how often."""
    counts: dict[str, int] = {}
    for request in case.evidence.requests:
        if request.operation == "create":
            counts[request.key] = counts.get(request.key, 0) + 1
    return {key: count for key, count in counts.items() if count > 1}


async def eventually(condition: Callable[[], bool], within: float = 60.0) -> None:
    """Return once ``condition()`` is true; fails the test after so many seconds."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        await asyncio.sleep(0.02)


async def readiness(worker: WorkerProcess, ready: bool, within: float = 60.0) -> None:
    """Wait until ``/health/ready`` says so, while ``/health/live`` answers all the time."""
    wanted = 200 if ready else 503
    deadline = time.monotonic() + within
    while True:
        status, text = await worker.get("/health/ready")
        if status == wanted:
            return
        assert time.monotonic() < deadline, (status, text, worker.log.read_text()[-4000:])
        assert (await worker.get("/health/live"))[0] == 200
        await asyncio.sleep(0.1)


_OF_A_SAGA = re.compile(r"\] saga \S+ ended ")
_VARIABLE = re.compile(r"\d[\d.:TZ-]*")


def repeated_lines(log: str) -> dict[str, int]:
    """How often each line comes, where it comes more than once; figures and times aside.

    Lines about the end of a saga are left out: each message may have its own.
    """
    counts: dict[str, int] = {}
    for line in log.splitlines():
        if _OF_A_SAGA.search(line):
            continue
        kind = _VARIABLE.sub("#", line)
        counts[kind] = counts.get(kind, 0) + 1
    return {kind: count for kind, count in counts.items() if count > 1}
