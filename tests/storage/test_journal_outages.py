"""The database goes away, also in the middle of a COMMIT: writes wait, and happen once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from streamapp.saga.model import Fenced, SagaStatus, SagaWrite
from streamapp.saga.operations import CancelTask, RaisePriority, SetLeadStatus
from streamapp.storage.journal import PostgresJournal
from tests.storage.locks import locked, waiters
from tests.storage.writes import (
    NOTHING,
    ONE,
    claim,
    counts,
    letter,
    row,
    state_of,
    task,
    transactions,
    update,
)
from tests.support.bench import Bench, running_journal
from tests.support.proxy import AtCommit, Proxy, proxy_to
from tests.support.waiting import until


@pytest.fixture
async def proxy(database: str) -> AsyncIterator[Proxy]:
    async with proxy_to(database) as proxy:
        yield proxy


@pytest.fixture
def reports() -> list[BaseException | None]:
    return []


@pytest.fixture
async def journal(
    proxy: Proxy, reports: list[BaseException | None]
) -> AsyncIterator[PostgresJournal]:
    """A journal that reaches the database through the proxy, and is connected."""
    async with running_journal(proxy.dsn, reports.append, journal_batch=4) as journal:
        with pytest.raises(Fenced):
            await journal.write(claim(0))
        reports.clear()
        yield journal


# Away


async def test_writes_wait_for_the_database_and_are_made_in_order(
    bench: Bench, journal: PostgresJournal, proxy: Proxy, reports: list[BaseException | None]
) -> None:
    proxy.refuse()
    names = [f"p-{n}" for n in (3, 1, 2, 9, 7, 8, 4, 6, 5)]  # not the order of the ids
    writes = [
        asyncio.create_task(journal.write(claim(bench.epoch, state_of(name)))) for name in names
    ]
    await until(lambda: proxy.refused >= 3)
    assert not any(write.done() for write in writes)
    assert await counts(bench.pool) == NOTHING
    assert reports
    assert all(reports)
    proxy.accept()
    await asyncio.gather(*writes)
    assert reports[-1] is None
    rows = await bench.pool.fetch("select record_id from outbox order by id")
    assert [row["record_id"] for row in rows] == [f"letter of {name}" for name in names]
    assert set((await counts(bench.pool)).values()) == {len(names)}


async def test_a_write_finds_the_database_away_at_the_start(bench: Bench, proxy: Proxy) -> None:
    proxy.refuse()
    async with running_journal(proxy.dsn) as journal:
        write = asyncio.create_task(journal.write(claim(bench.epoch)))
        await until(lambda: proxy.refused >= 2)
        proxy.accept()
        await write
    assert await counts(bench.pool) == ONE


async def test_a_transaction_that_is_cut_off_is_made_again(
    bench: Bench, journal: PostgresJournal, proxy: Proxy
) -> None:
    state = state_of()
    await journal.write(claim(bench.epoch, state))
    async with locked(bench.pool, "select 1 from sagas for update"):
        write = asyncio.create_task(journal.write(update(bench.epoch, state, task("t"))))
        await waiters(bench.pool, 1)
        proxy.cut()
    await write
    assert set(await bench.tasks()) == {"task of p-1", "t"}


async def test_a_terminated_session_is_no_fault_of_the_write(
    bench: Bench, journal: PostgresJournal
) -> None:
    for number in range(3):
        await bench.pool.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where application_name like 'streamapp-journal%'"
        )
        await journal.write(claim(bench.epoch, state_of(f"p-{number}")))
    assert set((await counts(bench.pool)).values()) == {3}


async def test_a_session_terminated_in_a_transaction_is_no_fault_of_the_write(
    bench: Bench, database: str, reports: list[BaseException | None]
) -> None:
    """As when PostgreSQL is restarted. The client tells of a connection that is closed."""
    state = state_of()
    await bench.journal.write(claim(bench.epoch, state, task("held")))
    async with running_journal(
        database, reports.append, lock_timeout=60, statement_timeout=60
    ) as journal:
        async with locked(bench.pool, "select 1 from tasks where task_id = 'held' for update"):
            undo = asyncio.create_task(
                journal.write(update(bench.epoch, state, CancelTask("held", "why")))
            )
            await waiters(bench.pool, 1)
            await bench.pool.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where wait_event_type = 'Lock' and datname = current_database()"
            )
            await until(lambda: bool(reports))
        await undo
    assert isinstance(reports[0], asyncpg.InterfaceError)
    assert (await bench.tasks())["held"] == "cancelled"


async def test_a_missing_table_is_waited_for(
    bench: Bench, journal: PostgresJournal, reports: list[BaseException | None]
) -> None:
    """An operator's work in the schema must not cost a message."""
    await bench.pool.execute("alter table outbox rename to away")
    write = asyncio.create_task(journal.write(claim(bench.epoch)))
    await until(lambda: len(reports) >= 2)
    await bench.pool.execute("alter table away rename to outbox")
    await write
    assert await counts(bench.pool) == ONE


