"""Lanes: wherever one is cancelled, every permit, record and byte is given back."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.worker.lanes import Job, Lane
from tests.worker.fakes import DEADLINE, settled
from tests.worker.lanes_bench import SIZE, Bench, Gate


async def _not_begun(bench: Bench) -> list[Gate]:
    gates = [Gate(), Gate()]
    for gate in gates:
        bench.submit("lead", gate)
    return gates


async def _waits_for_its_permit(bench: Bench) -> list[Gate]:
    blocker, gates = Gate(), [Gate(), Gate()]
    bench.submit("other", blocker)
    for gate in gates:
        bench.submit("lead", gate)
    await settled()
    assert blocker.begun
    assert not gates[0].begun
    return [*gates, blocker]


async def _was_handed_its_permit(bench: Bench) -> list[Gate]:
    """The permit is free and promised to the lane, which has not run since."""
    *gates, blocker = await _waits_for_its_permit(bench)
    blocker.open.set()
    for _ in range(20):
        if not bench.room.in_flight:
            break
        await asyncio.sleep(0)
    assert bench.room.in_flight == 0
    assert not gates[0].begun
    return gates


async def _works(bench: Bench) -> list[Gate]:
    gates = await _not_begun(bench)
    await settled()
    assert gates[0].begun
    return gates


async def _is_parked(bench: Bench) -> list[Gate]:
    gates = [Gate(parked=True), Gate()]
    for gate in gates:
        bench.submit("lead", gate)
    await settled()
    assert bench.figures == (0, 2, 2 * SIZE)
    return gates


async def _wants_its_permit_back(bench: Bench) -> list[Gate]:
    gates = await _is_parked(bench)
    blocker = Gate()
    bench.submit("other", blocker)
    await settled()
    assert blocker.begun
    gates[0].open.set()
    await settled()
    assert not gates[0].ended
    return [*gates, blocker]


@pytest.mark.parametrize(
    "reach",
    [
        _not_begun,
        _waits_for_its_permit,
        _was_handed_its_permit,
        _works,
        _is_parked,
        _wants_its_permit_back,
    ],
)
@pytest.mark.parametrize("all_at_once", [True, False])
async def test_cancellation_gives_everything_back(reach: Any, all_at_once: bool) -> None:
    bench = Bench(in_flight=1)
    gates = await reach(bench)
    tasks = bench.cancel() if all_at_once else bench.cancel("lead")
    await asyncio.wait(tasks, timeout=DEADLINE)
    assert not gates[0].ended
    assert not gates[1].begun
    for gate in gates:
        gate.open.set()
    await bench.done()
    assert not bench.errors
    # And there is room for as many as before.
    again = Gate()
    again.open.set()
    bench.submit("lead", again)
    await bench.done()
    assert again.ended


async def test_cancelling_a_lane_that_ended_changes_nothing() -> None:
    bench, gate = Bench(), Gate()
    gate.open.set()
    bench.submit("lead", gate)
    (task,) = bench.lanes.tasks(lambda key: True)
    await bench.done()
    task.cancel()
    await bench.done()
    assert bench.lanes.tasks(lambda key: True) == []


_STEP = st.one_of(
    st.tuples(st.just("submit"), st.sampled_from("abcd"), st.sampled_from(["", "s", "p", "sp!"])),
    st.tuples(st.just("cancel"), st.sampled_from("abcd"), st.just("")),
    st.tuples(st.just("turns"), st.just(""), st.sampled_from(["1", "2", "3", "9"])),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_STEP, max_size=40), st.integers(1, 3))
def test_any_schedule_keeps_order_and_gives_everything_back(
    steps: list[tuple[str, str, str]], in_flight: int
) -> None:
    async def run() -> None:
        bench = Bench(in_flight=in_flight)
        began = defaultdict[str, list[int]](list)
        submitted = defaultdict[str, list[int]](list)
        cancelled = set[str]()
        working = set[str]()

        def job(key: str, number: int, program: str) -> Job:
            async def work(lane: Lane) -> None:
                assert key not in working
                working.add(key)
                try:
                    began[key].append(number)
                    for step in program:
                        assert bench.room.in_flight <= in_flight
                        if step == "s":
                            await asyncio.sleep(0)
                        elif step == "p":
                            async with lane.parked():
                                await asyncio.sleep(0)
                        else:
                            raise RuntimeError("a defect")
                finally:
                    working.discard(key)

            return work

        for number, (what, key, argument) in enumerate(steps):
            if what == "submit":
                submitted[key].append(number)
                bench.submit(key, job(key, number, argument))
            elif what == "cancel":
                if bench.cancel(key):
                    cancelled.add(key)
            else:
                for _ in range(int(argument)):
                    await asyncio.sleep(0)
            assert bench.room.in_flight <= in_flight
            assert min(*bench.figures, bench.room.queued) >= 0
        await bench.done()
        for key, numbers in submitted.items():
            assert began[key] == sorted(set(began[key]))
            if key not in cancelled:
                assert began[key] == numbers
        assert all(str(error) == "a defect" for error in bench.errors)

    asyncio.run(run())
