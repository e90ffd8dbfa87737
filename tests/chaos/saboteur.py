"""Carries the schedule of faults out. Every fault heals by itself.

A fault counts as carried out only when it was seen to bite: the process had been at work and
ended, the service did treat a request badly, connections were terminated.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Callable

import asyncpg

from tests.chaos.cluster import Cluster, Tell, Worker
from tests.chaos.evidence import Violation
from tests.chaos.schedule import BROKER, JOIN_KINDS, POSTGRES, Fault, FaultKind, Schedule
from tests.chaos.services import MailServer, Mood, OrderService, Temper
from tests.chaos.traffic import Stream
from tests.chaos.watch import Watch

# Seconds within which records have to be committed after a worker or a server came back, and a
# service in a bad mood has to meet a request; those in which broker or database are down do not
# count.
PROGRESS_WITHIN = 90.0
_LOOK = 0.2  # seconds
BURST = 300  # records

_MOODS = {
    FaultKind.ORDERS_REFUSE: Mood.REFUSES,
    FaultKind.ORDERS_LIMIT: Mood.LIMITS,
    FaultKind.ORDERS_HANG: Mood.HANGS,
    FaultKind.ORDERS_LATE: Mood.LATE,
    FaultKind.ORDERS_CUT: Mood.CUTS,
    FaultKind.ORDERS_GARBLE: Mood.GARBLES,
    FaultKind.ORDERS_SLOW: Mood.SLOW,
    FaultKind.MAIL_REFUSE: Mood.REFUSES,
    FaultKind.MAIL_LATE: Mood.LATE,
}


class _NoProgress(Exception):
    """Something came back and no work was done: to hurt it again would show nothing."""


class _Patience:
    """Counts the seconds of a wait, as far as they count."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at = clock()
        self._spent = 0.0

    def ends(self, *, counts: bool) -> bool:
        """Whether it is at an end, after the time since the last call was added."""
        now = self._clock()
        if counts:
            self._spent += now - self._at
        self._at = now
        return self._spent > PROGRESS_WITHIN


