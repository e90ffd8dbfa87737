"""``explain --online``: what the database knows of a message, and nothing done to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.cli.support import Ran, ran
from tests.pipeline.records import result
from tests.worker.fakes import FakeEvent, FakeMessage
from tests.worker.whole import running_worker

NOWHERE = "postgresql://user:hunter2@127.0.0.1:1/none"
TABLES = ("sagas", "saga_steps", "tasks", "outbox", "leads", "business_settings", "audit_log")

Explain = Callable[..., Coroutine[Any, Any, Ran]]


@pytest.fixture
def explain(database: str) -> Explain:
    async def explain(*payloads: dict[str, Any], dsn: str = database, online: bool = True) -> Ran:
        lines = b"".join(json.dumps(payload).encode() + b"\n" for payload in payloads)
        options = ("--json", "--online") if online else ("--json",)
        arguments = ("explain", "-", *options)
        return await asyncio.to_thread(ran, *arguments, env={"DATABASE_URL": dsn}, stdin=lines)

    return explain


async def execute(dsn: str, sql: str, *arguments: Any) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(sql, *arguments)
    finally:
        await connection.close()


async def content(dsn: str) -> dict[str, list[Any]]:
    connection = await asyncpg.connect(dsn)
    try:
        return {
            table: sorted(map(repr, await connection.fetch(f"SELECT * FROM {table}")))
            for table in TABLES
        }
    finally:
        await connection.close()


def found(answer: Ran) -> list[dict[str, Any]]:
    assert (answer.code, answer.err) == (0, "")
    return [json.loads(line) for line in answer.out.splitlines()]


async def test_what_was_worked_off_is_a_duplicate(
    explain: Explain, database: str, tmp_path: Path
) -> None:
    done, new = result(processing_id="p-1"), result(processing_id="p-2")
    other = result(processing_id="p-1", original_message="something else")
    async with running_worker(database, tmp_path) as worker:
        key, value = done["lead_id"].encode(), json.dumps(done).encode()
        await worker.accept(FakeEvent(FakeMessage(0, key=key, value=value)))
        async with asyncio.timeout(30):
            while worker.lanes:  # noqa: ASYNC110 - nothing is set when the last one ends
                await asyncio.sleep(0.01)
    before = await content(database)
    first, second, third = found(await explain(done, new, other))
    assert (first["outcome"], first["duplicate"]) == ("plan", True)
    assert first["saga"]["status"] == "COMPLETED"
    assert "a duplicate of ai-results:0:0" in first["why"][0]
    assert (second["outcome"], second["duplicate"], second["saga"]) == ("plan", False, None)
    assert (third["outcome"], third["reason"]) == ("dead_letter", "payload_mismatch")
    (offline,) = found(await explain(done, online=False))
    assert (offline["outcome"], offline["duplicate"]) == ("plan", None)
    assert await content(database) == before


async def test_the_businesss_own_words_are_used(explain: Explain, database: str) -> None:
    message = result(processing_id="p-1")
    document = {"texts": {"reply_order_request": "Our own words."}}
    await execute(
        database,
        "INSERT INTO business_settings (business_id, settings, updated_by) VALUES ($1, $2, 'ann')",
        message["business_id"],
        json.dumps(document),
    )
    (online,) = found(await explain(message))
    (offline,) = found(await explain(message, online=False))
    assert online["intent"] == "ORDER_REQUEST"
    assert online["reply"].startswith("Our own words.")
    assert "Our own words." not in offline["reply"]


async def test_the_tenant_is_that_of_the_lead(explain: Explain, database: str) -> None:
    known = result(processing_id="p-1", tenant_id=None)
    stranger = result(processing_id="p-2", lead_id="stranger", tenant_id=None)
    await execute(
        database,
        "INSERT INTO leads (lead_id, business_id, tenant_id, status) VALUES ($1, $2, 't', 'new')",
        known["lead_id"],
        known["business_id"],
    )
    first, second = found(await explain(known, stranger))
    assert (first["outcome"], first["tenant_id"]) == ("plan", "t")
    assert (second["outcome"], second["reason"]) == ("dead_letter", "unknown_tenant")


async def test_without_a_database_it_fails_and_shows_no_password(explain: Explain) -> None:
    answer = await explain(result(processing_id="p-1"), dsn=NOWHERE)
    assert answer.code == 1
    assert "database" in answer.err
    assert "hunter2" not in answer.out + answer.err
