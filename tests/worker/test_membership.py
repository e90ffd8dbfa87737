"""Membership: what the coordinator says of a generation, and what is committed under it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    CoordinatorLoadInProgressError,
    IllegalGenerationError,
    KafkaConnectionError,
    KafkaError,
    NotCoordinatorError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from aiokafka.protocol.group import HeartbeatRequest

from streamapp.worker import membership as module
from streamapp.worker.membership import Membership, Standing
from tests.worker.fakes import DEADLINE

P0, P1 = ("ai-results", 0), ("ai-results", 1)


class Coordinator:
    """The group's coordinator as the consumer knows it: we are member m-1 of generation 3."""

    group_id, member_id = "group", "m-1"

    def __init__(self) -> None:
        self.generation = 3
        self.answer: type[KafkaError] | None = None
        self.raises: Exception | None = None
        self.asked: list[tuple[str, int, str]] = []

    async def _send_req(self, request: Any) -> Any:
        if self.raises is not None:
            raise self.raises
        fields = request.build(HeartbeatRequest._CLASSES[0]).to_object()
        self.asked.append((fields["group"], fields["generation_id"], fields["member_id"]))
        return SimpleNamespace(error_code=self.answer.errno if self.answer else 0)


class Consumer:
    """The aiokafka consumer; it has both partitions."""

    def __init__(self) -> None:
        self._coordinator = Coordinator()
        self.partitions = {TopicPartition(*P0), TopicPartition(*P1)}
        self.commits: list[dict[tuple[str, int], int]] = []
        self.positions: dict[tuple[str, int], int | None] = {}
        self.raises: Exception | None = None
        self.silent = False

    def assignment(self) -> set[TopicPartition]:
        return self.partitions

    async def commit(self, offsets: dict[TopicPartition, Any]) -> None:
        if self.silent:
            await asyncio.Event().wait()
        if self.raises is not None:
            raise self.raises
        self.commits.append({tuple(tp): offset.offset for tp, offset in offsets.items()})

    async def committed(self, partition: TopicPartition) -> int | None:
        if self.silent:
            await asyncio.Event().wait()
        return self.positions.get(tuple(partition))


class Thread:
    """Faust's thread, without one."""

    def __init__(self) -> None:
        self._consumer: Any = Consumer()

    async def call_thread(self, function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        return await function(*arguments)


class Bench:
    def __init__(self) -> None:
        self.thread = Thread()
        app = SimpleNamespace(
            consumer=SimpleNamespace(_thread=self.thread), consumer_generation_id=3
        )
        self.membership = Membership(app)

    @property
    def consumer(self) -> Consumer:
        consumer: Consumer = self.thread._consumer
        return consumer

    @property
    def coordinator(self) -> Coordinator:
        return self.consumer._coordinator


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize(
    ("answer", "standing"),
    [
        (None, Standing.CONFIRMED),
        (RebalanceInProgressError, Standing.CONFIRMED),
        (IllegalGenerationError, Standing.LOST),
        (UnknownMemberIdError, Standing.LOST),
        (NotCoordinatorError, Standing.UNKNOWN),
        (CoordinatorLoadInProgressError, Standing.UNKNOWN),
    ],
)
async def test_what_the_coordinator_says(
    bench: Bench, answer: type[KafkaError] | None, standing: Standing
) -> None:
    bench.coordinator.answer = answer
    assert await bench.membership.confirm(3) is standing
    assert bench.coordinator.asked == [("group", 3, "m-1")]


async def test_a_generation_that_is_over_here_is_lost_without_asking(bench: Bench) -> None:
    bench.coordinator.generation = 4
    assert await bench.membership.confirm(3) is Standing.LOST
    assert bench.coordinator.asked == []


async def test_a_coordinator_that_cannot_be_asked_says_nothing(bench: Bench) -> None:
    bench.coordinator.raises = KafkaConnectionError("away")
    assert await bench.membership.confirm(3) is Standing.UNKNOWN
    bench.thread._consumer = None
    assert await bench.membership.confirm(3) is Standing.UNKNOWN


async def test_offsets_are_committed(bench: Bench) -> None:
    assert await bench.membership.commit(3, {P0: 5, P1: 7})
    assert bench.consumer.commits == [{P0: 5, P1: 7}]
    assert await bench.membership.commit(3, {})
    assert len(bench.consumer.commits) == 1


async def test_a_worker_that_the_group_went_on_without_commits_nothing(bench: Bench) -> None:
    """The client would send the commit under its new generation, which may own the partition."""
    bench.coordinator.generation = 4
    assert bench.membership.expelled(3)
    assert not await bench.membership.commit(3, {P0: 5})
    assert bench.consumer.commits == []
    assert not bench.membership.expelled(4)


async def test_a_partition_that_is_not_ours_is_not_committed(bench: Bench) -> None:
    bench.consumer.partitions.discard(TopicPartition(*P1))
    assert not await bench.membership.commit(3, {P0: 5, P1: 7})
    assert bench.consumer.commits == []


@pytest.mark.parametrize("error", [CommitFailedError(), KafkaConnectionError("away"), OSError()])
async def test_a_commit_that_fails_is_told_and_raises_nothing(
    bench: Bench, error: Exception
) -> None:
    bench.consumer.raises = error
    assert not await bench.membership.commit(3, {P0: 5})


async def test_a_broker_that_is_away_holds_no_hand_over_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMMIT_TIMEOUT", 0.01)
    bench.consumer.silent = True
    async with asyncio.timeout(DEADLINE):
        assert not await bench.membership.commit(3, {P0: 5})
        assert await bench.membership.committed(*P0) is None


async def test_a_partition_without_a_committed_offset_begins_at_zero(bench: Bench) -> None:
    bench.consumer.positions[P1] = 9
    assert await bench.membership.committed(*P0) == 0
    assert await bench.membership.committed(*P1) == 9
