"""Marking, then sending: what the broker says of it, and what is left where nobody answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from aiokafka.errors import KafkaConnectionError, MessageSizeTooLargeError

from streamapp.demo.kafka import EmbeddedKafka
from streamapp.pipeline.dead_letter import dead_letter, dead_letter_headers, parse_headers
from streamapp.pipeline.outcomes import Headers, Reason, Record
from streamapp.pipeline.redrive import Redrive, redrive_of
from streamapp.saga.model import Source
from streamapp.settings import load
from streamapp.storage.batch import headers_from_json, headers_to_json
from streamapp.storage.dead_letters import DeadLetterStore
from streamapp.storage.operations import Unknown
from streamapp.storage.redrives import Redrives
from streamapp.worker.producer import NoSuchPartition, Producer
from streamapp.worker.redrive import BrokerRefused, NotConfirmed, Redriver
from tests.kafka.job import read_all

TOPIC = "ai-results"
VALUE = b"no JSON"


class Sender:
    """Takes records, or answers with ``error``; with ``silent`` it never answers."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self.sent: list[tuple[Any, ...]] = []
        self.statuses: list[str] = []
        self.error: Exception | None = None
        self.later: Exception | None = None
        self.silent = False

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        partition: int | None = None,
    ) -> asyncio.Future[object]:
        self.statuses.append(await status(self._pool))
        if self.error is not None:
            raise self.error
        self.sent.append((topic, partition, key, value, redrive_of(headers)))
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        if self.later is not None:
            future.set_exception(self.later)
        elif not self.silent:
            future.set_result(SimpleNamespace(offset=17))
        return future


async def status(pool: Any) -> str:
    found: str = await pool.fetchval("select status from dead_letter_queue")
    return found


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Any]:
    pool = await asyncpg.create_pool(database, min_size=0, max_size=3)
    letter = dead_letter(
        Source(TOPIC, 2, 42, 1_700_000_000_000),
        reason=Reason.INVALID_PAYLOAD,
        group="streamapp",
        message="no JSON",
    )
    headers = dead_letter_headers((("own", b"\xff"),), letter)
    await DeadLetterStore(pool).store(Record("dlq", 0, 0, 1, b"lead", VALUE, headers), letter)
    yield pool
    await pool.close()


def redriver(pool: Any, sender: Any) -> Redriver:
    redrives = Redrives(pool, input_topic=TOPIC, max_payload_bytes=262_144)
    return Redriver(redrives, sender, ack_within=0.5)


async def letter_id(pool: Any) -> str:
    found: str = await pool.fetchval("select dead_letter_id from dead_letter_queue")
    return found


async def move_to_partition_1(pool: Any) -> None:
    """As if the letter had come from there."""
    headers = headers_from_json(await pool.fetchval("select headers from dead_letter_queue"))
    letter = parse_headers(headers)
    assert letter is not None
    moved = replace(letter, origin=replace(letter.origin, partition=1))
    await pool.execute(
        "update dead_letter_queue set headers = $1",
        headers_to_json(dead_letter_headers(headers, moved)),
    )


async def audited(pool: Any) -> list[str]:
    return [row["action"] for row in await pool.fetch("select * from audit_log order by audit_id")]


async def test_it_is_marked_before_it_is_sent_to_its_partition(pool: Any) -> None:
    sender, name = Sender(pool), await letter_id(pool)
    sent = await redriver(pool, sender).retry(name, "ann")
    assert sender.statuses == ["retrying"]
    assert sender.sent == [(TOPIC, 2, b"lead", VALUE, Redrive(name, -1, ""))]
    assert sent.to_json() == {
        "dead_letter_id": name,
        "message_id": f"{TOPIC}:2:42",
        "action": "",
        "run": -1,
        "redrive": name,
        "status": "retrying",
        "topic": TOPIC,
        "partition": 2,
        "offset": 17,
    }
    assert await audited(pool) == ["dlq.retry"]


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("error", [MessageSizeTooLargeError(), NoSuchPartition("no partition 2")])
async def test_refused_for_good_the_letter_stands_as_before(
    pool: Any, error: Exception, later: bool
) -> None:
    sender = Sender(pool)
    sender.error, sender.later = (None, error) if later else (error, None)
    with pytest.raises(BrokerRefused, match=type(error).__name__):
        await redriver(pool, sender).retry(await letter_id(pool), "ann")
    assert sender.statuses == ["retrying"]
    assert await status(pool) == "failed"
    assert await audited(pool) == ["dlq.retry", "dlq.retry.refused"]


@pytest.mark.parametrize("how", ["raises", "fails later", "is silent"])
async def test_without_an_answer_it_may_be_asked_for_again(pool: Any, how: str) -> None:
    sender, name = Sender(pool), await letter_id(pool)
    sender.silent = how == "is silent"
    if how == "raises":
        sender.error = KafkaConnectionError()
    if how == "fails later":
        sender.later = KafkaConnectionError()
    with pytest.raises(NotConfirmed, match="harmless"):
        await redriver(pool, sender).retry(name, "ann")
    assert await status(pool) == "retrying"
    sender.silent, sender.error, sender.later = False, None, None
    await redriver(pool, sender).retry(name, "ann")
    assert sender.sent[-1][4] == Redrive(name, -1, ""), "the same redrive as before"


async def test_a_crash_before_it_was_sent_leaves_a_letter_that_can_be_sent(pool: Any) -> None:
    class Dies(Sender):
        async def send(self, *_: Any, **__: Any) -> asyncio.Future[object]:
            raise asyncio.CancelledError

    name = await letter_id(pool)
    with pytest.raises(asyncio.CancelledError):
        await redriver(pool, Dies(pool)).retry(name, "ann")
    assert await status(pool) == "retrying"
    sender = Sender(pool)
    await redriver(pool, sender).retry(name, "ann")
    assert [sent[4] for sent in sender.sent] == [Redrive(name, -1, "")]


async def test_what_is_not_there_is_not_marked(pool: Any) -> None:
    with pytest.raises(Unknown):
        await redriver(pool, Sender(pool)).retry("nobody", "ann")
    assert await audited(pool) == []


async def test_on_a_broker(pool: Any, kafka: EmbeddedKafka) -> None:
    """To the recorded partition, whatever the key says; nothing of it if that is gone."""
    kafka.create_topic(TOPIC, 2)
    settings = load({"STREAMAPP_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap})
    producer = Producer(settings)
    await producer.start()
    try:
        name = await letter_id(pool)
        with pytest.raises(BrokerRefused, match="no partition 2"):
            await redriver(pool, producer).retry(name, "ann")
        assert await status(pool) == "failed"
        for partition in (0, 1):
            await producer.send(TOPIC, b"lead", VALUE, (("n", b"1"),), partition)
        big = b"x" * 3_000_000
        await move_to_partition_1(pool)
        with pytest.raises(BrokerRefused, match="MessageSizeTooLarge"):
            await redriver(pool, producer).retry(name, "ann", big)
        assert await status(pool) == "failed"
        sent = await Redriver(
            Redrives(pool, input_topic=TOPIC, max_payload_bytes=262_144), producer
        ).retry(name, "ann")
        assert (sent.redriven.partition, sent.offset) == (1, 1)
    finally:
        await producer.stop()
    records = await read_all(settings.model_copy(update={"topic_partitions": 2}), TOPIC)
    (found,) = [r for r in records if redrive_of(tuple(r.headers)) is not None]
    assert (found.partition, found.key, found.value) == (1, b"lead", VALUE)
    assert ("own", b"\xff") in found.headers
