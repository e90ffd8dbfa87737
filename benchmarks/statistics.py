"""From samples and instants to figures."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


class TooShort(Exception):
    """There is no stretch of time to measure a rate over: more messages are needed."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a worker: ``at`` in monotonic seconds, outcomes so far, CPU seconds so far."""

    at: float
    done: int
    cpu: float


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of several rounds, and the least and the greatest of them."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Raises ``ValueError`` where there are none."""
        if not values:
            raise ValueError("nothing was measured")
        return cls(median(values), min(values), max(values))

    def shown(self, digits: int = 0) -> str:
        """Median, and in brackets the range where there is one."""
        if self.least == self.most:
            return _number(self.median, digits)
        least, most = _number(self.least, digits), _number(self.most, digits)
        return f"{_number(self.median, digits)} ({least}-{most})"


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of the values do not exceed."""
    if not values:
        raise ValueError("nothing was measured")
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def rate_of_instants(instants: Sequence[float], until: float = 1.0) -> float:
    """Outcomes a second from the first outcome to the last (or to the share ``until`` of them).

    Those that came at the instant of the first one began before it, and are not counted: a first
    transaction of many would otherwise come for free. Raises ``TooShort``.
    """
    ordered = sorted(instants)[: max(math.ceil(until * len(instants)), 0)]
    after = len(ordered) - bisect_right(ordered, ordered[0]) if ordered else 0
    if not after:
        raise TooShort("all outcomes came at once")
    return after / (ordered[-1] - ordered[0])


def stretch(
    samples: Sequence[Sample], total: int, until: float = 1.0, beyond: int = 0
) -> tuple[Sample, Sample]:
    """The first sample with more than ``beyond`` outcomes, and the first with all of ``total`` (or
    the share ``until`` of them). Raises ``TooShort``."""
    first = next((each for each in samples if each.done > beyond), None)
    last = next((each for each in samples if each.done >= until * total), None)
    if first is None or last is None or last.done <= first.done:
        raise TooShort("it was over between two looks")
    return first, last


def rate_of_samples(first: Sample, last: Sample) -> float:
    """Outcomes a second between two samples."""
    return (last.done - first.done) / (last.at - first.at)


def cpu_per_thousand(first: Sample, last: Sample) -> float:
    """CPU seconds of the worker for 1,000 outcomes between two samples."""
    return (last.cpu - first.cpu) / (last.done - first.done) * 1000


def differences(right: dict[str, int], found: dict[str, int]) -> list[str]:
    """What is not as it has to be, a sentence each; also what nobody expected or counted."""
    return [
        f"{name}: {found.get(name)} instead of {right.get(name)}"
        for name in sorted(right.keys() | found.keys())
        if right.get(name) != found.get(name)
    ]
