"""An outage, and when to speak of it: once a minute, however often it is met."""

from __future__ import annotations

import time
from collections.abc import Callable

SAY_EVERY = 60.0  # seconds
SETTLED = 5.0  # seconds; what goes away again sooner was never really back


class Outage:
    """Of one thing that is needed; told of each success and failure. A return is only spoken of
    where the outage was."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._away_since: float | None = None
        self._back_since = float("-inf")
        self._said = float("-inf")
        self._said_away = False

    @property
    def away(self) -> bool:
        return self._away_since is not None

    def failed(self) -> float | None:
        """It is away: for how many seconds by now, where that is to be said."""
        now = self._clock()
        if self._away_since is None:
            self._away_since = now
            self._said_away = False
            if now - self._back_since >= SETTLED:
                self._said = float("-inf")
        if now - self._said < SAY_EVERY:
            return None
        self._said = now
        self._said_away = True
        return now - self._away_since

    def answered(self) -> float | None:
        """It is there: after how many seconds away, where that is to be said."""
        if self._away_since is None:
            return None
        now = self._clock()
        lasted = now - self._away_since
        self._away_since = None
        self._back_since = now
        return lasted if self._said_away else None
