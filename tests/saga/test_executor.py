"""Sagas that go forward: what is committed together, in which order, and what an action costs."""

from __future__ import annotations

import json

import orjson
import pytest

from streamapp.saga.ids import idempotency_key
from streamapp.saga.model import Fenced, Step
from streamapp.saga.passage import AlreadyClaimed
from streamapp.services.errors import Rejected
from tests.support.bench import Bench, PointsJournal
from tests.support.sagas import (
    OUTBOUND,
    Call,
    MailSteps,
    OwnSteps,
    ServiceSteps,
    external,
    mail,
    own,
    registry_of,
    saga,
    task_id,
)

# What a run costs


@pytest.mark.parametrize(
    ("steps", "commits"),
    [
        ([own("a")], 1),
        ([own("a"), own("b", reply=True), own("c")], 1),
        ([external("a")], 2),
        ([external("a"), own("b")], 2),
        ([own("a"), external("b"), own("c"), own("d")], 2),
        ([external("a"), external("b")], 3),
        ([own("a"), external("b"), own("c"), mail("d"), external("e"), own("f")], 4),
    ],
    ids=lambda value: "-".join(step.executor for step in value) if isinstance(value, list) else "",
)
async def test_n_external_steps_cost_n_plus_one_commits(
    bench: Bench, steps: list[Step], commits: int
) -> None:
    journal = PointsJournal(bench.journal)
    state = saga(*steps)
    await bench.deliver(state, bench.executor(journal=journal))
    assert state.status == "COMPLETED"
    assert len(journal.writes) == commits
    assert set((await bench.steps()).values()) == {"DONE"}


async def test_a_plan_without_steps_is_completed(bench: Bench) -> None:
    assert (await bench.deliver(saga())).status == "COMPLETED"
    assert await bench.processed() == "success"


# What is committed together


async def test_started_is_durable_before_its_call_begins(bench: Bench) -> None:
    seen = []

    async def before(call: Call) -> None:
        row = await bench.step(call.ordinal)
        seen.append((row["status"], row["key"], row["request"], row["attempts"]))
        assert row["first_attempt_at"] is not None

    bench.service.before = before
    await bench.deliver(saga(own("a"), external("b"), external("c")))
    assert seen == [("STARTED", c.key, c.request, 1) for c in bench.service.calls]
    assert len(seen) == 2


async def test_own_steps_share_the_commit_of_the_external_one_after_them(bench: Bench) -> None:
    seen: list[tuple[str, dict[str, str], dict[tuple[str, str], str]]] = []

    async def before(call: Call) -> None:
        seen.append((call.action, await bench.tasks(), await bench.steps()))

    bench.service.before = before
    await bench.deliver(saga(own("a"), external("b"), own("c"), external("d"), own("e")))
    a, c, e = (task_id("p-1", name) for name in "ace")
    assert seen[0] == (
        "b",
        {a: "pending"},
        {("a", "forward"): "DONE", ("b", "forward"): "STARTED"},
    )
    assert seen[1][1] == {a: "pending", c: "pending"}
    assert seen[1][2]["b", "forward"] == seen[1][2]["c", "forward"] == "DONE"
    assert set(await bench.tasks()) == {a, c, e}


async def test_the_end_comes_with_its_reply_and_its_processed_message(bench: Bench) -> None:
    async def before(call: Call) -> None:
        assert (await bench.saga())["status"] == "RUNNING"
        assert await bench.processed() is None
        assert await bench.pool.fetchval("select count(*) from outbox") == 0

    bench.service.before = before
    await bench.deliver(saga(external("a"), own("b", reply=True)))
    row = await bench.saga()
    assert (row["status"], row["reason"], row["error"]) == ("COMPLETED", None, None)
    assert row["finished_at"] is not None
    assert await bench.processed() == "success"
    (reply,) = await bench.pool.fetch("select * from outbox")
    assert (reply["record_id"], reply["topic"], reply["key"]) == ("reply-p-1", OUTBOUND, b"lead-1")
    value = orjson.loads(reply["value"])
    assert value.pop("created_at").endswith("+00:00")
    assert value == {
        "message_id": "reply-p-1",
        "lead_id": "lead-1",
        "business_id": "business-1",
        "tenant_id": "tenant-1",
        "to": None,
        "text": "text",
        "in_reply_to": "p-1",
    }
    xmins = await bench.pool.fetch(
        "select xmin::text from sagas union select xmin::text from outbox "
        "union select xmin::text from processed_messages union select xmin::text from tasks "
        "union select xmin::text from saga_steps"
    )
    assert len(xmins) == 1


async def test_later_steps_know_the_outputs_of_those_before(bench: Bench) -> None:
    steps = OwnSteps()
    bench.service.plan("b", {"answer": 42})
    registry = registry_of(steps, ServiceSteps(bench.service), MailSteps(bench.service))
    await bench.deliver(
        saga(own("a"), external("b"), external("c"), own("d")), bench.executor(registry=registry)
    )
    assert steps.seen_outputs == {"a": {}, "d": {1: {"answer": 42}, 2: {"made": "c"}}}
    assert json.loads((await bench.step(1))["output"]) == {"answer": 42}


async def test_a_key_is_the_steps_own(bench: Bench) -> None:
    await bench.deliver(saga(external("a"), external("b")))
    await bench.deliver(saga(external("a"), processing_id="p-2"))
    await bench.deliver(saga(external("a"), processing_id="p-3", run=1))
    keys = [call.key for call in bench.service.calls]
    assert keys == [
        idempotency_key("p-1", 0, "a", "", "forward"),
        idempotency_key("p-1", 0, "b", "", "forward"),
        idempotency_key("p-2", 0, "a", "", "forward"),
        idempotency_key("p-3", 1, "a", "", "forward"),
    ]
    assert len(set(keys)) == 4


