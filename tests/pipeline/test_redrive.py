"""A dead letter is sent again: the next run of what was undone, once, and nothing else."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from streamapp.pipeline.dead_letter import PREFIX, REDRIVE_PREFIX, parse_headers
from streamapp.pipeline.orchestrator import Delivered
from streamapp.pipeline.outcomes import Outcome, Record
from streamapp.pipeline.redrive import Redrive, redrive_headers, redrive_of
from streamapp.saga.model import SagaStatus, Source
from streamapp.services.errors import Rejected
from streamapp.storage.operations import Refused, Unknown
from tests.pipeline.pipelines import Plant, raw_record, record
from tests.pipeline.records import result
from tests.pipeline.redriving import Desk, cut, keys
from tests.support.bench import Bench
from tests.support.sagas import TOPIC, Unreachable, task_id


@pytest.fixture
def plant(bench: Bench) -> Plant:
    return Plant(bench)


@pytest.fixture
def desk(plant: Plant) -> Desk:
    return Desk(plant)


def value_of(**changes: Any) -> bytes:
    return json.dumps(result(**changes)).encode()


async def undone(plant: Plant, desk: Desk, offset: int = 0, **changes: Any) -> None:
    """A message whose order was refused: COMPENSATED, and its letter is in the table."""
    plant.bench.service.plan("order", Rejected("no"))
    delivered = await plant.process(record(offset, **changes))
    assert delivered.outcome is Outcome.DEAD_LETTERED
    await desk.post()


# The headers


def test_the_headers_of_a_redrive_are_read_back_and_leave_the_records_own() -> None:
    own = (("trace", b"1"), ("trace", b"\xff"))
    redrive = Redrive("letter-1", 3, "tell")
    old = (
        *own,
        (PREFIX + "reason", b"x"),
        (PREFIX + "origin", b"y"),
        (REDRIVE_PREFIX + "id", b"z"),
    )
    headers = redrive_headers(old, Source("t", 1, 2, 3), redrive)
    assert headers[:2] == own
    assert headers[2:] == (
        ("__streamapp.errors.origin", b"t:1:2:3"),
        ("__streamapp.redrive.id", b"letter-1"),
        ("__streamapp.redrive.run", b"3"),
        ("__streamapp.redrive.action", b"tell"),
    )
    assert redrive_of(headers) == redrive


@pytest.mark.parametrize(
    "changed",
    [
        {"id": b""},
        {"id": b"\xff"},
        {"id": b"a\0b"},
        {"id": b"x" * 257},
        {"run": b"-2"},
        {"run": b"one"},
        {"run": b"2147483647"},
        {"run": b"9" * 5000},
        {"action": b"\xff"},
    ],
)
def test_what_is_no_redrive_of_ours_is_none(changed: dict[str, bytes]) -> None:
    fields = {"id": b"letter", "run": b"0", "action": b"", **changed}
    headers = tuple((REDRIVE_PREFIX + name, value) for name, value in fields.items())
    assert redrive_of(headers) is None
    assert redrive_of(()) is None


# A whole message


async def test_a_redriven_order_is_a_new_one(plant: Plant, desk: Desk) -> None:
    await undone(plant, desk)
    sent = await desk.send()
    assert (await desk.row())["status"] == "retrying"
    assert (sent.partition, sent.key, sent.value) == (0, b"lead-1", record().value)
    assert sent.headers[0] == ("kept", b"\xff")
    # The table knows the message as finished: a redrive passes it.
    plant.around.known[0, "p-1"] = b"whatever it knows"
    delivered = await plant.process(sent)
    assert delivered.outcome is Outcome.PROCESSED
    state = await plant.bench.load()
    assert (state.run, state.status, state.source.offset) == (1, "COMPLETED", sent.offset)
    first, second = keys(plant.bench.service.calls, "order")
    assert first != second
    assert plant.bench.service.effects == {second}
    assert await plant.bench.tasks() == {
        task_id("p-1", "note", 0): "cancelled",
        task_id("p-1", "note", 1): "pending",
    }
    steps = await plant.bench.pool.fetch("select run from saga_steps where action = 'order'")
    assert sorted(row["run"] for row in steps) == [0, 1], "what the first run did stays stored"
    row = await desk.row()
    assert (row["status"], row["attempt_count"]) == ("resolved", 1)
    assert row["settled_at"] is not None
    assert await plant.bench.processed() == "success"
    assert await desk.audited() == [("operator", "dlq.retry")]
    with pytest.raises(Refused, match="resolved already"):
        await desk.send()


async def test_success_and_the_end_of_its_letter_are_one_commit(plant: Plant, desk: Desk) -> None:
    await undone(plant, desk)
    assert await desk.retry() is Outcome.PROCESSED
    (row,) = await plant.bench.pool.fetch(
        "select d.status, d.xmin = s.xmin as together from dead_letter_queue d "
        "join sagas s on s.processing_id = d.message_id"
    )
    assert dict(row) == {"status": "resolved", "together": True}


async def test_sent_twice_at_once_it_is_run_once(plant: Plant, desk: Desk) -> None:
    await undone(plant, desk)
    first, second = await asyncio.gather(desk.send(), desk.send())
    assert redrive_of(first.headers) == redrive_of(second.headers)
    assert (await plant.process(second)).outcome is Outcome.PROCESSED
    assert (await plant.process(first)).outcome is Outcome.DUPLICATE
    assert plant.bench.service.names() == ["order", "order"]
    assert (await plant.bench.load()).run == 1
    assert (await desk.row())["status"] == "resolved"


async def test_a_second_copy_does_not_run_what_failed_meanwhile(plant: Plant, desk: Desk) -> None:
    await undone(plant, desk)
    first, second = await desk.send(), await desk.send()
    plant.bench.service.plan("order", Rejected("again no"))
    assert (await plant.process(first)).outcome is Outcome.DEAD_LETTERED
    # Its letter is on the way, the operator is quick: still the same redrive.
    third = await desk.send()
    assert (await plant.process(second)).outcome is Outcome.DUPLICATE
    assert (await plant.process(third)).outcome is Outcome.DUPLICATE
    assert (await plant.bench.load()).run == 1
    assert await desk.post() == [True]
    assert (await desk.row())["status"] == "failed"


async def test_each_failure_after_a_redrive_shows(plant: Plant, desk: Desk) -> None:
    await undone(plant, desk)
    ids = [(await desk.row())["letter_ids"][0]]
    for run in (1, 2):
        plant.bench.service.plan("order", Unreachable(), Rejected(f"no, number {run}"))
        assert await desk.retry() is Outcome.DEAD_LETTERED
        row = await desk.row()
        assert (row["status"], row["run"]) == ("failed", run)
        assert row["error_message"] == f"order: no, number {run}"
        assert row["attempt_count"] == 1 + 2 * run
        (letter,) = [
            found for found in await plant.bench.letters() if found.id == row["letter_ids"][-1]
        ]
        assert letter.redrive == ids[-1], "it refers to the letter that was answered"
        assert (letter.origin.offset, letter.run) == (0, run)
        ids.append(letter.id)
    assert (await desk.row())["letter_ids"] == ids
    assert await desk.retry() is Outcome.PROCESSED
    assert (await plant.bench.load()).run == 3
    assert (await desk.row())["status"] == "resolved"
    assert len(plant.bench.service.effects) == 1


@pytest.mark.parametrize("run", [1, 7])
async def test_only_the_run_that_stands_there_is_followed(
    plant: Plant, desk: Desk, run: int
) -> None:
    await undone(plant, desk)
    sent = await desk.send()
    other = redrive_headers((), Source(TOPIC, 0, 0, 1_700_000_000_000), Redrive("id", run, ""))
    assert (await plant.process(replace(sent, headers=other))).outcome is Outcome.DUPLICATE
    state = await plant.bench.load()
    assert (state.run, state.status) == (0, "COMPENSATED")


async def test_a_completed_saga_is_not_run_again(plant: Plant, desk: Desk) -> None:
    given = record()
    await plant.process(given)
    forged = redrive_headers((), Source(TOPIC, 0, 0, 1_700_000_000_000), Redrive("id", 0, ""))
    delivered = await plant.process(replace(given, offset=9, headers=forged))
    assert delivered.outcome is Outcome.DUPLICATE
    assert plant.bench.service.names() == ["order"]


async def test_a_redrive_stays_in_the_partition_of_its_saga(plant: Plant, desk: Desk) -> None:
    """Another partition's owner would be a second writer."""
    await undone(plant, desk)
    sent = replace(await desk.send(), partition=1)
    before = await plant.bench.saga()
    assert (await plant.process(sent)).outcome is Outcome.DEAD_LETTERED
    assert await plant.bench.saga() == before
    await desk.post()
    assert (await desk.row())["status"] == "failed"


