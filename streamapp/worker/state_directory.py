"""The directory with a worker's local state, taken by one process at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

LOCK = "worker.lock"


class StateRefused(Exception):
    """The directory cannot be this process's; the message is a sentence for people."""


class StateDirectory:
    """The directory at ``path``. Two workers in one would be in each other's way at every
    rebalance, so a worker takes it before it does anything, and holds it until its end,
    whichever that is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: int | None = None

    def take(self) -> None:
        """Make the directory if it is missing, and hold it as long as this process lives.

        Raises ``StateRefused`` when another process holds it, or it cannot be written.
        """
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
            except BlockingIOError:
                holder = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
                os.close(handle)
                raise StateRefused(
                    f"state directory: {self._path} is in use by another worker "
                    f"(process {holder or 'unknown'}); give each worker a STREAMAPP_DATA_DIR of "
                    "its own."
                ) from None
            except OSError:
                os.close(handle)
                raise
        except OSError as error:
            raise StateRefused(
                f"state directory: {self._path} cannot be written ({error.strerror}); let the "
                "worker write there, or set STREAMAPP_DATA_DIR to a directory where it can."
            ) from error
        self._held = handle
