"""Restoring by polls ends as restoring by records would, however often it is interrupted."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from streamapp.worker import restore as module
from streamapp.worker.restore import Restore
from tests.worker.fakes import FakeMembership

SEEN = [TP("seen-changelog", number) for number in range(2)]
INPUT = TP("ai-results", 0)


@dataclass(frozen=True)
class Record:
    offset: int
    key: bytes
    value: bytes | None


class Store:
    """Databases by partition, as ``faust.stores.rocksdb``: batches are applied whole."""

    def __init__(self) -> None:
        self.databases: dict[int, dict[bytes, bytes]] = defaultdict(dict)
        self.offsets: dict[TP, int] = {}
        self.opened: list[int] = []

    def _db_for_partition(self, partition: int) -> Any:
        self.opened.append(partition)
        return SimpleNamespace(write=lambda batch: batch.apply(self.databases[partition]))

    def set_persisted_offset(self, partition: TP, offset: int) -> None:
        assert offset >= self.offsets.get(partition, -1)
        self.offsets[partition] = offset


class Batch:
    """``rocksdict.WriteBatch``."""

    def __init__(self, raw_mode: bool) -> None:
        assert raw_mode
        self.changes: list[tuple[bytes, bytes | None]] = []

    def put(self, key: bytes, value: bytes) -> None:
        self.changes.append((key, value))

    def delete(self, key: bytes) -> None:
        self.changes.append((key, None))

    def apply(self, database: dict[bytes, bytes]) -> None:
        for key, value in self.changes:
            if value is None:
                database.pop(key, None)
            else:
                database[key] = value


@dataclass
class Recovery:
    """What ``faust.tables.recovery`` keeps of a restore."""

    tp_to_table: dict[TP, Any]
    active_tps: set[TP] = field(default_factory=set)
    standby_tps: set[TP] = field(default_factory=set)
    active_offsets: Counter[TP] = field(default_factory=Counter)
    standby_offsets: Counter[TP] = field(default_factory=Counter)
    active_highwaters: Counter[TP] = field(default_factory=Counter)
    standby_highwaters: Counter[TP] = field(default_factory=Counter)
    in_recovery: bool = True
    signal_recovery_end: asyncio.Event = field(default_factory=asyncio.Event)

    def active_remaining(self) -> Counter[TP]:
        return Counter({tp: high - self.active_offsets[tp] for tp, high in self.highwaters})

    @property
    def highwaters(self) -> Any:
        return self.active_highwaters.items()

    def need_recovery(self) -> bool:
        return any(left > 0 for left in self.active_remaining().values())

    def standby_remaining_total(self) -> int:
        highwaters = self.standby_highwaters.items()
        return sum(high - self.standby_offsets[tp] for tp, high in highwaters)

    def flush_buffers(self) -> None:
        """Nothing is buffered here."""

    def _set_recovery_ended(self) -> None:
        self.in_recovery = False


class Tables(SimpleNamespace):
    def on_standbys_ready(self) -> None:
        self.standbys_ready = True


class World:
    """A worker of generation 1 that has partition 0 and stands by for partition 1."""

    def __init__(self, highwater: int) -> None:
        self.store = Store()
        table = SimpleNamespace(data=self.store)
        self.recovery = Recovery(dict.fromkeys(SEEN, table))
        self.recovery.active_tps, self.recovery.standby_tps = {SEEN[0]}, {SEEN[1]}
        self.recovery.active_offsets[SEEN[0]] = self.recovery.standby_offsets[SEEN[1]] = -1
        self.recovery.active_highwaters[SEEN[0]] = highwater
        self.recovery.standby_highwaters[SEEN[1]] = highwater
        self.app: Any = SimpleNamespace(
            consumer_generation_id=1,
            tables=Tables(recovery=self.recovery, standbys_ready=False),
            consumer=SimpleNamespace(_read_offset={}, flow_active=True),
        )
        self.restore = Restore(self.app)
        self.membership = FakeMembership()
        self.restore._membership = self.membership  # type: ignore[assignment]


@pytest.fixture(autouse=True)
def batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rocksdict.WriteBatch", Batch)
    monkeypatch.setattr(module, "CHUNK", 3)


def log_of(length: int) -> list[Record]:
    """Keys come again, and every third time as a tombstone."""
    return [
        Record(n, b"key-%d" % (n % 5), None if n % 3 == 2 else b"%d" % n) for n in range(length)
    ]


def content(records: list[Record]) -> dict[bytes, bytes]:
    database: dict[bytes, bytes] = {}
    for record in records:
        if record.value is None:
            database.pop(record.key, None)
        else:
            database[record.key] = record.value
    return database


@given(
    length=st.integers(1, 40),
    polls=st.lists(st.integers(1, 12), max_size=12),
    lives=st.lists(st.integers(0, 30), max_size=3),
)
def test_any_polls_and_interruptions_end_in_the_same_table(
    length: int, polls: list[int], lives: list[int]
) -> None:
    log = log_of(length)

    async def run() -> None:
        world = World(length - 1)
        for polled in [*lives, length]:
            # A new life begins where the offset in the database says, at the record itself.
            for tp, offsets in (
                (SEEN[0], world.recovery.active_offsets),
                (SEEN[1], world.recovery.standby_offsets),
            ):
                offsets[tp] = world.store.offsets.get(tp, -1)
                position = max(0, offsets[tp])
                sizes = iter([*polls, *[7] * length])
                end = min(length, position + polled)
                while position < end:
                    batch = log[position : min(end, position + next(sizes))]
                    assert await world.restore.take({tp: batch}, 1) == {}
                    position += len(batch)
        for tp in SEEN:
            assert world.store.databases[tp.partition] == content(log)
            assert world.store.offsets[tp] == length - 1
            assert world.app.consumer._read_offset[tp] == length - 1
        assert world.app.tables.standbys_ready

    asyncio.run(run())


async def test_the_records_of_other_topics_are_left_as_they_are() -> None:
    world = World(9)
    others = [Record(5, b"lead", b"{}"), Record(6, b"lead", None)]
    given = {SEEN[0]: log_of(4), INPUT: others}
    assert await world.restore.take(given, 1) == {INPUT: others}
    assert world.store.offsets == {SEEN[0]: 3}
    assert await world.restore.take({}, 1) == {}
    assert await world.restore.take(None, 1) is None


async def test_faust_hears_of_the_end_once_it_waits_for_it() -> None:
    world = World(9)
    await world.restore.take({SEEN[0]: log_of(10)}, 1)
    assert world.recovery.in_recovery, "nobody waits yet: the signal would be lost"
    waiting = asyncio.create_task(world.recovery.signal_recovery_end.wait())
    await asyncio.sleep(0)
    await world.restore.take({}, 1)
    async with asyncio.timeout(10):
        await waiting
    assert not world.recovery.in_recovery
    assert world.restore.remaining == 0


async def test_it_is_not_at_its_end_before() -> None:
    world = World(9)
    waiting = asyncio.create_task(world.recovery.signal_recovery_end.wait())
    await asyncio.sleep(0)
    await world.restore.take({SEEN[0]: log_of(9), SEEN[1]: log_of(10)}, 1)
    assert world.recovery.in_recovery
    assert world.restore.remaining == 1
    waiting.cancel()


async def test_what_was_polled_in_an_earlier_generation_is_dropped() -> None:
    """The position was set back since: to go on with these would leave a gap."""
    world = World(9)
    world.app.consumer_generation_id = 2
    assert await world.restore.take({SEEN[0]: log_of(10), INPUT: []}, 1) == {INPUT: []}
    assert world.store.offsets == {}


async def test_a_poll_that_outlasts_a_rebalance_leaves_no_gap() -> None:
    """It may have taken what the new generation is owed, which nobody would fetch again."""
    world = World(9)
    world.recovery.active_offsets[SEEN[0]] = 4
    world.app.consumer_generation_id = 2
    await world.restore.take({SEEN[0]: log_of(10)[5:], SEEN[1]: log_of(10)}, 1)
    assert world.membership.seeks == [(*SEEN[0], 4), (*SEEN[1], 0)]


async def test_what_faust_has_yet_to_begin_is_left_to_it() -> None:
    world = World(9)
    world.app.consumer_generation_id = 2
    world.app.consumer.flow_active = False
    await world.restore.take({SEEN[0]: log_of(10)}, 1)
    world.app.consumer.flow_active = True
    world.recovery.active_offsets[SEEN[0]] = None  # type: ignore[assignment]
    world.recovery.standby_tps.clear()
    await world.restore.take({SEEN[0]: log_of(10), SEEN[1]: log_of(10)}, 1)
    assert world.membership.seeks == []


@pytest.mark.parametrize(("position", "ends"), [(10, True), (9, False), (None, False)])
async def test_a_log_whose_last_records_were_deleted_ends_all_the_same(
    position: int | None, ends: bool
) -> None:
    world = World(9)
    waiting = asyncio.create_task(world.recovery.signal_recovery_end.wait())
    await asyncio.sleep(0)
    if position is not None:
        world.membership.positions[SEEN[0]] = position
    await world.restore.take({SEEN[0]: log_of(8)}, 1)
    assert world.restore.remaining == 2, "more may be on their way"
    await world.restore.take({}, 1)
    assert (world.restore.remaining == 0) is ends
    assert world.store.offsets[SEEN[0]] == 7
    waiting.cancel()


async def test_the_end_is_told_though_faust_believes_in_it_already() -> None:
    """Its own look at a quiet changelog may come just before it waits."""
    world = World(9)
    waiting = asyncio.create_task(world.recovery.signal_recovery_end.wait())
    await asyncio.sleep(0)
    world.recovery.in_recovery = False
    await world.restore.take({SEEN[0]: log_of(10)}, 1)
    async with asyncio.timeout(10):
        await waiting


async def test_a_rebalance_in_the_middle_of_a_poll_ends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(9)
    write = world.restore._write

    def next_generation(partition: TP, records: Any) -> None:
        write(partition, records)
        world.app.consumer_generation_id = 2

    monkeypatch.setattr(world.restore, "_write", next_generation)
    others = [Record(5, b"lead", b"{}")]
    assert await world.restore.take({SEEN[0]: log_of(10), INPUT: others}, 1) == {}
    assert world.store.offsets == {SEEN[0]: 2}
    assert world.store.databases[0] == content(log_of(3))
    assert world.membership.seeks == [(*SEEN[0], 2)]


async def test_a_revoked_partitions_database_is_not_opened_again() -> None:
    world = World(9)
    del world.recovery.active_offsets[SEEN[0]]
    await world.restore.take({SEEN[0]: log_of(10)}, 1)
    world.recovery.active_tps.clear()
    await world.restore.take({SEEN[0]: log_of(10)}, 1)
    assert world.store.opened == []


async def test_it_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "SAY_EVERY", 0.0)
    caplog.set_level(logging.INFO, "streamapp.restore")
    world = World(9)
    for size in (4, 7, 10):
        await world.restore.take({SEEN[0]: log_of(size)}, 1)
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "restoring: 10 records are left"
    assert said[1].startswith("restoring: 6 records are left, ")
    assert said[1].endswith(" a second: partition 0: 6")
    assert said[2].startswith("restoring: 3 records are left, ")
    assert said[3].startswith("restored 10 records in ")
    await world.restore.take({SEEN[0]: log_of(10)}, 1)
    assert len(caplog.records) == 4
