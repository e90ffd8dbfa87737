"""One batch with everything in it: each write has the outcome that it would have alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from streamapp.saga.journal import Written
from streamapp.saga.model import Fenced, SagaState, SagaStatus, SagaWrite, WriteRefused
from streamapp.saga.operations import SetLeadStatus
from streamapp.storage.journal import PostgresJournal
from tests.storage.locks import locked
from tests.storage.writes import claim, state_of, task, update
from tests.support.bench import Bench, running_journal
from tests.support.proxy import AtCommit, Proxy, proxy_to
from tests.support.waiting import until

GOOD = 6


@pytest.fixture
async def proxy(database: str) -> AsyncIterator[Proxy]:
    async with proxy_to(database) as proxy:
        yield proxy


@pytest.fixture
async def journal(proxy: Proxy) -> AsyncIterator[PostgresJournal]:
    """Nobody is to wait for a lock here, so there is no end to such a wait."""
    async with running_journal(proxy.dsn, lock_timeout=60, statement_timeout=60) as journal:
        with pytest.raises(Fenced):
            await journal.write(claim(0))
        yield journal


@dataclass
class Mixed:
    """The writes of the batch, by what becomes of each."""

    good: list[asyncio.Task[Written]]
    refused: asyncio.Task[Written]
    fenced: list[asyncio.Task[Written]]
    duplicate: asyncio.Task[Written]
    late: asyncio.Task[Written]
    locked: list[asyncio.Task[Written]]


@dataclass
class Prepared:
    """Partition 1 was lost and taken again, the sagas were begun before."""

    epoch: int
    lost: int
    busy: int
    begun: list[SagaState]
    moved: SagaState
    held: SagaState


async def prepared(bench: Bench) -> Prepared:
    begun = [state_of(f"begun-{n}") for n in range(GOOD // 2)]
    there, moved, held = state_of("there"), state_of("moved"), state_of("held")
    for state in (*begun, there, moved, held):
        await bench.journal.write(claim(bench.epoch, state))
    await bench.pool.execute("update sagas set status = 'STUCK' where processing_id = 'moved'")
    await bench.pool.execute(
        "insert into leads values ('lead of lead', 'business-1', 'tenant-1', 'new')"
    )
    lost = await bench.take_over(partition=1)
    await bench.take_over(partition=1)
    busy = await bench.take_over(partition=2)
    return Prepared(await bench.take_over(), lost, busy, begun, moved, held)


def mixed(journal: PostgresJournal, case: Prepared) -> Mixed:
    """Write a batch of everything."""

    def start(write: SagaWrite) -> asyncio.Task[Written]:
        return asyncio.create_task(journal.write(write))

    epoch = case.epoch
    return Mixed(
        good=[
            *(start(claim(epoch, state_of(f"new-{n}"))) for n in range(GOOD // 2)),
            *(
                start(update(epoch, each, task(f"more of {n}")))
                for n, each in enumerate(case.begun)
            ),
        ],
        refused=start(claim(epoch, state_of("bad"), task("t", "\0"))),
        fenced=[
            start(claim(case.lost, state_of("lost", partition=1))),
            start(claim(epoch + 1, state_of("future"))),
        ],
        duplicate=start(claim(epoch, state_of("there", offset=99))),
        late=start(update(epoch, case.moved, task("late"), status=SagaStatus.COMPLETED)),
        locked=[
            start(claim(epoch, state_of("lead"), SetLeadStatus("seen"))),
            start(update(epoch, case.held, task("of a locked saga"))),
            start(claim(case.busy, state_of("busy", partition=2))),
        ],
    )


LOCKS = """
select 1 from leads for update;
select 1 from sagas where processing_id = 'held' for update;
select 1 from partition_owners where partition = 2 for update;
"""


async def check(bench: Bench, writes: Mixed) -> None:
    """All but the locked ones have their outcome, and nothing else is there."""
    async with asyncio.timeout(20):
        good = await asyncio.gather(*writes.good)
        refused, *fenced = await asyncio.gather(
            writes.refused, *writes.fenced, writes.late, return_exceptions=True
        )
        duplicate = await writes.duplicate
    assert [written.existing for written in good] == [None] * GOOD
    assert isinstance(refused, WriteRefused)
    assert [type(each) for each in fenced] == [Fenced] * 3
    assert duplicate.existing is not None
    assert duplicate.existing.source.offset == state_of("there").source.offset
    before = {f"task of {name}" for name in (*(f"begun-{n}" for n in range(3)), "there", "moved")}
    assert set(await bench.tasks()) == before | {"task of held"} | {
        *(f"task of new-{n}" for n in range(3)),
        *(f"more of {n}" for n in range(3)),
    }
    rows = await bench.pool.fetch("select processing_id, status from sagas")
    assert {row["processing_id"] for row in rows} == {
        *(f"begun-{n}" for n in range(3)),
        *(f"new-{n}" for n in range(3)),
        "there",
        "moved",
        "held",
    }
    assert {row["status"] for row in rows if row["processing_id"] == "moved"} == {"STUCK"}


@pytest.mark.parametrize("loss", [None, AtCommit.LOSE_REQUEST, AtCommit.LOSE_REPLY])
async def test_each_write_of_a_batch_has_its_own_outcome(
    bench: Bench, journal: PostgresJournal, proxy: Proxy, loss: AtCommit | None
) -> None:
    case = await prepared(bench)
    async with locked(bench.pool, LOCKS):
        if loss is not None:
            proxy.at_commit = loss
        writes = mixed(journal, case)
        await check(bench, writes)
        assert not any(write.done() for write in writes.locked)
    assert proxy.lost == (0 if loss is None else 1)
    results = await asyncio.wait_for(asyncio.gather(*writes.locked), 20)
    assert results[0].outputs == {0: {"previous_status": "new", "status": "seen"}}
    assert {"of a locked saga", "task of busy"} <= set(await bench.tasks())
    await until(lambda: journal.backlog == 0)
