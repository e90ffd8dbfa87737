"""Lanes: order per key, many keys at once, within the bounds."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict

import pytest

from streamapp.worker.lanes import Job, Lane
from tests.worker.fakes import DEADLINE, eventually, settled
from tests.worker.lanes_bench import SIZE, Bench, Gate


async def test_a_key_is_worked_on_in_order_and_alone() -> None:
    bench, seen, working = Bench(in_flight=8), defaultdict[str, list[int]](list), set[str]()
    rng = random.Random(1)

    def job(key: str, number: int) -> Job:
        async def work(lane: Lane) -> None:
            assert key not in working, "two jobs of a key at once"
            working.add(key)
            for _ in range(rng.randrange(4)):
                await asyncio.sleep(0)
            if rng.random() < 0.3:
                async with lane.parked():
                    await asyncio.sleep(0)
            seen[key].append(number)
            working.discard(key)

        return work

    for number in range(400):
        key = f"lead-{rng.randrange(12)}"
        bench.submit(key, job(key, number))
        if rng.random() < 0.2:
            await asyncio.sleep(0)
    await bench.done()
    assert sum(map(len, seen.values())) == 400
    assert all(numbers == sorted(numbers) for numbers in seen.values())
    assert not bench.errors


async def test_many_keys_at_once_up_to_the_bound() -> None:
    bench, gates = Bench(in_flight=3), [Gate() for _ in range(5)]
    for number, gate in enumerate(gates):
        bench.submit(f"lead-{number}", gate)
    await settled()
    assert [gate.begun for gate in gates] == [True, True, True, False, False]
    assert bench.figures == (3, 2, 5 * SIZE)
    gates[1].open.set()
    await settled()
    assert [gate.begun for gate in gates] == [True, True, True, True, False]
    assert bench.figures == (3, 1, 4 * SIZE)
    for gate in gates:
        gate.open.set()
    await bench.done()


async def test_those_behind_wait_for_the_one_before() -> None:
    bench, first, second = Bench(), Gate(), Gate()
    bench.submit("lead", first)
    bench.submit("lead", second)
    await settled()
    assert (first.begun, second.begun) == (True, False)
    assert bench.figures == (1, 1, 2 * SIZE)
    first.open.set()
    await settled()
    assert second.begun
    assert bench.figures == (1, 0, SIZE)
    second.open.set()
    await bench.done()


async def test_a_lane_that_waits_gives_its_permit_to_others() -> None:
    bench, waiting, other = Bench(in_flight=1), Gate(parked=True), Gate()
    bench.submit("waits", waiting)
    bench.submit("other", other)
    await settled()
    assert waiting.begun
    assert other.begun, "the others go on"
    assert bench.figures == (1, 1, 2 * SIZE)
    waiting.open.set()
    await settled()
    assert not waiting.ended, "it needs a permit again"
    assert bench.figures == (1, 1, 2 * SIZE)
    other.open.set()
    await bench.done()
    assert waiting.ended


async def test_intake_pauses_where_no_permit_is_left_and_resumes() -> None:
    bench, gates = Bench(in_flight=2), [Gate(), Gate()]
    bench.submit("a", gates[0])
    assert not bench.room.full
    bench.submit("b", gates[1])
    assert bench.room.full, "before the lanes took their first step"
    await settled()
    assert bench.room.full
    freed = asyncio.create_task(bench.room.changed())
    await settled()
    assert not freed.done()
    gates[0].open.set()
    await asyncio.wait_for(freed, DEADLINE)
    assert not bench.room.full
    gates[1].open.set()
    await bench.done()


@pytest.mark.parametrize(
    ("bounds", "records"),
    [({"queued": 4}, 5), ({"parked": 4}, 5), ({"size": 5 * SIZE}, 5), ({"size": 5 * SIZE - 1}, 5)],
)
async def test_intake_pauses_at_the_bounds_of_what_waits(
    bounds: dict[str, int], records: int
) -> None:
    bench, gate = Bench(in_flight=10, **bounds), Gate()
    for number in range(records):
        assert not bench.room.full, f"after {number}"
        bench.submit("lead", gate)
        await settled()
    assert bench.room.full
    freed = asyncio.create_task(bench.room.changed())
    gate.open.set()
    await asyncio.wait_for(freed, DEADLINE)
    await bench.done()


async def test_records_of_waiting_lanes_are_bounded_too() -> None:
    bench, gates = Bench(in_flight=10, parked=3), [Gate(parked=True) for _ in range(3)]
    for number, gate in enumerate(gates):
        assert not bench.room.full
        bench.submit(f"lead-{number}", gate)
        await settled()
    assert bench.figures == (0, 3, 3 * SIZE)
    assert bench.room.full
    for gate in gates:
        gate.open.set()
    await bench.done()


async def test_records_behind_one_that_waits_are_not_queued() -> None:
    bench, waiting, behind = Bench(queued=2), Gate(parked=True), Gate()
    bench.submit("lead", waiting)
    for _ in range(3):
        bench.submit("lead", behind)
    assert bench.room.full, "its turn is to come"
    await settled()
    assert waiting.begun
    assert bench.room.queued == 0
    assert not bench.room.full, "the others go on"
    bench.submit("lead", behind)
    assert bench.room.queued == 0
    assert bench.figures == (0, 5, 5 * SIZE)
    waiting.open.set()
    await settled()
    assert behind.begun
    assert bench.room.queued == 3
    assert bench.room.full
    behind.open.set()
    await bench.done()


async def test_records_behind_one_in_line_for_a_service_are_queued() -> None:
    bench, in_line, other = Bench(in_flight=1, queued=2), Gate(in_line=True), Gate()
    bench.submit("lead", in_line)
    bench.submit("lead", other)
    await settled()
    assert in_line.begun
    assert bench.room.queued == 1
    assert bench.figures == (0, 2, 2 * SIZE), "it holds no permit"
    assert not bench.room.full
    bench.submit("lead", other)
    assert bench.room.queued == 2
    assert bench.room.full
    in_line.open.set()
    other.open.set()
    await bench.done()


async def test_a_job_submitted_as_a_lane_ends_is_not_lost() -> None:
    bench, ran = Bench(), list[str]()

    async def last(lane: Lane) -> None:
        ran.append("last")
        # Runs after this job's last step and before anything else that is ready then.
        asyncio.get_running_loop().call_soon(bench.submit, "lead", after)

    async def after(lane: Lane) -> None:
        ran.append("after")

    async def itself(lane: Lane) -> None:
        ran.append("itself")
        bench.submit("lead", last)

    bench.submit("lead", itself)
    await eventually(lambda: len(ran) == 3)
    assert ran == ["itself", "last", "after"]
    await bench.done()


async def test_a_job_is_not_lost_at_any_step_of_an_ending_lane() -> None:
    for steps in range(8):
        bench, ran = Bench(), list[int]()

        async def job(lane: Lane, ran: list[int] = ran) -> None:
            await asyncio.sleep(0)
            ran.append(1)

        bench.submit("lead", job)
        for _ in range(steps):
            await asyncio.sleep(0)
        bench.submit("lead", job)
        await bench.done()
        assert len(ran) == 2, f"submitted after {steps} steps"


async def test_a_job_that_raises_is_reported_and_the_lane_goes_on() -> None:
    bench, gate = Bench(), Gate()
    error = RuntimeError("a defect")

    async def defect(lane: Lane) -> None:
        raise error

    async def defect_while_parked(lane: Lane) -> None:
        async with lane.parked():
            raise error

    bench.submit("lead", defect)
    bench.submit("lead", defect_while_parked)
    bench.submit("lead", gate)
    gate.open.set()
    await bench.done()
    assert bench.errors == [error, error]
    assert gate.ended


async def test_tasks_are_chosen_by_key() -> None:
    bench, gates = Bench(), [Gate(), Gate()]
    bench.submit("a", gates[0])
    bench.submit("b", gates[1])
    assert len(bench.lanes) == 2
    (wanted,) = bench.lanes.tasks(lambda key: key == "b")
    wanted.cancel()
    await settled()
    assert (gates[0].begun, gates[1].begun) == (True, False)
    gates[0].open.set()
    await bench.done()
