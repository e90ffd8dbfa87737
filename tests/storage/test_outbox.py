"""The outbox: its owner, and nobody else, reads and marks a partition's rows."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import asyncpg
import pytest

from streamapp.storage.outbox import MAX_ERROR, Outbox, Unpublished
from streamapp.storage.owners import raise_epoch
from tests.storage.locks import locked, waiters
from tests.storage.writes import claim, letter, state_of
from tests.support.bench import Bench
from tests.support.sagas import DLQ, GROUP, TOPIC


@pytest.fixture
def outbox(bench: Bench) -> Outbox:
    return Outbox(bench.pool, GROUP, TOPIC)


async def put(bench: Bench, *names: str, partition: int = 0) -> None:
    """Commit the records of that name with a saga of the partition."""
    epoch = await raise_epoch(bench.pool, GROUP, TOPIC, partition, "writer")
    write = claim(epoch, state_of(f"saga of {names[0]}", partition=partition))
    write.outbox = [letter(name) for name in names]
    await bench.journal.write(write)


async def epoch_of(bench: Bench, partition: int = 0) -> dict[int, int]:
    return {partition: await raise_epoch(bench.pool, GROUP, TOPIC, partition, "relay")}


async def read(
    outbox: Outbox, epochs: dict[int, int], limit: int = 100, held: tuple[int, ...] = ()
) -> list[Unpublished]:
    return await outbox.unpublished(epochs, DLQ, held, limit)


async def names(outbox: Outbox, epochs: dict[int, int], limit: int = 100) -> list[str]:
    return [row.record.id for row in await read(outbox, epochs, limit)]


async def test_records_come_back_as_they_were_written(bench: Bench, outbox: Outbox) -> None:
    await put(bench, "a")
    (found,) = await read(outbox, await epoch_of(bench))
    assert found.record == letter("a")
    assert found.record.topic == DLQ
    assert found.partition == 0


async def test_records_come_in_order_and_bounded(bench: Bench, outbox: Outbox) -> None:
    await put(bench, "c", "a", "b")
    await put(bench, "z", partition=1)
    epochs = {**await epoch_of(bench, 0), **await epoch_of(bench, 1)}
    assert await names(outbox, epochs) == ["c", "a", "b", "z"]
    assert await names(outbox, epochs, limit=2) == ["c", "a"]


async def test_records_that_are_held_already_leave_their_place_to_others(
    bench: Bench, outbox: Outbox
) -> None:
    await put(bench, "a", "b", "c")
    epochs = await epoch_of(bench)
    first, second, _ = await read(outbox, epochs)
    held = (first.row_id, second.row_id)
    assert [row.record.id for row in await read(outbox, epochs, 1, held)] == ["c"]


async def test_records_of_another_topic_are_not_in_the_way(bench: Bench, outbox: Outbox) -> None:
    write = claim(bench.epoch)
    write.outbox = [replace(letter(name), topic=name[0]) for name in ("x-1", "y-1", "x-2")]
    await bench.journal.write(write)
    epochs = await epoch_of(bench)
    found = await outbox.unpublished(epochs, "x", (), 2)
    assert [row.record.id for row in found] == ["x-1", "x-2"]
    assert [row.record.topic for row in found] == ["x", "x"]


async def test_only_own_partitions_are_read(bench: Bench, outbox: Outbox) -> None:
    await put(bench, "a")
    await put(bench, "b", partition=1)
    assert await names(outbox, await epoch_of(bench, 1)) == ["b"]
    assert await names(outbox, {}) == []


async def test_a_partition_under_an_old_epoch_is_not_read(bench: Bench, outbox: Outbox) -> None:
    await put(bench, "a")
    await put(bench, "b", partition=1)
    epochs = {**await epoch_of(bench, 0), **await epoch_of(bench, 1)}
    await epoch_of(bench, 0)
    assert await names(outbox, epochs) == ["b"]


async def test_rows_that_were_inherited_come_first_and_in_their_order(
    bench: Bench, outbox: Outbox
) -> None:
    """What the owner before left unpublished is older news of the same leads."""
    await put(bench, "old 2", "old 1")
    await put(bench, "old 3")
    await put(bench, "new 1")  # each of them by an owner of its own
    epochs = await epoch_of(bench)
    assert await names(outbox, epochs) == ["old 2", "old 1", "old 3", "new 1"]
    assert await names(outbox, epochs, limit=3) == ["old 2", "old 1", "old 3"]


async def test_a_mark_under_way_holds_off_the_next_owner(
    bench: Bench, outbox: Outbox, database: str
) -> None:
    """Else the next owner could read as unpublished what is just being marked."""
    await put(bench, "a")
    epochs = await epoch_of(bench)
    (row,) = await read(outbox, epochs)
    async with (
        asyncpg.create_pool(database, min_size=1, max_size=1) as somebody,
        locked(somebody, "select 1 from outbox for update"),
    ):
        mark = asyncio.create_task(outbox.mark_published(epochs, [row.row_id]))
        await waiters(bench.pool, 1)
        owner = asyncio.create_task(epoch_of(bench))
        await waiters(bench.pool, 2)
        assert not owner.done()
    await mark
    assert await names(outbox, await owner) == []


async def test_other_groups_and_topics_have_outboxes_of_their_own(bench: Bench) -> None:
    await put(bench, "a")
    for group, topic in ((GROUP, "another"), ("another", TOPIC)):
        epoch = await raise_epoch(bench.pool, group, topic, 0, "worker")
        assert await names(Outbox(bench.pool, group, topic), {0: epoch}) == []


async def test_what_is_published_does_not_come_again(bench: Bench, outbox: Outbox) -> None:
    await put(bench, "a", "b", "c")
    epochs = await epoch_of(bench)
    rows = await read(outbox, epochs)
    await outbox.mark_published(epochs, [rows[0].row_id, rows[2].row_id])
    assert await names(outbox, epochs) == ["b"]
    assert await outbox.backlog() == 1
    found = await bench.pool.fetch("select published_at, failed_at from outbox order by id")
    assert [row["published_at"] is not None for row in found] == [True, False, True]
    assert all(row["failed_at"] is None for row in found)


async def test_a_refused_record_stays_for_people_and_lets_the_next_pass(
    bench: Bench, outbox: Outbox
) -> None:
    await put(bench, "a", "b")
    epochs = await epoch_of(bench)
    (first, _) = await read(outbox, epochs)
    await outbox.mark_failed(epochs, first.row_id, "x" * (MAX_ERROR + 1))
    assert await names(outbox, epochs) == ["b"]
    assert await outbox.backlog() == 1
    found = await bench.pool.fetchrow("select * from outbox where record_id = 'a'")
    assert found is not None
    assert found["failed_at"] is not None
    assert found["published_at"] is None
    assert found["error"] == "x" * MAX_ERROR


@pytest.mark.parametrize("failed", [False, True])
async def test_nothing_is_marked_under_an_old_epoch(
    bench: Bench, outbox: Outbox, failed: bool
) -> None:
    await put(bench, "a")
    await put(bench, "b", partition=1)
    epochs = {**await epoch_of(bench, 0), **await epoch_of(bench, 1)}
    rows = await read(outbox, epochs)
    current = epochs | await epoch_of(bench, 0)
    if failed:
        for row in rows:
            await outbox.mark_failed(epochs, row.row_id, "error")
    else:
        await outbox.mark_published(epochs, [row.row_id for row in rows])
    assert await names(outbox, current) == ["a"]


async def test_rows_of_a_partition_that_is_not_named_are_not_marked(
    bench: Bench, outbox: Outbox
) -> None:
    await put(bench, "a")
    epochs = await epoch_of(bench)
    (row,) = await read(outbox, epochs)
    await outbox.mark_published(await epoch_of(bench, 1), [row.row_id])
    await outbox.mark_published({}, [row.row_id])
    assert await names(outbox, epochs) == ["a"]


async def test_the_backlog_counts_all_partitions_of_the_group(bench: Bench, outbox: Outbox) -> None:
    assert await outbox.backlog() == 0
    await put(bench, "a", "b")
    await put(bench, "c", partition=1)
    assert await outbox.backlog() == 3
    assert await Outbox(bench.pool, "another", TOPIC).backlog() == 0
