"""Disks that get full, and have room again."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.worker import WorkerProcess

SIZE = 48 * 1024 * 1024  # bytes of a small disk; RocksDB sets some aside for its log


class SmallDisk:
    """A small file system of its own; needs root."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self, worker: WorkerProcess | None = None) -> None:
        """Take all the room that is left."""
        with self._ballast.open("wb", buffering=0) as file:
            for block in (1024 * 1024, 4096, 1):
                try:
                    while True:
                        file.write(b"\0" * block)
                except OSError:
                    pass

    def free(self, worker: WorkerProcess | None = None) -> None:
        self._ballast.unlink()


class SizeLimit:
    """No room for a file to grow beyond what the worker's databases have now: needs no root."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self, worker: WorkerProcess) -> None:
        logs = self.path.glob("**/seen-*.db/*.log")
        limit = max(log.stat().st_size for log in logs)
        _, hard = resource.prlimit(worker.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (limit, hard))

    def free(self, worker: WorkerProcess) -> None:
        _, hard = resource.prlimit(worker.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (hard, hard))


@contextmanager
def mounted(path: Path, options: str = f"size={SIZE}") -> Iterator[Path]:
    """A file system in memory at ``path``."""
    path.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def may_mount(path: Path) -> bool:
    """Whether this process may mount at all: root in a container often may not."""
    if os.geteuid() != 0:
        return False
    path.mkdir(parents=True)
    tried = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4096", "none", path], check=False, capture_output=True
    )
    if tried.returncode == 0:
        subprocess.run(["umount", path], check=True)
    return tried.returncode == 0
