"""The intake: what is taken in, what is acknowledged and committed."""

from __future__ import annotations

import asyncio

import pytest

from streamapp.pipeline.outcomes import Record
from streamapp.worker import intake as module
from streamapp.worker.intake import record_of
from tests.worker.fakes import DEADLINE, event, eventually, settled
from tests.worker.intake_bench import HELD, P0, Bench


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEFECT_PAUSE", 0)


def test_a_record_is_the_bytes_of_its_event() -> None:
    message = event(
        7,
        key=b"\xff",
        value=b"\x00",
        partition=3,
        headers=[("a", b"1"), ("a", b"2"), ("none", None)],
    )
    headers = (("a", b"1"), ("a", b"2"), ("none", b""))
    assert record_of(message) == Record(
        "ai-results", 3, 7, 1_700_000_000_250, b"\xff", b"\x00", headers
    )
    message = event(7, key=None, value=None, timestamp=None, headers={"a": b"1"})
    assert record_of(message) == Record("ai-results", 0, 7, 0, None, None, (("a", b"1"),))
    assert record_of(event(0)).headers == ()


async def test_only_the_finished_prefix_is_acknowledged() -> None:
    bench = Bench()
    bench.pipeline.free = False
    for offset in range(5, 9):
        await bench.accept(offset, key=f"lead-{offset}".encode())
    await settled()
    assert await bench.committed() == {P0: 5}
    bench.pipeline.gates[6].set()
    bench.pipeline.gates[7].set()
    await eventually(lambda: bench.finished == 2)
    assert await bench.committed() == {}, "nothing new"
    bench.pipeline.gates[5].set()
    await eventually(lambda: bench.finished == 3)
    assert await bench.committed() == {P0: 8}
    bench.pipeline.gates[8].set()
    await bench.idle()
    assert await bench.committed() == {P0: 9}
    assert await bench.committed() == {}


async def test_a_lead_is_worked_on_in_order_others_meanwhile() -> None:
    bench = Bench()
    gate = bench.pipeline.gates[0]
    await bench.accept(0, 1, 2, key=b"slow")
    await bench.accept(3, 4, key=b"other")
    await eventually(lambda: bench.finished == 2)
    assert [offset for offset, _ in bench.pipeline.runs] == [3, 4]
    gate.set()
    await bench.idle()
    assert [offset for offset, _ in bench.pipeline.runs] == [3, 4, 0, 1, 2]


async def test_the_same_lead_of_two_partitions_is_no_lane_of_one() -> None:
    bench = Bench()
    gate = bench.pipeline.gates[0]
    await bench.accept(0, partition=0)
    await bench.accept(1, partition=1)
    await eventually(lambda: bench.finished == 1)
    gate.set()
    await bench.idle()
    assert await bench.committed() == {("ai-results", 0): 1, ("ai-results", 1): 2}


async def test_a_finished_record_is_marked_with_its_own_event() -> None:
    bench = Bench()
    bench.pipeline.silent = {1}
    await bench.accept(0, 1, 2)
    await bench.idle()
    assert bench.table.marks == [(0, "p-0", b"hash"), (2, "p-2", b"hash")]


async def test_nothing_is_marked_before_its_outcome_is_durable() -> None:
    bench = Bench()
    bench.pipeline.free = False
    await bench.accept(0)
    await settled()
    assert bench.table.marks == []
    assert bench.finished == 0
    bench.pipeline.gates[0].set()
    await bench.idle()
    assert len(bench.table.marks) == 1


async def test_a_mark_that_fails_costs_no_acknowledgement() -> None:
    bench = Bench()
    bench.table.error = OSError("no space left on device")
    await bench.accept(0, 1)
    await bench.idle()
    assert bench.errors == [bench.table.error] * 2
    assert await bench.committed() == {P0: 2}


