"""The embedded broker does what the program and its tests need of Kafka."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaConnectionError

from streamapp.demo import kafka as module
from streamapp.demo.kafka import EmbeddedKafka, KafkaUnavailable

DEADLINE = 30.0


async def send(bootstrap: str, topic: str, *values: bytes | None) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    try:
        for value in values:
            await producer.send_and_wait(topic, value, key=b"key")
    finally:
        await producer.stop()


async def test_a_record_comes_back_as_it_was_sent(kafka: EmbeddedKafka) -> None:
    kafka.create_topic("whole", 1)
    headers = [("plain", b"text"), ("bytes", b"\xff\x00"), ("plain", b"again")]
    async with AsyncExitStack() as stack:
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
        await producer.start()
        stack.push_async_callback(producer.stop)
        await producer.send_and_wait(
            "whole", b"\x00\xff", key=b"\xfe", headers=headers, timestamp_ms=1_234_567
        )
        await producer.send_and_wait("whole", None, key=b"k")
        consumer = AIOKafkaConsumer(
            "whole", bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest"
        )
        await consumer.start()
        stack.push_async_callback(consumer.stop)
        async with asyncio.timeout(DEADLINE):
            first, second = await consumer.getone(), await consumer.getone()
    assert (first.key, first.value) == (b"\xfe", b"\x00\xff")
    assert list(first.headers) == headers
    assert (first.timestamp, first.offset) == (1_234_567, 0)
    assert (second.key, second.value, second.offset) == (b"k", None, 1)


async def test_a_group_keeps_its_offsets_from_member_to_member(kafka: EmbeddedKafka) -> None:
    kafka.create_topic("shared", 4)
    await send(kafka.bootstrap, "shared", b"1", b"2", b"3")
    for expected in (b"1", b"2", b"3"):
        member = AIOKafkaConsumer(
            "shared",
            bootstrap_servers=kafka.bootstrap,
            group_id="group",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            # The broker lets the next one in when the session of the last would be over.
            session_timeout_ms=1500,
            heartbeat_interval_ms=300,
        )
        async with asyncio.timeout(DEADLINE):
            await member.start()
            try:
                assert len(member.assignment()) == 4
                record = await member.getone()
                assert record.value == expected
                partition = TopicPartition("shared", record.partition)
                await member.commit({partition: record.offset + 1})
            finally:
                await member.stop()


async def test_what_exceeds_a_partitions_memory_is_dropped_from_its_head(
    kafka: EmbeddedKafka,
) -> None:
    kafka.create_topic("large", 1)
    record = bytes(512 * 1024)
    await send(kafka.bootstrap, "large", *[record] * 9)
    partition = TopicPartition("large", 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap)
    await consumer.start()
    try:
        assert await consumer.beginning_offsets([partition]) == {partition: 0}
        await send(kafka.bootstrap, "large", *[record] * 9)
        (first,) = (await consumer.beginning_offsets([partition])).values()
        assert await consumer.end_offsets([partition]) == {partition: 18}
        # Each has a little more than its value, so nine of them fit into 5 MiB.
        assert first == pytest.approx(9, abs=1)
    finally:
        await consumer.stop()


async def test_topics_have_the_partitions_that_were_asked_for() -> None:
    broker = EmbeddedKafka()
    bootstrap = broker.start({"one": 1, "six": 6})
    try:
        assert bootstrap == broker.bootstrap
        consumer = AIOKafkaConsumer("one", "six", bootstrap_servers=bootstrap)
        await consumer.start()
        try:
            assert len(consumer.partitions_for_topic("one")) == 1
            assert len(consumer.partitions_for_topic("six")) == 6
        finally:
            await consumer.stop()
        with pytest.raises(KafkaUnavailable, match=r"topic one was not created: .*exist"):
            broker.create_topic("one", 1)
        with pytest.raises(KafkaUnavailable, match="runs already"):
            broker.start({})
    finally:
        broker.stop()


async def test_two_are_apart_and_a_stopped_one_is_gone(kafka: EmbeddedKafka) -> None:
    broker = EmbeddedKafka()
    bootstrap = broker.start({"own": 1})
    assert bootstrap != kafka.bootstrap
    broker.stop()
    broker.stop()
    with pytest.raises(KafkaConnectionError):
        await send(bootstrap, "own", b"1")
    with pytest.raises(KafkaUnavailable, match="does not run"):
        broker.create_topic("other", 1)
    broker.start({"own": 2})
    broker.stop()


def test_nothing_is_written_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    broker = EmbeddedKafka()
    broker.start({"topic": 1})
    broker.stop()
    assert capfd.readouterr() == ("", "")


def test_a_missing_library_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(KafkaUnavailable, match=r"streamapp\[demo\]"):
        EmbeddedKafka().start({})


@pytest.mark.parametrize("name", ["librdkafka.so.1", "libother.so"])
def test_a_library_that_is_none_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    class Spec:
        submodule_search_locations = (str(tmp_path / "confluent_kafka"),)

    libraries = tmp_path / "confluent_kafka.libs"
    libraries.mkdir()
    (libraries / name).write_bytes(b"no library")
    monkeypatch.setattr(module, "find_spec", lambda name: Spec)
    with pytest.raises(KafkaUnavailable, match="librdkafka"):
        EmbeddedKafka().start({})
