"""The guardian's own process: starts the others, and ends them when its parent is gone.

Run as a file, with nothing but the standard library, so that it is up in a few milliseconds.
It reads one JSON command a line from standard input and answers on standard output; when
standard input ends, because the parent closed it or died of whatever, every process that it
started is stopped, the youngest first, and the scratch directory is removed. Being the parent of
these processes, it knows when a process id is no longer theirs.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

POLITE = 5.0  # seconds between a stop signal and the next, harder one


class Process:
    """One process that was started, and how it is to be stopped."""

    def __init__(self, command: dict[str, Any]) -> None:
        self.name: str = command["name"]
        self._signals: list[int] = [*command["signals"], signal.SIGKILL]
        identity: dict[str, Any] = {}
        if command["uid"] is not None:
            identity = {"user": command["uid"], "group": command["gid"], "extra_groups": []}
        with Path(command["log"]).open("ab") as log:
            self._popen = subprocess.Popen(  # noqa: S603
                command["arguments"],
                env=command["environment"],
                cwd=command["directory"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **identity,
            )
        self.pid = self._popen.pid
        self._ended = threading.Event()

    def reap(self) -> int:
        """Wait for its end, in the one thread that does."""
        code = self._popen.wait()
        self._ended.set()
        return code

    def signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def stop(self, polite: float) -> None:
        """Signal until it has ended, harder each time."""
        for number in self._signals:
            self.signal(number)
            if self._ended.wait(polite):
                return
        self._ended.wait()


class Keeper:
    """Carries out commands; each answer names the process that it is about."""

    def __init__(self) -> None:
        self._processes: list[Process] = []
        self._lock = threading.Lock()

    def tell(self, **answer: Any) -> None:
        # The parent may be gone already: then there is nobody to tell.
        with self._lock, suppress(OSError, ValueError):
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()

    def carry_out(self, command: dict[str, Any]) -> None:
        if command["do"] == "start":
            self._start(command)
            return
        for process in list(self._processes):
            if process.name != command["name"]:
                continue
            if command["do"] == "signal":
                process.signal(command["number"])
            else:
                # Apart, so that stopping one does not hold up the next command.
                threading.Thread(target=process.stop, args=(POLITE,), daemon=True).start()

    def _start(self, command: dict[str, Any]) -> None:
        try:
            process = Process(command)
        except (OSError, subprocess.SubprocessError) as error:
            self.tell(name=command["name"], failed=str(error))
            return
        self._processes.append(process)
        self.tell(name=process.name, pid=process.pid)
        threading.Thread(target=self._report, args=(process,), daemon=True).start()

    def _report(self, process: Process) -> None:
        code = process.reap()
        self._processes.remove(process)
        self.tell(name=process.name, exited=code)

    def stop_all(self) -> None:
        for process in reversed(list(self._processes)):
            process.stop(POLITE)


def main() -> None:
    """Serve the parent until it is gone."""
    # Ctrl-C and the like are for the parent; its end is what counts here. Not SIG_IGN: the
    # processes that are started would inherit it.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    directory = Path(tempfile.mkdtemp(prefix="streamapp-"))
    if os.geteuid() == 0:
        # A process of another user must be able to reach its own directory in here.
        directory.chmod(0o711)
    keeper = Keeper()
    try:
        keeper.tell(directory=str(directory))
        for line in sys.stdin:
            keeper.carry_out(json.loads(line))
    finally:
        keeper.stop_all()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
