"""The Faust app with its hand-over and shutdown in the order that loses and doubles nothing.

Faust's own order closes tables before work is drained, and takes a rebalance during shutdown
for a crash; each override says which of these it answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import faust
from faust.types import TP

from streamapp.observability.logging import configure
from streamapp.settings import Settings
from streamapp.worker.eager import eager
from streamapp.worker.garbage import settle
from streamapp.worker.polls import Polls
from streamapp.worker.restore import Restore

log = logging.getLogger("streamapp.worker")

# Silence of the poll loop must never cost the membership: intake pauses for as long as the
# database is away, and a consumer that left the group for it does not come back.
MAX_POLL_INTERVAL = 1_000_000.0  # seconds; only this client knows of it
METADATA_MAX_AGE = 30_000  # milliseconds; the client's own is five minutes
# Marks of the dedup table that wait to be sent. Beyond it Faust pauses intake, and says so for
# every record; its own 100 are reached by any burst.
CHANGELOG_BUFFER = 5000
FLUSH_TIMEOUT = 2.0  # seconds that a hand-over waits for the broker to take the last marks


class ReadOffsets(defaultdict[TP, int | None]):
    """Faust's memory of what it delivered, without that of our agents' topics.

    It withholds records below the last one that it delivered, or believes to have delivered: after
    the consumer went back that would be the very records it went back for. ``worker.continuity``
    judges them instead.
    """

    def __init__(self, topics: Collection[str]) -> None:
        super().__init__(lambda: None)
        self._topics = topics

    def __getitem__(self, partition: TP) -> int | None:
        return None if partition.topic in self._topics else super().__getitem__(partition)


class StreamWorker(faust.Worker):  # type: ignore[misc]
    """Faust's worker process with our logging: Faust's own turns debugging on underneath at its
    default level, takes standard output over, and knows no structured lines."""

    def _setup_logging(self) -> None:
        self.spinner = None
        settings = self.app.settings
        configure(settings.log_level, as_json=settings.log_json)
        if settings.log_level != "debug":
            for name in ("faust", "mode", "aiokafka"):
                logging.getLogger(name).setLevel(logging.WARNING)


class StreamApp(faust.App):  # type: ignore[misc]
    """``before_start`` is awaited before anything connects, ``hand_over`` when partitions are
    taken away or the worker stops; its argument tells which (True: the worker stops)."""

    settings: Settings
    before_start: Callable[[], Awaitable[None]] | None = None
    after_stop: Callable[[], Awaitable[None]] | None = None
    hand_over: Callable[[bool], Awaitable[None]] | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.polls = Polls()
        self.restore = Restore(self)
        self.queues: dict[str, Any] = {}  # by topic: the records that wait for its agent

    async def on_first_start(self) -> None:
        if self.before_start is not None:
            await self.before_start()
        self.producer.buffer.max_messages = CHANGELOG_BUFFER
        settings = self.settings
        topics = (settings.input_topic, settings.dlq_topic, settings.outbound_topic)
        self.consumer._read_offset = ReadOffsets(topics)
        self._watch_polls()
        self.consumer.wait_first = eager(self.consumer.wait_first)
        self._end_thread_in_any_case()
        self.on_rebalance_complete.connect(self._before_seek, weak=False)
        await super().on_first_start()
        settle()

    def _watch_polls(self) -> None:
        """What was polled is handed to the agents before the next poll begins; records of
        changelogs go into their tables."""
        poll = self.consumer._wait_next_records

        async def watched(timeout: float) -> Any:
            self.polls.count += 1
            generation = self.consumer_generation_id
            self.restore.size_polls()
            records, active = await poll(timeout)
            records = await self.restore.take(records, generation)
            self.polls.note(records)
            return records, active

        self.consumer._wait_next_records = watched

    def _end_thread_in_any_case(self) -> None:
        """aiokafka's consumer breaks its own stop off with a cancellation when a fetch waits for a
        broker that is away just then. Faust's thread would die of it without telling, and the
        worker wait for the thread for ever. The process is about to end: what is not closed in
        order is closed by that."""
        thread = self.consumer._thread
        stop = thread.on_thread_stop

        async def stopped() -> None:
            try:
                await stop()
            except asyncio.CancelledError:
                log.info("the consumer did not stop in order, as the broker is away")

        thread.on_thread_stop = stopped

    async def _before_seek(self, _: Any, **__: Any) -> None:
        """After a rebalance Faust goes back to the committed offsets, and only then empties the
        streams' buffers: an event that came in between would be passed over, and lost with the
        next commit. Until the buffers are emptied, which also resumes the flow, none comes in."""
        self.flow_control.suspend()

    async def on_stop(self) -> None:
        """Drain before the tables close: intake first, then the work under way."""
        consumer = self._consumer
        if consumer is not None:
            try:
                assignment = consumer.assignment()
            except Exception as error:  # the consumer never started
                log.info("stopping without an assignment: %r", error)
                assignment = set()
            if assignment:
                consumer.stop_flow()
                self.flow_control.suspend()
                consumer.pause_partitions(assignment)
                self.flow_control.clear()
            await self._hand_over(stopping=True)
        await super().on_stop()
        if self.after_stop is not None:
            await self.after_stop()

    async def _on_partitions_revoked(self, revoked: set[Any]) -> None:
        """A rebalance while stopping: Faust would close the consumer on the wrong event loop,
        and the partitions would be idle for the session timeout."""
        if self.should_stop:
            await self._hand_over(stopping=True)
            return
        await super()._on_partitions_revoked(revoked)

    async def _on_partitions_assigned(self, assigned: set[Any], generation_id: int = 0) -> None:
        if self.should_stop:
            return
        await super()._on_partitions_assigned(assigned, generation_id)

    async def _hand_over(self, *, stopping: bool) -> None:
        if self.hand_over is not None:
            try:
                await self.hand_over(stopping)
            except Exception:
                # Raising here would end the app in the middle of a rebalance; what was not
                # handed over is redelivered.
                log.exception("handing the partitions over failed")
            await self._flush()

    async def _flush(self) -> None:
        """Marks of the drain that are acknowledged after their table was closed would open it
        again."""
        try:
            async with asyncio.timeout(FLUSH_TIMEOUT):
                await self._producer_flush(log)
        except Exception as error:
            log.info("marks are left to be sent: %r", error)
