"""What a breaker tells of itself, and the registry. Its states are in ``test_circuit_table``."""

from __future__ import annotations

from dataclasses import replace

import pytest

from streamapp.resilience.circuit_breaker import (
    CallKind,
    CircuitBreakers,
    CircuitConfig,
    CircuitState,
)
from streamapp.settings import load
from tests.resilience.circuit_script import CONFIG, Clock, Script


class Told:
    """A listener that keeps what it was told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, CallKind]] = []
        self.states: list[tuple[str, CircuitState]] = []

    def on_call(self, name: str, kind: CallKind) -> None:
        self.calls.append((name, kind))

    def on_state(self, name: str, state: CircuitState) -> None:
        self.states.append((name, state))


def test_a_minimum_above_the_window_means_a_full_window() -> None:
    script = Script(replace(CONFIG, window_calls=3, min_calls=50))
    script.run("fail fail =closed fail =open")


def test_duration_counts_from_begin() -> None:
    script = Script()
    for _ in range(2):
        permit = script.breaker.try_acquire()
        assert permit is not None
        script.clock.now += 50  # waiting for the journal, not for the service
        permit.begin()
        script.clock.now += 5  # not longer than what is slow
        permit.success()
    assert script.breaker.snapshot()["slow"] == 0
    permit = script.breaker.try_acquire()
    assert permit is not None
    script.clock.now += 5.1
    permit.success()
    assert script.breaker.snapshot()["slow"] == 1


@pytest.mark.parametrize("first", ["success", "failure", "cancel"])
def test_the_first_report_of_a_permit_counts_alone(first: str) -> None:
    breaker = Script().breaker
    permit = breaker.try_acquire()
    assert permit is not None
    getattr(permit, first)()
    before = breaker.snapshot()
    permit.success()
    permit.failure()
    permit.cancel()
    assert breaker.snapshot() == before
    assert sum(breaker.counts.values()) == 1


def test_a_trial_is_given_back_once() -> None:
    script = Script()
    script.run("fail fail +60 begin begin")
    permit = script.under_way[0]
    permit.cancel()
    permit.cancel()
    script.run("begin denied")


def test_seconds_until_retry() -> None:
    script = Script()
    breaker = script.breaker
    assert breaker.seconds_until_retry() is None
    script.run("fail fail +20")
    assert breaker.seconds_until_retry() == 40
    script.run("+40")
    assert breaker.seconds_until_retry() is None
    script.run("begin begin denied")
    assert breaker.seconds_until_retry() is None
    script.run("force-open")
    assert breaker.seconds_until_retry() is None


def test_every_call_is_of_one_kind() -> None:
    told = Told()
    script = Script(replace(CONFIG, min_calls=4), told)
    script.run("ok slow fail cancel begin begin begin slowfail denied end-ok end-fail end-cancel")
    assert [kind.value for _, kind in told.calls] == [
        "success",
        "slow",
        "failure",
        "cancelled",
        "failure",
        "rejected",
        "late",
        "late",
        "cancelled",
    ]
    assert {kind: n for kind, n in script.breaker.counts.items() if n} == {
        CallKind.SUCCESS: 1,
        CallKind.SLOW: 1,
        CallKind.FAILURE: 2,
        CallKind.CANCELLED: 2,
        CallKind.REJECTED: 1,
        CallKind.LATE: 2,
    }


def test_the_listener_is_told_every_state() -> None:
    told = Told()
    script = Script(listener=told)
    script.run("fail fail +60 fail +60 ok ok force-open disable reset")
    assert [name for name, _ in told.states] == ["order"] * len(told.states)
    assert [state.value for _, state in told.states] == [
        "closed",
        "open",
        "half_open",
        "open",
        "half_open",
        "closed",
        "forced_open",
        "disabled",
        "closed",
    ]


def test_snapshot_of_a_closed_breaker_forgets_what_is_too_old() -> None:
    script = Script(replace(CONFIG, min_calls=4))
    script.run("fail +50 ok ok slow")
    assert script.breaker.snapshot() == {
        "name": "order",
        "state": "closed",
        "calls": 4,
        "failures": 1,
        "slow": 1,
        "failure_rate": 0.25,
        "slow_rate": 0.25,
        "opened_seconds_ago": None,
        "seconds_until_retry": None,
        "trials": 0,
        "trials_succeeded": 0,
        "waiting": 0,
        "counts": {
            "success": 2,
            "failure": 1,
            "slow": 1,
            "rejected": 0,
            "cancelled": 0,
            "late": 0,
        },
    }
    script.run("+50")
    assert script.breaker.snapshot()["failures"] == 0
    script.run("+100")
    assert script.breaker.snapshot()["calls"] == 0
    assert script.breaker.snapshot()["failure_rate"] == 0.0


def test_snapshot_of_an_open_and_a_half_open_breaker() -> None:
    script = Script()
    script.run("fail fail +25")
    snapshot = script.breaker.snapshot()
    assert (snapshot["opened_seconds_ago"], snapshot["seconds_until_retry"]) == (25, 35)
    script.run("+35 ok begin")
    snapshot = script.breaker.snapshot()
    assert (snapshot["trials"], snapshot["trials_succeeded"]) == (2, 1)
    assert snapshot["opened_seconds_ago"] == 60
    script.run("end-ok =closed")
    assert script.breaker.snapshot()["opened_seconds_ago"] is None


def test_registry_makes_one_breaker_for_each_service() -> None:
    told = Told()
    breakers = CircuitBreakers(CONFIG, clock=Clock(), listener=told)
    assert breakers.find("order") is None
    order = breakers.get("order")
    email = breakers.get("email")
    assert breakers.get("order") is order
    assert breakers.find("order") is order
    assert breakers.all() == (email, order)
    assert order.config == CONFIG
    assert told.states == [("order", CircuitState.CLOSED), ("email", CircuitState.CLOSED)]


def test_registry_takes_its_config_from_the_settings() -> None:
    breakers = CircuitBreakers.from_settings(
        load(
            {
                "STREAMAPP_CIRCUIT_WINDOW_CALLS": "7",
                "STREAMAPP_CIRCUIT_WINDOW_SECONDS": "8",
                "STREAMAPP_CIRCUIT_MIN_CALLS": "3",
                "STREAMAPP_CIRCUIT_FAILURE_RATE": "0.25",
                "STREAMAPP_CIRCUIT_SLOW_CALL": "2",
                "STREAMAPP_CIRCUIT_OPEN_SECONDS": "9",
                "STREAMAPP_CIRCUIT_TRIAL_CALLS": "4",
            }
        )
    )
    assert breakers.get("order").config == CircuitConfig(7, 8, 3, 0.25, 2, 9, 4)
