"""At most one request in so many seconds to each of several places."""

from __future__ import annotations

import time
from collections.abc import Callable

FORGET_AFTER = 60.0  # seconds after its turn; who has not come by then does not come any more


class Pace:
    """Hands out turns, never two within ``interval`` seconds for one place, in the order of asking.

    Who asks again under the same key keeps the turn, so that waiting outside costs nobody theirs.
    A turn further away than ``longest`` is not given: there are too many. ``clock`` is monotonic.
    """

    def __init__(
        self, interval: float, longest: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval = interval
        self._longest = longest
        self._clock = clock
        self._next: dict[str, float] = {}  # when the next turn of a place begins
        self._free: dict[str, float] = {}  # when somebody may go there again, turn or not
        self._turns: dict[tuple[str, str], float] = {}

    def wait(self, place: str, key: str) -> float:
        """Seconds until this key's turn, 0 if it has come; that ends it, so the next is another.

        Where no turn is given, the seconds after which asking again may help.
        """
        now = self._clock()
        turn = self._turns.get((place, key))
        if turn is None:
            turn = max(now, self._next.get(place, now))
            if turn - now > self._longest:
                return self._longest
            self._next[place] = turn + self._interval
            self._forget(now)
            self._turns[place, key] = turn
        # Whose turn came late may have come together with the next.
        begins = max(turn, self._free.get(place, turn))
        if begins > now:
            return begins - now
        del self._turns[place, key]
        self._free[place] = now + self._interval
        return 0.0

    def hold(self, place: str, seconds: float) -> None:
        """Nobody's turn comes there before so many seconds are over."""
        free = self._clock() + seconds
        late = {key: turn for key, turn in self._turns.items() if key[0] == place and turn < free}
        # They come in the order that they had, as soon as the place is open again.
        for number, key in enumerate(sorted(late, key=late.__getitem__)):
            self._turns[key] = free + number * self._interval
        behind = free + len(late) * self._interval
        self._next[place] = max(self._next.get(place, 0.0), behind)
        self._free[place] = max(self._free.get(place, 0.0), free)

    def _forget(self, now: float) -> None:
        for key, turn in list(self._turns.items()):
            if now - turn > FORGET_AFTER:
                del self._turns[key]
        # A place where anybody may go at once is as good as one that was never heard of.
        for times in (self._next, self._free):
            for place in [place for place, moment in times.items() if moment < now]:
                del times[place]
