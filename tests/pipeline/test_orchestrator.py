"""Every delivery has one outcome, and on return it is durable."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from streamapp.pipeline.dead_letter import DeadLetter, parse_headers
from streamapp.pipeline.messages import AIResult, decode
from streamapp.pipeline.orchestrator import Delivered
from streamapp.pipeline.outcomes import Outcome, Reason, Record
from streamapp.services.errors import Rejected
from tests.pipeline.pipelines import Plant, raw_record, record
from tests.pipeline.records import LIMIT
from tests.support.bench import Bench, Points, PointsJournal, running_journal
from tests.support.proxy import proxy_to
from tests.support.sagas import Call, LostAnswer
from tests.support.waiting import until

INVALID = raw_record(b"no JSON")


@pytest.fixture
def plant(bench: Bench) -> Plant:
    return Plant(bench)


def hash_of(given: Record) -> bytes:
    message = decode(given, max_payload_bytes=LIMIT)
    assert isinstance(message, AIResult)
    return message.payload_hash


def letter_of(plant: Plant) -> DeadLetter:
    """The one letter that was produced directly."""
    (found,) = plant.around.letters
    letter = parse_headers(found.headers)
    assert letter is not None
    return letter


async def interrupt(plant: Plant, given: Record, at: int) -> None:
    """Begin a record's saga and die at a point of it; the partition has a new owner then."""
    points = Points(at)

    async def reach(call: Call) -> None:
        await points.reach()

    plant.bench.service.before = plant.bench.service.after = reach
    journal = PointsJournal(plant.bench.journal, points)
    pipeline = plant.build(plant.bench.executor(registry=plant.registry, journal=journal))
    with pytest.raises(asyncio.CancelledError):
        await pipeline.process(given, plant.around, plant.bench.place)
    plant.bench.service.before = plant.bench.service.after = None
    await plant.bench.take_over()


# The main path


async def test_a_valid_record_is_processed(plant: Plant) -> None:
    given = record()
    delivered = await plant.process(given)
    assert delivered == Delivered(Outcome.PROCESSED, "p-1", hash_of(given))
    state = await plant.bench.load()
    assert state.status == "COMPLETED"
    assert (state.key, state.value, state.headers) == (given.key, given.value, given.headers)
    assert (state.source.partition, state.source.offset) == (0, 0)
    assert state.message.tenant_id == "tenant-1"
    assert state.payload_hash == hash_of(given)
    assert (state.plan.handler, state.plan.actions) == ("ORDER_REQUEST", ("note", "order"))
    assert plant.bench.service.names() == ["order"]
    assert plant.around.letters == []
    assert plant.around.events == [
        ("received", "webchat", "business-1"),
        ("looked up", "rocksdb", "miss"),
        ("asked", "lead-1", "business-1", "tenant-1"),
        ("understood", "p-1", 0.12),
        ("looked up", "postgresql", "miss"),
        ("delivered", "processed", "webchat"),
    ]


async def test_the_tenant_that_was_found_is_the_sagas(plant: Plant) -> None:
    plant.around.tenant = "tenant-9"
    await plant.process(record(tenant_id=None))
    assert (await plant.bench.load()).message.tenant_id == "tenant-9"
    assert plant.around.of("asked") == [("lead-1", "business-1", None)]


async def test_a_failed_best_effort_action_leaves_the_message_processed(plant: Plant) -> None:
    plant.suggested_actions = True
    plant.pipeline = plant.build(plant.bench.executor(registry=plant.registry))
    plant.bench.service.plan("tell", Rejected("no"))
    delivered = await plant.process(record(suggested_actions=["tell", "nonsense"]))
    assert delivered.outcome is Outcome.PROCESSED
    state = await plant.bench.load()
    assert [step.action for step in state.plan.steps] == ["note", "order", "tell"]
    assert [step.suggested for step in state.plan.steps] == [False, False, True]
    assert [letter.action for letter in await plant.bench.letters()] == ["tell"]


async def test_suggestions_are_ignored_unless_they_are_allowed(plant: Plant) -> None:
    await plant.process(record(suggested_actions=["tell"]))
    assert (await plant.bench.load()).plan.actions == ("note", "order")


