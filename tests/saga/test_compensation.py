"""A required step failed for good: everything that is done, or in doubt, is undone."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from streamapp.pipeline.outcomes import Reason
from streamapp.saga import attempts as module
from streamapp.saga.ids import idempotency_key
from streamapp.saga.parking import Parking
from streamapp.services.errors import Busy, NothingThere, Rejected
from tests.support.bench import Bench, PointsJournal
from tests.support.sagas import (
    Call,
    LostAnswer,
    LostRequest,
    OwnSteps,
    ServiceSteps,
    Unreachable,
    external,
    mail,
    own,
    registry_of,
    saga,
    task_id,
)

NO = Rejected("no")


async def undo_rows(bench: Bench) -> list[str]:
    rows = await bench.pool.fetch(
        "select action from saga_steps where direction = 'compensate' and status = 'DONE' "
        "order by action"
    )
    return [row["action"] for row in rows]


async def test_all_that_is_done_is_undone_in_reverse(bench: Bench) -> None:
    undone: list[tuple[str, dict[str, str]]] = []

    async def before(call: Call) -> None:
        if call.direction == "compensate":
            undone.append((call.action, await bench.tasks()))

    bench.service.before = before
    bench.service.plan("f", NO)
    state = saga(
        own("a"), external("b"), own("c"), external("d"), own("e"), external("f"), own("g")
    )
    await bench.deliver(state)
    assert state.status == "COMPENSATED"
    assert bench.service.names() == ["b", "d", "f", "-d", "-b"]
    a, c, e = (task_id("p-1", name) for name in "ace")
    assert undone == [
        ("d", {a: "pending", c: "pending", e: "cancelled"}),
        ("b", {a: "pending", c: "cancelled", e: "cancelled"}),
    ]
    assert await bench.tasks() == dict.fromkeys((a, c, e), "cancelled")
    assert await undo_rows(bench) == ["a", "b", "c", "d", "e"]
    assert bench.service.effects == set()


async def test_it_ends_with_a_letter_in_the_same_commit(bench: Bench) -> None:
    journal = PointsJournal(bench.journal)
    bench.service.plan("b", Rejected("out of stock"))
    state = saga(own("a"), external("b"))
    await bench.deliver(state, bench.executor(journal=journal))
    (letter,) = await bench.letters()
    assert (letter.reason, letter.action, letter.run) == (Reason.STEP_REJECTED, "", 0)
    assert letter.message == "b: out of stock"
    assert (letter.source, letter.processing_id) == (state.source, "p-1")
    rows = await bench.pool.fetch(
        "select xmin::text from sagas union select xmin::text from outbox "
        "union select xmin::text from processed_messages"
    )
    assert len(rows) == 1
    assert (await bench.saga())["finished_at"] is not None
    assert await bench.processed() == "failed"
    record = await bench.pool.fetchrow("select key, value, headers from outbox")
    assert record is not None
    assert (record["key"], record["value"]) == (state.key, state.value)
    assert json.loads(record["headers"])[0][0] == "kept"
    assert bench.observer.of("saga") == [("COMPENSATED", "step_rejected")]
    assert bench.observer.of("letter") == [("step_rejected",)]
    assert bench.observer.of("compensation") == [("a", "done")]
    assert len(journal.writes) == 3


async def test_compensating_is_durable_before_anything_is_undone(bench: Bench) -> None:
    seen: list[Any] = []

    async def before(call: Call) -> None:
        if call.direction == "compensate":
            row = await bench.step(0, "compensate")
            seen.append(((await bench.saga())["status"], row["status"], row["request"], row["key"]))

    bench.service.before = before
    bench.service.plan("b", NO)
    journal = PointsJournal(bench.journal)
    await bench.deliver(saga(external("a"), external("b")), bench.executor(journal=journal))
    call = bench.service.calls[-1]
    assert seen == [("COMPENSATING", "STARTED", call.request, call.key)]
    # By a commit of its own, that undoes nothing.
    turn = next(write for write in journal.writes if write.status == "COMPENSATING")
    assert {row.direction for row in turn.steps} == {"forward"}


async def test_the_keys_of_both_directions_differ(bench: Bench) -> None:
    bench.service.plan("b", NO)
    await bench.deliver(saga(external("a"), external("b")))
    forward, _, undo = bench.service.calls
    assert forward.key == idempotency_key("p-1", 0, "a", "", "forward")
    assert undo.key == idempotency_key("p-1", 0, "a", "", "compensate")
    assert undo.key != forward.key
    assert json.loads(undo.request) == {
        "forward_key": forward.key,
        "output": {"made": "a"},
        "made": 3,
    }


async def test_the_lead_gets_its_status_back(bench: Bench) -> None:
    await bench.pool.execute("insert into leads values ('lead-1', 'business-1', 'tenant-1', 'new')")
    bench.service.plan("b", NO)
    await bench.deliver(saga(own("a", lead_status="needs_review"), external("b")))
    assert await bench.pool.fetchval("select status from leads") == "new"


async def test_a_lead_that_moved_on_keeps_its_status(bench: Bench) -> None:
    await bench.pool.execute("insert into leads values ('lead-1', 'business-1', 'tenant-1', 'new')")
    bench.service.plan("b", NO)

    async def before(call: Call) -> None:
        await bench.pool.execute("update leads set status = 'won'")

    bench.service.before = before
    await bench.deliver(saga(own("a", lead_status="needs_review"), external("b")))
    assert await bench.pool.fetchval("select status from leads") == "won"


# Which steps


@pytest.mark.parametrize(
    ("outcomes", "undone"),
    [
        ([NO], False),
        ([Unreachable(), NO], False),
        ([LostRequest(), NO], True),
        ([LostAnswer(), NO], True),
        ([LostAnswer(), Unreachable(), NO], True),
        ([KeyError("a defect"), NO], True),
        ([Unreachable()] * 4, False),
        ([Unreachable(), LostRequest(), Unreachable(), Unreachable()], True),
        ([Unreachable(), Unreachable(), Unreachable(), LostAnswer()], True),
    ],
)
async def test_a_failed_step_is_undone_if_an_attempt_is_in_doubt(
    bench: Bench, outcomes: list[Any], undone: bool
) -> None:
    bench.service.plan("a", *outcomes)
    state = saga(external("a"))
    await bench.deliver(state)
    assert state.status == "COMPENSATED"
    assert bench.service.names() == ["a"] * len(outcomes) + ["-a"] * undone
    assert (await bench.step(0))["in_doubt"] is undone
    assert bench.service.effects == set()
    if undone:
        assert json.loads(bench.service.calls[-1].request)["output"] is None


async def test_a_busy_key_leaves_a_rejection_in_doubt(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def sleep(parking: Parking, seconds: float) -> None:
        """Nothing waits here."""

    monkeypatch.setattr(module, "sleep", sleep)
    bench.service.plan("a", Busy("being worked on"), NO)
    await bench.deliver(saga(external("a")))
    assert bench.service.names() == ["a", "a", "-a"]


async def test_a_best_effort_step_in_doubt_is_undone_too(bench: Bench) -> None:
    bench.service.plan("a", LostAnswer(), NO)
    bench.service.plan("b", NO)
    bench.service.plan("c", NO)
    state = saga(external("a", required=False), external("b", required=False), external("c"))
    await bench.deliver(state)
    assert state.status == "COMPENSATED"
    assert bench.service.names() == ["a", "a", "b", "c", "-a"]
    assert bench.service.effects == set()


async def test_what_cannot_be_undone_is_left(bench: Bench) -> None:
    bench.service.plan("b", NO)
    state = saga(mail("a"), external("b"))
    await bench.deliver(state)
    assert state.status == "COMPENSATED"
    assert bench.service.names() == ["a", "b"]


async def test_own_steps_with_a_defect_take_the_saga_back(bench: Bench) -> None:
    state = saga(own("a"), external("b"), own("c", raises=True), own("d"))
    await bench.deliver(state)
    assert state.status == "COMPENSATED"
    assert bench.service.names() == ["b", "-b"]
    assert await bench.tasks() == {task_id("p-1", "a"): "cancelled"}
    (letter,) = await bench.letters()
    assert letter.reason == Reason.HANDLER_ERROR
    assert letter.message == "c: KeyError('a defect of the executor')"


# Attempts


async def test_an_undoing_call_is_retried_like_any_other(bench: Bench) -> None:
    bench.service.plan("b", NO)
    bench.service.plan("a", Unreachable(), LostAnswer(), KeyError("a defect"), undo=True)
    state = saga(external("a"), external("b"))
    await bench.deliver(state)
    assert state.status == "COMPENSATED"
    undo = [call for call in bench.service.calls if call.direction == "compensate"]
    assert [call.attempt for call in undo] == [1, 2, 3, 4]
    assert len({(call.key, call.request) for call in undo}) == 1


# Nothing there


class SlowSteps(ServiceSteps):
    """A request of theirs may be on its way for half a minute."""

    max_call_time = 30.0


async def with_nothing_there(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, *forward: Exception, stepped: float = 0.0
) -> list[float]:
    """Run a saga whose undoing finds nothing; gives its waits, which pass at once. ``stepped``:
    seconds by which the wall clock is set forward before the undoing is asked for."""
    bench.service.plan("a", *forward)
    bench.service.plan("b", NO)
    bench.service.plan("a", *(NothingThere("never heard of it") for _ in range(9)), undo=True)
    state = saga(external("a"), external("b"))
    waits: list[float] = []

    async def before(call: Call) -> None:
        if call.direction == "compensate":
            row = state.steps[0, "forward"]
            assert row.last_attempt_at is not None
            row.last_attempt_at -= timedelta(seconds=stepped)

    steps = SlowSteps(bench.service)

    async def sleep(parking: Parking, seconds: float) -> None:
        if seconds > 0:
            waits.append(seconds)
            steps.max_call_time -= seconds

    bench.service.before = before
    monkeypatch.setattr(module, "sleep", sleep)
    registry = registry_of(OwnSteps(), steps)
    await bench.deliver(state, bench.executor(registry=registry, max_wait=120))
    assert state.status == "COMPENSATED"
    return waits


async def test_nothing_there_settles_what_was_certainly_answered(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await with_nothing_there(bench, monkeypatch) == []
    assert json.loads((await bench.step(0, "compensate"))["output"]) == {"nothing_to_undo": True}


@pytest.mark.parametrize("stepped", [0.0, 3600.0, -3600.0])
async def test_nothing_there_is_asked_again_while_a_request_may_be_on_its_way(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, stepped: float
) -> None:
    waits = await with_nothing_there(bench, monkeypatch, LostRequest(), NO, stepped=stepped)
    # Asked again the moment that it was due, it may be so by a hair: then once more.
    assert round(sum(waits)) == 30
    assert bench.service.names() in (["a", "a", "-a", "-a"], ["a", "a", "-a", "-a", "-a"])
    row = await bench.step(0, "compensate")
    assert (row["status"], row["attempts"]) == ("DONE", 1)


# Getting stuck


async def test_a_compensation_that_fails_is_stuck_and_said_in_the_same_commit(
    bench: Bench,
) -> None:
    bench.service.plan("c", Rejected("out of stock"))
    bench.service.plan("b", Rejected("too late"), undo=True)
    state = saga(own("a"), external("b"), external("c"))
    await bench.deliver(state)
    assert state.status == "STUCK"
    row = await bench.saga()
    assert row["status"] == "STUCK"
    assert row["reason"] == "compensation_stuck"
    assert row["error"] == "compensation of b: too late; after c: out of stock"
    assert (row["resume_at"] - row["updated_at"]).total_seconds() == 60.0
    (letter,) = await bench.letters()
    assert (letter.reason, letter.message) == (Reason.COMPENSATION_STUCK, row["error"])
    rows = await bench.pool.fetch(
        "select xmin::text from sagas union select xmin::text from outbox "
        "union select xmin::text from processed_messages"
    )
    assert len(rows) == 1
    assert await bench.processed() == "failed"
    # The steps before the one that is stuck are left for later: the order is kept.
    assert await bench.tasks() == {task_id("p-1", "a"): "pending"}
    assert bench.observer.of("saga") == [("STUCK", "compensation_stuck")]
    assert bench.observer.of("compensation") == [("b", "failed")]


@pytest.mark.parametrize(
    ("outcomes", "calls"),
    [([Unreachable()] * 4, 4), ([LostAnswer()] * 4, 4), ([KeyError("a defect")] * 4, 4)],
)
async def test_an_undoing_call_is_not_retried_for_ever(
    bench: Bench, outcomes: list[Exception], calls: int
) -> None:
    bench.service.plan("b", NO)
    bench.service.plan("a", *outcomes, undo=True)
    state = saga(external("a"), external("b"))
    await bench.deliver(state)
    assert state.status == "STUCK"
    assert bench.service.names()[2:] == ["-a"] * calls


@pytest.mark.parametrize(
    "stubborn", [own("a", undo_raises=True), external("a", undo_request_raises=True)]
)
async def test_a_defect_of_a_compensation_is_stuck(bench: Bench, stubborn: Any) -> None:
    bench.service.plan("b", NO)
    state = saga(stubborn, external("b"))
    await bench.deliver(state)
    assert state.status == "STUCK"
    assert "a defect of the compensation" in (await bench.saga())["error"]
    assert (await bench.step(0, "compensate"))["status"] == "FAILED"
