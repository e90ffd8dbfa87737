"""The schedule of a chaos run: repeated by its seed, and with every kind of fault in it."""

from __future__ import annotations

import pytest

from tests.chaos.run import planned
from tests.chaos.schedule import (
    AT_MOST,
    JOIN_KINDS,
    WORKER,
    WORKER_KINDS,
    WORKER_PAUSE,
    FaultKind,
    schedule,
)

MINUTE = 60.0


def test_a_seed_gives_the_same_schedule_again_and_another_one_another() -> None:
    assert schedule(7, MINUTE, 2) == schedule(7, MINUTE, 2)
    assert schedule(7, MINUTE, 2) != schedule(8, MINUTE, 2)


@pytest.mark.parametrize("workers", [2, 3])
def test_a_run_of_a_minute_and_a_half_has_every_kind(workers: int) -> None:
    for seed in range(200):
        count = planned(schedule(seed, 1.5 * MINUTE, workers))
        assert [kind for kind in FaultKind if not count[kind]] == [], seed


def test_workers_are_hurt_some_seconds_after_they_are_ready() -> None:
    faults = schedule(7, 30 * MINUTE, 2)
    pauses = [fault.pause for n in (1, 2) for fault in faults[WORKER.format(n)]]
    low, high = WORKER_PAUSE
    assert all(low <= pause <= high for pause in pauses)
    assert min(pauses) < low + 1
    assert max(pauses) > high - 1


def test_each_worker_meets_every_kind_in_a_long_run() -> None:
    faults = schedule(7, 10 * MINUTE, 4)
    for number in range(1, 5):
        kinds = {fault.kind for fault in faults[WORKER.format(number)]}
        assert kinds == set(WORKER_KINDS)


def test_no_more_workers_join_than_there_may_be() -> None:
    assert not set(JOIN_KINDS) & set(planned(schedule(7, 10 * MINUTE, AT_MOST)))


def test_a_longer_run_has_more_faults() -> None:
    assert (
        planned(schedule(7, 10 * MINUTE, 2)).total()
        > 3 * planned(schedule(7, 2 * MINUTE, 2)).total()
    )
