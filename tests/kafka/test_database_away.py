"""The database is away for longer than the session: the worker stays a member of its group."""

from __future__ import annotations

import asyncio
import os

import pytest

from streamapp.demo.guardian import Guardian
from streamapp.demo.postgres import EmbeddedPostgres
from tests.kafka.broker import Broker
from tests.kafka.conftest import NewStage
from tests.kafka.stage import Stage, readiness, repeated_lines

pytestmark = pytest.mark.timeout(300)

AWAY = float(os.environ.get("KAFKA_TEST_DATABASE_AWAY", "8"))  # seconds


async def test_the_membership_outlives_the_database(
    broker: Broker, new_stage: NewStage, guardian: Guardian
) -> None:
    """PostgreSQL stopped under load and started again. Nobody rebalances: the epochs stay.
    ``KAFKA_TEST_DATABASE_AWAY`` sets for how many seconds (default 8, beyond the session)."""
    postgres = EmbeddedPostgres(guardian, "postgres-that-goes-away")
    stage = new_stage(broker.bootstrap, await asyncio.to_thread(postgres.start))
    try:
        workers = await stage.prepare(workers=2)
        async with stage.load():
            await stage.progress()
            epochs = await epochs_of(stage)
            read = [len(worker.log.read_text()) for worker in workers]
            await asyncio.to_thread(postgres.stop)
            for worker in workers:
                await readiness(worker, False)
            await asyncio.sleep(AWAY)
            for worker in workers:
                assert (await worker.get("/health/live"))[0] == 200
            await asyncio.to_thread(postgres.start)
            for worker in workers:
                await readiness(worker, True)
            await stage.progress()
        await stage.check()
        assert await epochs_of(stage) == epochs
        for worker, before in zip(workers, read, strict=True):
            said = worker.log.read_text()[before:]
            assert "partitions given up" not in said
            often = {k: n for k, n in repeated_lines(said).items() if n > 1 + AWAY / 60}
            assert not often, said
        assert [await worker.stop() for worker in workers] == [0, 0]
    finally:
        stage.close()
        await asyncio.to_thread(postgres.stop)


async def epochs_of(stage: Stage) -> list[tuple[int, int]]:
    connection = await stage.connect()
    try:
        rows = await connection.fetch(
            "select partition, epoch from partition_owners order by partition"
        )
        return [(row["partition"], row["epoch"]) for row in rows]
    finally:
        await connection.close()
