"""The deduplication table: found for the whole window, expired after it, there after a restart."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamapp.worker.dedup import changelog_topic
from tests.worker.dedup_table import BUCKETS, NOON, WINDOW, Bench, killed_after_marking
from tests.worker.fakes import event

WIDTH = WINDOW / BUCKETS
BLOOM = ["filter_policy=bloomfilter"]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.drop()


def test_what_is_marked_is_found_with_its_payload_hash(bench: Bench) -> None:
    assert bench.look_up("p-1") is None
    bench.mark("p-1", b"\x00hash\xff")
    assert bench.look_up("p-1") == b"\x00hash\xff"
    assert bench.look_up("p-2") is None
    assert bench.look_up("p-") is None
    assert bench.look_up("") is None


def test_a_partition_knows_its_own_messages(bench: Bench) -> None:
    bench.mark("p-1", b"one", partition=1)
    bench.mark("p-1", b"three", partition=3)
    assert [bench.look_up("p-1", partition) for partition in range(4)] == [
        None,
        b"one",
        None,
        b"three",
    ]


def test_a_mark_goes_to_the_changelog_of_its_events_partition(bench: Bench) -> None:
    bench.mark("p-1", b"one", partition=1)
    bench.mark("p-2", b"two", partition=2)
    assert [(partition, value) for partition, _, value in bench.changelog] == [
        (1, b"one"),
        (2, b"two"),
    ]
    assert [key for _, key, _ in bench.changelog] == bench.stored(1) + bench.stored(2)


async def test_lanes_at_once_mark_in_their_own_partitions(bench: Bench) -> None:
    """A task inherits the current event of whoever started it: another one, mostly."""

    async def lane(number: int) -> None:
        held = event(number, partition=number % 4)
        await asyncio.sleep(0)
        bench.table.mark(held, f"p-{number}", b"hash")

    bench.mark("outer", partition=0)
    await asyncio.gather(*(lane(number) for number in range(40)))
    for number in range(40):
        found = [bench.look_up(f"p-{number}", partition) is not None for partition in range(4)]
        assert found == [partition == number % 4 for partition in range(4)]


@pytest.mark.parametrize("processing_id", ["ä€😀", "x" * 256, "a|b", "0000000001|p"])
def test_any_id(bench: Bench, processing_id: str) -> None:
    bench.mark(processing_id, b"hash")
    bench.now += WINDOW
    assert bench.look_up(processing_id) == b"hash"


@pytest.mark.parametrize("phase", [0.0, 0.5, WIDTH / 2, WIDTH - 0.5])
@pytest.mark.parametrize("age", [0.0, WIDTH - 0.25, WIDTH, 2 * WIDTH, WINDOW - 0.25, WINDOW])
def test_found_for_the_whole_window_across_its_edges(
    bench: Bench, phase: float, age: float
) -> None:
    bench.now = NOON + phase
    bench.mark("p-1")
    bench.now += age
    bench.table.expire()
    assert bench.look_up("p-1") == b"hash"


@pytest.mark.parametrize("phase", [0.0, WIDTH / 2, WIDTH - 0.5])
def test_gone_after_the_window_and_one_bucket(bench: Bench, phase: float) -> None:
    bench.now = NOON + phase
    bench.mark("p-1")
    bench.now += WINDOW + WIDTH
    assert bench.look_up("p-1") is None
    assert len(bench.stored()) == 1, "still on disk"
    bench.table.expire()
    assert bench.stored() == []


def test_a_newer_mark_counts(bench: Bench) -> None:
    bench.mark("p-1", b"older")
    bench.now += WIDTH
    bench.mark("p-1", b"newer")
    assert bench.look_up("p-1") == b"newer"
    bench.now += WINDOW
    bench.table.expire()
    assert bench.look_up("p-1") == b"newer"


def test_expiry_leaves_fausts_own_key_and_other_buckets(bench: Bench) -> None:
    store = bench.faust.data
    for partition in (0, 1):
        for number in range(8):
            bench.now = NOON + number * WIDTH
            bench.mark(f"p-{number}", partition=partition)
        bench.database(partition).put(store.offset_key, b"42")
    bench.table.expire()
    for partition in (0, 1):
        left = [key.rpartition(b"|")[2] for key in bench.stored(partition)]
        assert left == [b"p-4", b"p-5", b"p-6", b"p-7", store.offset_key]
    bench.table.expire()
    assert len(bench.stored()) == 5


def test_expiry_where_bucket_numbers_get_longer(bench: Bench) -> None:
    first = 10_000_000  # the first bucket of a number with eight digits
    bench.now = (first - 1) * WIDTH
    bench.mark("seven")
    bench.now = (first + 1) * WIDTH
    bench.mark("eight")
    bench.table.expire()
    assert {bench.look_up("seven"), bench.look_up("eight")} == {b"hash"}
    bench.now = (first + 3) * WIDTH
    bench.table.expire()
    assert [key.rpartition(b"|")[2] for key in bench.stored()] == [b"eight"]


def test_expiry_before_anything_was_marked(bench: Bench) -> None:
    bench.table.expire()
    bench.database(2)
    bench.table.expire()
    assert bench.stored(2) == []


def test_a_clock_that_is_set_back_costs_a_look_up_and_loses_nothing(bench: Bench) -> None:
    bench.mark("before")
    bench.now += 5 * WIDTH  # a wrong clock
    bench.mark("meanwhile")
    bench.now = NOON + WIDTH
    assert bench.look_up("meanwhile") is None, "the database knows it"
    assert bench.look_up("before") == b"hash"
    bench.table.expire()
    bench.mark("after")
    assert {bench.look_up("before"), bench.look_up("after")} == {b"hash"}
    bench.now = NOON + 5 * WIDTH
    assert bench.look_up("meanwhile") == b"hash"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    window=st.integers(1, 100_000),
    buckets=st.integers(1, 24),
    steps=st.lists(st.tuples(st.floats(0, 2), st.booleans()), max_size=12),
)
def test_any_window_and_any_times(
    tmp_path_factory: pytest.TempPathFactory,
    window: int,
    buckets: int,
    steps: list[tuple[float, bool]],
) -> None:
    bench = Bench(tmp_path_factory.mktemp("any"), window=window, buckets=buckets)
    marked: dict[str, float] = {}
    for number, (share, expire) in enumerate(steps):
        bench.now += share * window
        bench.mark(f"p-{number}")
        marked[f"p-{number}"] = bench.now
        if expire:
            bench.table.expire()
        for name, when in marked.items():
            age = bench.now - when
            if age <= window:
                assert bench.look_up(name) == b"hash"
            elif age > window + 2 * bench.table.width:
                assert bench.look_up(name) is None
    bench.drop()


# Restarts


def _run(command: list[str]) -> Any:
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


async def _reopened(bench: Bench) -> Bench:
    directory = Path(bench.app.conf.datadir)
    await bench.close()
    return Bench(directory, now=bench.now)


def _filter_policies(bench: Bench) -> list[str]:
    """As RocksDB wrote them down when it was opened last."""
    newest = max(bench.path().glob("OPTIONS-*"), key=lambda path: int(path.name[8:]))
    text = newest.read_text()
    return [line.strip() for line in text.splitlines() if "filter_policy" in line]


async def test_keys_and_bloom_filter_survive_a_reopening(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.mark("p-1", b"one")
    policies = _filter_policies(bench)
    assert policies == BLOOM
    for _ in range(2):
        bench = await _reopened(bench)
        assert bench.look_up("p-1") == b"one"
        assert _filter_policies(bench) == policies
    # Expiry knows of keys that were set before the restart.
    bench.now += WINDOW + WIDTH
    bench.table.expire()
    assert bench.stored() == []
    await bench.close()


async def test_keys_and_bloom_filter_survive_a_kill(tmp_path: Path) -> None:
    killed_after_marking(_run, tmp_path, "p-1", "p-2")
    bench = Bench(tmp_path)
    assert bench.look_up("p-1") == b"hash of p-1"
    assert bench.look_up("p-2") == b"hash of p-2"
    assert bench.look_up("p-3") is None
    assert _filter_policies(bench) == BLOOM
    bench.now += WINDOW
    bench.table.expire()
    assert bench.look_up("p-1") == b"hash of p-1"
    await bench.close()


# The changelog


def test_the_changelog_outlives_the_window(bench: Bench) -> None:
    topic = bench.faust.changelog_topic
    assert list(topic.topics) == [changelog_topic("group")]
    config = topic.config
    assert config["cleanup.policy"] == "compact,delete"
    assert config["retention.ms"] == (WINDOW + WIDTH) * 1000
    assert config["segment.ms"] == WIDTH * 1000


def test_the_changelog_is_shared_out_with_the_input_topic(bench: Bench) -> None:
    set_partitions: Callable[[int], None] = bench.table.set_partitions
    set_partitions(12)
    assert bench.faust.partitions == 12
    assert bench.faust.changelog_topic.partitions == 12


def test_how_long_a_bucket_is(bench: Bench) -> None:
    assert bench.table.width == WIDTH


def test_all_partitions_share_one_bound_of_memory(tmp_path: Path) -> None:
    memory = 16 * 1024 * 1024
    bench = Bench(tmp_path, memory=memory)
    options = bench.faust.data.rocksdb_options
    written = largest = 0
    for number in range(40):
        for partition in range(4):
            for key in range(500):
                bench.database(partition).put(b"%d-%d" % (number, key), b"h" * 500)
                written += 500
        largest = max(largest, options._buffers.get_usage())
        assert options._cache.get_usage() >= options._buffers.get_usage(), "part of the same bound"
    assert written > 2 * memory
    assert 0 < largest <= memory
    bench.drop()


@pytest.mark.parametrize(
    ("partitions", "bytes_each"),
    [(1, 16 * 2**20), (4, 4 * 2**20), (64, 512 * 1024), (1000, 512 * 1024)],
)
def test_write_buffers_are_shared_out(tmp_path: Path, partitions: int, bytes_each: int) -> None:
    bench = Bench(tmp_path, memory=64 * 2**20)
    bench.table.set_partitions(partitions)
    assert bench.faust.data.rocksdb_options.write_buffer == bytes_each
    bench.drop()
