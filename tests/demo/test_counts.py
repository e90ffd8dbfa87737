"""The demo's figures: each from its own source, and adding up only when nothing is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import asyncpg
import pytest
from aiohttp import web

from streamapp.demo import counts as module
from streamapp.demo.counts import Counter, Counts
from streamapp.demo.runner import Summary
from streamapp.demo.stack import DemoError, Stack
from tests.demo.support import METRICS


class Letters:
    """A consumer with records to hand out."""

    def __init__(self) -> None:
        self.waiting: list[SimpleNamespace] = []

    def add(self, letter_id: str, action: str = "") -> None:
        headers = [
            ("own", b"kept"),
            ("__streamapp.errors.id", letter_id.encode()),
            ("__streamapp.errors.action", action.encode()),
        ]
        self.waiting.append(SimpleNamespace(headers=headers))

    async def getmany(self, *, timeout_ms: int, max_records: int) -> Mapping[str, Any]:
        records, self.waiting = self.waiting, []
        return {"partition": records} if records else {}


class Worker:
    """Serves metrics; may have ended."""

    def __init__(self) -> None:
        self.metrics = METRICS.format(duplicates="3.0", order="1.0", half_open="0.0")
        self.status = 200
        self.web = ""
        self.ended = False

    def check(self) -> None:
        if self.ended:
            raise DemoError("the worker has ended")


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    worker = Worker()

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(text=worker.metrics, status=worker.status)

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    worker.web = f"http://{host}:{port}"
    yield worker
    await runner.cleanup()


@pytest.fixture
def letters() -> Letters:
    return Letters()


@pytest.fixture
async def counter(worker: Worker, letters: Letters, database: str) -> AsyncIterator[Counter]:
    connection = await asyncpg.connect(database)
    async with aiohttp.ClientSession() as session:
        yield Counter(cast(Stack, worker), connection, session, cast(Any, letters))
    await connection.close()


async def add_sagas(dsn: str, **statuses: int) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for status, number in statuses.items():
            for n in range(number):
                await connection.execute(
                    "insert into sagas (processing_id, run, status) values ($1, 0, $2)",
                    f"{status}-{n}",
                    status,
                )
    finally:
        await connection.close()


async def test_each_figure_has_its_source(
    counter: Counter, letters: Letters, database: str
) -> None:
    await add_sagas(database, COMPLETED=5, COMPENSATED=2, RUNNING=4, STUCK=1)
    letters.add("a")
    letters.add("b", action="notify_sales")
    letters.add("c")
    found = await counter.look()
    assert found.sagas == {"COMPLETED": 5, "COMPENSATED": 2, "RUNNING": 4, "STUCK": 1}
    assert (found.processed, found.duplicates, found.dead_lettered) == (5, 3, 2)
    assert found.settled == 10
    assert found.open_circuits == ("order_service",)


async def test_a_letter_that_comes_again_counts_once(
    counter: Counter, letters: Letters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 2)
    for letter_id in ("a", "b", "a"):
        letters.add(letter_id)
    assert (await counter.look()).dead_lettered == 2
    letters.add("b")
    assert (await counter.look()).dead_lettered == 2
    for letter_id in ("c", "d"):
        letters.add(letter_id)
    assert (await counter.look()).dead_lettered == 4
    assert len(counter._letter_ids) == 2


async def test_metrics_that_do_not_come_leave_the_figures(counter: Counter, worker: Worker) -> None:
    assert (await counter.look()).duplicates == 3
    worker.status = 503
    worker.metrics = ""
    assert (await counter.look()).duplicates == 3
    worker.web = "http://127.0.0.1:1"
    assert (await counter.look()).duplicates == 3


async def test_a_circuit_at_its_trial_is_not_closed(counter: Counter, worker: Worker) -> None:
    worker.metrics = METRICS.format(duplicates="0.0", order="0.0", half_open="1.0")
    assert (await counter.look()).open_circuits == ("email",)


async def test_a_worker_that_has_ended_is_told(counter: Counter, worker: Worker) -> None:
    worker.ended = True
    with pytest.raises(DemoError):
        await counter.look()


def test_nothing_counts_before_anything_is_known() -> None:
    assert Counts({}, 0, 0, ()).settled == 0


@pytest.mark.parametrize(
    ("unaccounted", "interrupted", "lost"),
    [(0, False, False), (1, False, True), (-1, False, True), (1, True, False)],
)
def test_a_loss_is_what_does_not_add_up(unaccounted: int, interrupted: bool, lost: bool) -> None:
    summary = Summary(10, 8, 1, 1, 8, 1, 0, 1.0, unaccounted, interrupted)
    assert summary.lost == lost
