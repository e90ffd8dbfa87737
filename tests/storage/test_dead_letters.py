"""What the dead-letter topic says, in the table: each letter once, no record too odd to keep."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from streamapp.pipeline.dead_letter import PREFIX, DeadLetter, dead_letter, dead_letter_headers
from streamapp.pipeline.outcomes import Reason, Record
from streamapp.saga.model import Source
from streamapp.storage.dead_letters import DeadLetterStore

SOURCE = Source("ai-results", 3, 42, 1_700_000_000_123)
VALUE = b'{"processing_id": "m-1", "lead_id": "lead-1"}'


class Store:
    """The store under test and its table."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._store = DeadLetterStore(pool)

    async def apply(
        self, letter: DeadLetter | None, value: bytes | None = VALUE, key: bytes | None = b"lead-1"
    ) -> bool:
        headers = () if letter is None else dead_letter_headers((("own", b"\xff"),), letter)
        record = Record("ai-results-dlq", 0, 7, 1_700_000_009_000, key, value, headers)
        return await self._store.store(record, letter)

    async def rows(self) -> list[Any]:
        rows: list[Any] = await self._pool.fetch(
            "select * from dead_letter_queue order by created_at"
        )
        return rows

    async def row(self) -> Any:
        (row,) = await self.rows()
        return row

    async def set_status(self, status: str) -> None:
        await self._pool.execute("update dead_letter_queue set status = $1", status)


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    pool = await asyncpg.create_pool(database, min_size=0, max_size=2)
    yield Store(pool)
    await pool.close()


def letter(**changes: Any) -> DeadLetter:
    given: dict[str, Any] = {
        "reason": Reason.RETRIES_EXHAUSTED,
        "group": "streamapp",
        "message": "the service is away",
        "processing_id": "m-1",
        "exception": "Retryable",
        "stacktrace": "Traceback",
        "attempts": 4,
        "first_attempt_at": datetime(2026, 5, 1, tzinfo=UTC),
        "last_attempt_at": datetime(2026, 5, 1, 0, 1, tzinfo=UTC),
        **changes,
    }
    return dead_letter(given.pop("source", SOURCE), **given)


async def test_a_letter_becomes_a_row(store: Store) -> None:
    first = letter()
    assert await store.apply(first)
    row = await store.row()
    assert row["dead_letter_id"] == first.id
    assert row["message_id"] == "m-1"
    assert row["lead_id"] == "lead-1"
    assert (row["topic"], row["partition"], row["offset"]) == ("ai-results", 3, 42)
    assert row["record_timestamp"] == datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC)
    assert (row["action"], row["run"], row["reason"]) == ("", 0, "retries_exhausted")
    assert (row["original_key"], row["original_value"]) == (b"lead-1", VALUE)
    assert json.loads(row["original_payload"]) == {"processing_id": "m-1", "lead_id": "lead-1"}
    assert (row["error_message"], row["error_stack"]) == ("the service is away", "Traceback")
    assert row["attempt_count"] == 4
    assert row["first_attempt_at"] == datetime(2026, 5, 1, tzinfo=UTC)
    assert row["last_attempt_at"] == datetime(2026, 5, 1, 0, 1, tzinfo=UTC)
    assert row["status"] == "failed"
    headers = json.loads(row["headers"])
    assert headers[0] == ["own", base64.b64encode(b"\xff").decode()]
    assert [PREFIX + "id", base64.b64encode(first.id.encode()).decode()] in headers


@pytest.mark.parametrize("status", ["failed", "retrying", "resolved"])
async def test_a_repetition_changes_nothing(store: Store, status: str) -> None:
    await store.apply(letter())
    await store.set_status(status)
    before = await store.row()
    assert not await store.apply(letter(message="said again", attempts=9))
    assert dict(await store.row()) == dict(before)


@pytest.mark.parametrize("status", ["retrying", "resolved"])
async def test_the_letter_of_a_later_run_is_news(store: Store, status: str) -> None:
    await store.apply(letter())
    await store.set_status(status)
    later = letter(
        run=1,
        source=Source("ai-results", 3, 99, 1_800_000_000_000),
        origin=SOURCE,
        reason=Reason.STEP_REJECTED,
        message="refused this time",
        attempts=1,
        first_attempt_at=datetime(2026, 6, 1, tzinfo=UTC),
        last_attempt_at=datetime(2026, 6, 1, tzinfo=UTC),
    )
    assert await store.apply(later, b'{"edited": true}')
    row = await store.row()
    assert row["dead_letter_id"] == letter().id
    assert row["letter_ids"] == [letter().id, later.id]
    assert (row["status"], row["run"], row["attempt_count"]) == ("failed", 1, 5)
    assert (row["reason"], row["error_message"]) == ("step_rejected", "refused this time")
    assert json.loads(row["original_payload"]) == {"edited": True}
    assert row["first_attempt_at"] == datetime(2026, 5, 1, tzinfo=UTC)
    assert row["last_attempt_at"] == datetime(2026, 6, 1, tzinfo=UTC)


