"""A failed best-effort action is repeated alone: under its keys, once for each redrive."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from streamapp.actions.base import Phase, PlanningContext, StepDraft
from streamapp.pipeline.outcomes import Outcome, Record
from streamapp.pipeline.redrive import Redrive, redrive_headers
from streamapp.saga.model import Source
from streamapp.services.errors import Rejected
from streamapp.storage.operations import Refused
from tests.pipeline.pipelines import OneStep, Plant, record
from tests.pipeline.redriving import Desk, cut, keys
from tests.support.bench import Bench
from tests.support.sagas import TOPIC, LostAnswer, OwnSteps, Unreachable, registry_of, task_id


class Announce:
    """Two mails and a task, all best-effort."""

    def expand(
        self, action: str, params: Mapping[str, Any], context: PlanningContext
    ) -> Sequence[StepDraft]:
        return (
            StepDraft("mail", "first", {}, required=False),
            StepDraft("own", "task", dict(self.params), required=False),
            StepDraft("mail", "second", {}, required=False),
        )

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}


@pytest.fixture
def announce() -> Announce:
    return Announce()


@pytest.fixture
def plant(bench: Bench, announce: Announce) -> Plant:
    plant = Plant(bench, suggested_actions=True)
    plant.registry.register_action("announce", announce, Phase.NOTIFICATION)
    return plant


@pytest.fixture
def desk(plant: Plant) -> Desk:
    return Desk(plant)


async def half_done(
    plant: Plant,
    desk: Desk,
    *outcomes: BaseException | dict[str, Any],
    action: str = "tell",
    name: str = "p-1",
    offset: int = 0,
) -> None:
    """A COMPLETED saga of which ``action`` failed; its letter is in the table."""
    plant.bench.service.plan(action, *(outcomes or (Rejected("no"),)))
    given = record(offset, processing_id=name, suggested_actions=[action])
    assert (await plant.process(given)).outcome is Outcome.PROCESSED
    await desk.post()


async def test_it_fails_twice_more_and_then_succeeds(plant: Plant, desk: Desk) -> None:
    await half_done(plant, desk, *(Unreachable() for _ in range(4)))
    row = await desk.row("tell")
    assert (row["status"], row["reason"], row["attempt_count"]) == ("failed", "action_failed", 4)
    for times in (1, 2):
        plant.bench.service.plan("tell", LostAnswer(), Rejected(f"no, number {times}"))
        assert await desk.retry() is Outcome.DEAD_LETTERED
        row = await desk.row("tell")
        assert (row["status"], row["error_message"]) == ("failed", f"no, number {times}")
        assert row["attempt_count"] == 4 + 2 * times
        assert len(row["letter_ids"]) == 1 + times
        assert await plant.bench.processed() == "success"
    newest = (await plant.bench.letters())[-1]
    assert newest.redrive == row["letter_ids"][-2]
    assert await desk.retry() is Outcome.PROCESSED
    row = await desk.row("tell")
    assert row["status"] == "resolved"
    assert row["settled_at"] is not None
    state = await plant.bench.load()
    assert (state.run, state.status) == (0, "COMPLETED")
    told = keys(plant.bench.service.calls, "tell")
    assert len(told) == 4 + 2 + 2 + 1
    assert len(set(told)) == 1, "in doubt or not, always under the same key"
    assert len({call.request for call in plant.bench.service.calls if call.action == "tell"}) == 1
    assert len(keys(plant.bench.service.calls, "order")) == 1, "nothing else is done again"
    assert await plant.bench.processed() == "success"
    with pytest.raises(Refused, match="resolved already"):
        await desk.send()


async def test_success_and_the_end_of_its_letter_are_one_commit(plant: Plant, desk: Desk) -> None:
    await half_done(plant, desk)
    assert await desk.retry() is Outcome.PROCESSED
    (row,) = await plant.bench.pool.fetch(
        "select d.status, d.xmin = t.xmin as together from dead_letter_queue d "
        "join saga_steps t on t.processing_id = d.message_id and t.action = d.action"
    )
    assert dict(row) == {"status": "resolved", "together": True}


async def test_sent_twice_at_once_it_is_repeated_once(plant: Plant, desk: Desk) -> None:
    await half_done(plant, desk)
    first, second = await asyncio.gather(desk.send(), desk.send())
    plant.bench.service.plan("tell", Rejected("still no"))
    assert (await plant.process(first)).outcome is Outcome.DEAD_LETTERED
    assert (await plant.process(second)).outcome is Outcome.DUPLICATE
    assert len(keys(plant.bench.service.calls, "tell")) == 2
    assert await desk.post() == [True]
    await desk.retry()
    assert (await plant.process(second)).outcome is Outcome.DUPLICATE
    assert len(keys(plant.bench.service.calls, "tell")) == 3
    assert (await desk.row("tell"))["status"] == "resolved"


async def test_its_sub_steps_that_failed_and_no_others(plant: Plant, desk: Desk) -> None:
    await half_done(plant, desk, {"sent": 1}, Rejected("no"), action="announce")
    assert await desk.retry() is Outcome.PROCESSED
    first, second, again = (call for call in plant.bench.service.calls if call.action == "announce")
    assert first.key != second.key == again.key
    assert (await desk.row("announce"))["status"] == "resolved"


async def test_it_is_resolved_only_when_all_of_it_is_done(plant: Plant, desk: Desk) -> None:
    await half_done(plant, desk, Rejected("no"), Rejected("no"), action="announce")
    assert len((await desk.row("announce"))["letter_ids"]) == 1, "one letter for the action"
    plant.bench.service.plan("announce", {"sent": 1}, Rejected("still no"))
    assert await desk.retry() is Outcome.DEAD_LETTERED
    row = await desk.row("announce")
    assert (row["status"], len(row["letter_ids"])) == ("failed", 2)
    assert await desk.retry() is Outcome.PROCESSED
    assert (await desk.row("announce"))["status"] == "resolved"
    assert len(keys(plant.bench.service.calls, "announce")) == 5


async def test_a_step_of_our_own_database(plant: Plant, desk: Desk, announce: Announce) -> None:
    """What the database refuses it refuses again, and the mails are not sent again for it."""
    announce.params["refused"] = True
    given = record(suggested_actions=["announce"])
    assert (await plant.process(given)).outcome is Outcome.PROCESSED
    await desk.post()
    sent = len(keys(plant.bench.service.calls, "announce"))
    assert await desk.retry() is Outcome.DEAD_LETTERED
    row = await desk.row("announce")
    assert (row["status"], len(row["letter_ids"])) == ("failed", 2)
    assert (await plant.bench.load()).status == "COMPLETED"
    await plant.bench.pool.execute(
        "update sagas set plan = replace(plan::text, '\"refused\": true', '\"x\": 1')::jsonb"
    )
    assert await desk.retry() is Outcome.PROCESSED
    assert (await desk.row("announce"))["status"] == "resolved"
    assert task_id("p-1", "announce") in await plant.bench.tasks()
    assert len(keys(plant.bench.service.calls, "announce")) == sent


async def test_an_action_without_its_code_fails_again(plant: Plant, desk: Desk) -> None:
    await half_done(plant, desk)
    sent = await desk.send()
    known = plant.pipeline
    plant.pipeline = plant.build(plant.bench.executor(registry=registry_of(OwnSteps())))
    assert (await plant.process(sent)).outcome is Outcome.DEAD_LETTERED
    await desk.post()
    row = await desk.row("tell")
    assert (row["status"], row["error_message"]) == ("failed", "no code here runs mail version 1")
    assert (await plant.bench.load()).status == "COMPLETED", "a saga that is done is not parked"
    plant.pipeline = known
    assert await desk.retry() is Outcome.PROCESSED


async def test_an_action_of_a_plan_in_another_form_fails_again(plant: Plant, desk: Desk) -> None:
    await half_done(plant, desk)
    version = "update sagas set plan = jsonb_set(plan, '{version}', $1::text::jsonb)"
    await plant.bench.pool.execute(version, "99")
    assert await desk.retry() is Outcome.DEAD_LETTERED
    row = await desk.row("tell")
    assert row["status"] == "failed"
    assert "another version" in row["error_message"]
    await plant.bench.pool.execute(version, "1")
    assert await desk.retry() is Outcome.PROCESSED


def asking(redrive: Redrive) -> Record:
    headers = redrive_headers((), Source(TOPIC, 0, 0, 1_700_000_000_000), redrive)
    return replace(record(50), headers=headers)


@pytest.mark.parametrize(
    "redrive",
    [
        Redrive("id", 0, "order"),  # done, and required
        Redrive("id", 0, "nothing of the plan"),
        Redrive("id", 1, "tell"),  # of another run
    ],
)
async def test_what_did_not_fail_is_not_repeated(
    plant: Plant, desk: Desk, redrive: Redrive
) -> None:
    await half_done(plant, desk)
    before = len(plant.bench.service.calls)
    assert (await plant.process(asking(redrive))).outcome is Outcome.DUPLICATE
    assert len(plant.bench.service.calls) == before


async def test_an_action_of_a_saga_that_was_undone_is_not_repeated(
    plant: Plant, desk: Desk
) -> None:
    plant.handler.actions = ("note",)
    await half_done(plant, desk)
    await plant.bench.pool.execute("update sagas set status = 'COMPENSATED'")
    with pytest.raises(Refused, match="whole message"):
        await desk.send()
    assert (await plant.process(asking(Redrive("id", 0, "tell")))).outcome is Outcome.DUPLICATE
    assert len(keys(plant.bench.service.calls, "tell")) == 1


async def test_an_action_cannot_be_edited(plant: Plant, desk: Desk) -> None:
    await half_done(plant, desk)
    with pytest.raises(Refused, match="cannot be edited"):
        await desk.send("p-1", record().value)


async def test_after_retention_an_action_is_not_repeated(plant: Plant, desk: Desk) -> None:
    await half_done(plant, desk)
    sent = await desk.send()
    await plant.bench.pool.execute("delete from sagas")
    with pytest.raises(Refused, match="gone by retention"):
        await desk.send()
    assert (await plant.process(sent)).outcome is Outcome.DEAD_LETTERED
    await desk.post()
    row = await desk.row("tell")
    assert (row["status"], len(row["letter_ids"])) == ("failed", 2)
    assert len(keys(plant.bench.service.calls, "tell")) == 1


async def test_the_next_run_of_the_message_settles_its_actions(plant: Plant, desk: Desk) -> None:
    """Of a run that was undone, an action's letter is answered by the run that completes."""
    plant.registry.register_action("late", OneStep("service"), Phase.REPLY)
    plant.handler.actions = ("note",)
    given = record(suggested_actions=["tell", "announce", "late"])
    plant.bench.service.plan("tell", Rejected("no"))
    plant.bench.service.plan("announce", Rejected("no"), Rejected("no"))
    plant.bench.service.plan("late", Rejected("no"))
    assert (await plant.process(given)).outcome is Outcome.DEAD_LETTERED
    await desk.post()
    assert await desk.statuses() == {"": "failed", "tell": "failed", "announce": "failed"}
    plant.bench.service.plan("announce", Rejected("no"), Rejected("no"))
    assert await desk.retry() is Outcome.PROCESSED
    assert await desk.statuses() == {"": "resolved", "tell": "resolved", "announce": "failed"}
    row = await desk.row("announce")
    assert (row["run"], len(row["letter_ids"])) == (1, 2)
    assert await desk.retry() is Outcome.PROCESSED
    assert set((await desk.statuses()).values()) == {"resolved"}


