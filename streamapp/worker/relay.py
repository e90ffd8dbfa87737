"""The outbox relay: publishes what was committed with the sagas of this worker's partitions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from aiokafka.errors import KafkaError

from streamapp.pipeline.outcomes import Record
from streamapp.storage.faults import DATABASE_ERRORS
from streamapp.storage.health import DatabaseHealth
from streamapp.storage.outbox import Outbox, Unpublished
from streamapp.worker.producer import (
    DEFINITE,
    TOO_LARGE,
    BrokerHealth,
    DeadLetterProducer,
    Producer,
    acknowledged,
)

log = logging.getLogger("streamapp.outbox")

BATCH = 500  # rows of one round


class OutboxRelay:
    """Publishes rows in the order of their ids and marks them.

    A crash between the two publishes a row again: consumers deduplicate by ``message_id``.
    ``epochs`` tells the epochs of the partitions that are owned right now.
    """

    def __init__(
        self,
        outbox: Outbox,
        producer: Producer,
        dead_letters: DeadLetterProducer,
        *,
        dlq_topic: str,
        interval: float,
        epochs: Callable[[], Mapping[int, int]],
        broker: BrokerHealth,
        database: DatabaseHealth,
        on_refused: Callable[[], None],
    ) -> None:
        self._outbox = outbox
        self._producer = producer
        self._dead_letters = dead_letters
        self._dlq_topic = dlq_topic
        self._interval = interval
        self._epochs = epochs
        self._broker = broker
        self._database = database
        self._on_refused = on_refused
        self._announced = asyncio.Event()

    def announce(self) -> None:
        """A row was committed: no need to wait for the next look."""
        self._announced.set()

    async def run(self) -> None:
        """Relay until cancelled. Outages are waited for."""
        while True:
            try:
                more = await self.round()
            except DATABASE_ERRORS as error:
                self._database.report(error)
                more = False
            if not more:
                await self._pause()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self._interval):
                await self._announced.wait()
        except TimeoutError:
            pass
        self._announced.clear()

    async def round(self) -> bool:
        """Publish one batch; gives whether there may be more at once."""
        epochs = dict(self._epochs())
        if not epochs:
            return False
        self._announced.clear()
        rows = await self._outbox.unpublished(epochs, BATCH)
        if not rows:
            return False
        published, refused, complete = await self._publish(rows)
        if published:
            await self._outbox.mark_published(epochs, published)
        for row_id, error in refused:
            log.error("outbox row %d is refused for good: %s", row_id, error)
            self._on_refused()
            await self._outbox.mark_failed(epochs, row_id, error)
        return complete and len(rows) == BATCH

    async def _publish(
        self, rows: Sequence[Unpublished]
    ) -> tuple[list[int], list[tuple[int, str]], bool]:
        """Send rows in order; gives those published, those refused, and whether all were tried."""
        published: list[int] = []
        refused: list[tuple[int, str]] = []
        complete = True
        sent: list[tuple[Unpublished, asyncio.Future[object]]] = []
        for row in rows:
            record = row.record
            try:
                future = await self._producer.send(
                    record.topic, record.key, record.value, record.headers
                )
            except DEFINITE as error:
                await self._refuse(row, error, published, refused)
                continue
            except KafkaError as error:
                self._broker.report(error)
                complete = False
                break
            sent.append((row, future))
        for row, future in sent:
            try:
                await acknowledged(future, self._broker)
            except DEFINITE as error:
                await self._refuse(row, error, published, refused)
            except KafkaError as error:
                self._broker.report(error)
                complete = False
            else:
                self._broker.report(None)
                published.append(row.row_id)
        return published, refused, complete

    async def _refuse(
        self,
        row: Unpublished,
        error: BaseException,
        published: list[int],
        refused: list[tuple[int, str]],
    ) -> None:
        record = row.record
        if record.topic == self._dlq_topic and isinstance(error, TOO_LARGE):
            await self._dead_letters.into_table(
                Record(self._dlq_topic, 0, 0, 0, record.key, record.value, record.headers)
            )
            published.append(row.row_id)
        else:
            refused.append((row.row_id, f"{type(error).__name__}: {error}"))
