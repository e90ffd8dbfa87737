"""Turns at a rate: in the order of asking, kept by key, never closer than the interval."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from streamapp.services.pace import FORGET_AFTER, Pace


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def pace(longest: float = 10.0) -> tuple[Pace, Clock]:
    clock = Clock()
    return Pace(1.0, longest, clock), clock


def test_the_first_goes_at_once_the_others_one_after_the_other() -> None:
    turns, _ = pace()
    assert [turns.wait("a", key) for key in "xyz"] == [0.0, 1.0, 2.0]
    assert turns.wait("b", "x") == 0.0


def test_who_asks_again_has_the_same_turn() -> None:
    turns, clock = pace()
    assert [turns.wait("a", key) for key in "xyyzy"] == [0.0, 1.0, 1.0, 2.0, 1.0]
    clock.now += 1.0
    assert turns.wait("a", "y") == 0.0
    assert turns.wait("a", "y") == 2.0, "it is over: the next is another, behind z"


def test_a_turn_too_far_away_is_not_given() -> None:
    turns, clock = pace(longest=2.0)
    assert [turns.wait("a", key) for key in "vwxyz"] == [0.0, 1.0, 2.0, 2.0, 2.0]
    clock.now += 2.0
    assert [turns.wait("a", key) for key in "wxyz"] == [0.0, 1.0, 1.0, 2.0]


def test_a_place_that_is_held_opens_for_one_after_the_other() -> None:
    turns, clock = pace()
    assert [turns.wait("a", key) for key in "xyz"] == [0.0, 1.0, 2.0]
    turns.hold("a", 5.0)
    assert [turns.wait("a", key) for key in "yzw"] == [5.0, 6.0, 7.0]
    turns.hold("a", 1.0)
    assert turns.wait("a", "y") == 5.0, "nothing comes earlier for it"
    clock.now += 5.0
    assert turns.wait("a", "y") == 0.0
    assert turns.wait("b", "y") == 0.0


def test_who_never_comes_is_forgotten() -> None:
    turns, clock = pace()
    for key in "xyz":
        turns.wait("a", key)
    clock.now += FORGET_AFTER + 10
    turns.wait("a", "x")
    turns.wait("a", "w")
    assert len(turns._turns) == 1


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 3)), max_size=60))
def test_turns_are_never_closer_than_the_interval(asked: list[tuple[str, float]]) -> None:
    turns, clock = pace(longest=100.0)
    gone = []
    for key, seconds in asked:
        clock.now += seconds
        if turns.wait("a", key) == 0.0:
            gone.append(clock.now)
    assert bool(gone) == bool(asked)
    # Sums of floats may fall short of the interval by their last digits.
    assert all(after - before > 0.999 for before, after in pairwise(gone))


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8, unique=True))
def test_waiting_as_told_everybody_goes_in_the_order_of_asking(keys: list[str]) -> None:
    turns, clock = pace(longest=100.0)
    waits = {key: turns.wait("a", key) for key in keys}
    gone = [keys[0]]
    for key in sorted(keys[1:], key=waits.__getitem__):
        clock.now = 1000.0 + waits[key]
        assert turns.wait("a", key) == 0.0
        gone.append(key)
    assert gone == keys
