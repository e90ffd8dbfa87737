"""Carries the schedule of faults out. Every fault heals by itself."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter

import asyncpg

from tests.chaos.cluster import Cluster, Tell, Worker
from tests.chaos.schedule import Fault, FaultKind
from tests.chaos.services import MailServer, Mood, OrderService, Temper

_ORDERS = {
    FaultKind.ORDERS_REFUSE: Mood.REFUSES,
    FaultKind.ORDERS_HANG: Mood.HANGS,
    FaultKind.ORDERS_LATE: Mood.LATE,
    FaultKind.ORDERS_CUT: Mood.CUTS,
    FaultKind.ORDERS_SLOW: Mood.SLOW,
}
_MAIL = {FaultKind.MAIL_REFUSE: Mood.REFUSES, FaultKind.MAIL_LATE: Mood.LATE}


class Saboteur:
    """Faults on one target come one after the other, on different ones at the same time.

    ``done`` counts the faults that were carried out.
    """

    def __init__(
        self, cluster: Cluster, workers: int, orders: OrderService, mail: MailServer, tell: Tell
    ) -> None:
        self._cluster = cluster
        self._workers = cluster.workers[:workers]
        self._orders = orders
        self._mail = mail
        self._tell = tell
        self._locks = {name: asyncio.Lock() for name in ("postgres", "broker", "orders", "mail")}
        self.done: Counter[FaultKind] = Counter()

    async def run(self, faults: list[Fault]) -> None:
        """Carry all of them out, each at its time; returns once all have healed."""
        began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                left = began + fault.at - asyncio.get_running_loop().time()
                await asyncio.sleep(max(0.0, left))
                group.create_task(self._strike(fault))

    async def _strike(self, fault: Fault) -> None:
        kind = fault.kind
        if kind in _ORDERS:
            await self._upset("orders", self._orders.temper, _ORDERS[kind], fault)
        elif kind in _MAIL:
            await self._upset("mail", self._mail.temper, _MAIL[kind], fault)
        elif kind is FaultKind.BROKER:
            await self._stop_broker(fault)
        elif kind is FaultKind.JOIN:
            await self._join(fault)
        elif kind is FaultKind.POSTGRES_DISCONNECT:
            await self._disconnect()
        elif kind in (FaultKind.POSTGRES_STOP, FaultKind.POSTGRES_CRASH):
            await self._stop_postgres(fault)
        else:
            worker = self._workers[fault.target % len(self._workers)]
            async with worker.lock:
                await self._hurt(worker, fault)
        self.done[kind] += 1

    async def _upset(self, name: str, temper: Temper, mood: Mood, fault: Fault) -> None:
        async with self._locks[name]:
            self._tell(f"{fault.kind}: {fault.share:.0%} of requests, {fault.seconds:.1f} s")
            temper.mood, temper.share = mood, fault.share
            await asyncio.sleep(fault.seconds)
            temper.mood = Mood.WELL
            self._tell(f"{fault.kind}: over")

    async def _stop_broker(self, fault: Fault) -> None:
        broker = self._cluster.broker
        assert broker is not None
        async with self._locks["broker"]:
            self._tell(f"{fault.kind} for {fault.seconds:.1f} s")
            await asyncio.to_thread(broker.stop)
            await asyncio.sleep(fault.seconds)
            await asyncio.to_thread(broker.start)
            self._tell("broker is back")

    async def _stop_postgres(self, fault: Fault) -> None:
        postgres = self._cluster.postgres
        stop = postgres.kill if fault.kind is FaultKind.POSTGRES_CRASH else postgres.stop
        async with self._locks["postgres"]:
            self._tell(f"{fault.kind} for {fault.seconds:.1f} s")
            await asyncio.to_thread(stop)
            await asyncio.sleep(fault.seconds)
            await asyncio.to_thread(postgres.start)
            self._tell("PostgreSQL is back")

    async def _disconnect(self) -> None:
        async with self._locks["postgres"]:
            try:
                count = await self._cluster.disconnect_all()
            except (asyncpg.PostgresError, OSError) as error:
                self._tell(f"PostgreSQL connections could not be terminated: {error!r}")
            else:
                self._tell(f"PostgreSQL: {count} connections terminated")

    async def _join(self, fault: Fault) -> None:
        worker = self._cluster.add()
        self._tell(f"{worker.name} joins for {fault.seconds:.1f} s")
        worker.bring_up()
        await asyncio.sleep(fault.seconds)
        if fault.target % 2:
            self._tell(f"{worker.name} leaves: {await worker.terminate()}")
        else:
            await worker.crash()
            self._tell(f"{worker.name} leaves: killed")

    async def _hurt(self, worker: Worker, fault: Fault) -> None:
        if fault.kind is FaultKind.FREEZE:
            self._tell(f"{worker.name} (pid {worker.pid}) frozen for {fault.seconds:.1f} s")
            worker.send(signal.SIGSTOP)
            try:
                await asyncio.sleep(fault.seconds)
            finally:
                worker.send(signal.SIGCONT)
            self._tell(f"{worker.name} goes on")
            return
        if fault.kind is FaultKind.TERMINATE:
            self._tell(f"{worker.name} (pid {worker.pid}) gets SIGTERM")
            self._tell(f"{worker.name} ended: {await worker.terminate()}")
        else:
            self._tell(f"{worker.name} (pid {worker.pid}): {fault.kind}")
            await worker.crash()
        if fault.kind is FaultKind.FORGET:
            worker.forget()
        await asyncio.sleep(fault.seconds)
        worker.bring_up()
        self._tell(f"{worker.name} started again (pid {worker.pid})")
