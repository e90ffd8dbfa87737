"""A database that is slow, silent, frozen out or short of connections: writes wait, happen once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from streamapp.demo.guardian import Guardian
from streamapp.demo.postgres import EmbeddedPostgres
from streamapp.saga.model import Fenced
from streamapp.storage import connection as connections
from streamapp.storage.connection import create_pool
from streamapp.storage.health import DatabaseHealth
from streamapp.storage.journal import PostgresJournal
from streamapp.storage.migrations import upgrade
from streamapp.storage.owners import raise_epoch
from tests.storage.locks import waiters
from tests.storage.writes import ONE, claim, counts, state_of, task, transactions, update
from tests.support.bench import Bench, running_bench, running_journal, settings_for
from tests.support.crowd import Crowd
from tests.support.proxy import AtCommit, Proxy, proxy_to
from tests.support.sagas import GROUP, TOPIC
from tests.support.waiting import until, until_async


@pytest.fixture
async def proxy(database: str) -> AsyncIterator[Proxy]:
    async with proxy_to(database) as proxy:
        yield proxy


async def connect_journal(journal: PostgresJournal) -> None:
    with pytest.raises(Fenced):
        await journal.write(claim(0))


# Slow


async def test_a_slow_network_is_no_outage(bench: Bench, proxy: Proxy) -> None:
    """200 ms for each reply: few commits, shared by all who wait."""
    reports: list[BaseException | None] = []
    async with running_journal(proxy.dsn, reports.append) as journal:
        await connect_journal(journal)
        proxy.latency = 0.2
        await journal.write(claim(bench.epoch, state_of("first")))
        writes = [journal.write(claim(bench.epoch, state_of(f"p-{n}"))) for n in range(50)]
        await asyncio.wait_for(asyncio.gather(*writes), 60)
    assert set((await counts(bench.pool)).values()) == {51}
    assert len(await transactions(bench.pool)) <= 3
    assert not any(reports)


async def test_a_batch_that_is_too_slow_as_a_whole_is_written_one_by_one(
    bench: Bench, database: str
) -> None:
    """A statement timeout for all of them together, though each alone would do."""
    await bench.pool.execute(
        "create function slow() returns trigger language plpgsql as "
        "'begin perform pg_sleep(0.1); return new; end';"
        "create trigger slow before insert on outbox for each row execute function slow()"
    )
    reports: list[BaseException | None] = []
    async with running_journal(database, reports.append, statement_timeout=1.5) as journal:
        writes = [journal.write(claim(bench.epoch, state_of(f"p-{n}"))) for n in range(30)]
        await asyncio.wait_for(asyncio.gather(*writes), 60)
    assert set((await counts(bench.pool)).values()) == {30}
    assert not any(reports)


async def test_statements_that_time_out_are_repeated_until_they_do_not(
    bench: Bench, database: str
) -> None:
    await bench.pool.execute(
        "create function slow() returns trigger language plpgsql as "
        "'begin perform pg_sleep(60); return new; end';"
        "create trigger slow before insert on outbox for each row execute function slow()"
    )
    async with running_journal(database, statement_timeout=0.2) as journal:
        writes = [
            asyncio.create_task(journal.write(claim(bench.epoch, state_of(f"p-{n}"))))
            for n in range(5)
        ]
        await until_async(lambda: cancelled(bench, 3))
        assert not any(write.done() for write in writes)
        await bench.pool.execute("drop trigger slow on outbox")
        await asyncio.wait_for(asyncio.gather(*writes), 20)
    assert set((await counts(bench.pool)).values()) == {5}


async def cancelled(bench: Bench, count: int) -> bool:
    """Whether so many transactions were rolled back in this database."""
    number: int = await bench.pool.fetchval(
        "select xact_rollback from pg_stat_database where datname = current_database()"
    )
    return number >= count


# Silent


async def test_a_server_that_vanished_without_a_word_is_left(bench: Bench, proxy: Proxy) -> None:
    """No reset comes: only the time tells. Its successor is reached by a new connection."""
    async with running_journal(proxy.dsn, statement_timeout=0.2) as journal:
        await connect_journal(journal)
        proxy.silence()
        await asyncio.wait_for(journal.write(claim(bench.epoch)), 20)
    assert await counts(bench.pool) == ONE


async def test_a_pool_leaves_a_server_that_vanished_too(database: str, proxy: Proxy) -> None:
    pool = await create_pool(settings_for(proxy.dsn, statement_timeout=0.2, database_pool=2))
    try:
        health = DatabaseHealth()
        await asyncio.gather(*(pool.fetchval("select pg_sleep(0.05)") for _ in range(2)))
        proxy.silence()
        asking = [health.insist(lambda: pool.fetchval("select 1")) for _ in range(4)]
        assert await asyncio.wait_for(asyncio.gather(*asking), 30) == [1] * 4
    finally:
        pool.terminate()


async def test_a_pool_leaves_a_server_that_takes_no_writes(bench: Bench, database: str) -> None:
    """A session that began on it never becomes writable."""
    name = await bench.pool.fetchval("select current_database()")
    await bench.pool.execute(f"alter database {name} set default_transaction_read_only = on")
    pool = await create_pool(settings_for(database))
    health = DatabaseHealth()
    leaving: list[asyncio.Task[None]] = []
    health.on_read_only = lambda: leaving.append(asyncio.create_task(pool.expire_connections()))
    try:
        raising = asyncio.create_task(
            health.insist(lambda: raise_epoch(pool, GROUP, TOPIC, 0, "next"))
        )
        await until(lambda: len(leaving) >= 2)
        assert not health.available
        await bench.pool.execute(
            f"set default_transaction_read_only = off; "
            f"alter database {name} reset default_transaction_read_only"
        )
        assert await asyncio.wait_for(raising, 20) == bench.epoch + 1
    finally:
        pool.terminate()


# Frozen


async def test_a_writer_frozen_inside_a_transaction_loses_its_locks(
    bench: Bench, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its next owner waits for that, no longer, and the late COMMIT is nobody's."""
    monkeypatch.setattr(connections, "IDLE_IN_TRANSACTION", 2.0)
    state = state_of()
    await bench.journal.write(claim(bench.epoch, state))
    # The frozen one does not look at its own clock either.
    async with running_journal(proxy.dsn, statement_timeout=60) as journal:
        await connect_journal(journal)
        proxy.at_commit = AtCommit.HOLD
        writing = asyncio.create_task(
            journal.write(update(bench.epoch, state, task("of the frozen one")))
        )
        await until(lambda: proxy.held == 1)
        owner = asyncio.create_task(raise_epoch(bench.pool, GROUP, TOPIC, 0, "next"))
        await waiters(bench.pool, 1)
        # Others' partitions go on meanwhile.
        other = await raise_epoch(bench.pool, GROUP, TOPIC, 1, "another")
        await bench.journal.write(claim(other, state_of("other", partition=1)))
        assert not owner.done()
        epoch = await asyncio.wait_for(owner, 20)
        assert epoch == bench.epoch + 1
        with pytest.raises(Fenced):
            await asyncio.wait_for(writing, 20)
        await bench.journal.write(update(epoch, state, task("of the next one")))
    assert set(await bench.tasks()) == {"task of p-1", "task of other", "of the next one"}


