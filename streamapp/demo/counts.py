"""What became of the messages, each figure from a source of its own, so that a loss shows."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import aiohttp
import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition

from streamapp.demo.stack import PARTITIONS, Stack
from streamapp.pipeline.dead_letter import PREFIX

_REMEMBERED = 10_000  # ids of letters: one that is published again comes soon after the first
_BATCH = 1000
_WAIT_MS = 50
_TIMEOUT = aiohttp.ClientTimeout(total=5)
_DUPLICATES = re.compile(
    r'^streamapp_messages_processed_total\{outcome="duplicate"\} (\S+)$', re.MULTILINE
)
_OPEN = re.compile(
    r'^streamapp_circuit_breaker_state\{circuit="([^"]+)",state="(?:open|half_open)"\} 1\.0$',
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Counts:
    """Sagas by status (PostgreSQL), duplicates and open circuits (the worker's metrics), dead
    letters of whole records (their topic)."""

    sagas: Mapping[str, int]
    duplicates: int
    dead_lettered: int
    open_circuits: tuple[str, ...]

    @property
    def processed(self) -> int:
        """Messages whose saga is completed."""
        return self.sagas.get("COMPLETED", 0)

    @property
    def settled(self) -> int:
        """Messages that have come to their one end."""
        return self.processed + self.duplicates + self.dead_lettered


NOTHING = Counts({}, 0, 0, ())


class Counter:
    """Asks the sources. What one cannot tell just now stays as it was."""

    def __init__(
        self,
        stack: Stack,
        database: asyncpg.Connection[asyncpg.Record],
        session: aiohttp.ClientSession,
        letters: AIOKafkaConsumer,
    ) -> None:
        self._stack = stack
        self._database = database
        self._session = session
        self._letters = letters
        self._letter_ids: OrderedDict[bytes, None] = OrderedDict()
        self._dead_lettered = 0
        self._metrics = ""

    async def look(self) -> Counts:
        """The counts as they are now. Raises ``DemoError`` when the worker has ended."""
        self._stack.check()
        # In this order a message that moves on meanwhile is missed, never counted twice.
        rows = await self._database.fetch("select status, count(*) from sagas group by status")
        await self._read_metrics()
        await self._read_letters()
        found = _DUPLICATES.search(self._metrics)
        return Counts(
            sagas={row["status"]: row["count"] for row in rows},
            duplicates=int(float(found[1])) if found else 0,
            dead_lettered=self._dead_lettered,
            open_circuits=tuple(sorted(set(_OPEN.findall(self._metrics)))),
        )

    async def _read_metrics(self) -> None:
        try:
            async with self._session.get(f"{self._stack.web}/metrics") as response:
                if response.status == 200:
                    self._metrics = await response.text()
        except (aiohttp.ClientError, TimeoutError):
            pass  # a worker that is gone is noticed otherwise

    async def _read_letters(self) -> None:
        batches = await self._letters.getmany(timeout_ms=_WAIT_MS, max_records=_BATCH)
        for records in batches.values():
            for record in records:
                headers = dict(record.headers)
                if headers.get(f"{PREFIX}action"):
                    continue  # of one action; its record was processed all the same
                letter_id = headers[f"{PREFIX}id"]
                if letter_id not in self._letter_ids:
                    self._dead_lettered += 1
                self._letter_ids[letter_id] = None
                if len(self._letter_ids) > _REMEMBERED:
                    self._letter_ids.popitem(last=False)


@asynccontextmanager
async def counter(stack: Stack) -> AsyncIterator[Counter]:
    """A counter with connections of its own."""
    async with AsyncExitStack() as cleanup:
        database = await asyncpg.connect(stack.dsn)
        cleanup.push_async_callback(database.close)
        session = await cleanup.enter_async_context(aiohttp.ClientSession(timeout=_TIMEOUT))
        letters = AIOKafkaConsumer(
            bootstrap_servers=stack.settings.kafka_bootstrap_servers,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        cleanup.push_async_callback(letters.stop)
        await letters.start()
        topic = stack.settings.dlq_topic
        letters.assign([TopicPartition(topic, number) for number in range(PARTITIONS)])
        yield Counter(stack, database, session, letters)
