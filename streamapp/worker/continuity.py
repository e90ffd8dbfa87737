"""Whether records come one after the other: a record that was passed over must not be committed.

Between the fetch and our agents lie buffers of the consumer library that are emptied, and
positions that are set, in the course of rebalances and pauses. A record that is lost there would
never come again once a later one is committed. So a record is taken in only when it is the next
one of its partition, counted from the committed offset. Where one is missing the log itself is
asked: offsets may be absent for good (retention, compaction, transaction markers). If the log has
the missing record, the consumer goes back to it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

log = logging.getLogger("streamapp.continuity")

ASK_AGAIN = 0.5  # seconds before a broker that gave no answer is asked again
REWIND_AGAIN = 5.0  # seconds after which the consumer is sent back once more
LOOK_WITHIN = 5.0  # seconds that a look into the log may take
STALLED_AFTER = 10.0  # seconds that a record may be missing before the log is asked

FirstAt = Callable[[str, int, int], Awaitable[int | None]]


class Position(Protocol):
    """What is asked of the consumer (``worker.membership``)."""

    async def committed(self, topic: str, partition: int) -> int | None: ...

    async def seek(self, topic: str, partition: int, offset: int) -> None: ...

    def highwater(self, topic: str, partition: int) -> int | None: ...

    def position(self, topic: str, partition: int) -> int | None: ...

    def rounds(self, topic: str) -> int | None: ...

    def adjacent(self, topic: str, partition: int, before: int, offset: int) -> bool: ...


class NoAnswer(Exception):
    """The broker cannot be asked."""


class Sequence:
    """The order of one partition's records within one generation.

    ``next`` is the offset that has to come next; None until the first record came.
    """

    def __init__(self, topic: str, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self.next: int | None = None
        self.rewound_at: float | None = None
        self.suspected: tuple[int, int, float] | None = None  # missing offset, round, time


class Continuity:
    """Judges the records of all partitions.

    ``first_at(topic, partition, offset)`` gives the offset of the first record at or after
    ``offset`` that the log has, None where it has none, and raises ``NoAnswer``.
    ``on_skip(topic)`` is told of each place where records had been passed over.
    """

    def __init__(
        self,
        position: Position,
        first_at: FirstAt,
        on_skip: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._position = position
        self._first_at = first_at
        self._on_skip = on_skip
        self._clock = clock

    async def admits(
        self, sequence: Sequence, offset: int, valid: Callable[[], bool] = lambda: True
    ) -> bool:
        """Whether the record at ``offset`` is to be taken in now; ``took`` is called once it is.

        False: it was taken in before, or it comes again after those that are missing. Waits
        while the broker cannot be asked, until ``valid`` says that nobody needs to know.
        """
        if sequence.next is None:
            begin = await self._insist(
                lambda: self._position.committed(sequence.topic, sequence.partition), valid
            )
            if begin is None:
                return False
            sequence.next = begin if self._reaches(sequence, begin) else min(begin, offset)
        if offset < sequence.next:
            return False  # after restoring a table Faust delivers the last record twice
        return offset == sequence.next or not await self._skipped(sequence, offset, valid)

    def took(self, sequence: Sequence, offset: int) -> None:
        """The record was taken in."""
        sequence.next = offset + 1
        sequence.rewound_at = None

    def _reaches(self, sequence: Sequence, offset: int) -> bool:
        """Whether the log goes on to the committed offset. One that lost records may not, and is
        then read from its beginning: whatever comes is to be worked on, as a repetition."""
        highwater = self._position.highwater(sequence.topic, sequence.partition)
        return highwater is None or highwater >= offset

    async def _skipped(self, sequence: Sequence, offset: int, valid: Callable[[], bool]) -> bool:
        """Whether records between the expected one and this one are there and did not come."""
        assert sequence.next is not None
        if sequence.rewound_at is not None:
            # What had been fetched before the consumer went back is passed over.
            if self._clock() - sequence.rewound_at >= REWIND_AGAIN:
                await self._rewind(sequence)
            return True
        expected = sequence.next
        if self._position.adjacent(sequence.topic, sequence.partition, expected - 1, offset):
            return False
        first = await self._insist(lambda: self._look(sequence, expected, offset), valid)
        if first is None:
            return True
        if first >= offset:
            return False
        log.warning(
            "%s-%d: records %d to %d were passed over, going back to them",
            sequence.topic,
            sequence.partition,
            first,
            offset - 1,
        )
        self._on_skip(sequence.topic)
        sequence.next = first
        await self._rewind(sequence)
        return True

    async def _look(self, sequence: Sequence, expected: int, offset: int) -> int:
        first = await self._first_at(sequence.topic, sequence.partition, expected)
        # A log that has nothing there any more has nothing that could be missing.
        return offset if first is None else first

    async def _rewind(self, sequence: Sequence) -> None:
        assert sequence.next is not None
        sequence.rewound_at = self._clock()
        sequence.suspected = None
        await self._position.seek(sequence.topic, sequence.partition, sequence.next)

    async def _insist(
        self, ask: Callable[[], Awaitable[int | None]], valid: Callable[[], bool]
    ) -> int | None:
        while valid():
            try:
                answer = await ask()
            except NoAnswer as error:
                log.info("the broker gives no answer: %s", error)
            else:
                if answer is not None:
                    return answer
            await asyncio.sleep(ASK_AGAIN)
        return None

    async def revive(self, sequence: Sequence) -> None:
        """Send the consumer back where it handed records out and they did not arrive.

        Records that were passed over at the end of the log are followed by none that would
        tell. Call it regularly, but only while nothing holds intake up.
        """
        if not self._is_overdue(sequence):
            return
        assert sequence.next is not None
        expected, sequence.suspected = sequence.next, None
        try:
            first = await self._first_at(sequence.topic, sequence.partition, expected)
        except NoAnswer as error:
            log.info("the broker gives no answer: %s", error)
            return
        if first is None or sequence.next != expected:
            return  # what is left are transaction markers; or it went on by itself
        log.warning(
            "%s-%d: record %d does not come, going back to it",
            sequence.topic,
            sequence.partition,
            first,
        )
        self._on_skip(sequence.topic)
        await self._rewind(sequence)

    def _is_overdue(self, sequence: Sequence) -> bool:
        """Whether the next record was handed out and can no longer be on its way.

        All records of one poll are on their way until the next poll begins, and that may take
        minutes where work is slow: time alone says nothing.
        """
        expected, rounds = sequence.next, self._position.rounds(sequence.topic)
        position = self._position.position(sequence.topic, sequence.partition)
        if expected is None or rounds is None or position is None or position <= expected:
            sequence.suspected = None
            return False
        now = self._clock()
        if sequence.suspected is None or sequence.suspected[0] != expected:
            sequence.suspected = (expected, rounds, now)
        _, since_round, since = sequence.suspected
        return rounds > since_round and now - since >= STALLED_AFTER


class LogReader:
    """Looks into the log with a consumer of its own, without a group. Made for rare questions."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap = bootstrap_servers

    async def first_at(self, topic: str, partition: int, offset: int) -> int | None:
        """The offset of the first record at or after ``offset``; None where there is none.

        Raises ``NoAnswer`` when the broker does not tell in time.
        """
        try:
            async with asyncio.timeout(LOOK_WITHIN * 2):
                return await self._look(TopicPartition(topic, partition), offset)
        except (KafkaError, OSError) as error:  # a time-out is an OSError
            raise NoAnswer(f"{type(error).__name__}: {error}") from error

    async def _look(self, partition: TopicPartition, offset: int) -> int | None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=100,
        )
        await consumer.start()
        try:
            consumer.assign([partition])
            beginnings = await consumer.beginning_offsets([partition])
            ends = await consumer.end_offsets([partition])
            consumer.seek(partition, max(offset, beginnings[partition]))
            loop = asyncio.get_running_loop()
            deadline = loop.time() + LOOK_WITHIN
            while await consumer.position(partition) < ends[partition]:
                fetched = await consumer.getmany(partition, timeout_ms=200, max_records=1)
                for record in fetched.get(partition, ()):
                    return int(record.offset)
                if loop.time() >= deadline:
                    raise NoAnswer(f"nothing was fetched of {partition}")
            return None
        finally:
            await consumer.stop()
