"""The input topic read back by time, which only a real broker knows."""

from __future__ import annotations

from aiokafka import AIOKafkaProducer

from streamapp.settings import load
from streamapp.worker.history import history, newest, spanning
from tests.kafka.broker import Broker
from tests.kafka.topics import create_topic

T = 1_700_000_000_000  # milliseconds


async def test_a_range_of_time_and_the_newest(broker: Broker) -> None:
    topic = "rehearsed"
    await create_topic(broker.bootstrap, topic, 2)
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap)
    await producer.start()
    for number in range(10):
        await producer.send_and_wait(
            topic, str(number).encode(), partition=number % 2, timestamp_ms=T + 1000 * number
        )
    await producer.stop()
    settings = load(
        {
            "STREAMAPP_KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap,
            "STREAMAPP_INPUT_TOPIC": topic,
        }
    )

    async with history(settings) as log:

        async def between(since: int | None, until: int | None) -> list[int]:
            ranges = await log.between(since, until)
            values = [record.value or b"" async for record in log.read(ranges)]
            return sorted(int(value) for value in values)

        assert await between(T + 3000, T + 7000) == [3, 4, 5, 6]
        assert await between(T + 8500, None) == [9]
        assert await between(None, T + 1000) == [0]
        assert await between(T + 10_000, None) == []
        assert await between(None, None) == list(range(10))
        found = await newest(log.read(await log.last(3)), 3)
        again = [record async for record in log.read(spanning(found))]
        assert sorted(record.value or b"" for record in again) == [b"7", b"8", b"9"]
