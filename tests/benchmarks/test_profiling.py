"""The list of functions from recorded stacks."""

from __future__ import annotations

from benchmarks.profiling import Cost, costs, list_costs

STACKS = [
    "main (a.py);work (b.py) 6",
    "main (a.py);work (b.py);work (b.py) 1",
    "main (a.py) 3",
    "thread (c.py);EpollSelector.select (selectors.py:451) 90",
    "",
]


def test_costs_are_shares_of_all_samples_but_waiting() -> None:
    found = {cost.function: cost for cost in costs(STACKS)}
    # A function that calls itself is in a stack once.
    assert found["work (b.py)"] == Cost("work (b.py)", 0.7, 0.7)
    assert found["main (a.py)"] == Cost("main (a.py)", 0.3, 1.0)
    assert len(found) == 2


def test_the_dearest_come_first() -> None:
    lines = list_costs(costs(STACKS), most=1)
    assert [line.split()[-2] for line in lines if "%" in line] == ["work", "main"]
