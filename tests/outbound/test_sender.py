"""Replies against the stand-in and a real table: sent once, refused, or visibly unknown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from pydantic import SecretStr

from streamapp.outbound import sender as module
from streamapp.outbound.reply import Reply
from streamapp.outbound.sender import Limits, OtherReply, Sender
from streamapp.outbound.statuses import Status, StatusUpdate, of_reference, updates
from streamapp.resilience.bulkhead import Bulkhead
from streamapp.resilience.circuit_breaker import CircuitBreaker, CircuitConfig
from streamapp.saga.retry import RetrySchedule
from streamapp.services.http import HttpService
from streamapp.services.whatsapp import MAX_CHARACTERS, WhatsApp
from streamapp.services.whatsapp_codes import HOLDS, Verdict
from streamapp.storage.deliveries import Applied, Deliveries
from streamapp.storage.delivery_views import DeliveryRetries, DeliveryViews
from streamapp.storage.operations import Refused
from tests.support.whatsapp import NUMBER, TOKEN, Cloud, cloud, failure

GROUP = "group"


def reply_of(message_id: str = "m-1", **changes: Any) -> Reply:
    made = Reply(message_id, "lead-1", "b", "t", "491701234567", "Hello", "p-1", datetime.now(UTC))
    return replace(made, **changes)


class Parked:
    """A lane that counts its waits."""

    @asynccontextmanager
    async def parked(self, *, in_line: bool = False) -> AsyncIterator[None]:
        yield


class Bench:
    """A sender on a table of its own."""

    def __init__(self, pool: Any, far: Cloud, max_wait: float = 30.0) -> None:
        self.pool, self.far = pool, far
        self.table = Deliveries(pool, GROUP)
        self.told: list[str] = []
        self.ours = True
        self.breaker = CircuitBreaker("whatsapp", CircuitConfig(min_calls=100, window_calls=100))
        self.client = WhatsApp(
            HttpService("whatsapp", far.url, token=SecretStr(TOKEN), timeout=0.5), NUMBER
        )
        self.sender = Sender(
            self.client,
            self.table,
            breaker=self.breaker,
            bulkhead=Bulkhead(20),
            schedule=RetrySchedule((0.0, 0.0)),
            limits=Limits(1000.0, 0.0, max_wait),
            insist=lambda call: call(),
            told=self.told.append,
        )

    async def deliver(self, reply: Reply | None = None) -> bool:
        made = self.sender.deliver(reply or reply_of(), Parked(), lambda: self.ours)
        return await asyncio.wait_for(made, 20)

    async def row(self, message_id: str = "m-1") -> Any:
        return await self.pool.fetchrow(
            "select * from outbound_deliveries where message_id = $1", message_id
        )


@pytest.fixture
async def bench(database: str) -> AsyncIterator[Bench]:
    pool = await asyncpg.create_pool(database, min_size=0, max_size=4)
    async with cloud() as far:
        bench = Bench(pool, far)
        yield bench
        await bench.client.close()
    await pool.close()


async def test_a_reply_is_sent_once_however_often_it_comes(bench: Bench) -> None:
    assert await bench.deliver()
    assert await bench.deliver()
    assert bench.far.texts == ["Hello"]
    row = await bench.row()
    assert (row["status"], row["whatsapp_message_id"], row["attempts"]) == ("sent", "wamid.1", 1)
    assert bench.told == ["sent"]


async def test_sending_is_durable_before_the_request(bench: Bench) -> None:
    bench.far.script = ["hang"]
    task = asyncio.create_task(bench.deliver())
    await asyncio.wait_for(bench.far.arrived.wait(), 20)
    assert (await bench.row())["status"] == "sending"
    bench.far.over.set()
    await task


@pytest.mark.parametrize("misbehaviour", ["hang", "close", "half-closed", (500, b"")])
async def test_an_unknown_outcome_is_shown_and_not_repeated(
    bench: Bench, misbehaviour: Any
) -> None:
    bench.far.script = [misbehaviour]
    assert await bench.deliver()
    assert await bench.deliver()
    assert len(bench.far.messages) == 1
    row = await bench.row()
    assert (row["status"], row["reason"]) == ("unknown", "no_answer")
    assert bench.told == ["unknown"]


async def test_what_was_being_sent_when_somebody_died_is_unknown(bench: Bench) -> None:
    await bench.table.begin(reply_of(), uuid4())
    assert await bench.deliver()
    assert bench.far.messages == []
    assert (await bench.row())["reason"] == "interrupted"
    assert bench.told == ["unknown"]


async def test_a_rejection_is_final_and_says_why(bench: Bench) -> None:
    bench.far.script = [(400, failure(131047))]
    assert await bench.deliver()
    assert await bench.deliver()
    row = await bench.row()
    assert (row["status"], row["reason"], row["error_code"]) == ("failed", "rejected", 131047)
    assert bench.told == ["failed"]
    assert len(bench.far.messages) == 1


async def test_what_passes_is_tried_again_within_its_attempts(bench: Bench) -> None:
    bench.far.script = [(500, failure(131000))] * 3
    assert await bench.deliver()
    row = await bench.row()
    assert (row["status"], row["reason"], row["attempts"]) == ("failed", "retries_exhausted", 3)
    bench.far.script = [(503, failure(2))]
    assert await bench.deliver(reply_of("m-2"))
    assert (await bench.row("m-2"))["status"] == "sent"


@pytest.mark.parametrize("code", [131042, 130429, 131056])
async def test_a_hold_spends_no_attempt(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    for verdict in list(HOLDS):
        monkeypatch.setitem(HOLDS, verdict, 0.02)
    bench.far.script = [(400, failure(code))] * 5
    assert await bench.deliver()
    row = await bench.row()
    assert (row["status"], row["attempts"]) == ("sent", 1)


async def test_an_account_that_stays_paused_is_given_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(HOLDS, Verdict.PAUSE, 0.02)
    bench.sender.max_wait = 0.1
    bench.far.script = [(403, failure(131031))] * 10_000
    assert await bench.deliver()
    row = await bench.row()
    assert (row["status"], row["reason"]) == ("failed", "waited_too_long")


async def test_an_open_circuit_is_waited_for_within_the_bound(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.sender.max_wait = 0.1
    bench.breaker.force_open()
    assert await bench.deliver()
    assert (await bench.row())["reason"] == "waited_too_long"
    assert bench.far.messages == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"recipient": ""}, "no_recipient"),
        ({"text": "x" * (MAX_CHARACTERS + 1)}, "too_long"),
        ({"created_at": datetime.now(UTC) - timedelta(hours=24, minutes=1)}, "window_closed"),
    ],
)
async def test_what_whatsapp_would_not_take_is_refused_visibly(
    bench: Bench, changes: dict[str, Any], reason: str
) -> None:
    assert await bench.deliver(reply_of(**changes))
    row = await bench.row()
    assert (row["status"], row["reason"]) == ("failed", reason)
    assert bench.far.messages == []
    assert bench.told == ["failed"]


async def test_the_longest_text_is_sent(bench: Bench) -> None:
    await bench.deliver(reply_of(text="x" * MAX_CHARACTERS))
    assert (await bench.row())["status"] == "sent"


async def test_another_reply_under_the_same_id_is_not_merged(bench: Bench) -> None:
    await bench.deliver()
    with pytest.raises(OtherReply):
        await bench.deliver(reply_of(text="Goodbye"))
    assert bench.far.texts == ["Hello"]


async def test_nothing_is_sent_for_a_record_that_is_no_longer_ours(bench: Bench) -> None:
    bench.ours = False
    assert not await bench.deliver()
    assert bench.far.messages == []


async def test_a_call_that_would_begin_late_is_claimed_anew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody took the row over while this process stood still."""
    begin, calls = bench.table.begin, 0

    async def slow(reply: Reply, claim: Any) -> int | None:
        nonlocal calls
        calls += 1
        number = await begin(reply, claim)
        if calls == 1:
            found = await bench.table.find(reply)
            assert found is not None
            assert found.claim is not None
            await bench.table.unknown(reply.message_id, found.claim, "interrupted", None, "")
        return number

    monkeypatch.setattr(bench.table, "begin", slow)
    monkeypatch.setattr(module, "CALL_WITHIN", -1.0)
    assert await bench.deliver()
    assert calls == 2
    assert bench.far.messages == []
    assert (await bench.row())["status"] == "unknown"


