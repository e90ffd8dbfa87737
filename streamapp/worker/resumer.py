"""Takes up sagas that no record brings back: stuck ones that are due or asked for, and orphans.

It runs on the owner of their partition and in the lane of their lead, so that there is never a
second writer (protocol, 4).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from streamapp.saga.executor import SagaExecutor
from streamapp.saga.journal import Journal
from streamapp.saga.model import CarriedOut, Fenced, SagaState, SagaStatus
from streamapp.storage.faults import DATABASE_ERRORS
from streamapp.storage.health import DatabaseHealth
from streamapp.storage.requests import Request, RequestKind, SagaRequests
from streamapp.storage.unfinished import UnfinishedSagas
from streamapp.worker.intake import Intake
from streamapp.worker.lanes import Lane
from streamapp.worker.ownership import PartitionLease

log = logging.getLogger("streamapp.resumer")

LIMIT = 50  # sagas taken up in one look


class Resumer:
    """Looks regularly for unfinished sagas of the partitions that are owned, and for what people
    ask of them. ``worker`` names this worker in what it notes."""

    def __init__(
        self,
        *,
        sagas: SagaExecutor,
        journal: Journal,
        unfinished: UnfinishedSagas,
        requests: SagaRequests,
        worker: str,
        intake: Intake,
        health: DatabaseHealth,
        interval: float,
        on_orphan: Callable[[], None],
    ) -> None:
        self._sagas = sagas
        self._journal = journal
        self._unfinished = unfinished
        self._requests = requests
        self._worker = worker
        self._intake = intake
        self._health = health
        self._interval = interval
        self._on_orphan = on_orphan
        self._taken: dict[str, PartitionLease] = {}

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            try:
                await self.look()
            except DATABASE_ERRORS as error:
                self._health.report(error)

    async def look(self) -> None:
        """Take up what is due now."""
        # A lane that was dropped before its turn never told that it is done.
        self._taken = {id_: lease for id_, lease in self._taken.items() if not lease.closed}
        leases = {}
        for lease in self._intake.leases.values():
            if lease.granted is not None:
                leases[lease.partition] = lease
            elif not lease.closed:
                lease.acquire()  # fenced while idle: no record asks for the epoch anew
        if not leases:
            return
        for processing_id, partition, key in await self._requests.waiting(list(leases), LIMIT):
            self._take(processing_id, leases[partition], key)
        for processing_id, partition, key in await self._unfinished.stuck(list(leases), LIMIT):
            self._take(processing_id, leases[partition], key)
        committed = {
            partition: offset
            for partition, lease in leases.items()
            if (offset := lease.acknowledged) is not None
        }
        for processing_id, partition, key in await self._unfinished.orphans(committed, LIMIT):
            if processing_id not in self._taken:
                log.warning("saga %s is an orphan: its record is committed", processing_id)
                self._on_orphan()
            self._take(processing_id, leases[partition], key, orphan=True)

    def _take(
        self, processing_id: str, lease: PartitionLease, key: bytes | None, *, orphan: bool = False
    ) -> None:
        if processing_id in self._taken:
            return
        self._taken[processing_id] = lease

        async def work(lane: Lane) -> None:
            try:
                await self._resume(processing_id, lease, lane, orphan)
            finally:
                self._taken.pop(processing_id, None)

        self._intake.submit(lease, key, work, 0)

    async def _resume(
        self, processing_id: str, lease: PartitionLease, lane: Lane, orphan: bool
    ) -> None:
        saga = await self._journal.load(processing_id)
        if saga is None:
            return
        request = await self._health.insist(lambda: self._requests.next(processing_id))
        try:
            epoch = await lease.epoch()
            if request is not None:
                await self._carry_out(request, saga, epoch, lane)
            elif saga.status is SagaStatus.STUCK:
                if orphan:
                    return  # it was under way when we looked, and is not due again yet
                await self._sagas.resume(saga, epoch, lane)
            elif saga.status in (SagaStatus.RUNNING, SagaStatus.COMPENSATING):
                await self._sagas.run(saga, epoch, lane, claim=False)
        except Fenced as fenced:
            lease.refuse(fenced.epoch)  # the next look, or the next owner, takes it up

    async def _carry_out(self, request: Request, saga: SagaState, epoch: int, lane: Lane) -> None:
        """Do what was asked, once: it is noted in the commit that does it."""
        stuck = saga.status is SagaStatus.STUCK
        done = "resumed" if request.kind is RequestKind.RESUME else "resolved"
        carried_out = CarriedOut(
            request.request_id,
            request.kind.value,
            asked_by=request.actor,
            carried_out_by=self._worker,
            result=done if stuck else f"refused: the saga is {saga.status}, not STUCK",
        )
        log.info(
            "saga %s: request %d of %s: %s",
            saga.message.processing_id,
            request.request_id,
            request.actor,
            carried_out.result,
        )
        if not stuck:
            await self._sagas.refuse(saga, epoch, carried_out)
        elif request.kind is RequestKind.RESUME:
            await self._sagas.resume(saga, epoch, lane, carried_out)
        else:
            await self._sagas.resolve(saga, epoch, carried_out)