async def test_no_letter_is_applied_twice_after_a_later_one(store: Store) -> None:
    await store.apply(letter())
    await store.apply(letter(run=1))
    await store.set_status("resolved")
    assert not await store.apply(letter())
    assert not await store.apply(letter(run=1))
    assert (await store.row())["status"] == "resolved"


async def test_a_letter_of_an_earlier_run_that_comes_late_changes_nothing(store: Store) -> None:
    await store.apply(letter(run=2))
    await store.set_status("resolved")
    assert not await store.apply(letter(run=1))
    assert (await store.row())["status"] == "resolved"


async def test_each_action_has_its_own_row(store: Store) -> None:
    assert await store.apply(letter())
    assert await store.apply(letter(action="notify_sales"))
    assert await store.apply(letter(action="create_order"))
    assert {row["action"] for row in await store.rows()} == {"", "notify_sales", "create_order"}


@pytest.mark.parametrize(
    "other",
    [
        Source("other", 3, 42, 1_700_000_000_123),
        Source("ai-results", 4, 42, 1_700_000_000_123),
        Source("ai-results", 3, 43, 1_700_000_000_123),
        Source("ai-results", 3, 42, 1_700_000_000_124),  # the topic was made anew
    ],
)
async def test_each_origin_has_its_own_row(store: Store, other: Source) -> None:
    assert await store.apply(letter())
    assert await store.apply(letter(source=other))
    assert len(await store.rows()) == 2


async def test_without_a_processing_id_the_position_is_the_message(store: Store) -> None:
    await store.apply(letter(processing_id=None))
    assert (await store.row())["message_id"] == "ai-results:3:42"


@pytest.mark.parametrize(
    "value",
    [
        b"not json",
        b"\xff\xfe",
        b'{"text": "\\u0000"}',
        b'{"text": "\\ud800"}',
        b'{"text": "a\0b"}',
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a": 1e999999}',
        b'{"a": NaN}',
        b"",
    ],
)
async def test_what_jsonb_refuses_is_kept_as_bytes(store: Store, value: bytes) -> None:
    assert await store.apply(letter(), value)
    row = await store.row()
    assert row["original_value"] == value
    assert json.loads(row["original_payload"]) == {"base64": base64.b64encode(value).decode()}


async def test_a_record_without_a_value_is_kept(store: Store) -> None:
    assert await store.apply(letter(), None)
    row = await store.row()
    assert (row["original_value"], row["original_payload"]) == (None, None)


@pytest.mark.parametrize(
    ("key", "value", "lead"),
    [
        (b"lead-1", b"{}", "lead-1"),
        (None, VALUE, "lead-1"),
        (None, b'{"payload": {"lead_id": "inner"}}', "inner"),
        (None, b'{"lead_id": 7}', None),
        (None, b"[]", None),
        (None, None, None),
        (b"\xff", VALUE, None),
        (b"k" * 5000, VALUE, None),  # no index holds it
        (b"a\0b", VALUE, None),
    ],
)
async def test_the_lead_is_the_key_or_what_the_payload_says(
    store: Store, key: bytes | None, value: bytes | None, lead: str | None
) -> None:
    assert await store.apply(letter(), value, key)
    row = await store.row()
    assert row["lead_id"] == lead
    assert row["original_key"] == key


async def test_texts_lose_what_the_database_cannot_hold(store: Store) -> None:
    await store.apply(letter(message="a\0b\ud800", stacktrace="\0c"))
    row = await store.row()
    assert (row["error_message"], row["error_stack"]) == ("ab?", "c")


async def test_a_header_name_with_a_nul_is_kept_without_it(store: Store) -> None:
    record = Record("dlq", 0, 7, 1, None, b"{}", (("a\0b", b"1"),))
    assert await store._store.store(record, letter())
    assert json.loads((await store.row())["headers"])[0][0] == "ab"


@pytest.mark.parametrize("timestamp", [-1, 0, 2**63 - 1])
async def test_any_timestamp_of_a_record_is_kept(store: Store, timestamp: int) -> None:
    assert await store.apply(letter(source=Source("t", 0, 0, timestamp)))
    assert not await store.apply(letter(source=Source("t", 0, 0, timestamp)))


async def test_somebody_elses_record_is_stored_under_its_own_position(store: Store) -> None:
    assert await store.apply(None, b"anything")
    assert not await store.apply(None, b"anything")
    row = await store.row()
    assert (row["topic"], row["partition"], row["offset"]) == ("ai-results-dlq", 0, 7)
    assert row["message_id"] == "ai-results-dlq:0:7"
    assert row["reason"] == "invalid_payload"


