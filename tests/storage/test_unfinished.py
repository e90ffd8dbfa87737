"""Sagas that no record brings back."""

from __future__ import annotations

import pytest

from streamapp.saga.model import SagaStatus
from streamapp.storage.unfinished import UnfinishedSagas
from tests.storage.writes import claim, state_of
from tests.support.bench import Bench
from tests.support.sagas import GROUP, TOPIC


@pytest.fixture
def unfinished(bench: Bench) -> UnfinishedSagas:
    return UnfinishedSagas(bench.pool, GROUP, TOPIC)


async def put(
    bench: Bench,
    name: str,
    status: SagaStatus,
    *,
    partition: int = 0,
    offset: int = 0,
    due: str | None = None,
) -> None:
    """A saga; ``due`` is from now."""
    epoch = await bench.take_over(partition)
    write = claim(epoch, state_of(name, partition=partition, offset=offset), status=status)
    await bench.journal.write(write)
    await bench.pool.execute(
        "update sagas set resume_at = now() + $2::text::interval where processing_id = $1",
        name,
        due,
    )


async def test_stuck_sagas_come_when_they_are_due(
    bench: Bench, unfinished: UnfinishedSagas
) -> None:
    stuck = SagaStatus.STUCK
    await put(bench, "due", stuck, due="-1 s")
    await put(bench, "long due", stuck, due="-9 s", partition=1)
    await put(bench, "not yet", stuck, due="1 h")
    await put(bench, "given up", stuck)
    await put(bench, "elsewhere", stuck, due="-1 s", partition=2)
    await put(bench, "running", SagaStatus.RUNNING, due="-1 s")
    await put(bench, "compensated", SagaStatus.COMPENSATED, due="-1 s")
    found = await unfinished.stuck([0, 1], 10)
    assert [name for name, _, _ in found] == ["long due", "due"]
    assert found[0] == ("long due", 1, b"lead of long due")
    assert [name for name, _, _ in await unfinished.stuck([0, 1], 1)] == ["long due"]
    assert await unfinished.stuck([], 10) == []


async def test_sagas_below_the_committed_offset_are_orphans(
    bench: Bench, unfinished: UnfinishedSagas
) -> None:
    running = SagaStatus.RUNNING
    await put(bench, "second", running, offset=9)
    await put(bench, "first", SagaStatus.COMPENSATING, offset=8)
    await put(bench, "its record comes again", running, offset=10)
    await put(bench, "behind another commit", running, offset=9, partition=1)
    await put(bench, "elsewhere", running, offset=0, partition=2)
    for status in (SagaStatus.COMPLETED, SagaStatus.COMPENSATED, SagaStatus.STUCK):
        await put(bench, status.value, status, offset=1)
    found = await unfinished.orphans({0: 10, 1: 9}, 10)
    assert found == [("first", 0, b"lead of first"), ("second", 0, b"lead of second")]
    assert await unfinished.orphans({0: 10}, 1) == found[:1]
    assert await unfinished.orphans({}, 10) == []


async def test_other_groups_and_topics_are_others_business(bench: Bench) -> None:
    await put(bench, "stuck", SagaStatus.STUCK, due="-1 s")
    await put(bench, "running", SagaStatus.RUNNING)
    for group, topic in ((GROUP, "another"), ("another", TOPIC)):
        others = UnfinishedSagas(bench.pool, group, topic)
        assert await others.stuck([0], 10) == []
        assert await others.orphans({0: 100}, 10) == []
