"""Epochs: each raise gives a higher one, for its own partition alone."""

from __future__ import annotations

import asyncio

from streamapp.storage.owners import raise_epoch
from tests.support.bench import Bench


async def test_each_raise_gives_the_next_epoch(bench: Bench) -> None:
    epochs = [await raise_epoch(bench.pool, "g", "t", 7, f"worker {n}") for n in range(3)]
    assert epochs == [1, 2, 3]
    rows = await bench.pool.fetch("select * from partition_owners where consumer_group = 'g'")
    assert [(row["topic"], row["partition"], row["epoch"]) for row in rows] == [("t", 7, 3)]
    assert rows[0]["worker"] == "worker 2"


async def test_a_raise_tells_since_when(bench: Bench) -> None:
    await raise_epoch(bench.pool, "g", "t", 7, "first")
    first = await bench.pool.fetchval("select since from partition_owners where topic = 't'")
    await raise_epoch(bench.pool, "g", "t", 7, "second")
    second = await bench.pool.fetchval("select since from partition_owners where topic = 't'")
    assert second > first


async def test_groups_topics_and_partitions_have_epochs_of_their_own(bench: Bench) -> None:
    assert await raise_epoch(bench.pool, "g", "t", 0, "w") == 1
    assert await raise_epoch(bench.pool, "g", "t", 1, "w") == 1
    assert await raise_epoch(bench.pool, "g", "u", 0, "w") == 1
    assert await raise_epoch(bench.pool, "h", "t", 0, "w") == 1
    assert await raise_epoch(bench.pool, "g", "t", 0, "w") == 2


async def test_no_epoch_is_given_twice(bench: Bench) -> None:
    epochs = await asyncio.gather(
        *(raise_epoch(bench.pool, "g", "t", 0, f"worker {n}") for n in range(12))
    )
    assert sorted(epochs) == list(range(1, 13))
