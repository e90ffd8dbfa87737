"""Three brokers, of which one or two are away: work goes on, or waits, and nothing is doubled."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.kafka.broker import BrokerCluster
from tests.kafka.conftest import NewStage
from tests.kafka.stage import readiness
from tests.kafka.topics import until_in_sync

pytestmark = pytest.mark.timeout(480)

LOOK = 6.0  # seconds in which nothing may be acknowledged


@pytest.fixture
def brokers(java: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerCluster]:
    cluster = BrokerCluster(tmp_path_factory.mktemp("three-kafkas"))
    cluster.start()
    yield cluster
    cluster.stop()


async def test_brokers_die_one_after_the_other_and_two_at_once(
    brokers: BrokerCluster, new_stage: NewStage
) -> None:
    """One of three killed under load, and another one when the first is back in step: work goes
    on without it. Then two at once: without a majority nothing is acknowledged by anybody, the
    worker says that it is not ready, and goes on by itself when they are back."""
    stage = new_stage(brokers.bootstrap, STREAMAPP_TOPIC_REPLICATION="3")
    (worker,) = await stage.prepare()
    published = "select count(*) from outbox where published_at is not null"
    async with stage.load():
        await stage.progress()
        for broker in brokers.brokers[:2]:
            await asyncio.to_thread(broker.kill)
            await stage.until_more(published, await stage.fetchval(published) + 60)
            await asyncio.to_thread(broker.start)
            await until_in_sync(brokers.bootstrap, 3)
        for broker in brokers.brokers[1:]:
            await asyncio.to_thread(broker.kill)
        await readiness(worker, False)
        before = (await stage.fetchval(published), len(stage.stream.acknowledged))
        await asyncio.sleep(LOOK)
        assert (await stage.fetchval(published), len(stage.stream.acknowledged)) == before
        assert (await worker.get("/health/live"))[0] == 200
        for broker in brokers.brokers[1:]:
            await asyncio.to_thread(broker.launch)
        for broker in brokers.brokers[1:]:
            await asyncio.to_thread(broker.wait_until_up)
        await readiness(worker, True)
        await stage.until_more(published, await stage.fetchval(published) + 60)
    await stage.check()
    assert await worker.stop() == 0
