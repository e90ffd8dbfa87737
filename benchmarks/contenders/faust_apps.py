"""The contenders on bare Faust, one program: ``python -m benchmarks.contenders.faust_apps worker``.

``BENCH_AGENT`` names the agent. Their Faust is set as well as its documentation tells: raw
serialisation, a producer that lingers, no waiting for empty streams at a rebalance.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import faust

from benchmarks.contenders.place import Place
from benchmarks.contenders.work import Work

IN_FLIGHT = 256
CONNECTIONS = 20

place = Place.from_environment()
app = faust.App(
    place.group,
    broker=f"kafka://{place.bootstrap}",
    store="rocksdb://",
    datadir=str(place.directory / "state"),
    topic_partitions=place.partitions,
    topic_replication_factor=1,
    topic_disable_leader=True,
    producer_linger=0.05,
    broker_max_poll_interval=1e6,
    stream_wait_empty=False,
    consumer_auto_offset_reset="earliest",
    # Its offsets are all that is seen of the bare agents.
    broker_commit_interval=0.1,
)
topic = app.topic(place.topic, key_serializer="raw", value_serializer="raw")


async def nothing(stream: Any) -> None:
    """Takes messages and does nothing with them."""
    async for _ in stream:
        pass


async def table(stream: Any) -> None:
    """Notes the id of each message in a table."""
    async for event in stream.events():
        value = event.value
        start = value.index(b'"processing_id":"') + 17
        seen[value[start : start + 36]] = b"1"


async def one_at_a_time(stream: Any) -> None:
    """One message after the other; Faust acknowledges a message when the next is asked for."""
    work = Work(place, connections=1)
    await work.start()
    async for event in stream.events():
        await work.handle(event.key, event.value)


async def days_work(stream: Any) -> None:
    """Many messages at a time, those of a lead one after the other."""
    work = Work(place, CONNECTIONS)
    await work.start()
    free = asyncio.Semaphore(IN_FLIGHT)
    last: dict[bytes, asyncio.Task[None]] = {}

    async def handle(event: Any, before: asyncio.Task[None] | None) -> None:
        try:
            if before is not None:
                await asyncio.wait([before])
            await work.handle(event.key, event.value)
            event.ack()
        finally:
            free.release()
            if last.get(event.key) is asyncio.current_task():
                del last[event.key]

    async for event in stream.noack().events():
        await free.acquire()
        last[event.key] = asyncio.create_task(handle(event, last.get(event.key)))


AGENTS = {each.__name__: each for each in (nothing, table, one_at_a_time, days_work)}
chosen = AGENTS[os.environ["BENCH_AGENT"]]
if chosen is table:
    seen = app.Table("seen", key_type=bytes, value_type=bytes, partitions=place.partitions)
app.agent(topic, name="agent")(chosen)

if __name__ == "__main__":
    app.main()
