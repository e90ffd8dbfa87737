"""The intake: what becomes of its records when partitions are given up, fenced or lost."""

from __future__ import annotations

import asyncio

import pytest

from streamapp.saga.model import Fenced
from streamapp.worker import intake as module
from streamapp.worker.lanes import Lane
from streamapp.worker.membership import Standing
from tests.worker.fakes import DEADLINE, eventually, settled
from tests.worker.intake_bench import HELD, P0, Bench


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REFENCE_PAUSE", 0)


async def test_what_can_be_finished_within_the_budget_is_and_is_committed() -> None:
    bench = Bench()
    bench.pipeline.free = False
    await bench.accept(0, 1)
    giving_up = asyncio.create_task(bench.intake.give_up(HELD))
    await settled()
    assert not giving_up.done()
    bench.pipeline.gates[0].set()
    bench.pipeline.gates[1].set()
    await asyncio.wait_for(giving_up, DEADLINE)
    assert bench.commits == [(1, {P0: 2})]
    assert len(bench.table.marks) == 2
    assert bench.intake.leases == {}
    await bench.idle()


@pytest.mark.parametrize("budget", [0.0, 0.01])
async def test_what_does_not_finish_in_time_is_dropped_without_acknowledgement(
    budget: float,
) -> None:
    bench = Bench()
    bench.pipeline.free = False
    for offset in range(4):
        await bench.accept(offset, key=f"lead-{offset}".encode())
    bench.pipeline.gates[0].set()
    bench.pipeline.gates[2].set()
    await eventually(lambda: bench.finished == 2)
    leases = list(bench.intake.leases.values())
    await asyncio.wait_for(bench.intake.give_up(budget), DEADLINE)
    assert bench.commits == [(1, {P0: 1})]
    assert all(lease.closed for lease in leases)
    bench.pipeline.gates[1].set()
    bench.pipeline.gates[3].set()
    await bench.idle()
    assert bench.finished == 2
    assert len(bench.table.marks) == 2


async def test_who_waits_is_not_waited_for() -> None:
    """For a retry or a circuit: the group stands still meanwhile."""
    bench = Bench()
    bench.pipeline.parked = {0}
    bench.pipeline.free = False
    await bench.accept(0, key=b"waits")
    await bench.accept(1, key=b"works")
    await settled()
    giving_up = asyncio.create_task(bench.intake.give_up(HELD))
    await settled()
    assert not giving_up.done()
    bench.pipeline.gates[1].set()
    await asyncio.wait_for(giving_up, DEADLINE)
    assert bench.commits == [(1, {P0: 0})]
    assert [offset for offset, _ in bench.pipeline.runs] == [1]
    await bench.idle()


async def test_who_begins_to_wait_is_waited_for_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "DRAIN_LOOK", 0.001)
    bench = Bench()
    begin, held = asyncio.Event(), asyncio.Event()

    async def work(lane: Lane) -> None:
        await begin.wait()
        async with lane.parked():
            await held.wait()

    await bench.accept(0)
    await bench.idle()
    (lease,) = bench.intake.leases.values()
    bench.intake.submit(lease, b"lead", work, 0)
    await settled()
    giving_up = asyncio.create_task(bench.intake.give_up(HELD))
    await settled()
    assert not giving_up.done()
    begin.set()
    await asyncio.wait_for(giving_up, DEADLINE)
    await bench.idle()


async def test_giving_up_nothing_commits_nothing() -> None:
    bench = Bench()
    await bench.intake.give_up(HELD)
    assert bench.commits == []


async def test_no_mark_and_no_finish_once_the_lease_is_closed() -> None:
    bench = Bench()
    bench.pipeline.free = False
    await bench.accept(0)
    await settled()
    (lease,) = bench.intake.leases.values()
    lease.close()
    bench.pipeline.gates[0].set()
    await eventually(lambda: bench.finished == 1)
    assert bench.table.marks == []
    assert lease.ledger.committable == 0
    assert bench.intake.committable() == {}


async def test_no_mark_and_no_finish_in_a_later_generation() -> None:
    bench = Bench()
    bench.pipeline.free = False
    await bench.accept(0)
    await settled()
    (lease,) = bench.intake.leases.values()
    bench.membership.generation = 2
    bench.pipeline.gates[0].set()
    await eventually(lambda: bench.finished == 1)
    assert bench.table.marks == []
    assert lease.ledger.unfinished == 1


