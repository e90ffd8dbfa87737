"""Processes and a scratch directory that never outlive this process.

A small guardian process starts the others and watches a pipe to us. When the pipe closes, by
``close`` or because this process died (also of ``kill -9``), it stops them and removes the
directory. Works on Linux and macOS alike.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

_PROGRAM = Path(__file__).with_name("guardian_process.py")
_ANSWER_WITHIN = 30.0  # seconds
DEFAULT_SIGNALS = (signal.SIGTERM,)


class GuardianError(Exception):
    """A process could not be started, or the guardian itself is gone."""


class Child:
    """A process that the guardian started. All methods may be called from any thread."""

    def __init__(self, guardian: Guardian, name: str, log: Path) -> None:
        self.name = name
        self.log = log
        self.pid = 0
        self._guardian = guardian
        self._started = threading.Event()
        self._ended = threading.Event()
        self._code: int | None = None
        self._failure: str | None = None

    @property
    def returncode(self) -> int | None:
        """Exit code, negative for a signal's number; None while it runs."""
        return self._code

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._started.is_set() and not self._ended.is_set()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; gives the exit code. Raises ``TimeoutError``."""
        if not self._ended.wait(timeout):
            raise TimeoutError(f"{self.name} has not ended")
        if self._code is None:
            raise GuardianError(self._failure or f"{self.name} is out of sight")
        return self._code

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens where it has ended."""
        self._guardian._send({"do": "signal", "name": self.name, "number": int(number)})

    def stop(self) -> int:
        """Stop it, in the end by SIGKILL, and wait; gives the exit code."""
        if not self._ended.is_set():
            self._guardian._send({"do": "stop", "name": self.name})
        return self.wait()

    def tail(self, lines: int = 20) -> str:
        """The last lines of its output."""
        try:
            text = self.log.read_text(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def _answer(self, answer: Mapping[str, Any]) -> None:
        if "pid" in answer:
            self.pid = answer["pid"]
        elif "exited" in answer:
            self._code = answer["exited"]
            self._ended.set()
        else:
            self._failure = answer["failed"]
            self._ended.set()
        self._started.set()


class Guardian:
    """Owns a scratch ``directory`` and the processes that work in it.

    Raises ``GuardianError`` when it cannot be started. Everything here blocks for some
    milliseconds (``close`` and ``Child.stop`` for as long as the processes take): call it from a
    thread where an event loop runs.
    """

    def __init__(self) -> None:
        self._children: dict[str, Child] = {}
        self._writing = threading.Lock()
        try:
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-I", "-S", str(_PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
                text=True,
            )
        except OSError as error:
            raise GuardianError(f"the guardian process did not start: {error}") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        first = self._out.readline()
        if not first:
            raise GuardianError("the guardian process did not start")
        self.directory = Path(json.loads(first)["directory"])
        self._reader = threading.Thread(target=self._read, name="guardian", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id of the guardian itself."""
        return self._process.pid

    def start(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        user: tuple[int, int] | None = None,
        signals: Sequence[int] = DEFAULT_SIGNALS,
    ) -> Child:
        """Start a process; its output goes to ``NAME.log`` in the scratch directory.

        ``name`` must not be that of a process that runs. ``user`` is (uid, gid) to run as.
        ``signals`` are sent one after the other to stop it, some seconds apart, and SIGKILL
        last. Raises ``GuardianError``.
        """
        known = self._children.get(name)
        if known is not None and known.running:
            raise GuardianError(f"{name} runs already")
        child = Child(self, name, self.directory / f"{name}.log")
        self._children[name] = child
        self._send(
            {
                "do": "start",
                "name": name,
                "arguments": list(arguments),
                "environment": dict(os.environ if environment is None else environment),
                "directory": str(directory or self.directory),
                "log": str(child.log),
                "uid": user[0] if user else None,
                "gid": user[1] if user else None,
                "signals": [int(number) for number in signals],
            }
        )
        if not child._started.wait(_ANSWER_WITHIN):
            raise GuardianError(f"{name} did not start: the guardian does not answer")
        if child._failure is not None:
            raise GuardianError(f"{name} did not start: {child._failure}")
        return child

    def close(self) -> None:
        """Stop all processes, the youngest first, and remove the directory. Harmless twice."""
        with self._writing, suppress(BrokenPipeError):
            self._in.close()
        self._process.wait()
        self._reader.join()
        self._out.close()

    def __enter__(self) -> Guardian:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _send(self, command: Mapping[str, Any]) -> None:
        with self._writing:
            try:
                self._in.write(json.dumps(command) + "\n")
                self._in.flush()
            except (OSError, ValueError):
                raise GuardianError("the guardian process is gone") from None

    def _read(self) -> None:
        for line in self._out:
            answer = json.loads(line)
            self._children[answer["name"]]._answer(answer)
        for child in list(self._children.values()):
            if not child._ended.is_set():
                child._answer({"failed": "the guardian process is gone"})
