"""How long the saboteur waits for what it hurt: outages are not held against it."""

from __future__ import annotations

from tests.chaos.saboteur import PROGRESS_WITHIN, _Patience


def test_time_counts_until_it_is_up() -> None:
    now = 100.0
    patience = _Patience(lambda: now)
    now += PROGRESS_WITHIN - 1
    assert not patience.ends(counts=True)
    now += 2
    assert patience.ends(counts=True)


def test_the_time_of_an_outage_does_not_count() -> None:
    now = 100.0
    patience = _Patience(lambda: now)
    now += 10 * PROGRESS_WITHIN
    assert not patience.ends(counts=False)
    now += PROGRESS_WITHIN - 1
    assert not patience.ends(counts=True)
    now += 2
    assert patience.ends(counts=True)
