"""Disks without room for PostgreSQL: a small file system where root may mount one, else a table
whose file is the device that is always full. Both give the server the real ENOSPC."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg

DEVICE = Path("/dev/full")
_HAS_DEVICE = DEVICE.exists()
_BLOCK = 64 * 1024  # bytes


class Unavailable(Exception):
    """This machine does not let us have such a disk; the message says why."""


class SmallDisk:
    """A file system of a few megabytes, filled up and emptied by a file of ballast."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        """Take all room that is left, to the last block."""
        descriptor = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            for size in (_BLOCK, 512):
                try:
                    while os.write(descriptor, b"\0" * size) == size:
                        pass
                except OSError:
                    continue
        finally:
            os.close(descriptor)

    def free(self) -> None:
        self._ballast.unlink(missing_ok=True)


@contextmanager
def small_disk(path: Path, megabytes: int, owner: tuple[int, int] | None) -> Iterator[SmallDisk]:
    """Mount one; raises ``Unavailable`` where that is not allowed."""
    if os.geteuid() != 0:
        raise Unavailable("only root may mount a file system")
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "tmpfs", str(path)],
        capture_output=True,
        text=True,
    )
    if mounted.returncode != 0:
        path.rmdir()
        raise Unavailable(f"mounting is not allowed here: {mounted.stderr.strip()}")
    try:
        if owner is not None:
            os.chown(path, *owner)
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
        path.rmdir()


@asynccontextmanager
async def full_table(dsn: str, data: Path, table: str) -> AsyncIterator[None]:
    """While the block runs, ``table``, which must be empty, lies on a disk that is full.

    ``data`` is the server's data directory. Other sessions are ended, so that none keeps the
    table's own file open.
    """
    if not _HAS_DEVICE:
        raise Unavailable(f"there is no {DEVICE} here")
    connection = await asyncpg.connect(dsn)
    try:
        file = data / await connection.fetchval("select pg_relation_filepath($1)", table)
        assert await connection.fetchval("select pg_relation_size($1::regclass)", table) == 0
        kept = file.with_name(f"{file.name}.kept")
        file.rename(kept)
        file.symlink_to(DEVICE)
        await _end_others(connection)
        try:
            yield
        finally:
            kept.replace(file)
            await _end_others(connection)
    finally:
        await connection.close()


async def _end_others(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    await connection.execute(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity "
        "where datname = current_database() and pid <> pg_backend_pid()"
    )
