"""What stands in for Faust, the broker and the database in the tests of the worker's parts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from streamapp.worker.continuity import NoAnswer

DEADLINE = 20.0  # seconds; reached only by a test that fails


async def settled() -> None:
    """Everything that is ready to run has run."""
    for _ in range(20):
        await asyncio.sleep(0)


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(DEADLINE):
        while True:
            if condition():
                return
            await asyncio.sleep(0.001)


@dataclass(slots=True)
class FakeMessage:
    """A consumed record as Faust has it."""

    offset: int
    key: bytes | None = b"lead-1"
    value: bytes | None = b"{}"
    topic: str = "ai-results"
    partition: int = 0
    generation_id: int = 1
    timestamp: float | None = 1_700_000_000.25
    headers: Any = None


@dataclass
class FakeEvent:
    """Faust's event: tables refer to it weakly."""

    message: FakeMessage


def event(offset: int, **changes: Any) -> FakeEvent:
    return FakeEvent(FakeMessage(offset, **changes))


@dataclass
class FakeMembership:
    """``Membership`` without a consumer: ``commits`` lists what was asked for."""

    generation: int = 1
    accepts: bool = True
    gone_on: bool = False  # the group, without this worker
    commits: list[tuple[int, dict[tuple[str, int], int]]] = field(default_factory=list)
    begins: dict[tuple[str, int], int] = field(default_factory=dict)  # committed offsets
    highwaters: dict[tuple[str, int], int] = field(default_factory=dict)
    positions: dict[tuple[str, int], int] = field(default_factory=dict)
    polls: int | None = 0
    seeks: list[tuple[str, int, int]] = field(default_factory=list)
    neighbours: set[tuple[int, int]] = field(default_factory=set)  # offsets without one between
    answers: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.answers.set()

    def expelled(self, generation: int) -> bool:
        return self.gone_on

    async def commit(self, generation: int, offsets: dict[tuple[str, int], int]) -> bool:
        await asyncio.sleep(0)
        await self.answers.wait()
        self.commits.append((generation, dict(offsets)))
        return self.accepts

    async def committed(self, topic: str, partition: int) -> int | None:
        await self.answers.wait()
        return self.begins.get((topic, partition), 0)

    async def seek(self, topic: str, partition: int, offset: int) -> None:
        self.seeks.append((topic, partition, offset))

    def highwater(self, topic: str, partition: int) -> int | None:
        return self.highwaters.get((topic, partition))

    def position(self, topic: str, partition: int) -> int | None:
        return self.positions.get((topic, partition))

    def adjacent(self, topic: str, partition: int, before: int, offset: int) -> bool:
        return (before, offset) in self.neighbours

    def rounds(self, topic: str) -> int | None:
        return self.polls


class FakeLog:
    """The log behind a topic: by default it has none of the offsets that were left out."""

    def __init__(self) -> None:
        self.there: dict[tuple[str, int], list[int]] = {}
        self.asked: list[tuple[str, int, int]] = []
        self.away = False

    async def first_at(self, topic: str, partition: int, offset: int) -> int | None:
        self.asked.append((topic, partition, offset))
        await asyncio.sleep(0)
        if self.away:
            raise NoAnswer("away")
        return min((x for x in self.there.get((topic, partition), ()) if x >= offset), default=None)
