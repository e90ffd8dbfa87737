from __future__ import annotations

import asyncio
import time

from tests.support.loop import watched_callbacks


async def busy(seconds: float) -> None:
    began = time.thread_time()
    while time.thread_time() - began < seconds:
        pass


async def test_the_detector_names_the_culprit() -> None:
    with watched_callbacks(long=0.02) as found:
        await asyncio.create_task(busy(0.03), name="culprit")
        await asyncio.create_task(asyncio.sleep(0.03), name="innocent")
    assert [name for _, name in found.culprits] == ["culprit: busy"]
    assert found.quantile(1.0) >= 0.03
    assert found.quantile(0.5) < 0.02
    assert "culprit: busy" in found.told()


async def test_nothing_is_measured_afterwards() -> None:
    with watched_callbacks(long=0.02) as found:
        pass
    await asyncio.create_task(busy(0.03))
    assert found.culprits == []
