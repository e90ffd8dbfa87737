"""What is staged is not what is durable; a refused write leaves nothing behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamapp.saga.journal import Written
from streamapp.saga.model import (
    Fenced,
    OutboxRecord,
    SagaState,
    SagaStatus,
    SagaWrite,
    StepRow,
    StepStatus,
)
from streamapp.saga.operations import SetLeadStatus
from streamapp.saga.parking import sleep
from streamapp.saga.passage import AlreadyClaimed, Passage, may_have_effect
from streamapp.testing.standins import Place
from tests.support.sagas import external, own, saga


class Journal:
    """Answers as told, in order; keeps what was written."""

    def __init__(self, *answers: Written | Exception) -> None:
        self.answers = list(answers)
        self.writes: list[SagaWrite] = []

    async def write(self, write: SagaWrite) -> Written:
        self.writes.append(write)
        answer = self.answers.pop(0) if self.answers else Written(at=5.0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def load(self, processing_id: str) -> SagaState | None:
        raise NotImplementedError


@pytest.fixture
def state() -> SagaState:
    return saga(own("a"), external("b"))


def done(ordinal: int = 0, **columns: Any) -> StepRow:
    return StepRow(ordinal, "forward", StepStatus.DONE, **columns)


async def test_a_row_is_seen_when_staged_and_known_when_durable(
    state: SagaState,
) -> None:
    passage = Passage(Journal(), state, 7, claim=True)
    step = state.plan.steps[0]
    assert passage.row(step) is None
    row = done(output={"x": 1})
    passage.stage(row)
    assert passage.row(step) is row
    assert passage.row(step, "compensate") is None
    assert state.steps == {}
    context = passage.context(state.plan.steps[1])
    assert (context.outputs, context.results) == ({0: {"x": 1}}, {"a": {"x": 1}})
    assert await passage.flush() == 5.0
    assert state.steps == {(0, "forward"): row}
    assert passage.context(state.plan.steps[1]).outputs == {0: {"x": 1}}


async def test_the_row_staged_last_counts(state: SagaState) -> None:
    passage = Passage(Journal(), state, 7, claim=True)
    passage.stage(StepRow(0, "forward", StepStatus.STARTED))
    await passage.flush()
    passage.stage(StepRow(0, "forward", StepStatus.WAITING))
    passage.stage(last := done())
    assert passage.row(state.plan.steps[0]) is last
    await passage.flush()
    assert state.steps[0, "forward"] is last


async def test_only_outputs_of_done_forward_steps_are_shown(state: SagaState) -> None:
    state.steps = {
        (0, "forward"): StepRow(0, "forward", StepStatus.FAILED, output={"x": 1}),
        (1, "forward"): done(1),
        (1, "compensate"): StepRow(1, "compensate", StepStatus.DONE, output={"x": 1}),
    }
    assert Passage(Journal(), state, 7, claim=False).context(state.plan.steps[0]).outputs == {}


async def test_a_write_holds_all_that_was_staged(state: SagaState) -> None:
    journal = Journal()
    passage = Passage(journal, state, 7, claim=True)
    assert not passage.claimed
    record = OutboxRecord("id", "topic", None, None, ())
    passage.stage(row := done(), [SetLeadStatus("seen")])
    passage.stage_record(record)
    passage.stage_status(SagaStatus.STUCK, processing="failed", resume_in=3.0)
    await passage.flush()
    (write,) = journal.writes
    assert (write.state, write.epoch, write.claim) == (state, 7, True)
    assert write.steps == [row]
    assert write.operations == [(row, (SetLeadStatus("seen"),))]
    assert write.outbox == [record]
    assert (write.status, write.processing_status) == (SagaStatus.STUCK, "failed")
    assert write.resume_in == 3.0
    assert passage.claimed
    assert state.status is SagaStatus.STUCK


async def test_what_was_written_is_not_written_again(state: SagaState) -> None:
    journal = Journal()
    passage = Passage(journal, state, 7, claim=True)
    await passage.flush()  # an empty claim is one
    assert await passage.flush() == 0.0
    passage.stage(done())
    await passage.flush()
    first, second = journal.writes
    assert (first.claim, second.claim) == (True, False)
    assert (len(first.steps), len(second.steps)) == (0, 1)
    assert first.write_id != second.write_id


async def test_the_databases_answer_joins_the_steps_own(state: SagaState) -> None:
    answer = {"previous_status": "new", "status": "seen"}
    passage = Passage(Journal(Written(outputs={0: answer})), state, 7, claim=True)
    passage.stage(done(output={"own": 1}))
    passage.stage(done(1, output={"other": 2}))
    await passage.flush()
    assert state.steps[0, "forward"].output == {"own": 1, **answer}
    assert state.steps[1, "forward"].output == {"other": 2}


async def test_callbacks_run_once_and_only_when_it_is_durable(state: SagaState) -> None:
    passage = Passage(Journal(Fenced("lost"), Written()), state, 7, claim=True)
    heard: list[str] = []
    passage.stage(done())
    passage.after(lambda: heard.append(state.steps[0, "forward"].status))
    with pytest.raises(Fenced):
        await passage.flush()
    assert heard == []
    await passage.flush()
    passage.stage(done())
    await passage.flush()
    assert heard == ["DONE"]


async def test_a_claim_that_comes_second_shows_the_saga(state: SagaState) -> None:
    existing = saga(own("x"))
    passage = Passage(Journal(Written(existing=existing)), state, 7, claim=True)
    passage.stage(done())
    with pytest.raises(AlreadyClaimed) as caught:
        await passage.flush()
    assert caught.value.existing is existing
    assert state.steps == {}
    assert not passage.claimed


async def test_what_is_dropped_is_not_written(state: SagaState) -> None:
    journal = Journal()
    passage = Passage(journal, state, 7, claim=True)
    passage.stage(done(), [SetLeadStatus("seen")])
    passage.stage_status(SagaStatus.COMPLETED, processing="success")
    passage.after(lambda: pytest.fail("told of what was dropped"))
    passage.drop_staged()
    assert passage.row(state.plan.steps[0]) is None
    await passage.flush()
    (write,) = journal.writes
    assert (write.claim, write.steps, write.operations, write.status) == (True, [], [], None)
    assert write.processing_status is None


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (None, False),
        (StepRow(0, "forward", StepStatus.DONE), True),
        (StepRow(0, "forward", StepStatus.STARTED), True),
        (StepRow(0, "forward", StepStatus.WAITING), False),
        (StepRow(0, "forward", StepStatus.FAILED), False),
        (StepRow(0, "forward", StepStatus.WAITING, in_doubt=True), True),
        (StepRow(0, "forward", StepStatus.FAILED, in_doubt=True), True),
    ],
)
def test_what_may_have_an_effect(row: StepRow | None, expected: bool) -> None:
    assert may_have_effect(row) is expected


async def test_a_wait_is_parked_and_none_is_not() -> None:
    place = Place()
    await sleep(place, 0.0)
    await sleep(place, -5.0)
    assert place.waits == 0
    waits = asyncio.create_task(sleep(place, 3600.0))
    await asyncio.sleep(0)
    assert place.waiting
    waits.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits
    assert not place.waiting
