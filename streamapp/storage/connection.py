"""Connections to PostgreSQL, with the limits that keep a frozen process out of others' way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg

from streamapp.settings import Settings

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]
    Session = Connection | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
else:
    Connection = asyncpg.Connection
    Pool = asyncpg.Pool
    Session = Any  # a connection, or one that is lent by a pool

IDLE_IN_TRANSACTION = 5.0  # seconds; a process frozen inside a transaction loses its locks after it
CONNECT_TIMEOUT = 5.0  # seconds


def _session(settings: Settings, application: str) -> dict[str, str]:
    return {
        "application_name": application,
        "timezone": "UTC",
        "synchronous_commit": "on",
        "idle_in_transaction_session_timeout": f"{int(IDLE_IN_TRANSACTION * 1000)}",
        "statement_timeout": f"{int(settings.statement_timeout * 1000)}",
        "lock_timeout": f"{int(settings.lock_timeout * 1000)}",
    }


def _options(settings: Settings, application: str) -> dict[str, Any]:
    return {
        "dsn": settings.database_url.get_secret_value(),
        "timeout": CONNECT_TIMEOUT,
        # The server's limit comes first; this one is for a server that does not answer at all.
        "command_timeout": settings.statement_timeout + 2.0,
        "server_settings": _session(settings, application),
    }


async def connect(settings: Settings, application: str) -> Connection:
    """Open one connection. Raises what ``faults.DATABASE_ERRORS`` lists."""
    connection: Connection = await asyncpg.connect(**_options(settings, application))
    return connection


async def create_pool(settings: Settings) -> Pool:
    """A pool for look-ups and views, opened lazily so that a database away delays nobody."""
    return await asyncpg.create_pool(
        min_size=0,
        max_size=settings.database_pool,
        reset=_clean,
        **_options(settings, "streamapp"),
    )


async def _clean(connection: Connection) -> None:
    """What a borrower leaves behind. Nobody here sets anything for a session, so the usual round
    trip that resets it, once for every look-up, is made only for an open transaction."""
    if connection.is_in_transaction():
        await connection.reset()
