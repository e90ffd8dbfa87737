"""The broker stops under load and comes back: nothing is lost, doubled or out of order."""

from __future__ import annotations

import asyncio
import os

import pytest

from tests.kafka.broker import Broker
from tests.kafka.conftest import NewStage
from tests.kafka.stage import readiness, repeated_lines

pytestmark = pytest.mark.timeout(300)

AWAY = float(os.environ.get("KAFKA_TEST_AWAY", "8"))  # seconds; longer than the session timeout


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_work_goes_on_when_the_broker_is_back(
    own_broker: Broker, new_stage: NewStage, how: str
) -> None:
    """Two workers, the broker away for longer than their session timeout, by SIGTERM and by
    SIGKILL. ``KAFKA_TEST_AWAY`` sets for how many seconds (default 8; for a long run 600)."""
    stage = new_stage(own_broker.bootstrap)
    workers = await stage.prepare(workers=2)
    async with stage.load():
        await stage.progress()
        before = [len(worker.log.read_text()) for worker in workers]
        await asyncio.to_thread(own_broker.stop if how == "stop" else own_broker.kill)
        for worker in workers:
            await readiness(worker, False)
        await asyncio.sleep(AWAY)
        for worker, read in zip(workers, before, strict=True):
            assert (await worker.get("/health/live"))[0] == 200
            assert (await worker.get("/health/ready"))[0] == 503
            said = worker.log.read_text()[read:]
            repeated = {
                line: times for line, times in repeated_lines(said).items() if times > 1 + AWAY / 60
            }
            assert not repeated, said
            assert "broker takes no records" in said
        await asyncio.to_thread(own_broker.start)
        for worker in workers:
            await readiness(worker, True)
        await stage.progress()
    await stage.check()
    assert [await worker.stop() for worker in workers] == [0, 0]
