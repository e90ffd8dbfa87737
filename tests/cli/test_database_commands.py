"""migrate, doctor, dlq and sagas against a database; Kafka is away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import asyncpg
import pytest

from streamapp.cli import migrate as migrate_module
from streamapp.cli import running
from streamapp.worker.topics import TopicError, TopicReport
from tests.cli.support import Ran, ran, refused

NOWHERE = "postgresql://user:hunter2@127.0.0.1:1/none"
PHONE = "+91 98765 43210"

Run = Callable[..., Coroutine[Any, Any, Ran]]


@pytest.fixture
def run(database: str) -> Run:
    """Runs a command beside the test's event loop: commands have one of their own."""

    async def run(*arguments: str, dsn: str = database) -> Ran:
        env = {"DATABASE_URL": dsn, "STREAMAPP_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
        return await asyncio.to_thread(ran, *arguments, env=env)

    return run


async def execute(dsn: str, sql: str, *arguments: Any) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(sql, *arguments)
    finally:
        await connection.close()


async def test_migrate_brings_the_database_up_to_date(run: Run, database: str) -> None:
    await execute(database, "drop schema public cascade")
    await execute(database, "create schema public")
    first = await run("migrate", "--no-topics", "--json")
    assert (first.code, first.json) == (
        0,
        {
            "applied": [
                "0001_initial",
                "0002_redrive",
                "0003_deliveries",
                "0004_business_settings",
                "0005_purging",
            ],
            "topics": [],
        },
    )
    again = await run("migrate", "--no-topics")
    assert (again.code, again.out) == (0, "database: up to date\n")


async def test_migrate_fails_without_its_broker(run: Run) -> None:
    refused(await run("migrate"), 1, "127.0.0.1:1")


async def test_migrate_tells_of_topics(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Admin:
        async def __aenter__(self) -> None: ...
        async def __aexit__(self, *_: object) -> None: ...

    async def ensure(*_: object) -> list[TopicReport]:
        return [TopicReport("a", 8, True), TopicReport("b", 4, False, ("b is odd",))]

    monkeypatch.setattr(migrate_module, "topic_admin", lambda _: Admin())
    monkeypatch.setattr(migrate_module, "ensure_topics", ensure)
    found = await run("migrate")
    assert found.code == 0
    assert "topic a: created, 8 partitions" in found.out
    assert "topic b: exists, 4 partitions" in found.out
    assert "b is odd" in found.err
    assert (await run("migrate", "--json")).json["topics"] == [
        {"name": "a", "partitions": 8, "created": True, "problems": []},
        {"name": "b", "partitions": 4, "created": False, "problems": ["b is odd"]},
    ]

    async def refuse(*_: object) -> list[TopicReport]:
        raise TopicError("cannot create topic a: no")

    monkeypatch.setattr(migrate_module, "ensure_topics", refuse)
    refused(await run("migrate"), 1, "cannot create topic a: no")


@pytest.mark.parametrize(
    "arguments",
    [
        ["migrate", "--no-topics"],
        ["dlq", "list"],
        ["dlq", "show", "x"],
        ["dlq", "stats"],
        ["sagas", "list"],
        ["sagas", "show", "x"],
    ],
)
@pytest.mark.parametrize("dsn", [NOWHERE, "postgresql://u:hunter2/x@h:p:q/none"])
async def test_without_a_database_they_fail_and_keep_its_password(
    run: Run, arguments: list[str], dsn: str
) -> None:
    found = await run(*arguments, dsn=dsn)
    refused(found, 1, "the database cannot be reached")
    assert "hunter2" not in found.err


async def test_doctor_names_what_would_stop_a_worker(run: Run) -> None:
    found = await run("doctor", "--timeout", "5")
    assert found.code == 1
    assert "FAILED  broker" in found.out
    assert "-> start Kafka" in found.out
    assert "ok      migrations" in found.out
    report = (await run("doctor", "--timeout", "5", "--json")).json
    assert report["ok"] is False
    checks = {check["name"]: check for check in report["checks"]}
    assert checks["database"]["ok"] is True
    assert checks["broker"]["remedy"]


async def test_doctor_exits_0_with_warnings_alone(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from streamapp.cli import doctor as module
    from streamapp.worker.checks import Check

    async def healthy(*_: object) -> list[Check]:
        return [Check("retention", False, "too long", "change it", severity="warning")]

    monkeypatch.setattr(module, "run_checks", healthy)
    found = await run("doctor")
    assert found.code == 0
    assert "warning retention" in found.out
    assert (await run("doctor", "--json")).json["ok"] is True


async def add_letter(database: str, name: str = "d-1", status: str = "failed") -> None:
    payload = json.dumps({"original_message": f"call {PHONE} \x1b[31m"})
    await execute(
        database,
        "insert into dead_letter_queue (dead_letter_id, letter_ids, message_id, topic, partition, "
        '"offset", record_timestamp, reason, original_key, original_value, original_payload, '
        "headers, error_message, status, action) values "
        "($1, array[$1], 'm-1', 't', 0, 1, now(), 'handler_error', $2, $3, $4, $5, $6, $7, $1)",
        name,
        b"lead-1",
        b"\x00\xff",
        payload,
        '[["own", "YWJj"]]',
        f"no answer from {PHONE}",
        status,
    )


async def test_dlq_list(run: Run, database: str) -> None:
    await add_letter(database)
    await add_letter(database, "d-2", "resolved")
    text = (await run("dlq", "list")).out
    assert text.splitlines()[0].split()[0] == "dead_letter_id"
    assert "d-1" in text
    assert "d-2" in text
    rows = (await run("dlq", "list", "--status", "resolved", "--json")).json
    assert [row["dead_letter_id"] for row in rows] == ["d-2"]
    assert (await run("dlq", "list", "--reason", "unknown_tenant", "--json")).json == []
    assert len((await run("dlq", "list", "--limit", "1", "--json")).json) == 1


@pytest.mark.parametrize("name", ["d-1", "m-1"])
async def test_dlq_show_json_gives_the_record(run: Run, database: str, name: str) -> None:
    await add_letter(database)
    row = (await run("dlq", "show", name, "--json")).json
    assert row["key_base64"] == "bGVhZC0x"
    assert row["value_base64"] == "AP8="
    assert row["headers"] == [{"name": "own", "value": "abc"}]
    assert row["error_message"] == f"no answer from {PHONE}"


async def test_dlq_show_masks_and_leaves_the_terminal_alone(run: Run, database: str) -> None:
    await add_letter(database)
    found = await run("dlq", "show", "d-1")
    assert found.code == 0
    assert "no answer from ***10" in found.out
    assert "call ***10" in found.out
    assert "98765" not in found.out
    assert "\x1b" not in found.out


async def test_dlq_show_of_nothing_fails(run: Run) -> None:
    refused(await run("dlq", "show", "nobody"), 1, "nobody")


async def test_dlq_stats(run: Run, database: str) -> None:
    await add_letter(database)
    assert (await run("dlq", "stats", "--json")).json["unresolved_by_reason"] == {
        "handler_error": 1
    }
    assert "handler_error" in (await run("dlq", "stats")).out


async def test_sagas(run: Run, database: str) -> None:
    plan = {"actions": ["create_order"], "steps": [], "reply": f"We call {PHONE}."}
    await execute(
        database,
        "insert into sagas (processing_id, run, status, lead_id, plan) "
        "values ('m-1', 0, 'COMPLETED', 'lead-1', $1)",
        json.dumps(plan),
    )
    await execute(
        database,
        "insert into saga_steps (processing_id, run, ordinal, direction, action, status) "
        "values ('m-1', 0, 0, 'forward', 'create_order', 'DONE')",
    )
    rows = (await run("sagas", "list", "--lead", "lead-1", "--json")).json
    assert [row["processing_id"] for row in rows] == ["m-1"]
    assert (await run("sagas", "list", "--status", "STUCK", "--json")).json == []
    assert "m-1" in (await run("sagas", "list")).out
    saga = (await run("sagas", "show", "m-1", "--json")).json
    assert saga["response_message"] == f"We call {PHONE}."
    text = (await run("sagas", "show", "m-1")).out
    assert "create_order" in text
    assert "98765" not in text
    refused(await run("sagas", "show", "nobody"), 1, "nobody")


@pytest.mark.parametrize("text", ["\x1b[2J", "a\rb", "\x9b1m", "\u202e"])
def test_what_moves_a_cursor_is_not_shown(text: str) -> None:
    assert all(
        character not in running.shown(text)
        for character in text
        if not character.isalnum() and character not in "["
    )
