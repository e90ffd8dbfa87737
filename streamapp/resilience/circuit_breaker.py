"""Circuit breaker: stops calling a service that fails, and finds out by itself when it is back.

Single-threaded: every method belongs to the event loop's thread, none blocks, and the only
coroutine is ``CircuitBreaker.wait_for_change``.

States:

- ``closed``: calls are admitted; their results fill a sliding window of at most
  ``window_calls`` results, none older than ``window_seconds``. With at least ``min_calls`` of
  them, a share of failures, or a share of slow calls, of ``failure_rate`` or more opens it.
- ``open``: nothing is admitted for ``open_seconds``. The first call asked for after that finds
  the breaker half-open.
- ``half_open``: at most ``trial_calls`` calls are admitted. Each has to succeed, and not be
  slow: the first that fails or is slow opens the breaker again for a whole ``open_seconds``,
  whatever the others say; when ``trial_calls`` of them have succeeded it closes, with an empty
  window. A cancelled trial decides nothing, and another call may take its place.
- ``forced_open`` and ``disabled`` are an operator's: nothing, or everything, is admitted, no
  result changes anything, and only another operator action ends them.

Each entry into a state begins a new generation. A result counts only in the generation that
admitted its call; a later one is ``late`` and decides nothing.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from streamapp.resilience.window import Result, Window
from streamapp.settings import Settings

WAKE_INTERVAL = 0.1  # seconds until the next waiters get a chance that others did not take

Clock = Callable[[], float]


class CircuitState(StrEnum):
    """Where a breaker stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    FORCED_OPEN = "forced_open"
    DISABLED = "disabled"


class CallKind(StrEnum):
    """What became of a call that a breaker was asked for; each counts as exactly one kind."""

    SUCCESS = "success"
    FAILURE = "failure"  # whether slow or not
    SLOW = "slow"  # a success that took longer than ``slow_call``
    REJECTED = "rejected"  # not admitted
    CANCELLED = "cancelled"  # ended without telling anything about the service
    LATE = "late"  # ended in a later generation than it was admitted in


@dataclass(frozen=True, slots=True)
class CircuitConfig:
    """How a breaker decides; times in seconds, ``failure_rate`` above 0 and at most 1."""

    window_calls: int = 20
    window_seconds: float = 120.0
    min_calls: int = 5  # more than ``window_calls`` means as many as that
    failure_rate: float = 0.5
    slow_call: float = 10.0
    open_seconds: float = 60.0
    trial_calls: int = 2

    @classmethod
    def from_settings(cls, settings: Settings) -> CircuitConfig:
        return cls(
            window_calls=settings.circuit_window_calls,
            window_seconds=settings.circuit_window_seconds,
            min_calls=settings.circuit_min_calls,
            failure_rate=settings.circuit_failure_rate,
            slow_call=settings.circuit_slow_call,
            open_seconds=settings.circuit_open_seconds,
            trial_calls=settings.circuit_trial_calls,
        )


class CircuitListener(Protocol):
    """Told of every call and every state entered, in the event loop; must not raise."""

    def on_call(self, name: str, kind: CallKind) -> None: ...

    def on_state(self, name: str, state: CircuitState) -> None: ...


class Permit:
    """The right to make one call. Whoever holds it reports the call's end exactly once.

    The first of ``success``, ``failure`` and ``cancel`` counts, any later one does nothing, so
    ``cancel`` in a ``finally`` is right: it gives back what nothing else has used up.
    """

    __slots__ = ("_began", "_breaker", "_finished", "generation")

    def __init__(self, breaker: CircuitBreaker, generation: int, now: float) -> None:
        self._breaker = breaker
        self._began = now
        self._finished = False
        self.generation = generation

    def begin(self) -> None:
        """The call begins now: its duration counts from here instead of from the admission."""
        self._began = self._breaker.clock()

    def success(self) -> None:
        """The service answered. A definite refusal of the request is a success too."""
        self._finish(CallKind.SUCCESS)

    def failure(self) -> None:
        """The service failed or could not be reached."""
        self._finish(CallKind.FAILURE)

    def cancel(self) -> None:
        """The call told nothing about the service, or was never made."""
        self._finish(CallKind.CANCELLED)

    def _finish(self, kind: CallKind) -> None:
        if not self._finished:
            self._finished = True
            self._breaker._finished(self, kind, self._breaker.clock() - self._began)


