"""Lanes: one lead strictly in order, many leads at once, bounded in flight.

A lane exists while its lead has work. It holds one permit while it works; a lane that waits
(for a retry, for a circuit) gives it back, and its records and those behind them count as
parked until it goes on. Records behind one that is worked on, or that is in line for its turn at
a service, count as queued as well, under a closer bound: there is no need to have more of them at
hand than keeps the lanes at work.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from streamapp.settings import Settings


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of what is held in memory."""

    in_flight: int
    queued: int
    parked: int
    bytes: int

    @classmethod
    def from_settings(cls, settings: Settings) -> Bounds:
        return cls(
            in_flight=settings.max_in_flight,
            queued=settings.max_queued,
            parked=settings.max_parked,
            bytes=settings.max_parked_bytes,
        )


class Room:
    """Counts what is worked on and what waits; intake stops where a bound is reached."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._permits = asyncio.Semaphore(bounds.in_flight)
        self._freed = asyncio.Event()
        self._wanted = 0
        self.in_flight = 0
        self.queued = 0
        self.parked = 0
        self.bytes = 0

    @property
    def full(self) -> bool:
        """Whether intake has to pause: no permit left for new work, or a bound is reached."""
        return (
            self._wanted + self.in_flight >= self._bounds.in_flight
            or self.queued >= self._bounds.queued
            or self.parked >= self._bounds.parked
            or self.bytes >= self._bounds.bytes
        )

    def want(self) -> None:
        """Ask for a permit; ``take`` waits for it. The record counts as parked meanwhile."""
        self._wanted += 1
        self.parked += 1

    def unwant(self) -> None:
        self._wanted -= 1
        self.unpark()

    async def take(self) -> None:
        """Wait for the permit that was asked for."""
        try:
            await self._permits.acquire()
        finally:
            self.unwant()
        self.in_flight += 1

    def give(self) -> None:
        """Give a permit back."""
        self.in_flight -= 1
        self._permits.release()
        self._freed.set()

    def park(self) -> None:
        """A record waits: behind another one, or for a time to come."""
        self.parked += 1

    def unpark(self) -> None:
        self.parked -= 1
        self._freed.set()

    def queue(self, records: int) -> None:
        """Records wait behind one that is worked on, or soon will be."""
        self.queued += records

    def unqueue(self, records: int) -> None:
        self.queued -= records
        self._freed.set()

    def hold(self, size: int) -> None:
        self.bytes += size

    def release(self, size: int) -> None:
        self.bytes -= size
        self._freed.set()

    def wake(self) -> None:
        """Let intake look again although nothing was freed: what it waits for is gone."""
        self._freed.set()

    async def changed(self) -> None:
        """Wait until something is freed."""
        self._freed.clear()
        await self._freed.wait()


class Lane:
    """The work of one key, one job after the other."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.working = False
        self.jobs: deque[tuple[Job, int]] = deque()
        self.task: asyncio.Task[None] | None = None
        self._waits = False
        self._began = False
        self._closed = False

    @asynccontextmanager
    async def parked(self, *, in_line: bool = False) -> AsyncIterator[None]:
        """Give the permit back while the block runs (``saga.parking.Parking``)."""
        self.working = False
        self._room.give()
        self._room.park()
        if not in_line:
            self._waits = True
            self._room.unqueue(self._behind)
        try:
            yield
        finally:
            self._room.unpark()
            if not in_line:
                self._waits = False
                self._room.queue(self._behind)
        # Not in the finally: a lane that is cancelled must not wait for a permit.
        await self._take()

    @property
    def _behind(self) -> int:
        """Records behind the first."""
        return max(0, len(self.jobs) - 1)

    def append(self, job: Job, size: int) -> None:
        """One more job, behind those that are there."""
        self.jobs.append((job, size))
        if len(self.jobs) > 1:
            self._room.park()
            if not self._waits:
                self._room.queue(1)

    async def _take(self) -> None:
        self._room.want()
        await self._room.take()
        self.working = True

    async def run(self, closed: Callable[[], None], on_defect: Callable[[Exception], None]) -> None:
        """Work until no job is left; ``closed`` is called before control goes elsewhere."""
        self._began = True
        try:
            await self._room.take()
            self.working = True
            while True:
                job, size = self.jobs[0]
                try:
                    await job(self)
                except Exception as error:
                    on_defect(error)
                self.jobs.popleft()
                self._room.release(size)
                if not self.jobs:
                    break
                self._room.unpark()
                self._room.unqueue(1)
        finally:
            self.close(closed)

    def close(self, closed: Callable[[], None]) -> None:
        """Give back what the lane holds. A task cancelled before its first step never runs its
        own ``finally``, so this is called from outside as well."""
        if self._closed:
            return
        self._closed = True
        closed()
        if not self._began:
            self._room.unwant()
        if self.working:
            self._room.give()
        self._room.unqueue(self._behind)
        for position, (_, size) in enumerate(self.jobs):
            if position > 0:
                self._room.unpark()
            self._room.release(size)
        self.jobs.clear()


Job = Callable[[Lane], Awaitable[None]]


class Lanes:
    """All lanes of the process. A job should not raise; what it raises is reported and dropped."""

    def __init__(self, room: Room, on_defect: Callable[[Exception], None]) -> None:
        self._room = room
        self._on_defect = on_defect
        self._lanes: dict[Hashable, Lane] = {}

    def __len__(self) -> int:
        return len(self._lanes)

    def submit(self, key: Hashable, job: Job, size: int) -> None:
        """Run a job after all earlier ones of its key; ``size`` is what it holds, in bytes."""
        self._room.hold(size)
        lane = self._lanes.get(key)
        if lane is not None:
            lane.append(job, size)
            return
        lane = self._lanes[key] = Lane(self._room)
        lane.append(job, size)
        self._room.want()

        def closed() -> None:
            del self._lanes[key]

        lane.task = asyncio.get_running_loop().create_task(lane.run(closed, self._on_defect))
        lane.task.add_done_callback(lambda _: lane.close(closed))

    def at_work(self) -> list[asyncio.Task[None]]:
        """Tasks of the lanes that hold a permit."""
        return [lane.task for lane in self._lanes.values() if lane.task and lane.working]

    def tasks(self, wanted: Callable[[Hashable], bool]) -> list[asyncio.Task[None]]:
        """Tasks of the lanes whose key is wanted."""
        return [lane.task for key, lane in self._lanes.items() if lane.task and wanted(key)]
