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
    UnknownTopicOrPartitionError,
)

from streamapp.pipeline.dead_letter import parse_headers, without_stacktrace
from streamapp.pipeline.outcomes import Headers, Record
from streamapp.resilience import crash_points
from streamapp.resilience.outage import SAY_EVERY, Outage
from streamapp.settings import Settings
from streamapp.storage.dead_letters import DeadLetterStore
from streamapp.storage.health import DatabaseHealth
from streamapp.worker.idempotence import never_expire, renew_after_failures

log = logging.getLogger("streamapp.producer")

HEADROOM = 65_536  # bytes; what a dead letter is larger than its record
TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
# Refusals that repeating does not heal: the row is set aside, the next ones go on.
DEFINITE = (*TOO_LARGE, InvalidTopicError, TopicAuthorizationFailedError)
LINGER = 5  # milliseconds
REACH_WITHIN = 5.0  # seconds
FIRST_BACKOFF = 0.1  # seconds
MAX_BACKOFF = 2.0
ANY_TOPIC = "any topic"
SILENCE = 5.0  # seconds without an acknowledgement after which the broker counts as away


class NoSuchPartition(Exception):
    """The topic has fewer partitions than when the record was first there."""


# The client asserts that a record has a key or a value. Kafka does not, and a dead letter is sent
# as its record came: this stands for "no key" up to the serialiser.
_NO_KEY = object()


class BrokerHealth:
    """Whether the broker takes records, of each topic; said once a minute.

    By topic, as one that is missing would otherwise be away and back with every record that
    another one takes. ``ANY_TOPIC`` stands for a cluster that does not answer at all.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._topics: dict[str, Outage] = {}  # all that were ever away

    @property
    def available(self) -> bool:
        return not self.away

    @property
    def away(self) -> list[str]:
        """Topics of which it takes nothing."""
        return [topic for topic, outage in self._topics.items() if outage.away]

    def report(self, topic: str, error: BaseException | None) -> None:
        """The broker took a record of the topic (None), or did not."""
        if error is None:
            outage = self._topics.get(topic)
            if outage is not None and outage.answered() is not None:
                log.warning("broker takes records of %s again", topic)
        elif self._topics.setdefault(topic, Outage(self._clock)).failed() is not None:
            log.warning("broker takes no records of %s: %s: %s", topic, type(error).__name__, error)


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
        never_expire(self._producer)
        renew_after_failures(self._producer)

    async def stop(self) -> None:
        if self._producer is not None:
            await self._producer.stop()

    async def reach(self) -> None:
        """Ask the cluster for its metadata. Raises ``KafkaError`` or ``TimeoutError`` when nobody
        answers."""
        assert self._producer is not None
        async with asyncio.timeout(REACH_WITHIN):
            await self._producer.client.fetch_all_metadata()

    async def missing(self, topic: str) -> bool:
        """Whether the cluster answers and says that there is no such topic."""
        assert self._producer is not None
        try:
            async with asyncio.timeout(REACH_WITHIN):
                cluster = await self._producer.client.fetch_all_metadata()
        except (KafkaError, TimeoutError):
            return False
        return topic not in cluster.topics(exclude_internal_topics=False)

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


class DeadLetterProducer:
    """Implements ``pipeline.ports.DeadLetterSink``: the topic, and where that refuses, the table.

    A record that cannot be dead-lettered must not block its partition: a letter that is too
    large loses its stack trace first, and goes straight into the table then (protocol, 5). So
    does one for a topic that may not be written or is not there.
    """

    def __init__(
        self,
        producer: Producer,
        store: DeadLetterStore,
        topic: str,
        broker: BrokerHealth,
        database: DatabaseHealth,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._producer = producer
        self._store = store
        self._topic = topic
        self._broker = broker
        self._database = database
        self._clock = clock
        self._said = float("-inf")

    async def publish(self, record: Record) -> None:
        headers = record.headers
        backoff = FIRST_BACKOFF
        while True:
            try:
                future = await self._producer.send(self._topic, record.key, record.value, headers)
                await self._acknowledged(future)
            except TOO_LARGE as error:
                if headers == without_stacktrace(headers):
                    await self.into_table(record, error)
                    return
                headers = without_stacktrace(headers)
            except KafkaError as error:
                if await self.refuses(error):
                    await self.into_table(record, error)
                    return
                self._broker.report(self._topic, error)
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, MAX_BACKOFF)
            except Exception as error:
                log.exception("the client cannot send a dead letter")
                await self.into_table(record, error)
                return
            else:
                self._broker.report(self._topic, None)
                crash_points.reach("letter.sent")
                return

    async def _acknowledged(self, future: asyncio.Future[object]) -> None:
        """Wait until a letter is acknowledged, and tell when the broker is silent.

        An idempotent producer repeats for ever, so that an outage shows in nothing else. Raises
        what the broker refused the letter with, or that the topic is gone.
        """
        while not future.done():
            await asyncio.wait({future}, timeout=SILENCE)
            if future.done():
                break
            if await self._producer.missing(self._topic):
                raise UnknownTopicOrPartitionError
            self._broker.report(self._topic, TimeoutError(f"no acknowledgement for {SILENCE:g} s"))
        future.result()

    async def refuses(self, error: BaseException) -> bool:
        """Whether the topic takes no letter after this error, however often it is repeated."""
        if isinstance(error, UnknownTopicOrPartitionError | TimeoutError):
            # The client says so of a broker that is away, too.
            return await self._producer.missing(self._topic)
        return isinstance(error, DEFINITE)

    async def into_table(self, record: Record, error: BaseException) -> None:
        """Store a letter that the topic refused; waits while the database is away."""
        if self._clock() - self._said >= SAY_EVERY:
            self._said = self._clock()
            log.error(
                "%s refuses dead letters, they go straight into the table: %s: %s",
                self._topic,
                type(error).__name__,
                error,
            )
        await self._database.insist(
            lambda: self._store.store(record, parse_headers(record.headers))
        )
        crash_points.reach("letter.stored")
