"""A contender's worker: one process, watched from outside."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

_STOPS_WITHIN = 60.0  # seconds
_TAIL = 2000  # characters of a log that an error quotes


class WorkerEnded(Exception):
    """The worker ended while it was measured; the message has the end of its log."""


class Worker:
    """``command`` in a session of its own. Nothing of this process's own ``STREAMAPP_`` and
    ``DATABASE_URL`` variables reaches it."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        self._environment = inherited() | dict(environment)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._seen = psutil.Process(self._process.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """Raises ``WorkerEnded`` unless it runs."""
        code = self._process.poll()
        if code is not None:
            raise WorkerEnded(f"exit code {code}\n{self._log.read_text()[-_TAIL:]}")

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
        """SIGTERM, in the end SIGKILL."""
        if self._process.poll() is None:
            os.kill(self.pid, signal.SIGTERM)
            try:
                self._process.wait(_STOPS_WITHIN)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()


def inherited() -> dict[str, str]:
    """This process's environment without what would set the workers' settings."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("STREAMAPP_") and name != "DATABASE_URL"
    }
