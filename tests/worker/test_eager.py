"""A record that finds room is handed over without a task; one that does not waits as before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from mode import Service

from streamapp.worker.eager import eager


class Consumer(Service):  # type: ignore[misc]
    """A service that counts how often Faust's own wait was needed."""

    def __init__(self) -> None:
        super().__init__()
        self.waited = 0
        original = super().wait_first

        async def counted(*waits: Any, timeout: Any = None) -> Any:
            self.waited += 1
            return await original(*waits, timeout=timeout)

        self.wait_first = eager(counted)


@pytest.fixture
async def consumer() -> AsyncIterator[Consumer]:
    consumer = Consumer()
    await consumer.start()
    yield consumer
    await consumer.stop()


async def put(queue: asyncio.Queue[int], number: int) -> str:
    await queue.put(number)
    return "in"


async def test_with_room_nothing_is_waited_for(consumer: Consumer) -> None:
    queue: asyncio.Queue[int] = asyncio.Queue()
    suspended = asyncio.Event()
    before = len(asyncio.all_tasks())
    result = await consumer.wait_first(put(queue, 1), suspended.wait())
    assert (queue.get_nowait(), result.results, result.stopped) == (1, ["in"], False)
    assert consumer.waited == 0
    assert len(asyncio.all_tasks()) == before


async def test_without_room_it_waits_for_it(consumer: Consumer) -> None:
    queue: asyncio.Queue[int] = asyncio.Queue(1)
    queue.put_nowait(1)
    suspended = asyncio.Event()
    waiting = asyncio.create_task(consumer.wait_first(put(queue, 2), suspended.wait()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    assert queue.get_nowait() == 1
    result = await asyncio.wait_for(waiting, 5)
    assert (result.results, consumer.waited) == (["in"], 1)
    assert queue.get_nowait() == 2


async def test_the_end_of_the_flow_ends_the_wait(consumer: Consumer) -> None:
    queue: asyncio.Queue[int] = asyncio.Queue(1)
    queue.put_nowait(1)
    suspended = asyncio.Event()
    waiting = asyncio.create_task(consumer.wait_first(put(queue, 2), suspended.wait()))
    await asyncio.sleep(0)
    suspended.set()
    await asyncio.wait_for(waiting, 5)
    queue.get_nowait()
    await asyncio.sleep(0)
    assert queue.empty(), "what waited was cancelled"


@pytest.mark.parametrize("late", [False, True])
async def test_what_the_hand_over_raises_is_raised(consumer: Consumer, late: bool) -> None:
    async def broken() -> None:
        if late:
            await asyncio.sleep(0)
        raise LookupError("no such partition")

    with pytest.raises(LookupError):
        await consumer.wait_first(broken(), asyncio.Event().wait())


async def test_a_cancellation_reaches_what_was_begun(consumer: Consumer) -> None:
    seen: list[str] = []

    async def begun() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    waiting = asyncio.create_task(consumer.wait_first(begun(), asyncio.Event().wait()))
    for _ in range(3):
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.sleep(0)
    assert seen == ["cancelled"]


async def test_what_has_several_waits_in_a_row_goes_through_all(consumer: Consumer) -> None:
    async def begun() -> int:
        total = 0
        for number in range(3):
            await asyncio.sleep(0)
            total += number
        return total

    result = await consumer.wait_first(begun(), asyncio.Event().wait())
    assert result.results == [3]
