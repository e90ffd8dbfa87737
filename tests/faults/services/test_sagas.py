"""Whole sagas of an order whose service answers badly: each order once, or net zero, or STUCK."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import count

import pytest

from streamapp.pipeline.outcomes import Reason
from streamapp.saga.ids import idempotency_key
from streamapp.saga.model import SagaState, SagaStatus
from streamapp.testing.standins import Place
from tests.faults.services.behaviours import CASES, raw, says
from tests.faults.services.far import Behaviour, OrderService, well
from tests.faults.services.orders import Near, both
from tests.support.bench import Bench, running_bench

AT_ONCE = 6  # sagas: more would be in each other's way, not the product's


@pytest.fixture
async def bench(database: str) -> AsyncIterator[Bench]:
    async with running_bench(database) as bench:
        yield bench


async def deliver(bench: Bench, near: Near, state: SagaState) -> SagaState:
    executor = bench.executor(registry=near.registry, max_wait=1.0, delays=(0.0, 0.05, 0.1))
    return await replace(bench, place=Place()).deliver(state, executor)


def key_of(state: SagaState) -> str:
    return idempotency_key(state.message.processing_id, 0, "create_order", "service", "forward")


def check_requests(far: OrderService, state: SagaState) -> None:
    """All attempts of one direction are the same, byte for byte, under a key of their own."""
    creations, cancellations = far.of("create"), far.of("cancel")
    assert {each.key for each in creations} == {key_of(state)}
    assert len({(each.path, each.body) for each in creations}) == 1
    assert len({(each.path, each.key, each.body) for each in cancellations}) <= 1
    assert far.made in ([], [key_of(state)])


async def test_one_bad_answer_and_then_good_ones(bench: Bench) -> None:
    """Each fault once: the order is made, once. What is refused for good is undone instead."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def outcome(name: str, offset: int) -> tuple[str, int]:
        case = CASES[name]
        # A refusal is repeated: one that a slow machine did not hear in time is asked for again.
        bad = None if case.verdict == "rejected" else 1
        far = OrderService(create=case.behaviour, effective=case.effect, bad=bad)
        async with slots, both(far) as near:
            state = await deliver(bench, near, near.order(name, offset))
        check_requests(far, state)
        if state.status is SagaStatus.COMPLETED:
            outputs = [row.output for row in state.steps.values()]
            assert {"order_id": f"order-{key_of(state)[:8]}"} in outputs, "the order that it made"
        return state.status.value, len(far.standing)

    found = dict(zip(CASES, await asyncio.gather(*map(outcome, CASES, count())), strict=True))
    assert found == {
        name: ("COMPENSATED", 0) if case.verdict == "rejected" else ("COMPLETED", 1)
        for name, case in CASES.items()
    }
    tasks = await bench.pool.fetch("select processing_id, status from tasks")
    assert {row["processing_id"]: row["status"] for row in tasks} == {
        name: "cancelled" if case.verdict == "rejected" else "pending"
        for name, case in CASES.items()
    }


FOR_EVER = [
    "hangs for ever",
    "answers after the timeout",
    "closes at once",
    "resets within the body",
    "a body of a gigabyte",
    "no JSON",
    "200 with an error inside",
    "an empty 200",
    "408",
    "429, in a million years",
    "500 after the effect",
    "502",
    "409, and it is made meanwhile",
    "422",
]


