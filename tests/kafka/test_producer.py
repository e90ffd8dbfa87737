"""Our producer and the dead letters on a broker that refuses records."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import count

import asyncpg
import pytest
from aiokafka.errors import MessageSizeTooLargeError, TopicAuthorizationFailedError

from streamapp.pipeline.dead_letter import PREFIX, dead_letter, dead_letter_headers
from streamapp.pipeline.outcomes import Reason, Record
from streamapp.saga.model import Source
from streamapp.settings import Settings, load
from streamapp.storage.dead_letters import DeadLetterStore
from streamapp.storage.health import DatabaseHealth
from streamapp.worker.producer import BrokerHealth, DeadLetterProducer, Producer
from tests.kafka.broker import Broker
from tests.kafka.job import read_all
from tests.kafka.topics import allow_writing, create_topic, delete_topic, forbid_writing

pytestmark = pytest.mark.timeout(180)

WITHIN = 60.0  # seconds
LIMIT = 20_000  # bytes that the topics below take

_names = count(1)


@pytest.fixture
async def topic(guarded_broker: Broker) -> str:
    """A topic of one partition with a small limit."""
    name = f"letters-{next(_names)}"
    await create_topic(guarded_broker.bootstrap, name, max_message_bytes=str(LIMIT))
    return name


@pytest.fixture
def settings(guarded_broker: Broker, database: str) -> Settings:
    return load(
        {
            "STREAMAPP_KAFKA_BOOTSTRAP_SERVERS": guarded_broker.bootstrap,
            "STREAMAPP_DATABASE_URL": database,
            "STREAMAPP_TOPIC_PARTITIONS": "1",
        }
    )


@pytest.fixture
async def producer(settings: Settings) -> AsyncIterator[Producer]:
    producer = Producer(settings)
    await producer.start()
    yield producer
    await producer.stop()


async def put(producer: Producer, topic: str, value: bytes) -> None:
    async with asyncio.timeout(WITHIN):
        await (await producer.send(topic, b"lead", value, ()))


async def until_writing(producer: Producer, topic: str, value: bytes, *, allowed: bool) -> None:
    """Put the value until that is allowed, or no longer so: rules reach a broker a moment later."""
    async with asyncio.timeout(WITHIN):
        while True:
            try:
                await put(producer, topic, value)
            except TopicAuthorizationFailedError:
                if not allowed:
                    return
            else:
                if allowed:
                    return
            await asyncio.sleep(0.02)


async def values(settings: Settings, topic: str) -> list[bytes | None]:
    return [record.value for record in await read_all(settings, topic)]


async def test_records_after_one_that_is_too_large_are_taken(
    settings: Settings, producer: Producer, topic: str
) -> None:
    """The client's count of a partition's records must not go on beyond what the broker has
    taken, or every later record is refused as out of order."""
    await put(producer, topic, b"first")
    for number in range(3):
        with pytest.raises(MessageSizeTooLargeError):
            await put(producer, topic, b"x" * (LIMIT + 1))
        await put(producer, topic, b"%d" % number)
    assert await values(settings, topic) == [b"first", b"0", b"1", b"2"]


async def test_records_are_taken_again_once_writing_is_allowed(
    settings: Settings, producer: Producer, topic: str
) -> None:
    bootstrap = settings.kafka_bootstrap_servers
    await put(producer, topic, b"before")
    await forbid_writing(bootstrap, topic)
    await until_writing(producer, topic, b"before", allowed=False)
    await allow_writing(bootstrap, topic)
    await until_writing(producer, topic, b"after", allowed=True)
    read = await values(settings, topic)
    assert read[-1] == b"after"
    assert set(read[:-1]) == {b"before"}


class Letters:
    """A sink for dead letters with the real table behind it."""

    def __init__(self, producer: Producer, pool: asyncpg.Pool[asyncpg.Record], topic: str) -> None:
        self.broker = BrokerHealth()
        self._pool = pool
        self._topic = topic
        self._sink = DeadLetterProducer(
            producer, DeadLetterStore(pool), topic, self.broker, DatabaseHealth()
        )

    async def publish(self, offset: int, value: bytes, trace: str = "") -> None:
        made = dead_letter(
            Source("ai-results", 0, offset, 1_700_000_000_000),
            reason=Reason.HANDLER_ERROR,
            group="streamapp",
            message="a defect",
            stacktrace=trace,
        )
        record = Record("ai-results", 0, offset, 0, b"lead", value, dead_letter_headers((), made))
        async with asyncio.timeout(WITHIN):
            await self._sink.publish(record)

    async def rows(self) -> list[tuple[int, bytes, str]]:
        """Offset, value and stack trace of each row."""
        rows = await self._pool.fetch(
            'select "offset", original_value, error_stack from dead_letter_queue order by "offset"'
        )
        return [(row[0], row[1], row[2]) for row in rows]


@pytest.fixture
async def letters(producer: Producer, database: str, topic: str) -> AsyncIterator[Letters]:
    pool = await asyncpg.create_pool(database, min_size=0, max_size=2)
    yield Letters(producer, pool, topic)
    pool.terminate()


async def test_a_letter_too_large_loses_its_trace_or_goes_into_the_table(
    settings: Settings, letters: Letters, topic: str
) -> None:
    trace = "x" * 8000
    fits, without_trace, never = b"a", b"b" * (LIMIT - 4000), b"c" * LIMIT
    await letters.publish(1, fits, trace)
    await letters.publish(2, without_trace, trace)
    await letters.publish(3, never, trace)
    await letters.publish(4, fits, trace)
    found = {
        dict(record.headers)[PREFIX + "offset"]: (
            record.value,
            len(dict(record.headers)[PREFIX + "stacktrace"]),
        )
        for record in await read_all(settings, topic)
    }
    assert found == {b"1": (fits, 8000), b"2": (without_trace, 0), b"4": (fits, 8000)}
    assert await letters.rows() == [(3, never, trace)]


async def test_letters_that_may_not_be_written_go_into_the_table(
    settings: Settings, letters: Letters, topic: str
) -> None:
    await letters.publish(1, b"before")
    await forbid_writing(settings.kafka_bootstrap_servers, topic)
    async with asyncio.timeout(WITHIN):
        while not await letters.rows():  # the rule reaches the broker a moment later
            await letters.publish(2, b"forbidden")
    await letters.publish(3, b"forbidden too")
    assert [row[:2] for row in await letters.rows()] == [(2, b"forbidden"), (3, b"forbidden too")]
    assert letters.broker.available, "it takes all other records"


async def test_letters_for_a_topic_that_is_gone_go_into_the_table(
    settings: Settings, letters: Letters, topic: str
) -> None:
    await letters.publish(1, b"before")
    await delete_topic(settings.kafka_bootstrap_servers, topic)
    await letters.publish(2, b"gone")
    await letters.publish(3, b"gone too")
    assert [row[:2] for row in await letters.rows()] == [(2, b"gone"), (3, b"gone too")]
    await create_topic(settings.kafka_bootstrap_servers, topic)
    async with asyncio.timeout(WITHIN):
        while b"back" not in await values(settings, topic):
            await letters.publish(4, b"back")
