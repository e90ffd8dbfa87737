"""From the outbound topic to the sender, lead by lead, and the acknowledgement of what is settled.

As ``worker.intake``, without leases: a delivery is fenced by the claim in its row. Records that
are no replies, and those whose id is another reply's, are dead-lettered; what the sender settled
stands in the table of deliveries. Nothing here acknowledges before one of both is durable.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from streamapp.outbound.ports import Ours
from streamapp.outbound.reply import InvalidReply, Reply, decode
from streamapp.outbound.sender import OtherReply
from streamapp.pipeline.dead_letter import dead_letter, describe, letter_record, source_of
from streamapp.pipeline.outcomes import Reason, Record
from streamapp.pipeline.ports import DeadLetterSink
from streamapp.resilience import crash_points
from streamapp.saga.parking import Parking
from streamapp.worker.continuity import Continuity, Sequence
from streamapp.worker.intake import DEFECT_PAUSE, DRAIN_LOOK, record_of
from streamapp.worker.lanes import Lane, Lanes, Room
from streamapp.worker.ledger import Ledger
from streamapp.worker.membership import Membership

log = logging.getLogger("streamapp.deliveries")

TRIES = 3  # of a record that meets a defect of ours, before it goes where people look


class Deliverer(Protocol):
    """What is needed of ``outbound.sender.Sender``."""

    async def deliver(self, reply: Reply, parking: Parking, ours: Ours) -> bool: ...


@dataclass(eq=False)
class Assignment:
    """One partition within one generation."""

    topic: str
    partition: int
    generation: int
    sequence: Sequence = field(init=False)
    ledger: Ledger = field(default_factory=Ledger)
    committed: int | None = None
    closed: bool = False

    def __post_init__(self) -> None:
        self.sequence = Sequence(self.topic, self.partition)


class DeliveryIntake:
    """Takes the records of the outbound topic in, within the bounds, and acknowledges them.

    ``on_dead_letter`` is told the reason of each dead letter, ``on_defect`` of errors of ours.
    """

    def __init__(
        self,
        *,
        sender: Deliverer,
        dead_letters: DeadLetterSink,
        lanes: Lanes,
        room: Room,
        membership: Membership,
        continuity: Continuity,
        group: str,
        max_unacked: int,
        max_bytes: int,
        on_dead_letter: Callable[[str], None],
        on_defect: Callable[[BaseException], None],
    ) -> None:
        self._sender = sender
        self._dead_letters = dead_letters
        self._lanes = lanes
        self._room = room
        self._membership = membership
        self._continuity = continuity
        self._group = group
        self._max_unacked = max_unacked
        self._max_bytes = max_bytes
        self._on_dead_letter = on_dead_letter
        self._on_defect = on_defect
        self._closed_generation: int | None = None
        self.assignments: dict[tuple[str, int], Assignment] = {}

    # Taking in

    async def accept(self, event: Any) -> None:
        """Take one event in; waits while a bound is reached. Never raises for its content."""
        held = self._assignment_of(event)
        while held is not None and (self._room.full or held.ledger.held >= self._max_unacked):
            await self._room.changed()
            held = self._assignment_of(event)
        if held is None:
            return  # of a generation that ended: its next owner gets it
        record, ours = record_of(event), partial(self._is_open, held)
        if not await self._continuity.admits(held.sequence, record.offset, ours) or not ours():
            return
        held.ledger.add(record.offset)
        self._continuity.took(held.sequence, record.offset)
        self._lanes.submit((held, record.key), partial(self._work, record, held), record.size)

    def _assignment_of(self, event: Any) -> Assignment | None:
        message = event.message
        generation = message.generation_id
        if generation != self._membership.generation or generation == self._closed_generation:
            return None
        key = (message.topic, message.partition)
        held = self.assignments.get(key)
        if held is None or held.generation != generation:
            held = self.assignments[key] = Assignment(*key, generation)
        return held

    def _is_ours(self, held: Assignment) -> bool:
        """Whether what becomes of the partition's records may be acknowledged."""
        return not held.closed and held.generation == self._membership.generation

    def _is_open(self, held: Assignment) -> bool:
        """Whether a request may begin."""
        return self._is_ours(held) and held.generation != self._closed_generation

    async def _work(self, record: Record, held: Assignment, lane: Lane) -> None:
        defects = 0
        while True:
            try:
                settled = await self._handle(record, held, lane)
            except Exception as error:
                # What it was sent is in the table: run again, it is not sent again.
                self._on_defect(error)
                defects += 1
                if defects < TRIES:
                    await asyncio.sleep(DEFECT_PAUSE)
                    continue
                settled = await self._dead_letter(record, Reason.HANDLER_ERROR, error, None)
            if settled and self._is_ours(held):
                held.ledger.finish(record.offset)
            return

    async def _handle(self, record: Record, held: Assignment, lane: Lane) -> bool:
        """Whether the record's outcome is durable; False: it is no longer ours."""
        try:
            reply = decode(record, max_bytes=self._max_bytes)
        except InvalidReply as error:
            return await self._dead_letter(record, Reason.INVALID_PAYLOAD, error, error.message_id)
        try:
            return await self._sender.deliver(reply, lane, partial(self._is_open, held))
        except OtherReply as error:
            return await self._dead_letter(record, Reason.PAYLOAD_MISMATCH, error, reply.message_id)

    async def _dead_letter(
        self, record: Record, reason: Reason, error: Exception, message_id: str | None
    ) -> bool:
        name, message, trace = describe(error)
        letter = dead_letter(
            source_of(record),
            reason=reason,
            group=self._group,
            message=message,
            processing_id=message_id,
            exception=name,
            stacktrace=trace if reason is Reason.HANDLER_ERROR else "",
        )
        await self._dead_letters.publish(letter_record(record, letter))
        self._on_dead_letter(reason.value)
        return True

    # Acknowledging

    async def commit(self) -> None:
        """Commit the finished prefix of every partition, under the generation it belongs to."""
        pending = {
            held: held.ledger.committable
            for held in self.assignments.values()
            if not held.closed and held.ledger.committable not in (None, held.committed)
        }
        for generation in {held.generation for held in pending}:
            offsets = {
                (held.topic, held.partition): offset
                for held, offset in pending.items()
                if held.generation == generation and offset is not None
            }
            if await self._membership.commit(generation, offsets):
                crash_points.reach("delivery.committed")
                for held, offset in pending.items():
                    if held.generation == generation:
                        held.committed = offset

    async def commit_regularly(self, interval: float) -> None:
        """Commit, and look for partitions whose records have stopped to come."""
        while True:
            await asyncio.sleep(interval)
            if self._membership.generation != self._closed_generation:
                await self.commit()
                for held in list(self.assignments.values()):
                    if not self._room.full and held.ledger.held < self._max_unacked:
                        await self._continuity.revive(held.sequence)

    # Giving up

    def assigned(self) -> None:
        """Partitions are ours from now on, be it under a number that was closed before: a group
        that was deleted starts anew."""
        self._closed_generation = None

    async def give_up(self, budget: float) -> None:
        """The partitions are taken away: let requests under way end, commit, drop the rest.

        No request begins any more. ``budget`` is in seconds; a request that takes longer is
        broken off, and its reply is unknown. Never raises.
        """
        generation = self._closed_generation = self._membership.generation
        began = time.monotonic()
        if bool(self.assignments) and self._membership.expelled(generation):
            budget = 0.0  # others may have taken the rows over already
        while (left := began + budget - time.monotonic()) > 0 and (
            at_work := self._lanes.at_work()
        ):
            await asyncio.wait(at_work, timeout=min(left, DRAIN_LOOK))
        await self.commit()
        for key, held in list(self.assignments.items()):
            held.closed = True
            del self.assignments[key]
        for task in self._lanes.tasks(lambda lane: True):
            task.cancel()
        self._room.wake()