async def test_a_standby_is_left_for_the_server_that_takes_writes(
    bench: Bench, journal: PostgresJournal, reports: list[BaseException | None]
) -> None:
    """After a failover the old session never becomes writable: the journal must connect anew."""
    async with bench.pool.acquire() as operator:
        name = await operator.fetchval("select current_database()")
        await operator.execute(f"alter database {name} set default_transaction_read_only = on")
        await operator.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where application_name like 'streamapp-journal%' and datname = current_database()"
        )
        write = asyncio.create_task(journal.write(claim(bench.epoch)))
        await until(
            lambda: any(isinstance(e, asyncpg.ReadOnlySQLTransactionError) for e in reports)
        )
        assert not write.done()
        await operator.execute(f"alter database {name} reset default_transaction_read_only")
        await asyncio.wait_for(write, 10)
    assert await counts(bench.pool) == ONE


# The unknown COMMIT


@pytest.mark.parametrize("loss", [AtCommit.LOSE_REQUEST, AtCommit.LOSE_REPLY])
async def test_a_claim_with_an_unknown_commit_is_no_duplicate_of_itself(
    bench: Bench, journal: PostgresJournal, proxy: Proxy, loss: AtCommit
) -> None:
    proxy.at_commit = loss
    written = await journal.write(claim(bench.epoch, status=SagaStatus.COMPLETED))
    assert proxy.lost == 1
    assert written.existing is None
    # Nobody knows how long ago that commit was: too long for a call that relies on it.
    assert (written.at == 0) == (loss is AtCommit.LOSE_REPLY)
    assert await counts(bench.pool) == ONE
    assert len(await transactions(bench.pool)) == 1


@pytest.mark.parametrize("loss", [AtCommit.LOSE_REQUEST, AtCommit.LOSE_REPLY])
async def test_a_later_write_with_an_unknown_commit_is_made_once(
    bench: Bench, journal: PostgresJournal, proxy: Proxy, loss: AtCommit
) -> None:
    state = state_of()
    await journal.write(claim(bench.epoch, state))
    proxy.at_commit = loss
    written = await journal.write(
        update(
            bench.epoch, state, task("t"), status=SagaStatus.COMPLETED, outbox=(letter("second"),)
        )
    )
    assert proxy.lost == 1
    assert written.existing is None
    rows = await bench.pool.fetch(
        "select xmin::text from sagas union all select xmin::text from tasks where task_id = 't' "
        "union all select xmin::text from saga_steps where ordinal = 1 "
        "union all select xmin::text from outbox where record_id = 'second'"
    )
    assert len(rows) == 4
    assert len({row["xmin"] for row in rows}) == 1
    assert (await bench.saga())["status"] == "COMPLETED"


