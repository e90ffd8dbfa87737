"""Figures from samples and instants."""

from __future__ import annotations

import pytest

from benchmarks.statistics import (
    Sample,
    Spread,
    TooShort,
    cpu_per_thousand,
    differences,
    percentile,
    rate_of_instants,
    rate_of_samples,
    stretch,
)


def test_a_spread_is_the_median_and_the_range() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert Spread.of([1.0, 2.0]).median == 1.5
    with pytest.raises(ValueError, match="nothing"):
        Spread.of([])


def test_a_spread_shows_its_range_where_there_is_one() -> None:
    assert Spread(1234.6, 1000.0, 2000.4).shown() == "1,235 (1,000-2,000)"
    assert Spread(0.5, 0.5, 0.5).shown(2) == "0.50"


@pytest.mark.parametrize(
    ("share", "value"), [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0), (0.001, 1.0)]
)
def test_a_percentile_is_one_of_the_values(share: float, value: float) -> None:
    assert percentile([float(n) for n in range(100, 0, -1)], share) == value


def test_of_few_values_the_highest_percentile_is_the_greatest() -> None:
    assert percentile([1.0, 5.0, 2.0], 0.99) == 5.0
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 0.5)


def test_a_rate_goes_from_the_first_outcome_to_the_last() -> None:
    assert rate_of_instants([10.0, 10.5, 11.0, 12.0]) == pytest.approx(3 / 2)


def test_outcomes_of_the_first_instant_do_not_count() -> None:
    """A transaction of many began before its instant."""
    assert rate_of_instants([1.0] * 500 + [2.0] * 100) == pytest.approx(100.0)


def test_a_rate_up_to_a_share_leaves_the_last_outcomes_out() -> None:
    instants = [float(n) for n in range(100)] + [1000.0] * 5
    assert rate_of_instants(instants, until=0.95) == pytest.approx(1.0)
    assert rate_of_instants(instants) == pytest.approx(104 / 1000)


@pytest.mark.parametrize("instants", [[], [1.0], [1.0, 1.0]])
def test_no_rate_without_a_stretch_of_time(instants: list[float]) -> None:
    with pytest.raises(TooShort):
        rate_of_instants(instants)


SAMPLES = [
    Sample(0.0, 0, 5.0),
    Sample(1.0, 0, 6.0),
    Sample(2.0, 100, 6.5),
    Sample(3.0, 500, 7.0),
    Sample(4.0, 1000, 8.5),
    Sample(9.0, 1000, 8.6),
]


def test_start_up_and_what_comes_after_the_end_are_left_out() -> None:
    first, last = stretch(SAMPLES, 1000)
    assert (first.at, last.at) == (2.0, 4.0)
    assert rate_of_samples(first, last) == pytest.approx(450.0)
    assert cpu_per_thousand(first, last) == pytest.approx(2.0 / 900 * 1000)


def test_a_stretch_may_begin_and_end_in_the_middle() -> None:
    first, last = stretch(SAMPLES, 1000, beyond=100)
    assert (first.at, last.at) == (3.0, 4.0)
    first, last = stretch(SAMPLES, 1000, until=0.5)
    assert (first.at, last.at) == (2.0, 3.0)


@pytest.mark.parametrize("samples", [[], SAMPLES[:2], [Sample(1.0, 1000, 1.0)]])
def test_no_stretch_between_two_looks(samples: list[Sample]) -> None:
    with pytest.raises(TooShort):
        stretch(samples, 1000)


def test_a_right_end_state_has_no_differences() -> None:
    assert differences({"orders": 3, "committed": 5}, {"committed": 5, "orders": 3}) == []


@pytest.mark.parametrize(
    "found",
    [
        {"orders": 2, "committed": 5},  # one lost
        {"orders": 4, "committed": 5},  # one doubled
        {"orders": 3},  # not counted
        {"orders": 3, "committed": 5, "letters": 1},  # not expected
    ],
)
def test_any_other_end_state_is_refused(found: dict[str, int]) -> None:
    assert len(differences({"orders": 3, "committed": 5}, found)) == 1
