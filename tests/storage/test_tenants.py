"""Whose lead it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from streamapp.storage.health import DatabaseHealth
from streamapp.storage.shared_lookups import BATCH
from streamapp.storage.tenants import Owner, TenantDirectory, tenant_of
from tests.support.bench import Bench

ONE: list[Owner] = [("b", "t")]
TWO: list[Owner] = [("b", "t"), ("c", "u")]


@pytest.mark.parametrize(
    ("owners", "tenant_id", "expected"),
    [
        # The lead is not in leads: the message's word counts.
        ([], "t", "t"),
        ([], None, None),
        # It is, for this business.
        (ONE, None, "t"),
        (ONE, "t", "t"),
        (ONE, "u", None),
        # For other businesses too: those do not matter.
        (TWO, None, "t"),
        (TWO, "t", "t"),
        (TWO, "u", None),
        ([("c", None), ("b", "t")], "u", None),
        # For another business only: nobody can tell the tenant, but a wrong one is seen.
        ([("c", "t")], None, None),
        ([("c", "t")], "t", "t"),
        ([("c", "t")], "u", None),
        ([("c", "t"), ("d", "u")], "u", "u"),
        ([("c", "t"), ("d", "u")], "v", None),
        # A lead without a tenant belongs to whoever says so.
        ([("b", None)], "t", "t"),
        ([("b", None)], None, None),
        ([("c", None)], "t", "t"),
        ([("c", None), ("d", "u")], "t", "t"),
    ],
)
def test_tenant(owners: list[Owner], tenant_id: str | None, expected: str | None) -> None:
    assert tenant_of(owners, "b", tenant_id) == expected


@pytest.fixture
async def directory(bench: Bench) -> AsyncIterator[TenantDirectory]:
    directory = TenantDirectory(bench.pool, DatabaseHealth())
    yield directory
    await directory.close()


async def test_each_look_up_gets_its_own_lead(bench: Bench, directory: TenantDirectory) -> None:
    await bench.pool.execute(
        "insert into leads (lead_id, business_id, tenant_id) "
        "select 'lead-' || n, 'b', 'tenant-' || n from generate_series(0, $1::int) n",
        BATCH,
    )
    count = BATCH + 20  # more than one query, and leads that are not there
    found = await asyncio.gather(
        *(directory.resolve(f"lead-{n}", "b", None) for n in range(count)),
        directory.resolve("lead-7", "b", "tenant-8"),
        directory.resolve("nobody", "b", "tenant-8"),
    )
    assert found[:count] == [f"tenant-{n}" if n <= BATCH else None for n in range(count)]
    assert found[count:] == [None, "tenant-8"]


class Pool:
    """Answers that every lead belongs to ``tenant``, after raising ``errors``."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.asked: list[list[str]] = []

    async def fetch(self, sql: str, leads: list[str]) -> list[dict[str, str]]:
        self.asked.append(sorted(leads))
        if self.errors:
            raise self.errors.pop(0)
        return [{"lead_id": lead, "business_id": "b", "tenant_id": "tenant"} for lead in leads]


def directory_of(pool: Pool, health: DatabaseHealth) -> TenantDirectory:
    return TenantDirectory(cast(Any, pool), health)


async def test_look_ups_that_come_together_share_a_query() -> None:
    pool = Pool()
    directory = directory_of(pool, DatabaseHealth())
    await asyncio.gather(*(directory.resolve(f"lead-{n % 3}", "b", None) for n in range(9)))
    assert pool.asked == [["lead-0", "lead-1", "lead-2"]]


async def test_a_look_up_waits_while_the_database_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamapp.storage.health.FIRST_BACKOFF", 0.0)
    health = DatabaseHealth()
    pool = Pool(ConnectionRefusedError(), TimeoutError())
    seen: list[bool] = []
    monkeypatch.setattr(health, "report", lambda error: seen.append(error is None))
    assert await directory_of(pool, health).resolve("lead", "b", None) == "tenant"
    assert len(pool.asked) == 3
    assert seen == [False, False, True]


async def test_a_defect_fails_its_look_ups_and_not_the_next() -> None:
    directory = directory_of(Pool(KeyError("a defect")), DatabaseHealth())
    with pytest.raises(KeyError):
        await directory.resolve("lead", "b", None)
    assert await directory.resolve("lead", "b", None) == "tenant"


async def test_a_cancelled_look_up_does_not_disturb_the_others(
    bench: Bench, directory: TenantDirectory
) -> None:
    look_ups = [asyncio.create_task(directory.resolve(f"lead-{n}", "b", "t")) for n in range(3)]
    await asyncio.sleep(0)
    look_ups[1].cancel()
    results = await asyncio.gather(*look_ups, return_exceptions=True)
    assert results[0] == results[2] == "t"
    assert isinstance(results[1], asyncio.CancelledError)
