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
from collections.abc import Sequence
from typing import Any

import rocksdict

log = logging.getLogger("streamapp.restore")

CHUNK = 1000  # records of one write; more of them would hold the event loop up
SAY_EVERY = 5.0  # seconds between lines on how far it is


class Restore:
    """Takes the changelog's records out of what is polled, for active and standby partitions.

    ``app`` is the Faust app; its recovery is asked anew each time, as a rebalance changes it.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._said = 0.0
        self._left_then = 0

    @property
    def remaining(self) -> int:
        """Changelog records that are still to be restored before work begins; 0 in normal work."""
        recovery = self._app.tables.recovery
        if not recovery.in_recovery:
            return 0
        return sum(max(0, left) for left in recovery.active_remaining().values())

    async def take(self, records: Any, generation: int) -> Any:
        """Write the records of changelogs; gives the other ones.

        ``generation`` is that of the group when the poll began. Records of an earlier one are
        dropped: whoever has the partition now begins at the offset in the database.
        """
        tables = self._app.tables.recovery.tp_to_table
        mine = [partition for partition in records or () if partition in tables]
        found = {partition: list(records.pop(partition)) for partition in mine}
        for partition, batch in found.items():
            for begin in range(0, len(batch), CHUNK):
                if self._app.consumer_generation_id != generation:
                    return records
                self._write(partition, batch[begin : begin + CHUNK])
                await asyncio.sleep(0)
        self._tell_faust()
        self._say()
        return records

    def _write(self, partition: Any, records: Sequence[Any]) -> None:
        recovery = self._app.tables.recovery
        if partition in recovery.active_tps:
            offsets = recovery.active_offsets
        elif partition in recovery.standby_tps:
            offsets = recovery.standby_offsets
        else:
            return
        seen = offsets.get(partition)
        if seen is None:
            return  # revoked meanwhile: a write would open the database again
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
        last: int = fresh[-1].offset
        store.set_persisted_offset(partition, last)
        offsets[partition] = last
        self._app.consumer._read_offset[partition] = last

    def _tell_faust(self) -> None:
        """Faust waits for the end of the restore, and notes when standbys are up to date."""
        recovery = self._app.tables.recovery
        # Only where it waits already: its own loop would take the signal back before it does.
        waits = recovery.signal_recovery_end._waiters
        if waits and recovery.in_recovery and not recovery.need_recovery():
            recovery.flush_buffers()
            recovery._set_recovery_ended()
            recovery.signal_recovery_end.set()
        tables = self._app.tables
        if not tables.standbys_ready and recovery.standby_remaining_total() <= 0:
            tables.on_standbys_ready()

    def _say(self) -> None:
        now, left = time.monotonic(), self.remaining
        if left and now - self._said >= SAY_EVERY:
            if self._said and self._left_then > left:
                speed = (self._left_then - left) / (now - self._said)
                log.info("restoring: %d records are left, %d a second", left, speed)
            else:
                log.info("restoring: %d records are left", left)
            self._said, self._left_then = now, left
        elif not left and self._said:
            log.info("restored")
            self._said = 0.0
