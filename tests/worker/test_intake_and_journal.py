"""Intake, lanes and leases around the real pipeline and journal: what no part shows by itself.

Only the group (who is its member, in which generation) and the local table are fakes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from streamapp.pipeline.outcomes import Outcome
from streamapp.saga import attempts
from streamapp.services.errors import Rejected
from streamapp.storage.health import DatabaseHealth
from streamapp.storage.owners import raise_epoch
from streamapp.storage.requests import SagaRequests
from streamapp.storage.unfinished import UnfinishedSagas
from streamapp.worker import intake as intake_module
from streamapp.worker.continuity import Continuity
from streamapp.worker.intake import Intake
from streamapp.worker.lanes import Bounds, Lanes, Room
from streamapp.worker.membership import Standing
from streamapp.worker.ownership import PartitionLease
from streamapp.worker.resumer import Resumer
from tests.pipeline.pipelines import Plant
from tests.pipeline.records import result
from tests.support.bench import Bench, running_bench
from tests.support.sagas import GROUP, TOPIC, Call, LostAnswer, Unreachable
from tests.support.waiting import until
from tests.worker.fakes import FakeLog, FakeMembership, event, settled
from tests.worker.intake_bench import FakeTable


class Worker:
    """One worker of the partitions; ``standing`` is what the group says of it."""

    def __init__(self, bench: Bench, plant: Plant, *, max_unacked: int = 100) -> None:
        self.bench, self.plant = bench, plant
        self.membership, self.table = FakeMembership(), FakeTable()
        self.standing = Standing.CONFIRMED
        self.fenced: list[bool] = []
        self.defects: list[BaseException] = []
        self.room = Room(Bounds(in_flight=10, queued=100, parked=100, bytes=1_000_000))
        self.lanes = Lanes(self.room, self.defects.append)
        self.orphans = 0
        self.skips: list[str] = []
        self.intake = Intake(
            pipeline=plant.pipeline,
            lanes=self.lanes,
            room=self.room,
            table=self.table,  # type: ignore[arg-type]
            membership=self.membership,  # type: ignore[arg-type]
            new_lease=self._new_lease,
            continuity=Continuity(self.membership, FakeLog().first_at, self.skips.append),
            max_unacked=max_unacked,
            on_fenced=self.fenced.append,
            on_finished=lambda: None,
            on_defect=self.defects.append,
        )
        self.resumer = Resumer(
            sagas=bench.executor(registry=plant.registry),
            journal=bench.journal,
            unfinished=UnfinishedSagas(bench.pool, GROUP, TOPIC),
            requests=SagaRequests(bench.pool, GROUP, TOPIC),
            worker="worker",
            intake=self.intake,
            health=DatabaseHealth(),
            interval=0.0,
            on_orphan=self._orphan,
        )

    def _orphan(self) -> None:
        self.orphans += 1

    def _new_lease(self, topic: str, partition: int, generation: int) -> PartitionLease:
        async def confirm(generation: int) -> Standing:
            return self.standing

        return PartitionLease(
            topic,
            partition,
            generation,
            raise_epoch=lambda t, p: raise_epoch(self.bench.pool, GROUP, t, p, "worker"),
            confirm=confirm,
            committed=self.membership.committed,
            on_lost=self.intake.lost,
        )

    async def accept(self, offset: int, lead: str = "lead-1", **changes: Any) -> None:
        payload = result(processing_id=f"p-{offset}", lead_id=lead, **changes)
        async with asyncio.timeout(20):
            await self.intake.accept(
                event(offset, key=lead.encode(), value=json.dumps(payload).encode())
            )

    async def idle(self) -> None:
        await until(lambda: not len(self.lanes))
        assert (self.room.in_flight, self.room.parked, self.room.bytes) == (0, 0, 0)
        assert self.defects == []

    async def committed(self) -> int | None:
        """The offset that a commit right now leaves."""
        await self.intake.commit()
        commits = [offsets[TOPIC, 0] for _, offsets in self.membership.commits if offsets]
        return commits[-1] if commits else None

    async def die(self) -> None:
        """All it was doing ends at once, and nothing is committed."""
        tasks = self.lanes.tasks(lambda key: True)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


@pytest.fixture
async def bench(database: str) -> AsyncIterator[Bench]:
    async with running_bench(database) as bench:
        yield bench


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "REFENCE_PAUSE", 0)


def new_worker(bench: Bench, **options: int) -> Worker:
    return Worker(bench, Plant(bench), **options)


def calls(bench: Bench, direction: str = "forward") -> list[str]:
    return [c.processing_id for c in bench.service.calls if c.direction == direction]


async def ended(bench: Bench) -> list[str]:
    """Sagas that ended, in the order of their ends."""
    rows = await bench.pool.fetch(
        "select processing_id from sagas where finished_at is not null order by finished_at"
    )
    return [row["processing_id"] for row in rows]


# Fenced


async def test_a_fenced_worker_that_is_still_the_owner_runs_its_records_again_in_order(
    bench: Bench,
) -> None:
    """Somebody raised the epoch in the middle of a call: one that the group no longer knows, or
    an older self. The coordinator confirms this worker, so its records are its own to finish."""
    worker = new_worker(bench)
    raised = False

    async def fence(call: Call) -> None:
        nonlocal raised
        if call.processing_id == "p-2" and not raised:
            raised = True
            await raise_epoch(bench.pool, GROUP, TOPIC, 0, "somebody")

    bench.service.after = fence
    for offset in (1, 2, 3, 4):
        await worker.accept(offset)
    await worker.idle()
    assert raised
    assert worker.fenced == [False]
    assert calls(bench) == ["p-1", "p-2", "p-2", "p-3", "p-4"]
    assert len({call.key for call in bench.service.calls}) == 4
    assert await ended(bench) == ["p-1", "p-2", "p-3", "p-4"]
    assert await worker.committed() == 5
    outcomes = worker.plant.outcomes()
    assert outcomes.count("released") == 1
    assert outcomes.count("processed") == 4


async def test_a_fenced_worker_that_lost_its_partition_leaves_it_to_the_next(bench: Bench) -> None:
    worker = new_worker(bench)

    async def lose(call: Call) -> None:
        if call.processing_id == "p-2":
            worker.standing = Standing.LOST
            await bench.take_over()

    bench.service.after = lose
    await worker.accept(1)
    await worker.idle()
    assert await worker.committed() == 2
    for offset in (2, 3):
        await worker.accept(offset)
    await worker.idle()
    assert True in worker.fenced
    assert worker.intake.leases == {}
    assert await worker.committed() == 2
    assert [mark[1] for mark in worker.table.marks] == ["p-1"]
    assert await bench.journal.load("p-3") is None
    bench.service.after = None
    successor = new_worker(bench)
    for offset in (2, 3):
        await successor.accept(offset)
    await successor.idle()
    assert await ended(bench) == ["p-1", "p-2", "p-3"]
    assert len(bench.service.effects) == 3
    assert await successor.committed() == 4


# Fairness


async def test_other_leads_go_on_while_one_waits_and_its_own_messages_do_not(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = new_worker(bench)
    waits, go_on = asyncio.Event(), asyncio.Event()

    async def sleep(parking: Any, seconds: float) -> None:
        async with parking.parked():
            waits.set()
            await go_on.wait()

    monkeypatch.setattr(attempts, "sleep", sleep)
    bench.service.plan("order", Unreachable())
    await worker.accept(1, "slow")
    await asyncio.wait_for(waits.wait(), 20)
    await worker.accept(2, "slow")
    for offset in range(3, 9):
        await worker.accept(offset, f"lead-{offset}")
    await until(lambda: len(calls(bench)) == 7)
    await until(lambda: len(worker.lanes) == 1)
    assert sorted(await ended(bench)) == [f"p-{n}" for n in range(3, 9)]
    assert await bench.journal.load("p-2") is None
    assert worker.room.in_flight == 0, "who waits holds no permit"
    assert worker.room.parked == 2
    assert await worker.committed() == 1, "the first one is not finished"
    go_on.set()
    await worker.idle()
    assert (await ended(bench))[-2:] == ["p-1", "p-2"]
    assert await worker.committed() == 9


async def test_a_stuck_saga_is_an_end_after_which_its_lead_goes_on(bench: Bench) -> None:
    worker = new_worker(bench)
    worker.plant.handler.actions = ("order", "note")
    bench.service.plan("order", LostAnswer(), Rejected("no"))
    bench.service.plan("order", Rejected("too late"), undo=True)
    await worker.accept(1)
    await worker.accept(2)
    await worker.idle()
    assert [(await bench.saga(f"p-{n}"))["status"] for n in (1, 2)] == ["STUCK", "COMPLETED"]
    assert await worker.committed() == 3
    assert [letter.processing_id for letter in await bench.letters()] == ["p-1"]
    assert worker.plant.outcomes() == [Outcome.DEAD_LETTERED, Outcome.PROCESSED]
    assert worker.plant.around.of("defect") == []


async def test_intake_waits_where_too_much_is_not_acknowledged_and_goes_on_by_itself(
    bench: Bench,
) -> None:
    worker = new_worker(bench, max_unacked=3)
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def hold(call: Call) -> None:
        if call.processing_id == "p-1":
            arrived.set()
            await go_on.wait()

    bench.service.before = hold
    for offset in (1, 2, 3):
        await worker.accept(offset, f"lead-{offset}")
    await asyncio.wait_for(arrived.wait(), 20)
    await until(lambda: len(worker.table.marks) == 2)
    fourth = asyncio.create_task(worker.accept(4, "lead-4"))
    await settled()
    assert not fourth.done()
    assert await bench.journal.load("p-4") is None
    go_on.set()
    await fourth
    await worker.idle()
    assert await worker.committed() == 5


# Orphans


@pytest.mark.parametrize("rejected", [False, True])
async def test_an_orphan_is_brought_to_its_end_by_the_owner_of_its_partition(
    bench: Bench, rejected: bool
) -> None:
    """Its worker died, then the group's offsets were set beyond its record: it never comes."""
    dead = new_worker(bench)
    arrived = asyncio.Event()

    async def hang(call: Call) -> None:
        arrived.set()
        await asyncio.Event().wait()

    bench.service.before = hang
    await dead.accept(1)
    await asyncio.wait_for(arrived.wait(), 20)
    await dead.die()
    bench.service.before = None
    assert (await bench.saga())["status"] == "RUNNING"
    if rejected:
        bench.service.plan("order", Rejected("no"))
    worker = new_worker(bench)
    worker.plant.handler.actions = ("note",)  # what would be planned now does not matter
    worker.membership.begins[TOPIC, 0] = 7
    worker.intake.assigned([(TOPIC, 0)])
    await until(lambda: worker.intake.epochs() != {})
    await worker.resumer.look()
    await worker.idle()
    assert worker.orphans == 1
    assert (await bench.saga())["status"] == ("COMPENSATED" if rejected else "COMPLETED")
    assert len({call.key for call in bench.service.calls if call.direction == "forward"}) == 1
    assert len(bench.service.effects) == (0 if rejected else 1)
    await worker.resumer.look()
    await worker.idle()
    assert worker.orphans == 1


async def test_a_saga_whose_record_will_come_is_no_orphan(bench: Bench) -> None:
    dead = new_worker(bench)
    arrived = asyncio.Event()

    async def hang(call: Call) -> None:
        arrived.set()
        await asyncio.Event().wait()

    bench.service.before = hang
    await dead.accept(1)
    await asyncio.wait_for(arrived.wait(), 20)
    await dead.die()
    worker = new_worker(bench)
    worker.membership.begins[TOPIC, 0] = 1
    worker.intake.assigned([(TOPIC, 0)])
    await until(lambda: worker.intake.epochs() != {})
    await worker.resumer.look()
    await worker.idle()
    assert worker.orphans == 0
    assert (await bench.saga())["status"] == "RUNNING"
