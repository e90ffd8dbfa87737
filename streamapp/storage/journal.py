"""The saga's journal on PostgreSQL: one writer that takes what waits and commits it at once.

Natural group commit: while a transaction is under way, writes queue up; the next transaction
takes all of them. A lone write is not delayed, a burst shares its commit. The steps of a
transaction, and why each is there, are in ``_transaction``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from streamapp.resilience import crash_points
from streamapp.saga.journal import Written
from streamapp.saga.model import Fenced, SagaState, SagaWrite, WriteRefused
from streamapp.settings import Settings
from streamapp.storage import batch, effects, locking, requests, settlements
from streamapp.storage.connection import Connection, connect
from streamapp.storage.faults import Fault, fault_of
from streamapp.storage.health import insist
from streamapp.storage.sagas import load_sagas, stands_where_expected

FIRST_BACKOFF = 0.05  # seconds
MAX_BACKOFF = 1.0
SAY_EVERY = 60.0
LOADS = 2  # connections that read sagas back at the same time

log = logging.getLogger("streamapp.journal")


@dataclass(slots=True, eq=False)
class _Entry:
    write: SagaWrite
    future: asyncio.Future[Written]


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
        self._said = float("-inf")
        self._loads = asyncio.Semaphore(LOADS)
        self._common = _Queue(self, "journal")
        # Writes that met a lock, or whatever may pass, are repeated here, so that the others need
        # not wait for them (protocol, 9).
        self._apart = _Queue(self, "journal-apart")

    async def start(self) -> None:
        self._common.start(self._settings.journal_batch)
        self._apart.start(self._settings.journal_batch)

    async def stop(self) -> None:
        await self._common.stop()
        await self._apart.stop()

    def _say_apart(self, error: Exception) -> None:
        now = time.monotonic()
        if now - self._said >= SAY_EVERY:
            self._said = now
            state = getattr(error, "sqlstate", "")
            log.warning("writes wait apart: %s (SQLSTATE %s)", type(error).__name__, state)

    @property
    def backlog(self) -> int:
        """Writes that wait for a transaction."""
        return len(self._common.entries) + len(self._apart.entries)

    async def write(self, write: SagaWrite) -> Written:
        future: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
        self._common.put(_Entry(write, future))
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
        self, connection: Connection, entries: Sequence[_Entry], skip_locked: bool
    ) -> tuple[list[tuple[_Entry, Written | Fenced]], list[_Entry]]:
        """Write a batch; gives each entry's result, and those to be repeated apart.

        With ``skip_locked`` a row of ``partition_owners``, ``leads`` or ``sagas`` that somebody
        else has locked puts its entries among those; without, the lock is waited for.

        The partition's row is locked first, then the leads' and the sagas' (``locking`` says why).
        """
        results: list[tuple[_Entry, Written | Fenced]] = []
        apart: list[_Entry] = []
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
                outputs = await effects.apply_operations(connection, writes)
                await batch.upsert_steps(connection, writes)
                await batch.revive_sagas(connection, writes)
                await batch.update_sagas(connection, writes)
                await settlements.settle(connection, writes)
                await requests.note_carried_out(connection, writes)
                await batch.insert_outbox(connection, self._group, writes)
                await batch.upsert_processed(connection, self._settings.dedup_window, writes)
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
        entries: Sequence[_Entry],
        results: list[tuple[_Entry, Written | Fenced]],
        apart: list[_Entry],
        skip_locked: bool,
    ) -> list[_Entry]:
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
        self, connection: Connection, entries: list[_Entry]
    ) -> tuple[list[_Entry], list[_Entry]]:
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
        entries: list[_Entry],
        results: list[tuple[_Entry, Written | Fenced]],
        apart: list[_Entry],
    ) -> list[_Entry]:
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
        entries: list[_Entry],
        results: list[tuple[_Entry, Written | Fenced]],
        apart: list[_Entry],
        skip_locked: bool,
    ) -> list[_Entry]:
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


def _partition(entry: _Entry) -> tuple[str, int]:
    return entry.write.state.source.topic, entry.write.state.source.partition


def _lead(entry: _Entry) -> tuple[str, str]:
    return entry.write.state.message.lead_id, entry.write.state.message.business_id


def _read_back(write: SagaWrite, state: SagaState) -> Written:
    """The result of a write that turned out to be committed already."""
    outputs = {}
    for row in write.steps:
        stored = state.steps.get((row.ordinal, row.direction))
        if stored is not None and stored.output is not None:
            outputs[row.ordinal] = stored.output
    return Written(outputs=outputs)


class _Queue:
    """One connection and the writes that wait for it."""

    def __init__(self, journal: PostgresJournal, name: str) -> None:
        self.entries: deque[_Entry] = deque()
        self._journal = journal
        self._name = name
        self._batch = 1
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._connection: Connection | None = None

    def put(self, entry: _Entry) -> None:
        self.entries.append(entry)
        self._arrived.set()

    def start(self, size: int) -> None:
        self._batch = size
        self._task = asyncio.create_task(self._run(), name=self._name)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for entry in self.entries:
            entry.future.cancel()
        self.entries.clear()
        self._disconnect()

    async def _run(self) -> None:
        patient = False
        while True:
            while not self.entries:
                self._arrived.clear()
                await self._arrived.wait()
            taken = self._take(1 if patient else self._batch)
            try:
                await self._commit(taken, skip_locked=not patient)
            except asyncio.CancelledError:
                for entry in taken:
                    entry.future.cancel()
                raise
            except Exception as error:
                # Only a defect of ours comes here: its writes fail, the journal goes on.
                for entry in taken:
                    if not entry.future.done():
                        entry.future.set_exception(error)
            # Of those apart, all that are free are written at once, however many are locked. Then
            # one waits for its lock: whoever only looks may never find a busy row free.
            left = any(not entry.future.done() for entry in taken)
            patient = self._is_apart and left and not patient

    def _take(self, limit: int) -> list[_Entry]:
        """The writes of the next transaction: one a saga, so that a later one of the same saga
        is measured against what the earlier one made of it."""
        taken: list[_Entry] = []
        sagas: set[str] = set()
        while self.entries and len(taken) < limit:
            processing_id = self.entries[0].write.state.message.processing_id
            if processing_id in sagas:
                break
            sagas.add(processing_id)
            taken.append(self.entries.popleft())
        return taken

    @property
    def _is_apart(self) -> bool:
        return self is self._journal._apart

    async def _commit(self, entries: list[_Entry], *, skip_locked: bool) -> None:
        """Make the entries durable, however long the database is away."""
        backoff = FIRST_BACKOFF
        suspected = False
        while True:
            # A lane that was cancelled no longer waits: its next owner writes instead.
            entries = [entry for entry in entries if not entry.future.done()]
            if not entries:
                return
            connected = False
            try:
                connection = await self._connected()
                connected = True
                results, apart = await self._journal._transaction(connection, entries, skip_locked)
            except Exception as error:
                # Whatever goes wrong in connecting is no write's fault.
                fault = fault_of(error) if connected else Fault.OUTAGE
                if fault is Fault.OUTAGE:
                    self._disconnect()
                    self._journal._on_outage(error)
                    await asyncio.sleep(backoff)
                    backoff = min(backoff * 2, MAX_BACKOFF)
                    continue
                if fault is Fault.LOCK:
                    await self._met_lock(entries, error, skip_locked)
                    return
                if fault is None:
                    self._disconnect()
                    if not suspected:
                        # A connection that broke oddly, or a defect in making the statements, set
                        # off by what some write holds: only that comes again.
                        suspected = True
                        continue
                await self._refused(entries, error, skip_locked)
                return
            self._journal._on_outage(None)
            _resolve(results)
            await self._set_apart(apart)
            return

    async def _met_lock(self, entries: list[_Entry], error: Exception, skip_locked: bool) -> None:
        """A lock that cannot be skipped, or what else may pass: whose it is shows one by one."""
        self._journal._say_apart(error)
        if self._is_apart and len(entries) > 1:
            for entry in entries:
                await self._commit([entry], skip_locked=skip_locked)
        else:
            await self._set_apart(entries)

    async def _set_apart(self, entries: Sequence[_Entry]) -> None:
        """To the end of those apart: a lock may last for hours, and the writes behind these need
        not wait for it."""
        for entry in entries:
            self._journal._apart.put(entry)
        if entries and self._is_apart:
            await asyncio.sleep(FIRST_BACKOFF)

    async def _refused(self, entries: list[_Entry], error: Exception, skip_locked: bool) -> None:
        """Find the write whose content is at fault: it alone fails."""
        if len(entries) == 1:
            state = getattr(error, "sqlstate", None)
            what = f"SQLSTATE {state}" if state else type(error).__name__
            # Its DETAIL would quote the row, and with it what the customer wrote.
            said = getattr(error, "message", None) or str(error)
            refused = WriteRefused(f"the data cannot be stored ({what}): {said}")
            refused.__cause__ = error
            if not entries[0].future.done():
                entries[0].future.set_exception(refused)
            return
        middle = len(entries) // 2
        await self._commit(entries[:middle], skip_locked=skip_locked)
        await self._commit(entries[middle:], skip_locked=skip_locked)

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._journal._settings, f"streamapp-{self._name}")
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


def _resolve(results: Sequence[tuple[_Entry, Written | Fenced]]) -> None:
    for entry, result in results:
        if entry.future.done():
            continue
        if isinstance(result, Fenced):
            entry.future.set_exception(result)
        else:
            entry.future.set_result(result)
