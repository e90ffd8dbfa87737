"""A worker on Apache Kafka is killed once at every crash point, under load, and comes back.

``tests/crash`` kills at every step from plain sources; here each point has to hold once with the
real consumer, producer, table and changelog around it.
"""

from __future__ import annotations

import asyncio
import signal

import pytest

from streamapp.resilience.crash_points import POINTS
from tests.chaos.traffic import Stream
from tests.kafka.broker import Broker
from tests.kafka.conftest import NewStage
from tests.kafka.stage import Stage
from tests.kafka.topics import forbid_writing
from tests.support.worker import WorkerProcess

pytestmark = pytest.mark.timeout(600)

AT_START = {"epoch.raised", "retention.deleted"}
AT_HAND_OVER = {"offsets.drained"}
RARE = {"letter.sent", "dead_letter.stored", "dead_letter.committed"}
REFUSED = {"letter.stored"}  # a test of its own, below
BY_PEOPLE = {"redrive.marked", "redrive.sent"}  # the same
# Of the sender of replies, which is killed in tests/worker/test_deliveries.py.
DELIVERING = {point for point in POINTS if point.startswith("delivery.")}
PASSES = 7  # of a point that every message passes: others are at work then
RATE = 15.0  # records a second; what a worker that dies all the time can catch up with


async def prepared(stage: Stage) -> WorkerProcess:
    """A worker of the stage, not started, and topics with a gentle stream."""
    worker = stage.new_worker()
    status, _, errors = await worker.run("migrate")
    assert status == 0, errors
    settings = worker.settings
    stage.stream = Stream(
        stage.traffic, settings.kafka_bootstrap_servers, settings.input_topic, RATE
    )
    return worker


async def killed_at(point: str, stage: Stage, worker: WorkerProcess) -> None:
    """Start the worker, which ends by SIGKILL at the point."""
    passes = {**dict.fromkeys(AT_START | RARE | REFUSED, 1), **dict.fromkeys(AT_HAND_OVER, 2)}
    worker.environment |= {
        "STREAMAPP_ENVIRONMENT": "test",
        "STREAMAPP_CRASH_POINT": f"{point}:{passes.get(point, PASSES)}",
    }
    worker.start()
    if point in AT_HAND_OVER:  # the first one is that of joining the group, without partitions
        while worker.running and (await worker.get("/health/ready"))[0] != 200:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.1)
        if worker.running:
            await stage.progress(10)
            worker.signal(signal.SIGTERM)
    assert await worker.ended() == -signal.SIGKILL, f"{point}\n{stage.logs()}"
    del worker.environment["STREAMAPP_CRASH_POINT"]


async def test_killed_once_at_every_point(broker: Broker, new_stage: NewStage) -> None:
    stage = new_stage(broker.bootstrap)
    worker = await prepared(stage)
    async with stage.load():
        for point in POINTS.keys() - REFUSED - BY_PEOPLE - DELIVERING:
            await killed_at(point, stage, worker)
        worker.start()
        await worker.wait_until_ready()
        await stage.progress()
    case = await stage.check()
    assert len(case.sagas) > PASSES * len(POINTS)
    assert await worker.stop() == 0


async def test_killed_after_a_letter_went_into_the_table(
    guarded_broker: Broker, new_stage: NewStage
) -> None:
    """The broker takes no dead letters, so they are stored without their topic."""
    stage = new_stage(guarded_broker.bootstrap)
    worker = await prepared(stage)
    await forbid_writing(guarded_broker.bootstrap, stage.settings.dlq_topic)
    async with stage.load():
        for point in REFUSED:
            await killed_at(point, stage, worker)
        worker.start()
        await worker.wait_until_ready()
        await stage.progress()
    await stage.check(without={"records on the dead-letter topic"})
    assert await worker.stop() == 0


async def test_a_redrive_that_is_killed_is_asked_for_again(
    broker: Broker, new_stage: NewStage
) -> None:
    """The command dies after its mark and after its send; given again, it is one redrive."""
    stage = new_stage(broker.bootstrap)
    (worker,) = await stage.prepare()
    compensated = "select processing_id from sagas where status = 'COMPENSATED' and run = 0"
    async with stage.load():
        await stage.until_more(f"select count(*) from ({compensated}) as c", len(BY_PEOPLE))
    await stage.check()
    connection = await stage.connect()
    try:
        names = [row["processing_id"] for row in await connection.fetch(compensated)]
    finally:
        await connection.close()
    for point, name in zip(sorted(BY_PEOPLE), names, strict=False):
        worker.environment |= {
            "STREAMAPP_ENVIRONMENT": "test",
            "STREAMAPP_CRASH_POINT": point,
        }
        status, _, errors = await worker.run("dlq", "retry", name)
        assert status == -signal.SIGKILL, errors
        del worker.environment["STREAMAPP_CRASH_POINT"]
        if point == "redrive.marked":
            status, _, errors = await worker.run("dlq", "retry", name)
            assert status == 0, errors
        # The order service still refuses it: another run, another key, compensated again.
        again = "select count(*) from sagas where processing_id = $1 and run = 1 and status = $2"
        await stage.until_more(again, 0, name, "COMPENSATED")
        failed = "select count(*) from dead_letter_queue where message_id = $1 and run = 1"
        await stage.until_more(failed, 0, name)
        asked = [r for r in stage.orders.requests if r.processing_id == name]
        keys = {request.key for request in asked if request.operation == "create"}
        assert len(keys) == 2
    assert await worker.stop() == 0