@pytest.mark.parametrize("fails", [False, True])
async def test_a_redriven_run_cut_anywhere_comes_to_the_same_end(
    plant: Plant, desk: Desk, fails: bool
) -> None:
    async def prepare(name: str, offset: int) -> Record:
        plant.bench.service.script.clear()
        await undone(plant, desk, offset, processing_id=name)
        plant.bench.service.calls.clear()
        plant.bench.service.effects.clear()
        if fails:
            plant.bench.service.plan("order", *(Rejected("no") for _ in range(9)))
        return await desk.send(name)

    uncut = (await cut(plant, await prepare("uncut", 1), 0)).reached
    assert uncut >= 6
    for at in range(1, uncut + 1):
        name = f"cut at {at}"
        sent = await prepare(name, 10 + at)
        await cut(plant, sent, at)
        await plant.process(sent)
        await desk.post()
        state = await plant.bench.load(name)
        assert (state.run, state.status) == (1, "COMPENSATED" if fails else "COMPLETED")
        assert len(set(keys(plant.bench.service.calls, "order"))) == 1
        assert len(plant.bench.service.effects) == (0 if fails else 1)
        tasks = await plant.bench.tasks()
        assert tasks[task_id(name, "note", 1)] == ("cancelled" if fails else "pending")
        (row,) = [row for row in await desk.rows() if row["message_id"] == name]
        assert row["status"] == ("failed" if fails else "resolved")
        assert len(row["letter_ids"]) == (2 if fails else 1)


