"""dlq retry, sagas resume, resolve and list --stuck at a shell."""

from __future__ import annotations

import asyncio
import getpass
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from streamapp.demo.kafka import EmbeddedKafka
from streamapp.pipeline.dead_letter import dead_letter, dead_letter_headers
from streamapp.pipeline.outcomes import Reason, Record
from streamapp.saga.model import Source
from streamapp.settings import load
from streamapp.storage.dead_letters import DeadLetterStore
from tests.cli.support import Ran, ran, refused
from tests.kafka.job import read_all

TOPIC = "ai-results"
GROUP = "streamapp"

Run = Callable[..., Coroutine[Any, Any, Ran]]


@pytest.fixture
def run(database: str, kafka: EmbeddedKafka) -> Run:
    async def run(*arguments: str, brokers: str = kafka.bootstrap, stdin: bytes = b"") -> Ran:
        env = {"DATABASE_URL": database, "STREAMAPP_KAFKA_BOOTSTRAP_SERVERS": brokers}
        return await asyncio.to_thread(ran, *arguments, env=env, stdin=stdin)

    return run


async def fetch(dsn: str, sql: str, *arguments: Any) -> list[Any]:
    connection = await asyncpg.connect(dsn)
    try:
        rows: list[Any] = await connection.fetch(sql, *arguments)
        return rows
    finally:
        await connection.close()


async def add_letter(dsn: str, topic: str = TOPIC, offset: int = 42) -> str:
    """An invalid payload in the table; gives its id."""
    letter = dead_letter(
        Source(topic, 1, offset, 1_700_000_000_000),
        reason=Reason.INVALID_PAYLOAD,
        group=GROUP,
        message="no JSON",
    )
    record = Record("dlq", 0, 0, 1, b"lead", b"no JSON", dead_letter_headers((), letter))
    pool = await asyncpg.create_pool(dsn, min_size=0, max_size=1)
    try:
        await DeadLetterStore(pool).store(record, letter)
    finally:
        await pool.close()
    return letter.id


async def add_saga(dsn: str, name: str, status: str, due: str | None = None) -> None:
    await fetch(
        dsn,
        "insert into sagas (processing_id, run, status, consumer_group, topic, partition, lead_id,"
        " reason, error, resume_at) values ($1, 0, $2, $3, $4, 0, $1, 'compensation_stuck',"
        " 'call 0049 170 1234567', now() + $5::text::interval)",
        name,
        status,
        GROUP,
        TOPIC,
        due,
    )


