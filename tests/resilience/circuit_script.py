"""A breaker driven by a text of words, through its public face alone, with a clock that stands.

``ok``, ``fail``, ``slow`` (a success that is slow), ``slowfail``, ``ignore`` (an error that tells
nothing of the service), ``cancel``: a call is asked for, admitted, and ends so. ``begin``: a call
is admitted and stays under way; ``end-ok`` and the like: the oldest such call ends. ``denied``: a
call is asked for and not admitted. ``+60``: so many seconds go by. ``reset``, ``force-open``,
``disable``: what an operator may do. What has to be true there: ``=open``: the state is that;
``[3/2/1]``: the window holds three calls, two failed and one slow.
"""

from __future__ import annotations

from collections.abc import Callable

from streamapp.resilience.circuit_breaker import (
    CircuitBreaker,
    CircuitConfig,
    CircuitListener,
    Permit,
)

CONFIG = CircuitConfig(
    window_calls=4,
    window_seconds=100.0,
    min_calls=2,
    failure_rate=0.5,
    slow_call=5.0,
    open_seconds=60.0,
    trial_calls=2,
)
SLOW = 5.5  # seconds


class Clock:
    """Stands still until told otherwise."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Script:
    """A breaker and the calls that are under way; ``run`` carries a text out."""

    def __init__(
        self, config: CircuitConfig = CONFIG, listener: CircuitListener | None = None
    ) -> None:
        self.clock = Clock()
        self.breaker = CircuitBreaker("order", config, clock=self.clock, listener=listener)
        self.under_way: list[Permit] = []

    def run(self, text: str) -> None:
        for number, word in enumerate(text.split(), start=1):
            self._do(word, f"word {number}, {word}, of: {text}")

    @property
    def state(self) -> str:
        return self.breaker.state.value

    def permit(self, where: str = "") -> Permit:
        permit = self.breaker.try_acquire()
        assert permit is not None, where
        return permit

    def end(self, permit: Permit, how: str) -> None:
        if how.startswith("slow"):
            self.clock.now += SLOW
        if how in ("cancel", "ignore"):
            permit.cancel()
        elif how in ("fail", "slowfail"):
            permit.failure()
        else:
            assert how in ("ok", "slow"), how
            permit.success()

    def _do(self, word: str, where: str) -> None:
        operators: dict[str, Callable[[], None]] = {
            "reset": self.breaker.reset,
            "force-open": self.breaker.force_open,
            "disable": self.breaker.disable,
        }
        if word.startswith("+"):
            self.clock.now += float(word)
        elif word.startswith("="):
            assert self.state == word[1:], where
        elif word.startswith("["):
            shown = self.breaker.snapshot()
            found = f"[{shown['calls']}/{shown['failures']}/{shown['slow']}]"
            assert found == word, f"{found} at {where}"
        elif word in operators:
            operators[word]()
        elif word == "denied":
            assert self.breaker.try_acquire() is None, where
        elif word == "begin":
            self.under_way.append(self.permit(where))
        elif word.startswith("end-"):
            self.end(self.under_way.pop(0), word.removeprefix("end-"))
        else:
            self.end(self.permit(where), word)
