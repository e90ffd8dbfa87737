"""Connections: with limits of their own, whatever the server's defaults are."""

from __future__ import annotations

import asyncpg
import pytest

from streamapp.storage import connection as module
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


async def test_a_session_that_stands_still_in_a_transaction_loses_its_locks(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IDLE_IN_TRANSACTION", 0.05)
    settings = settings_for(database, lock_timeout=60.0, statement_timeout=60.0)
    frozen = await connect(settings, "frozen")
    other = await connect(settings, "other")
    try:
        await frozen.execute("begin; lock table sagas in access exclusive mode")
        assert await other.fetchval("select count(*) from sagas") == 0
    finally:
        frozen.terminate()
        await other.close()