# Dead letters from before a saga


async def test_an_invalid_payload_is_dead_lettered_as_it_is(plant: Plant) -> None:
    assert await plant.process(INVALID) == Delivered(Outcome.DEAD_LETTERED)
    letter = letter_of(plant)
    assert (letter.reason, letter.processing_id) == (Reason.INVALID_PAYLOAD, None)
    assert (letter.source.topic, letter.source.offset) == (INVALID.topic, INVALID.offset)
    assert letter.origin == letter.source
    assert letter.stacktrace == ""
    (sent,) = plant.around.letters
    assert (sent.key, sent.value, sent.headers[0]) == (
        INVALID.key,
        INVALID.value,
        ("kept", b"\xff"),
    )
    assert plant.around.events == [
        ("received", "other", "other"),
        ("letter", "invalid_payload"),
        ("delivered", "dead_lettered", "other"),
    ]


async def test_an_invalid_payload_keeps_its_id_where_it_can_be_read(plant: Plant) -> None:
    await plant.process(record(entities=5))
    assert letter_of(plant).processing_id == "p-1"


async def test_a_null_value_is_an_invalid_payload(plant: Plant) -> None:
    await plant.process(raw_record(None))
    assert letter_of(plant).reason is Reason.INVALID_PAYLOAD
    assert plant.around.letters[0].value is None


async def test_an_unknown_tenant_is_dead_lettered(plant: Plant) -> None:
    plant.around.tenant = None
    assert await plant.process(record()) == Delivered(Outcome.DEAD_LETTERED)
    letter = letter_of(plant)
    assert (letter.reason, letter.processing_id) == (Reason.UNKNOWN_TENANT, "p-1")
    assert await plant.bench.journal.load("p-1") is None


async def test_a_defect_of_a_handler_is_dead_lettered_with_its_trace(plant: Plant) -> None:
    plant.handler.error = KeyError("a defect")
    assert await plant.process(record()) == Delivered(Outcome.DEAD_LETTERED)
    letter = letter_of(plant)
    assert (letter.reason, letter.processing_id) == (Reason.HANDLER_ERROR, "p-1")
    assert (letter.exception, letter.message) == ("KeyError", "'a defect'")
    assert "in decide" in letter.stacktrace
    assert plant.around.of("defect") == [("handler", plant.handler.error)]
    assert await plant.bench.journal.load("p-1") is None


@pytest.mark.parametrize("actions", [("unregistered",), ("undeclared",)])
async def test_an_action_that_does_not_exist_is_a_defect(
    plant: Plant, actions: tuple[str, ...]
) -> None:
    plant.handler.actions = actions
    await plant.process(record())
    assert letter_of(plant).reason is Reason.HANDLER_ERROR
    assert await plant.bench.journal.load("p-1") is None


async def test_a_plan_that_cannot_be_stored_is_a_defect(plant: Plant) -> None:
    plant.handler.metadata = {"text": "\0"}
    assert await plant.process(record()) == Delivered(Outcome.DEAD_LETTERED)
    letter = letter_of(plant)
    assert (letter.reason, letter.processing_id) == (Reason.HANDLER_ERROR, "p-1")
    assert plant.bench.service.calls == []


async def test_a_defect_of_the_pipeline_is_dead_lettered(plant: Plant) -> None:
    plant.around.tenant_error = ZeroDivisionError("a defect")
    assert await plant.process(record()) == Delivered(Outcome.DEAD_LETTERED)
    assert letter_of(plant).reason is Reason.HANDLER_ERROR
    assert plant.around.of("defect") == [("pipeline", plant.around.tenant_error)]
    assert plant.around.of("letter") == [("handler_error",)]


# Duplicates


async def test_a_repetition_is_known_by_the_table(plant: Plant) -> None:
    given = record()
    plant.around.known[0, "p-1"] = hash_of(given)
    assert await plant.process(given) == Delivered(Outcome.DUPLICATE)
    assert plant.around.events[1:] == [
        ("looked up", "rocksdb", "hit"),
        ("delivered", "duplicate", "webchat"),
    ]


async def test_the_table_is_asked_for_the_records_own_partition(plant: Plant) -> None:
    plant.around.known[1, "p-1"] = hash_of(record())
    assert (await plant.process(record())).outcome is Outcome.PROCESSED


