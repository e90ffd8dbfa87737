"""The saga's journal on PostgreSQL: writers that take what waits and commit it at once.

How writes share a transaction is in ``group_commit``; the steps of a transaction, and why each
is there, are in ``_transaction``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any
from zlib import crc32

from streamapp.resilience import crash_points
from streamapp.saga.journal import Written
from streamapp.saga.model import Fenced, SagaState, SagaWrite
from streamapp.settings import Settings
from streamapp.storage import batch, effects, locking, requests, rows, settlements
from streamapp.storage.connection import Connection, connect
from streamapp.storage.group_commit import Entry, Queue, Results
from streamapp.storage.health import insist
from streamapp.storage.sagas import load_sagas, stands_where_expected

LOADS = 2  # connections that read sagas back at the same time


class PostgresJournal:
    """Implements ``saga.journal.Journal``. Outages are waited for, never reported to callers.

    ``on_outage`` is called with the error on every failed attempt, and with None once the
    database answers again.
    """

    def __init__(
        self, settings: Settings, on_outage: Callable[[BaseException | None], None]
    ) -> None:
        self._settings = settings
        self._group = settings.consumer_group
        self._on_outage = on_outage
        self._loads = asyncio.Semaphore(LOADS)
        # Writes that met a lock, or whatever may pass, are repeated apart, so that the others need
        # not wait for them (protocol, 9).
        self._apart = Queue(settings, "journal-apart", self._transaction, on_outage)
        self._common = [
            Queue(settings, "journal", self._transaction, on_outage, self._apart)
            for _ in range(settings.journal_writers)
        ]

    async def start(self) -> None:
        for queue in self._common:
            queue.start()
        self._apart.start()

    async def stop(self) -> None:
        for queue in self._common:
            await queue.stop()
        await self._apart.stop()

    @property
    def backlog(self) -> int:
        """Writes that wait for a transaction."""
        return sum(len(queue.entries) for queue in (*self._common, self._apart))

    async def write(self, write: SagaWrite) -> Written:
        future: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
        # Always the same one for a saga, whose writes are measured against each other. Those of
        # the lead's next saga begin when these are durable.
        number = crc32(write.state.message.processing_id.encode()) % len(self._common)
        self._common[number].put(Entry(write, future))
        return await future

    async def load(self, processing_id: str) -> SagaState | None:
        """Read a saga on a connection of its own."""
        return await insist(lambda: self._load(processing_id), self._on_outage)

    async def _load(self, processing_id: str) -> SagaState | None:
        # Many stuck sagas may fall due at once: they must not use up the server's connections.
        async with self._loads:
            connection = await connect(self._settings, "streamapp-load")
            try:
                return (await load_sagas(connection, [processing_id])).get(processing_id)
            finally:
                await connection.close()

    async def _transaction(
        self, connection: Connection, entries: Sequence[Entry], skip_locked: bool
    ) -> tuple[Results, list[Entry]]:
        """Write a batch; gives each entry's result, and those to be repeated apart.

        With ``skip_locked`` a row of ``partition_owners``, ``leads`` or ``sagas`` that somebody
        else has locked puts its entries among those; without, the lock is waited for.

        The partition's row is locked first, then the leads' and the sagas' (``locking`` says why).
        """
        results: Results = []
        apart: list[Entry] = []
        async with connection.transaction():
            live = await self._with_valid_epoch(connection, entries, results, apart, skip_locked)
            if skip_locked:
                live, locked = await self._without_locked_leads(connection, live)
                apart += locked
            claims = [entry for entry in live if entry.write.new]
            others = [entry for entry in live if not entry.write.new]
            claims = await self._claim(connection, claims, results, apart)
            others = await self._lock(connection, others, results, apart, skip_locked)
            live = [*claims, *others]
            writes = [entry.write for entry in live]
            if writes:
                operations = effects.collect(writes)
                outputs = await effects.set_leads(connection, operations)
                await rows.insert(
                    connection,
                    writes,
                    operations,
                    consumer_group=self._group,
                    window=self._settings.dedup_window,
                )
                await effects.change(connection, operations)
                await batch.revive_sagas(connection, writes)
                await batch.update_sagas(connection, writes)
                await settlements.settle(connection, writes)
                await requests.note_carried_out(connection, writes)
                before_commit = time.monotonic()
                for entry in live:
                    answers = outputs.get(entry.write.write_id, {})
                    results.append((entry, Written(outputs=answers, at=before_commit)))
            crash_points.reach("journal.written")
        crash_points.reach("journal.committed")
        return results, apart

    async def _with_valid_epoch(
        self,
        connection: Connection,
        entries: Sequence[Entry],
        results: Results,
        apart: list[Entry],
        skip_locked: bool,
    ) -> list[Entry]:
        """One writer per partition."""
        epochs, locked = await locking.lock_owners(
            connection, self._group, map(_partition, entries), skip=skip_locked
        )
        live = []
        for entry in entries:
            if _partition(entry) in locked:
                apart.append(entry)
            elif epochs.get(_partition(entry)) == entry.write.epoch:
                live.append(entry)
            else:
                results.append(
                    (entry, Fenced("the partition has another owner", entry.write.epoch))
                )
        return live

    async def _without_locked_leads(
        self, connection: Connection, entries: list[Entry]
    ) -> tuple[list[Entry], list[Entry]]:
        """Somebody's long transaction on ``leads`` must not hold up the whole batch."""
        touching = [entry for entry in entries if effects.touches_lead(entry.write)]
        if not touching:
            return entries, []
        locked = await locking.lock_leads(connection, map(_lead, touching))
        apart = [entry for entry in touching if _lead(entry) in locked]
        return [entry for entry in entries if entry not in apart], apart

    async def _claim(
        self,
        connection: Connection,
        entries: list[Entry],
        results: Results,
        apart: list[Entry],
    ) -> list[Entry]:
        if not entries:
            return []
        won = await batch.insert_claims(connection, self._group, [entry.write for entry in entries])
        lost = [entry for entry in entries if entry.write.write_id not in won]
        if lost:
            ids = [entry.write.state.message.processing_id for entry in lost]
            existing = await load_sagas(connection, ids)
            own = await self._own_writes(connection, ids)
            for entry in lost:
                processing_id = entry.write.state.message.processing_id
                state = existing.get(processing_id)
                if state is None:
                    apart.append(entry)  # purged between the two statements: claimed anew
                elif own.get(processing_id) == entry.write.write_id:
                    results.append((entry, _read_back(entry.write, state)))
                else:
                    results.append((entry, Written(existing=state)))
        return [entry for entry in entries if entry.write.write_id in won]

    async def _own_writes(self, connection: Connection, ids: list[str]) -> dict[str, Any]:
        records = await connection.fetch(
            "SELECT processing_id, write_id FROM sagas WHERE processing_id = ANY($1)", ids
        )
        return {record["processing_id"]: record["write_id"] for record in records}

    async def _lock(
        self,
        connection: Connection,
        entries: list[Entry],
        results: Results,
        apart: list[Entry],
        skip_locked: bool,
    ) -> list[Entry]:
        """Lock the sagas in id order and let pass those that stand where their write expects.

        The write id is that of a commit whose outcome was unknown and is known now.
        """
        if not entries:
            return []
        found, locked = await locking.lock_sagas(
            connection,
            (entry.write.state.message.processing_id for entry in entries),
            skip=skip_locked,
        )
        waiting = await requests.lock_open(connection, [entry.write for entry in entries])
        live = []
        committed = []
        for entry in entries:
            processing_id = entry.write.state.message.processing_id
            record = found.get(processing_id)
            if processing_id in locked:
                apart.append(entry)
            elif record is not None and record["write_id"] == entry.write.write_id:
                committed.append(entry)
            elif (
                record is None
                or not stands_where_expected(record, entry.write, self._group)
                or not requests.still_open(entry.write, waiting)
            ):
                results.append(
                    (
                        entry,
                        Fenced("the saga is not where this write expects it", entry.write.epoch),
                    )
                )
            else:
                live.append(entry)
        if committed:
            states = await load_sagas(
                connection, [entry.write.state.message.processing_id for entry in committed]
            )
            for entry in committed:
                state = states[entry.write.state.message.processing_id]
                results.append((entry, _read_back(entry.write, state)))
        return live


def _partition(entry: Entry) -> tuple[str, int]:
    return entry.write.state.source.topic, entry.write.state.source.partition


def _lead(entry: Entry) -> tuple[str, str]:
    return entry.write.state.message.lead_id, entry.write.state.message.business_id


def _read_back(write: SagaWrite, state: SagaState) -> Written:
    """The result of a write that turned out to be committed already."""
    outputs = {}
    for row in write.steps:
        stored = state.steps.get((row.ordinal, row.direction))
        if stored is not None and stored.output is not None:
            outputs[row.ordinal] = stored.output
    return Written(outputs=outputs)
