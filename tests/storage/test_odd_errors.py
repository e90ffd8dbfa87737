"""Errors that look like a write's fault and are none."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from streamapp.saga.model import WriteRefused
from streamapp.storage import effects
from streamapp.storage.connection import Connection, connect
from streamapp.storage.sagas import load_sagas
from tests.storage.writes import ONE, claim, counts, state_of
from tests.support.bench import Bench, running_journal


@pytest.mark.parametrize("size", [1, 5])
async def test_an_odd_error_that_does_not_come_again_is_nobodys_fault(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """As a client library raises when a connection breaks where it did not expect it."""
    errors: list[Exception] = [AttributeError("'NoneType' object has no attribute 'write'")]
    collect = effects.collect

    def broken(writes: Any) -> Any:
        if errors:
            raise errors.pop()
        return collect(writes)

    monkeypatch.setattr(effects, "collect", broken)
    writes = [bench.journal.write(claim(bench.epoch, state_of(f"p-{n}"))) for n in range(size)]
    await asyncio.gather(*writes)
    assert not errors
    assert set((await counts(bench.pool)).values()) == {size}


async def test_an_error_that_comes_again_is_the_writes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect = effects.collect

    def broken(writes: Any) -> Any:
        if any(write.state.message.processing_id == "bad" for write in writes):
            raise AttributeError("a defect")
        return collect(writes)

    monkeypatch.setattr(effects, "collect", broken)
    results = await asyncio.gather(
        *(bench.journal.write(claim(bench.epoch, state_of(name))) for name in ("good", "bad")),
        return_exceptions=True,
    )
    assert isinstance(results[1], WriteRefused)
    assert await counts(bench.pool) == ONE


async def test_no_error_of_connecting_is_a_writes_fault(
    bench: Bench, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that does not take a setting of the session says so in class 22."""
    errors = [asyncpg.InvalidParameterValueError("invalid value for parameter"), ValueError("odd")]

    async def refusing(*arguments: Any) -> Connection:
        if errors:
            raise errors.pop()
        return await connect(*arguments)

    monkeypatch.setattr("streamapp.storage.group_commit.connect", refusing)
    reports: list[BaseException | None] = []
    async with running_journal(database, reports.append) as other:
        await other.write(claim(bench.epoch))
    assert [type(report) for report in reports[:2]] == [
        ValueError,
        asyncpg.InvalidParameterValueError,
    ]
    assert await counts(bench.pool) == ONE


async def test_a_saga_that_is_purged_while_it_is_claimed_again_is_claimed_anew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each statement sees the database as it is by then."""
    await bench.journal.write(claim(bench.epoch, state_of(offset=1)))
    purges = ["delete from sagas"]

    async def purging(*arguments: Any) -> Any:
        if purges:
            for table in ("saga_steps", "tasks", "outbox", "processed_messages"):
                await bench.pool.execute(f"delete from {table}")
            await bench.pool.execute(purges.pop())
        return await load_sagas(*arguments)

    monkeypatch.setattr("streamapp.storage.journal.load_sagas", purging)
    written = await bench.journal.write(claim(bench.epoch, state_of(offset=2)))
    assert written.existing is None
    assert (await bench.saga())["offset"] == 2
    assert await counts(bench.pool) == ONE