async def test_a_table_that_fails_knows_nothing_and_is_in_nobodys_way(plant: Plant) -> None:
    plant.around.known_error = OSError("the disk")
    assert (await plant.process(record())).outcome is Outcome.PROCESSED
    assert (await plant.process(record(offset=1))).outcome is Outcome.DUPLICATE
    assert plant.around.of("defect") == [("worker", plant.around.known_error)] * 2
    assert plant.around.letters == []


async def test_another_payload_is_known_by_the_table(plant: Plant) -> None:
    plant.around.known[0, "p-1"] = b"another hash"
    assert await plant.process(record()) == Delivered(Outcome.DEAD_LETTERED)
    letter = letter_of(plant)
    assert (letter.reason, letter.processing_id) == (Reason.PAYLOAD_MISMATCH, "p-1")


async def test_a_repetition_is_known_by_the_database_and_marked_then(plant: Plant) -> None:
    await plant.process(record())
    plant.around.events.clear()
    again = record(offset=7, confidence=0.99, processing_time_ms=1)
    assert await plant.process(again) == Delivered(Outcome.DUPLICATE, "p-1", hash_of(again))
    assert plant.around.of("looked up") == [("rocksdb", "miss"), ("postgresql", "hit")]
    assert plant.bench.service.names() == ["order"]
    assert (await plant.bench.load()).source.offset == 0


async def test_another_payload_under_a_taken_id_is_never_merged(plant: Plant) -> None:
    await plant.process(record())
    before = await plant.bench.saga()
    delivered = await plant.process(record(offset=7, original_message="something else"))
    assert delivered == Delivered(Outcome.DEAD_LETTERED)
    letter = letter_of(plant)
    assert (letter.reason, letter.source.offset) == (Reason.PAYLOAD_MISMATCH, 7)
    assert "ai-results:0:0" in letter.message
    assert await plant.bench.saga() == before
    assert plant.bench.service.names() == ["order"]


async def test_another_payload_does_not_take_over_a_saga_under_way(plant: Plant) -> None:
    await interrupt(plant, record(), at=3)
    delivered = await plant.process(record(original_message="something else"))
    assert delivered == Delivered(Outcome.DEAD_LETTERED)
    assert (await plant.bench.load()).status == "RUNNING"
    assert plant.bench.service.names() == ["order"]


# Its saga is under way, or ended otherwise


@pytest.mark.parametrize("at", [2, 3, 4, 5])
async def test_a_record_that_comes_again_brings_its_saga_to_its_end(plant: Plant, at: int) -> None:
    given = record()
    await interrupt(plant, given, at)
    assert (await plant.bench.load()).status == "RUNNING"
    plant.handler.actions = ("note",)  # what would be planned now does not matter
    assert await plant.process(given) == Delivered(Outcome.PROCESSED, "p-1", hash_of(given))
    state = await plant.bench.load()
    assert (state.status, state.plan.actions) == ("COMPLETED", ("note", "order"))
    assert len(plant.bench.service.effects) == 1


async def test_a_saga_that_was_turning_back_goes_on_backward(plant: Plant) -> None:
    given = record()
    plant.handler.actions = ("order", "note")
    plant.bench.service.plan("order", Rejected("no"))
    await interrupt(plant, given, at=6)  # the write that turns it back is durable
    assert (await plant.bench.load()).status == "COMPENSATING"
    assert (await plant.process(given)).outcome is Outcome.DEAD_LETTERED
    assert (await plant.bench.load()).status == "COMPENSATED"
    assert plant.bench.service.names() == ["order"]


@pytest.mark.parametrize(
    "other",
    [
        record(offset=1),
        replace(record(), timestamp_ms=1),  # the topic was created anew
    ],
)
async def test_a_saga_under_way_from_another_record_is_left_to_it(
    plant: Plant, other: Record
) -> None:
    await interrupt(plant, record(), at=3)
    before = await plant.bench.saga()
    assert await plant.process(other) == Delivered(Outcome.DUPLICATE)
    assert await plant.bench.saga() == before
    assert plant.bench.service.names() == ["order"]