@pytest.mark.parametrize("loss", [AtCommit.LOSE_REQUEST, AtCommit.LOSE_REPLY])
@pytest.mark.parametrize("claiming", [True, False])
async def test_the_previous_status_of_a_lead_survives_an_unknown_commit(
    bench: Bench, journal: PostgresJournal, proxy: Proxy, loss: AtCommit, claiming: bool
) -> None:
    state = state_of(lead_id="lead-1")
    await bench.pool.execute("insert into leads values ('lead-1', 'business-1', 'tenant-1', 'new')")
    write: SagaWrite = claim(bench.epoch, state, SetLeadStatus("seen"))
    if not claiming:
        await journal.write(claim(bench.epoch, state))
        write = update(bench.epoch, state, SetLeadStatus("seen"))
        write.steps.append(row(0, direction="compensate", output={"of": "another direction"}))
    proxy.at_commit = loss
    written = await journal.write(write)
    answer = {"previous_status": "new", "status": "seen"}
    ordinal = 0 if claiming else 1
    assert written.outputs[ordinal] == answer
    assert (await bench.load()).steps[ordinal, "forward"].output == answer
    assert await bench.pool.fetchval("select status from leads") == "seen"


async def test_a_whole_batch_with_an_unknown_commit_is_made_once(
    bench: Bench, journal: PostgresJournal, proxy: Proxy
) -> None:
    states = [state_of(f"p-{n}") for n in range(4)]
    await asyncio.gather(*(journal.write(claim(bench.epoch, state)) for state in states[:2]))
    proxy.at_commit = AtCommit.LOSE_REPLY
    results = await asyncio.gather(
        *(journal.write(claim(bench.epoch, state)) for state in states[2:]),
        *(
            journal.write(update(bench.epoch, state, RaisePriority("high", 60.0)))
            for state in states[:2]
        ),
    )
    assert [written.existing for written in results] == [None] * 4
    assert (await counts(bench.pool))["saga_steps"] == 6
    assert len(await bench.pool.fetch("select distinct xmin::text from sagas")) == 1


async def test_a_duplicate_in_a_batch_with_an_unknown_commit_is_still_one(
    bench: Bench, journal: PostgresJournal, proxy: Proxy
) -> None:
    await journal.write(claim(bench.epoch, state_of("old", offset=1)))
    proxy.at_commit = AtCommit.LOSE_REPLY
    new, duplicate = await asyncio.gather(
        journal.write(claim(bench.epoch, state_of("new"))),
        journal.write(claim(bench.epoch, state_of("old", offset=2))),
    )
    assert new.existing is None
    assert duplicate.existing is not None
    assert duplicate.existing.source.offset == 1


async def test_an_unknown_commit_is_not_repeated_by_who_lost_the_partition(
    bench: Bench, journal: PostgresJournal, proxy: Proxy
) -> None:
    proxy.at_commit, proxy.refuse_after_loss = AtCommit.LOSE_REQUEST, True
    write = asyncio.create_task(journal.write(claim(bench.epoch)))
    await until(lambda: proxy.refused >= 1)
    await bench.take_over()
    proxy.accept()
    with pytest.raises(Fenced):
        await write
    assert await counts(bench.pool) == NOTHING


# Cancelled


async def test_a_cancelled_write_that_waits_is_not_made(
    bench: Bench, journal: PostgresJournal, proxy: Proxy
) -> None:
    proxy.refuse()
    writes = [
        asyncio.create_task(journal.write(claim(bench.epoch, state_of(f"p-{n}"))))
        for n in range(8)  # more than a batch: some are taken, some queue
    ]
    await until(lambda: proxy.refused >= 1)
    for number in (1, 6):
        writes[number].cancel()
    proxy.accept()
    results = await asyncio.gather(*writes, return_exceptions=True)
    cancelled = [isinstance(result, asyncio.CancelledError) for result in results]
    assert cancelled == [n in (1, 6) for n in range(8)]
    assert set(await bench.tasks()) == {f"task of p-{n}" for n in range(8) if n not in (1, 6)}


async def test_a_journal_that_stops_cancels_what_waits(
    bench: Bench, journal: PostgresJournal, proxy: Proxy
) -> None:
    proxy.refuse()
    writes = [
        asyncio.create_task(journal.write(claim(bench.epoch, state_of(f"p-{n}")))) for n in range(8)
    ]
    await until(lambda: proxy.refused >= 1)
    await journal.stop()
    async with asyncio.timeout(10):
        results = await asyncio.gather(*writes, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    assert await counts(bench.pool) == NOTHING
