"""A copy of a running PostgreSQL that follows it, takes no writes, and can take its place."""

from __future__ import annotations

import os
import pwd

import asyncpg

from streamapp.demo.guardian import Guardian
from streamapp.demo.postgres import EmbeddedPostgres, PostgresError


class Standby(EmbeddedPostgres):
    """Follows ``primary``; ``start`` copies it first. Same password, a port of its own."""

    def __init__(self, guardian: Guardian, name: str, primary: EmbeddedPostgres) -> None:
        super().__init__(guardian, name)
        self._primary = primary
        self._password = primary._password

    def _create(self) -> None:
        self._base.mkdir(mode=0o700)
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._user = (nobody.pw_uid, nobody.pw_gid)
            os.chown(self._base, *self._user)
        programs = self._find_programs()
        copying = self._spawn(
            f"{self._name}-copy",
            [
                str(programs / "pg_basebackup"),
                f"--dbname={self._primary.dsn()}",
                f"--pgdata={self._data}",
                "--checkpoint=fast",
                "--wal-method=stream",
                "--write-recovery-conf",
                "--no-sync",
            ],
        )
        if copying.wait() != 0:
            raise PostgresError(f"the primary could not be copied:\n{copying.tail()}")
        self._programs = programs

    async def follow_closely(self) -> None:
        """From here on the primary commits nothing that this server does not have."""
        connection = await asyncpg.connect(self._primary.dsn())
        try:
            await connection.execute("alter system set synchronous_standby_names = '*'")
            await connection.execute("select pg_reload_conf()")
            while (
                await connection.fetchval(
                    "select count(*) from pg_stat_replication where sync_state = 'sync'"
                )
            ) == 0:
                await connection.execute("select pg_sleep(0.05)")
        finally:
            await connection.close()

    async def promote(self) -> None:
        """Take the primary's place; it must be gone."""
        connection = await asyncpg.connect(self.dsn())
        try:
            assert await connection.fetchval("select pg_promote()")
        finally:
            await connection.close()