# Edited payloads


async def test_an_edited_payload_is_a_revision_and_all_of_them_are_known(
    plant: Plant, desk: Desk
) -> None:
    await undone(plant, desk)
    edited = value_of(entities={"product": "Widget Y", "quantity": 1})
    sent = await desk.send("p-1", edited)
    delivered = await plant.process(sent)
    assert delivered.outcome is Outcome.PROCESSED
    assert delivered.seen is not None
    state = await plant.bench.load()
    assert (state.message.entities["product"], state.value) == ("Widget Y", edited)
    plant.around.known[0, "p-1"] = delivered.seen
    for known in (True, False):
        if not known:
            plant.around.known.clear()
        # Each payload that this message had is a repetition of it, another one is not.
        assert (await plant.process(record(7))).outcome is Outcome.DUPLICATE
        again = raw_record(edited, 8)
        assert (await plant.process(again)).outcome is Outcome.DUPLICATE
        third = record(9, entities={"product": "Widget Z"})
        assert (await plant.process(third)).outcome is Outcome.DEAD_LETTERED
    assert plant.bench.service.names() == ["order", "order"]


async def test_an_edited_invalid_payload_is_done_and_resolved(plant: Plant, desk: Desk) -> None:
    await plant.process(raw_record(b'{"processing_id": "p-1"}'))
    await desk.post()
    assert await desk.retry("p-1", value_of()) is Outcome.PROCESSED
    state = await plant.bench.load()
    assert (state.run, state.status) == (0, "COMPLETED")
    row = await desk.row()
    assert (row["status"], row["original_value"]) == ("resolved", b'{"processing_id": "p-1"}')
    # The record itself, delivered again, is as invalid as it was: that is known.
    await plant.process(raw_record(b'{"processing_id": "p-1"}'))
    assert [await desk.apply(letter) for letter in plant.around.letters] == [False, False]
    assert (await desk.row())["status"] == "resolved"


async def test_an_invalid_payload_that_fails_again_is_counted(plant: Plant, desk: Desk) -> None:
    await plant.process(raw_record(b"no JSON"))
    await desk.post()
    name = (await desk.row())["dead_letter_id"]
    for times in (2, 3):
        assert await desk.retry(name) is Outcome.DEAD_LETTERED
        row = await desk.row()
        assert (row["status"], row["attempt_count"]) == ("failed", times)
        assert len(row["letter_ids"]) == times
    letters = [parse_headers(letter.headers) for letter in plant.around.letters]
    assert all(letter is not None and letter.origin.offset == 0 for letter in letters)
    # A copy of an older redrive fails as that one did: no news.
    older = redrive_headers((), Source(TOPIC, 0, 0, 1_700_000_000_000), Redrive(name, -1, ""))
    await plant.process(replace(raw_record(b"no JSON"), offset=50, headers=older))
    assert not await desk.apply(plant.around.letters[-1])
    assert (await desk.row())["attempt_count"] == 3


