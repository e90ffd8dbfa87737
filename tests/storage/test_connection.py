"""Connections: with limits of their own, whatever the server's defaults are."""

from __future__ import annotations

import asyncpg

from streamapp.storage.connection import Connection, connect, create_pool
from tests.support.bench import settings_for

LIMITS = {
    "synchronous_commit": "on",
    "idle_in_transaction_session_timeout": "5s",
    "statement_timeout": "7s",
    "lock_timeout": "1500ms",
    "TimeZone": "UTC",
}


async def shown(connection: Connection) -> dict[str, str]:
    return {name: await connection.fetchval(f"show {name}") for name in LIMITS}


async def test_a_session_has_its_limits(database: str) -> None:
    """Those of a frozen process end its locks, and a server set up for speed loses nothing."""
    admin = await asyncpg.connect(database)
    try:
        name = await admin.fetchval("select current_database()")
        await admin.execute(f"alter database {name} set synchronous_commit = off")
    finally:
        await admin.close()
    settings = settings_for(database, statement_timeout=7.0, lock_timeout=1.5)
    connection = await connect(settings, "streamapp-journal")
    try:
        assert await shown(connection) == LIMITS
    finally:
        await connection.close()
    async with await create_pool(settings) as pool, pool.acquire() as pooled:
        assert await pooled.fetchval("show lock_timeout") == "1500ms"
