"""A contender's worker: one process, watched from outside, that never outlives this one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

import psutil

from streamapp.demo.guardian import Guardian

_numbers = count(1)


class WorkerEnded(Exception):
    """The worker ended while it was measured, or stood still; the message says which."""


class Worker:
    """``command`` run from the repository's root. Nothing of this process's own ``STREAMAPP_`` and
    ``DATABASE_URL`` variables reaches it."""

    def __init__(
        self, guardian: Guardian, command: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        self._child = guardian.start(
            f"worker-{next(_numbers)}",
            command,
            environment={**inherited(), **environment},
            directory=Path.cwd(),
        )
        self._seen = psutil.Process(self._child.pid)

    @property
    def pid(self) -> int:
        return self._child.pid

    def log(self) -> str:
        """The end of what it has printed."""
        return self._child.tail()

    def check(self) -> None:
        """Raises ``WorkerEnded`` unless it runs."""
        if not self._child.running:
            raise WorkerEnded(f"exit code {self._child.returncode}\n{self.log()}")

    def cpu_seconds(self) -> float:
        """User and system time of the process so far, all threads."""
        self.check()
        times = self._seen.cpu_times()
        return times.user + times.system

    def memory(self) -> int:
        """Resident bytes."""
        self.check()
        resident: int = self._seen.memory_info().rss
        return resident

    def stop(self) -> None:
        """SIGTERM, after some seconds SIGKILL."""
        self._child.stop()
        self._child.log.unlink(missing_ok=True)


def inherited() -> dict[str, str]:
    """This process's environment without what would set the workers' settings."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("STREAMAPP_") and name != "DATABASE_URL"
    }
