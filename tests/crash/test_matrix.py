"""The worker is killed at every point, comes back, and ends as if nothing had happened.

Each case is one run of the same messages (``tests.crash.plan``): killed by SIGKILL at the n-th
pass of one point, started again, compared with a run that nobody disturbed. The passes of a point
are its steps: the first, a middle and the last one of plans that go forward and of plans that go
back. ``STREAMAPP_TEST_CRASH=all`` takes every pass there is.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from streamapp.resilience.crash_points import POINTS
from tests.crash.recorder import Entry, unseparated
from tests.crash.runs import all_points, run_of

pytestmark = pytest.mark.timeout(1500)

AT_ONCE = 2  # runs
# Of the sender of replies, which is killed in tests/worker/test_deliveries.py.
DELIVERING = {point for point in POINTS if point.startswith("delivery.")}
# Their number of passes is that of the messages' steps; others depend on the time, too.
STEADY = frozenset(
    {"step.started", "step.answered", "record.durable", "record.marked", "letter.sent"}
)


@dataclass
class Undisturbed:
    """A run from its beginning to its end in one life."""

    end: dict[str, Any]
    entries: list[Entry]
    counts: dict[str, float]

    def passes(self, point: str) -> int:
        """How often any run comes past the point."""
        count = Counter(entry.name for entry in self.entries if entry.kind == "point")[point]
        return count - self._refused_again() if point.startswith("step.") else count

    def _refused_again(self) -> int:
        """How often what clings was asked for once more before the test had healed it."""
        asked = sum(
            entry.kind == "action" and "/clinging/" in entry.name and entry.name.endswith("/cancel")
            for entry in self.entries
        )
        return asked - 2  # refused, which makes the saga STUCK, and healed


@pytest.fixture
async def undisturbed(database: str, tmp_path: Path) -> Undisturbed:
    async with run_of("undisturbed", tmp_path / "undisturbed", database) as run:
        assert await run.live(record=True) == 0
        run.check_ledger()
        entries = [Entry(*entry) for entry in run.recorded()]
        return Undisturbed(await run.end(), entries, run.counted())


def cases(undisturbed: Undisturbed) -> Iterable[tuple[str, int]]:
    """The kills: (point, pass)."""
    for point in POINTS.keys() - DELIVERING:
        count = undisturbed.passes(point)
        sample = {1, (count + 1) // 2, count}
        numbers = set(range(1, count + 1)) if all_points() else sample
        yield from ((point, number) for number in sorted(numbers) if number > 0)


async def test_every_point_and_every_step(
    undisturbed: Undisturbed, database: str, tmp_path: Path
) -> None:
    assert {status for _, _, status, _ in undisturbed.end["sagas"]} == {"COMPLETED", "COMPENSATED"}
    gate = asyncio.Semaphore(AT_ONCE)
    wrong: list[str] = []
    killed: set[str] = set()

    async def kill(point: str, number: int) -> None:
        name = f"{point}-{number}".replace(".", "-").replace("_", "-")
        async with gate, run_of(name, tmp_path / name, database) as run:
            code = await run.live(point, number)
            if code == 0 and (number == 1 or point in STEADY):
                wrong.append(f"{point}:{number} was not reached")
            if run.killed:
                killed.add(point)
                assert await run.live() == 0
            end = await run.end()
            differing = {what for what in end if end[what] != undisturbed.end[what]}
            if differing:
                told = {what: (end[what], undisturbed.end[what]) for what in differing}
                wrong.append(f"{point}:{number} ended otherwise: {told}")
            run.check_ledger()
            counts = run.counted()
            received = counts.pop("received", 0)  # nothing, where all was done
            if received != sum(counts.values()):
                wrong.append(f"{point}:{number}: {received} received, {counts}")

    async with asyncio.TaskGroup() as group:
        for point, number in cases(undisturbed):
            group.create_task(kill(point, number))
    assert wrong == [], "\n".join(wrong)
    assert killed == POINTS.keys() - DELIVERING, "these points killed nobody"


async def test_between_two_lasting_actions_is_a_point(undisturbed: Undisturbed) -> None:
    kinds = {entry.name.split()[0] for entry in undisturbed.entries if entry.kind == "action"}
    assert kinds >= {"COMMIT", "POST", "mail", "mark", "offsets", "produce", "INSERT"}
    assert unseparated(undisturbed.entries) == []
