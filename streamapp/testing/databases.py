"""Databases for tests: copies of a migrated one, on a server that is there already."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from streamapp.storage.migrations import upgrade

TEMPLATE = "migrated"


def beside(server: str, name: str) -> str:
    """Address of another database of the same server."""
    return f"{server.rpartition('/')[0]}/{name}"


async def create_template(server: str) -> None:
    """Create a database with all migrations applied, which others are copied from."""
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(f"create database {TEMPLATE}")
    finally:
        await connection.close()
    await upgrade(beside(server, TEMPLATE))


@asynccontextmanager
async def fresh_database(server: str, name: str) -> AsyncIterator[str]:
    """Address of an empty, migrated database, which is dropped at the end."""
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(f"create database {name} template {TEMPLATE}")
        try:
            yield beside(server, name)
        finally:
            await connection.execute(f"drop database if exists {name} with (force)")
    finally:
        await connection.close()