async def test_events_of_another_generation_are_not_taken_in() -> None:
    bench = Bench()
    await bench.accept(0, generation_id=0)
    await bench.accept(1, generation_id=2)
    assert len(bench.lanes) == 0
    assert bench.intake.leases == {}
    await bench.accept(2)
    await bench.idle()
    assert [offset for offset, _ in bench.pipeline.runs] == [2]


async def test_nothing_is_taken_in_of_a_generation_that_is_closed() -> None:
    bench = Bench()
    await bench.accept(0)
    await bench.idle()
    await bench.intake.give_up(HELD)
    await bench.accept(1)  # Faust still calls this generation the present one
    assert len(bench.lanes) == 0
    bench.membership.generation = 2
    await bench.accept(1)  # a late one of the generation before
    assert len(bench.lanes) == 0
    await bench.accept(1, generation_id=2)
    await bench.idle()
    assert [offset for offset, _ in bench.pipeline.runs] == [0, 1]


async def test_a_group_that_starts_anew_may_come_to_a_closed_number() -> None:
    bench = Bench()
    await bench.intake.give_up(HELD)
    bench.intake.assigned([P0])
    await bench.accept(0)
    await bench.idle()
    assert bench.finished == 1


async def test_an_event_that_waited_for_room_is_dropped_with_its_generation() -> None:
    bench = Bench(in_flight=1)
    bench.pipeline.free = False
    await bench.accept(0)
    waiting = asyncio.create_task(bench.intake.accept(event(1, key=b"other")))
    await settled()
    assert not waiting.done()
    await bench.intake.give_up(0)
    await asyncio.wait_for(waiting, DEADLINE)
    await bench.idle()
    assert bench.pipeline.runs == []


async def test_a_repeated_delivery_within_a_generation_is_ignored() -> None:
    bench = Bench()
    await bench.accept(4, 5, 5, 4, 6)
    await bench.idle()
    assert [offset for offset, _ in bench.pipeline.runs] == [4, 5, 6]
    assert await bench.committed() == {P0: 7}
    assert not bench.errors


async def test_records_that_were_passed_over_come_before_those_behind_them() -> None:
    bench = Bench()
    bench.log.there[P0] = list(range(10))
    bench.membership.begins[P0] = 3
    await bench.accept(3, 6, 7)
    await bench.idle()
    assert [offset for offset, _ in bench.pipeline.runs] == [3]
    assert await bench.committed() == {P0: 4}
    assert bench.membership.seeks == [(*P0, 4)]
    assert bench.skips == ["ai-results"]
    await bench.accept(8, 4, 5, 6, 7, 8, 9)
    await bench.idle()
    assert [offset for offset, _ in bench.pipeline.runs] == list(range(3, 10))
    assert await bench.committed() == {P0: 10}


async def test_a_lease_that_is_lost_meanwhile_takes_nothing_in() -> None:
    bench = Bench()
    bench.membership.answers.clear()
    taking = asyncio.create_task(bench.accept(3))
    await settled()
    assert not taking.done()
    giving = asyncio.create_task(bench.intake.give_up(0.0))
    await settled()
    bench.membership.answers.set()
    await asyncio.wait_for(asyncio.gather(taking, giving), DEADLINE)
    await bench.idle()
    assert bench.pipeline.runs == []


async def test_intake_pauses_at_the_unacknowledged_bound() -> None:
    bench = Bench(max_unacked=3)
    gate = bench.pipeline.gates[0]
    await bench.accept(0, key=b"slow")
    await bench.accept(1, 2, key=b"other")
    await eventually(lambda: bench.finished == 2)
    waiting = asyncio.create_task(bench.intake.accept(event(3, key=b"other")))
    await settled()
    assert not waiting.done(), "two are finished, but not acknowledged"
    gate.set()
    await asyncio.wait_for(waiting, DEADLINE)
    await bench.idle()
    assert await bench.committed() == {P0: 4}