@pytest.mark.parametrize("fails", [False, True])
async def test_a_redriven_action_cut_anywhere_comes_to_the_same_end(
    plant: Plant, desk: Desk, fails: bool
) -> None:
    async def prepare(name: str, offset: int) -> Record:
        plant.bench.service.script.clear()
        await half_done(
            plant,
            desk,
            Rejected("no"),
            LostAnswer(),
            Rejected("no"),
            action="announce",
            name=name,
            offset=offset,
        )
        if fails:
            plant.bench.service.plan("announce", *(Rejected("no") for _ in range(9)))
        return await desk.send(name)

    uncut = (await cut(plant, await prepare("uncut", 1), 0)).reached
    assert uncut >= 8
    for at in range(1, uncut + 1):
        name = f"cut at {at}"
        sent = await prepare(name, 10 + at)
        await cut(plant, sent, at)
        await plant.process(sent)
        await desk.post()
        state = await plant.bench.load(name)
        assert (state.run, state.status) == (0, "COMPLETED")
        calls = [c for c in plant.bench.service.calls if c.processing_id == name]
        assert len(keys(calls, "order")) == 1
        assert len(set(keys(calls, "announce"))) == 2
        assert len({call.request for call in calls if call.action == "announce"}) == 1
        (row,) = [row for row in await desk.rows() if row["message_id"] == name]
        assert row["status"] == ("failed" if fails else "resolved")
        assert len(row["letter_ids"]) == (2 if fails else 1)
        assert await plant.bench.processed(name) == "success"
        assert (await plant.process(sent)).outcome is Outcome.DUPLICATE
