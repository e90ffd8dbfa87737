"""The journal: claims, later writes, the fence, and that a write is all or nothing."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from streamapp.pipeline.outcomes import Reason
from streamapp.saga.journal import Written
from streamapp.saga.model import Fenced, SagaStatus, StepStatus, WriteRefused
from streamapp.saga.operations import CancelTask
from streamapp.storage.owners import raise_epoch
from tests.storage.writes import (
    NOTHING,
    ONE,
    claim,
    counts,
    letter,
    row,
    started,
    state_of,
    task,
    transactions,
    update,
)
from tests.support.bench import Bench, running_journal
from tests.support.sagas import GROUP, TOPIC

# Claims


async def test_a_claim_and_all_its_effects_are_one_transaction(bench: Bench) -> None:
    before = time.monotonic()
    written = await bench.journal.write(claim(bench.epoch, status=SagaStatus.COMPLETED))
    assert written.existing is None
    assert before <= written.at <= time.monotonic()
    assert await counts(bench.pool) == ONE
    assert len(await transactions(bench.pool)) == 1


async def test_a_saga_comes_back_as_it_was_written(bench: Bench) -> None:
    now = datetime.now(UTC)
    state = state_of(offset=41)
    state.reason, state.error = Reason.STEP_REJECTED, "note: it was refused"
    steps = [
        row(0, attempts=1, output={"big": 2**70, "text": "ä"}, last_attempt_at=now),
        row(
            1,
            StepStatus.WAITING,
            key="k",
            attempts=2,
            in_doubt=True,
            circuit_wait=1.5,
            due_at=now + timedelta(seconds=5),
            request=b"\x00\xff",
            error="timeout",
            first_attempt_at=now,
            last_attempt_at=now,
        ),
        row(1, StepStatus.FAILED, direction="compensate", error="gone"),
    ]
    write = claim(bench.epoch, state, status=SagaStatus.COMPENSATING)
    write.steps = steps
    await bench.journal.write(write)
    loaded = await bench.load()
    assert loaded.created_at is not None
    assert loaded.steps == {(s.ordinal, s.direction): s for s in steps}
    assert replace(loaded, created_at=None, steps={}) == replace(
        state, status=SagaStatus.COMPENSATING
    )


async def test_a_saga_that_is_not_there_is_none(bench: Bench) -> None:
    assert await bench.journal.load("nobody") is None


async def test_a_second_claim_is_shown_the_saga_and_writes_nothing(bench: Bench) -> None:
    first = claim(bench.epoch, state_of(offset=1))
    await bench.journal.write(first)
    second = claim(bench.epoch, state_of(offset=2), task("another task"))
    second.outbox = [letter("another letter")]
    written = await bench.journal.write(second)
    assert written.existing is not None
    assert written.existing.source.offset == 1
    assert written.existing.status is SagaStatus.RUNNING
    assert written.existing.steps[0, "forward"].status is StepStatus.DONE
    assert await counts(bench.pool) == ONE
    assert await bench.tasks() == {"task of p-1": "pending"}


async def test_of_two_claims_at_once_one_wins(bench: Bench) -> None:
    writes = [
        claim(bench.epoch, state_of(offset=n), task(f"task {n}"), status=SagaStatus.COMPLETED)
        for n in range(2)
    ]
    results = await asyncio.gather(*(bench.journal.write(write) for write in writes))
    assert sorted(written.existing is None for written in results) == [False, True]
    winner = next(n for n in range(2) if results[n].existing is None)
    loser = results[1 - winner].existing
    assert loser is not None
    assert loser.source.offset == winner
    assert await counts(bench.pool) == ONE
    assert set(await bench.tasks()) == {f"task {winner}"}


async def test_of_claims_by_two_journals_at_once_one_wins(bench: Bench, database: str) -> None:
    async with running_journal(database) as other:
        for number in range(10):
            writes = [
                claim(
                    bench.epoch,
                    state_of(f"p-{number}", offset=n),
                    task(f"task {number} {n}"),
                    status=SagaStatus.COMPLETED,
                )
                for n in range(2)
            ]
            results = await asyncio.gather(bench.journal.write(writes[0]), other.write(writes[1]))
            assert sorted(written.existing is None for written in results) == [False, True]
    assert set((await counts(bench.pool)).values()) == {10}


async def test_a_batch_is_one_transaction(bench: Bench) -> None:
    await asyncio.gather(
        *(bench.journal.write(claim(bench.epoch, state_of(f"p-{n}"))) for n in range(20))
    )
    assert set((await counts(bench.pool)).values()) == {20}
    assert len(await transactions(bench.pool)) == 1


async def test_the_writes_of_a_burst_are_shared_out(bench: Bench, database: str) -> None:
    async with running_journal(database, journal_writers=2) as journal:
        await asyncio.gather(
            *(journal.write(claim(bench.epoch, state_of(f"p-{n}"))) for n in range(20))
        )
    assert set((await counts(bench.pool)).values()) == {20}
    assert len(await transactions(bench.pool)) == 2


async def test_a_batch_has_its_limit(database: str, bench: Bench) -> None:
    async with running_journal(database, journal_batch=5) as journal:
        await asyncio.gather(
            *(journal.write(claim(bench.epoch, state_of(f"p-{n}"))) for n in range(20))
        )
    assert set((await counts(bench.pool)).values()) == {20}
    assert len(await transactions(bench.pool)) == 4


# Later writes


async def test_of_two_writes_of_a_saga_at_once_the_later_is_measured_against_the_earlier(
    bench: Bench,
) -> None:
    """In one transaction both would find the saga RUNNING: it would turn back and go forward."""
    state = state_of()
    await bench.journal.write(claim(bench.epoch, state))
    turns = update(
        bench.epoch, state, status=SagaStatus.COMPENSATING, step=row(0, StepStatus.FAILED)
    )
    goes_on = update(bench.epoch, state, task("late"), outbox=(letter("late letter"),), step=row(1))
    turned, went_on = await asyncio.gather(
        bench.journal.write(turns), bench.journal.write(goes_on), return_exceptions=True
    )
    assert isinstance(turned, Written)
    assert isinstance(went_on, Fenced)
    assert (await bench.saga())["status"] == "COMPENSATING"
    assert await bench.tasks() == {"task of p-1": "pending"}
    assert await bench.steps() == {("note", "forward"): "FAILED"}
    assert (await counts(bench.pool))["outbox"] == 1


async def test_two_writes_of_one_step_at_once_are_made_one_after_the_other(bench: Bench) -> None:
    state = state_of()
    await bench.journal.write(claim(bench.epoch, state))
    writes = [update(bench.epoch, state, step=row(1, attempts=n)) for n in (1, 2, 3)]
    await asyncio.gather(*(bench.journal.write(write) for write in writes))
    assert (await bench.step(1))["attempts"] == 3


async def test_a_later_write_moves_the_saga_on(bench: Bench) -> None:
    state = state_of()
    await bench.journal.write(claim(bench.epoch, state))
    state.reason, state.error, state.stuck_retries = Reason.COMPENSATION_STUCK, "why", 3
    write = update(bench.epoch, state, status=SagaStatus.STUCK, step=started())
    write.resume_in = 60.0
    write.processing_status = "failed"
    await bench.journal.write(write)
    saga = await bench.saga()
    assert (saga["status"], saga["reason"], saga["error"]) == ("STUCK", "compensation_stuck", "why")
    assert saga["stuck_retries"] == 3
    assert (saga["resume_at"] - saga["updated_at"]).total_seconds() == 60.0
    assert saga["finished_at"] == saga["updated_at"]
    assert await bench.processed() == "failed"
    stored = await bench.step(1)
    assert (stored["status"], stored["request"]) == ("STARTED", b"\x00request\xff")
    assert stored["finished_at"] is None


async def test_a_resumed_saga_has_no_due_time_any_more(bench: Bench) -> None:
    state = state_of()
    write = claim(bench.epoch, state, status=SagaStatus.STUCK)
    write.resume_in = 60.0
    await bench.journal.write(write)
    assert (await bench.saga())["resume_at"] is not None
    state.status = SagaStatus.STUCK
    await bench.journal.write(update(bench.epoch, state, status=SagaStatus.RUNNING))
    saga = await bench.saga()
    assert saga["resume_at"] is None


async def test_the_last_row_of_a_step_counts(bench: Bench) -> None:
    write = claim(bench.epoch)
    write.steps = [row(0, attempts=1), row(1), row(0, StepStatus.FAILED, attempts=2)]
    write.operations = []
    await bench.journal.write(write)
    stored = await bench.step(0)
    assert (stored["status"], stored["attempts"]) == ("FAILED", 2)
    assert stored["finished_at"] is not None


async def test_a_write_of_a_saga_that_is_not_there_is_refused(bench: Bench) -> None:
    with pytest.raises(Fenced):
        await bench.journal.write(update(bench.epoch, state_of(), task("t"), outbox=(letter("l"),)))
    assert await counts(bench.pool) == NOTHING


@pytest.mark.parametrize("moved", ["status", "run"])
async def test_a_write_whose_saga_moved_on_is_refused(bench: Bench, moved: str) -> None:
    state = state_of()
    await bench.journal.write(claim(bench.epoch, state))
    if moved == "status":
        await bench.pool.execute("update sagas set status = 'COMPENSATING'")
    else:
        await bench.pool.execute("update sagas set run = 1")
    with pytest.raises(Fenced) as caught:
        await bench.journal.write(
            update(
                bench.epoch,
                state,
                task("late task"),
                status=SagaStatus.COMPLETED,
                outbox=(letter("late letter"),),
            )
        )
    assert caught.value.epoch == bench.epoch
    assert await counts(bench.pool) == ONE
    assert (await bench.saga())["status"] == ("COMPENSATING" if moved == "status" else "RUNNING")


# The fence


async def test_a_claim_under_an_old_epoch_writes_nothing_at_all(bench: Bench) -> None:
    old = bench.epoch
    await bench.take_over()
    with pytest.raises(Fenced) as caught:
        await bench.journal.write(claim(old, status=SagaStatus.COMPLETED))
    assert caught.value.epoch == old
    assert await counts(bench.pool) == NOTHING


async def test_a_later_write_under_an_old_epoch_writes_nothing_at_all(bench: Bench) -> None:
    state = state_of()
    old = bench.epoch
    await bench.journal.write(claim(old, state))
    await bench.take_over()
    with pytest.raises(Fenced):
        await bench.journal.write(
            update(old, state, task("t"), status=SagaStatus.COMPLETED, outbox=(letter("l"),))
        )
    assert await counts(bench.pool) == ONE
    assert (await bench.saga())["status"] == "RUNNING"


async def test_an_epoch_from_the_future_is_no_right_to_write(bench: Bench) -> None:
    with pytest.raises(Fenced):
        await bench.journal.write(claim(bench.epoch + 1))
    assert await counts(bench.pool) == NOTHING


async def test_a_partition_without_an_owner_takes_no_write(bench: Bench) -> None:
    with pytest.raises(Fenced):
        await bench.journal.write(claim(bench.epoch, state_of(partition=1)))
    assert await counts(bench.pool) == NOTHING


async def test_an_owner_in_another_consumer_group_owns_nothing_here(bench: Bench) -> None:
    await raise_epoch(bench.pool, "another group", TOPIC, 1, "worker")
    await raise_epoch(bench.pool, GROUP, "another topic", 1, "worker")
    with pytest.raises(Fenced):
        await bench.journal.write(claim(1, state_of(partition=1)))


async def test_a_fenced_write_leaves_its_neighbours_alone(bench: Bench) -> None:
    stale = await bench.take_over(partition=1)
    await bench.take_over(partition=1)
    good = await bench.take_over()
    writes = [
        claim(good, state_of("p-0")),
        claim(stale, state_of("p-1", partition=1)),
        claim(good, state_of("p-2")),
    ]
    results = await asyncio.gather(
        *(bench.journal.write(write) for write in writes), return_exceptions=True
    )
    assert [type(result).__name__ for result in results] == ["Written", "Fenced", "Written"]
    assert set((await counts(bench.pool)).values()) == {2}
    assert set(await bench.tasks()) == {"task of p-0", "task of p-2"}
    assert len(await transactions(bench.pool)) == 1


@pytest.mark.parametrize("fenced", range(4))
async def test_a_fenced_row_among_good_ones_of_every_kind_leaves_nothing(
    bench: Bench, fenced: int
) -> None:
    """What survives the check of the epoch filters every later statement: an update that skipped
    the saga's row alone would still leave the task, the step, the letter."""
    stale = await bench.take_over(partition=1)
    good = await bench.take_over()
    states = [state_of(f"p-{n}", partition=int(n == fenced), offset=n) for n in range(4)]
    epochs = [stale if n == fenced else good for n in range(4)]
    for n in (1, 2):  # these are there before; of 0 and 3, the claims are what is written
        await bench.journal.write(claim(epochs[n], states[n]))
    before = await counts(bench.pool)
    await bench.take_over(partition=1)
    writes = [
        claim(epochs[0], states[0]),
        update(
            epochs[1],
            states[1],
            task("effect 1"),
            status=SagaStatus.COMPLETED,
            outbox=(letter("letter 1"),),
        ),
        update(epochs[2], states[2], CancelTask("task of p-2", "why"), step=row(1)),
        claim(epochs[3], states[3], status=SagaStatus.COMPLETED),
    ]
    results = await asyncio.gather(
        *(bench.journal.write(write) for write in writes), return_exceptions=True
    )
    assert [isinstance(result, Fenced) for result in results] == [n == fenced for n in range(4)]
    assert [isinstance(result, Written) for result in results] == [n != fenced for n in range(4)]
    after = await counts(bench.pool)
    grown = {
        "sagas": {0, 3},
        "saga_steps": {0, 1, 2, 3},
        "tasks": {0, 1, 3},
        "outbox": {0, 1, 3},
        "processed_messages": {0, 3},
    }
    for name, writers in grown.items():
        assert after[name] - before[name] == len(writers - {fenced}), name
    tasks = await bench.tasks()
    assert tasks["task of p-2"] == ("pending" if fenced == 2 else "cancelled")
    assert ("effect 1" in tasks) == (fenced != 1)


# All or nothing


async def test_done_and_its_effect_are_both_there_or_neither(bench: Bench) -> None:
    """The outbox is written last but one: its refusal takes the task and DONE with it."""
    state = state_of()
    await bench.journal.write(claim(bench.epoch, state))
    write = update(bench.epoch, state, task("effect"), status=SagaStatus.COMPLETED)
    write.outbox = [replace(letter("letter"), key=None, topic="a\0b")]
    with pytest.raises(WriteRefused):
        await bench.journal.write(write)
    assert await counts(bench.pool) == ONE
    assert (await bench.saga())["status"] == "RUNNING"
    write.outbox = [letter("letter")]
    await bench.journal.write(write)
    assert set(await bench.tasks()) == {"task of p-1", "effect"}
    assert (await bench.step(1))["status"] == "DONE"
    assert (await bench.saga())["status"] == "COMPLETED"