async def test_intake_pauses_while_there_is_no_room() -> None:
    bench = Bench(in_flight=2)
    bench.pipeline.free = False
    await bench.accept(0, key=b"a")
    await bench.accept(1, key=b"b")
    waiting = asyncio.create_task(bench.intake.accept(event(2, key=b"c")))
    await settled()
    assert not waiting.done()
    bench.pipeline.gates[1].set()
    await asyncio.wait_for(waiting, DEADLINE)
    bench.pipeline.gates[0].set()
    bench.pipeline.gates[2].set()
    await bench.idle()


async def test_what_an_intake_waits_for_may_go_with_its_generation() -> None:
    """A record is left unfinished: nothing of it will ever be freed."""
    bench = Bench(max_unacked=1)
    await bench.accept(0)
    for task in bench.lanes.tasks(lambda key: True):
        task.cancel()
    await bench.idle()
    waiting = asyncio.create_task(bench.intake.accept(event(1)))
    await settled()
    assert not waiting.done()
    await bench.intake.give_up(0)
    await asyncio.wait_for(waiting, DEADLINE)


async def test_a_record_without_an_outcome_is_told_and_run_again() -> None:
    bench = Bench()
    error = RuntimeError("a defect")
    bench.pipeline.error[1] = error
    await bench.accept(0, 1, 2)
    await bench.idle()
    assert bench.defects == [error]
    assert not bench.errors
    assert [offset for offset, _ in bench.pipeline.runs] == [0, 1, 2]
    assert await bench.committed() == {P0: 3}


async def test_nothing_passes_over_a_record_without_an_outcome(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "DEFECT_PAUSE", HELD)
    bench = Bench()
    bench.pipeline.error[1] = RuntimeError("a defect")
    await bench.accept(0, 1, 2)
    await bench.accept(3, key=b"other")
    await eventually(lambda: bench.finished == 2)
    assert [offset for offset, _ in bench.pipeline.runs] == [0, 3]
    assert await bench.committed() == {P0: 1}
    await bench.intake.give_up(0)
    await bench.idle()


# Committing


async def test_a_refused_commit_is_asked_for_again() -> None:
    bench = Bench()
    await bench.accept(0)
    await bench.idle()
    bench.membership.accepts = False
    assert await bench.committed() == {P0: 1}
    bench.membership.accepts = True
    assert await bench.committed() == {P0: 1}
    assert await bench.committed() == {}


async def test_offsets_are_committed_under_the_generation_of_their_lease_only() -> None:
    bench = Bench()
    await bench.accept(0)
    await bench.idle()
    bench.membership.generation = 2
    await bench.accept(50, partition=1, generation_id=2)
    await bench.idle()
    await bench.intake.commit()
    assert sorted(bench.commits, key=str) == [
        (1, {("ai-results", 0): 1}),
        (2, {("ai-results", 1): 51}),
    ]


async def test_a_new_generation_forgets_what_the_old_one_had_finished() -> None:
    bench = Bench()
    gate = bench.pipeline.gates[0]
    await bench.accept(0, key=b"slow")
    await bench.accept(1, key=b"other")
    await eventually(lambda: bench.finished == 1)
    await bench.intake.give_up(0)
    bench.membership.generation = 2
    await bench.accept(0, key=b"slow", generation_id=2)
    await settled()
    assert await bench.committed() == {P0: 0}
    gate.set()
    await bench.idle()
    assert await bench.committed() == {P0: 1}, "1 was finished, but not in this generation"


async def test_commits_regularly_while_the_generation_is_open() -> None:
    bench = Bench()
    await bench.accept(0)
    await bench.idle()
    committing = asyncio.create_task(bench.intake.commit_regularly(0.0))
    await eventually(lambda: bench.commits)
    await bench.accept(1)
    await eventually(lambda: len(bench.commits) == 2)
    assert bench.commits == [(1, {P0: 1}), (1, {P0: 2})]
    await bench.intake.give_up(HELD)
    bench.commits.clear()
    bench.intake.leases[P0] = lease = bench._new_lease(*P0, 1)
    lease.ledger.add(9)
    for _ in range(5):
        await settled()
    assert bench.commits == [], "it would meet the group in the middle of joining"
    committing.cancel()
