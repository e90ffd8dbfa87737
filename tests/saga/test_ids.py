"""Ids: the same for the same, different for everything else."""

from __future__ import annotations

from itertools import combinations

import pytest

from streamapp.saga.ids import Direction, dead_letter_id, idempotency_key, row_id

FORWARD: Direction = "forward"
BACKWARD: Direction = "compensate"


def test_no_two_effects_have_the_same_key() -> None:
    """Another message, run, action, sub-step or direction is another effect: a new order after a
    redrive must not be the replay of the one that was cancelled."""
    keys = [
        idempotency_key("p-1", 0, "order", "service", FORWARD),
        idempotency_key("p-2", 0, "order", "service", FORWARD),
        idempotency_key("p-1", 1, "order", "service", FORWARD),
        idempotency_key("p-1", 0, "other", "service", FORWARD),
        idempotency_key("p-1", 0, "order", "email", FORWARD),
        idempotency_key("p-1", 0, "order", "service", BACKWARD),
    ]
    assert all(one != other for one, other in combinations(keys, 2))
    assert idempotency_key("p-1", 0, "order", "service", FORWARD) == keys[0]


def test_parts_do_not_run_into_each_other() -> None:
    assert idempotency_key("p", 0, "ab", "c", FORWARD) != idempotency_key(
        "p", 0, "a", "bc", FORWARD
    )


@pytest.mark.parametrize("kind", ["task", "activity", "message"])
def test_rows_of_two_runs_are_two(kind: str) -> None:
    assert row_id(kind, "p-1", 0, "a") != row_id(kind, "p-1", 1, "a")
    assert row_id(kind, "p-1", 0, "a") == row_id(kind, "p-1", 0, "a")
    assert row_id("task", "p-1", 0, "a") != row_id("activity", "p-1", 0, "a")


def test_letters_are_told_apart_by_source_action_and_run() -> None:
    ids = [
        dead_letter_id("in:0:1", 5, "", 0),
        dead_letter_id("in:0:2", 5, "", 0),
        dead_letter_id("in:0:1", 6, "", 0),
        dead_letter_id("in:0:1", 5, "a", 0),
        dead_letter_id("in:0:1", 5, "", 1),
    ]
    assert len(set(ids)) == 5
