"""A worker that is watched from outside."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from benchmarks.process import Worker, WorkerEnded
from streamapp.demo.guardian import Guardian
from tests.support.waiting import until

SLEEP = "import time; print('up', flush=True); time.sleep(60)"


@pytest.fixture
def guardian() -> Iterator[Guardian]:
    with Guardian() as guardian:
        yield guardian


async def test_a_worker_that_ends_is_noticed_with_its_last_words(guardian: Guardian) -> None:
    code = "print('out of luck'); raise SystemExit(3)"
    worker = Worker(guardian, [sys.executable, "-c", code], {})

    def never() -> bool:
        worker.check()
        return False

    with pytest.raises(WorkerEnded, match="exit code 3\nout of luck"):
        await until(never)
    with pytest.raises(WorkerEnded):
        worker.cpu_seconds()


async def test_a_worker_gets_its_own_settings_only(
    guardian: Guardian, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMAPP_MAX_IN_FLIGHT", "1")
    monkeypatch.setenv("DATABASE_URL", "postgresql://elsewhere")
    names = "[n for n in os.environ if n.startswith('STREAMAPP') or n == 'DATABASE_URL']"
    code = f"import os, time; print({names}, flush=True); time.sleep(60)"
    worker = Worker(guardian, [sys.executable, "-c", code], {"STREAMAPP_WEB_PORT": "1"})
    await until(lambda: worker.log() != "")
    assert worker.log() == "['STREAMAPP_WEB_PORT']"


async def test_what_a_worker_uses_is_its_own(guardian: Guardian) -> None:
    busy = "import time\nwhile time.process_time() < 0.3: pass\n" + SLEEP
    worker = Worker(guardian, [sys.executable, "-c", busy], {})
    await until(lambda: "up" in worker.log())
    assert 0.2 <= worker.cpu_seconds() < 5.0  # told in ticks of 10 ms
    assert worker.memory() > 1_000_000


async def test_a_worker_that_is_stopped_has_ended(guardian: Guardian) -> None:
    worker = Worker(guardian, [sys.executable, "-c", SLEEP], {})
    await until(lambda: "up" in worker.log())
    worker.stop()
    with pytest.raises(WorkerEnded, match="exit code -15"):
        worker.check()
