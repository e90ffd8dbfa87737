"""Leases: an epoch is raised once for all who ask, and given out only while the group agrees."""

from __future__ import annotations

import asyncio

import pytest

from streamapp.saga.model import Fenced
from streamapp.worker import ownership
from streamapp.worker.membership import Standing
from streamapp.worker.ownership import PartitionLease
from tests.worker.fakes import DEADLINE, eventually, settled


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "CONFIRM_PAUSE", 0)


class Bench:
    """A lease of generation 3 among fakes; ``calls`` tells what was asked, in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.database = asyncio.Event()  # away until set
        self.database.set()
        self.answers: list[Standing] = []  # of the coordinator, first
        self.standing = Standing.CONFIRMED  # its answer from then on
        self.coordinator = asyncio.Event()
        self.coordinator.set()
        self.epoch = 10
        self.lost: list[PartitionLease] = []
        self.lease = PartitionLease(
            "ai-results",
            5,
            3,
            raise_epoch=self._raise,
            confirm=self._confirm,
            committed=self._committed,
            on_lost=self.lost.append,
        )

    async def _raise(self, topic: str, partition: int) -> int:
        assert (topic, partition) == ("ai-results", 5)
        self.calls.append("raise")
        await self.database.wait()
        self.epoch += 1
        return self.epoch

    async def _confirm(self, generation: int) -> Standing:
        assert generation == 3
        self.calls.append("confirm")
        await self.coordinator.wait()
        return self.answers.pop(0) if self.answers else self.standing

    async def _committed(self, topic: str, partition: int) -> int | None:
        assert (topic, partition) == ("ai-results", 5)
        self.calls.append("committed")
        return 42

    def ask(self, count: int = 1) -> list[asyncio.Task[int]]:
        return [asyncio.create_task(self.lease.epoch()) for _ in range(count)]


async def wait(task: asyncio.Task[int]) -> int:
    return await asyncio.wait_for(task, DEADLINE)


async def test_one_raise_for_many_who_wait() -> None:
    bench = Bench()
    bench.database.clear()
    tasks = bench.ask(20)
    await settled()
    assert bench.lease.granted is None
    assert not any(task.done() for task in tasks)
    bench.database.set()
    assert {await wait(task) for task in tasks} == {11}
    assert bench.calls.count("raise") == 1
    assert await bench.lease.epoch() == 11
    assert bench.lease.granted == 11
    assert bench.lease.committed == 42
    assert bench.calls.count("raise") == 1


async def test_the_group_is_asked_before_the_raise_and_after_it() -> None:
    bench = Bench()
    await wait(bench.ask()[0])
    assert bench.calls == ["confirm", "raise", "confirm", "committed"]


async def test_nothing_is_granted_before_the_group_confirmed_the_raise() -> None:
    bench = Bench()
    bench.answers = [Standing.CONFIRMED, Standing.UNKNOWN, Standing.UNKNOWN]
    bench.coordinator.clear()
    (task,) = bench.ask()
    await settled()
    assert bench.lease.granted is None
    bench.coordinator.set()
    assert await wait(task) == 11
    assert bench.calls == ["confirm", "raise", "confirm", "confirm", "confirm", "committed"]


async def test_a_coordinator_that_does_not_answer_grants_nothing() -> None:
    bench = Bench()
    bench.answers, bench.standing = [Standing.CONFIRMED], Standing.UNKNOWN
    (task,) = bench.ask()
    await eventually(lambda: len(bench.calls) > 20)
    assert not task.done()
    assert bench.lease.granted is None
    assert not bench.lost
    bench.standing = Standing.CONFIRMED
    assert await wait(task) == 11


async def test_a_worker_that_was_frozen_fences_nobody() -> None:
    bench = Bench()
    await wait(bench.ask()[0])
    bench.calls.clear()
    bench.lease.refuse(11)
    bench.answers = [Standing.LOST]
    with pytest.raises(Fenced):
        await wait(bench.ask()[0])
    assert bench.calls == ["confirm"]
    assert bench.epoch == 11


@pytest.mark.parametrize("answers", [[Standing.LOST], [Standing.CONFIRMED, Standing.LOST]])
async def test_a_lost_partition_is_closed_for_all_who_wait(answers: list[Standing]) -> None:
    bench = Bench()
    bench.answers = list(answers)
    tasks = bench.ask(3)
    for task in tasks:
        with pytest.raises(Fenced):
            await wait(task)
    assert bench.lost == [bench.lease], "told once"
    assert bench.lease.closed
    assert bench.lease.granted is None
    with pytest.raises(Fenced):
        await bench.lease.epoch()
    assert bench.calls.count("raise") == len(answers) - 1


async def test_a_refused_epoch_is_raised_anew_once() -> None:
    bench = Bench()
    await wait(bench.ask()[0])
    bench.lease.refuse(11)
    assert bench.lease.granted is None
    tasks = bench.ask(5)
    await settled()
    bench.lease.refuse(11)  # another lane tells of the same refusal, later
    assert {await wait(task) for task in tasks} == {12}
    bench.lease.refuse(11)
    assert bench.lease.granted == 12, "an old refusal is not news"
    assert bench.calls.count("raise") == 2


async def test_a_refusal_without_an_epoch_changes_nothing() -> None:
    bench = Bench()
    await wait(bench.ask()[0])
    bench.lease.refuse(None)
    assert bench.lease.granted == 11


async def test_what_was_acquired_is_not_acquired_again() -> None:
    bench = Bench()
    assert await wait(bench.lease.acquire()) == 11
    assert await wait(bench.lease.acquire()) == 11
    assert bench.calls.count("raise") == 1


async def test_closing_while_the_database_is_away_raises_nothing_later() -> None:
    bench = Bench()
    bench.database.clear()
    task = bench.ask()[0]
    await eventually(lambda: "raise" in bench.calls)
    bench.lease.close()
    await asyncio.wait([task], timeout=DEADLINE)
    assert task.cancelled() or isinstance(task.exception(), Fenced)
    bench.database.set()
    await settled()
    assert bench.epoch == 10
    assert bench.lease.granted is None
    with pytest.raises(Fenced):
        await bench.lease.epoch()
    assert not bench.lost, "given up, not lost"


async def test_a_closed_lease_gives_no_epoch_out() -> None:
    bench = Bench()
    await wait(bench.ask()[0])
    bench.lease.close()
    assert bench.lease.granted is None
    with pytest.raises(Fenced):
        await bench.lease.epoch()
    assert bench.epoch == 11


async def test_closing_while_the_group_is_asked_grants_nothing() -> None:
    bench = Bench()
    bench.coordinator.clear()
    task = bench.ask()[0]
    await eventually(lambda: "confirm" in bench.calls)
    bench.lease.close()
    bench.coordinator.set()
    await asyncio.wait([task], timeout=DEADLINE)
    await settled()
    assert bench.lease.granted is None
    assert "raise" not in bench.calls


async def test_a_lane_that_is_cancelled_leaves_the_others_waiting() -> None:
    bench = Bench()
    bench.database.clear()
    tasks = bench.ask(3)
    await eventually(lambda: "raise" in bench.calls)
    tasks[0].cancel()
    await asyncio.wait([tasks[0]], timeout=DEADLINE)
    assert tasks[0].cancelled()
    bench.database.set()
    assert [await wait(task) for task in tasks[1:]] == [11, 11]
    assert bench.calls.count("raise") == 1


async def test_an_error_of_the_raise_reaches_all_and_the_next_asks_again() -> None:
    bench = Bench()
    error = RuntimeError("a defect")

    async def failing(topic: str, partition: int) -> int:
        raise error

    bench.lease._raise_epoch = failing
    for task in bench.ask(2):
        with pytest.raises(RuntimeError, match="a defect"):
            await wait(task)
    bench.lease._raise_epoch = bench._raise
    assert await wait(bench.ask()[0]) == 11