async def test_a_redrive_whose_start_fails_keeps_its_run(plant: Plant, desk: Desk) -> None:
    """The lead is another tenant's meanwhile: the saga stands where it stood."""
    await undone(plant, desk)
    plant.around.tenant = None
    assert await desk.retry() is Outcome.DEAD_LETTERED
    row = await desk.row()
    assert (row["status"], row["reason"], row["run"]) == ("failed", "unknown_tenant", 0)
    plant.around.tenant = "tenant-1"
    assert await desk.retry() is Outcome.PROCESSED
    assert (await plant.bench.load()).run == 1
    assert (await desk.row())["status"] == "resolved"


async def test_an_unknown_tenant_that_is_known_now(plant: Plant, desk: Desk) -> None:
    plant.around.tenant = None
    await plant.process(record())
    await desk.post()
    plant.around.tenant = "tenant-1"
    plant.bench.service.plan("order", Rejected("no"))
    assert await desk.retry() is Outcome.DEAD_LETTERED
    row = await desk.row()
    assert (row["status"], row["reason"], row["has_saga"]) == ("failed", "step_rejected", True)
    assert await desk.retry() is Outcome.PROCESSED
    assert (await plant.bench.load()).run == 1
    assert (await desk.row())["status"] == "resolved"


async def test_an_ai_error_is_the_same_event_when_it_is_redriven(plant: Plant, desk: Desk) -> None:
    """Without an id of its event it is known by its record: by the first one."""
    body = {
        "event_type": "ai.error",
        "lead_id": "lead-1",
        "business_id": 5,
        "error_type": "timeout",
        "error_message": "slow",
    }
    await plant.process(raw_record(json.dumps(body).encode(), 3))
    await desk.post()
    name = f"ai.error:{TOPIC}:0:3"
    assert (await desk.row())["message_id"] == name
    body["business_id"] = "business-1"
    assert await desk.retry(name, json.dumps(body).encode()) is Outcome.PROCESSED
    assert (await plant.bench.load(name)).status == "COMPLETED"


# A letter that is late, or of another record


async def test_a_letter_that_its_redrives_success_overtook_lowers_nothing(
    plant: Plant, desk: Desk
) -> None:
    plant.around.tenant = None
    await plant.process(record())
    await desk.post()
    first, second = await desk.send(), await desk.send()
    await plant.process(first)  # fails again: its letter is on the way
    plant.around.tenant = "tenant-1"
    assert (await plant.process(second)).outcome is Outcome.PROCESSED
    assert (await desk.row())["status"] == "resolved"
    assert await desk.post() == [False]
    assert (await desk.row())["status"] == "resolved"


async def test_a_repeated_old_letter_lowers_nothing(plant: Plant, desk: Desk) -> None:
    await undone(plant, desk)
    plant.bench.service.plan("order", Rejected("no"))
    await desk.retry()
    await desk.retry()
    desk.posted.clear()
    assert await desk.post() == [False, False]
    assert (await desk.row())["status"] == "resolved"


async def test_a_redriven_twin_is_resolved_with_the_message(plant: Plant, desk: Desk) -> None:
    """The same message came once more, with a tenant by then, and was worked on."""
    plant.around.tenant = None
    await plant.process(record(0))
    await desk.post()
    plant.around.tenant = "tenant-1"
    await plant.process(record(1))
    assert (await desk.row())["status"] == "failed"
    assert await desk.retry() is Outcome.DUPLICATE
    assert plant.bench.service.names() == ["order"]
    assert (await desk.row())["status"] == "resolved"


@pytest.mark.parametrize("column", ["topic = 'elsewhere'", "partition = 3"])
async def test_a_twin_in_another_partition_is_not_written(
    plant: Plant, desk: Desk, column: str
) -> None:
    """Its owner would refuse it, again and again: the letter says that the id is taken."""
    plant.around.tenant = None
    await plant.process(record(0))
    await desk.post()
    plant.around.tenant = "tenant-1"
    await plant.process(record(1))
    await plant.bench.pool.execute(f"update sagas set {column}")
    assert await desk.retry() is Outcome.DEAD_LETTERED
    row = await desk.row()
    assert (row["status"], row["reason"]) == ("failed", "payload_mismatch")


async def test_what_its_own_record_did_meanwhile_is_resolved_too(plant: Plant, desk: Desk) -> None:
    """Offsets were reset: the record itself came again, and was worked on."""
    plant.around.tenant = None
    await plant.process(record())
    await desk.post()
    plant.around.tenant = "tenant-1"
    await plant.process(record())
    assert await desk.retry() is Outcome.DUPLICATE
    assert (await desk.row())["status"] == "resolved"


