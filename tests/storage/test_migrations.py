"""The schema: applied once, also by several at the same time, and next to a CRM's own tables."""

from __future__ import annotations

import asyncio
import base64
import importlib
import json

import asyncpg
import pytest

from streamapp.pipeline.dead_letter import PREFIX
from streamapp.storage.migrations import MigrationError, pending, upgrade

initial = importlib.import_module("migrations.versions.0001_initial")
ALL = ["0001_initial", "0002_redrive", "0003_deliveries", "0004_business_settings", "0005_purging"]


@pytest.fixture
async def empty(database: str) -> str:
    """A database without any table."""
    connection = await asyncpg.connect(database)
    try:
        await connection.execute("drop schema public cascade")
        await connection.execute("create schema public")
    finally:
        await connection.close()
    return database


async def test_applies_what_is_pending_and_only_once(empty: str) -> None:
    assert await pending(empty) == ALL
    assert await upgrade(empty) == ALL
    assert await pending(empty) == []
    assert await upgrade(empty) == []


async def test_pending_changes_nothing(empty: str) -> None:
    await pending(empty)
    connection = await asyncpg.connect(empty)
    try:
        assert (
            await connection.fetchval("select count(*) from pg_tables where schemaname='public'")
            == 0
        )
    finally:
        await connection.close()


async def test_two_at_once_apply_it_once(empty: str) -> None:
    results = await asyncio.gather(*(upgrade(empty) for _ in range(4)))
    assert sorted(results) == [[], [], [], ALL]


async def test_tables_of_the_crm_are_left_alone(empty: str) -> None:
    connection = await asyncpg.connect(empty)
    try:
        await connection.execute("create table leads (lead_id text, business_id text, own int)")
        await connection.execute("insert into leads values ('l1', 'b1', 7)")
        await connection.execute("create table alembic_version (version_num text)")
        await connection.execute("insert into alembic_version values ('of-the-crm')")
        assert await upgrade(empty) == ALL
        assert await connection.fetchval("select own from leads") == 7
        assert await connection.fetchval("select version_num from alembic_version") == "of-the-crm"
    finally:
        await connection.close()


async def test_nothing_is_applied_when_a_statement_fails(empty: str) -> None:
    connection = await asyncpg.connect(empty)
    try:
        await connection.execute("create table audit_log (taken int)")  # the last table of 0001
        with pytest.raises(Exception, match="audit_log"):
            await upgrade(empty)
        assert await connection.fetchval("select to_regclass('sagas')") is None
    finally:
        await connection.close()
    assert await pending(empty) == ALL


async def test_a_database_newer_than_the_program_is_refused(database: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        await connection.execute("update streamapp_version set version_num = '9999_future'")
    finally:
        await connection.close()
    with pytest.raises(MigrationError, match="9999_future"):
        await pending(database)
    with pytest.raises(MigrationError, match="9999_future"):
        await upgrade(database)


@pytest.mark.parametrize(
    ("table", "columns", "values"),
    [
        ("sagas", "processing_id, run, status", "'p', 0, 'DONE'"),
        (
            "saga_steps",
            "processing_id, run, ordinal, direction, status",
            "'p', 0, 0, 'sideways', 'DONE'",
        ),
        (
            "saga_steps",
            "processing_id, run, ordinal, direction, status",
            "'p', 0, 0, 'forward', 'RUNNING'",
        ),
        ("processed_messages", "message_id, processing_status", "'m', 'done'"),
        ("tasks", "task_id, task_type, title, status", "'t', 'x', 'x', 'open'"),
        ("tasks", "task_id, task_type, title, priority", "'t', 'x', 'x', 'urgent'"),
    ],
)
async def test_unknown_states_are_refused(
    database: str, table: str, columns: str, values: str
) -> None:
    connection = await asyncpg.connect(database)
    try:
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute(f"insert into {table} ({columns}) values ({values})")
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("table", "columns", "values"),
    [
        ("tasks", "task_id, task_type, title", "'t', 'x', 'x'"),
        ("lead_activities", "activity_id", "'a'"),
        ("outbox", "record_id, topic", "'r', 't'"),
        ("processed_messages", "message_id, processing_status", "'m', 'success'"),
        ("sagas", "processing_id, run, status", "'p', 0, 'RUNNING'"),
    ],
)
async def test_a_deterministic_id_is_inserted_once(
    database: str, table: str, columns: str, values: str
) -> None:
    connection = await asyncpg.connect(database)
    try:
        for _ in range(2):
            await connection.execute(
                f"insert into {table} ({columns}) values ({values}) on conflict do nothing"
            )
        assert await connection.fetchval(f"select count(*) from {table}") == 1
    finally:
        await connection.close()


async def test_an_unreachable_database_is_told() -> None:
    with pytest.raises(ConnectionRefusedError):
        await upgrade("postgresql://127.0.0.1:1/none")


async def test_what_was_stored_before_redrives_stays_of_use(empty: str) -> None:
    """Letters tell whether a saga left them, and a resume that was asked for is a request."""
    connection = await asyncpg.connect(empty)
    try:
        for statement in initial.STATEMENTS:
            await connection.execute(statement)
        await connection.execute("create table streamapp_version (version_num text primary key)")
        await connection.execute("insert into streamapp_version values ('0001_initial')")
        await connection.execute(
            "insert into sagas (processing_id, run, status, resume_requested_at) "
            "values ('asked', 0, 'STUCK', now()), ('stuck', 0, 'STUCK', null)"
        )
        for number, (name, reason, run, action, exception) in enumerate(
            [
                ("invalid", "invalid_payload", 0, "", "InvalidPayload"),
                ("tenant", "unknown_tenant", 0, "", "LookupError"),
                ("taken", "payload_mismatch", 0, "", "ValueError"),
                ("defect", "handler_error", 0, "", "KeyError"),
                ("a saga's", "handler_error", 0, "", "saga"),
                ("rejected", "step_rejected", 0, "", "saga"),
                ("action", "action_failed", 0, "tell", "saga"),
                ("again", "invalid_payload", 1, "", "InvalidPayload"),
            ]
        ):
            exception_header = base64.b64encode(exception.encode()).decode()
            await connection.execute(
                "insert into dead_letter_queue (dead_letter_id, letter_ids, message_id, topic, "
                'partition, "offset", record_timestamp, reason, run, action, headers) '
                "values ($1, array[$1], $1, 't', 0, $2, now(), $3, $4, $5, $6)",
                name,
                number,
                reason,
                run,
                action,
                json.dumps([["own", "eA=="], [PREFIX + "exception", exception_header]]),
            )
        assert await upgrade(empty) == ALL[1:]
        rows = await connection.fetch("select dead_letter_id from dead_letter_queue where has_saga")
        assert {row[0] for row in rows} == {"a saga's", "rejected", "action", "again"}
        requests = await connection.fetch("select processing_id, kind, result from saga_requests")
        assert [tuple(row) for row in requests] == [("asked", "resume", None)]
    finally:
        await connection.close()
