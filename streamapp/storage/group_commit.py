"""Natural group commit: writes that come while a transaction is under way share the next one.

A lone write is not delayed, a burst shares its commit; there is no timer. A write that the
database refuses is found by halving its batch and fails alone; one that meets a lock is repeated
apart from the others (protocol, 9); an outage is waited for (protocol, 10).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from streamapp.resilience.outage import SAY_EVERY
from streamapp.saga.journal import Written
from streamapp.saga.model import Fenced, SagaWrite, WriteRefused
from streamapp.settings import Settings
from streamapp.storage.connection import Connection, connect
from streamapp.storage.faults import Fault, fault_of

FIRST_BACKOFF = 0.05  # seconds
MAX_BACKOFF = 1.0

log = logging.getLogger("streamapp.journal")


@dataclass(slots=True, eq=False)
class Entry:
    """A write and who waits for it."""

    write: SagaWrite
    future: asyncio.Future[Written]


Results = list[tuple[Entry, Written | Fenced]]
# Writes a batch; gives each entry's result, and those to be repeated apart. With True it skips
# rows that somebody else has locked.
Transaction = Callable[[Connection, Sequence[Entry], bool], Awaitable[tuple[Results, list[Entry]]]]


class Queue:
    """One connection and the writes that wait for it.

    ``transaction`` writes a batch; ``on_outage`` is called with the error on every failed attempt,
    and with None once the database answers again. What meets a lock is put into ``apart``; without
    one this is where such writes are, and they are repeated here.
    """

    def __init__(
        self,
        settings: Settings,
        name: str,
        transaction: Transaction,
        on_outage: Callable[[BaseException | None], None],
        apart: Queue | None = None,
    ) -> None:
        self.entries: deque[Entry] = deque()
        self._settings = settings
        self._name = name
        self._transaction = transaction
        self._on_outage = on_outage
        self._apart = apart or self
        self._said = float("-inf")
        self._batch = settings.journal_batch
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._connection: Connection | None = None

    def put(self, entry: Entry) -> None:
        self.entries.append(entry)
        self._arrived.set()

    def start(self) -> None:
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

    def _take(self, limit: int) -> list[Entry]:
        """The writes of the next transaction: one a saga, so that a later one of the same saga
        is measured against what the earlier one made of it."""
        taken: list[Entry] = []
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
        return self._apart is self

    async def _commit(self, entries: list[Entry], *, skip_locked: bool) -> None:
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
                results, apart = await self._transaction(connection, entries, skip_locked)
            except Exception as error:
                # Whatever goes wrong in connecting is no write's fault.
                fault = fault_of(error) if connected else Fault.OUTAGE
                if fault is Fault.OUTAGE:
                    self._disconnect()
                    self._on_outage(error)
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
            self._on_outage(None)
            _resolve(results)
            await self._set_apart(apart)
            return

    async def _met_lock(self, entries: list[Entry], error: Exception, skip_locked: bool) -> None:
        """A lock that cannot be skipped, or what else may pass: whose it is shows one by one."""
        self._say_apart(error)
        if self._is_apart and len(entries) > 1:
            for entry in entries:
                await self._commit([entry], skip_locked=skip_locked)
        else:
            await self._set_apart(entries)

    def _say_apart(self, error: Exception) -> None:
        now = time.monotonic()
        if now - self._said >= SAY_EVERY:
            self._said = now
            state = getattr(error, "sqlstate", "")
            log.warning("writes wait apart: %s (SQLSTATE %s)", type(error).__name__, state)

    async def _set_apart(self, entries: Sequence[Entry]) -> None:
        """To the end of those apart: a lock may last for hours, and the writes behind these need
        not wait for it."""
        for entry in entries:
            self._apart.put(entry)
        if entries and self._is_apart:
            await asyncio.sleep(FIRST_BACKOFF)

    async def _refused(self, entries: list[Entry], error: Exception, skip_locked: bool) -> None:
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
            self._connection = await connect(self._settings, f"streamapp-{self._name}")
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


def _resolve(results: Sequence[tuple[Entry, Written | Fenced]]) -> None:
    for entry, result in results:
        if entry.future.done():
            continue
        if isinstance(result, Fenced):
            entry.future.set_exception(result)
        else:
            entry.future.set_result(result)
