"""Dead letters: to the topic; smaller where they are too large; else into the table."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    InvalidTopicError,
    KafkaConnectionError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from streamapp.pipeline.dead_letter import PREFIX, dead_letter, dead_letter_headers, parse_headers
from streamapp.pipeline.outcomes import Reason, Record
from streamapp.saga.model import Source
from streamapp.settings import load
from streamapp.storage import health
from streamapp.storage.health import DatabaseHealth
from streamapp.worker import producer as module
from streamapp.worker.producer import BrokerHealth, DeadLetterProducer, Producer
from tests.worker.fakes import DEADLINE, eventually, settled
from tests.worker.publishing import Answer, FakeProducer, FakeStore, Sent

TRACE = PREFIX + "stacktrace"


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    for where in (module, health):
        monkeypatch.setattr(where, "FIRST_BACKOFF", 0.0)
        monkeypatch.setattr(where, "MAX_BACKOFF", 0.0)


def letter(trace: str = "Traceback ...") -> Record:
    made = dead_letter(
        Source("ai-results", 3, 17, 1_700_000_000_000),
        reason=Reason.HANDLER_ERROR,
        group="streamapp",
        message="a defect",
        stacktrace=trace,
    )
    headers = dead_letter_headers((("own", b"1"), ("own", b"2")), made)
    return Record("ai-results", 3, 17, 1_700_000_000_000, b"\xffkey", b"\x00value", headers)


class Bench:
    def __init__(self) -> None:
        self.producer, self.store = FakeProducer(), FakeStore()
        self.broker, self.database = BrokerHealth(), DatabaseHealth()
        self.sink = DeadLetterProducer(
            self.producer,  # type: ignore[arg-type]
            self.store,  # type: ignore[arg-type]
            "dead-letters",
            self.broker,
            self.database,
        )

    async def publish(self, record: Record) -> None:
        await asyncio.wait_for(self.sink.publish(record), DEADLINE)


def has_trace(sent: Sent) -> bool:
    return bool(dict(sent[3])[TRACE])


async def test_a_letter_is_the_records_own_bytes() -> None:
    bench, record = Bench(), letter()
    await bench.publish(record)
    assert bench.producer.sent == [("dead-letters", b"\xffkey", b"\x00value", record.headers)]
    assert bench.store.stored == []


async def test_published_means_acknowledged_by_the_broker() -> None:
    bench = Bench()
    bench.producer.hold = lambda sent: True
    publishing = asyncio.create_task(bench.sink.publish(letter()))
    await settled()
    assert bench.producer.sent
    assert not publishing.done()
    bench.producer.held[0].set_result(None)
    await asyncio.wait_for(publishing, DEADLINE)


async def test_a_silent_broker_counts_as_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE", 0.001)
    bench = Bench()
    bench.producer.hold = lambda sent: True
    publishing = asyncio.create_task(bench.sink.publish(letter()))
    await eventually(lambda: not bench.broker.available)
    assert not publishing.done()
    assert len(bench.producer.sent) == 1, "the producer repeats by itself"
    bench.producer.held[0].set_result(None)
    await asyncio.wait_for(publishing, DEADLINE)
    assert bench.broker.available


@pytest.mark.parametrize("error", [MessageSizeTooLargeError(), RecordListTooLargeError()])
@pytest.mark.parametrize("refuses", ["at_once", "later"])
async def test_a_letter_too_large_loses_its_stack_trace(error: BaseException, refuses: str) -> None:
    bench, record = Bench(), letter()

    def answer(sent: Sent) -> Answer:
        return error if has_trace(sent) else None

    setattr(bench.producer, refuses, answer)
    await bench.publish(record)
    topic, key, value, headers = bench.producer.sent[-1]
    assert (topic, key, value) == ("dead-letters", record.key, record.value)
    assert dict(headers) == dict(record.headers) | {TRACE: b""}
    assert headers[:2] == (("own", b"1"), ("own", b"2"))
    assert bench.store.stored == []
    assert bench.broker.available


@pytest.mark.parametrize("trace", ["Traceback ...", ""])
async def test_what_is_still_too_large_goes_into_the_table(trace: str) -> None:
    bench, record = Bench(), letter(trace)
    bench.producer.at_once = lambda sent: MessageSizeTooLargeError()
    await bench.publish(record)
    assert bench.producer.sent == []
    assert bench.store.stored == [(record, parse_headers(record.headers))]
    stored = bench.store.stored[0][1]
    assert stored is not None
    assert stored.stacktrace == trace


async def test_what_the_client_cannot_send_goes_into_the_table() -> None:
    bench, record = Bench(), letter()
    bench.producer.at_once = lambda sent: AssertionError("what the client did not expect")
    await bench.publish(record)
    assert [stored for stored, _ in bench.store.stored] == [record]
    assert bench.broker.available


async def test_the_way_into_the_table_waits_while_the_database_is_away() -> None:
    bench = Bench()
    bench.producer.at_once = lambda sent: MessageSizeTooLargeError()
    bench.store.away = ConnectionRefusedError()
    publishing = asyncio.create_task(bench.sink.publish(letter()))
    await eventually(lambda: bench.store.tried > 3)
    assert not publishing.done()
    assert not bench.database.available
    bench.store.away = None
    await asyncio.wait_for(publishing, DEADLINE)
    assert len(bench.store.stored) == 1
    assert bench.database.available


@pytest.mark.parametrize("error", [InvalidTopicError("bad"), TopicAuthorizationFailedError("no")])
@pytest.mark.parametrize("refuses", ["at_once", "later"])
async def test_a_letter_that_may_not_be_written_goes_into_the_table(
    error: BaseException, refuses: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench, record = Bench(), letter()
    setattr(bench.producer, refuses, lambda sent: error)
    for _ in range(3):
        await bench.publish(record)
    assert [stored for stored, _ in bench.store.stored] == [record] * 3
    assert bench.broker.available, "it takes the others"
    assert [line.levelname for line in caplog.records] == ["ERROR"], "once a minute"


async def test_a_letter_for_a_topic_that_does_not_exist_goes_into_the_table() -> None:
    bench, record = Bench(), letter()
    bench.producer.at_once = lambda sent: UnknownTopicOrPartitionError()
    bench.producer.gone = {"dead-letters"}
    await bench.publish(record)
    assert [stored for stored, _ in bench.store.stored] == [record]


async def test_a_letter_whose_topic_goes_away_under_it_goes_into_the_table(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SILENCE", 0.001)
    bench, record = Bench(), letter()
    bench.producer.hold = lambda sent: True
    publishing = asyncio.create_task(bench.sink.publish(record))
    await eventually(lambda: not bench.broker.available)
    assert bench.store.stored == [], "the broker may be away as well"
    bench.producer.gone = {"dead-letters"}
    await asyncio.wait_for(publishing, DEADLINE)
    assert [stored for stored, _ in bench.store.stored] == [record]


@pytest.mark.parametrize("refuses", ["at_once", "later"])
async def test_a_broker_that_is_away_is_waited_for(refuses: str) -> None:
    bench, record, tried = Bench(), letter(), list[Sent]()
    away = True

    def answer(sent: Sent) -> Answer:
        tried.append(sent)
        return KafkaTimeoutError() if away else None

    setattr(bench.producer, refuses, answer)
    publishing = asyncio.create_task(bench.sink.publish(record))
    await eventually(lambda: len(tried) > 3)
    assert not publishing.done()
    assert not bench.broker.available
    away = False
    await asyncio.wait_for(publishing, DEADLINE)
    assert bench.broker.available
    assert bench.producer.sent[-1][3] == record.headers, "an outage costs no stack trace"
    assert bench.store.stored == []


def test_an_outage_of_the_broker_is_said_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 0.0
    broker = BrokerHealth(clock=lambda: now)
    assert broker.available
    caplog.set_level(logging.INFO, "streamapp.producer")
    for _ in range(110):
        broker.report("topic", KafkaConnectionError("no route"))
        now += 1.0
    assert not broker.available
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "no route" in caplog.text
    broker.report("topic", None)
    broker.report("topic", None)
    assert broker.available
    assert len(caplog.records) == 3
    broker.report("topic", KafkaConnectionError("no route"))
    assert len(caplog.records) == 3, "one that was not really back"
    broker.report("topic", None)
    assert len(caplog.records) == 3, "nor is the return said of what was not said to be away"
    now += 6.0
    broker.report("topic", KafkaConnectionError("no route"))
    assert len(caplog.records) == 4, "the next outage is said at once"


def test_each_topic_is_away_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    """One that is missing is not away and back with every record that another one takes."""
    broker = BrokerHealth(clock=lambda: 0.0)
    for _ in range(100):
        broker.report("missing", KafkaConnectionError("none"))
        broker.report("taken", None)
    assert not broker.available
    assert broker.away == ["missing"]
    assert len(caplog.records) == 1
    broker.report("missing", None)
    assert broker.available


async def test_the_producer_waits_for_all_replicas_and_keeps_the_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: dict[str, Any] = {}

    class Client:
        _message_accumulator = SimpleNamespace()
        _sender = SimpleNamespace(_send_produce_req=None)
        _txn_manager = None

        def __init__(self, **options: Any) -> None:
            given.update(options)

        async def start(self) -> None:
            given["started"] = True

        async def stop(self) -> None:
            given["started"] = False

        async def send(self, topic: str, **record: Any) -> asyncio.Future[object]:
            given["record"] = (topic, record)
            return asyncio.get_running_loop().create_future()

    monkeypatch.setattr(module, "AIOKafkaProducer", Client)
    settings = load({"STREAMAPP_MAX_PAYLOAD_BYTES": "2000000"})
    producer = Producer(settings)
    await producer.stop()
    await producer.start()
    assert given["acks"] == "all"
    assert given["enable_idempotence"] is True
    # The largest dead letter fits: its record and what its headers add.
    assert given["max_request_size"] >= settings.max_payload_bytes + 64 * 1024
    future = await producer.send("topic", None, b"value", (("a", b"1"), ("a", b"2")))
    assert not future.done()
    assert given["record"] == (
        "topic",
        {
            "key": None,
            "value": b"value",
            "partition": None,
            "headers": [("a", b"1"), ("a", b"2")],
        },
    )
    await producer.stop()
    assert given["started"] is False
