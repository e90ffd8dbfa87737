"""Whether the database answers, and how often that is said."""

from __future__ import annotations

import asyncio
import logging

import asyncpg
import pytest

from streamapp.resilience.outage import SAY_EVERY, SETTLED
from streamapp.storage.health import DatabaseHealth
from tests.support.waiting import until


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> DatabaseHealth:
    return DatabaseHealth(clock)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_it_is_away_from_the_first_failure_to_the_first_success(health: DatabaseHealth) -> None:
    assert health.available
    health.report(OSError())
    health.report(OSError())
    assert not health.available
    health.report(None)
    assert health.available


def test_an_outage_is_said_once_a_minute(
    health: DatabaseHealth, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "streamapp.database")
    for _ in range(130):
        health.report(OSError("refused"))
        clock.now += 1.0
    lines = said(caplog)
    assert len(lines) == 130 // SAY_EVERY + 1
    assert "for 0 s now" in lines[0]
    assert "OSError: refused" in lines[0]
    assert "for 60 s now" in lines[1]


def test_the_return_is_said_with_the_length_of_the_outage(
    health: DatabaseHealth, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "streamapp.database")
    health.report(None)
    assert said(caplog) == []
    health.report(OSError())
    clock.now += 2.5
    health.report(None)
    health.report(None)
    assert said(caplog)[1:] == ["database is back after 2.5 s"]


def test_a_new_outage_is_said_at_once(
    health: DatabaseHealth, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "streamapp.database")
    for _ in range(2):
        health.report(OSError())
        clock.now += 1.0
        health.report(None)
        clock.now += SETTLED
    assert len([line for line in said(caplog) if "is away" in line]) == 2


def test_a_database_that_comes_and_goes_is_said_no_more_often(
    health: DatabaseHealth, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """As a slow one does: some statements are in time, others are not."""
    caplog.set_level(logging.INFO, "streamapp.database")
    for _ in range(10 * 130):
        health.report(TimeoutError("slow") if clock.now % 1 < 0.5 else None)
        clock.now += 0.1
    lines = said(caplog)
    assert len([line for line in lines if "is away" in line]) == 130 // SAY_EVERY + 1
    assert len([line for line in lines if "is back" in line]) == 130 // SAY_EVERY + 1


def test_a_server_that_takes_no_writes_is_left(health: DatabaseHealth) -> None:
    left: list[None] = []
    health.on_read_only = lambda: left.append(None)
    health.report(asyncpg.CannotConnectNowError("starting"))
    health.report(None)
    assert not left
    health.report(asyncpg.ReadOnlySQLTransactionError("read only"))
    assert left


async def test_insisting_waits_longer_each_time_up_to_a_bound(
    health: DatabaseHealth, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[Exception] = [
        OSError(),
        asyncpg.CannotConnectNowError("starting"),
        asyncpg.LockNotAvailableError("locked"),
        TimeoutError(),
        asyncpg.UndefinedTableError("no table"),
        EOFError(),
    ]
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        assert not health.available
        waits.append(seconds)

    async def call() -> str:
        if errors:
            raise errors.pop(0)
        return "answer"

    monkeypatch.setattr(asyncio, "sleep", sleep)
    assert await health.insist(call) == "answer"
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert health.available


@pytest.mark.parametrize(
    "error", [asyncpg.CheckViolationError("no"), KeyError("a defect"), ValueError("wrong")]
)
async def test_what_is_no_outage_is_raised(health: DatabaseHealth, error: Exception) -> None:
    async def call() -> None:
        raise error

    with pytest.raises(type(error)):
        await health.insist(call)
    assert health.available


async def test_insisting_can_be_cancelled(health: DatabaseHealth) -> None:
    async def call() -> None:
        raise OSError

    waits = asyncio.create_task(health.insist(call))
    await until(lambda: not health.available)
    waits.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits
