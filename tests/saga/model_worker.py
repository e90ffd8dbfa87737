"""The workers of the model's world, and the one thing that happens to each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any, ClassVar, Protocol

from streamapp.saga.executor import SagaExecutor
from tests.saga.model import MAX_WAIT, ModelPlant, Sent
from tests.support.bench import Bench, Points, PointsJournal
from tests.support.proxy import AtCommit, Proxy
from tests.support.waiting import until


class World(Protocol):
    """What is around a worker."""

    bench: ClassVar[Bench]
    plant: ClassVar[ModelPlant]
    proxy: ClassVar[Proxy]

    async def copy(self, message: Sent) -> None: ...

    async def another_payload(self, message: Sent) -> None: ...


working: ContextVar[Worker] = ContextVar("working")
at_hand: ContextVar[Sent] = ContextVar("at_hand")


class Worker(Points):
    """One owner of the partition: its epoch, its lanes, and what happens to it at one moment."""

    def __init__(self, world: World, happening: str = "", moment: int = 0) -> None:
        super().__init__()
        self.world, self.happening, self.moment = world, happening, moment
        self._epoch = world.bench.epoch
        self.frozen = self.woken = False
        self._wake = asyncio.Event()
        self._standing = 0
        self.lanes: list[asyncio.Task[None]] = []

    async def epoch(self) -> int:
        return self._epoch

    def executor(self) -> SagaExecutor:
        return self.world.bench.executor(
            journal=PointsJournal(self.world.bench.journal, self),
            registry=self.world.plant.registry,
            max_wait=MAX_WAIT,
            max_wait_best_effort=MAX_WAIT,
        )

    async def reach(self) -> None:
        self.reached += 1
        if self.reached == self.moment:
            await self._happens()
        if self.frozen and not self.woken:
            self._standing += 1
            await self._wake.wait()

    async def _happens(self) -> None:
        match self.happening:
            case "dies":
                for lane in self.lanes:
                    lane.cancel()
                await asyncio.sleep(0)
            case "freezes":
                self.frozen = True
            case "loses the request":
                self.world.proxy.at_commit = AtCommit.LOSE_REQUEST
            case "loses the reply":
                self.world.proxy.at_commit = AtCommit.LOSE_REPLY
            case "a copy comes":
                await self.world.copy(at_hand.get())
            case "another payload comes":
                await self.world.another_payload(at_hand.get())

    def begin(self, *lanes: Coroutine[Any, Any, None]) -> None:
        self.lanes = [asyncio.create_task(lane) for lane in lanes]

    async def settled(self) -> None:
        """Every lane of it has ended, or stands still with it."""
        await until(
            lambda: sum(lane.done() for lane in self.lanes) + self._standing == len(self.lanes)
        )
        for lane in self.lanes:
            if lane.done() and not lane.cancelled():
                lane.result()

    async def wake(self) -> None:
        self.woken = True
        self._wake.set()
        await asyncio.gather(*self.lanes)
