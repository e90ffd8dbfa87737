"""Waiting for a breaker: who is woken, when, and what is left behind."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from streamapp.resilience import circuit_breaker
from streamapp.resilience.circuit_breaker import CircuitBreaker, CircuitConfig, Permit

LONG = 3600.0
DEADLINE = 20.0


class Clock:
    """Stands still until told otherwise, and counts how often it is asked."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked = 0

    def __call__(self) -> float:
        self.asked += 1
        return self.now


@pytest.fixture(autouse=True)
def no_second_chances(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiters are woken by what happens, not because others left their chance unused."""
    monkeypatch.setattr(circuit_breaker, "WAKE_INTERVAL", LONG)


def opened(clock: Callable[[], float], open_seconds: float = 60.0) -> CircuitBreaker:
    config = CircuitConfig(min_calls=1, open_seconds=open_seconds, trial_calls=2)
    breaker = CircuitBreaker("order", config, clock=clock)
    acquired(breaker).failure()
    assert breaker.try_acquire() is None
    return breaker


def half_opened(clock: Clock) -> tuple[CircuitBreaker, list[Permit]]:
    breaker = opened(clock)
    clock.now += 60
    return breaker, [acquired(breaker), acquired(breaker)]


def acquired(breaker: CircuitBreaker) -> Permit:
    permit = breaker.try_acquire()
    assert permit is not None
    return permit


async def waiting(breaker: CircuitBreaker, count: int) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(breaker.wait_for_change(LONG)) for _ in range(count)]
    await settled()
    assert breaker.snapshot()["waiting"] == count
    return tasks


async def settled() -> None:
    """Everything that is ready to run has run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def finish(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.wait_for(asyncio.gather(*tasks), DEADLINE)


async def test_no_wait_where_a_call_is_admitted() -> None:
    clock = Clock()
    closed = CircuitBreaker("order", clock=clock)
    await asyncio.wait_for(closed.wait_for_change(LONG), DEADLINE)
    breaker = opened(clock)
    clock.now += 60
    await asyncio.wait_for(breaker.wait_for_change(LONG), DEADLINE)
    permit = acquired(breaker)
    await asyncio.wait_for(breaker.wait_for_change(LONG), DEADLINE)
    permit.cancel()


async def test_returns_after_the_timeout() -> None:
    breaker = CircuitBreaker("order")
    breaker.force_open()
    await asyncio.wait_for(breaker.wait_for_change(0.01), DEADLINE)
    assert breaker.try_acquire() is None
    assert breaker.snapshot()["waiting"] == 0


async def test_returns_when_the_open_period_is_over() -> None:
    breaker = opened(asyncio.get_running_loop().time, open_seconds=0.05)
    await asyncio.wait_for(breaker.wait_for_change(LONG), DEADLINE)
    acquired(breaker).cancel()


async def test_the_injected_clock_decides_when_the_open_period_is_over() -> None:
    clock = Clock()
    breaker = opened(clock, open_seconds=0.001)
    (task,) = await waiting(breaker, 1)
    asked = clock.asked
    async with asyncio.timeout(DEADLINE):
        # Until its timer has gone off several times; the clock has no event for that.
        while clock.asked < asked + 10:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert not task.done()
    clock.now += 1
    await finish([task])


@pytest.mark.parametrize("action", ["reset", "disable"])
async def test_an_operator_wakes_all(action: str) -> None:
    breaker = opened(Clock())
    tasks = await waiting(breaker, 10)
    getattr(breaker, action)()
    await finish(tasks)


async def test_forcing_open_wakes_nobody() -> None:
    breaker = opened(Clock())
    tasks = await waiting(breaker, 2)
    breaker.force_open()
    await settled()
    assert not any(task.done() for task in tasks)
    breaker.reset()
    await finish(tasks)


async def test_closing_wakes_all() -> None:
    breaker, trials = half_opened(Clock())
    tasks = await waiting(breaker, 10)
    for trial in trials:
        trial.success()
    await finish(tasks)


async def test_a_trial_given_back_wakes_the_one_who_waits_longest() -> None:
    breaker, trials = half_opened(Clock())
    tasks = await waiting(breaker, 5)
    trials[0].cancel()
    await settled()
    assert [task.done() for task in tasks] == [True, False, False, False, False]
    acquired(breaker)
    breaker.reset()
    await finish(tasks)


async def test_the_end_of_the_open_period_wakes_as_many_as_there_are_trials() -> None:
    clock = Clock()
    breaker = opened(clock, open_seconds=0.001)
    tasks = await waiting(breaker, 5)
    clock.now += 1
    await finish(tasks[:2])
    await settled()
    assert not any(task.done() for task in tasks[2:])
    breaker.reset()
    await finish(tasks)


async def test_a_failed_trial_makes_them_wait_for_the_next_period() -> None:
    breaker, trials = half_opened(Clock())
    tasks = await waiting(breaker, 3)
    trials[0].failure()
    await settled()
    assert not any(task.done() for task in tasks)
    breaker.reset()
    await finish(tasks)


async def test_a_chance_left_unused_goes_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_breaker, "WAKE_INTERVAL", 0.001)
    breaker, trials = half_opened(Clock())
    tasks = await waiting(breaker, 5)
    trials[0].cancel()  # one place, which none of those who are woken takes
    await finish(tasks)


async def test_a_cancelled_waiter_does_not_swallow_the_chance() -> None:
    breaker, trials = half_opened(Clock())
    first, second = await waiting(breaker, 2)
    first.cancel()
    await settled()
    trials[0].cancel()
    await finish([second])


async def test_thousands_take_their_turns_without_waking_each_other() -> None:
    breaker, trials = half_opened(Clock())
    waits = 0

    async def take_a_turn() -> None:
        nonlocal waits
        while (permit := breaker.try_acquire()) is None:
            waits += 1
            await breaker.wait_for_change(LONG)
        permit.cancel()

    tasks = [asyncio.create_task(take_a_turn()) for _ in range(3000)]
    await settled()
    assert breaker.snapshot()["waiting"] == 3000
    trials[0].cancel()
    await finish(tasks)
    assert waits == 3000


async def test_waiters_that_are_gone_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    call_later, timers = loop.call_later, list[asyncio.TimerHandle]()

    def remembered(*args: Any) -> asyncio.TimerHandle:
        timers.append(call_later(*args))
        return timers[-1]

    monkeypatch.setattr(loop, "call_later", remembered)
    breaker = opened(Clock(), open_seconds=LONG)
    tasks = await waiting(breaker, 100)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert len(timers) > 100
    assert all(timer.cancelled() for timer in timers)
    await asyncio.gather(*(breaker.wait_for_change(0.001) for _ in range(100)))
    assert breaker.snapshot()["waiting"] == 0
    gone = weakref.ref(breaker)
    del breaker, tasks, task
    gc.collect()
    assert gone() is None  # no timer holds it
