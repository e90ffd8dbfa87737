"""When a failed attempt of a step is made again."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence


class RetrySchedule:
    """The waits between the attempts of a step, in seconds; one attempt more than waits.

    With ``jitter`` each wait is drawn evenly from zero up to its length ("full jitter"), so that
    steps which failed together do not come back together. ``draw`` gives numbers in [0, 1).
    """

    def __init__(
        self,
        delays: Sequence[float],
        *,
        jitter: bool = False,
        draw: Callable[[], float] = random.random,
    ) -> None:
        if not all(math.isfinite(delay) and delay >= 0 for delay in delays):
            raise ValueError("the delays of a retry schedule are finite and not negative")
        self._delays = tuple(delays)
        self._jitter = jitter
        self._draw = draw

    @property
    def max_attempts(self) -> int:
        return len(self._delays) + 1

    @property
    def longest(self) -> float:
        """The longest wait, in seconds, that comes without a service asking for one."""
        return max(self._delays, default=0.0)

    def delay_after(
        self, attempt: int, *, retry_after: float | None = None, cap: float = math.inf
    ) -> float:
        """Seconds to wait after failed attempt number ``attempt``, counted from 1.

        ``retry_after``, what the service asked for, is a minimum; it is honoured up to ``cap``,
        which does not shorten the schedule's own waits. Raises ``ValueError`` for an attempt
        that no other follows.
        """
        if not 1 <= attempt < self.max_attempts:
            raise ValueError(f"no attempt follows attempt {attempt} of {self.max_attempts}")
        delay = self._delays[attempt - 1]
        if self._jitter:
            delay *= self._draw()
        if retry_after is None:
            return delay
        return max(delay, min(retry_after, cap))
