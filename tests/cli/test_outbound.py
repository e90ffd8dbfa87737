"""streamapp outbound list, show and retry at a shell."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from uuid import uuid4

import asyncpg

from streamapp.demo.kafka import EmbeddedKafka
from streamapp.outbound.reply import Reply
from streamapp.settings import load
from streamapp.storage.deliveries import Deliveries
from tests.cli.support import Ran, ran, refused
from tests.kafka.job import read_all

TOPIC = "whatsapp-outbound"


async def test_look_and_send_again(database: str, kafka: EmbeddedKafka) -> None:
    kafka.create_topic(TOPIC, 1)
    pool = await asyncpg.create_pool(database, min_size=0, max_size=1)
    table, claim = Deliveries(pool, "streamapp"), uuid4()
    reply = Reply("m-1", "l", "b", "t", "+491701234567", "Hello", None, datetime.now(UTC))
    await table.begin(reply, claim)
    environment = {
        "DATABASE_URL": database,
        "STREAMAPP_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
    }

    async def run(*arguments: str) -> Ran:
        return await asyncio.to_thread(ran, "outbound", *arguments, env=environment)

    refused(await run("retry", "m-1"), 1, "m-1 is sending")
    await table.unknown("m-1", claim, "no_answer", None, "call 0049 170 1234567")
    await pool.close()
    (row,) = (await run("list", "--status", "unknown", "--json")).json
    assert (row["message_id"], row["recipient"]) == ("m-1", "***67")
    assert (await run("list", "--status", "sent", "--json")).json == []
    shown = await run("show", "m-1")
    assert "no_answer" in shown.out
    assert "1234567" not in shown.out
    refused(await run("show", "nobody"), 1, "there is no delivery 'nobody'")
    refused(await run("retry", "nobody"), 1, "there is no delivery 'nobody'")
    assert (await run("retry", "m-1", "--by", "ann", "--json")).json["status"] == "pending"
    assert (await run("retry", "m-1")).code == 0, "asked twice"
    settings = load(environment).model_copy(update={"topic_partitions": 1})
    records = await read_all(settings, TOPIC)
    assert [json.loads(record.value)["text"] for record in records] == ["Hello", "Hello"]
    assert records[0].key == b"l"
