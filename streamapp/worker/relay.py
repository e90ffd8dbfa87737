"""The outbox relay: publishes what was committed with the sagas of this worker's partitions."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from streamapp.pipeline.outcomes import Record
from streamapp.resilience import crash_points
from streamapp.storage.faults import DATABASE_ERRORS
from streamapp.storage.health import DatabaseHealth
from streamapp.storage.outbox import Outbox, Unpublished
from streamapp.worker.producer import (
    DEFINITE,
    BrokerHealth,
    DeadLetterProducer,
    Producer,
)

log = logging.getLogger("streamapp.outbox")

BATCH = 200  # rows of one round; more of them hold the event loop up
PACE = 0.02  # seconds between the beginnings of rounds; under load they share their statements
MAX_PENDING = 2000  # rows handed to the producer that the broker has not acknowledged
STALLED_WITHIN = 0.5  # seconds; the same once some rows have stood still
ACK_WITHIN = 10.0  # seconds; after it the broker counts as away, the rows stay with the producer

Epochs = Callable[[], Mapping[int, int]]


class OutboxRelay:
    """Publishes the rows of one target topic in the order of their ids, and marks them.

    A crash between the two publishes a row again: consumers deduplicate by ``message_id``.
    ``epochs`` tells the epochs of the partitions that are owned right now. There is one relay a
    topic, so that a topic that takes nothing holds up no other.
    """

    def __init__(
        self,
        outbox: Outbox,
        producer: Producer,
        dead_letters: DeadLetterProducer,
        *,
        topic: str,
        dlq_topic: str,
        interval: float,
        epochs: Epochs,
        broker: BrokerHealth,
        database: DatabaseHealth,
        on_refused: Callable[[], None],
    ) -> None:
        self._outbox = outbox
        self._producer = producer
        self._dead_letters = dead_letters
        self._topic = topic
        self._of_letters = topic == dlq_topic
        self._interval = interval
        self._epochs = epochs
        self._broker = broker
        self._database = database
        self._on_refused = on_refused
        self._announced = asyncio.Event()
        # Rows with the producer. They are not sent again while it holds them: an idempotent
        # producer keeps trying, for as long as the broker is away.
        self._pending: dict[int, tuple[Unpublished, asyncio.Future[object]]] = {}
        # Rows that are published and not marked yet, because the database was away.
        self._published: set[int] = set()
        self._stalled = False
        self._halted = False  # the producer took no more rows in the last round

    @property
    def waiting(self) -> bool:
        """Whether there are records that the broker has not taken."""
        return bool(self._pending) or self._halted

    def announce(self) -> None:
        """A row was committed: no need to wait for the next look."""
        self._announced.set()

    async def run(self) -> None:
        """Relay until cancelled. Outages are waited for."""
        while True:
            began = time.monotonic()
            try:
                more = await self.round()
            except DATABASE_ERRORS as error:
                self._database.report(error)
                more = False
            if not more:
                await self._pause()
                await asyncio.sleep(began + PACE - time.monotonic())

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
        room = min(BATCH, MAX_PENDING - len(self._pending))
        rows = []
        if room > 0:
            held = [*self._pending, *self._published]
            rows = await self._outbox.unpublished(epochs, self._topic, held, room)
        refused = await self._hand_over(rows)
        refused += await self._acknowledged()
        if self._published:
            crash_points.reach("outbox.acknowledged")
            done = list(self._published)
            await self._outbox.mark_published(epochs, done)
            crash_points.reach("outbox.marked")
            self._published.difference_update(done)
        for row_id, error in refused:
            log.error("outbox row %d is refused for good: %s", row_id, error)
            self._on_refused()
            await self._outbox.mark_failed(epochs, row_id, error)
            crash_points.reach("outbox.marked")
        return len(rows) == room > 0 and self._broker.available

    async def _hand_over(self, rows: list[Unpublished]) -> list[tuple[int, str]]:
        """Give rows to the producer, in order; gives those that it refuses for good."""
        refused: list[tuple[int, str]] = []
        self._halted = False
        gone: BaseException | None = None
        for row in rows:
            record = row.record
            if gone is not None:
                # The client looks for the topic for seconds, and for each row again.
                await self._refuse(row, gone, refused)
                continue
            try:
                async with asyncio.timeout(ACK_WITHIN):
                    future = await self._producer.send(
                        record.topic, record.key, record.value, record.headers
                    )
            except DEFINITE as error:
                await self._refuse(row, error, refused)
            except (KafkaError, TimeoutError) as error:
                if self._of_letters and await self._dead_letters.refuses(error):
                    gone = error
                    await self._refuse(row, error, refused)
                    continue
                self._broker.report(self._topic, error)
                self._halted = True
                break  # the rows behind it may be of its lead: they keep their order
            else:
                self._pending[row.row_id] = (row, future)
                crash_points.reach("outbox.sent")
        return refused

    async def _acknowledged(self) -> list[tuple[int, str]]:
        """Wait for the broker, for a bounded time; gives the rows that it refuses for good."""
        refused: list[tuple[int, str]] = []
        if not self._pending:
            return refused
        # Where some rows stand still already, the others are not made to wait for them again.
        patience = STALLED_WITHIN if self._stalled else ACK_WITHIN
        _, waiting = await asyncio.wait(
            [future for _, future in self._pending.values()], timeout=patience
        )
        self._stalled = bool(waiting)
        gone: BaseException | None = None
        if waiting:
            silence = TimeoutError(f"{len(waiting)} records are not acknowledged")
            if self._of_letters and await self._dead_letters.refuses(silence):
                gone = UnknownTopicOrPartitionError()
            else:
                self._broker.report(self._topic, silence)
        for row_id, (row, future) in list(self._pending.items()):
            if not future.done():
                if gone is not None:
                    del self._pending[row_id]
                    await self._refuse(row, gone, refused)
                continue
            del self._pending[row_id]
            error = future.exception()
            if error is None:
                if not waiting:
                    # While some wait, as for a partition without a leader, the topic is away:
                    # told with each record that is taken, it would be away and back all the time.
                    self._broker.report(self._topic, None)
                self._published.add(row_id)
            elif isinstance(error, DEFINITE):
                await self._refuse(row, error, refused)
            else:
                self._broker.report(self._topic, error)
        return refused

    async def _refuse(
        self, row: Unpublished, error: BaseException, refused: list[tuple[int, str]]
    ) -> None:
        record = row.record
        if self._of_letters:
            await self._dead_letters.into_table(
                Record(record.topic, 0, 0, 0, record.key, record.value, record.headers), error
            )
            self._published.add(row.row_id)
        else:
            refused.append((row.row_id, f"{type(error).__name__}: {error}"))
