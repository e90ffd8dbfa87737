"""The sliding window over which a circuit breaker counts."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple


class Result(NamedTuple):
    """How one call ended, and when (seconds of a monotonic clock)."""

    at: float
    failed: bool
    slow: bool


class Window:
    """The latest results: at most ``calls`` of them, each younger than ``seconds``."""

    def __init__(self, calls: int, seconds: float) -> None:
        self._calls = calls
        self._seconds = seconds
        self._results: deque[Result] = deque()
        self.failures = 0
        self.slow = 0

    def __len__(self) -> int:
        return len(self._results)

    def add(self, result: Result) -> None:
        """Take in a result; results come in the order of their times."""
        self.expire(result.at)
        if len(self._results) == self._calls:
            self._drop()
        self._results.append(result)
        self.failures += result.failed
        self.slow += result.slow

    def expire(self, now: float) -> None:
        """Drop the results that are too old by now."""
        while self._results and now - self._results[0].at >= self._seconds:
            self._drop()

    def clear(self) -> None:
        self._results.clear()
        self.failures = self.slow = 0

    def share(self, count: int) -> float:
        """``count`` as a share of the results; 0 when there is none."""
        return count / len(self._results) if self._results else 0.0

    def _drop(self) -> None:
        oldest = self._results.popleft()
        self.failures -= oldest.failed
        self.slow -= oldest.slow
