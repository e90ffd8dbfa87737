"""The breaker against a model that keeps everything and computes anew each time."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
)

from streamapp.resilience.circuit_breaker import CircuitBreaker, CircuitConfig, Permit

CONFIG = CircuitConfig(
    window_calls=5,
    window_seconds=30,
    min_calls=3,
    failure_rate=0.6,
    slow_call=4,
    open_seconds=20,
    trial_calls=2,
)


@dataclass
class Call:
    permit: Permit
    period: int
    began: int


class Model(RuleBasedStateMachine):
    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.breaker = CircuitBreaker("order", CONFIG, clock=lambda: float(self.now))
        self.state = "closed"
        self.period = 0
        self.entered = 0
        self.results: list[tuple[int, bool, bool]] = []  # of this period: when, failed, slow
        self.under_way = 0  # of this period

    def enter(self, state: str) -> None:
        self.state = state
        self.period += 1
        self.entered = self.now
        self.results = []
        self.under_way = 0

    def admits(self) -> bool:
        if self.state == "open":
            return self.now >= self.entered + 20
        if self.state == "half_open":
            return self.under_way + len(self.results) < 2
        return self.state in ("closed", "disabled")

    def window(self) -> list[tuple[int, bool, bool]]:
        return [result for result in self.results[-5:] if result[0] > self.now - 30]

    @rule(seconds=st.integers(1, 25))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(target=calls)
    def ask(self) -> object:
        admitted = self.admits()
        permit = self.breaker.try_acquire()
        assert (permit is not None) == admitted
        if permit is None:
            return multiple()
        if self.state == "open":
            self.enter("half_open")
        self.under_way += 1
        return Call(permit, self.period, self.now)

    @rule(call=calls)
    def begin(self, call: Call) -> None:
        call.permit.begin()
        call.began = self.now

    @rule(call=consumes(calls))
    def cancel(self, call: Call) -> None:
        call.permit.cancel()
        if call.period == self.period:
            self.under_way -= 1

    @rule(call=consumes(calls), failed=st.booleans())
    def end(self, call: Call, failed: bool) -> None:
        if failed:
            call.permit.failure()
        else:
            call.permit.success()
        if call.period != self.period:
            return
        self.under_way -= 1
        slow = self.now - call.began > 4
        self.results.append((self.now, failed, slow))
        if self.state == "half_open":
            if failed or slow:
                self.enter("open")
            elif len(self.results) == 2:
                self.enter("closed")
        elif self.state == "closed":
            window = self.window()
            failures = sum(result[1] for result in window)
            slow_calls = sum(result[2] for result in window)
            if len(window) >= 3 and max(failures, slow_calls) / len(window) >= 0.6:
                self.enter("open")

    @rule()
    def reset(self) -> None:
        self.breaker.reset()
        self.enter("closed")

    @precondition(lambda self: self.state == "closed")
    @rule()
    def force_open(self) -> None:
        self.breaker.force_open()
        self.enter("forced_open")

    @precondition(lambda self: self.state == "closed")
    @rule()
    def disable(self) -> None:
        self.breaker.disable()
        self.enter("disabled")

    @invariant()
    def agrees(self) -> None:
        snapshot = self.breaker.snapshot()
        assert snapshot["state"] == self.state
        if self.state == "closed":
            window = self.window()
            assert snapshot["calls"] == len(window)
            assert snapshot["failures"] == sum(result[1] for result in window)
            assert snapshot["slow"] == sum(result[2] for result in window)
        retry = self.breaker.seconds_until_retry()
        left = self.entered + 20 - self.now
        assert retry == (left if self.state == "open" and left > 0 else None)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
