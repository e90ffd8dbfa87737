"""The views: right figures, in the guide's words, with people's data masked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from zlib import crc32

import asyncpg
import orjson
import pytest

from streamapp.storage.queries import MAX_ROWS, Queries, masked_document

PHONE = "+91 98765 43210"
PLAN = {
    "version": 1,
    "handler": "ORDER_REQUEST",
    "actions": ["create_order", "notify_sales", "priority_high", "send_price_list"],
    "steps": [
        {"ordinal": 0, "action": "create_order", "sub_step": "", "params": {"phone": PHONE}},
        {"ordinal": 1, "action": "notify_sales", "sub_step": "task", "params": {}},
        {"ordinal": 2, "action": "notify_sales", "sub_step": "email", "params": {}},
        {"ordinal": 3, "action": "priority_high", "sub_step": "", "params": {}},
        {"ordinal": 4, "action": "send_price_list", "sub_step": "", "params": {}},
    ],
    "escalate": False,
    "metadata": {"order": {"phone": PHONE}},
    "reply": f"We call you at {PHONE}.",
}


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Any]:
    pool = await asyncpg.create_pool(database, min_size=0, max_size=2)
    yield pool
    await pool.close()


@pytest.fixture
def queries(pool: Any) -> Queries:
    return Queries(pool)


async def add_letter(pool: Any, name: str, **columns: Any) -> None:
    row = {
        "dead_letter_id": name,
        "letter_ids": [name],
        "message_id": f"message-of-{name}",
        "topic": "ai-results",
        "partition": 0,
        "offset": crc32(name.encode()),
        "record_timestamp": columns.pop("record_timestamp", None),
        "reason": "handler_error",
        **columns,
    }
    row["record_timestamp"] = await pool.fetchval("select now()")
    names = ", ".join(f'"{column}"' for column in row)
    values = ", ".join(f"${number}" for number in range(1, len(row) + 1))
    await pool.execute(f"insert into dead_letter_queue ({names}) values ({values})", *row.values())


async def add_saga(pool: Any, name: str, **columns: Any) -> None:
    row = {"processing_id": name, "run": 0, "status": "COMPLETED", **columns}
    row["plan"] = json.dumps(row.get("plan", PLAN))
    names, values = ", ".join(row), ", ".join(f"${number}" for number in range(1, len(row) + 1))
    await pool.execute(f"insert into sagas ({names}) values ({values})", *row.values())


async def add_step(pool: Any, name: str, ordinal: int, status: str, **columns: Any) -> None:
    step: dict[str, Any] = PLAN["steps"][ordinal]  # type: ignore[index]
    row = {
        "processing_id": name,
        "run": 0,
        "ordinal": ordinal,
        "direction": "forward",
        "action": step["action"],
        "sub_step": step["sub_step"],
        "status": status,
        "attempts": 1,
        **columns,
    }
    names, values = ", ".join(row), ", ".join(f"${number}" for number in range(1, len(row) + 1))
    await pool.execute(f"insert into saga_steps ({names}) values ({values})", *row.values())


async def test_dead_letters_are_listed_newest_first_and_masked(pool: Any, queries: Queries) -> None:
    await add_letter(pool, "old", error_message=f"cannot reach {PHONE}")
    await add_letter(pool, "new", status="resolved", reason="unknown_tenant")
    rows = await queries.dead_letters()
    assert [row["dead_letter_id"] for row in rows] == ["new", "old"]
    assert rows[1]["error_message"] == "cannot reach ***10"
    assert "original_payload" not in rows[0]
    orjson.dumps(rows)


async def test_dead_letters_are_chosen_by_status_and_reason(pool: Any, queries: Queries) -> None:
    await add_letter(pool, "a")
    await add_letter(pool, "b", status="resolved")
    await add_letter(pool, "c", reason="unknown_tenant")
    by_status = await queries.dead_letters(status="resolved")
    by_reason = await queries.dead_letters(reason="unknown_tenant")
    assert [row["dead_letter_id"] for row in by_status] == ["b"]
    assert [row["dead_letter_id"] for row in by_reason] == ["c"]


async def test_lists_are_paged_and_bounded(pool: Any, queries: Queries) -> None:
    await pool.execute(
        "insert into dead_letter_queue (dead_letter_id, letter_ids, message_id, topic, partition, "
        '"offset", record_timestamp, reason) '
        "select n::text, array[n::text], 'm', 't', 0, n, now(), 'handler_error' "
        "from generate_series(1, $1::int) n",
        MAX_ROWS + 1,
    )
    assert len(await queries.dead_letters(limit=10**9)) == MAX_ROWS
    assert len(await queries.dead_letters(limit=2)) == 2
    assert len(await queries.dead_letters(limit=0)) == 1
    assert len(await queries.dead_letters(limit=10, offset=MAX_ROWS)) == 1


async def test_a_dead_letter_is_found_by_each_of_its_names(pool: Any, queries: Queries) -> None:
    await add_letter(pool, "first", letter_ids=["first", "second"])
    for name in ("first", "second", "message-of-first"):
        row = await queries.dead_letter(name)
        assert row is not None, name
        assert row["dead_letter_id"] == "first"
    assert await queries.dead_letter("third") is None


async def test_the_letter_of_the_whole_record_comes_before_those_of_its_actions(
    pool: Any, queries: Queries
) -> None:
    await add_letter(pool, "whole", message_id="m", action="")
    await add_letter(pool, "part", message_id="m", action="notify_sales")
    row = await queries.dead_letter("m")
    assert row is not None
    assert row["dead_letter_id"] == "whole"


async def test_a_dead_letter_is_masked_unless_revealed(pool: Any, queries: Queries) -> None:
    payload = {"lead_id": "9876543210", "original_message": f"call {PHONE}"}
    await add_letter(
        pool,
        "a",
        original_key=b"\xff\x00",
        original_value=json.dumps(payload).encode(),
        original_payload=json.dumps(payload),
        headers='[["own", "/w=="], ["text", "YWJj"]]',
        error_message=f"failed for {PHONE}",
        error_stack=f"trace with {PHONE}",
    )
    masked = await queries.dead_letter("a")
    assert masked is not None
    assert PHONE not in json.dumps(masked)
    assert masked["original_payload"] == {
        "lead_id": "9876543210",
        "original_message": "call ***10",
    }
    assert not {"value_base64", "original_value", "headers"} & masked.keys()

    whole = await queries.dead_letter("a", reveal=True)
    assert whole is not None
    assert whole["key_base64"] == "/wA="
    assert whole["original_payload"] == payload
    assert whole["error_message"] == f"failed for {PHONE}"
    assert whole["headers"] == [
        {"name": "own", "value_base64": "/w=="},
        {"name": "text", "value": "abc"},
    ]
    orjson.dumps(whole)


@pytest.mark.parametrize(
    "payload",
    ["[" * 300 + f'"{PHONE}"' + "]" * 300, '{"a": 1' + "0" * 400 + "}", f'"{"x" * 70_000}"'],
)
async def test_odd_payloads_can_be_shown(pool: Any, queries: Queries, payload: str) -> None:
    await add_letter(pool, "a", original_payload=payload, original_value=payload.encode())
    for reveal in (False, True):
        row = await queries.dead_letter("a", reveal=reveal)
        assert row is not None
        assert isinstance(row["original_payload"], str | dict)
        shown = orjson.dumps(row["original_payload"])
        assert len(shown) < 70_000
        assert reveal or PHONE.encode() not in shown


async def test_bytes_that_are_no_json_stay_hidden_in_the_masked_view(
    pool: Any, queries: Queries
) -> None:
    await add_letter(pool, "a", original_payload='{"base64": "OTg3NjU0MzIxMA=="}')
    masked = await queries.dead_letter("a")
    assert masked is not None
    assert masked["original_payload"] == "(not JSON)"


async def test_dead_letter_stats(pool: Any, queries: Queries) -> None:
    assert await queries.dead_letter_stats() == {
        "by_status": {},
        "unresolved_by_reason": {},
        "oldest_unresolved": None,
    }
    await add_letter(pool, "resolved", status="resolved")
    await add_letter(pool, "a")
    await add_letter(pool, "b", status="retrying")
    await add_letter(pool, "c", reason="unknown_tenant")
    stats = await queries.dead_letter_stats()
    oldest = await pool.fetchval(
        "select created_at from dead_letter_queue where dead_letter_id = 'a'"
    )
    assert stats == {
        "by_status": {"resolved": 1, "failed": 2, "retrying": 1},
        "unresolved_by_reason": {"handler_error": 2, "unknown_tenant": 1},
        "oldest_unresolved": oldest.isoformat(),
    }


async def test_a_saga_tells_what_was_done(pool: Any, queries: Queries) -> None:
    await add_saga(pool, "m-1", run=1, handler="ORDER_REQUEST")
    for ordinal, status in enumerate(["DONE", "DONE", "FAILED", "DONE"]):
        await add_step(pool, "m-1", ordinal, status, run=1)
    await add_step(pool, "m-1", 0, "FAILED", run=0)  # an earlier run decides nothing
    await add_step(pool, "m-1", 3, "FAILED", run=1, direction="compensate")
    saga = await queries.saga("m-1")
    assert saga is not None
    assert (saga["status"], saga["run"], saga["handler"]) == ("COMPLETED", 1, "ORDER_REQUEST")
    assert saga["executed_actions"] == ["create_order", "priority_high"]
    assert saga["failed_actions"] == ["notify_sales"]
    assert saga["plan"]["actions"] == PLAN["actions"]
    assert [(step["run"], step["direction"], step["ordinal"]) for step in saga["steps"]] == [
        (0, "forward", 0),
        (1, "forward", 0),
        (1, "forward", 1),
        (1, "forward", 2),
        (1, "forward", 3),
        (1, "compensate", 3),
    ]
    orjson.dumps(saga)


async def test_an_action_counts_as_executed_when_all_its_steps_are_done(
    pool: Any, queries: Queries
) -> None:
    await add_saga(pool, "m-1", status="RUNNING")
    await add_step(pool, "m-1", 1, "DONE")
    await add_step(pool, "m-1", 2, "STARTED")
    saga = await queries.saga("m-1")
    assert saga is not None
    assert (saga["executed_actions"], saga["failed_actions"]) == ([], [])


async def test_a_saga_is_masked_unless_revealed(pool: Any, queries: Queries) -> None:
    await add_saga(pool, "m-1", error=f"no answer from {PHONE}")
    await add_step(
        pool, "m-1", 0, "DONE", output=json.dumps({"said": PHONE}), error=PHONE, request=b"secret"
    )
    masked = await queries.saga("m-1")
    assert masked is not None
    assert PHONE not in json.dumps(masked)
    assert masked["response_message"] == "We call you at ***10."
    assert masked["should_respond"] is True
    whole = await queries.saga("m-1", reveal=True)
    assert whole is not None
    assert whole["response_message"] == PLAN["reply"]
    assert whole["steps"][0]["output"] == {"said": PHONE}


async def test_without_a_reply_there_is_no_response(pool: Any, queries: Queries) -> None:
    await add_saga(pool, "m-1", plan={**PLAN, "reply": None})
    saga = await queries.saga("m-1")
    assert saga is not None
    assert (saga["should_respond"], saga["response_message"]) == (False, None)


async def test_an_unknown_saga_is_none(queries: Queries) -> None:
    assert await queries.saga("nobody") is None


async def test_sagas_are_chosen_by_status_and_lead(pool: Any, queries: Queries) -> None:
    await add_saga(pool, "a", lead_id="l1", error=PHONE)
    await add_saga(pool, "b", lead_id="l2", status="STUCK")
    assert [row["processing_id"] for row in await queries.sagas()] == ["b", "a"]
    assert [row["processing_id"] for row in await queries.sagas(status="STUCK")] == ["b"]
    (row,) = await queries.sagas(lead_id="l1")
    assert (row["processing_id"], row["error"]) == ("a", "***10")


async def test_stats_count_everything(pool: Any, queries: Queries) -> None:
    await add_saga(pool, "a")
    await add_saga(pool, "b", status="STUCK")
    await add_letter(pool, "d")
    await pool.execute(
        "insert into processed_messages (message_id, processing_status) values ('m', 'success')"
    )
    await pool.execute("insert into tasks (task_id, task_type, title) values ('t', 'x', 'x')")
    await pool.execute(
        "insert into outbox (record_id, topic, published_at, failed_at) values "
        "('1', 't', null, null), ('2', 't', now(), null), ('3', 't', null, now())"
    )
    stats = await queries.stats()
    assert stats["sagas"] == {"COMPLETED": 1, "STUCK": 1}
    assert stats["processed_messages"] == {"success": 1}
    assert stats["tasks"] == {"pending": 1}
    assert (stats["outbox"]["backlog"], stats["outbox"]["failed"]) == (1, 1)
    assert stats["dead_letters"]["by_status"] == {"failed": 1}
    orjson.dumps(stats)


def test_masking_reaches_every_text_but_leaves_ids_and_values() -> None:
    document = {
        "lead_id": "9876543210",
        "list": [PHONE, 1, None, {"deep": "a@b.example"}],
        "lead": {"lead_id": {"not": PHONE}},
    }
    assert masked_document(document) == {
        "lead_id": "9876543210",
        "list": ["***10", 1, None, {"deep": "***@***"}],
        "lead": {"lead_id": {"not": "***10"}},
    }
