"""The next run of a saga in the journal: only from the run before, and by its own partition."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import asyncpg
import pytest

from streamapp.pipeline.outcomes import Reason
from streamapp.saga.model import Fenced, SagaState, SagaStatus, SagaWrite, Settlement, Source
from tests.storage.writes import claim, row, state_of, task
from tests.support.bench import Bench
from tests.support.sagas import TOPIC


async def compensated(bench: Bench, name: str = "p-1", offset: int = 0) -> SagaState:
    state = state_of(name, offset=offset)
    await bench.journal.write(claim(bench.epoch, state, status=SagaStatus.COMPENSATED))
    return state


def next_run(epoch: int, state: SagaState, **changes: object) -> SagaWrite:
    """The write that begins the run after that of ``state``, from the record at offset 50."""
    source = replace(state.source, offset=50, timestamp_ms=1_800_000_000_000)
    revived = replace(
        state,
        run=state.run + 1,
        source=source,
        value=b"edited",
        **changes,  # type: ignore[arg-type]
    )
    write = claim(epoch, revived, task(f"task of {state.message.processing_id} again"))
    write.revives, write.outbox = True, []
    return write


async def test_the_next_run_takes_the_sagas_place(bench: Bench) -> None:
    state = await compensated(bench)
    write = next_run(bench.epoch, state, payload_hash=b"another", headers=(("n", b"1"),))
    written = await bench.journal.write(write)
    assert written.existing is None
    loaded = await bench.load()
    assert (loaded.run, loaded.status) == (1, SagaStatus.RUNNING)
    assert (loaded.source.offset, loaded.value, loaded.headers) == (50, b"edited", (("n", b"1"),))
    assert (loaded.payload_hash, loaded.earlier_hashes) == (b"another", (state.payload_hash,))
    assert [step.status for step in loaded.steps.values()] == ["DONE"], "those of this run"
    runs = await bench.pool.fetch("select run from saga_steps")
    assert sorted(found["run"] for found in runs) == [0, 1]
    saga = await bench.saga()
    assert (saga["finished_at"], saga["stuck_retries"], saga["epoch"]) == (None, 0, bench.epoch)


async def test_the_same_payload_is_kept_once(bench: Bench) -> None:
    state = await compensated(bench)
    for run, payload_hash in enumerate((b"a", b"b", b"a")):
        before = replace(state, run=run)
        await bench.journal.write(next_run(bench.epoch, before, payload_hash=payload_hash))
        await bench.pool.execute("update sagas set status = 'COMPENSATED'")
    assert (await bench.load()).earlier_hashes == (state.payload_hash, b"a", b"b")


@pytest.mark.parametrize("status", [s for s in SagaStatus if s is not SagaStatus.COMPENSATED])
async def test_only_what_was_compensated_is_revived(bench: Bench, status: SagaStatus) -> None:
    state = state_of()
    await bench.journal.write(claim(bench.epoch, state, status=status))
    before = await bench.saga()
    with pytest.raises(Fenced):
        await bench.journal.write(next_run(bench.epoch, state))
    assert await bench.saga() == before


@pytest.mark.parametrize("run", [1, 5])
async def test_only_the_run_that_stands_there_is_followed(bench: Bench, run: int) -> None:
    state = await compensated(bench)
    with pytest.raises(Fenced):
        await bench.journal.write(next_run(bench.epoch, replace(state, run=run)))
    assert (await bench.saga())["run"] == 0


async def test_nothing_is_revived_that_is_not_there(bench: Bench) -> None:
    with pytest.raises(Fenced):
        await bench.journal.write(next_run(bench.epoch, state_of()))
    assert await bench.pool.fetchval("select count(*) from sagas") == 0
    assert await bench.tasks() == {}


async def test_another_partitions_owner_revives_nothing(bench: Bench) -> None:
    state = await compensated(bench)
    other = await bench.take_over(1)
    elsewhere = replace(state, source=Source(TOPIC, 1, 0, 0))
    with pytest.raises(Fenced):
        await bench.journal.write(next_run(other, elsewhere))
    with pytest.raises(Fenced):
        await bench.journal.write(next_run(other + 7, state))
    assert (await bench.saga())["run"] == 0


async def test_of_two_revivals_one_is_refused(bench: Bench) -> None:
    state = await compensated(bench)
    await bench.journal.write(next_run(bench.epoch, state))
    with pytest.raises(Fenced):
        await bench.journal.write(next_run(bench.epoch, state))
    assert (await bench.saga())["run"] == 1


async def test_an_unknown_commit_is_recognised(bench: Bench) -> None:
    state = await compensated(bench)
    write = next_run(bench.epoch, state)
    await bench.journal.write(write)
    await bench.journal.write(write)  # the answer was lost: the same write once more
    assert (await bench.saga())["run"] == 1
    assert sorted(await bench.tasks()) == ["task of p-1", "task of p-1 again"]


async def test_a_revival_that_is_refused_stops_none_of_its_neighbours(bench: Bench) -> None:
    states = [await compensated(bench, f"p-{n}", offset=n) for n in range(3)]
    writes = [next_run(bench.epoch, state) for state in states]
    writes[1].state.run = 7
    new = claim(bench.epoch, state_of("p-9", offset=9))
    results = await asyncio.gather(
        *(bench.journal.write(write) for write in [*writes, new]), return_exceptions=True
    )
    assert [isinstance(result, Fenced) for result in results] == [False, True, False, False]
    assert [(await bench.saga(f"p-{n}"))["run"] for n in (0, 1, 2, 9)] == [1, 0, 1, 0]


# Settlements


async def put_letter(bench: Bench, state: SagaState, action: str = "") -> None:
    source = state.source
    await bench.pool.execute(
        "insert into dead_letter_queue (dead_letter_id, letter_ids, message_id, topic, partition, "
        '"offset", record_timestamp, action, reason) '
        "values ($1, array[$1], $2, $3, $4, $5, to_timestamp($6), $7, 'action_failed')",
        f"letter of {state.message.processing_id} {action}",
        state.message.processing_id,
        source.topic,
        source.partition,
        source.offset,
        source.timestamp_ms / 1000,
        action,
    )


async def letters(bench: Bench) -> dict[tuple[str, str], str]:
    rows = await bench.pool.fetch("select * from dead_letter_queue")
    return {(row["message_id"], row["action"]): row["status"] for row in rows}


def settling(epoch: int, state: SagaState, action: str = "", *unsettled: str) -> SagaWrite:
    write = SagaWrite(state=state, epoch=epoch, claim=False, steps=[row()])
    write.settlement = Settlement(
        f"letter of {state.message.processing_id} {action}",
        state.source,
        Reason.ACTION_FAILED,
        action,
        unsettled,
    )
    return write


async def test_a_settlement_is_in_the_commit_of_its_write(bench: Bench) -> None:
    state = await compensated(bench)
    state.status = SagaStatus.COMPENSATED
    await put_letter(bench, state)
    stale = settling(bench.epoch - 1, state)
    with pytest.raises(Fenced):
        await bench.journal.write(stale)
    assert set((await letters(bench)).values()) == {"failed"}
    await bench.journal.write(settling(bench.epoch, state))
    assert set((await letters(bench)).values()) == {"resolved"}
    ids = await bench.pool.fetch(
        "select xmin::text from dead_letter_queue union select xmin::text from sagas"
    )
    assert len(ids) == 1


async def test_many_settlements_at_once_each_settle_their_own(bench: Bench) -> None:
    states = [await compensated(bench, f"p-{n}", offset=n) for n in range(4)]
    for state in states:
        state.status = SagaStatus.COMPENSATED
        for action in ("", "tell", "notify"):
            await put_letter(bench, state, action)
    await asyncio.gather(
        bench.journal.write(settling(bench.epoch, states[0])),
        bench.journal.write(settling(bench.epoch, states[1], "", "notify")),
        bench.journal.write(settling(bench.epoch, states[2], "tell")),
    )
    found = await letters(bench)
    resolved = {key for key, status in found.items() if status == "resolved"}
    assert resolved == {
        ("p-0", ""),
        ("p-0", "tell"),
        ("p-0", "notify"),
        ("p-1", ""),
        ("p-1", "tell"),
        ("p-2", "tell"),
    }
    assert len(found) == 12


async def test_a_letter_that_is_not_there_yet_is_settled_ahead(bench: Bench) -> None:
    state = await compensated(bench)
    state.status = SagaStatus.COMPENSATED
    await bench.journal.write(settling(bench.epoch, state))
    found = await bench.pool.fetchrow("select * from dead_letter_queue")
    assert isinstance(found, asyncpg.Record)
    assert (found["status"], found["letter_ids"], found["has_saga"]) == ("resolved", [], True)
    assert (found["original_key"], found["original_value"]) == (state.key, state.value)
