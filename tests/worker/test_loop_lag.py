"""Nothing blocks the event loop: under load, by the CPU time of its longest callbacks."""

from __future__ import annotations

import asyncio
import gc
import time
from pathlib import Path

from streamapp.worker import loop_lag
from streamapp.worker.garbage import settle
from tests.support.loop import watched_callbacks
from tests.worker.whole import result, running_worker

LONG = 0.010  # CPU seconds; what is longer holds up heartbeats and every lead
LONG_LOOP = 168_000  # turns of a loop that took as long on the machine that this was written on
MESSAGES = 4000
LEADS = 800
DONE_WITHIN = 120.0  # seconds; reached only by a worker that is stuck


def long_here() -> float:
    """``LONG`` as this machine is now: one that is slow, or shared, takes longer for everything."""
    began, total = time.thread_time(), 0
    for number in range(LONG_LOOP):
        total += number * number
    return time.thread_time() - began


async def test_no_callback_holds_the_loop_up_under_load(database: str, tmp_path: Path) -> None:
    events = [result(n, f"lead-{n * 7919 % LEADS}") for n in range(MESSAGES)]
    thresholds = gc.get_threshold()
    settle()  # as a worker does when it starts; here the suite's objects are in it, too
    try:
        async with running_worker(database, tmp_path) as worker:

            async def all_done() -> bool:
                done = await worker.pool.fetchval("SELECT count(*) FROM processed_messages")
                return bool(done == MESSAGES)

            limits = [LONG, long_here()]
            with watched_callbacks(LONG) as found:
                for event in events:
                    await worker.accept(event)
                async with asyncio.timeout(DONE_WITHIN):
                    while not await all_done():  # noqa: ASYNC110 - a database sets no event
                        await asyncio.sleep(0.05)
            limits.append(long_here())
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
    assert len(found.seconds) > MESSAGES
    assert found.quantile(0.999) <= max(limits), found.told()


async def test_the_lag_is_told_again_and_again() -> None:
    lags: list[float] = []
    watching = asyncio.create_task(loop_lag.watch(lags.append))
    async with asyncio.timeout(20):
        while len(lags) < 2:  # noqa: ASYNC110 - what is told sets no event
            await asyncio.sleep(0.01)
    watching.cancel()
    assert all(lag >= 0 for lag in lags)