# What is told, once it is durable


async def test_the_observer_hears_what_happened(bench: Bench) -> None:
    await bench.pool.execute("insert into leads values ('lead-1', 'business-1', 'tenant-1', 'new')")
    bench.service.plan("c", Rejected("no such address"))
    await bench.deliver(saga(own("a", lead_status="seen"), external("b"), mail("c"), own("d")))
    await bench.deliver(saga(own("a", lead_status="won", reply=True), processing_id="p-2"))
    assert bench.observer.of("step") == [
        ("a", "done"),
        ("b", "done"),
        ("c", "failed"),
        ("d", "done"),
        ("a", "done"),
    ]
    assert bench.observer.of("lead") == [("new", "seen"), ("seen", "won")]
    assert bench.observer.of("letter") == [("action_failed",)]
    assert bench.observer.of("saga") == [("COMPLETED", None)] * 2
    assert bench.observer.of("responded") == [()]


async def test_a_lead_that_nobody_knows_changes_nothing(bench: Bench) -> None:
    await bench.deliver(saga(own("a", lead_status="seen")))
    assert bench.observer.of("lead") == []
    assert bench.observer.of("saga") == [("COMPLETED", None)]


async def test_nothing_is_told_of_what_was_refused(bench: Bench) -> None:
    old = bench.epoch
    await bench.take_over()
    with pytest.raises(Fenced):
        await bench.executor().run(saga(own("a", reply=True)), old, bench.place, claim=True)
    assert bench.observer.events == []


# Best effort


@pytest.mark.parametrize("failing", [mail("b"), external("b", required=False)])
async def test_a_best_effort_step_that_fails_leaves_a_letter_of_its_own(
    bench: Bench, failing: Step
) -> None:
    bench.service.plan("b", Rejected("no such address"))
    letters_in_calls = []

    async def before(call: Call) -> None:
        if call.action == "d":
            letters_in_calls.append(await bench.letters())

    bench.service.before = before
    state = saga(own("a"), failing, own("c"), external("d"))
    await bench.deliver(state)
    assert state.status == "COMPLETED"
    assert await bench.processed() == "success"
    (letter,) = await bench.letters()
    assert (letter.reason, letter.action, letter.processing_id) == ("action_failed", "b", "p-1")
    assert letter.message == "no such address"
    assert (letter.run, letter.attempts, letter.origin) == (0, 1, state.source)
    # In the commit of its FAILED, so also before the next step.
    assert letters_in_calls == [[letter]]
    record = await bench.pool.fetchrow("select * from outbox")
    assert record is not None
    assert (record["key"], record["value"]) == (state.key, state.value)
    assert bench.service.names() == ["b", "d"]


async def test_a_best_effort_step_with_a_defect_fails_alone(bench: Bench) -> None:
    state = saga(own("a", required=False, raises=True), external("b"))
    await bench.deliver(state)
    assert state.status == "COMPLETED"
    assert (await bench.step(0))["status"] == "FAILED"
    (letter,) = await bench.letters()
    assert (letter.reason, letter.action) == ("action_failed", "a")
    assert "a defect of the executor" in letter.message


async def test_two_failed_actions_have_a_letter_each(bench: Bench) -> None:
    bench.service.plan("a", Rejected("no"))
    bench.service.plan("b", Rejected("no"))
    await bench.deliver(saga(mail("a"), mail("b")))
    letters = await bench.letters()
    assert [letter.action for letter in letters] == ["a", "b"]
    assert len({letter.id for letter in letters}) == 2


# Its saga is there already


async def test_a_finished_saga_is_not_run_again(bench: Bench) -> None:
    state = saga(own("a"), external("b"))
    await bench.deliver(state)
    with pytest.raises(AlreadyClaimed) as caught:
        await bench.executor().run(
            saga(own("a"), external("b")), bench.epoch, bench.place, claim=True
        )
    assert caught.value.existing.status == "COMPLETED"
    assert bench.service.names() == ["b"]


async def test_the_stored_plan_is_executed_whatever_would_be_planned_now(bench: Bench) -> None:
    """Nothing is called before the claim: the second plan leaves no trace."""
    fenced = await bench.take_over()

    async def lose_the_partition(call: Call) -> None:
        await bench.take_over()

    bench.service.before = lose_the_partition
    stored = saga(own("a"), external("b", old=True), own("c"))
    with pytest.raises(Fenced):
        await bench.executor().run(stored, fenced, bench.place, claim=True)
    bench.service.before = None
    state = await bench.deliver(saga(external("x"), own("y")))
    assert state.status == "COMPLETED"
    assert state.plan == stored.plan
    assert bench.service.names() == ["b", "b"]
    assert set(await bench.tasks()) == {task_id("p-1", "a"), task_id("p-1", "c")}


# The fence


async def test_nothing_is_called_by_who_does_not_own_the_partition(bench: Bench) -> None:
    old = bench.epoch
    await bench.take_over()
    with pytest.raises(Fenced):
        await bench.executor().run(saga(external("a")), old, bench.place, claim=True)
    assert bench.service.calls == []
    assert await bench.journal.load("p-1") is None


async def test_nothing_goes_on_once_the_partition_is_lost(bench: Bench) -> None:
    async def lose(call: Call) -> None:
        await bench.take_over()

    bench.service.after = lose
    old = bench.epoch
    with pytest.raises(Fenced):
        await bench.executor().run(saga(external("a"), external("b")), old, bench.place, claim=True)
    assert bench.service.names() == ["a"]
    assert (await bench.step(0))["status"] == "STARTED"
