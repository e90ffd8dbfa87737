"""The relay on the real outbox: across crashes and owners, and around rows that are refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiokafka.errors import MessageSizeTooLargeError

from streamapp.services.errors import Rejected
from streamapp.storage.dead_letters import DeadLetterStore
from streamapp.storage.health import DatabaseHealth
from streamapp.storage.outbox import Outbox
from streamapp.worker.producer import BrokerHealth, DeadLetterProducer
from streamapp.worker.relay import OutboxRelay
from tests.support.bench import Bench, running_bench
from tests.support.sagas import DLQ, GROUP, OUTBOUND, TOPIC, external, own, saga
from tests.support.waiting import until
from tests.worker.publishing import FakeProducer


@pytest.fixture
async def bench(database: str) -> AsyncIterator[Bench]:
    async with running_bench(database) as bench:
        yield bench


class Relay:
    """One owner's relay to one topic."""

    def __init__(self, bench: Bench, topic: str = OUTBOUND) -> None:
        self.producer, self.refused = FakeProducer(), 0
        broker, database = BrokerHealth(), DatabaseHealth()
        epochs = {0: bench.epoch}
        self._relay = OutboxRelay(
            Outbox(bench.pool, GROUP, TOPIC),
            self.producer,  # type: ignore[arg-type]
            DeadLetterProducer(
                self.producer,  # type: ignore[arg-type]
                DeadLetterStore(bench.pool),
                DLQ,
                broker,
                database,
            ),
            topic=topic,
            dlq_topic=DLQ,
            interval=0.0,
            epochs=lambda: epochs,
            broker=broker,
            database=database,
            on_refused=self._refuse,
        )

    def _refuse(self) -> None:
        self.refused += 1

    async def round(self) -> list[bytes | None]:
        """What is published by it."""
        before = len(self.producer.sent)
        async with asyncio.timeout(20):
            await self._relay.round()
        return self.producer.values[before:]


async def reply(bench: Bench, number: int) -> None:
    """A message of the one lead that is replied to."""
    state = saga(own("a", reply=1), processing_id=f"p-{number}", offset=number)
    assert (await bench.deliver(state)).status == "COMPLETED"


def numbers(values: list[bytes | None]) -> list[int]:
    return [n for value in values for n in range(9) if value and b'"reply-p-%d"' % n in value]


async def test_a_crash_between_the_send_and_its_mark_sends_again_the_same_and_in_order(
    bench: Bench,
) -> None:
    for number in (1, 2, 3):
        await reply(bench, number)
    dying = Relay(bench)
    dying.producer.hold = lambda sent: b"reply-p-2" in (sent[2] or b"")
    turn = asyncio.create_task(dying.round())
    await until(lambda: len(dying.producer.sent) == 3)
    turn.cancel()
    await asyncio.wait([turn])
    await bench.take_over()
    await reply(bench, 4)
    successor = Relay(bench)
    published = await successor.round()
    assert numbers(published) == [1, 2, 3, 4]
    assert published[:3] == dying.producer.values, "byte for byte"
    assert await successor.round() == []


async def test_a_relay_that_was_fenced_marks_nothing(bench: Bench) -> None:
    """What it sends is a repetition; a mark of its own could hide a row from its owner."""
    await reply(bench, 1)
    fenced = Relay(bench)
    fenced.producer.hold = lambda sent: True
    turn = asyncio.create_task(fenced.round())
    await until(lambda: len(fenced.producer.held) == 1)
    await bench.take_over()
    fenced.producer.held[0].set_result(None)
    await turn
    assert await fenced.round() == []
    assert numbers(await Relay(bench).round()) == [1]


async def test_a_row_that_the_broker_refuses_is_set_aside_alone(bench: Bench) -> None:
    for number in (1, 2, 3):
        await reply(bench, number)
    relay = Relay(bench)
    relay.producer.later = lambda sent: (
        MessageSizeTooLargeError() if b"reply-p-2" in (sent[2] or b"") else None
    )
    await relay.round()
    assert relay.refused == 1
    rows = await bench.pool.fetch(
        "select record_id, published_at is not null as published, error from outbox order by id"
    )
    assert [(row["record_id"], row["published"]) for row in rows] == [
        ("reply-p-1", True),
        ("reply-p-2", False),
        ("reply-p-3", True),
    ]
    assert rows[1]["error"].startswith("MessageSizeTooLargeError")
    assert await Relay(bench).round() == [], "for people to look at"


async def test_a_sagas_letter_that_is_too_large_for_the_broker_goes_into_the_table(
    bench: Bench,
) -> None:
    """Its partition goes on, and the letter is where people look."""
    bench.service.plan("a", Rejected("no"))
    await bench.deliver(saga(external("a")))
    relay = Relay(bench, DLQ)
    relay.producer.at_once = lambda sent: MessageSizeTooLargeError()
    assert await relay.round() == []
    assert relay.refused == 0
    row = await bench.pool.fetchrow("select * from dead_letter_queue")
    assert row is not None
    assert (row["message_id"], row["reason"]) == ("p-1", "step_rejected")
    assert row["original_value"] == b'{"raw": "bytes"}'
    assert await Relay(bench, DLQ).round() == []
