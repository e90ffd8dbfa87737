"""The worker from plain sources: everything of a worker but Faust and Kafka, to be killed quickly.

Topics are files of lines. The input topic is written by the parent, the others by the worker;
committed offsets are files, too. What SIGKILL leaves of a process's writes to a file is what it
leaves of those to a broker: all that returned. Intake, lanes, ledger, leases, pipeline, sagas,
journal, outbox relays and dead-letter intake are the worker's own, on PostgreSQL, the table of
duplicates is RocksDB, services are called over HTTP and SMTP.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import rocksdict
from aiokafka.errors import InvalidTopicError, MessageSizeTooLargeError

from streamapp.pipeline.outcomes import Headers
from streamapp.worker.membership import Standing
from tests.worker.fakes import FakeEvent, FakeMessage

LOOK = 0.005  # seconds between looks at the end of a topic
TOO_LARGE = b"larger than the broker takes"  # in a value: refused by the dead-letter topic
REFUSED = b"refused by the broker"  # in a value: refused for good by the outbound topic


class Topics:
    """Topics of one partition each, as files in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def append(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> None:
        record = {
            "key": _encoded(key),
            "value": _encoded(value),
            "headers": [[name, _encoded(content)] for name, content in headers],
        }
        line = json.dumps(record).encode() + b"\n"
        descriptor = os.open(self._path(topic), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            assert os.write(descriptor, line) == len(line)
        finally:
            os.close(descriptor)

    def read(self, topic: str) -> list[tuple[bytes | None, bytes | None, Headers]]:
        """All records; the offset of each is its place."""
        path = self._path(topic)
        if not path.exists():
            return []
        found = []
        for line in path.read_bytes().splitlines():
            record = json.loads(line)
            headers = tuple((name, _decoded(text) or b"") for name, text in record["headers"])
            found.append((_decoded(record["key"]), _decoded(record["value"]), headers))
        return found

    def commit(self, topic: str, offset: int) -> None:
        """Make an offset durable, whole or not at all."""
        path = self._directory / f"{topic}.offset"
        path.with_suffix(".new").write_text(str(offset))
        path.with_suffix(".new").replace(path)

    def committed(self, topic: str) -> int:
        path = self._directory / f"{topic}.offset"
        return int(path.read_text()) if path.exists() else 0

    def _path(self, topic: str) -> Path:
        return self._directory / f"{topic}.topic"


def _encoded(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _decoded(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


class PlainMembership:
    """A group of one member, ``worker.membership`` for files."""

    generation = 1
    assigned = True
    restored = True
    unrestored = 0

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self.on_commit: Any = lambda: None

    def expelled(self, generation: int) -> bool:
        return False

    async def confirm(self, generation: int) -> Standing:
        return Standing.CONFIRMED

    async def commit(self, generation: int, offsets: dict[tuple[str, int], int]) -> bool:
        for (topic, _), offset in offsets.items():
            assert offset >= self._topics.committed(topic), "a committed offset went backwards"
            self._topics.commit(topic, offset)
        if offsets:
            self.on_commit()
        return True

    async def committed(self, topic: str, partition: int) -> int | None:
        return self._topics.committed(topic)

    async def seek(self, topic: str, partition: int, offset: int) -> None:
        raise AssertionError("files pass nothing over")

    def highwater(self, topic: str, partition: int) -> int | None:
        return None

    def position(self, topic: str, partition: int) -> int | None:
        return None

    def rounds(self, topic: str) -> int | None:
        return None

    def adjacent(self, topic: str, partition: int, before: int, offset: int) -> bool:
        return False


class PlainProducer:
    """Publishes into files."""

    def __init__(self, topics: Topics, dlq_topic: str, outbound_topic: str) -> None:
        self._topics = topics
        self._refused = {dlq_topic: TOO_LARGE, outbound_topic: REFUSED}
        self._dlq_topic = dlq_topic
        self.on_send: Any = lambda topic: None

    async def start(self) -> None:
        """Nothing to connect to."""

    async def stop(self) -> None:
        """Nothing to disconnect from."""

    async def reach(self) -> None:
        """It is always there."""

    async def missing(self, topic: str) -> bool:
        return False

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        partition: int | None = None,
    ) -> asyncio.Future[object]:
        if value is not None and self._refused.get(topic, b"\0") in value:
            if topic == self._dlq_topic:
                raise MessageSizeTooLargeError
            raise InvalidTopicError
        self._topics.append(topic, key, value, headers)
        self.on_send(topic)
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future


class PlainTable:
    """The table of finished messages without Faust: one bucket in RocksDB."""

    width = 3600.0

    def __init__(self, directory: Path) -> None:
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        self._database = rocksdict.Rdict(str(directory), options=options)
        self.on_mark: Any = lambda: None

    def look_up(self, partition: int, processing_id: str) -> bytes | None:
        value: bytes | None = self._database.get(processing_id.encode())
        return value

    def mark(self, event: Any, processing_id: str, payload_hash: bytes) -> None:
        self._database[processing_id.encode()] = payload_hash
        self.on_mark()

    def expire(self) -> None:
        """Nothing is kept for long here."""


class Source:
    """Delivers the records of a topic from its committed offset on."""

    def __init__(self, topics: Topics, topic: str) -> None:
        self._topics = topics
        self._topic = topic

    async def run(self, accept: Any) -> None:
        """Deliver until cancelled."""
        offset = self._topics.committed(self._topic)
        while True:
            for record in self._topics.read(self._topic)[offset:]:
                await accept(self._event(offset, *record))
                offset += 1
            await asyncio.sleep(LOOK)

    def _event(
        self, offset: int, key: bytes | None, value: bytes | None, headers: Iterable[Any]
    ) -> FakeEvent:
        pairs: Sequence[Any] = list(headers)
        return FakeEvent(
            FakeMessage(
                offset,
                key=key,
                value=value,
                topic=self._topic,
                headers=pairs,
                timestamp=1_700_000_000.0 + offset,
            )
        )
