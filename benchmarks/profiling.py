"""Where a worker's time goes: py-spy beside it, a flame graph and a list of functions."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.process import Worker

PY_SPY = Path(sys.executable).with_name("py-spy")
RATE = 100  # samples a second
LONGEST = 3600  # seconds; it ends with the worker, or is stopped
_ENDS_WITHIN = 120.0  # seconds
WAITING = "EpollSelector.select "
Format = Literal["flamegraph", "raw"]


class Recording:
    """py-spy on a worker from ``begin`` on, until ``finish``."""

    def __init__(self, target: Path, form: Format) -> None:
        self._target = target
        self._form = form
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self, worker: Worker) -> None:
        self._process = subprocess.Popen(
            [
                PY_SPY,
                "record",
                f"--pid={worker.pid}",
                f"--format={self._form}",
                f"--output={self._target}",
                f"--rate={RATE}",
                f"--duration={LONGEST}",
                "--function",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def finish(self) -> None:
        """Write the file. Raises ``RuntimeError`` where there is none."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGINT)
            self._process.wait(_ENDS_WITHIN)
        if not self._target.exists():
            raise RuntimeError("py-spy recorded nothing: it may need the right to trace processes")


@dataclass(frozen=True, slots=True)
class Cost:
    """Shares (0..1) of the samples that count: in the function itself; in it or what it calls."""

    function: str
    own: float
    total: float


def costs(stacks: Iterable[str]) -> list[Cost]:
    """From py-spy's raw lines: frames from the outermost in, by ``;``, and a count. Stacks that
    end in waiting for events are left out: py-spy takes some idle threads for running ones."""
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    samples = 0
    for line in stacks:
        text, _, count = line.rstrip().rpartition(" ")
        if not text:
            continue
        frames = text.split(";")
        if frames[-1].startswith(WAITING):
            continue
        samples += int(count)
        own[frames[-1]] += int(count)
        for frame in set(frames):
            total[frame] += int(count)
    return [Cost(name, own[name] / samples, total[name] / samples) for name in total]


def list_costs(found: Iterable[Cost], most: int = 40) -> list[str]:
    """The dearest by own time, then by all time, as lines of a table."""
    found = list(found)
    lines = ["own     all     function"]
    for order in (lambda cost: cost.own, lambda cost: cost.total):
        for cost in sorted(found, key=order, reverse=True)[:most]:
            lines.append(f"{cost.own:6.1%}  {cost.total:6.1%}  {cost.function}")
        lines.append("")
    return lines