# No connection left


@pytest.fixture(scope="module")
def small_server(guardian: Guardian) -> Iterator[EmbeddedPostgres]:
    """A server of this module's own: nobody else can connect while it is full."""
    server = EmbeddedPostgres(guardian, "small")
    server.start()
    yield server
    server.stop()


async def test_too_many_connections_are_waited_for(small_server: EmbeddedPostgres) -> None:
    dsn = small_server.dsn()
    await upgrade(dsn)
    reports: list[BaseException | None] = []
    crowd = Crowd(dsn)
    async with running_bench(dsn) as bench:
        await bench.journal.write(claim(bench.epoch, state_of("before")))
        async with running_journal(dsn, reports.append) as journal:
            await crowd.come()
            # At the start of a connection.
            first = asyncio.create_task(journal.write(claim(bench.epoch, state_of("first"))))
            await until(lambda: len(reports) >= 3)
            assert {type(error) for error in reports} == {asyncpg.TooManyConnectionsError}
            assert not first.done()
            await crowd.go()
            await asyncio.wait_for(first, 20)
            assert reports[-1] is None
            # In the middle of the work: the session is lost, and its place taken by another.
            await crowd.come()
            reports.clear()
            await crowd.take_over()
            writes = [
                asyncio.create_task(journal.write(claim(bench.epoch, state_of(f"p-{n}"))))
                for n in range(20)
            ]
            await until(
                lambda: any(isinstance(e, asyncpg.TooManyConnectionsError) for e in reports)
            )
            assert not any(write.done() for write in writes)
            await crowd.go()
            await asyncio.wait_for(asyncio.gather(*writes), 20)
    pool = await asyncpg.create_pool(dsn, min_size=0, max_size=1)
    try:
        assert set((await counts(pool)).values()) == {22}
    finally:
        await pool.close()


async def test_sagas_are_read_back_on_few_connections(bench: Bench, proxy: Proxy) -> None:
    """However many stuck ones are due at the same time."""
    for number in range(12):
        await bench.journal.write(claim(bench.epoch, state_of(f"p-{number}")))
    seen: list[int] = []

    async def look() -> None:
        while True:
            seen.append(
                await bench.pool.fetchval(
                    "select count(*) from pg_stat_activity "
                    "where application_name = 'streamapp-load' and datname = current_database()"
                )
            )
            await asyncio.sleep(0.01)

    proxy.latency = 0.02
    async with running_journal(proxy.dsn) as journal:
        looking = asyncio.create_task(look())
        found = await asyncio.gather(*(journal.load(f"p-{number}") for number in range(12)))
        looking.cancel()
    assert all(found)
    assert 1 <= max(seen) <= 2
