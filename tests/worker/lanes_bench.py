"""Lanes in a room, and jobs that wait until they are let through."""

from __future__ import annotations

import asyncio

from streamapp.worker.lanes import Bounds, Job, Lane, Lanes, Room
from tests.worker.fakes import eventually, settled

SIZE = 10  # bytes of every record here


class Bench:
    """Lanes in a room, with the errors that were reported."""

    def __init__(
        self, in_flight: int = 2, queued: int = 100, parked: int = 100, size: int = 10_000
    ) -> None:
        self.room = Room(Bounds(in_flight, queued, parked, size))
        self.errors: list[Exception] = []
        self.lanes = Lanes(self.room, self.errors.append)

    @property
    def figures(self) -> tuple[int, int, int]:
        return self.room.in_flight, self.room.parked, self.room.bytes

    def submit(self, key: str, job: Job) -> None:
        self.lanes.submit(key, job, SIZE)

    def cancel(self, *keys: str) -> list[asyncio.Task[None]]:
        tasks = self.lanes.tasks(lambda key: not keys or key in keys)
        for task in tasks:
            task.cancel()
        return tasks

    async def done(self) -> None:
        """All work has ended, and nothing of it is left behind."""
        await eventually(lambda: not len(self.lanes))
        await settled()
        assert self.figures == (0, 0, 0)
        assert self.room.queued == 0
        assert not self.room.full


class Gate:
    """A job that waits until it is let through; parked, or in line, if asked to."""

    def __init__(self, *, parked: bool = False, in_line: bool = False) -> None:
        self.open = asyncio.Event()
        self.begun = self.ended = False
        self._parked = parked or in_line
        self._in_line = in_line

    async def __call__(self, lane: Lane) -> None:
        self.begun = True
        if self._parked:
            async with lane.parked(in_line=self._in_line):
                await self.open.wait()
        else:
            await self.open.wait()
        self.ended = True
