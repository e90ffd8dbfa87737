"""An intake among fakes: the pipeline, the table, the group and the epochs in the database."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import Any

from streamapp.pipeline.orchestrator import Delivered
from streamapp.pipeline.outcomes import Outcome, Record
from streamapp.saga.model import Fenced
from streamapp.worker.continuity import Continuity
from streamapp.worker.intake import Intake
from streamapp.worker.lanes import Bounds, Lane, Lanes, Room
from streamapp.worker.membership import Standing
from streamapp.worker.ownership import PartitionLease
from tests.worker.fakes import (
    DEADLINE,
    FakeEvent,
    FakeLog,
    FakeMembership,
    event,
    eventually,
    settled,
)

HELD = 3600.0  # seconds; a budget that is never used up
P0 = ("ai-results", 0)


class FakePipeline:
    """Asks for the epoch, waits for the record's gate, checks the epoch as the journal would."""

    def __init__(self) -> None:
        self.gates: dict[int, asyncio.Event] = defaultdict(asyncio.Event)
        self.free = True  # gates are open unless asked for
        self.runs: list[tuple[int, int]] = []  # (offset, epoch) in the order of their writes
        self.epochs = Counter[int]()  # of the partitions, in the database
        self.error: dict[int, Exception] = {}
        self.silent: set[int] = set()  # offsets whose outcome has nothing to be marked
        self.parked: set[int] = set()  # offsets that wait without a permit

    async def process(self, record: Record, lease: PartitionLease, lane: Lane) -> Delivered:
        epoch = await lease.epoch()
        if not self.free or record.offset in self.gates:
            if record.offset in self.parked:
                async with lane.parked():
                    await self.gates[record.offset].wait()
            else:
                await self.gates[record.offset].wait()
        if error := self.error.pop(record.offset, None):
            raise error
        if epoch != self.epochs[record.partition]:
            raise Fenced("refused by the journal", epoch)
        self.runs.append((record.offset, epoch))
        if record.offset in self.silent:
            return Delivered(Outcome.DEAD_LETTERED)
        return Delivered(Outcome.PROCESSED, f"p-{record.offset}", b"hash")


class FakeTable:
    def __init__(self) -> None:
        self.marks: list[tuple[int, str, bytes]] = []
        self.error: Exception | None = None

    def mark(self, event: FakeEvent, processing_id: str, payload_hash: bytes) -> None:
        if self.error is not None:
            raise self.error
        self.marks.append((event.message.offset, processing_id, payload_hash))


class Bench:
    """An intake among fakes. Leases are the real ones; ``standing`` is what the group says."""

    def __init__(self, *, in_flight: int = 10, parked: int = 100, max_unacked: int = 100) -> None:
        self.pipeline, self.table, self.membership = FakePipeline(), FakeTable(), FakeMembership()
        self.room = Room(Bounds(in_flight, parked, parked, 1_000_000))
        self.errors: list[Exception] = []  # of lanes
        self.defects: list[BaseException] = []  # of the pipeline
        self.fenced: list[bool] = []
        self.finished = 0
        self.log, self.skips = FakeLog(), list[str]()
        self.standing = Standing.CONFIRMED
        self.raised: list[tuple[str, int]] = []
        self.lanes = Lanes(self.room, self.errors.append)
        self.intake = Intake(
            pipeline=self.pipeline,  # type: ignore[arg-type]
            lanes=self.lanes,
            room=self.room,
            table=self.table,  # type: ignore[arg-type]
            membership=self.membership,  # type: ignore[arg-type]
            new_lease=self._new_lease,
            continuity=Continuity(self.membership, self.log.first_at, self.skips.append),
            max_unacked=max_unacked,
            on_fenced=self.fenced.append,
            on_finished=self._count,
            on_defect=self.defects.append,
        )

    def _count(self) -> None:
        self.finished += 1

    def _new_lease(self, topic: str, partition: int, generation: int) -> PartitionLease:
        return PartitionLease(
            topic,
            partition,
            generation,
            raise_epoch=self._raise,
            confirm=self._confirm,
            committed=self._committed,
            on_lost=self.intake.lost,
        )

    async def _raise(self, topic: str, partition: int) -> int:
        self.raised.append((topic, partition))
        self.pipeline.epochs[partition] += 1
        return self.pipeline.epochs[partition]

    async def _confirm(self, generation: int) -> Standing:
        await asyncio.sleep(0)
        return self.standing

    async def _committed(self, topic: str, partition: int) -> int | None:
        return None

    async def accept(self, *offsets: int, **changes: Any) -> None:
        for offset in offsets:
            async with asyncio.timeout(DEADLINE):
                await self.intake.accept(event(offset, **changes))

    @property
    def commits(self) -> list[tuple[int, dict[tuple[str, int], int]]]:
        return self.membership.commits

    async def committed(self) -> dict[tuple[str, int], int]:
        """What a commit right now asks for."""
        self.commits.clear()
        await self.intake.commit()
        return self.commits[-1][1] if self.commits else {}

    async def idle(self) -> None:
        """All lanes have ended, and nothing of them is left behind."""
        await eventually(lambda: not len(self.lanes))
        await settled()
        assert (self.room.in_flight, self.room.parked, self.room.bytes) == (0, 0, 0)
