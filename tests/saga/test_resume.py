"""STUCK sagas: tried again on a schedule, and only in the direction in which they were going."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from streamapp.actions.registry import ActionRegistry
from streamapp.saga.model import Fenced, SagaState
from streamapp.services.errors import Rejected
from tests.support.bench import Bench, Points, PointsJournal
from tests.support.sagas import (
    Call,
    MailSteps,
    NewServiceSteps,
    OwnSteps,
    ServiceSteps,
    Unreachable,
    external,
    own,
    registry_of,
    saga,
    task_id,
)


async def stuck(bench: Bench, failures: int = 1) -> SagaState:
    """A saga whose undoing of ``b`` failed, read back from the journal."""
    bench.service.plan("c", Rejected("no"))
    bench.service.plan("b", *(Rejected("too late") for _ in range(failures)), undo=True)
    await bench.deliver(saga(own("a"), external("b"), external("c")))
    return await bench.load()


async def resume(bench: Bench, registry: ActionRegistry | None = None) -> SagaState:
    state = await bench.load()
    await bench.executor(registry=registry).resume(state, bench.epoch, bench.place)
    return state


async def test_a_resumed_saga_is_compensated(bench: Bench) -> None:
    await stuck(bench)
    state = await resume(bench)
    assert state.status == "COMPENSATED"
    assert (await bench.saga())["status"] == "COMPENSATED"
    assert bench.service.names() == ["b", "c", "-b", "-b"]
    assert bench.service.effects == set()
    assert await bench.tasks() == {task_id("p-1", "a"): "cancelled"}
    assert (await bench.saga())["resume_at"] is None
    # One letter for the one message, whatever its way to the end was.
    assert len(await bench.letters()) == 1


async def test_an_undoing_call_is_repeated_under_its_key_with_its_bytes(bench: Bench) -> None:
    bench.service.plan("b", *(Unreachable() for _ in range(6)), undo=True)
    bench.service.plan("c", Rejected("no"))
    await bench.deliver(saga(own("a"), external("b"), external("c")))
    state = await resume(bench)
    assert state.status == "COMPENSATED"
    undo = [call for call in bench.service.calls if call.direction == "compensate"]
    assert [call.attempt for call in undo] == [1, 2, 3, 4, 1, 2, 3]
    assert len({(call.key, call.request) for call in undo}) == 1


async def test_a_resumption_that_was_interrupted_has_all_its_attempts_left(bench: Bench) -> None:
    """Its worker dies right after the saga is under way again: what the next owner goes on with
    is the resumption, not the end of the attempts before it."""
    bench.service.plan("b", *(Unreachable() for _ in range(7)), undo=True)
    bench.service.plan("c", Rejected("no"))
    await bench.deliver(saga(own("a"), external("b"), external("c")))
    state = await bench.load()
    assert state.status == "STUCK"
    journal = PointsJournal(bench.journal, Points(2))  # COMPENSATING is durable
    with pytest.raises(asyncio.CancelledError):
        await bench.executor(journal=journal).resume(state, bench.epoch, bench.place)
    await bench.take_over()
    assert (await bench.deliver(saga())).status == "COMPENSATED"
    undo = [call for call in bench.service.calls if call.direction == "compensate"]
    assert [call.attempt for call in undo] == [1, 2, 3, 4, 1, 2, 3, 4]
    assert len({(call.key, call.request) for call in undo}) == 1


async def test_compensating_is_durable_before_a_resumed_call(bench: Bench) -> None:
    await stuck(bench)
    seen = []

    async def before(call: Call) -> None:
        seen.append((await bench.saga())["status"])

    bench.service.before = before
    await resume(bench)
    assert seen == ["COMPENSATING"]


async def test_it_waits_longer_each_time_and_then_for_a_person(bench: Bench) -> None:
    await stuck(bench, failures=9)
    waits = []
    for _ in range(5):
        row = await bench.saga()
        assert row["status"] == "STUCK"
        waits.append(
            None
            if row["resume_at"] is None
            else (row["resume_at"] - row["updated_at"]).total_seconds()
        )
        await resume(bench)
    # 60 + 3 x 300 s are below the limit of 1000 s, another 300 s are not.
    assert waits == [60.0, 300.0, 300.0, 300.0, 300.0]
    row = await bench.saga()
    assert (row["stuck_retries"], row["resume_at"]) == (5, None)
    assert len(await bench.letters()) == 1


async def test_without_delays_it_waits_for_a_person_at_once(bench: Bench) -> None:
    bench.service.plan("b", Rejected("no"))
    state = saga(own("a", undo_raises=True), external("b"))
    await bench.deliver(state, bench.executor(stuck_delays=()))
    row = await bench.saga()
    assert (row["status"], row["resume_at"]) == ("STUCK", None)


async def test_the_first_cause_stays_in_the_error(bench: Bench) -> None:
    await stuck(bench, failures=3)
    await resume(bench)
    await resume(bench)
    assert (await bench.saga())["error"] == "compensation of b: too late; after c: no"


async def test_nobody_resumes_what_is_not_theirs(bench: Bench) -> None:
    state = await stuck(bench)
    old = bench.epoch
    await bench.take_over()
    with pytest.raises(Fenced):
        await bench.executor().resume(state, old, bench.place)
    assert bench.service.names() == ["b", "c", "-b"]
    assert (await bench.saga())["status"] == "STUCK"


async def test_of_two_resumes_one_is_refused(bench: Bench) -> None:
    first, second = await stuck(bench), await bench.load()
    await bench.executor().resume(first, bench.epoch, bench.place)
    with pytest.raises(Fenced):
        await bench.executor().resume(second, bench.epoch, bench.place)
    assert bench.service.names() == ["b", "c", "-b", "-b"]


# Steps that the running code does not know


def old_code(bench: Bench) -> ActionRegistry:
    return registry_of(OwnSteps(), ServiceSteps(bench.service), MailSteps(bench.service))


def new_code(bench: Bench) -> ActionRegistry:
    return registry_of(
        OwnSteps(),
        ServiceSteps(bench.service),
        NewServiceSteps(bench.service),
        MailSteps(bench.service),
    )


async def test_an_unknown_version_parks_the_saga(bench: Bench) -> None:
    state = saga(own("a"), external("b"), external("c", version=2), own("d"))
    await bench.deliver(state, bench.executor(registry=old_code(bench)))
    assert state.status == "STUCK"
    row = await bench.saga()
    assert (row["status"], row["reason"]) == ("STUCK", "plan_changed")
    assert row["error"] == "no code here runs service version 2"
    assert row["resume_at"] is not None
    # Nothing is undone: the plan is still good, and who knows it goes on.
    assert bench.service.names() == ["b"]
    assert await bench.tasks() == {task_id("p-1", "a"): "pending"}
    (letter,) = await bench.letters()
    assert letter.reason == "plan_changed"


async def test_who_knows_the_version_goes_on_forward(bench: Bench) -> None:
    state = saga(own("a"), external("b"), external("c", version=2), own("d"))
    await bench.deliver(state, bench.executor(registry=old_code(bench)))
    state = await resume(bench, old_code(bench))
    assert (state.status, state.stuck_retries) == ("STUCK", 1)
    state = await resume(bench, new_code(bench))
    assert state.status == "COMPLETED"
    assert bench.service.names() == ["b", "c"]
    row = await bench.saga()
    assert (row["status"], row["reason"], row["error"]) == ("COMPLETED", None, None)
    assert await bench.processed() == "success"


async def test_who_knows_the_version_goes_on_backward(bench: Bench) -> None:
    bench.service.plan("c", Rejected("no"))
    bench.service.plan("b", Rejected("not now"), undo=True)
    parked = saga(own("a"), external("b", version=2), external("c"), own("d"))
    await bench.deliver(parked, bench.executor(registry=new_code(bench)))
    assert parked.status == "STUCK"
    state = await resume(bench, old_code(bench))
    row = await bench.saga()
    assert (state.status, row["reason"]) == ("STUCK", "plan_changed")
    assert row["error"] == "no code here undoes service version 2"
    state = await resume(bench, new_code(bench))
    assert state.status == "COMPENSATED"
    assert bench.service.names() == ["b", "c", "-b", "-b"]
    assert await bench.tasks() == {task_id("p-1", "a"): "cancelled"}


async def test_an_unknown_executor_that_is_not_needed_any_more_parks_nothing(
    bench: Bench,
) -> None:
    """A step that is done is not run again, so nobody needs its code."""
    state = saga(external("a", version=2), external("b"))

    async def crash(call: Call) -> None:
        if call.action == "b":
            raise asyncio.CancelledError

    bench.service.before = crash
    with pytest.raises(asyncio.CancelledError):
        await bench.deliver(state, bench.executor(registry=new_code(bench)))
    bench.service.before = None
    taken = await bench.deliver(saga(), bench.executor(registry=old_code(bench)))
    assert taken.status == "COMPLETED"
    assert bench.service.names() == ["a", "b", "b"]


# Plans in a form that the running code does not know


async def change_plan_version(bench: Bench, version: int) -> None:
    await bench.pool.execute(
        "update sagas set plan = jsonb_set(plan, '{version}', $1::text::jsonb)", str(version)
    )


async def test_a_plan_of_another_form_parks_the_saga_until_somebody_can_read_it(
    bench: Bench,
) -> None:
    async def crash(call: Call) -> None:
        raise asyncio.CancelledError

    bench.service.before = crash
    with pytest.raises(asyncio.CancelledError):
        await bench.deliver(saga(own("a"), external("b")))
    bench.service.before = None
    await change_plan_version(bench, 99)
    assert (await bench.deliver(saga())).status == "STUCK"
    row = await bench.saga()
    assert (row["status"], row["reason"]) == ("STUCK", "plan_changed")
    assert [letter.reason for letter in await bench.letters()] == ["plan_changed"]
    assert (await resume(bench)).status == "STUCK"
    assert bench.service.names() == ["b"]
    await change_plan_version(bench, 1)
    assert (await resume(bench)).status == "COMPLETED"
    assert bench.service.names() == ["b", "b"]


async def test_a_plan_that_cannot_be_read_is_not_turned_forward_again(bench: Bench) -> None:
    """Its worker dies in between: who can read it must still find that it goes backward."""
    await stuck(bench)
    await change_plan_version(bench, 99)
    journal = PointsJournal(bench.journal, Points(3))
    state = await bench.load()
    with contextlib.suppress(asyncio.CancelledError):
        await bench.executor(journal=journal).resume(state, bench.epoch, bench.place)
    await change_plan_version(bench, 1)
    await bench.take_over()
    state = await bench.load()
    if state.status == "STUCK":
        await resume(bench)
    else:
        await bench.deliver(saga())
    assert (await bench.saga())["status"] == "COMPENSATED"
    assert bench.service.effects == set()
