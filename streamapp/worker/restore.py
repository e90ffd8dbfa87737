"""Restoring a table from its changelog poll by poll, instead of record by record.

Faust makes two tasks and an event of each record of a changelog, which holds a restore to some
9,000 records a second. Here the records of a poll are taken out before Faust sees them and written
to the local database in a few batches. What Faust keeps of a restore (offsets by partition, its
signals) is kept as it does.

The offset is written after the records it stands for: a restore that is interrupted in between
writes some of them again, to the same effect.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from typing import Any

import rocksdict

from streamapp.worker.membership import Membership

log = logging.getLogger("streamapp.restore")

CHUNK = 1000  # records of one write; more of them would hold the event loop up
POLL = 20_000  # records of a poll while nothing but changelogs is polled
SAY_EVERY = 5.0  # seconds between lines on how far it is


class Restore:
    """Takes the changelog's records out of what is polled, for active and standby partitions.

    ``app`` is the Faust app; its recovery is asked anew each time, as a rebalance changes it.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._membership = Membership(app)
        self._began: float | None = None  # when there was first something to restore
        self._said = 0.0
        self._left_then = 0
        self._written = 0

    @property
    def remaining(self) -> int:
        """Changelog records that are still to be restored before work begins; 0 in normal work."""
        recovery = self._app.tables.recovery
        if not recovery.in_recovery:
            return 0
        return sum(max(0, left) for left in recovery.active_remaining().values())

    def size_polls(self) -> None:
        """Called before each poll: each costs a passage to the consumer's thread and back."""
        consumer = self._app.consumer._thread._consumer
        usual = self._app.conf.broker_max_poll_records
        if consumer is not None:  # else the worker is stopping
            consumer._max_poll_records = POLL if self.remaining else usual

    async def take(self, records: Any, generation: int) -> Any:
        """Write the records of changelogs; gives the other ones.

        ``generation`` is that of the group when the poll began. Records of an earlier one are
        dropped: whoever has the partition now begins at the offset in the database. Where that is
        this worker, a poll that lasted beyond the rebalance may have taken them from there on, so
        they are fetched once more.
        """
        tables = self._app.tables.recovery.tp_to_table
        mine = [partition for partition in records or () if partition in tables]
        found = {partition: list(records.pop(partition)) for partition in mine}
        if self._began is None and self.remaining:
            self._began = self._said = time.monotonic()
            self._left_then, self._written = self.remaining, 0
            log.info("restoring: %d records are left", self._left_then)
        late = self._ended(generation)
        for partition, batch in found.items():
            for begin in range(0, len(batch), CHUNK):
                if self._ended(generation):
                    break
                self._write(partition, batch[begin : begin + CHUNK])
                await asyncio.sleep(0)
        if self._ended(generation):
            await self._fetch_again(found)
            # Faust would take those that it had before a rebalance for records of after it.
            return records if late else {}
        if not found:
            self._pass_absent_ends()
        self._tell_faust()
        self._say()
        return records

    def _ended(self, generation: int) -> bool:
        return bool(self._app.consumer_generation_id != generation)

    def _offsets(self, partition: Any) -> Any:
        """Faust's offsets of the kind that the partition is; of another worker's: nothing."""
        recovery = self._app.tables.recovery
        if partition in recovery.active_tps:
            return recovery.active_offsets
        return recovery.standby_offsets if partition in recovery.standby_tps else {}

    async def _fetch_again(self, partitions: Iterable[Any]) -> None:
        for partition in partitions:
            # Until the flow is resumed Faust itself has yet to go to where it begins.
            offset = self._offsets(partition).get(partition)
            if offset is not None and self._app.consumer.flow_active:
                await self._membership.seek(partition.topic, partition.partition, max(0, offset))

    def _pass_absent_ends(self) -> None:
        """A log whose last records were deleted ends where the consumer is, not where they were:
        nothing came, and there is nothing before its position that did not come."""
        recovery = self._app.tables.recovery
        for partition, last in recovery.active_highwaters.items():
            seen = recovery.active_offsets.get(partition)
            if seen is not None and seen < last:
                position = self._membership.position(partition.topic, partition.partition)
                if position is not None and position > last:
                    recovery.active_offsets[partition] = last

    def _write(self, partition: Any, records: Sequence[Any]) -> None:
        recovery = self._app.tables.recovery
        offsets = self._offsets(partition)
        seen = offsets.get(partition)
        if seen is None:
            return  # revoked meanwhile: a write would open the database again
        # A log goes upwards: only a poll that begins before what is there has some to leave out.
        fresh = records
        if records[0].offset <= seen:
            fresh = [record for record in records if record.offset > seen]
        if not fresh:
            return
        batch = rocksdict.WriteBatch(raw_mode=True)
        for record in fresh:
            if record.value is None:
                batch.delete(record.key)
            else:
                batch.put(record.key, record.value)
        store = recovery.tp_to_table[partition].data
        store._db_for_partition(partition.partition).write(batch)
        self._written += len(fresh)
        last: int = fresh[-1].offset
        store.set_persisted_offset(partition, last)
        offsets[partition] = last
        self._app.consumer._read_offset[partition] = last

    def _tell_faust(self) -> None:
        """Faust waits for the end of the restore, and notes when standbys are up to date."""
        recovery = self._app.tables.recovery
        # Only where it waits already: its own loop would take the signal back before it does.
        waits = recovery.signal_recovery_end._waiters
        if waits and not recovery.need_recovery():
            recovery.flush_buffers()
            recovery._set_recovery_ended()
            recovery.signal_recovery_end.set()
        tables = self._app.tables
        if not tables.standbys_ready and recovery.standby_remaining_total() <= 0:
            tables.on_standbys_ready()

    def _say(self) -> None:
        if self._began is None:
            return
        now, left = time.monotonic(), self.remaining
        if not left:
            log.info("restored %d records in %.2f s", self._written, now - self._began)
            self._began = None
        elif now - self._said >= SAY_EVERY:
            speed = (self._left_then - left) / (now - self._said)
            log.info("restoring: %d records are left, %d a second: %s", left, speed, self._shares())
            self._said, self._left_then = now, left

    def _shares(self) -> str:
        """What is left of each partition that is not whole."""
        remaining = self._app.tables.recovery.active_remaining()
        return ", ".join(
            f"partition {each.partition}: {left}"
            for each, left in sorted(remaining.items())
            if left > 0
        )
