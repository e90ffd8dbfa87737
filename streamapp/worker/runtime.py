"""One worker's parts, wired: what is built at import, started, handed over and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import faust

from streamapp.actions.capabilities import capabilities
from streamapp.extensions import load_catalogue
from streamapp.intents.base import Thresholds
from streamapp.observability.metrics import Metrics, new_registry
from streamapp.pipeline.orchestrator import Pipeline, PipelineConfig
from streamapp.resilience.circuit_breaker import CircuitBreakers
from streamapp.saga.executor import SagaConfig, SagaExecutor
from streamapp.saga.letters import Letters
from streamapp.saga.retry import RetrySchedule
from streamapp.services.whatsapp import NAME
from streamapp.settings import Settings
from streamapp.storage.business_directory import BusinessDirectory
from streamapp.storage.businesses import BusinessStore
from streamapp.storage.connection import Pool, create_pool
from streamapp.storage.dead_letters import DeadLetterStore
from streamapp.storage.deliveries import Deliveries
from streamapp.storage.faults import DATABASE_ERRORS
from streamapp.storage.health import DatabaseHealth
from streamapp.storage.journal import PostgresJournal
from streamapp.storage.outbox import Outbox
from streamapp.storage.owners import raise_epoch
from streamapp.storage.queries import Queries
from streamapp.storage.redrives import Redrives
from streamapp.storage.requests import SagaRequests
from streamapp.storage.retention import Retention
from streamapp.storage.tenants import TenantDirectory
from streamapp.storage.unfinished import UnfinishedSagas
from streamapp.web.routes import Views
from streamapp.web.whatsapp import status_webhook
from streamapp.worker import loop_lag
from streamapp.worker.continuity import Continuity, LogReader
from streamapp.worker.dead_letter_agent import DeadLetterIntake
from streamapp.worker.dedup import DedupTable
from streamapp.worker.delivery_agent import DeliveryIntake
from streamapp.worker.gauges import Gauges
from streamapp.worker.intake import DEFECT_PAUSE, Intake
from streamapp.worker.lanes import Bounds, Lanes, Room
from streamapp.worker.membership import Membership
from streamapp.worker.observer import Observer
from streamapp.worker.ownership import PartitionLease
from streamapp.worker.producer import BrokerHealth, DeadLetterProducer, Producer
from streamapp.worker.redrive import Redriver
from streamapp.worker.relay import OutboxRelay
from streamapp.worker.replies import delivery_intake
from streamapp.worker.resumer import Resumer
from streamapp.worker.services import Services

log = logging.getLogger("streamapp.worker")

PURGE_EVERY = 60.0  # seconds between looks for rows that are old enough to be deleted
PURGE_PAUSE = 0.5  # seconds between batches of them
STUCK_LOOK = 2.0  # seconds between looks for sagas that no record brings back


class Runtime:
    """Builds the parts that need no event loop at once, the others in ``start``."""

    def __init__(self, settings: Settings, app: faust.App) -> None:
        self.settings = settings
        self.worker = f"{socket.gethostname()}:{os.getpid()}"
        self.database = DatabaseHealth()
        self.broker = BrokerHealth()
        self.services = Services(settings, lambda: self.businesses)
        self.catalogue = load_catalogue(
            self.services.clients, text_failed=lambda topic: self.observer.text_failed(topic)
        )
        self.intents, self.actions = self.catalogue.intents, self.catalogue.actions
        circuits = tuple(dict.fromkeys((*self.services.names, *self.catalogue.services)))
        self.metrics = Metrics(
            new_registry(),
            actions=self.actions.names,
            circuits=circuits,
            businesses=settings.businesses,
            intents=self.intents.intents,
        )
        self.observer = Observer(self.metrics)
        self.breakers = CircuitBreakers.from_settings(settings, listener=self.observer)
        for name in circuits:
            self.breakers.get(name)
        self.membership = Membership(app)
        self.producer = Producer(settings)
        self.journal = PostgresJournal(settings, self.database.report)
        self.sagas = SagaExecutor(
            journal=self.journal,
            registry=self.actions,
            breakers=self.breakers,
            config=SagaConfig(
                schedule=RetrySchedule(settings.retry_delays, jitter=settings.retry_jitter),
                max_wait_required=settings.circuit_max_wait,
                max_wait_best_effort=settings.circuit_max_wait_best_effort,
                stuck_delays=settings.stuck_delays,
                stuck_give_up=settings.stuck_give_up,
                outbound_topic=settings.outbound_topic,
            ),
            letters=Letters(settings.consumer_group, settings.dlq_topic),
            observer=self.observer,
        )
        self.table = DedupTable(
            app,
            window=settings.dedup_window,
            buckets=settings.dedup_buckets,
            partitions=app.conf.topic_partitions,
            memory=settings.dedup_memory,
            report=self.metrics.table_failed,
        )
        self.room = Room(Bounds.from_settings(settings))
        self.lanes = Lanes(self.room, lambda error: self.observer.defect("worker", error))
        self._tasks: list[asyncio.Task[None]] = []
        self._started = asyncio.Event()
        self._leaving: asyncio.Task[None] | None = None
        self.pool: Pool
        self.views: Views
        self.tenants: TenantDirectory
        self.businesses: BusinessDirectory
        self.intake: Intake
        self.dead_letters: DeadLetterIntake
        self.deliveries: DeliveryIntake | None = None  # none: nobody here sends replies
        self.relays: list[OutboxRelay]
        self.gauges: Gauges

    async def start(self) -> None:
        """Connect and start the tasks that serve all partitions."""
        settings = self.settings
        self.pool = await create_pool(settings)
        self.database.on_read_only = self._leave_sessions
        requests = SagaRequests(self.pool, settings.consumer_group, settings.input_topic)
        redrives = Redrives(
            self.pool,
            input_topic=settings.input_topic,
            max_payload_bytes=settings.max_payload_bytes,
        )
        table = Deliveries(self.pool, settings.consumer_group)
        self.views = Views(
            readiness=self.readiness,
            worker=self.figures,
            circuits=self.breakers,
            data=Queries(self.pool),
            redriver=Redriver(redrives, self.producer),
            requests=requests,
            registry=self.metrics.registry,
            webhook=status_webhook(settings, table.apply, self.observer.status_told),
        )
        await self.producer.start()
        await self.journal.start()
        store = DeadLetterStore(self.pool)
        sink = DeadLetterProducer(
            self.producer, store, settings.dlq_topic, self.broker, self.database
        )
        outbox = Outbox(self.pool, settings.consumer_group, settings.input_topic)
        self.tenants = TenantDirectory(self.pool, self.database)
        self.businesses = BusinessDirectory(
            BusinessStore(self.pool),
            self.database,
            capabilities(settings),
            refresh=settings.business_refresh,
            limit=settings.business_cache,
        )
        pipeline = Pipeline(
            config=PipelineConfig(
                consumer_group=settings.consumer_group,
                max_payload_bytes=settings.max_payload_bytes,
                thresholds=Thresholds(settings.confidence_minimum, settings.confidence_high),
                suggested_actions=settings.suggested_actions,
            ),
            intents=self.intents,
            actions=self.actions,
            sagas=self.sagas,
            seen=self.table,
            tenants=self.tenants,
            businesses=self.businesses,
            dead_letters=sink,
            observer=self.observer,
        )
        continuity = Continuity(
            self.membership,
            LogReader(settings.kafka_bootstrap_servers).first_at,
            self.metrics.passed_over,
        )
        self.intake = Intake(
            pipeline=pipeline,
            lanes=self.lanes,
            room=self.room,
            table=self.table,
            membership=self.membership,
            new_lease=self._new_lease,
            continuity=continuity,
            max_unacked=settings.max_unacked,
            on_fenced=self.observer.fenced,
            on_finished=self._on_finished,
            on_defect=lambda error: self.observer.defect("worker", error),
        )
        self.relays = [
            OutboxRelay(
                outbox,
                self.producer,
                sink,
                topic=topic,
                dlq_topic=settings.dlq_topic,
                interval=settings.outbox_interval,
                epochs=self.intake.epochs,
                broker=self.broker,
                database=self.database,
                on_refused=lambda: self.metrics.responded(status="failed"),
            )
            for topic in (settings.outbound_topic, settings.dlq_topic)
        ]
        self.dead_letters = DeadLetterIntake(store, self.database, self.membership, continuity)
        if self.services.whatsapp is not None:
            self.deliveries = delivery_intake(
                settings,
                self.services.whatsapp,
                table=table,
                database=self.database,
                breaker=self.breakers.get(NAME),
                dead_letters=sink,
                membership=self.membership,
                continuity=continuity,
                metrics=self.metrics,
                on_defect=partial(self.observer.defect, "deliveries"),
            )
        resumer = Resumer(
            sagas=self.sagas,
            journal=self.journal,
            unfinished=UnfinishedSagas(self.pool, settings.consumer_group, settings.input_topic),
            requests=requests,
            worker=self.worker,
            intake=self.intake,
            health=self.database,
            interval=STUCK_LOOK,
            on_orphan=self.metrics.orphaned_sagas.inc,
        )
        self.gauges = Gauges(self, pipeline, outbox)
        interval = settings.commit_interval
        for name, work in (
            *(("outbox", relay.run()) for relay in self.relays),
            ("commit", self.intake.commit_regularly(interval)),
            ("commit-dlq", self.dead_letters.commit_regularly(interval)),
            *(("commit-replies", each.commit_regularly(interval)) for each in self._senders),
            ("resumer", resumer.run()),
            ("gauges", self.gauges.run()),
            ("loop-lag", loop_lag.watch(self.metrics.loop_lag.observe)),
            ("expiry", self._expire_regularly()),
            ("retention", self._purge_regularly()),
        ):
            task = asyncio.create_task(work, name=name)
            task.add_done_callback(self._task_ended)
            self._tasks.append(task)
        self._started.set()

    @property
    def _senders(self) -> list[DeliveryIntake]:
        """None or one."""
        return [] if self.deliveries is None else [self.deliveries]

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        # A loop that serves all partitions is gone, be it by a cancellation out of a library:
        # better restarted than limping on.
        error = None if task.cancelled() else task.exception()
        log.critical("task %s ended", task.get_name(), exc_info=error)
        os.kill(os.getpid(), signal.SIGTERM)

    def _leave_sessions(self) -> None:
        """Every connection of the pool is made anew before its next use."""
        self._leaving = asyncio.create_task(self.pool.expire_connections())

    def _on_finished(self) -> None:
        for relay in self.relays:
            relay.announce()

    def _new_lease(self, topic: str, partition: int, generation: int) -> PartitionLease:
        return PartitionLease(
            topic,
            partition,
            generation,
            raise_epoch=self._raise_epoch,
            confirm=self.membership.confirm,
            committed=self.membership.committed,
            on_lost=self.intake.lost,
        )

    async def _raise_epoch(self, topic: str, partition: int) -> int:
        return await self.database.insist(
            lambda: raise_epoch(
                self.pool, self.settings.consumer_group, topic, partition, self.worker
            )
        )

    async def _expire_regularly(self) -> None:
        while True:
            await asyncio.sleep(min(60.0, self.table.width))
            try:
                self.table.expire()
            except Exception as error:
                self.observer.defect("worker", error)  # what is not expired costs only space

    def readiness(self) -> dict[str, bool]:
        """What has to hold for this worker to be doing its job."""
        return {
            "started": self._started.is_set(),
            "database": self.database.available,
            "broker": self.broker.available,
            "assigned": self.membership.assigned,
            "restored": self.membership.restored,
        }

    def figures(self) -> dict[str, Any]:
        """This process's own figures for ``/api/stats``."""
        return {
            "worker": self.worker,
            "in_flight": self.room.in_flight,
            "parked": self.room.parked,
            "held_bytes": self.room.bytes,
            "lanes": len(self.lanes),
            "journal_backlog": self.journal.backlog,
            "partitions": sorted(self.intake.epochs()) if self._started.is_set() else [],
        }

    async def _purge_regularly(self) -> None:
        settings = self.settings
        retention = Retention(
            self.pool,
            settings.consumer_group,
            max(settings.dedup_window, settings.input_retention),
        )
        while True:
            try:
                more = await retention.purge()
            except DATABASE_ERRORS as error:
                self.database.report(error)
                more = False
            await asyncio.sleep(PURGE_PAUSE if more else PURGE_EVERY)

    async def accept(self, event: Any) -> None:
        """An event of the input topic. Never raises: an agent that raises loses its event."""
        await self._insist("worker", lambda: self.intake.accept(event))

    async def accept_dead_letter(self, event: Any) -> None:
        """An event of the dead-letter topic. What cannot be stored is held."""
        await self._insist("dead_letters", lambda: self.dead_letters.accept(event))

    async def accept_reply(self, event: Any) -> None:
        """An event of the outbound topic, where replies are sent from here."""
        await self._started.wait()
        for sender in self._senders:
            await self._insist("deliveries", partial(sender.accept, event))

    async def _insist(self, where: str, accept: Callable[[], Awaitable[None]]) -> None:
        """Passing an event over would let the next one's commit lose it: try until it is in."""
        await self._started.wait()
        while True:
            try:
                await accept()
            except Exception as error:
                self.observer.defect(where, error)
                await asyncio.sleep(DEFECT_PAUSE)
            else:
                return

    async def hand_over(self, stopping: bool) -> None:
        """Partitions are taken away, or the worker stops: finish, commit, drop."""
        if not self._started.is_set():
            return
        budget = self.settings.shutdown_timeout if stopping else self.settings.drain_timeout
        if not self.database.available:
            budget = 0.0  # nothing can finish: others are waiting for this hand-over
        # At the same time: the group stands still meanwhile.
        await asyncio.gather(
            self.intake.give_up(budget), *(each.give_up(budget) for each in self._senders)
        )
        await self.dead_letters.give_up()

    async def stop(self) -> None:
        for task in self._tasks:
            task.remove_done_callback(self._task_ended)
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if not self._started.is_set():
            return
        await self.tenants.close()
        await self.businesses.close()
        await self.journal.stop()
        await self.producer.stop()
        await self.services.close()
        await self.catalogue.close()
        with contextlib.suppress(asyncio.TimeoutError):
            async with asyncio.timeout(2.0):
                await self.pool.close()
