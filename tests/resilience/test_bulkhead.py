"""A place for each call, as many as the limit, none lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from streamapp.resilience.bulkhead import Bulkhead, Bulkheads
from tests.support.waiting import until


class Waits:
    """Counts those that wait; leaving a wait can be made to hang."""

    def __init__(self) -> None:
        self.now = 0
        self.total = 0
        self.leave = asyncio.Event()
        self.leave.set()

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        self.now += 1
        self.total += 1
        try:
            yield
        finally:
            self.now -= 1
        await self.leave.wait()


class Callers:
    """Tasks that hold a place until they are told to go."""

    def __init__(self, bulkhead: Bulkhead) -> None:
        self.bulkhead = bulkhead
        self.waits = Waits()
        self.inside: list[int] = []
        self.go: dict[int, asyncio.Event] = {}

    def call(self, number: int) -> asyncio.Task[None]:
        self.go[number] = asyncio.Event()
        return asyncio.create_task(self._call(number))

    async def _call(self, number: int) -> None:
        async with self.bulkhead.place(self.waits.waiting):
            self.inside.append(number)
            try:
                await self.go[number].wait()
            finally:
                self.inside.remove(number)


async def test_no_more_than_the_limit_and_in_turn() -> None:
    callers = Callers(Bulkhead(2))
    tasks = [callers.call(number) for number in range(4)]
    await until(lambda: callers.inside == [0, 1] and callers.waits.now == 2)
    callers.go[1].set()
    await until(lambda: callers.inside == [0, 2])
    callers.go[0].set()
    await until(lambda: callers.inside == [2, 3])
    for number in (2, 3):
        callers.go[number].set()
    await asyncio.gather(*tasks)
    assert callers.waits.total == 2, "who finds a place does not wait"


@pytest.mark.parametrize("when", ["waiting", "leaving the wait", "inside"])
async def test_a_cancelled_call_gives_its_place_back(when: str) -> None:
    callers = Callers(Bulkhead(1))
    first = callers.call(0)
    await until(lambda: callers.inside == [0])
    second = callers.call(1)
    await until(lambda: callers.waits.now == 1)
    if when != "waiting":
        if when == "leaving the wait":
            callers.waits.leave.clear()
        callers.go[0].set()
        await first
        await until(lambda: callers.waits.now == 0)
    second.cancel()
    await asyncio.wait({second})
    callers.go[0].set()
    await first
    callers.waits.leave.set()
    third = callers.call(2)
    await until(lambda: callers.inside == [2])
    callers.go[2].set()
    await third


def test_one_for_each_service() -> None:
    bulkheads = Bulkheads()
    assert bulkheads.get("order", 1) is bulkheads.get("order", 1)
    assert bulkheads.get("order", 1) is not bulkheads.get("email", 1)
