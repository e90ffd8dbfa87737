"""The outbox relay: in order, marked once acknowledged, one refused row stops no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka.errors import (
    InvalidTopicError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from streamapp.pipeline.dead_letter import dead_letter, dead_letter_headers
from streamapp.pipeline.outcomes import Headers, Reason, Record
from streamapp.saga.model import OutboxRecord, Source
from streamapp.storage.health import DatabaseHealth
from streamapp.storage.outbox import Unpublished
from streamapp.worker import relay as module
from streamapp.worker.producer import BrokerHealth, DeadLetterProducer
from streamapp.worker.relay import OutboxRelay
from tests.worker.fakes import DEADLINE, eventually, settled
from tests.worker.publishing import Answer, FakeProducer, FakeStore, Sent

OUTBOUND, DLQ = "whatsapp-outbound", "ai-results-dlq"


class FakeOutbox:
    """Rows in memory; every call says under which epochs it was made."""

    def __init__(self, rows: Sequence[Unpublished] = ()) -> None:
        self.rows = {row.row_id: row for row in rows}
        self.published: list[int] = []
        self.failed: dict[int, str] = {}
        self.epochs: list[dict[int, int]] = []
        self.looks = 0
        self.away: BaseException | None = None
        self.mark_away: BaseException | None = None
        self.during: Callable[[], None] | None = None  # called after rows were read

    async def unpublished(
        self, epochs: Mapping[int, int], topic: str, held: Sequence[int], limit: int
    ) -> list[Unpublished]:
        self.looks += 1
        if self.away is not None:
            raise self.away
        left = [
            row
            for row_id, row in sorted(self.rows.items())
            if row.partition in epochs
            and row.record.topic == topic
            and row_id not in held
            and row_id not in self.published
            and row_id not in self.failed
        ]
        await asyncio.sleep(0)
        if self.during is not None:
            self.during()
            self.during = None
        return left[:limit]

    async def mark_published(self, epochs: Mapping[int, int], row_ids: Sequence[int]) -> None:
        await asyncio.sleep(0)
        if self.mark_away is not None:
            raise self.mark_away
        self.epochs.append(dict(epochs))
        self.published += sorted(row_ids)

    async def mark_failed(self, epochs: Mapping[int, int], row_id: int, error: str) -> None:
        self.epochs.append(dict(epochs))
        self.failed[row_id] = error


def row(
    number: int, *, topic: str = OUTBOUND, partition: int = 0, headers: Headers = ()
) -> Unpublished:
    record = OutboxRecord(f"id-{number}", topic, b"lead", b"%d" % number, headers)
    return Unpublished(number, partition, record)


class Bench:
    def __init__(self, rows: Sequence[Unpublished], topic: str = OUTBOUND) -> None:
        self.outbox, self.producer, self.store = FakeOutbox(rows), FakeProducer(), FakeStore()
        self.broker, self.database = BrokerHealth(), DatabaseHealth()
        self.owned = {0: 7}
        self.refused = 0
        sink = DeadLetterProducer(
            self.producer,  # type: ignore[arg-type]
            self.store,  # type: ignore[arg-type]
            DLQ,
            self.broker,
            self.database,
        )
        self.relay = OutboxRelay(
            self.outbox,  # type: ignore[arg-type]
            self.producer,  # type: ignore[arg-type]
            sink,
            topic=topic,
            dlq_topic=DLQ,
            interval=3600.0,
            epochs=lambda: self.owned,
            broker=self.broker,
            database=self.database,
            on_refused=self._count,
        )

    def _count(self) -> None:
        self.refused += 1

    async def round(self) -> bool:
        return await asyncio.wait_for(self.relay.round(), DEADLINE)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.relay.run())
        try:
            yield
        finally:
            assert not task.done()
            task.cancel()


def refuse(*values: int, error: BaseException) -> dict[bytes | None, BaseException]:
    return {b"%d" % value: error for value in values}


async def test_rows_are_published_in_order_as_they_are_and_marked() -> None:
    headers = (("traceparent", b"00-1"), ("twice", b"1"), ("twice", b"2"))
    bench = Bench([row(2), row(1, headers=headers), row(3)])
    assert await bench.round() is False
    assert bench.producer.sent == [
        (OUTBOUND, b"lead", b"1", headers),
        (OUTBOUND, b"lead", b"2", ()),
        (OUTBOUND, b"lead", b"3", ()),
    ]
    assert bench.outbox.published == [1, 2, 3]
    assert bench.outbox.epochs == [{0: 7}]
    assert not bench.outbox.failed


async def test_nothing_is_marked_before_it_is_acknowledged() -> None:
    bench = Bench([row(1), row(2)])
    bench.producer.hold = lambda sent: sent[2] == b"2"
    turn = asyncio.create_task(bench.relay.round())
    await settled()
    assert len(bench.producer.sent) == 2
    assert bench.outbox.published == []
    bench.producer.held[0].set_result(None)
    await asyncio.wait_for(turn, DEADLINE)
    assert bench.outbox.published == [1, 2]


async def test_marks_are_made_under_the_epochs_of_the_look() -> None:
    bench = Bench([row(1)])
    bench.producer.hold = lambda sent: True
    turn = asyncio.create_task(bench.relay.round())
    await settled()
    bench.owned[0] = 8  # a later ownership must not mark what an earlier one read
    bench.producer.held[0].set_result(None)
    await asyncio.wait_for(turn, DEADLINE)
    assert bench.outbox.epochs == [{0: 7}]


async def test_rows_for_other_topics_are_another_relays() -> None:
    bench = Bench([row(1), row(2, topic=DLQ)])
    await bench.round()
    assert bench.producer.values == [b"1"]


async def test_partitions_of_others_are_left_alone() -> None:
    bench = Bench([row(1, partition=0), row(2, partition=1)])
    await bench.round()
    assert bench.producer.values == [b"1"]
    bench.owned.clear()
    assert await bench.round() is False
    assert bench.outbox.looks == 1, "who owns nothing does not ask"


@pytest.mark.parametrize(
    "error",
    [MessageSizeTooLargeError(), InvalidTopicError("bad"), TopicAuthorizationFailedError("no")],
)
@pytest.mark.parametrize("refuses", ["at_once", "later"])
async def test_a_refused_row_is_set_aside_and_the_next_go_on(
    error: BaseException, refuses: str
) -> None:
    bench = Bench([row(1), row(2), row(3)])
    setattr(bench.producer, refuses, lambda sent: refuse(2, error=error).get(sent[2]))
    await bench.round()
    assert bench.outbox.published == [1, 3]
    assert list(bench.outbox.failed) == [2]
    assert type(error).__name__ in bench.outbox.failed[2]
    assert bench.refused == 1
    assert bench.broker.available, "it is not the broker's fault"
    assert bench.store.stored == []
    await bench.round()
    assert bench.outbox.published == [1, 3]


@pytest.mark.parametrize(
    "error",
    [MessageSizeTooLargeError(), InvalidTopicError("bad"), TopicAuthorizationFailedError("no")],
)
@pytest.mark.parametrize("refuses", ["at_once", "later"])
async def test_a_dead_letter_that_is_refused_goes_into_the_table(
    error: BaseException, refuses: str
) -> None:
    made = dead_letter(
        Source("ai-results", 0, 5, 1), reason=Reason.STEP_REJECTED, group="g", message="no"
    )
    headers = dead_letter_headers((), made)
    bench = Bench([row(1, topic=DLQ, headers=headers), row(2, topic=DLQ)], DLQ)
    setattr(bench.producer, refuses, lambda sent: refuse(1, error=error).get(sent[2]))
    await bench.round()
    assert bench.store.stored == [(Record(DLQ, 0, 0, 0, b"lead", b"1", headers), made)]
    assert sorted(bench.outbox.published) == [1, 2]
    assert not bench.outbox.failed
    assert bench.refused == 0


async def test_an_outage_at_once_stops_the_round_before_the_next_row() -> None:
    bench = Bench([row(1), row(2), row(3)])
    errors = refuse(2, error=KafkaTimeoutError())
    bench.producer.at_once = lambda sent: errors.get(sent[2])
    assert await bench.round() is False
    assert bench.producer.values == [b"1"], "nothing overtakes the one that waits"
    assert bench.outbox.published == [1]
    errors.clear()
    await bench.round()
    assert bench.producer.values == [b"1", b"2", b"3"]
    assert bench.outbox.published == [1, 2, 3]
    assert bench.broker.available


@pytest.mark.parametrize("refuses", ["at_once", "later"])
async def test_a_broker_outage_marks_nothing_and_is_retried(refuses: str) -> None:
    bench = Bench([row(1), row(2)])
    away: Answer = KafkaError("away")

    def answer(sent: Sent) -> Answer:
        return away

    setattr(bench.producer, refuses, answer)
    assert await bench.round() is False
    assert bench.outbox.published == []
    assert not bench.outbox.failed
    assert not bench.broker.available
    away = None
    await bench.round()
    assert bench.outbox.published == [1, 2]
    assert bench.broker.available


async def test_a_silent_broker_counts_as_away_and_gets_nothing_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "ACK_WITHIN", 0.001)
    monkeypatch.setattr(module, "STALLED_WITHIN", 0.001)
    bench = Bench([row(1), row(2)])
    bench.producer.hold = lambda sent: sent[2] == b"1"
    for _ in range(3):
        assert await bench.round() is False
    assert bench.producer.values == [b"1", b"2"], "the producer repeats by itself"
    assert bench.outbox.published == [2]
    assert not bench.broker.available
    bench.producer.held[0].set_result(None)
    await bench.round()
    assert bench.outbox.published == [2, 1]
    assert bench.broker.available
    assert len(bench.producer.values) == 2


async def test_a_send_that_hangs_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ACK_WITHIN", 0.001)
    bench = Bench([row(1)])
    send = bench.producer.send

    async def hang(*record: Any) -> asyncio.Future[object]:
        return await asyncio.Future[asyncio.Future[object]]()

    monkeypatch.setattr(bench.producer, "send", hang)
    assert await bench.round() is False
    assert not bench.broker.available
    monkeypatch.setattr(bench.producer, "send", send)
    await bench.round()
    assert bench.outbox.published == [1]


async def test_what_the_broker_has_not_acknowledged_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "ACK_WITHIN", 0.001)
    monkeypatch.setattr(module, "STALLED_WITHIN", 0.001)
    monkeypatch.setattr(module, "BATCH", 2)
    monkeypatch.setattr(module, "MAX_PENDING", 5)
    bench = Bench([row(number) for number in range(9)])
    bench.producer.hold = lambda sent: True
    for _ in range(6):
        await bench.round()
    assert bench.producer.values == [b"0", b"1", b"2", b"3", b"4"]
    bench.producer.hold = lambda sent: False
    for held in bench.producer.held:
        held.set_result(None)
    for _ in range(4):
        await bench.round()
    assert bench.outbox.published == list(range(9))
    assert len(bench.producer.values) == 9


async def test_what_could_not_be_marked_is_not_sent_again() -> None:
    bench = Bench([row(1)])
    bench.outbox.mark_away = ConnectionResetError()
    for _ in range(2):
        with pytest.raises(ConnectionResetError):
            await bench.round()
    bench.outbox.mark_away = None
    bench.outbox.rows[2] = row(2)
    await bench.round()
    assert bench.outbox.published == [1, 2]
    assert bench.producer.values == [b"1", b"2"]


async def test_a_full_round_is_followed_by_the_next_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BATCH", 3)
    bench = Bench([row(number) for number in range(10)])
    async with bench.running():
        await eventually(lambda: len(bench.outbox.published) == 10)
    assert bench.outbox.published == list(range(10))
    assert bench.producer.values == [b"%d" % number for number in range(10)]


async def test_a_full_round_in_an_outage_is_not_followed_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BATCH", 2)
    bench = Bench([row(1), row(2)])
    bench.producer.later = lambda sent: KafkaError("away")
    assert await bench.round() is False


async def test_an_announced_row_does_not_wait_for_the_next_look() -> None:
    bench = Bench([])
    async with bench.running():
        await eventually(lambda: bench.outbox.looks == 1)
        await settled()
        assert bench.outbox.looks == 1
        bench.outbox.rows[1] = row(1)
        bench.relay.announce()
        await eventually(lambda: bench.outbox.published == [1])


async def test_a_row_that_nobody_announced_is_found_by_the_next_look() -> None:
    bench = Bench([])
    bench.relay._interval = 0.001
    async with bench.running():
        await eventually(lambda: bench.outbox.looks > 1)
        bench.outbox.rows[1] = row(1)
        await eventually(lambda: bench.outbox.published == [1])


async def test_a_row_announced_while_its_round_runs_is_not_missed() -> None:
    bench = Bench([row(1)])
    bench.producer.hold = lambda sent: sent[2] == b"1"
    async with bench.running():
        await eventually(lambda: bench.producer.held)
        bench.outbox.rows[2] = row(2)
        bench.relay.announce()
        bench.producer.held[0].set_result(None)
        await eventually(lambda: bench.outbox.published == [1, 2])


@pytest.mark.parametrize("found", [0, 1])
async def test_a_row_announced_while_rows_are_read_is_not_missed(found: int) -> None:
    bench = Bench([row(1)][:found])

    def committed() -> None:
        bench.outbox.rows[2] = row(2)
        bench.relay.announce()

    bench.outbox.during = committed
    async with bench.running():
        await eventually(lambda: 2 in bench.outbox.published)


async def test_a_database_outage_ends_nothing() -> None:
    bench = Bench([row(1)])
    bench.relay._interval = 0.001
    bench.outbox.away = ConnectionResetError()
    async with bench.running():
        await eventually(lambda: bench.outbox.looks > 2)
        assert not bench.database.available
        bench.outbox.away = None
        await eventually(lambda: bench.outbox.published == [1])


@pytest.mark.parametrize("when", ["before", "under way"])
async def test_dead_letters_for_a_topic_that_is_gone_go_into_the_table(
    when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ACK_WITHIN", 0.01)
    bench = Bench([row(1, topic=DLQ), row(2, topic=DLQ)], DLQ)
    bench.producer.gone = {DLQ}
    if when == "before":
        bench.producer.at_once = lambda sent: UnknownTopicOrPartitionError()
    else:
        bench.producer.hold = lambda sent: True
    await bench.round()
    assert [record.value for record, _ in bench.store.stored] == [b"1", b"2"]
    assert bench.outbox.published == [1, 2]
    assert not bench.relay.waiting


async def test_replies_for_a_topic_that_is_gone_wait_for_it() -> None:
    bench = Bench([row(1), row(2)])
    bench.producer.gone = {OUTBOUND}
    bench.producer.at_once = lambda sent: UnknownTopicOrPartitionError()
    await bench.round()
    assert bench.outbox.published == []
    assert not bench.outbox.failed
    assert bench.relay.waiting
    assert bench.broker.away == [OUTBOUND]
    bench.producer.at_once = lambda sent: None
    await bench.round()
    assert bench.outbox.published == [1, 2]
    assert bench.broker.available
