"""The deduplication table: RocksDB over a few time buckets, behind it Faust's changelog.

A plain Faust table, as windowed ones forget what to expire at a restart, miss duplicates after
one, and expire a window at once. Keys begin with the number of their time bucket, so a look-up
asks the present bucket and those that the window reaches back to, and expiry is one range
deletion. PostgreSQL is the truth: a mark that is missing costs a query, never a double effect.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faust
import rocksdict
from faust.stores.rocksdb import RocksDBOptions
from faust.streams import _current_event

from streamapp.worker.local_database import LocalDatabase, Trouble

TABLE = "seen"
BLOOM_BITS = 10  # a key; keeps a look-up of an id that is not there off the disk
# Bytes of one of a partition's write buffers: the largest, and the least however many share them.
MOST_WRITE_BUFFER = 32 * 1024 * 1024
LEAST_WRITE_BUFFER = 512 * 1024


def changelog_topic(consumer_group: str) -> str:
    """The topic that Faust keeps the table's changes in."""
    return f"{consumer_group}-{TABLE}-changelog"


class _Options(RocksDBOptions):  # type: ignore[misc]
    """Options that survive a reopening, of databases that survive their disk.

    rocksdict forgets table options (bloom filter, cache) of a database that exists already,
    unless they are given for its column family.

    ``memory`` bounds the bytes of all databases together: of blocks that were read, and of write
    buffers, which take up to half of it.
    """

    def __init__(self, memory: int, report: Callable[[Trouble], None]) -> None:
        super().__init__()
        self._cache = rocksdict.Cache(memory)
        self._buffers = rocksdict.WriteBufferManager.new_write_buffer_manager_with_cache(
            memory // 2, False, self._cache
        )
        self.partitions = 1
        self._report = report

    @property
    def write_buffer(self) -> int:
        """Bytes of one of a partition's write buffers. Partitions that are not written to keep
        theirs: even if all are full, there is room for those that are."""
        share: int = self._buffers.get_buffer_size() // (2 * self.partitions)
        return min(max(share, LEAST_WRITE_BUFFER), MOST_WRITE_BUFFER)

    def open(self, path: Path, *, read_only: bool = False) -> Any:
        if read_only:
            return self._open(path, read_only=True)
        return LocalDatabase(path, self._open, self._report)

    def _open(self, path: Path, *, read_only: bool = False) -> Any:
        options = self.as_options()
        families = {"default": options} if Path(path, "CURRENT").exists() else None
        access = (
            rocksdict.AccessType.read_only() if read_only else rocksdict.AccessType.read_write()
        )
        database = rocksdict.Rdict(
            str(path), options=options, column_families=families, access_type=access
        )
        database.set_read_options(rocksdict.ReadOptions())
        return database

    def as_options(self) -> Any:
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_max_open_files(256)
        options.set_write_buffer_size(self.write_buffer)
        options.set_max_write_buffer_number(3)
        options.set_write_buffer_manager(self._buffers)
        options.set_level_compaction_dynamic_level_bytes(True)
        options.set_compression_type(rocksdict.DBCompressionType.lz4())
        blocks = rocksdict.BlockBasedOptions()
        blocks.set_bloom_filter(BLOOM_BITS, block_based=False)
        blocks.set_block_cache(self._cache)
        blocks.set_format_version(5)
        options.set_block_based_table_factory(blocks)
        return options


class DedupTable:
    """Which messages were finished within the window. Implements ``pipeline.ports.Seen``."""

    def __init__(
        self,
        app: faust.App,
        *,
        window: float,
        buckets: int,
        partitions: int,
        memory: int,
        clock: Callable[[], float] = time.time,
        report: Callable[[Trouble], None] = lambda trouble: None,
    ) -> None:
        self._width = window / buckets
        self._buckets = buckets
        self._clock = clock
        kept = window + self._width  # seconds; a key of the oldest bucket may be that old
        self._table: Any = app.Table(
            TABLE,
            key_type=bytes,
            value_type=bytes,
            partitions=partitions,
            extra_topic_configs={
                "cleanup.policy": "compact,delete",
                "retention.ms": int(kept * 1000),
                "segment.ms": max(60_000, int(self._width * 1000)),
            },
        )
        self._options = _Options(memory, report)
        self._options.partitions = partitions
        self._table.data.rocksdb_options = self._options

    def set_partitions(self, partitions: int) -> None:
        """Called before start, once the input topic's number of partitions is known: Faust
        shares out the changelog together with it."""
        self._table.partitions = partitions
        self._options.partitions = partitions
        self._table.changelog_topic.partitions = partitions

    def _prefix(self, bucket: int) -> bytes:
        return b"%010d|" % bucket

    def _bucket(self) -> int:
        return int(self._clock() // self._width)

    def look_up(self, partition: int, processing_id: str) -> bytes | None:
        database = self._table.data._db_for_partition(partition)
        key = processing_id.encode()
        newest = self._bucket()
        for bucket in range(newest, newest - self._buckets - 1, -1):
            value: bytes | None = database.get(self._prefix(bucket) + key)
            if value is not None:
                return value
        return None

    def mark(self, event: Any, processing_id: str, payload_hash: bytes) -> None:
        """Remember a finished message. The event must be of the generation at hand: Faust takes
        the partition from it, and a write after revocation would go to a foreign changelog."""
        _current_event.set(weakref.ref(event))
        self._table[self._prefix(self._bucket()) + processing_id.encode()] = payload_hash

    def expire(self) -> None:
        """Drop the buckets that the window no longer reaches."""
        oldest = self._bucket() - self._buckets
        for database in list(self._table.data._dbs.values()):
            database.delete_range(self._prefix(0), self._prefix(oldest))

    @property
    def width(self) -> float:
        """Seconds that a bucket covers."""
        return self._width