async def test_a_forged_id_neither_raises_nor_changes_the_row(store: Store) -> None:
    await store.apply(letter())
    forged = replace(letter(source=Source("other", 0, 0, 0)), id=letter().id)
    assert not await store.apply(forged)
    assert (await store.row())["topic"] == "ai-results"


async def test_the_largest_names_fit_the_indexes(store: Store) -> None:
    name = "\N{GRINNING FACE}" * 256
    source = Source("t" * 249, 2**31 - 1, 2**63 - 1, 0)
    assert await store.apply(letter(source=source, processing_id=name, action=name), VALUE, b"k")


# Redrives: what is newer is told by run and redrive


async def settle(store: Store) -> None:
    """As a saga's commit does it."""
    await store._pool.execute(
        "update dead_letter_queue set status = 'resolved', settled_at = now()"
    )


@pytest.mark.parametrize("status", ["failed", "retrying", "resolved"])
async def test_the_failure_of_the_redrive_of_the_newest_letter_is_news(
    store: Store, status: str
) -> None:
    """Also within a run: an action's, or what fails before its run. An older time is no matter."""
    first = letter(action="notify_sales")
    await store.apply(first)
    ids = [first.id]
    for times in (1, 2):
        await store.set_status(status)
        again = letter(
            action="notify_sales",
            redrive=ids[-1],
            attempts=1,
            last_attempt_at=datetime(2020, 1, times, tzinfo=UTC),
        )
        assert await store.apply(again)
        ids.append(again.id)
        row = await store.row()
        assert (row["status"], row["attempt_count"]) == ("failed", 4 + times)
        assert row["letter_ids"] == ids
    assert len(set(ids)) == 3


async def test_the_failure_of_an_older_redrive_is_none(store: Store) -> None:
    await store.apply(letter())
    second = letter(redrive=letter().id)
    await store.apply(second)
    await store.apply(letter(redrive=second.id))
    await store.set_status("retrying")
    before = await store.row()
    stale = letter(redrive=letter().id, action="", run=0, has_saga=False)
    assert not await store.apply(stale)
    # Another failure of that old redrive, under an id that was not seen before.
    assert not await store.apply(replace(stale, id="another"))
    assert dict(await store.row()) == dict(before)


async def test_a_run_that_began_is_newer_than_what_failed_before_it(store: Store) -> None:
    """Two copies of one redrive: one fails before its run, the other one in it. Whichever
    arrives first, the row ends with the failure of the run."""
    before_run = letter(redrive=letter().id, reason=Reason.UNKNOWN_TENANT)
    of_run = letter(redrive=letter().id, has_saga=True)
    assert before_run.id != of_run.id
    for order in ((before_run, of_run), (of_run, before_run)):
        await store._pool.execute("delete from dead_letter_queue")
        await store.apply(letter())
        for each in order:
            await store.apply(each)
        row = await store.row()
        assert (row["reason"], row["has_saga"]) == ("retries_exhausted", True)
        assert row["letter_ids"][-1] == of_run.id


@pytest.mark.parametrize("changes", [{"run": 3}, {"redrive": letter().id}, {}])
async def test_no_letter_brings_a_settled_row_back(store: Store, changes: dict[str, Any]) -> None:
    await store.apply(letter())
    await settle(store)
    before = await store.row()
    assert not await store.apply(letter(**changes))
    assert dict(await store.row()) == dict(before)


async def test_a_letter_fills_the_row_in_that_its_settlement_made(store: Store) -> None:
    await store.apply(letter())
    await settle(store)
    await store._pool.execute(
        "update dead_letter_queue set letter_ids = '{}', attempt_count = 0, error_message = null"
    )
    assert await store.apply(letter())
    row = await store.row()
    assert (row["status"], row["letter_ids"]) == ("resolved", [letter().id])
    assert (row["error_message"], row["attempt_count"]) == ("the service is away", 4)
    assert not await store.apply(letter(run=1))
    assert (await store.row())["status"] == "resolved"


async def test_an_edited_message_has_the_id_that_it_has_now(store: Store) -> None:
    """What is kept of it, and looked up for it, goes by the newest."""
    await store.apply(letter(processing_id=None))
    await store.apply(letter(redrive=letter().id, processing_id="m-2"))
    assert (await store.row())["message_id"] == "m-2"


async def test_that_there_was_a_saga_is_not_forgotten(store: Store) -> None:
    await store.apply(letter(has_saga=True))
    await store.apply(letter(redrive=letter().id, has_saga=True, run=1))
    await store._pool.execute("update dead_letter_queue set run = 0")
    row = await store.row()
    assert row["has_saga"] is True
    assert await store.apply(letter(run=2, has_saga=True, redrive="x"))
    assert (await store.row())["has_saga"] is True