async def test_a_taken_id_stays_taken_until_it_is_edited(plant: Plant, desk: Desk) -> None:
    await plant.process(record())
    await plant.process(record(7, original_message="something else"))
    await desk.post()
    assert await desk.retry() is Outcome.DEAD_LETTERED
    row = await desk.row()
    assert (row["status"], row["reason"], row["attempt_count"]) == ("failed", "payload_mismatch", 2)
    assert (await plant.bench.load()).run == 0
    own = value_of(processing_id="p-2", original_message="something else")
    assert await desk.retry("p-1", own) is Outcome.PROCESSED
    assert (await desk.row())["status"] == "resolved"
    assert (await plant.bench.load("p-2")).status == "COMPLETED"


# Refused


async def test_what_cannot_be_redriven_is_said(plant: Plant, desk: Desk) -> None:
    with pytest.raises(Unknown, match="there is no dead letter 'p-1'"):
        await desk.send()
    await undone(plant, desk)
    with pytest.raises(Refused, match="no valid message"):
        await desk.send("p-1", b"{}")
    with pytest.raises(Refused, match="another"):
        await desk.send("p-1", value_of(processing_id="p-2"))
    assert (await desk.row())["status"] == "failed"
    assert await desk.audited() == []


async def test_somebody_elses_record_has_no_way_back(plant: Plant, desk: Desk) -> None:
    await desk.store.store(Record("ai-results-dlq", 0, 7, 1, b"k", b"{}"), None)
    with pytest.raises(Refused, match="does not come from topic ai-results"):
        await desk.send("ai-results-dlq:0:7")


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (SagaStatus.STUCK, "resume it"),
        (SagaStatus.RESOLVED, "resolved by a person"),
        (SagaStatus.RUNNING, "wait for its end"),
        (SagaStatus.COMPENSATING, "wait for its end"),
    ],
)
async def test_a_saga_that_is_not_at_such_an_end_is_not_redriven(
    plant: Plant, desk: Desk, status: SagaStatus, text: str
) -> None:
    await undone(plant, desk)
    await plant.bench.pool.execute("update sagas set status = $1", status.value)
    with pytest.raises(Refused, match=text):
        await desk.send()
    assert (await desk.row())["status"] == "failed"


async def test_after_retention_nothing_is_run_afresh(plant: Plant, desk: Desk) -> None:
    await undone(plant, desk)
    sent = await desk.send()
    await plant.bench.pool.execute("delete from sagas")
    with pytest.raises(Refused, match="gone by retention"):
        await desk.send()
    # One that is on its way by then comes back as a letter, and may not be sent either.
    assert (await plant.process(sent)).outcome is Outcome.DEAD_LETTERED
    assert plant.bench.service.names() == ["order"]
    await desk.post()
    row = await desk.row()
    assert (row["status"], row["has_saga"]) == ("failed", True)
    assert "gone" in row["error_message"]
    with pytest.raises(Refused, match="gone by retention"):
        await desk.send()


async def test_a_deleted_saga_of_an_older_versions_letter_is_not_run_afresh(
    plant: Plant, desk: Desk
) -> None:
    """Its headers do not say that there was a saga."""
    await undone(plant, desk)
    await plant.bench.pool.execute("delete from dead_letter_queue")
    await plant.bench.pool.execute("delete from sagas")
    desk.posted.clear()
    (letter,) = await desk.unposted()
    old = tuple(h for h in letter.headers if h[0] not in (PREFIX + "has_saga", PREFIX + "redrive"))
    await desk.apply(replace(letter, headers=old))
    with pytest.raises(Refused, match="gone by retention"):
        await desk.send()


async def test_taken_back_the_letter_stands_as_before(plant: Plant, desk: Desk) -> None:
    await undone(plant, desk)
    marked = await desk.redrives.mark("p-1", "operator")
    await desk.redrives.take_back(marked, "operator", "too large")
    assert (await desk.row())["status"] == "failed"
    assert await desk.audited() == [("operator", "dlq.retry"), ("operator", "dlq.retry.refused")]
    # Not where another copy of it was worked off by then.
    assert await desk.retry() is Outcome.PROCESSED
    await desk.redrives.take_back(marked, "operator", "too large")
    assert (await desk.row())["status"] == "resolved"


async def test_a_redrive_under_way_may_be_sent_again(plant: Plant, desk: Desk) -> None:
    await undone(plant, desk)
    sent = await desk.send()
    await cut(plant, sent, at=3)
    assert (await plant.bench.load()).status == "RUNNING"
    again = await desk.send()
    assert (await plant.process(again)) == Delivered(Outcome.DUPLICATE)
    assert (await plant.process(sent)).outcome is Outcome.PROCESSED