async def test_a_compensated_saga_was_dead_lettered_and_is_not_run_again(plant: Plant) -> None:
    given = record()
    plant.bench.service.plan("order", Rejected("no"))
    delivered = await plant.process(given)
    assert delivered == Delivered(Outcome.DEAD_LETTERED, "p-1", hash_of(given))
    assert [letter.reason for letter in await plant.bench.letters()] == ["step_rejected"]
    again = await plant.process(record(offset=7))
    assert again == Delivered(Outcome.DUPLICATE, "p-1", hash_of(given))
    assert plant.bench.service.names() == ["order"]
    assert len(await plant.bench.letters()) == 1
    assert plant.around.letters == []


async def test_a_stuck_saga_is_not_marked_as_seen(plant: Plant) -> None:
    """It is not at its end: the table would hide it from a record that may resume it."""
    plant.handler.actions = ("order", "note")
    given = record()
    plant.bench.service.plan("order", *(KeyError("a defect") for _ in range(4)))
    plant.bench.service.plan("order", Rejected("no"), undo=True)
    assert await plant.process(given) == Delivered(Outcome.DEAD_LETTERED, "p-1", None)
    assert [letter.reason for letter in await plant.bench.letters()] == ["compensation_stuck"]
    assert await plant.process(given) == Delivered(Outcome.DUPLICATE, "p-1", None)
    assert plant.bench.service.names() == ["order"] * 4 + ["-order"]


@pytest.mark.parametrize("status", ["COMPENSATED", "STUCK"])
async def test_when_the_record_of_a_failed_saga_is_finished_its_letter_exists(
    plant: Plant, status: str
) -> None:
    """Whenever its worker died: before, within or after the commit that ends the saga, the next
    delivery returns, and so is acknowledged, with the one letter in the outbox or published."""
    bench, service = plant.bench, plant.bench.service
    for at in range(1, 99):
        service.script.clear()
        service.plan("order", LostAnswer(), *(Rejected("no") for _ in range(9)))
        if status == "STUCK":
            service.plan("order", *(Rejected("no") for _ in range(9)), undo=True)
        given = record(at, processing_id=f"p-{at}")
        await interrupt(plant, given, at)
        ended = len(await bench.letters()) == at
        await bench.pool.execute("update outbox set published_at = now()")
        delivered = await plant.process(given)
        assert (await bench.saga(f"p-{at}"))["status"] == status
        letters = (await bench.letters())[at - 1 :]
        assert [(letter.processing_id, letter.action) for letter in letters] == [(f"p-{at}", "")]
        if ended:
            assert delivered.outcome is Outcome.DUPLICATE
            break
        assert delivered.outcome is Outcome.DEAD_LETTERED
    assert at > 8, "the last of these deaths came after the end"


async def test_what_is_dead_lettered_directly_is_finished_with_the_brokers_acknowledgement(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, acknowledged = asyncio.Event(), asyncio.Event()

    async def publish(letter: Record) -> None:
        asked.set()
        await acknowledged.wait()

    monkeypatch.setattr(plant.around, "publish", publish)
    delivery = asyncio.create_task(plant.process(INVALID))
    await asyncio.wait_for(asked.wait(), 20)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not delivery.done()
    acknowledged.set()
    assert (await delivery).outcome is Outcome.DEAD_LETTERED


async def test_an_outage_in_the_middle_is_not_the_messages_fault(
    bench: Bench, database: str
) -> None:
    """The database goes in the call and comes back: the record waits, no attempt is spent, and
    nothing is dead-lettered."""
    async with proxy_to(database) as proxy, running_journal(proxy.dsn) as journal:
        plant = Plant(replace(bench, journal=journal))
        called = 0

        async def go(call: Call) -> None:
            nonlocal called
            called += 1
            proxy.refuse()

        bench.service.before = go
        delivery = asyncio.create_task(plant.process(record()))
        await until(lambda: proxy.refused >= 3)
        assert not delivery.done()
        assert plant.around.letters == []
        proxy.accept()
        assert (await asyncio.wait_for(delivery, 20)).outcome is Outcome.PROCESSED
    assert called == 1
    assert (await bench.step(1))["attempts"] == 1
    assert await bench.letters() == []
