"""Other people's locks, and who waits for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from streamapp.storage.connection import Pool
from tests.support.waiting import until_async


@asynccontextmanager
async def locked(pool: Pool, sql: str) -> AsyncIterator[None]:
    """Hold what ``sql`` locks in a transaction of somebody else's."""
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(sql)
        try:
            yield
        finally:
            await transaction.rollback()


async def waiting_for_locks(pool: Pool) -> int:
    count: int = await pool.fetchval(
        "select count(*) from pg_stat_activity "
        "where wait_event_type = 'Lock' and datname = current_database()"
    )
    return count


async def nobody_waits(pool: Pool) -> bool:
    return await waiting_for_locks(pool) == 0


async def waiters(pool: Pool, count: int) -> None:
    async def reached() -> bool:
        return await waiting_for_locks(pool) >= count

    await until_async(reached)
