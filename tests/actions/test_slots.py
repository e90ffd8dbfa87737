"""The time of a wanted call: read where it says one thing, else left to people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.actions.slots import requested_start


def start(day: Any, hour: Any, timezone: str = "UTC") -> datetime | None:
    return requested_start({"preferred_date": day, "preferredTime": hour}, timezone)


def at(hour: int, minute: int = 0, day: int = 1) -> datetime:
    return datetime(2026, 12, day, hour, minute, tzinfo=UTC)


@pytest.mark.parametrize(
    ("hour", "read"),
    [
        ("15:00", at(15)),
        (" 9:05 ", at(9, 5)),
        ("15:30:59", at(15, 30)),
        ("3pm", at(15)),
        ("3 PM", at(15)),
        ("3:30 p.m.", at(15, 30)),
        ("12 am", at(0)),
        ("12:15 pm", at(12, 15)),
        ("0:00", at(0)),
        ("2026-12-01T15:00", at(15)),
        ("2026-12-02 15:00+01:00", at(14, day=2)),
        ("2026-12-02T15:00:00Z", at(15, day=2)),
    ],
)
def test_times_that_are_read(hour: str, read: datetime) -> None:
    assert start("2026-12-01", hour) == read


_NO_TIMES: tuple[Any, ...] = (
    *("15", "afternoon", "25:00", "13 pm", "0 am", "3", "3:5", "", None),
    *(15, ["15:00"], True, "15:60", "noon 12:00"),
)
_NO_DATES: tuple[Any, ...] = (
    *("tomorrow", "01/12/2026", "2026-13-01", 20261201, "20261201", "2026-02-30", None),
)


@pytest.mark.parametrize("hour", _NO_TIMES)
def test_times_that_are_left_to_people(hour: Any) -> None:
    assert start("2026-12-01", hour) is None


@pytest.mark.parametrize("day", _NO_DATES)
def test_dates_that_are_left_to_people(day: Any) -> None:
    assert start(day, "15:00") is None


def test_a_date_with_a_time_needs_no_other() -> None:
    assert start("2026-12-01T15:00", None) == at(15)


def test_what_names_no_zone_is_meant_where_the_business_is() -> None:
    assert start("2026-12-01", "15:00", "Europe/Berlin") == at(14)
    assert start("2026-12-01T15:00+00:00", None, "Europe/Berlin") == at(15)
    assert start("0001-01-01", "00:00", "Asia/Tokyo") is None
    assert start("9999-12-31", "23:59", "America/New_York") is None


@given(
    st.text() | st.integers() | st.none(),
    st.text() | st.from_regex(r"[0-9:apm. T+-]{1,20}", fullmatch=True) | st.none(),
)
def test_nothing_breaks_it(day: Any, hour: Any) -> None:
    found = start(day, hour)
    assert found is None or found.tzinfo is UTC
