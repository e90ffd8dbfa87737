"""A broker that refuses what a worker writes: visible, nothing lost, and the work goes on."""

from __future__ import annotations

import json

import pytest

from tests.kafka.broker import Broker
from tests.kafka.conftest import NewStage
from tests.kafka.job import read_all
from tests.kafka.stage import readiness
from tests.kafka.topics import allow_writing, create_topic, delete_topic, forbid_writing

pytestmark = pytest.mark.timeout(300)

TO_THE_TOPIC = "records on the dead-letter topic"


async def test_dead_letters_that_may_not_be_written(
    guarded_broker: Broker, new_stage: NewStage
) -> None:
    """Not authorised to write dead letters: all of them go into the table, from the pipeline
    and from the outbox, and every partition is worked off."""
    stage = new_stage(guarded_broker.bootstrap)
    (worker,) = await stage.prepare()
    await forbid_writing(guarded_broker.bootstrap, stage.settings.dlq_topic)
    async with stage.load():
        await stage.progress(300)
    case = await stage.check(without={TO_THE_TOPIC})
    reasons = {row["reason"] for row in case.evidence.dead_letters}
    assert {"invalid_payload", "step_rejected"} <= reasons
    assert len(case.evidence.letters) < len(case.evidence.dead_letters)
    log = worker.log.read_text()
    assert "refuses dead letters, they go straight into the table" in log
    assert log.count("refuses dead letters") <= 3, "once a minute"
    assert await worker.stop() == 0


async def test_a_dead_letter_topic_that_is_deleted_under_load(
    broker: Broker, new_stage: NewStage
) -> None:
    """Deleted while letters come in: those go into the table, and all else goes on. A worker
    that has to read the topic may leave the group for it, but not the work."""
    stage = new_stage(broker.bootstrap)
    (worker,) = await stage.prepare()
    async with stage.load():
        await stage.progress()
        await delete_topic(broker.bootstrap, stage.settings.dlq_topic)
        await stage.progress(300)
        letters = "select count(*) from dead_letter_queue"
        before = await stage.fetchval(letters)
        await stage.until_more(letters, before)
        await create_topic(
            broker.bootstrap,
            stage.settings.dlq_topic,
            stage.settings.topic_partitions,
        )
        await stage.progress(100)
    # The topic begins anew: letters of before are not on it, the table has all.
    await stage.check(without={TO_THE_TOPIC})
    await readiness(worker, True)
    assert await worker.stop() == 0


async def test_replies_that_may_not_be_written(guarded_broker: Broker, new_stage: NewStage) -> None:
    """Not authorised to write replies: each is set aside with the reason and counted, all other
    effects are done, and replies go out again as soon as that is allowed."""
    stage = new_stage(guarded_broker.bootstrap)
    (worker,) = await stage.prepare()
    async with stage.load():
        await stage.progress()
        await forbid_writing(guarded_broker.bootstrap, stage.settings.outbound_topic)
        failed = "select count(*) from outbox where failed_at is not null"
        await stage.until_more(failed, 30)
        await allow_writing(guarded_broker.bootstrap, stage.settings.outbound_topic)
        published = "select count(*) from outbox where topic = $1 and published_at is not null"
        topic = stage.settings.outbound_topic
        await stage.until_more(published, await stage.fetchval(published, topic) + 60, topic)
    case = await stage.check(without={"records on the outbound topic"})
    connection = await stage.connect()
    try:
        rows = await connection.fetch(
            "select value, published_at, failed_at, error from outbox where topic = $1",
            stage.settings.outbound_topic,
        )
    finally:
        await connection.close()
    refused = [row for row in rows if row["failed_at"] is not None]
    assert all("TopicAuthorizationFailed" in row["error"] for row in refused)
    assert all(row["published_at"] is None for row in refused)
    # Each message has its reply, or its apology: published, or set aside with the reason.
    assert sorted(json.loads(row["value"])["in_reply_to"] for row in rows) == sorted(
        case.with_status("COMPLETED", "COMPENSATED")
    )
    topic_has = {record.value for record in await read_all(stage.settings, topic)}
    assert topic_has == {row["value"] for row in rows if row["published_at"] is not None}
    metrics = await worker.metrics()
    assert metrics["streamapp_responses_total"][("whatsapp", "failed")] == len(refused)
    assert await worker.stop() == 0


async def test_a_topic_of_replies_that_is_deleted_and_made_again(
    broker: Broker, new_stage: NewStage
) -> None:
    """Replies wait in the outbox while their topic is missing, visibly, and nothing else does."""
    stage = new_stage(broker.bootstrap)
    (worker,) = await stage.prepare()
    topic = stage.settings.outbound_topic
    # Before any reply, so that all of them must be on the topic in the end.
    await delete_topic(broker.bootstrap, topic)
    async with stage.load():
        await stage.progress(200)
        await readiness(worker, False)
        assert await stage.fetchval("select count(*) from outbox where failed_at is not null") == 0
        await create_topic(broker.bootstrap, topic, stage.settings.topic_partitions)
        await readiness(worker, True)
    await stage.check()
    said = [line for line in worker.log.read_text().splitlines() if "takes no records" in line]
    assert 1 <= len(said) <= 5, said
    assert await worker.stop() == 0
