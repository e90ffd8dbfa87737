"""Which worker gets work done, seen from the outside: owners in the database, offsets in Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from streamapp.settings import Settings

LOOK = 0.5  # seconds between looks
_WITHIN = 5.0  # seconds for one question; an outage is nothing to wait for

_OWNERS = """
select partition, epoch, worker from partition_owners where consumer_group = $1 and topic = $2
"""

Owner = tuple[int, str]  # epoch and worker


class Watch:
    """Notes when a worker made progress: the group's committed offset of one of its partitions
    went up while the worker owned it.

    ``clock`` gives the time in seconds.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._progress: dict[int, float] = {}  # by process id
        self._before: tuple[float, dict[int, Owner], dict[int, int]] | None = None
        self.committed = 0  # records, when last seen

    def progressed(self, pid: int, since: float) -> bool:
        """Whether records of a worker's partitions were committed after ``since``."""
        return self._progress.get(pid, float("-inf")) >= since

    def anybody_progressed(self, since: float) -> bool:
        """The same for any of the workers."""
        return max(self._progress.values(), default=float("-inf")) >= since

    async def run(self) -> None:
        """Look again and again until cancelled. What cannot be asked is asked again later."""
        while True:
            try:
                await self._watch()
            except (KafkaError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                self._before = None
            await asyncio.sleep(LOOK)

    async def _watch(self) -> None:
        settings = self._settings
        admin = AIOKafkaAdminClient(
            bootstrap_servers=settings.kafka_bootstrap_servers,
            request_timeout_ms=int(_WITHIN * 1000),
        )
        connection = await asyncpg.connect(
            settings.database_url.get_secret_value(), timeout=_WITHIN, command_timeout=_WITHIN
        )
        try:
            async with asyncio.timeout(_WITHIN):
                await admin.start()
            while True:
                at = self._clock()
                async with asyncio.timeout(_WITHIN):
                    self.look(at, await self._owners(connection), await self._committed(admin))
                await asyncio.sleep(LOOK)
        finally:
            connection.terminate()
            await admin.close()

    async def _owners(self, connection: asyncpg.Connection[asyncpg.Record]) -> dict[int, Owner]:
        settings = self._settings
        rows = await connection.fetch(_OWNERS, settings.consumer_group, settings.input_topic)
        return {row["partition"]: (row["epoch"], row["worker"]) for row in rows}

    async def _committed(self, admin: AIOKafkaAdminClient) -> dict[int, int]:
        offsets = await admin.list_consumer_group_offsets(self._settings.consumer_group)
        return {
            partition.partition: offset.offset
            for partition, offset in offsets.items()
            if partition.topic == self._settings.input_topic
        }

    def look(self, at: float, owners: dict[int, Owner], committed: dict[int, int]) -> None:
        """Compare what is there ``at`` this time with what was there before."""
        self.committed = sum(committed.values())
        if self._before is not None:
            since, owners_before, committed_before = self._before
            for partition, owner in owners.items():
                more = committed.get(partition, 0) - committed_before.get(partition, 0)
                if more > 0 and owners_before.get(partition) == owner:
                    self._progress[int(owner[1].rsplit(":", 1)[1])] = since
        self._before = (at, owners, committed)
