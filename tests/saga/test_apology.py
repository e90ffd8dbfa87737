"""A customer whose message was undone is told so: once, in the commit that says that it was."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from streamapp.saga.ids import row_id
from streamapp.saga.model import SagaState
from streamapp.services.errors import Rejected
from tests.support.bench import Bench, PointsJournal
from tests.support.sagas import OUTBOUND, external, own, saga

NO = Rejected("no")
SORRY = "We are sorry."
ID = row_id("message", "p-1", 0, "reply", "apology")


def undone(apology: dict[str, Any] | None = None) -> SagaState:
    """A saga whose last step is refused, after one that can be undone."""
    state = saga(external("a"), external("b"), own("c", reply=1))
    state.plan = replace(state.plan, apology=apology or {"text": SORRY})
    return state


async def said(bench: Bench) -> list[dict[str, Any]]:
    rows = await bench.pool.fetch("select * from outbox where topic = $1 order by id", OUTBOUND)
    assert all(row["key"] == b"lead-1" for row in rows)
    return [json.loads(row["value"]) for row in rows]


async def test_the_apology_is_in_the_commit_of_the_end(bench: Bench) -> None:
    bench.service.plan("b", NO)
    journal = PointsJournal(bench.journal)
    await bench.deliver(undone(), bench.executor(journal=journal))
    ends = [write for write in journal.writes if write.status == "COMPENSATED"]
    assert [record.topic for write in ends for record in write.outbox].count(OUTBOUND) == 1
    assert not any(
        record.topic == OUTBOUND
        for write in journal.writes
        if write.status != "COMPENSATED"
        for record in write.outbox
    )
    (message,) = await said(bench)
    assert message.pop("created_at")
    assert message == {
        "message_id": ID,
        "lead_id": "lead-1",
        "business_id": "business-1",
        "tenant_id": "tenant-1",
        "to": "491700000000",
        "text": SORRY,
        "in_reply_to": "p-1",
    }
    assert row_id("message", "p-1", 0, "reply") != ID
    assert bench.observer.of("responded") == [()]


async def test_what_is_done_is_not_apologised_for(bench: Bench) -> None:
    await bench.deliver(undone())
    assert [message["text"] for message in await said(bench)] != [SORRY]
    assert len(await said(bench)) == 1


async def test_nobody_is_told_before_it_is_undone(bench: Bench) -> None:
    bench.service.plan("b", NO)
    bench.service.plan("a", NO, undo=True)
    state = await bench.deliver(undone())
    assert state.status == "STUCK"
    assert await said(bench) == []
    await bench.executor().resume(await bench.load(), bench.epoch, bench.place)
    assert [message["message_id"] for message in await said(bench)] == [ID]


async def test_delivered_again_it_says_nothing_again(bench: Bench) -> None:
    bench.service.plan("b", NO)
    await bench.deliver(undone())
    await bench.deliver(undone())
    assert len(await said(bench)) == 1


async def test_without_one_nothing_is_said(bench: Bench) -> None:
    bench.service.plan("b", NO)
    state = undone()
    state.plan = replace(state.plan, apology=None)
    await bench.deliver(state)
    assert await said(bench) == []


async def test_it_may_tell_what_the_saga_found_out(bench: Bench) -> None:
    bench.service.plan("a", {"left": 3})
    bench.service.plan("b", NO)
    template = "Sorry, only {{ results.a.left }} for {{ business.name }}."
    apology = {"text": SORRY, "template": template, "about": {"name": "K"}}
    await bench.deliver(undone(apology))
    assert [message["text"] for message in await said(bench)] == ["Sorry, only 3 for K."]
    assert bench.observer.of("text failed") == []


async def test_one_that_fails_gives_way_to_the_plain_one(bench: Bench) -> None:
    bench.service.plan("b", NO)
    await bench.deliver(undone({"text": SORRY, "template": "{{ results.x.y }}", "about": {}}))
    assert [message["text"] for message in await said(bench)] == [SORRY]
    assert bench.observer.of("text failed") == [("apology",)]
    assert (await bench.saga())["status"] == "COMPENSATED"