class CircuitBreaker:
    """The breaker of one service; the module's text tells how it decides.

    ``clock`` gives seconds and never runs backwards.
    """

    def __init__(
        self,
        name: str,
        config: CircuitConfig | None = None,
        *,
        clock: Clock = time.monotonic,
        listener: CircuitListener | None = None,
    ) -> None:
        self.name = name
        self.config = config or CircuitConfig()
        self.clock = clock
        self.counts = dict.fromkeys(CallKind, 0)
        self._listener = listener
        self._window = Window(self.config.window_calls, self.config.window_seconds)
        self._min_calls = min(self.config.min_calls, self.config.window_calls)
        self._generation = 0
        self._opened_at: float | None = None
        self._trials = 0  # admitted and not given back
        self._trials_succeeded = 0
        # Ordered and with removal in constant time: thousands may wait, and time out, at once.
        self._waiters: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        self._enter(CircuitState.CLOSED)

    @property
    def state(self) -> CircuitState:
        """The state as of the last call or operator action: a breaker whose open period is
        over stays ``open`` until a call is asked for."""
        return self._state

    def try_acquire(self) -> Permit | None:
        """Ask for one call; None when it is not admitted now."""
        if self._admissible() <= 0:
            self._count(CallKind.REJECTED)
            return None
        if self._state is CircuitState.OPEN:
            self._enter(CircuitState.HALF_OPEN)
        if self._state is CircuitState.HALF_OPEN:
            self._trials += 1
        return Permit(self, self._generation, self.clock())

    def seconds_until_retry(self) -> float | None:
        """Seconds until the open period ends. None when a call is admitted now, and when it is
        unknown: forced open, or half-open with every trial under way."""
        if self._state is not CircuitState.OPEN:
            return None
        left = self._left_open()
        return left if left > 0 else None

    async def wait_for_change(self, timeout: float) -> None:
        """Return as soon as a call might be admitted, after ``timeout`` seconds at the latest.

        Waiters are woken in the order they came, and only as many as might be admitted; what
        they leave unused goes to the next ones ``WAKE_INTERVAL`` later. Being woken promises
        nothing: ``try_acquire`` decides.
        """
        if self._admissible() > 0:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = None
        if self._timer is None:
            self._arm()
        expiry = waiter.get_loop().call_later(timeout, _resolve, waiter)
        try:
            await waiter
        finally:
            expiry.cancel()
            self._waiters.pop(waiter, None)
            if not self._waiters:
                self._disarm()

    # Operator actions

    def reset(self) -> None:
        """Close, with an empty window, from any state."""
        self._enter(CircuitState.CLOSED)

    def force_open(self) -> None:
        """Admit nothing until another operator action."""
        self._enter(CircuitState.FORCED_OPEN)

    def disable(self) -> None:
        """Admit everything, whatever it results in, until another operator action."""
        self._enter(CircuitState.DISABLED)

    def snapshot(self) -> dict[str, Any]:
        """The breaker as JSON values; times in seconds, rates as shares of 1, ``counts`` since
        the process began."""
        now = self.clock()
        self._window.expire(now)
        return {
            "name": self.name,
            "state": self._state.value,
            "calls": len(self._window),
            "failures": self._window.failures,
            "slow": self._window.slow,
            "failure_rate": self._window.share(self._window.failures),
            "slow_rate": self._window.share(self._window.slow),
            "opened_seconds_ago": None if self._opened_at is None else now - self._opened_at,
            "seconds_until_retry": self.seconds_until_retry(),
            "trials": self._trials,
            "trials_succeeded": self._trials_succeeded,
            "waiting": len(self._waiters),
            "counts": {kind.value: count for kind, count in self.counts.items()},
        }

    # Results

    def _finished(self, permit: Permit, kind: CallKind, duration: float) -> None:
        slow = duration > self.config.slow_call
        current = permit.generation == self._generation
        if kind is CallKind.CANCELLED:
            self._count(kind)
            if current and self._state is CircuitState.HALF_OPEN:
                self._trials -= 1
                self._wake()
            return
        if not current:
            self._count(CallKind.LATE)
            return
        failed = kind is CallKind.FAILURE
        self._count(CallKind.SLOW if slow and not failed else kind)
        if self._state is CircuitState.CLOSED:
            self._window.add(Result(self.clock(), failed, slow))
            if self._over_the_rate():
                self._enter(CircuitState.OPEN)
        elif self._state is CircuitState.HALF_OPEN:
            if failed or slow:
                self._enter(CircuitState.OPEN)
                return
            self._trials_succeeded += 1
            if self._trials_succeeded == self.config.trial_calls:
                self._enter(CircuitState.CLOSED)

    def _over_the_rate(self) -> bool:
        window, rate = self._window, self.config.failure_rate
        return len(window) >= self._min_calls and (
            window.share(window.failures) >= rate or window.share(window.slow) >= rate
        )

    def _count(self, kind: CallKind) -> None:
        self.counts[kind] += 1
        if self._listener is not None:
            self._listener.on_call(self.name, kind)

    # States

    def _enter(self, state: CircuitState) -> None:
        self._state = state
        self._generation += 1
        self._trials = self._trials_succeeded = 0
        if state in (CircuitState.OPEN, CircuitState.FORCED_OPEN):
            self._opened_at = self.clock()
        elif state is not CircuitState.HALF_OPEN:
            self._opened_at = None
            self._window.clear()
        if self._listener is not None:
            self._listener.on_state(self.name, state)
        self._wake()

    def _left_open(self) -> float:
        assert self._opened_at is not None
        return self._opened_at + self.config.open_seconds - self.clock()

    def _admissible(self) -> float:
        """How many calls would be admitted now."""
        match self._state:
            case CircuitState.CLOSED | CircuitState.DISABLED:
                return math.inf
            case CircuitState.FORCED_OPEN:
                return 0
            case CircuitState.OPEN:
                return 0 if self._left_open() > 0 else self.config.trial_calls
            case CircuitState.HALF_OPEN:
                return self.config.trial_calls - self._trials

    # Waiters

    def _wake(self) -> None:
        """Wake as many waiters as might be admitted now, and see to the rest's next chance."""
        chances = self._admissible()
        while self._waiters and chances > 0:
            waiter, _ = self._waiters.popitem(last=False)
            if not waiter.done():
                waiter.set_result(None)
                chances -= 1
        self._arm()

    def _arm(self) -> None:
        """One timer for all waiters, and none where only an event can change anything."""
        self._disarm()
        if not self._waiters:
            return
        if self._admissible() > 0:
            delay = WAKE_INTERVAL
        elif self._state is CircuitState.OPEN:
            delay = self._left_open()
        else:
            return
        self._timer = asyncio.get_running_loop().call_later(delay, self._wake)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class CircuitBreakers:
    """The breakers of one worker, one for each service, made when first asked for."""

    def __init__(
        self,
        config: CircuitConfig | None = None,
        *,
        clock: Clock = time.monotonic,
        listener: CircuitListener | None = None,
    ) -> None:
        self._config = config or CircuitConfig()
        self._clock = clock
        self._listener = listener
        self._breakers: dict[str, CircuitBreaker] = {}

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        *,
        clock: Clock = time.monotonic,
        listener: CircuitListener | None = None,
    ) -> CircuitBreakers:
        return cls(CircuitConfig.from_settings(settings), clock=clock, listener=listener)

    def get(self, name: str) -> CircuitBreaker:
        """The breaker of a service, made if there is none. Names come from code alone."""
        breaker = self._breakers.get(name)
        if breaker is None:
            breaker = self._breakers[name] = CircuitBreaker(
                name, self._config, clock=self._clock, listener=self._listener
            )
        return breaker

    def find(self, name: str) -> CircuitBreaker | None:
        """The breaker of that name if there is one: for names from outside."""
        return self._breakers.get(name)

    def all(self) -> tuple[CircuitBreaker, ...]:
        """All breakers, by name."""
        return tuple(breaker for _, breaker in sorted(self._breakers.items()))
