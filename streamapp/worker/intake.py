"""From the consumer to the lanes and back: leases, ledgers, acknowledgement.

The one place where a record is taken in, and the one place where it is acknowledged. Leases of
a generation are closed when its revocation begins: until the next assignment Faust still calls
the old generation the present one, and an intake that waited for room would take its records in.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from streamapp.pipeline.orchestrator import Delivered, Pipeline
from streamapp.pipeline.outcomes import Record
from streamapp.resilience import crash_points
from streamapp.saga.model import Fenced
from streamapp.worker.continuity import Continuity
from streamapp.worker.dedup import DedupTable
from streamapp.worker.lanes import Lane, Lanes, Room
from streamapp.worker.membership import Membership
from streamapp.worker.ownership import PartitionLease

log = logging.getLogger("streamapp.intake")

REFENCE_PAUSE = 0.1  # seconds before a fenced record is run again under a new epoch

DEFECT_PAUSE = 1.0  # seconds before a record that met a defect of the pipeline is run again

DRAIN_LOOK = 0.05  # seconds between looks whether a lane at work has begun to wait

NewLease = Callable[[str, int, int], PartitionLease]


def record_of(event: Any) -> Record:
    """The record behind a Faust event, bytes untouched."""
    message = event.message
    headers = message.headers or ()
    if isinstance(headers, dict):
        headers = headers.items()
    return Record(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        timestamp_ms=round((message.timestamp or 0) * 1000),
        key=message.key,
        value=message.value,
        headers=tuple((name, value if value is not None else b"") for name, value in headers),
    )


class Intake:
    """Takes the events of the input topic in, within the bounds, and acknowledges them."""

    def __init__(
        self,
        *,
        pipeline: Pipeline,
        lanes: Lanes,
        room: Room,
        table: DedupTable,
        membership: Membership,
        new_lease: NewLease,
        continuity: Continuity,
        max_unacked: int,
        on_fenced: Callable[[bool], None],
        on_finished: Callable[[], None],
        on_defect: Callable[[BaseException], None],
    ) -> None:
        self._pipeline = pipeline
        self._lanes = lanes
        self._room = room
        self._table = table
        self._membership = membership
        self._new_lease = new_lease
        self._continuity = continuity
        self._max_unacked = max_unacked
        self._on_fenced = on_fenced
        self._on_finished = on_finished
        self._on_defect = on_defect
        self._closed_generation: int | None = None
        self._commits: dict[PartitionLease, int] = {}
        self.leases: dict[tuple[str, int], PartitionLease] = {}

    # Taking in

    async def accept(self, event: Any) -> None:
        """Take one event in; waits while a bound is reached. Never raises for its content."""
        lease = self._lease_of(event)
        while lease is not None and (self._room.full or lease.ledger.held >= self._max_unacked):
            await self._room.changed()
            lease = self._lease_of(event)
        if lease is None:
            return  # of a generation that ended: its next owner gets it
        record = record_of(event)
        held = lease
        admitted = await self._continuity.admits(
            held.sequence, record.offset, lambda: self._is_open(held)
        )
        if not admitted or not self._is_open(held):
            return
        held.ledger.add(record.offset)
        self._continuity.took(held.sequence, record.offset)
        # Not a closure, which is several objects more: thousands of these may wait.
        job = partial(self._work, event, record, held)
        self._lanes.submit((lease, record.key), job, record.size)

    def _lease_of(self, event: Any) -> PartitionLease | None:
        message = event.message
        generation = message.generation_id
        if generation != self._membership.generation or generation == self._closed_generation:
            return None
        key = (message.topic, message.partition)
        lease = self.leases.get(key)
        if lease is None or lease.generation != generation:
            lease = self.leases[key] = self._new_lease(*key, generation)
        return None if lease.closed else lease

    def _is_open(self, lease: PartitionLease) -> bool:
        return not lease.closed and lease.generation != self._closed_generation

    async def _work(self, event: Any, record: Record, lease: PartitionLease, lane: Lane) -> None:
        while True:
            try:
                delivered = await self._pipeline.process(record, lease, lane)
            except Fenced as fenced:
                lease.refuse(fenced.epoch)
                self._on_fenced(lease.closed)
                if lease.closed:
                    return  # no acknowledgement: the record belongs to the next owner
                await asyncio.sleep(REFENCE_PAUSE)
                continue
            except Exception as error:
                # The pipeline turns every error into an outcome, so this one is its own. Without
                # an outcome the record may not be passed over: it is tried again, visibly.
                self._on_defect(error)
                await asyncio.sleep(DEFECT_PAUSE)
                continue
            self._finish(event, record, lease, delivered)
            return

    def _finish(
        self, event: Any, record: Record, lease: PartitionLease, delivered: Delivered
    ) -> None:
        """Acknowledge and mark in one tick, so that no revocation comes between."""
        crash_points.reach("record.durable")
        self._on_finished()
        if lease.closed or lease.generation != self._membership.generation:
            return
        # First, as a mark may fail (a full disk): one that is missing costs only a query.
        lease.ledger.finish(record.offset)
        if delivered.seen is not None and delivered.processing_id is not None:
            self._table.mark(event, delivered.processing_id, delivered.seen)
        crash_points.reach("record.marked")

    def submit(self, lease: PartitionLease, key: bytes | None, work: Any, size: int) -> None:
        """Run other work (``async def work(lane)``) in a lead's lane, in its turn."""
        self._lanes.submit((lease, key), work, size)

    def assigned(self, partitions: Iterable[tuple[str, int]]) -> None:
        """Partitions are ours from now on: own them at once, as their outbox rows and unfinished
        sagas wait for an owner even where no record comes. Does not wait for the database."""
        generation = self._membership.generation
        # A group that was deleted starts anew, and may come to a number that was closed.
        self._closed_generation = None
        for key in partitions:
            lease = self.leases.get(key)
            if lease is None or lease.generation != generation:
                lease = self.leases[key] = self._new_lease(*key, generation)
            lease.acquire()

    async def revive(self) -> None:
        """Look for partitions whose records have stopped to come, unless it is us who hold them."""
        for lease in list(self.leases.values()):
            if not self._room.full and lease.ledger.held < self._max_unacked:
                await self._continuity.revive(lease.sequence)

    # Acknowledging

    def committable(self) -> dict[PartitionLease, int]:
        """Offsets of open leases that are not committed yet."""
        return {
            lease: lease.ledger.committable
            for lease in self.leases.values()
            if not lease.closed
            and lease.ledger.committable is not None
            and self._commits.get(lease) != lease.ledger.committable
        }

    async def commit(self) -> None:
        """Commit the finished prefix of every partition, under the generation it belongs to."""
        pending = self.committable()
        for generation in {lease.generation for lease in pending}:
            offsets = {
                (lease.topic, lease.partition): offset
                for lease, offset in pending.items()
                if lease.generation == generation
            }
            if await self._membership.commit(generation, offsets):
                crash_points.reach("offsets.committed")
                self._commits.update(
                    {
                        lease: offset
                        for lease, offset in pending.items()
                        if lease.generation == generation and not lease.closed
                    }
                )

    async def commit_regularly(self, interval: float) -> None:
        while True:
            await asyncio.sleep(interval)
            if self._membership.generation != self._closed_generation:
                await self.commit()
                await self.revive()

    # Giving up

    async def give_up(self, budget: float) -> None:
        """The partitions are taken away: finish what can be finished, commit, drop the rest.

        ``budget`` is in seconds. Never raises.
        """
        generation = self._closed_generation = self._membership.generation
        began = time.monotonic()
        expelled = bool(self.leases) and self._membership.expelled(generation)
        if expelled:
            # The partitions are others' already: nothing finished now would be accepted.
            log.warning("fenced: the group went on without this worker, its work is dropped")
            self._on_fenced(True)
            budget = 0.0
        # Lanes that wait, for a retry or a circuit, are not waited for: the group stands still
        # meanwhile, and their next owner goes on from the journal.
        while (left := began + budget - time.monotonic()) > 0 and (
            at_work := self._lanes.at_work()
        ):
            await asyncio.wait(at_work, timeout=min(left, DRAIN_LOOK))
        crash_points.reach("offsets.drained")
        if not expelled:
            await self.commit()
        held = sum(lease.ledger.unfinished for lease in self.leases.values())
        self._drop(lambda lease: True)
        log.info(
            "partitions given up: %d records released after %.2f s",
            held,
            time.monotonic() - began,
        )

    def lost(self, lease: PartitionLease) -> None:
        """The group went on without this worker: what it took in then belongs to others, and
        what is still buffered of that generation must not take the partitions back."""
        self._closed_generation = lease.generation
        self._on_fenced(True)
        self._drop(lambda each: each.generation == lease.generation)

    def _drop(self, wanted: Callable[[PartitionLease], bool]) -> None:
        """Drop leases without an acknowledgement: their records go to the next owner."""
        for key, lease in list(self.leases.items()):
            if wanted(lease):
                lease.close()
                del self.leases[key]
                self._commits.pop(lease, None)
                for task in self._lanes.tasks(lambda lane, lease=lease: lane[0] is lease):  # type: ignore[misc]
                    task.cancel()
        self._room.wake()

    def epochs(self) -> dict[int, int]:
        """Partitions of the input topic that are owned and confirmed, with their epoch."""
        return {
            lease.partition: lease.granted
            for lease in self.leases.values()
            if lease.granted is not None and not lease.closed
        }