async def test_dlq_retry(run: Run, database: str, kafka: EmbeddedKafka, tmp_path: Path) -> None:
    kafka.create_topic(TOPIC, 2)
    name = await add_letter(database)
    found = await run("dlq", "retry", f"{TOPIC}:1:42", "--by", "ann")
    assert found.code == 0, found
    assert f"{name}: sent again to {TOPIC}:1 at offset 0" in found.out
    edited = tmp_path / "edited.json"
    edited.write_bytes(b'{"edited": true}')
    again = await run("dlq", "retry", name, "--value", str(edited), "--json")
    assert again.json == {
        "dead_letter_id": name,
        "message_id": f"{TOPIC}:1:42",
        "action": "",
        "run": -1,
        "redrive": name,
        "status": "retrying",
        "topic": TOPIC,
        "partition": 1,
        "offset": 1,
    }
    settings = load({"STREAMAPP_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap})
    records = await read_all(settings.model_copy(update={"topic_partitions": 2}), TOPIC)
    assert [record.value for record in records] == [b"no JSON", b'{"edited": true}']
    audited = await fetch(database, "select actor, action from audit_log order by audit_id")
    assert [tuple(row) for row in audited] == [
        ("ann", "dlq.retry"),
        (getpass.getuser(), "dlq.retry"),
    ]
    refused(await run("dlq", "retry", "nobody"), 1, "there is no dead letter 'nobody'")
    # One from another topic has no way back; the broker refuses what is too large.
    other = await add_letter(database, "elsewhere")
    refused(await run("dlq", "retry", other), 1, f"does not come from topic {TOPIC}")
    edited.write_bytes(b"x" * 3_000_000)
    refused(await run("dlq", "retry", name, "--value", str(edited)), 1, "refuses the record")
    (row,) = await fetch(
        database, "select status from dead_letter_queue where dead_letter_id = $1", name
    )
    assert row["status"] == "failed"
    await fetch(database, "update dead_letter_queue set status = 'resolved'")
    refused(await run("dlq", "retry", name), 1, "resolved already")


async def test_without_a_broker_nothing_is_marked(run: Run, database: str) -> None:
    name = await add_letter(database)
    found = await run("dlq", "retry", name, brokers="127.0.0.1:1")
    refused(found, 1, "the broker 127.0.0.1:1 cannot be reached, nothing was changed")
    (row,) = await fetch(database, "select status from dead_letter_queue")
    assert row["status"] == "failed"
    assert await fetch(database, "select * from audit_log") == []


async def test_resume_and_resolve_leave_requests(run: Run, database: str) -> None:
    await add_saga(database, "stuck", "STUCK")
    await add_saga(database, "done", "COMPLETED")
    asked = (await run("sagas", "resume", "stuck", "--json")).json
    assert (asked["requested"], asked["kind"], asked["repeated"]) == (True, "resume", False)
    again = await run("sagas", "resume", "stuck")
    assert again.code == 0
    assert "as was asked for already" in again.out
    found = await run("sagas", "resolve", "stuck", "--reason", "by phone", "--by", "ann")
    assert "will be resolved" in found.out
    for command in (["resume"], ["resolve", "--reason", "x"]):
        refused(await run("sagas", command[0], "done", *command[1:]), 1, "COMPLETED, not STUCK")
        refused(await run("sagas", command[0], "nobody", *command[1:]), 1, "no saga 'nobody'")
    refused(await run("sagas", "resolve", "stuck"), 2, "--reason")
    refused(await run("sagas", "resolve", "stuck", "--reason", " "), 1, "needs a reason")
    refused(await run("sagas", "resume", "stuck", "--by", "a\nb"), 2, "printable")
    rows = await fetch(database, "select * from saga_requests order by request_id")
    assert [(row["kind"], row["actor"], row["reason"]) for row in rows] == [
        ("resume", getpass.getuser(), None),
        ("resolve", "ann", "by phone"),
    ]
    shown = (await run("sagas", "show", "stuck", "--json")).json
    assert [request["kind"] for request in shown["requests"]] == ["resume", "resolve"]
    statuses = await fetch(database, "select status from sagas where processing_id = 'stuck'")
    assert statuses[0]["status"] == "STUCK", "nobody but the owner writes sagas"


async def test_stuck_sagas_are_listed_with_their_next_try(run: Run, database: str) -> None:
    await add_saga(database, "later", "STUCK", "2 h")
    await add_saga(database, "sooner", "STUCK", "1 h")
    await add_saga(database, "given up", "STUCK")
    await add_saga(database, "done", "COMPLETED")
    rows = (await run("sagas", "list", "--stuck", "--json")).json
    assert [(row["processing_id"], row["level"]) for row in rows] == [
        ("given up", "given_up"),
        ("sooner", "parked"),
        ("later", "parked"),
    ]
    assert [row["resume_at"] is None for row in rows] == [True, False, False]
    assert "1234567" not in json.dumps(rows)
    text = (await run("sagas", "list", "--stuck")).out
    assert text.splitlines()[0].split()[:3] == ["processing_id", "level", "resume_at"]
    one = (await run("sagas", "list", "--stuck", "--lead", "later", "--json")).json
    assert [row["processing_id"] for row in one] == ["later"]
    assert len((await run("sagas", "list", "--stuck", "--limit", "1", "--json")).json) == 1
    refused(await run("sagas", "list", "--stuck", "--status", "STUCK"), 2, "exclude")
