"""The agent of the dead-letter topic: stores in order, commits what is stored, holds the rest."""

from __future__ import annotations

import asyncio

import pytest

from streamapp.pipeline.dead_letter import dead_letter, dead_letter_headers
from streamapp.pipeline.outcomes import Reason
from streamapp.saga.model import Source
from streamapp.storage import health
from streamapp.storage.health import DatabaseHealth
from streamapp.worker.continuity import Continuity
from streamapp.worker.dead_letter_agent import DeadLetterIntake
from tests.worker.fakes import DEADLINE, FakeLog, FakeMembership, event, eventually, settled
from tests.worker.publishing import FakeStore

TOPIC = "ai-results-dlq"


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "FIRST_BACKOFF", 0.0)
    monkeypatch.setattr(health, "MAX_BACKOFF", 0.0)


class Bench:
    def __init__(self) -> None:
        self.store, self.health, self.membership = FakeStore(), DatabaseHealth(), FakeMembership()
        self.log, self.skips = FakeLog(), list[str]()
        self.intake = DeadLetterIntake(
            self.store,  # type: ignore[arg-type]
            self.health,
            self.membership,  # type: ignore[arg-type]
            Continuity(self.membership, self.log.first_at, self.skips.append),
        )

    async def accept(self, offset: int, partition: int = 0, generation: int = 1) -> None:
        message = event(offset, topic=TOPIC, partition=partition, generation_id=generation)
        await asyncio.wait_for(self.intake.accept(message), DEADLINE)

    async def committed(self) -> dict[tuple[str, int], int]:
        """What a commit right now asks for."""
        self.membership.commits.clear()
        await self.intake.commit()
        return self.membership.commits[-1][1] if self.membership.commits else {}

    @property
    def offsets(self) -> list[int]:
        return [record.offset for record, _ in self.store.stored]


async def test_a_letter_is_stored_with_what_its_headers_say() -> None:
    bench = Bench()
    made = dead_letter(
        Source("ai-results", 0, 5, 1), reason=Reason.UNKNOWN_TENANT, group="g", message="no tenant"
    )
    headers = dead_letter_headers((("own", b"1"),), made)
    await bench.intake.accept(event(4, topic=TOPIC, value=b"\xff", headers=list(headers)))
    ((record, letter),) = bench.store.stored
    assert letter == made
    assert (record.topic, record.offset, record.value) == (TOPIC, 4, b"\xff")
    assert record.headers == headers


async def test_somebody_elses_record_is_stored_without_a_letter() -> None:
    bench = Bench()
    await bench.accept(0)
    assert [letter for _, letter in bench.store.stored] == [None]


async def test_what_is_stored_is_committed_once() -> None:
    bench = Bench()
    assert await bench.committed() == {}
    await bench.accept(0)
    await bench.accept(1)
    await bench.accept(7, partition=2)
    assert await bench.committed() == {(TOPIC, 0): 2, (TOPIC, 2): 8}
    assert await bench.committed() == {}


async def test_a_refused_commit_is_asked_for_again() -> None:
    bench = Bench()
    await bench.accept(0)
    bench.membership.accepts = False
    assert await bench.committed() == {(TOPIC, 0): 1}
    bench.membership.accepts = True
    assert await bench.committed() == {(TOPIC, 0): 1}
    assert await bench.committed() == {}


async def test_what_is_stored_during_a_commit_is_committed_next() -> None:
    bench = Bench()
    await bench.accept(0)
    bench.membership.answers.clear()
    committing = asyncio.create_task(bench.intake.commit())
    await settled()
    await bench.accept(1)
    bench.membership.answers.set()
    await committing
    assert bench.membership.commits == [(1, {(TOPIC, 0): 1})]
    assert await bench.committed() == {(TOPIC, 0): 2}


async def test_nothing_is_acknowledged_while_the_database_is_away() -> None:
    bench = Bench()
    bench.store.away = ConnectionRefusedError()
    accepting = asyncio.create_task(bench.accept(3))
    await eventually(lambda: bench.store.tried > 3)
    assert not accepting.done()
    assert await bench.committed() == {}
    bench.store.away = None
    await asyncio.wait_for(accepting, DEADLINE)
    assert bench.offsets == [3]
    assert await bench.committed() == {(TOPIC, 0): 4}


@pytest.mark.parametrize("closed", [True, False])
async def test_a_letter_that_outlived_its_generation_is_not_acknowledged(closed: bool) -> None:
    bench = Bench()
    bench.store.away = ConnectionRefusedError()
    accepting = asyncio.create_task(bench.accept(3))
    await eventually(lambda: bench.store.tried > 0)
    if closed:
        await bench.intake.give_up()
    else:
        bench.membership.generation = 2
    bench.store.away = None
    await asyncio.wait_for(accepting, DEADLINE)
    assert await bench.committed() == {}
    bench.membership.generation = 2
    await bench.accept(3, generation=1)
    assert await bench.committed() == {}


async def test_giving_up_commits_what_is_stored_and_closes_the_generation() -> None:
    bench = Bench()
    await bench.accept(0)
    await bench.intake.give_up()
    assert bench.membership.commits == [(1, {(TOPIC, 0): 1})]
    await bench.accept(1)
    assert bench.offsets == [0], "it is the next owner's"
    assert await bench.committed() == {}


async def test_what_could_not_be_committed_when_given_up_is_the_next_owners() -> None:
    bench = Bench()
    await bench.accept(0)
    bench.membership.accepts = False
    await bench.intake.give_up()
    assert await bench.committed() == {}


async def test_a_new_generation_forgets_what_was_not_committed() -> None:
    bench = Bench()
    await bench.accept(0)
    await bench.accept(5, partition=1)
    bench.membership.generation = 2
    await bench.accept(5, partition=1, generation=2)
    await bench.intake.commit()
    assert bench.membership.commits == [(2, {(TOPIC, 1): 6})]


async def test_a_group_that_starts_anew_may_come_to_a_closed_number() -> None:
    bench = Bench()
    await bench.intake.give_up()
    bench.intake.assigned()
    await bench.accept(0)
    assert bench.offsets == [0]


async def test_commits_regularly_while_the_generation_is_open() -> None:
    bench = Bench()
    committing = asyncio.create_task(bench.intake.commit_regularly(0.0))
    await bench.accept(0)
    await eventually(lambda: bench.membership.commits)
    await bench.accept(1)
    await eventually(lambda: len(bench.membership.commits) == 2)
    bench.membership.accepts = False
    await bench.accept(2)
    await bench.intake.give_up()
    bench.membership.commits.clear()
    bench.intake._stored = {(TOPIC, 0): 3}
    await settled()
    assert bench.membership.commits == [], "it would meet the group in the middle of joining"
    committing.cancel()


async def test_letters_that_were_passed_over_come_before_those_behind_them() -> None:
    bench = Bench()
    bench.log.there[TOPIC, 0] = list(range(5))
    for offset in (0, 3, 4, 1, 2, 3):
        await bench.accept(offset)
    assert bench.offsets == [0, 1, 2, 3]
    assert bench.membership.seeks == [(TOPIC, 0, 1)]
    assert await bench.committed() == {(TOPIC, 0): 4}


async def test_a_letter_that_met_a_defect_is_not_taken_for_a_repetition() -> None:
    bench = Bench()
    bench.store.away = KeyError("a defect")
    with pytest.raises(KeyError):
        await bench.accept(0)
    bench.store.away = None
    await bench.accept(0)
    assert bench.offsets == [0]
