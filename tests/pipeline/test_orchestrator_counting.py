"""Released deliveries, errors of the AI, and that the counters add up."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import pytest

from streamapp.pipeline.orchestrator import Delivered
from streamapp.pipeline.outcomes import Outcome, Record
from streamapp.saga.model import Fenced
from streamapp.services.errors import Rejected
from tests.pipeline.pipelines import Plant, raw_record, record
from tests.support.bench import Bench
from tests.support.sagas import Call


@pytest.fixture
def plant(bench: Bench) -> Plant:
    return Plant(bench)


# Released


async def test_a_delivery_whose_partition_is_gone_is_released(plant: Plant) -> None:
    plant.around.lost = True
    with pytest.raises(Fenced):
        await plant.process(record())
    assert plant.outcomes() == ["released"]
    assert plant.around.letters == []
    assert await plant.bench.journal.load("p-1") is None


async def test_a_fenced_delivery_is_released(plant: Plant) -> None:
    async def lose(call: Call) -> None:
        epoch = plant.bench.epoch
        await plant.bench.take_over()
        plant.bench.epoch = epoch

    plant.bench.service.before = lose
    with pytest.raises(Fenced):
        await plant.process(record())
    assert plant.outcomes() == ["released"]
    assert plant.around.letters == []
    assert plant.around.of("defect") == []


async def test_a_cancelled_delivery_is_released(plant: Plant) -> None:
    arrived = asyncio.Event()

    async def hang(call: Call) -> None:
        arrived.set()
        await asyncio.Event().wait()

    plant.bench.service.before = hang
    delivery = asyncio.create_task(plant.process(record()))
    await arrived.wait()
    assert plant.pipeline.active == 1
    delivery.cancel()
    with pytest.raises(asyncio.CancelledError):
        await delivery
    assert plant.pipeline.active == 0
    assert plant.outcomes() == ["released"]


# ai.error


def error(offset: int = 0, event_id: str | None = "e-1", **changes: str) -> Record:
    payload = {
        "lead_id": "lead-1",
        "business_id": "business-1",
        "error_type": "timeout",
        "error_message": "no answer",
    } | changes
    document = {"event_type": "ai.error", "event_id": event_id, "payload": payload}
    return raw_record(json.dumps(document).encode(), offset)


async def test_an_error_of_the_ai_becomes_a_row_of_the_leads_history(plant: Plant) -> None:
    delivered = await plant.process(error())
    assert delivered.outcome is Outcome.PROCESSED
    (row,) = await plant.bench.pool.fetch("select * from lead_activities")
    assert (row["lead_id"], row["business_id"]) == ("lead-1", "business-1")
    assert (row["activity_type"], row["activity_description"]) == ("ai_error", "timeout: no answer")
    assert plant.around.of("asked") == []  # it belongs to whoever has the lead


async def test_the_same_event_is_one_error_whatever_it_says(plant: Plant) -> None:
    first = await plant.process(error())
    assert first.processing_id is not None
    again = await plant.process(error(offset=1, error_message="no answer at all"))
    assert again == Delivered(Outcome.DUPLICATE, first.processing_id, first.seen)
    assert first.seen is not None
    plant.around.known[0, first.processing_id] = first.seen
    assert await plant.process(error(offset=2)) == Delivered(Outcome.DUPLICATE)
    assert await plant.bench.pool.fetchval("select count(*) from lead_activities") == 1


async def test_errors_without_an_event_id_are_told_apart_by_their_records(plant: Plant) -> None:
    outcomes = [(await plant.process(error(offset, event_id=None))).outcome for offset in (0, 1, 0)]
    assert outcomes == ["processed", "processed", "duplicate"]


# Counting


async def test_the_counters_add_up(plant: Plant) -> None:
    """received = processed + duplicate + dead_lettered + released + in flight."""
    plant.bench.service.plan("order", {}, Rejected("no"))
    arrived = asyncio.Event()

    async def hang(call: Call) -> None:
        if call.processing_id == "hangs":
            arrived.set()
            await asyncio.Event().wait()

    plant.bench.service.before = hang
    await plant.process(record())  # processed
    await plant.process(record(1, processing_id="p-2"))  # dead-lettered by its saga
    await plant.process(record(2))  # duplicate
    await plant.process(raw_record(b"no JSON", 3))  # dead-lettered
    await plant.process(error(4))  # processed
    await plant.process(error(5))  # duplicate
    await plant.process(record(6, original_message="another"))  # dead-lettered
    plant.handler.error = KeyError("a defect")
    await plant.process(record(7, processing_id="p-3"))  # dead-lettered
    plant.handler.error = None
    hangs = asyncio.create_task(plant.process(record(8, processing_id="hangs")))
    await arrived.wait()
    plant.around.lost = True
    with pytest.raises(Fenced):
        await plant.process(record(9, processing_id="p-4"))  # released
    assert len(plant.around.of("received")) == 10
    assert Counter(plant.outcomes()) == {
        "processed": 2,
        "dead_lettered": 4,
        "duplicate": 2,
        "released": 1,
    }
    assert plant.pipeline.active == 1
    hangs.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hangs
    assert len(plant.outcomes()) == 10
    assert plant.pipeline.active == 0
    # Each outcome is counted once, also where the saga wrote the letter itself.
    assert plant.around.of("letter") == [
        ("invalid_payload",),
        ("payload_mismatch",),
        ("handler_error",),
    ]
    assert plant.bench.observer.of("letter") == [("step_rejected",)]


async def test_a_saga_that_meets_its_end_in_many_ways_is_delivered_once_each(
    plant: Plant,
) -> None:
    records = [record(n, processing_id=f"p-{n % 4}") for n in range(20)]
    outcomes = Counter(
        delivered.outcome
        for delivered in await asyncio.gather(*(plant.process(each) for each in records))
    )
    assert outcomes == {"processed": 4, "duplicate": 16}
    assert len(plant.bench.service.effects) == 4
