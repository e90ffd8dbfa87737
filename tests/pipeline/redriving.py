"""An operator's desk beside a pipeline: letters arrive in the table, and are sent again from it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from streamapp.pipeline.dead_letter import parse_headers
from streamapp.pipeline.outcomes import Outcome, Record
from streamapp.storage.batch import headers_from_json
from streamapp.storage.dead_letters import DeadLetterStore
from streamapp.storage.redrives import Redrives
from tests.pipeline.pipelines import Plant
from tests.pipeline.records import LIMIT
from tests.support.bench import Points, PointsJournal
from tests.support.sagas import DLQ, TOPIC, Call

BY = "operator"


@dataclass
class Desk:
    """The dead-letter agent and the operator in one; nothing arrives before ``post`` is called."""

    plant: Plant
    offsets: Any = field(default_factory=lambda: count(100))
    posted: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        pool = self.plant.bench.pool
        self.store = DeadLetterStore(pool)
        self.redrives = Redrives(pool, input_topic=TOPIC, max_payload_bytes=LIMIT)

    async def unposted(self) -> list[Record]:
        """Letters that are on their way: of sagas first, then those from before one."""
        rows = await self.plant.bench.pool.fetch(
            "select * from outbox where topic = $1 order by id", DLQ
        )
        letters = [
            Record(DLQ, 0, 0, 1, row["key"], row["value"], headers_from_json(row["headers"]))
            for row in rows
        ]
        return [
            letter
            for letter in [*letters, *self.plant.around.letters]
            if id_of(letter) not in self.posted
        ]

    async def apply(self, letter: Record) -> bool:
        self.posted.add(id_of(letter))
        return await self.store.store(letter, parse_headers(letter.headers))

    async def post(self) -> list[bool]:
        """Everything on its way arrives in the table; gives for each whether it was news."""
        return [await self.apply(letter) for letter in await self.unposted()]

    async def send(self, name: str = "p-1", value: bytes | None = None) -> Record:
        """Mark a letter; gives the record as it comes back on the input topic."""
        marked = await self.redrives.mark(name, BY, value)
        return Record(
            marked.topic,
            marked.partition,
            next(self.offsets),
            1_800_000_000_000,
            marked.key,
            marked.value,
            marked.headers,
        )

    async def retry(self, name: str = "p-1", value: bytes | None = None) -> Outcome:
        """Send a letter again, work it off and let its letters arrive."""
        delivered = await self.plant.process(await self.send(name, value))
        await self.post()
        return delivered.outcome

    async def rows(self) -> list[Any]:
        rows: list[Any] = await self.plant.bench.pool.fetch(
            "select * from dead_letter_queue order by created_at, action"
        )
        return rows

    async def row(self, action: str = "") -> Any:
        (row,) = [row for row in await self.rows() if row["action"] == action]
        return row

    async def statuses(self) -> dict[str, str]:
        """Statuses of the letters by action."""
        return {row["action"]: row["status"] for row in await self.rows()}

    async def audited(self) -> list[tuple[str, str]]:
        rows = await self.plant.bench.pool.fetch("select * from audit_log order by audit_id")
        return [(row["actor"], row["action"]) for row in rows]


def id_of(letter: Record) -> str:
    found = parse_headers(letter.headers)
    assert found is not None
    return found.id


async def cut(plant: Plant, given: Record, at: int) -> Points:
    """Work a record off and die at a point of it, or, at 0, not; the next owner takes over."""
    points = Points(at)

    async def reach(call: Call) -> None:
        await points.reach()

    plant.bench.service.before = plant.bench.service.after = reach
    journal = PointsJournal(plant.bench.journal, points)
    pipeline = plant.build(plant.bench.executor(registry=plant.registry, journal=journal))
    try:
        if at:
            with pytest.raises(asyncio.CancelledError):
                await pipeline.process(given, plant.around, plant.bench.place)
        else:
            await pipeline.process(given, plant.around, plant.bench.place)
    finally:
        plant.bench.service.before = plant.bench.service.after = None
    await plant.bench.take_over()
    return points


def keys(calls: Sequence[Call], action: str, direction: str = "forward") -> list[str]:
    return [call.key for call in calls if (call.action, call.direction) == (action, direction)]
