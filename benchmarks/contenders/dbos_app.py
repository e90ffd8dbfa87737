"""DBOS doing the same: a workflow of three steps for each message, run in its own environment.

The workflow's id is the processing id, so that a repeated message is the same workflow. Messages
of a lead follow one another. An offset is committed once the workflows of all before it exist:
from then on DBOS brings them to their end, also after a crash.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import aiohttp
import aiokafka
import asyncpg
import orjson
from dbos import DBOS, DBOSConfig, SetWorkflowID

from benchmarks.contenders.place import Place
from benchmarks.contenders.work import (
    NOTIFICATION,
    ORDER,
    REPLY,
    SETTINGS,
    dumps,
    order_from,
    reply_to,
)

IN_FLIGHT = int(os.environ.get("BENCH_IN_FLIGHT", "64"))
CONNECTIONS = 20
COMMIT_EVERY = 1.0  # seconds

place = Place.from_environment()
config: DBOSConfig = {
    "name": "bench",
    "system_database_url": place.database,
    "sys_db_pool_size": CONNECTIONS,
    "log_level": "WARNING",
    "run_admin_server": False,
}
DBOS(config=config)
pool: Any = None
http: Any = None


@DBOS.step()  # type: ignore[untyped-decorator]
async def create_order(message: dict[str, Any]) -> str:
    id_ = message["processing_id"]
    order = await order_from(http, place.service, message)
    details = dumps({"order_id": order, **message["entities"]})
    await pool.execute(ORDER, id_, message["lead_id"], message["business_id"], details)
    return order


@DBOS.step()  # type: ignore[untyped-decorator]
async def notify_sales(message: dict[str, Any]) -> None:
    text = f"{message['lead_id']} orders {message['entities']['product']}"
    await pool.execute(NOTIFICATION, message["processing_id"], message["lead_id"], text)


@DBOS.step()  # type: ignore[untyped-decorator]
async def reply(message: dict[str, Any]) -> None:
    id_, lead = message["processing_id"], message["lead_id"]
    await pool.execute(REPLY, id_, lead, reply_to(message))


@DBOS.workflow()  # type: ignore[untyped-decorator]
async def saga(message: dict[str, Any]) -> None:
    await create_order(message)
    await notify_sales(message)
    await reply(message)


async def main() -> None:
    global pool, http
    DBOS.launch()
    pool = await asyncpg.create_pool(
        place.database,
        min_size=CONNECTIONS,
        max_size=CONNECTIONS,
        server_settings=SETTINGS,
    )
    http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    consumer: Any = aiokafka.AIOKafkaConsumer(
        place.topic,
        bootstrap_servers=place.bootstrap,
        group_id=place.group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    free = asyncio.Semaphore(IN_FLIGHT)
    last: dict[bytes, asyncio.Task[None]] = {}
    starting: dict[Any, dict[int, bool]] = {}  # offsets by partition, and whether they exist

    async def run(record: Any, partition: Any, before: asyncio.Task[None] | None) -> None:
        try:
            if before is not None:
                await asyncio.wait([before])
            message = orjson.loads(record.value)
            with SetWorkflowID(message["processing_id"]):
                handle = await DBOS.start_workflow_async(saga, message)
            starting[partition][record.offset] = True
            await handle.get_result()
        finally:
            free.release()
            if last.get(record.key) is asyncio.current_task():
                del last[record.key]

    async def commit() -> None:
        while True:
            await asyncio.sleep(COMMIT_EVERY)
            offsets = {}
            for partition, records in starting.items():
                for offset, exists in list(records.items()):
                    if not exists:
                        break
                    del records[offset]
                    offsets[partition] = offset + 1
            if offsets:
                await consumer.commit(offsets)

    committing = asyncio.create_task(commit())
    async for record in consumer:
        await free.acquire()
        partition = aiokafka.TopicPartition(record.topic, record.partition)
        starting.setdefault(partition, {})[record.offset] = False
        last[record.key] = asyncio.create_task(run(record, partition, last.get(record.key)))
    await committing


if __name__ == "__main__":
    asyncio.run(main())
