"""When a call is wanted: the time that the entities name, if it can be read without guessing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

from streamapp.intents.entities import lookup

_TIME = re.compile(r"([0-9]{1,2})(?::([0-9]{2}))?(?::[0-9]{2})?\s*([ap])?\.?(?:m\.?)?")


def requested_start(entities: Mapping[str, Any], timezone: str) -> datetime | None:
    """The start of the wanted call in UTC; None unless date and time can both be read.

    Read are dates like ``2026-12-01``, times like ``15:00`` and ``3:30 pm``, and both in one like
    ``2026-12-01T15:00+01:00``. What names no zone is meant in ``timezone``.
    """
    day, hour = lookup(entities, "preferred_date"), lookup(entities, "preferred_time")
    for value in (hour, day):
        whole = _datetime(value)
        if whole is not None:
            return _utc(whole, timezone)
    found_day, found_hour = _date(day), _time(hour)
    if found_day is None or found_hour is None:
        return None
    return _utc(datetime.combine(found_day, found_hour), timezone)


def _utc(moment: datetime, timezone: str) -> datetime | None:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=ZoneInfo(timezone))
    try:
        return moment.astimezone(UTC)
    except OverflowError:  # at the ends of the calendar
        return None


def _datetime(value: Any) -> datetime | None:
    if not isinstance(value, str) or not re.search(r"[0-9][T ][0-9]", value):
        return None
    try:
        return datetime.fromisoformat(value.strip())
    except ValueError:
        return None


def _date(value: Any) -> date | None:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value.strip()):
        return None
    try:
        return date.fromisoformat(value.strip())
    except ValueError:
        return None


def _time(value: Any) -> time | None:
    if not isinstance(value, str):
        return None
    match = _TIME.fullmatch(value.strip().casefold())
    if match is None:
        return None
    hour, minute, half = int(match[1]), int(match[2] or 0), match[3]
    if half is None and match[2] is None:
        return None  # a number alone may be anything
    if half is not None:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half == "p" else 0)
    try:
        return time(hour, minute)
    except ValueError:
        return None