# Statuses


def told(status: str, id_: str = "wamid.1", reference: str | None = None) -> StatusUpdate:
    entry: dict[str, Any] = {"id": id_, "status": status, "timestamp": "1700000000"}
    if reference is not None:
        entry["biz_opaque_callback_data"] = reference
    if status == "failed":
        entry["errors"] = [{"code": 131026, "title": "Message undeliverable"}]
    (found,) = updates({"entry": [{"changes": [{"value": {"statuses": [entry]}}]}]})
    return found


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (["sent", "delivered", "read"], "read"),
        (["read", "delivered", "sent"], "read"),
        (["delivered", "failed"], "delivered"),
        (["failed", "sent"], "failed"),
        (["failed", "delivered"], "delivered"),
    ],
)
async def test_a_status_never_falls(bench: Bench, order: list[str], expected: str) -> None:
    await bench.deliver()
    for status in order:
        await bench.table.apply(told(status))
    assert (await bench.row())["status"] == expected


async def test_a_status_settles_what_was_unknown(bench: Bench) -> None:
    bench.far.script = ["hang"]
    await bench.deliver()
    carried = bench.far.messages[0]["biz_opaque_callback_data"]
    assert of_reference(carried) == ("m-1", 1)
    assert await bench.table.apply(told("delivered", "wamid.9", carried)) is Applied.APPLIED
    row = await bench.row()
    assert (row["status"], row["whatsapp_message_id"]) == ("delivered", "wamid.9")
    assert await bench.table.apply(told("sent", "wamid.9")) is Applied.STALE
    assert await bench.table.apply(told("sent", "wamid.8", "1:nobody")) is Applied.UNKNOWN


