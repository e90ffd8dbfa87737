from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.saga.retry import RetrySchedule

DELAYS = (1.0, 5.0, 15.0)


def test_one_attempt_more_than_delays() -> None:
    schedule = RetrySchedule(DELAYS)
    assert schedule.max_attempts == 4
    assert [schedule.delay_after(attempt) for attempt in (1, 2, 3)] == [1.0, 5.0, 15.0]
    assert schedule.longest == 15.0


def test_no_delays_mean_one_attempt() -> None:
    schedule = RetrySchedule(())
    assert schedule.max_attempts == 1
    assert schedule.longest == 0.0


@pytest.mark.parametrize("attempt", [-1, 0, 4, 5])
def test_nothing_follows_the_last_attempt(attempt: int) -> None:
    with pytest.raises(ValueError, match="no attempt follows"):
        RetrySchedule(DELAYS).delay_after(attempt)


@pytest.mark.parametrize("delays", [(-1.0,), (math.inf,), (math.nan,)])
def test_impossible_delays_are_refused(delays: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="finite"):
        RetrySchedule(delays)


@pytest.mark.parametrize(
    ("retry_after", "cap", "expected"),
    [
        (None, 120.0, 5.0),
        (0.0, 120.0, 5.0),
        (3.0, 120.0, 5.0),  # a minimum: it does not shorten the schedule's wait
        (60.0, 120.0, 60.0),
        (600.0, 120.0, 120.0),
        (600.0, 2.0, 5.0),  # the cap is for what the service asks, not for the schedule
        (math.inf, 120.0, 120.0),
        (-10.0, 120.0, 5.0),
    ],
)
def test_retry_after_is_a_capped_minimum(
    retry_after: float | None, cap: float, expected: float
) -> None:
    assert RetrySchedule(DELAYS).delay_after(2, retry_after=retry_after, cap=cap) == expected


def test_without_a_cap_retry_after_is_honoured_in_full() -> None:
    assert RetrySchedule(DELAYS).delay_after(1, retry_after=1e6) == 1e6


@given(draw=st.floats(0, 1, exclude_max=True), attempt=st.integers(1, 3))
def test_full_jitter_draws_from_the_whole_wait(draw: float, attempt: int) -> None:
    schedule = RetrySchedule(DELAYS, jitter=True, draw=lambda: draw)
    assert schedule.delay_after(attempt) == DELAYS[attempt - 1] * draw
    assert schedule.longest == 15.0


def test_retry_after_stands_above_jitter() -> None:
    schedule = RetrySchedule(DELAYS, jitter=True, draw=lambda: 0.5)
    assert schedule.delay_after(3, retry_after=10.0) == 10.0
    assert schedule.delay_after(3, retry_after=1.0) == 7.5


def test_no_jitter_unless_asked_for() -> None:
    assert RetrySchedule(DELAYS, draw=lambda: 0.0).delay_after(1) == 1.0
