"""Many sagas at once: a service is called by so many of them as it bears."""

from __future__ import annotations

import asyncio

import pytest

from streamapp.saga.executor import SagaExecutor
from streamapp.services.errors import Retryable
from tests.support.bench import Bench
from tests.support.sagas import Call, ServiceSteps, external, registry_of, saga
from tests.support.waiting import until


class NarrowSteps(ServiceSteps):
    """A service that takes two calls at a time."""

    max_concurrent = 2


@pytest.fixture
def executor(bench: Bench) -> SagaExecutor:
    return bench.executor(registry=registry_of(NarrowSteps(bench.service)))


async def test_a_service_gets_no_more_calls_than_it_bears(
    bench: Bench, executor: SagaExecutor
) -> None:
    under_way = most = 0

    async def arrive(call: Call) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)

    async def leave(call: Call) -> None:
        nonlocal under_way
        under_way -= 1

    bench.service.before, bench.service.after = arrive, leave
    states = [saga(external("a"), processing_id=f"p-{n}", offset=n) for n in range(10)]
    await asyncio.gather(*(bench.deliver(state, executor) for state in states))
    assert {str(state.status) for state in states} == {"COMPLETED"}
    assert most == 2
    assert len(bench.service.effects) == 10


async def test_who_waits_for_a_place_is_parked_and_not_started(
    bench: Bench, executor: SagaExecutor
) -> None:
    """The call has to begin right after the commit of its STARTED."""
    free = asyncio.Event()

    async def hold(call: Call) -> None:
        if call.processing_id != "late":
            await free.wait()

    bench.service.before = hold
    first = [
        asyncio.create_task(bench.deliver(saga(external("a"), processing_id=f"p-{n}"), executor))
        for n in range(2)
    ]
    await until(lambda: len(bench.service.calls) == 2)
    late = asyncio.create_task(bench.deliver(saga(external("a"), processing_id="late"), executor))
    await until(lambda: bench.place.waiting)
    assert bench.place.in_line == 1, "what is behind it stays queued"
    assert await bench.journal.load("late") is None
    free.set()
    await asyncio.gather(*first, late)
    assert [call.processing_id for call in bench.service.calls][2] == "late"


async def test_a_saga_between_its_attempts_holds_no_place(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def sleep(parking: object, seconds: float) -> None:
        if seconds > 0:
            await hours.wait()

    hours = asyncio.Event()
    monkeypatch.setattr("streamapp.saga.attempts.sleep", sleep)
    executor = bench.executor(
        registry=registry_of(NarrowSteps(bench.service)), delays=(3600.0, 3600.0)
    )
    bench.service.plan("retried", *(Retryable("no", in_doubt=False) for _ in range(2)))
    waiting = [
        asyncio.create_task(
            bench.deliver(saga(external("retried"), processing_id=f"p-{n}"), executor)
        )
        for n in range(2)
    ]
    await until(lambda: len(bench.service.calls) == 2)
    other = await bench.deliver(saga(external("a"), processing_id="other"), executor)
    assert other.status == "COMPLETED"
    hours.set()
    await asyncio.gather(*waiting)
