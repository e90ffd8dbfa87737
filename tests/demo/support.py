"""The demo as a process, and what a worker's metrics look like."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import psutil

DEADLINE = 90.0

METRICS = """# HELP streamapp_messages_processed_total Deliveries by the one outcome each ends in.
# TYPE streamapp_messages_processed_total counter
streamapp_messages_processed_total{{outcome="processed"}} 11.0
streamapp_messages_processed_total{{outcome="duplicate"}} {duplicates}
streamapp_messages_duplicate_total{{source="whatsapp"}} 7.0
streamapp_circuit_breaker_state{{circuit="order_service",state="closed"}} 0.0
streamapp_circuit_breaker_state{{circuit="order_service",state="open"}} {order}
streamapp_circuit_breaker_state{{circuit="email",state="half_open"}} {half_open}
streamapp_circuit_breaker_state{{circuit="email",state="closed"}} 1.0
"""


@dataclass
class Demo:
    """A demo under way. ``err`` grows while it runs."""

    process: subprocess.Popen[str]
    err: str = ""
    reader: Thread | None = None

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until standard error has it."""
        deadline = time.monotonic() + DEADLINE
        while (found := re.search(pattern, self.err)) is None:
            assert self.process.poll() is None, self.err
            assert time.monotonic() < deadline, self.err
            time.sleep(0.02)
        return found

    def end(self) -> tuple[int, str]:
        """Wait for its end; gives exit code and standard output."""
        assert self.process.stdout is not None
        out = self.process.stdout.read()
        return self.process.wait(DEADLINE), out

    def wait_for_end(self) -> None:
        """Wait until standard error has all there will be."""
        assert self.reader is not None
        self.reader.join(DEADLINE)

    @property
    def directory(self) -> Path:
        """Its scratch directory."""
        return Path(self.wait_for(r"log +(\S+)/worker\.log")[1])

    def family(self) -> list[psutil.Process]:
        """All processes that it started."""
        return psutil.Process(self.process.pid).children(recursive=True)


@contextmanager
def demo(*arguments: str) -> Iterator[Demo]:
    """Run ``streamapp demo``; ended at the latest on exit."""
    process = subprocess.Popen(
        [sys.executable, "-m", "streamapp", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    running = Demo(process)

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            running.err += line

    running.reader = Thread(target=read)
    running.reader.start()
    try:
        yield running
    finally:
        process.kill()
        process.wait()
        # The guardian holds it too, until it has cleaned up.
        running.wait_for_end()
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()


def last_json(out: str) -> dict[str, Any]:
    """The object on the last line."""
    value = json.loads(out.splitlines()[-1])
    assert isinstance(value, dict)
    return value


def wait_until_gone(processes: list[psutil.Process], directory: Path) -> None:
    """Wait until nothing is left of a demo."""
    _, alive = psutil.wait_procs(processes, timeout=DEADLINE)
    assert not alive
    deadline = time.monotonic() + DEADLINE
    while directory.exists():
        assert time.monotonic() < deadline, "the directory is left"
        time.sleep(0.02)