async def test_a_status_that_comes_before_the_answer_is_kept(bench: Bench) -> None:
    claim = uuid4()
    await bench.table.begin(reply_of(), claim)
    await bench.table.apply(told("read", reference="1:m-1"))
    assert await bench.table.sent("m-1", claim, "wamid.1")
    assert (await bench.row())["status"] == "read"


# A person's word


async def test_a_person_may_send_it_again(bench: Bench) -> None:
    bench.far.script = ["hang"]
    reply = reply_of(created_at=datetime.now(UTC) - timedelta(hours=23, minutes=59))
    await bench.deliver(reply)
    again = await DeliveryRetries(bench.pool).mark("m-1", "ann")
    assert (await DeliveryRetries(bench.pool).mark("m-1", "ann")) == again, "asked twice"
    assert json.loads(again.value)["text"] == "Hello"
    # What fails late of the first attempt does not stop the second.
    assert await bench.table.apply(told("failed", "wamid.old", "1:m-1")) is Applied.STALE
    await bench.deliver(reply)
    row = await bench.row()
    assert (row["status"], row["attempts"], len(bench.far.messages)) == ("sent", 2, 2)
    with pytest.raises(Refused, match="m-1 is sent"):
        await DeliveryRetries(bench.pool).mark("m-1", "ann")
    shown = await DeliveryViews(bench.pool).show("m-1")
    assert shown is not None
    assert shown["recipient"] == "***67"
    assert "1701234567" not in json.dumps(await DeliveryViews(bench.pool).list(Status.SENT))
