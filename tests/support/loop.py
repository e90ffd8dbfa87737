"""A detector of what blocks the event loop: the CPU time of each callback, and whose it is.

CPU time, as the wall tells of the machine's other work, too.
"""

from __future__ import annotations

import asyncio
import time
from asyncio import events
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Callbacks:
    """What ran in the event loop: CPU seconds of each callback, and of the long ones who it was."""

    long: float  # seconds from which on a callback is remembered with its name
    seconds: list[float] = field(default_factory=list)
    culprits: list[tuple[float, str]] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        """CPU seconds that this share of the callbacks did not exceed."""
        return sorted(self.seconds)[min(len(self.seconds) - 1, int(len(self.seconds) * share))]

    def told(self) -> str:
        """The longest callbacks, for the message of a test that fails."""
        longest = sorted(self.culprits, reverse=True)[:10]
        return "\n".join(f"{seconds * 1000:.1f} ms {name}" for seconds, name in longest)


@contextmanager
def watched_callbacks(long: float) -> Iterator[Callbacks]:
    """Measure all callbacks that any event loop of this thread runs in the block."""
    found = Callbacks(long)
    run = events.Handle._run

    def measured(handle: Any) -> None:
        began = time.thread_time()
        run(handle)
        spent = time.thread_time() - began
        found.seconds.append(spent)
        if spent >= long:
            found.culprits.append((spent, _name(handle._callback)))

    events.Handle._run = measured  # type: ignore[method-assign, assignment]
    try:
        yield found
    finally:
        events.Handle._run = run  # type: ignore[method-assign]


def _name(callback: Any) -> str:
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        return f"{owner.get_name()}: {getattr(owner.get_coro(), '__qualname__', '?')}"
    return getattr(callback, "__qualname__", None) or repr(callback)
