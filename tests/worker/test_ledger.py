"""The ledger: only a finished prefix may be committed, whatever order work ends in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.worker.ledger import Ledger


def ledger(*offsets: int) -> Ledger:
    made = Ledger()
    for offset in offsets:
        made.add(offset)
    return made


@pytest.mark.parametrize(
    ("taken_in", "finished", "committable"),
    [
        ([], [], None),
        ([0], [], 0),
        ([7], [], 7),
        ([7], [7], 8),
        ([0, 1, 2], [0], 1),
        ([0, 1, 2], [1], 0),
        ([0, 1, 2], [2, 1], 0),
        ([0, 1, 2], [2, 0], 1),
        ([0, 1, 2], [2, 1, 0], 3),
        # Gaps, as compaction and transactions leave them.
        ([3, 9], [3], 9),
        ([3, 9], [9], 3),
        ([3, 9, 40], [9, 3], 40),
        ([3, 9, 40], [3, 40], 9),
        ([3, 9, 40], [40, 9, 3], 41),
    ],
)
def test_the_offset_to_commit(
    taken_in: list[int], finished: list[int], committable: int | None
) -> None:
    made = ledger(*taken_in)
    for offset in finished:
        made.finish(offset)
    assert made.committable == committable


def test_what_is_held_and_what_is_unfinished() -> None:
    made = ledger(0, 1, 2, 3)
    made.finish(2)
    made.finish(1)
    assert (made.held, made.unfinished) == (4, 2)
    made.finish(0)
    assert (made.held, made.unfinished) == (1, 1)
    made.finish(3)
    assert (made.held, made.unfinished) == (0, 0)


@pytest.mark.parametrize("repeated", [5, 4, 0])
def test_an_offset_that_does_not_follow_is_refused(repeated: int) -> None:
    made = ledger(3, 5)
    with pytest.raises(ValueError, match=f"offset {repeated} after 5"):
        made.add(repeated)
    assert (made.committable, made.held) == (3, 2)
    made.finish(3)
    made.finish(5)
    with pytest.raises(ValueError, match="after 5"):
        made.add(repeated)


@pytest.mark.parametrize(
    "offset",
    [
        pytest.param(2, id="before the first"),
        pytest.param(7, id="in a gap"),
        pytest.param(5, id="finished already"),
        pytest.param(3, id="acknowledged already"),
        pytest.param(99, id="beyond the last"),
    ],
)
def test_what_is_not_pending_cannot_be_finished(offset: int) -> None:
    made = ledger(3, 5, 6, 9)
    made.finish(3)
    made.finish(6)
    if offset == 5:
        made.finish(5)
    before = (made.committable, made.held, made.unfinished)
    with pytest.raises(ValueError, match=f"offset {offset} is not pending"):
        made.finish(offset)
    assert (made.committable, made.held, made.unfinished) == before
    made.finish(9)
    assert made.unfinished == (0 if offset == 5 else 1)


def test_an_empty_ledger_finishes_nothing() -> None:
    with pytest.raises(ValueError, match="not pending"):
        Ledger().finish(0)


@given(st.data())
def test_only_the_finished_prefix_may_be_committed(data: st.DataObject) -> None:
    gaps = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=40), "distances")
    offsets = [sum(gaps[: n + 1]) - 1 for n in range(len(gaps))]
    made, taken, open_ = Ledger(), 0, set[int]()
    before = -1
    while taken < len(offsets) or open_:
        if taken < len(offsets) and (not open_ or data.draw(st.booleans(), "take in")):
            made.add(offsets[taken])
            open_.add(offsets[taken])
            taken += 1
        else:
            done = data.draw(st.sampled_from(sorted(open_)), "finish")
            made.finish(done)
            open_.discard(done)
        seen = offsets[:taken]
        committable = made.committable
        assert committable is not None
        assert committable >= before, "it never goes backwards"
        before = committable
        if open_:
            assert committable <= min(open_), "never beyond an unfinished record"
        acknowledged = [offset for offset in seen if offset < committable]
        waiting = [offset for offset in seen if offset >= committable]
        assert not open_.intersection(acknowledged)
        assert not waiting or waiting[0] in open_, "and no finished one is left behind"
        assert made.held == len(waiting)
        assert made.unfinished == len(open_)
    assert made.committable == offsets[-1] + 1
