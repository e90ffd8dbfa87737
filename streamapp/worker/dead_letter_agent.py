"""The dead-letter topic into the table. It never dead-letters: what it cannot store, it holds."""

from __future__ import annotations

import asyncio
from typing import Any

from streamapp.pipeline.dead_letter import parse_headers
from streamapp.resilience import crash_points
from streamapp.storage.dead_letters import DeadLetterStore
from streamapp.storage.health import DatabaseHealth
from streamapp.worker.continuity import Continuity, Sequence
from streamapp.worker.intake import record_of
from streamapp.worker.membership import Membership


class DeadLetterIntake:
    """Stores letters one by one, in order, and acknowledges those that are stored.

    One at a time is enough for the order, so the next offset to commit is simply the one after
    the last that was stored in this generation.
    """

    def __init__(
        self,
        store: DeadLetterStore,
        health: DatabaseHealth,
        membership: Membership,
        continuity: Continuity,
    ) -> None:
        self._store = store
        self._health = health
        self._membership = membership
        self._continuity = continuity
        self._closed_generation: int | None = None
        self._generation: int | None = None
        self._stored: dict[tuple[str, int], int] = {}
        self._sequences: dict[tuple[str, int], Sequence] = {}

    async def accept(self, event: Any) -> None:
        """Store one letter; waits while the database is away."""
        generation = event.message.generation_id
        if not self._is_current(generation):
            return
        if generation != self._generation:
            self._generation, self._stored, self._sequences = generation, {}, {}
        record = record_of(event)
        partition = record.topic, record.partition
        sequence = self._sequences.setdefault(partition, Sequence(*partition))
        if not await self._continuity.admits(
            sequence, record.offset, lambda: self._is_current(generation)
        ):
            return
        letter = parse_headers(record.headers)
        await self._health.insist(lambda: self._store.store(record, letter))
        crash_points.reach("dead_letter.stored")
        if self._is_current(generation):  # else stored again by the next owner: changes nothing
            self._stored[partition] = record.offset + 1
            self._continuity.took(sequence, record.offset)

    def _is_current(self, generation: int) -> bool:
        return generation == self._membership.generation != self._closed_generation

    async def commit(self) -> None:
        """Commit what is stored, under the generation in which it was delivered."""
        pending = dict(self._stored)
        generation = self._generation
        if not pending or generation is None:
            return
        if await self._membership.commit(generation, pending):
            crash_points.reach("dead_letter.committed")
            for partition, offset in pending.items():
                if self._stored.get(partition) == offset:
                    del self._stored[partition]

    async def commit_regularly(self, interval: float) -> None:
        while True:
            await asyncio.sleep(interval)
            if self._generation != self._closed_generation:
                await self.commit()
                if self._health.available:
                    for sequence in list(self._sequences.values()):
                        await self._continuity.revive(sequence)

    def assigned(self) -> None:
        """Partitions are ours from now on, be it under a number that was closed before: a group
        that was deleted starts anew."""
        self._closed_generation = None

    async def give_up(self) -> None:
        """The partitions are taken away: commit what is stored."""
        self._closed_generation = self._membership.generation
        await self.commit()
        self._stored = {}