async def test_bad_answers_without_end(bench: Bench) -> None:
    """The order is given up, and cancelled where it may exist: net zero."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def outcome(name: str, offset: int) -> tuple[str, Reason | None, int, bool]:
        case = CASES[name]
        far = OrderService(create=case.behaviour, effective=case.effect)
        async with slots, both(far) as near:
            state = await deliver(bench, near, near.order(name, offset))
        check_requests(far, state)
        return state.status.value, state.reason, len(far.standing), bool(far.of("cancel"))

    found = dict(zip(FOR_EVER, await asyncio.gather(*map(outcome, FOR_EVER, count())), strict=True))

    def expected(name: str) -> tuple[str, Reason, int, bool]:
        verdict = CASES[name].verdict
        reason = Reason.STEP_REJECTED if verdict == "rejected" else Reason.RETRIES_EXHAUSTED
        return "COMPENSATED", reason, 0, verdict in ("in doubt", "busy")

    assert found == {name: expected(name) for name in FOR_EVER}
    letters = {letter.processing_id: letter.reason for letter in await bench.letters()}
    assert letters == {name: expected(name)[1] for name in FOR_EVER}
    assert {row["status"] for row in await bench.pool.fetch("select status from tasks")} == {
        "cancelled"
    }


async def test_a_refusal_after_an_order_whose_answer_was_lost(bench: Bench) -> None:
    """The service made it, says nothing, and then denies it: it is cancelled all the same."""
    answers = [raw(), says(422, b'{"error": "no such product"}')]

    async def create(connection: object, answer: object) -> None:
        await answers.pop(0)(connection, answer)  # type: ignore[arg-type]

    far = OrderService(create=create)
    async with both(far) as near:
        state = await deliver(bench, near, near.order())
    assert (state.status.value, state.reason) == ("COMPENSATED", Reason.STEP_REJECTED)
    assert far.orders == {key_of(state): "cancelled"}
    check_requests(far, state)


# The cancellation is answered badly

UNDONE: dict[str, tuple[Behaviour, str]] = {
    "well": (well, "COMPENSATED"),
    "an empty 200": (says(200), "COMPENSATED"),
    "an empty 204": (says(204), "COMPENSATED"),
    "200 of any content": (says(200, b'{"state": "gone", "error": null}'), "COMPENSATED"),
    "200 with an error inside": (says(200, b'{"error": "database is down"}'), "STUCK"),
    "200, not cancelled": (says(200, b'{"cancelled": false}'), "STUCK"),
    "no JSON": (says(200, b"<html>"), "STUCK"),
    "closes at once": (raw(), "STUCK"),
    "hangs for ever": (raw(then="silence"), "STUCK"),
    "500": (says(500), "STUCK"),
    "429": (says(429, b"", "Retry-After: 99999"), "STUCK"),
    "409": (says(409), "STUCK"),
    "403": (says(403), "STUCK"),
    "redirected": (says(307, b"", "Location: http://127.0.0.1:9/"), "STUCK"),
}


async def test_cancellations_that_are_answered_badly(bench: Bench) -> None:
    """Never "compensated" unless the service said so; healed and resumed, it is."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def outcome(name: str, offset: int) -> tuple[str, str]:
        behaviour, _ = UNDONE[name]
        far = OrderService(create=says(500), cancel=behaviour)
        async with slots, both(far) as near:
            state = await deliver(bench, near, near.order(name, offset))
            first = state.status.value
            if first == "STUCK":
                row = await bench.saga(name)
                assert (row["status"], row["reason"]) == ("STUCK", "compensation_stuck")
                far.cancel = well
                state = await bench.load(name)
                executor = bench.executor(registry=near.registry)
                await executor.resume(state, bench.epoch, Place())
        check_requests(far, state)
        assert far.standing == []
        return first, state.status.value

    found = dict(zip(UNDONE, await asyncio.gather(*map(outcome, UNDONE, count())), strict=True))
    assert found == {name: (status, "COMPENSATED") for name, (_, status) in UNDONE.items()}
    stuck = [name for name, (_, status) in UNDONE.items() if status == "STUCK"]
    letters = await bench.letters()
    assert sorted(
        letter.processing_id or ""
        for letter in letters
        if letter.reason is Reason.COMPENSATION_STUCK
    ) == sorted(stuck)


async def test_a_creation_that_arrives_after_its_cancellation(bench: Bench) -> None:
    """Nothing is there when the cancellation is first answered: it is asked again until no
    request can be on its way any more, and finds the order then."""
    far = OrderService(create=raw(then="silence"), effective=False)
    asked = asyncio.Event()

    async def not_found(connection: object, answer: object) -> None:
        far.orders.clear()
        key = json.loads(far.of("cancel")[-1].body)["creation_key"]
        far.orders[key] = "created"  # right after this answer, the request of before arrives
        asked.set()
        await says(404)(connection, answer)  # type: ignore[arg-type]

    far.cancel, far.bad = not_found, None
    async with both(far, timeout=0.5) as near:
        working = asyncio.create_task(deliver(bench, near, near.order()))
        await asked.wait()
        far.cancel = well
        state = await working
    assert state.status.value == "COMPENSATED"
    assert len(far.of("cancel")) == 2
    assert far.orders == {key_of(state): "cancelled"}