class Saboteur:
    """Faults on one target come one after the other, on different ones at the same time.

    ``done`` counts the faults that were carried out, ``violations`` holds what showed meanwhile.
    """

    def __init__(
        self,
        cluster: Cluster,
        watch: Watch,
        stream: Stream,
        orders: OrderService,
        mail: MailServer,
        tell: Tell,
        clock: Callable[[], float],
    ) -> None:
        self._cluster = cluster
        self._watch = watch
        self._stream = stream
        self._orders = orders
        self._mail = mail
        self._tell = tell
        self._clock = clock
        self._until = float("inf")
        self._outages = 0  # servers that are down
        self.done: Counter[FaultKind] = Counter()
        self.violations: list[Violation] = []

    async def run(self, faults: Schedule, until: float) -> None:
        """Carry all of them out; returns once all have healed. None begins after ``until``."""
        self._until = until
        async with asyncio.TaskGroup() as group:
            for target, list_ in faults.items():
                group.create_task(self._one_by_one(target, list_))

    async def _one_by_one(self, target: str, faults: list[Fault]) -> None:
        worker = next((w for w in self._cluster.workers if w.name == target), None)
        recovered = self._clock()  # when the target was last seen to work again
        returned = recovered
        try:
            for fault in faults:
                if worker is not None:
                    recovered = await self._at_work(worker, returned)
                elif target in (POSTGRES, BROKER):
                    recovered = await self._going_on(target, returned)
                await asyncio.sleep(max(0.0, recovered + fault.pause - self._clock()))
                if self._clock() > self._until:
                    return
                if worker is not None:
                    carried_out = await self._hurt(worker, fault)
                else:
                    carried_out = await self._strike(fault)
                self.done[fault.kind] += carried_out
                returned = recovered = self._clock()
            if worker is not None and faults:
                await self._at_work(worker, returned)
        except _NoProgress as error:
            self._tell(f"NO PROGRESS: {error}")
            self.violations.append(Violation("no progress", str(error)))

    async def _at_work(self, worker: Worker, since: float) -> float:
        """Wait until a worker is ready and records of its own were committed; gives the time at
        which it was ready. Raises ``_NoProgress``."""
        ready: float | None = None
        patience = _Patience(self._clock)
        while ready is None or not self._watch.progressed(worker.pid, since):
            if ready is None and (await worker.get("/health/ready"))[0] == 200:
                ready = self._clock()
            if patience.ends(counts=not self._outages):
                raise _NoProgress(await self._why(worker, since, ready))
            await asyncio.sleep(_LOOK)
        return ready

    async def _going_on(self, target: str, since: float) -> float:
        """Wait until any worker has committed records after a server's return; gives the time.
        Raises ``_NoProgress``."""
        patience = _Patience(self._clock)
        while not self._watch.anybody_progressed(since):
            if patience.ends(counts=not self._outages):
                text = f"{target}, back since {since:.1f} s: no worker committed anything"
                raise _NoProgress(f"{text} within {PROGRESS_WITHIN:g} s")
            await asyncio.sleep(_LOOK)
        return self._clock()

    async def _why(self, worker: Worker, since: float, ready: float | None) -> str:
        was = "was not ready" if ready is None else f"was ready at {ready:.1f} s"
        status, text = await worker.get("/health/ready")
        try:
            answer = json.dumps(json.loads(text))
        except ValueError:
            answer = text[:200]
        return (
            f"{worker.name} (pid {worker.pid}, exit code {worker.exit_code}), back since "
            f"{since:.1f} s, {was} and committed nothing within {PROGRESS_WITHIN:g} s; "
            f"/health/ready says {status} {answer}"
        )

    async def _strike(self, fault: Fault) -> bool:
        kind = fault.kind
        if kind in _MOODS:
            service = self._mail if kind.startswith("mail") else self._orders
            return await self._upset(service.temper, _MOODS[kind], fault)
        if kind in JOIN_KINDS:
            return await self._join(fault)
        if kind in (FaultKind.BROKER_STOP, FaultKind.BROKER_KILL):
            return await self._stop_broker(fault)
        if kind is FaultKind.POSTGRES_DISCONNECT:
            return await self._disconnect()
        if kind in (FaultKind.MANY_BAD, FaultKind.MANY_AGAIN):
            return await self._flood(fault)
        return await self._stop_postgres(fault)

    async def _upset(self, temper: Temper, mood: Mood, fault: Fault) -> bool:
        self._tell(f"{fault.kind}: {fault.share:.0%} of requests, {fault.seconds:.1f} s")
        temper.upset(mood, fault.share)
        await asyncio.sleep(fault.seconds)
        patience = _Patience(self._clock)
        # Requests set no event, and none would tell of the time that counts.
        while not temper.struck and not patience.ends(  # noqa: ASYNC110
            counts=not self._outages
        ):
            await asyncio.sleep(_LOOK)
        temper.calm()
        self._tell(f"{fault.kind}: over, {temper.struck} requests were struck")
        return temper.struck > 0

    async def _flood(self, fault: Fault) -> bool:
        sent = await self._stream.flood(BURST, bad=fault.kind is FaultKind.MANY_BAD)
        self._tell(f"{fault.kind}: {sent}")
        return sent > 0

    async def _stop_broker(self, fault: Fault) -> bool:
        broker = self._cluster.broker
        assert broker is not None
        stop = broker.kill if fault.kind is FaultKind.BROKER_KILL else broker.stop
        await self._outage(fault, stop, broker.start)
        self._tell("broker is back")
        return True

    async def _stop_postgres(self, fault: Fault) -> bool:
        postgres = self._cluster.postgres
        stop = postgres.kill if fault.kind is FaultKind.POSTGRES_CRASH else postgres.stop
        await self._outage(fault, stop, postgres.start)
        self._tell("PostgreSQL is back")
        return True

    async def _outage(
        self, fault: Fault, stop: Callable[[], None], start: Callable[[], object]
    ) -> None:
        self._tell(f"{fault.kind} for {fault.seconds:.1f} s")
        self._outages += 1
        await asyncio.to_thread(stop)
        await asyncio.sleep(fault.seconds)
        await asyncio.to_thread(start)
        self._outages -= 1

    async def _disconnect(self) -> bool:
        try:
            count = await self._cluster.disconnect_all()
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            self._tell(f"PostgreSQL connections could not be terminated: {error!r}")
            return False
        self._tell(f"PostgreSQL: {count} connections terminated")
        return count > 0

    async def _join(self, fault: Fault) -> bool:
        worker = self._cluster.add()
        self._tell(f"{worker.name} joins, to stay for {fault.seconds:.1f} s")
        since = self._clock()
        worker.bring_up()
        try:
            await self._at_work(worker, since)
            await asyncio.sleep(fault.seconds)
        finally:
            if fault.kind is FaultKind.JOIN_AND_LEAVE:
                await self._terminate(worker)
            else:
                await worker.crash()
                self._tell(f"{worker.name} killed")
        return True

    async def _hurt(self, worker: Worker, fault: Fault) -> bool:
        kind, pid = fault.kind, worker.pid
        if worker.exit_code is not None:
            return False  # it ended by itself a moment ago
        if kind is FaultKind.FREEZE:
            self._tell(f"{worker.name} (pid {pid}) frozen for {fault.seconds:.1f} s")
            worker.send(signal.SIGSTOP)
            try:
                await asyncio.sleep(fault.seconds)
                frozen = worker.stopped
            finally:
                worker.send(signal.SIGCONT)
            self._tell(f"{worker.name} goes on")
            return frozen
        if kind is FaultKind.TERMINATE:
            await self._terminate(worker)
        else:
            self._tell(f"{kind}: {worker.name} (pid {pid})")
            await worker.crash()
        bitten = worker.exit_code is not None
        if kind is FaultKind.FORGET:
            bitten = worker.forget()
        await asyncio.sleep(fault.seconds)
        worker.bring_up()
        self._tell(f"{worker.name} started again (pid {worker.pid})")
        return bitten

    async def _terminate(self, worker: Worker) -> None:
        self._tell(f"{worker.name} (pid {worker.pid}) gets SIGTERM")
        began = self._clock()
        how = await worker.terminate()
        self._tell(f"{worker.name} ended after {self._clock() - began:.1f} s: {how}")
        if how != "exit code 0":
            text = f"{worker.name} got SIGTERM at {began:.1f} s: {how}"
            self.violations.append(Violation("wrong", text))
