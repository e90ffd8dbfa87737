"""The breaker's states, driven through its public face alone, with a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from streamapp.resilience.circuit_breaker import (
    CallKind,
    CircuitBreaker,
    CircuitBreakers,
    CircuitConfig,
    CircuitState,
    Permit,
)
from streamapp.settings import load

CONFIG = CircuitConfig(
    window_calls=4,
    window_seconds=100.0,
    min_calls=2,
    failure_rate=0.5,
    slow_call=5.0,
    open_seconds=60.0,
    trial_calls=2,
)


class Clock:
    """Stands still until told otherwise."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Told:
    """A listener that keeps what it was told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, CallKind]] = []
        self.states: list[tuple[str, CircuitState]] = []

    def on_call(self, name: str, kind: CallKind) -> None:
        self.calls.append((name, kind))

    def on_state(self, name: str, state: CircuitState) -> None:
        self.states.append((name, state))


class Script:
    """Carries out a case written in words, one for each thing that happens.

    ``ok``, ``fail``, ``slow``, ``slowfail``, ``cancel``: a whole call; ``begin``: a call is
    admitted and stays under way; ``end-ok`` and the like: the oldest such call ends; ``denied``:
    a call is asked for and not admitted; ``+n``: n seconds pass; ``=state``: the state is that.
    """

    def __init__(self, config: CircuitConfig) -> None:
        self.clock = Clock()
        self.breaker = CircuitBreaker("order", config, clock=self.clock)
        self.under_way: list[Permit] = []

    def run(self, text: str) -> None:
        for number, word in enumerate(text.split(), start=1):
            self._do(word, f"word {number}, {word}, of: {text}")

    def _do(self, word: str, where: str) -> None:
        operators: dict[str, Callable[[], None]] = {
            "reset": self.breaker.reset,
            "force-open": self.breaker.force_open,
            "disable": self.breaker.disable,
        }
        if word.startswith("+"):
            self.clock.now += float(word)
        elif word.startswith("="):
            assert self.breaker.state.value == word[1:], where
        elif word in operators:
            operators[word]()
        elif word == "denied":
            assert self.breaker.try_acquire() is None, where
        elif word == "begin":
            self.under_way.append(self._acquired(where))
        elif word.startswith("end-"):
            self._end(self.under_way.pop(0), word.removeprefix("end-"))
        else:
            self._end(self._acquired(where), word)

    def _acquired(self, where: str) -> Permit:
        permit = self.breaker.try_acquire()
        assert permit is not None, where
        return permit

    def _end(self, permit: Permit, how: str) -> None:
        if how.startswith("slow"):
            self.clock.now += 5.5
        if how == "cancel":
            permit.cancel()
        elif how.endswith("fail"):
            permit.failure()
        else:
            assert how in ("ok", "slow")
            permit.success()


CASES = {
    "starts closed": "=closed ok",
    "one failure is below the minimum of calls": "fail =closed",
    "opens at the failure rate": "ok fail =open denied",
    "stays closed below the failure rate": "ok ok ok fail =closed",
    "a success may complete the minimum": "fail ok =open",
    "opens at the rate of slow calls": "ok slow =open denied",
    "a slow failure is a failure": "ok ok fail slowfail =open",
    "a slow failure is slow": "ok ok slow slowfail =open",
    "slow and failed calls are not added up": "ok ok slow fail =closed",
    "the oldest call leaves a full window": "ok ok ok ok fail =closed fail =open",
    "old failures are pushed out": "ok ok ok fail ok ok ok ok fail =closed fail =open",
    "calls within the window's length count": "fail +99 fail =open",
    "calls expire": "fail +100 fail =closed fail =open",
    "slow calls expire": "slow +100 slow =closed slow =open",
    "cancelled calls count as nothing": "cancel cancel fail cancel =closed fail =open",
    "stays open until the time is over": "fail fail =open +59 denied =open",
    "is half-open when asked after it": "fail fail +60 =open begin =half_open",
    "admits its trial calls and no more": "fail fail +60 begin begin denied denied",
    "closes when all trials succeed": "fail fail +60 ok =half_open ok =closed",
    "closes with an empty window": "fail fail +60 ok ok fail =closed fail =open",
    "a finished trial frees no place": "fail fail +60 ok begin denied",
    "one failed trial opens": "fail fail +60 ok fail =open denied",
    "the first failed trial opens at once": "fail fail +60 begin begin end-fail =open denied",
    "a slow trial opens": "fail fail +60 slow =open denied",
    "opens for the whole time again": "fail fail +60 fail +59 denied +1 begin =half_open",
    "a cancelled trial gives its place back": "fail fail +60 begin begin end-cancel begin denied",
    "cancelled trials decide nothing": (
        "fail fail +60 cancel cancel cancel =half_open ok ok =closed"
    ),
    "a failure from before opening is late": "begin fail fail +60 ok end-fail =half_open",
    "a success from before opening is no trial": (
        "begin begin fail fail +60 begin end-ok end-ok =half_open"
    ),
    "a trial of an older period is late": (
        "fail fail +60 begin begin end-fail +60 begin end-fail =half_open end-ok =half_open"
    ),
    "a late cancel gives no place back": "begin fail fail +60 begin begin end-cancel denied",
    "late failures do not count once closed": (
        "begin begin fail fail +60 ok ok end-fail end-fail =closed fail =closed"
    ),
    "forced open admits nothing": "force-open =forced_open denied +1000 denied =forced_open",
    "reset ends forced open": "force-open reset =closed fail =closed",
    "results do not end forced open": "begin force-open end-ok =forced_open denied",
    "disabled admits all": "disable fail fail fail fail fail =disabled begin",
    "force-open ends disabled": "disable force-open denied",
    "disable ends open": "fail fail disable ok =disabled",
    "reset closes an open one": "fail fail =open reset =closed ok",
    "reset empties the window": "fail reset fail =closed fail =open",
    "reset makes trials late": "fail fail +60 begin reset end-fail fail =closed",
    "force-open outlives the open period": "fail fail force-open +60 denied",
}


@pytest.mark.parametrize("case", CASES)
def test_states(case: str) -> None:
    Script(CONFIG).run(CASES[case])


def test_a_minimum_above_the_window_means_a_full_window() -> None:
    script = Script(replace(CONFIG, window_calls=3, min_calls=50))
    script.run("fail fail =closed fail =open")


def test_duration_counts_from_begin() -> None:
    script = Script(CONFIG)
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
    breaker = Script(CONFIG).breaker
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
    script = Script(CONFIG)
    script.run("fail fail +60 begin begin")
    permit = script.under_way[0]
    permit.cancel()
    permit.cancel()
    script.run("begin denied")


def test_seconds_until_retry() -> None:
    script = Script(CONFIG)
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
    clock = Clock()
    breaker = CircuitBreaker("order", replace(CONFIG, min_calls=4), clock=clock, listener=told)
    script = Script(CONFIG)
    script.clock, script.breaker = clock, breaker
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
    assert {kind: n for kind, n in breaker.counts.items() if n} == {
        CallKind.SUCCESS: 1,
        CallKind.SLOW: 1,
        CallKind.FAILURE: 2,
        CallKind.CANCELLED: 2,
        CallKind.REJECTED: 1,
        CallKind.LATE: 2,
    }


def test_the_listener_is_told_every_state() -> None:
    told = Told()
    script = Script(CONFIG)
    script.breaker = CircuitBreaker("order", CONFIG, clock=script.clock, listener=told)
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
    script = Script(CONFIG)
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
