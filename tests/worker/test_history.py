"""Which records are the newest."""

from __future__ import annotations

from collections.abc import AsyncIterator

from streamapp.pipeline.outcomes import Record
from streamapp.worker.history import Range, newest, spanning


async def records(*places: tuple[int, int, int]) -> AsyncIterator[Record]:
    for partition, offset, time in places:
        yield Record("ai-results", partition, offset, time, b"lead", b"{}")


async def test_the_newest_are_found_by_their_time_not_by_their_place() -> None:
    found = await newest(
        records((0, 1, 10), (0, 2, 90), (0, 3, 20), (0, 4, 80), (1, 7, 85), (1, 8, 5)), 3
    )
    assert found == {(0, 2), (0, 4), (1, 7)}
    assert spanning(found) == [Range(0, 2, 5), Range(1, 7, 8)]


async def test_fewer_than_asked_for_are_all_there_are() -> None:
    assert await newest(records((2, 4, 0)), 3) == {(2, 4)}
    assert spanning(await newest(records(), 3)) == []
