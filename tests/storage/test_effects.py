"""What each operation does to its rows."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from streamapp.saga.model import SagaState
from streamapp.saga.operations import (
    CancelTask,
    InsertActivity,
    Operation,
    Priority,
    RaisePriority,
    RestoreLeadStatus,
    SetLeadStatus,
)
from tests.storage.writes import claim, row, state_of, task, update
from tests.support.bench import Bench


async def task_row(bench: Bench, task_id: str) -> dict[str, Any]:
    found = await bench.pool.fetchrow("select * from tasks where task_id = $1", task_id)
    assert found is not None
    return {**found, "metadata": json.loads(found["metadata"])}


async def write(bench: Bench, state: SagaState, *operations: Operation) -> dict[str, Any]:
    written = await bench.journal.write(update(bench.epoch, state, *operations))
    return written.outputs.get(1, {})


@pytest.fixture
async def state(bench: Bench) -> SagaState:
    """A saga with two tasks, in ``bench``."""
    state = state_of(lead_id="lead-1")
    await bench.journal.write(
        claim(bench.epoch, state, task("low", priority="low"), task("high", priority="high"))
    )
    return state


async def set_lead(bench: Bench, status: str | None) -> None:
    await bench.pool.execute(
        "insert into leads values ('lead-1', 'business-1', 'tenant-1', $1) "
        "on conflict (lead_id, business_id) do update set status = excluded.status",
        status,
    )


# Tasks and activities


async def test_a_task_has_all_that_its_operation_says(bench: Bench) -> None:
    operation = task(
        "t", "what to do", priority="high", due_in=90.0, metadata={"n": 2**70, "text": "ä"}
    )
    await bench.journal.write(claim(bench.epoch, state_of("p-9", run=2), operation))
    found = await task_row(bench, "t")
    assert found["due_date"] - found["created_at"] == timedelta(seconds=90)
    expected = {
        "lead_id": "lead of p-9",
        "business_id": "business-1",
        "tenant_id": "tenant-1",
        "task_type": "type",
        "title": "title",
        "description": "what to do",
        "status": "pending",
        "priority": "high",
        "assigned_to_type": "team",
        "assigned_to_id": "team",
        "metadata": {"n": 2**70, "text": "ä"},
        "processing_id": "p-9",
        "run": 2,
    }
    assert {name: found[name] for name in expected} == expected


async def test_a_task_may_have_no_due_time(bench: Bench) -> None:
    await bench.journal.write(claim(bench.epoch, state_of(), task("t", due_in=None)))
    assert (await task_row(bench, "t"))["due_date"] is None


async def test_a_repeated_task_finds_its_own_row(bench: Bench, state: SagaState) -> None:
    await write(bench, state, CancelTask("low", "why"))
    await write(bench, state, task("low", "another text"))
    found = await task_row(bench, "low")
    assert (found["status"], found["description"]) == ("cancelled", "")


async def test_an_activity_has_all_that_its_operation_says(bench: Bench) -> None:
    activity = InsertActivity(
        "a", "type", "description", "agent", "name", "web", "content", {"k": [1]}
    )
    await bench.journal.write(claim(bench.epoch, state_of("p-9"), activity))
    found = await bench.pool.fetchrow("select * from lead_activities")
    assert found is not None
    times = (found["activity_timestamp"], found["created_at"])
    assert times[0] == times[1] == (await bench.saga("p-9"))["created_at"]
    assert [value for name, value in found.items() if name not in ("metadata", *TIMES)] == [
        "a",
        "lead of p-9",
        "business-1",
        "tenant-1",
        "type",
        "description",
        "agent",
        "name",
        "web",
        "content",
    ]
    assert json.loads(found["metadata"]) == {"k": [1]}


TIMES = ("activity_timestamp", "created_at")


async def test_a_repeated_activity_finds_its_own_row(bench: Bench, state: SagaState) -> None:
    await write(bench, state, InsertActivity("a", "type", "first"))
    await write(bench, state, InsertActivity("a", "type", "second"))
    rows = await bench.pool.fetch("select activity_description from lead_activities")
    assert [row["activity_description"] for row in rows] == ["first"]


# Cancelling


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("pending", "cancelled"),
        ("in_progress", "cancelled"),
        ("completed", "completed"),
        ("cancelled", "cancelled"),
    ],
)
async def test_a_task_is_cancelled_unless_it_is_finished(
    bench: Bench, before: str, after: str
) -> None:
    state = state_of()
    await bench.journal.write(claim(bench.epoch, state, task("t", metadata={"kept": [1, "x"]})))
    await bench.pool.execute("update tasks set status = $1", before)
    await write(bench, state, CancelTask("t", "why"))
    found = await task_row(bench, "t")
    assert found["status"] == after
    reason = {"cancellation_reason": "why"} if before in ("pending", "in_progress") else {}
    assert found["metadata"] == {"kept": [1, "x"]} | reason


async def test_cancelling_a_task_that_is_not_there_is_fine(bench: Bench, state: SagaState) -> None:
    await write(bench, state, CancelTask("nothing", "why"))
    assert await bench.tasks() == {"low": "pending", "high": "pending"}


# Priority

PRIORITIES: list[Priority] = ["low", "normal", "high", "critical"]


async def test_a_priority_is_raised_and_never_lowered(bench: Bench) -> None:
    pairs = [(before, raised) for before in PRIORITIES for raised in PRIORITIES]
    await asyncio.gather(
        *(
            bench.journal.write(
                claim(
                    bench.epoch,
                    state_of(f"{before} to {raised}"),
                    task(f"{before} to {raised}", priority=before),
                    RaisePriority(raised, 60.0),
                )
            )
            for before, raised in pairs
        )
    )
    rows = await bench.pool.fetch("select task_id, priority from tasks")
    assert {row["task_id"]: row["priority"] for row in rows} == {
        f"{before} to {raised}": max(before, raised, key=PRIORITIES.index)
        for before, raised in pairs
    }


@pytest.mark.parametrize(("due_in", "expected"), [(3600.0, 60.0), (30.0, 30.0), (None, 60.0)])
async def test_a_due_time_comes_nearer_and_never_later(
    bench: Bench, due_in: float | None, expected: float
) -> None:
    await bench.journal.write(
        claim(bench.epoch, state_of(), task("t", due_in=due_in), RaisePriority("high", 60.0))
    )
    found = await task_row(bench, "t")
    assert found["due_date"] - found["created_at"] == timedelta(seconds=expected)


async def test_a_raise_reaches_the_open_tasks_of_its_own_run_alone(bench: Bench) -> None:
    state = state_of()
    await bench.journal.write(
        claim(bench.epoch, state, *(task(name) for name in ("open", "begun", "done", "gone")))
    )
    await bench.journal.write(claim(bench.epoch, state_of("p-2"), task("another saga's")))
    await bench.journal.write(claim(bench.epoch, state_of("p-3"), task("another run's")))
    for name, change in {
        "begun": "status = 'in_progress'",
        "done": "status = 'completed'",
        "gone": "status = 'cancelled'",
        "another run's": "processing_id = 'p-1', run = 1",
    }.items():
        await bench.pool.execute(f"update tasks set {change} where task_id = $1", name)
    await write(bench, state, RaisePriority("critical", 60.0))
    rows = await bench.pool.fetch("select task_id from tasks where priority = 'critical'")
    assert {row["task_id"] for row in rows} == {"open", "begun"}


async def test_two_raises_in_one_write_give_the_higher(bench: Bench, state: SagaState) -> None:
    await write(bench, state, RaisePriority("critical", 600.0), RaisePriority("high", 60.0))
    found = await task_row(bench, "low")
    assert found["priority"] == "critical"
    assert found["due_date"] - found["updated_at"] == timedelta(seconds=60)


async def test_raises_of_several_sagas_in_a_batch_keep_to_their_own(bench: Bench) -> None:
    states = [state_of(f"p-{n}") for n in range(3)]
    priorities: tuple[Priority, ...] = ("low", "high", "critical")
    await asyncio.gather(
        *(
            bench.journal.write(
                claim(bench.epoch, state, task(f"t{n}"), RaisePriority(priority, 60.0))
            )
            for n, (state, priority) in enumerate(zip(states, priorities, strict=True))
        )
    )
    found = [(await task_row(bench, f"t{n}"))["priority"] for n in range(3)]
    assert found == ["normal", "high", "critical"]


# Lead status


async def test_setting_a_lead_answers_with_its_previous_status(
    bench: Bench, state: SagaState
) -> None:
    await set_lead(bench, "new")
    assert await write(bench, state, SetLeadStatus("seen")) == {
        "previous_status": "new",
        "status": "seen",
    }
    assert (await bench.load()).steps[1, "forward"].output == {
        "previous_status": "new",
        "status": "seen",
    }


async def test_what_the_step_answers_itself_is_kept_beside_it(bench: Bench) -> None:
    await set_lead(bench, "new")
    done = row(0, output={"own": 1})
    write = claim(bench.epoch, state_of(lead_id="lead-1"))
    write.steps, write.operations = [done], [(done, (SetLeadStatus("seen"),))]
    await bench.journal.write(write)
    assert (await bench.load()).steps[0, "forward"].output == {
        "own": 1,
        "previous_status": "new",
        "status": "seen",
    }


async def test_two_steps_of_a_saga_that_change_its_lead_take_their_turns(
    bench: Bench, state: SagaState
) -> None:
    """Written at once, and undone at once in reverse: each against what the one before made."""
    await set_lead(bench, "new")
    wanted = [f"status {number}" for number in range(5)]
    steps = [row(number) for number in range(2)]
    changes = update(bench.epoch, state)
    changes.steps = steps
    changes.operations = [
        (steps[0], tuple(SetLeadStatus(status) for status in wanted[:4])),
        (steps[1], (SetLeadStatus(wanted[4]),)),
    ]
    written = await bench.journal.write(changes)
    assert await bench.pool.fetchval("select status from leads") == "status 4"
    assert written.outputs[1] == {"previous_status": "status 3", "status": "status 4"}
    undoes = update(bench.epoch, state)
    undoes.operations = [
        (undoes.steps[0], (RestoreLeadStatus(after, before),))
        for before, after in reversed(list(pairwise(["new", *wanted])))
    ]
    await bench.journal.write(undoes)
    assert await bench.pool.fetchval("select status from leads") == "new"


async def test_a_lead_without_a_status_gets_one(bench: Bench, state: SagaState) -> None:
    await set_lead(bench, None)
    assert (await write(bench, state, SetLeadStatus("seen")))["previous_status"] is None
    assert await bench.pool.fetchval("select status from leads") == "seen"


async def test_a_lead_that_is_not_there_gives_no_answer(bench: Bench, state: SagaState) -> None:
    await bench.pool.execute(
        "insert into leads values ('lead-1', 'business-2', 't', 'new'), "
        "('lead-2', 'business-1', 't', 'new')"
    )
    assert await write(bench, state, SetLeadStatus("seen")) == {}
    assert (await bench.load()).steps[1, "forward"].output is None
    rows = await bench.pool.fetch("select distinct status from leads")
    assert [row["status"] for row in rows] == ["new"]


async def test_leads_of_several_sagas_in_a_batch_get_their_own_answers(bench: Bench) -> None:
    for number in range(3):
        await bench.pool.execute(
            "insert into leads values ($1, 'business-1', 'tenant-1', $2)",
            f"lead of p-{number}",
            f"old {number}",
        )
    results = await asyncio.gather(
        *(
            bench.journal.write(claim(bench.epoch, state_of(f"p-{n}"), SetLeadStatus(f"new {n}")))
            for n in range(3)
        )
    )
    assert [written.outputs[0] for written in results] == [
        {"previous_status": f"old {n}", "status": f"new {n}"} for n in range(3)
    ]


@pytest.mark.parametrize(("now", "after"), [("seen", "new"), ("won", "won"), (None, None)])
async def test_a_status_is_restored_only_where_it_is_still_ours(
    bench: Bench, state: SagaState, now: str | None, after: str | None
) -> None:
    await set_lead(bench, now)
    await bench.pool.execute("insert into leads values ('lead-1', 'business-2', 't', 'seen')")
    await write(bench, state, RestoreLeadStatus("seen", "new"))
    rows = await bench.pool.fetch("select business_id, status from leads")
    assert {row["business_id"]: row["status"] for row in rows} == {
        "business-1": after,
        "business-2": "seen",
    }
