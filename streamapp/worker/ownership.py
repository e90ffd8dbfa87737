"""Leases: a worker's hold on a partition, from its assignment to its revocation.

The epoch in the database is the fence (protocol, 1). It is raised in the background,
so that a database that is away delays no rebalance; work begins once the coordinator accepted a
heartbeat of this generation that was sent after the raise.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from streamapp.resilience import crash_points
from streamapp.saga.model import Fenced
from streamapp.worker.continuity import Sequence
from streamapp.worker.ledger import Ledger
from streamapp.worker.membership import Standing

log = logging.getLogger("streamapp.ownership")

CONFIRM_PAUSE = 0.5  # seconds before a coordinator that did not answer is asked again

RaiseEpoch = Callable[[str, int], Awaitable[int]]
Confirm = Callable[[int], Awaitable[Standing]]
Committed = Callable[[str, int], Awaitable[int | None]]


def _retrieve(task: asyncio.Task[int]) -> None:
    """Nobody may be waiting: a lease that was lost is then no unhandled error."""
    if not task.cancelled():
        task.exception()


class PartitionLease:
    """One partition in one generation. Implements ``saga.parking.Lease``.

    ``raise_epoch`` waits while the database is away. ``on_lost`` is called once when the group
    has given the partition to somebody else.
    """

    def __init__(
        self,
        topic: str,
        partition: int,
        generation: int,
        *,
        raise_epoch: RaiseEpoch,
        confirm: Confirm,
        committed: Committed,
        on_lost: Callable[[PartitionLease], None],
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.generation = generation
        self.ledger = Ledger()
        self.sequence = Sequence(topic, partition)
        self.closed = False
        self.granted: int | None = None  # the epoch, once raised and confirmed
        self.committed: int | None = None  # the committed offset when the lease began
        self._raise_epoch = raise_epoch
        self._confirm = confirm
        self._committed = committed
        self._on_lost = on_lost
        self._task: asyncio.Task[int] | None = None

    @property
    def acknowledged(self) -> int | None:
        """All records below this offset are finished: none of them comes again by itself."""
        offsets = [self.committed, self.ledger.committable]
        return max((offset for offset in offsets if offset is not None), default=None)

    async def epoch(self) -> int:
        if self.granted is not None and not self.closed:
            return self.granted
        if self.closed:
            raise Fenced("the partition was given up")
        # Shielded: the lane that asked first may be cancelled, the others still wait.
        return await asyncio.shield(self.acquire())

    def acquire(self) -> asyncio.Task[int]:
        """Begin to raise and confirm the epoch, unless that is under way or was done."""
        if self._task is None or (self._task.done() and self.granted is None):
            self._task = asyncio.create_task(self._acquire(), name="acquire")
            self._task.add_done_callback(_retrieve)
        return self._task

    async def _acquire(self) -> int:
        # Asked first, so that a worker that was frozen and wakes up fences nobody; asked again
        # after the raise, as the partition may have changed hands in between.
        await self._confirmed(None)
        epoch = await self._raise_epoch(self.topic, self.partition)
        crash_points.reach("epoch.raised")
        await self._confirmed(epoch)
        self.committed = await self._committed(self.topic, self.partition)
        self.granted = epoch
        return epoch

    async def _confirmed(self, epoch: int | None) -> None:
        """Return once the coordinator accepts a heartbeat. Raises ``Fenced`` when the partition
        is not ours any more."""
        while not self.closed:
            standing = await self._confirm(self.generation)
            if standing is Standing.CONFIRMED:
                return
            if standing is Standing.LOST:
                log.warning("%s-%d is no longer ours: fenced", self.topic, self.partition)
                self.close()
                self._on_lost(self)
                break
            await asyncio.sleep(CONFIRM_PAUSE)
        raise Fenced("the partition has another owner", epoch)

    def refuse(self, epoch: int | None) -> None:
        """A write under ``epoch`` was refused: it has to be raised and confirmed anew."""
        if epoch is not None and self.granted == epoch:
            log.warning("%s-%d: epoch %d was fenced", self.topic, self.partition, epoch)
            self.granted = None

    def close(self) -> None:
        """Give the partition up: no epoch is given out any more."""
        self.closed = True
        self.granted = None
        if self._task is not None:
            self._task.cancel()