# Fencing


async def test_fenced_but_confirmed_the_records_run_again_in_order() -> None:
    bench = Bench()
    await bench.accept(0)
    await bench.idle()
    bench.pipeline.epochs[0] += 1  # somebody raised it
    await bench.accept(1, 2, key=b"a")
    await bench.accept(3, 4, key=b"b")
    await bench.idle()
    assert bench.pipeline.runs[0] == (0, 1)
    rest = bench.pipeline.runs[1:]
    assert {epoch for _, epoch in rest} == {3}
    assert [offset for offset, _ in rest if offset < 3] == [1, 2]
    assert [offset for offset, _ in rest if offset > 2] == [3, 4]
    assert len(bench.raised) == 2, "once for all that were refused"
    assert bench.fenced
    assert not any(bench.fenced)
    assert await bench.committed() == {P0: 5}


async def test_fenced_and_lost_everything_is_dropped_without_acknowledgement() -> None:
    bench = Bench()
    await bench.accept(0)
    await bench.accept(7, partition=1)
    await bench.idle()
    assert len(bench.raised) == 2
    bench.pipeline.epochs[0] += 1
    bench.standing = Standing.LOST
    bench.commits.clear()
    await bench.accept(1, 2, key=b"a")
    await bench.accept(3, key=b"b")
    await bench.idle()
    assert bench.finished == 2
    assert len(bench.table.marks) == 2
    assert bench.intake.leases == {}, "of every partition of that generation"
    assert await bench.committed() == {}
    assert True in bench.fenced, "it is not silent"
    # What is still buffered of that generation does not take the partition back, and passes
    # over what was dropped in no commit.
    bench.standing = Standing.CONFIRMED
    await bench.accept(4, 5, key=b"a")
    await bench.accept(8, partition=1)
    await bench.idle()
    assert len(bench.raised) == 2
    assert bench.finished == 2
    assert await bench.committed() == {}


async def test_a_record_of_a_closed_lease_ends_without_acknowledgement() -> None:
    bench = Bench()
    gate = bench.pipeline.gates[0]
    await bench.accept(0)
    await settled()
    (lease,) = bench.intake.leases.values()
    lease.close()
    bench.pipeline.error[0] = Fenced("given up")
    gate.set()
    await bench.idle()
    assert bench.fenced == [True]
    assert lease.ledger.unfinished == 1


# Owning


async def test_partitions_are_owned_as_soon_as_they_are_assigned() -> None:
    bench = Bench()
    bench.intake.assigned([("ai-results", 0), ("ai-results", 4)])
    await eventually(lambda: len(bench.intake.epochs()) == 2)
    assert set(bench.intake.epochs()) == {0, 4}
    await bench.accept(0)
    await bench.idle()
    bench.intake.assigned([("ai-results", 0)])
    await settled()
    assert len(bench.raised) == 2, "owned already"
    await bench.intake.give_up(0)
    assert bench.intake.epochs() == {}


async def test_an_epoch_is_told_only_once_it_is_confirmed() -> None:
    bench = Bench()
    bench.standing = Standing.UNKNOWN
    bench.intake.assigned([("ai-results", 0)])
    await settled()
    assert bench.intake.epochs() == {}
    await bench.intake.give_up(0)


async def test_other_work_takes_its_turn_in_the_lane_of_its_lead() -> None:
    bench, order = Bench(), list[str]()
    gate = bench.pipeline.gates[0]
    await bench.accept(0)
    (lease,) = bench.intake.leases.values()

    async def work(lane: Lane) -> None:
        order.append(f"work after {bench.finished}")

    bench.intake.submit(lease, b"lead-1", work, 0)
    await settled()
    assert order == []
    gate.set()
    await bench.idle()
    assert order == ["work after 1"]


async def test_a_worker_without_which_the_group_went_on_drops_at_once_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It stood still for longer than its session: the partitions are others' by now."""
    bench = Bench()
    bench.pipeline.free = False
    await bench.accept(0, 1)
    bench.membership.gone_on = True
    await asyncio.wait_for(bench.intake.give_up(HELD), DEADLINE)
    assert bench.commits == []
    assert bench.intake.leases == {}
    assert bench.fenced == [True]
    assert "fenced" in caplog.text
    await bench.idle()
