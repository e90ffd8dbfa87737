"""Publishing: the outbox relay and the dead letters share one idempotent producer.

A producer of its own rather than Faust's: ``acks=all`` with idempotence keeps the order per
partition across retries, and a broker that is away makes it wait instead of ending the worker.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
)

from streamapp.pipeline.dead_letter import parse_headers, without_stacktrace
from streamapp.pipeline.outcomes import Headers, Record
from streamapp.resilience import crash_points
from streamapp.settings import Settings
from streamapp.storage.dead_letters import DeadLetterStore
from streamapp.storage.health import DatabaseHealth

log = logging.getLogger("streamapp.producer")

HEADROOM = 65_536  # bytes; what a dead letter is larger than its record
TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
# Refusals that repeating does not heal: the row is set aside, the next ones go on.
DEFINITE = (*TOO_LARGE, InvalidTopicError, TopicAuthorizationFailedError)
LINGER = 5  # milliseconds
REACH_WITHIN = 5.0  # seconds
FIRST_BACKOFF = 0.1  # seconds
MAX_BACKOFF = 2.0
SAY_EVERY = 60.0
SILENCE = 5.0  # seconds without an acknowledgement after which the broker counts as away


class NoSuchPartition(Exception):
    """The topic has fewer partitions than when the record was first there."""


# The client asserts that a record has a key or a value. Kafka does not, and a dead letter is sent
# as its record came: this stands for "no key" up to the serialiser.
_NO_KEY = object()


class BrokerHealth:
    """Whether the broker takes records; said once a minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said = float("-inf")
        self.available = True

    def report(self, error: BaseException | None) -> None:
        if error is None:
            if not self.available:
                log.warning("broker takes records again")
            self.available = True
            self._said = float("-inf")
            return
        self.available = False
        if self._clock() - self._said >= SAY_EVERY:
            self._said = self._clock()
            log.warning("broker takes no records: %s: %s", type(error).__name__, error)


class Producer:
    """Sends records; ``send`` gives a future that is done once all replicas have the record."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._settings.kafka_bootstrap_servers,
            client_id="streamapp-outbox",
            acks="all",
            enable_idempotence=True,
            linger_ms=LINGER,
            max_request_size=max(1_048_576, self._settings.max_payload_bytes * 4) + HEADROOM,
            request_timeout_ms=10_000,
            key_serializer=lambda key: None if key is _NO_KEY else key,
        )
        await self._producer.start()

    async def stop(self) -> None:
        if self._producer is not None:
            await self._producer.stop()

    async def reach(self) -> None:
        """Ask the cluster for its metadata. Raises ``KafkaError`` or ``TimeoutError`` when nobody
        answers."""
        assert self._producer is not None
        async with asyncio.timeout(REACH_WITHIN):
            await self._producer.client.fetch_all_metadata()

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        partition: int | None = None,
    ) -> asyncio.Future[object]:
        """Hand a record over, for the partition of its key unless one is given. Raises
        ``DEFINITE`` errors at once, ``NoSuchPartition``, and ``KafkaError`` for others."""
        assert self._producer is not None
        if partition is not None:
            there = await self._producer.partitions_for(topic)
            if partition not in there:
                raise NoSuchPartition(f"topic {topic} has no partition {partition}")
        future: asyncio.Future[object] = await self._producer.send(
            topic,
            value=value,
            key=_NO_KEY if key is None and value is None else key,
            partition=partition,
            headers=list(headers),
        )
        return future


async def acknowledged(future: asyncio.Future[object], broker: BrokerHealth) -> None:
    """Wait until a record is acknowledged, and tell when the broker is silent.

    An idempotent producer repeats for ever, so that an outage shows in nothing else. Raises
    what the broker refused the record with.
    """
    while not future.done():
        await asyncio.wait({future}, timeout=SILENCE)
        if not future.done():
            broker.report(TimeoutError(f"no acknowledgement for {SILENCE:g} s"))
    future.result()


class DeadLetterProducer:
    """Implements ``pipeline.ports.DeadLetterSink``: the topic, and where that refuses, the table.

    A record that cannot be dead-lettered must not block its partition: a letter that is too
    large loses its stack trace first, and goes straight into the table then (protocol, 5).
    """

    def __init__(
        self,
        producer: Producer,
        store: DeadLetterStore,
        topic: str,
        broker: BrokerHealth,
        database: DatabaseHealth,
    ) -> None:
        self._producer = producer
        self._store = store
        self._topic = topic
        self._broker = broker
        self._database = database

    async def publish(self, record: Record) -> None:
        headers = record.headers
        backoff = FIRST_BACKOFF
        while True:
            try:
                future = await self._producer.send(self._topic, record.key, record.value, headers)
                await acknowledged(future, self._broker)
            except TOO_LARGE as error:
                if headers == without_stacktrace(headers):
                    log.warning("dead letter is too large for the topic: %s", error)
                    await self.into_table(record)
                    return
                headers = without_stacktrace(headers)
            except KafkaError as error:
                self._broker.report(error)
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, MAX_BACKOFF)
            except Exception:
                log.exception("the client cannot send a dead letter")
                await self.into_table(record)
                return
            else:
                self._broker.report(None)
                crash_points.reach("letter.sent")
                return

    async def into_table(self, record: Record) -> None:
        """Store a letter without the topic; waits while the database is away."""
        await self._database.insist(
            lambda: self._store.store(record, parse_headers(record.headers))
        )
        crash_points.reach("letter.stored")
