"""Brings the database's schema up to date, or tells what it lacks."""

from __future__ import annotations

from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

# A name of our own: the CRM that shares the database may be an Alembic user too.
VERSION_TABLE = "streamapp_version"
# Any number, as long as every version of this program uses the same.
_LOCK = 7_203_461_925_408
_FOLDER = Path(__file__).resolve().parents[2] / "migrations"


class MigrationError(Exception):
    """The database cannot be migrated by this version of the program."""


async def upgrade(dsn: str) -> list[str]:
    """Apply all pending revisions in one transaction; returns their names, oldest first.

    Two at once are safe: the second waits for the first and finds nothing to do.
    Raises ``MigrationError`` where the database is newer than this program, and asyncpg's or
    ``OSError`` where it cannot be reached.
    """
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(dsn), poolclass=NullPool
    )
    try:
        async with engine.begin() as connection:
            await connection.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            return await connection.run_sync(_upgrade)
    finally:
        await engine.dispose()


async def pending(dsn: str) -> list[str]:
    """Names of the revisions that the database lacks, oldest first. Changes nothing."""
    connection = await asyncpg.connect(dsn)
    try:
        current: str | None = None
        if await connection.fetchval("select to_regclass($1)", VERSION_TABLE) is not None:
            current = await connection.fetchval(f"select version_num from {VERSION_TABLE}")  # noqa: S608
    finally:
        await connection.close()
    return _after(current)


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: Connection) -> list[str]:
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    missing = _after(context.get_current_revision())
    if missing:
        command.upgrade(_config(connection), "head")
    return missing


def _after(current: str | None) -> list[str]:
    script = ScriptDirectory.from_config(_config())
    try:
        revisions = list(script.iterate_revisions("head", current or "base"))
    except RevisionError as error:
        raise MigrationError(
            f"the database is at revision {current!r}, which this version does not know: "
            "run a version at least as new as the one that migrated it"
        ) from error
    return [revision.revision for revision in reversed(revisions)]
