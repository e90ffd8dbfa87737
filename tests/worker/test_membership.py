"""What the coordinator's answers mean, and under which generation anything is committed.

The consumer and its thread are fakes; the real ones are exercised in ``tests/kafka``.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    CoordinatorNotAvailableError,
    GroupCoordinatorNotAvailableError,
    IllegalGenerationError,
    KafkaConnectionError,
    KafkaError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)

from streamapp.worker import membership as module
from streamapp.worker.membership import Membership, Standing

GENERATION = 5


class Consumer:
    """The aiokafka consumer and its coordinator, which say what a test tells them to."""

    def __init__(self) -> None:
        self.generation, self.group_id, self.member_id = GENERATION, "group", "member"
        self.answer: int | Exception = 0
        self.heartbeats: list[tuple[str, int, str]] = []
        self.commits: list[dict[TopicPartition, int]] = []
        self.partitions = {TopicPartition("in", 0), TopicPartition("in", 1)}
        self.commit_error: Exception | None = None
        self.hangs = False
        self._coordinator = self
        self.membership = Membership(
            SimpleNamespace(
                consumer_generation_id=GENERATION,
                consumer=SimpleNamespace(
                    _thread=SimpleNamespace(_consumer=self, call_thread=self.call_thread)
                ),
            )
        )

    async def call_thread(self, function: Any, *arguments: Any) -> Any:
        return await function(*arguments)

    async def _send_req(self, request: Any) -> Any:
        self.heartbeats.append((request._group, request._generation_id, request._member_id))
        if isinstance(self.answer, Exception):
            raise self.answer
        return SimpleNamespace(error_code=self.answer)

    def assignment(self) -> set[TopicPartition]:
        return self.partitions

    async def commit(self, offsets: dict[TopicPartition, Any]) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.commit_error is not None:
            raise self.commit_error
        self.commits.append({partition: value.offset for partition, value in offsets.items()})


@pytest.mark.parametrize(
    ("answer", "standing"),
    [
        (0, Standing.CONFIRMED),
        # Its members may still finish: to refuse them would stall the group.
        (RebalanceInProgressError.errno, Standing.CONFIRMED),
        (IllegalGenerationError.errno, Standing.LOST),
        (UnknownMemberIdError.errno, Standing.LOST),
        (GroupCoordinatorNotAvailableError.errno, Standing.UNKNOWN),
        (KafkaConnectionError(), Standing.UNKNOWN),
        (OSError(), Standing.UNKNOWN),
    ],
)
async def test_a_heartbeat_decides(answer: int | Exception, standing: Standing) -> None:
    consumer = Consumer()
    consumer.answer = answer
    assert await consumer.membership.confirm(GENERATION) is standing
    assert len(consumer.heartbeats) == 1
    assert consumer.commits == [], "a commit would prove nothing"


async def test_a_generation_that_is_over_is_lost_without_asking() -> None:
    consumer = Consumer()
    consumer.generation = -1  # as after a freeze that outlasted the session
    assert await consumer.membership.confirm(GENERATION) is Standing.LOST
    assert consumer.heartbeats == []
    assert consumer.membership.expelled(GENERATION)


async def test_offsets_are_committed() -> None:
    consumer = Consumer()
    assert await consumer.membership.commit(GENERATION, {("in", 0): 7, ("in", 1): 9})
    assert consumer.commits == [{TopicPartition("in", 0): 7, TopicPartition("in", 1): 9}]
    assert await consumer.membership.commit(GENERATION, {})


async def test_nothing_is_committed_under_another_generation() -> None:
    """The client commits under whatever generation it is in when the request goes out."""
    consumer = Consumer()
    consumer.generation = GENERATION + 1
    assert not await consumer.membership.commit(GENERATION, {("in", 0): 7})
    assert consumer.commits == []


async def test_nothing_is_committed_where_a_partition_is_not_ours_any_more() -> None:
    """The client would leave it out silently and say that all is well."""
    consumer = Consumer()
    consumer.partitions.discard(TopicPartition("in", 1))
    assert not await consumer.membership.commit(GENERATION, {("in", 0): 7, ("in", 1): 9})
    assert consumer.commits == []


@pytest.mark.parametrize(
    "error",
    [CommitFailedError("rebalanced"), KafkaError("away"), CoordinatorNotAvailableError(), None],
)
async def test_a_commit_that_fails_or_hangs_is_no_error(
    error: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMMIT_TIMEOUT", 0.01)
    consumer = Consumer()
    consumer.commit_error, consumer.hangs = error, error is None
    assert not await consumer.membership.commit(GENERATION, {("in", 0): 7})
