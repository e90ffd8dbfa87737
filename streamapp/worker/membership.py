"""This worker's membership in the consumer group, asked where it lives: in the consumer's thread.

Faust keeps the aiokafka consumer in a thread of its own. What is read or sent about a
generation is therefore compared with it there, right before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from enum import Enum
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    KafkaError,
    RebalanceInProgressError,
    UnknownMemberIdError,
    for_code,
)
from aiokafka.protocol.group import HeartbeatRequest
from aiokafka.structs import OffsetAndMetadata

log = logging.getLogger("streamapp.membership")

COMMIT_TIMEOUT = 5.0  # seconds


class Standing(Enum):
    """What the coordinator says of a generation of ours."""

    CONFIRMED = "confirmed"
    LOST = "lost"
    UNKNOWN = "unknown"  # it could not be asked


class Membership:
    """The calls into the consumer's thread that Faust has no method for."""

    def __init__(self, app: Any) -> None:
        self._app = app

    @property
    def generation(self) -> int:
        """The generation that Faust delivers events of."""
        return int(self._app.consumer_generation_id)

    @property
    def _thread(self) -> Any:
        return self._app.consumer._thread

    def expelled(self, generation: int) -> bool:
        """Whether the group went on without this worker since ``generation``: its session ended,
        as when the process stood still for longer than the session timeout."""
        try:
            return bool(self._thread._consumer._coordinator.generation != generation)
        except AttributeError:
            return False  # the consumer is not there: the worker is starting or stopping

    async def confirm(self, generation: int) -> Standing:
        """Ask the coordinator by a heartbeat. A commit would prove nothing: Kafka takes simple
        commits into an empty group."""
        standing: Standing = await self._in_thread(
            self._confirm, generation, default=Standing.UNKNOWN
        )
        return standing

    async def _confirm(self, generation: int) -> Standing:
        coordinator = self._thread._consumer._coordinator
        if coordinator.generation != generation:
            return Standing.LOST
        request = HeartbeatRequest(coordinator.group_id, generation, coordinator.member_id)
        response = await coordinator._send_req(request)
        error = for_code(response.error_code)
        if response.error_code == 0 or error is RebalanceInProgressError:
            # A rebalance under way does not end the generation: its members may still finish.
            return Standing.CONFIRMED
        if error in (IllegalGenerationError, UnknownMemberIdError):
            return Standing.LOST
        return Standing.UNKNOWN

    async def commit(self, generation: int, offsets: Mapping[tuple[str, int], int]) -> bool:
        """Commit offsets under a generation; False when it was not accepted, which costs only
        a repetition. Never raises."""
        if not offsets:
            return True
        accepted: bool = await self._in_thread(
            self._commit, generation, dict(offsets), default=False
        )
        return accepted

    async def _commit(self, generation: int, offsets: dict[tuple[str, int], int]) -> bool:
        consumer = self._thread._consumer
        if consumer._coordinator.generation != generation:
            return False
        assigned = consumer.assignment()
        wanted = {TopicPartition(*partition): offset for partition, offset in offsets.items()}
        if not wanted.keys() <= assigned:
            return False
        try:
            # Without a limit it looks for a coordinator for as long as the broker is away, and a
            # hand-over or a shutdown with it.
            async with asyncio.timeout(COMMIT_TIMEOUT):
                await consumer.commit(
                    {tp: OffsetAndMetadata(offset, "") for tp, offset in wanted.items()}
                )
        except (CommitFailedError, TimeoutError):
            return False
        return True

    async def committed(self, topic: str, partition: int) -> int | None:
        """The offset from which a partition goes on: what is committed, 0 where nothing is. None
        when nobody answers."""
        offset: int | None = await self._in_thread(self._committed, topic, partition, default=None)
        return offset

    async def _committed(self, topic: str, partition: int) -> int:
        # It would look for a coordinator for as long as the broker is away.
        async with asyncio.timeout(COMMIT_TIMEOUT):
            offset = await self._thread._consumer.committed(TopicPartition(topic, partition))
        return offset or 0

    async def seek(self, topic: str, partition: int, offset: int) -> None:
        """Fetch from an offset on. Never raises: a partition that is no longer ours stays."""
        await self._in_thread(self._seek, topic, partition, offset, default=None)

    async def _seek(self, topic: str, partition: int, offset: int) -> None:
        target = TopicPartition(topic, partition)
        if target in self._thread._consumer.assignment():
            self._thread._consumer.seek(target, offset)

    async def _in_thread(self, function: Any, *arguments: Any, default: Any) -> Any:
        try:
            return await self._thread.call_thread(function, *arguments)
        except (KafkaError, OSError, AttributeError) as error:
            # AttributeError: the consumer is gone, as the worker is stopping.
            log.info("%s: %s: %s", function.__name__, type(error).__name__, error)
            return default

    def highwater(self, topic: str, partition: int) -> int | None:
        """The offset after the partition's last record, as of the last fetch."""
        try:
            offset: int | None = self._thread._consumer.highwater(TopicPartition(topic, partition))
        except (AttributeError, AssertionError, KeyError, KafkaError):
            return None  # the consumer is not there, or the partition no longer ours
        return offset

    def position(self, topic: str, partition: int) -> int | None:
        """The offset of the record that the consumer hands out next."""
        try:
            assignment = self._thread._consumer._subscription.subscription.assignment
            offset: int = assignment.state_value(TopicPartition(topic, partition)).position
        except (AttributeError, AssertionError, KeyError, KafkaError):
            return None  # the consumer is not there, or the partition no longer ours
        return offset

    def adjacent(self, topic: str, partition: int, before: int, offset: int) -> bool:
        """Whether the log is known to have no record between these two offsets."""
        return bool(self._app.polls.adjacent(topic, partition, before, offset))

    def rounds(self, topic: str) -> int | None:
        """How many polls have begun; all that earlier ones handed out has arrived. None while
        records wait for the topic's agent."""
        queue = self._app.queues.get(topic)
        return int(self._app.polls.count) if queue is not None and queue.empty() else None

    @property
    def assigned(self) -> bool:
        """Whether the group has given this worker its share (which may be none)."""
        return self.generation > 0 and not self._app.rebalancing

    @property
    def unrestored(self) -> int:
        """Changelog records that are still to be restored before work begins."""
        remaining: int = self._app.restore.remaining
        return remaining

    @property
    def restored(self) -> bool:
        """Whether the tables hold all that their changelogs say."""
        return not self._app.tables.recovery.in_recovery
