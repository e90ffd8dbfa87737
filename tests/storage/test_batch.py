"""The rows of a write beside its effects, and how their values are encoded."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from streamapp.saga.model import SagaState
from streamapp.storage.batch import headers_from_json, headers_to_json, to_json
from tests.storage.writes import claim, letter, state_of, update
from tests.support.bench import Bench


@pytest.fixture
async def state(bench: Bench) -> SagaState:
    """A saga that waits, in ``bench``."""
    state = state_of(lead_id="lead-1")
    await bench.journal.write(claim(bench.epoch, state))
    return state


async def test_outbox_rows_lie_in_the_order_of_their_writes(bench: Bench) -> None:
    writes = []
    for number in (2, 0, 1):  # not the order of the ids
        write = claim(bench.epoch, state_of(f"p-{number}"))
        write.outbox = [letter(f"{number}-{place}") for place in ("z", "a", "m")]
        writes.append(write)
    await asyncio.gather(*(bench.journal.write(write) for write in writes))
    rows = await bench.pool.fetch("select record_id, lead_id from outbox order by id")
    assert [row["record_id"] for row in rows] == [
        f"{number}-{place}" for number in (2, 0, 1) for place in ("z", "a", "m")
    ]
    assert rows[0]["lead_id"] == "lead of p-2"


async def test_a_record_is_in_the_outbox_once(bench: Bench, state: SagaState) -> None:
    for value in (b"first", b"second"):
        write = update(bench.epoch, state)
        write.outbox = [replace(letter("same"), value=value)]
        await bench.journal.write(write)
    rows = await bench.pool.fetch("select value from outbox where record_id = 'same'")
    assert [row["value"] for row in rows] == [b"first"]


async def test_a_processed_message_expires_with_the_window(bench: Bench, state: SagaState) -> None:
    found = await bench.pool.fetchrow("select * from processed_messages")
    assert found is not None
    assert (found["message_id"], found["lead_id"]) == ("p-1", "lead-1")
    assert found["processing_status"] == "retrying"
    assert found["expires_at"] - found["processed_at"] == timedelta(days=1)
    write = update(bench.epoch, state)
    write.processing_status = "success"
    await bench.journal.write(write)
    later = await bench.pool.fetchrow("select * from processed_messages")
    assert later is not None
    assert later["processing_status"] == "success"
    assert later["expires_at"] - later["processed_at"] == timedelta(days=1)
    assert later["processed_at"] > found["processed_at"]


async def test_a_write_that_says_nothing_of_it_leaves_the_status(
    bench: Bench, state: SagaState
) -> None:
    await bench.journal.write(update(bench.epoch, state))
    assert await bench.processed() == "retrying"


# Encoding


def test_headers_keep_order_repetition_and_bytes() -> None:
    headers = (("b", b"\x00\xff"), ("a", b""), ("b", "ä".encode()))
    assert headers_from_json(headers_to_json(headers)) == headers


@pytest.mark.parametrize("value", [{"a": 2**70}, {"a": "ä"}, [], None, {"a": {"b": [1.5]}}])
def test_json_reads_back_as_it_was(value: Any) -> None:
    assert json.loads(to_json(value)) == value
