"""A business changes what it has set while the worker runs."""

from __future__ import annotations

import json

from tests.kafka.job import read_all, send
from tests.support.waiting import until_async
from tests.worker.conftest import Stage


def asked(number: int) -> tuple[bytes, bytes]:
    """A question about the opening hours."""
    value = {
        "processing_id": f"p-{number}",
        "lead_id": f"lead-{number}",
        "business_id": "business-1",
        "tenant_id": "tenant-1",
        "intent": {"intent": "GENERAL_INQUIRY", "confidence": 0.95},
        "entities": {"category": "business_hours"},
        "original_message": "",
        "reply_to": "491700000000",
    }
    return f"lead-{number}".encode(), json.dumps(value).encode()


async def test_the_next_reply_has_a_text_that_was_changed_meanwhile(stage: Stage) -> None:
    stage.create_topics(1)
    worker = stage.worker(STREAMAPP_BUSINESS_REFRESH="0.2")
    worker.start()
    await worker.wait_until_ready()
    file = stage.environment["STREAMAPP_CONSUMER_GROUP"]
    path = worker.log.parent / f"{file}.toml"
    replies: dict[str, str] = {}

    async def told(number: int) -> bool:
        for record in await read_all(worker.settings, worker.settings.outbound_topic):
            body = json.loads(record.value)
            replies[body["in_reply_to"]] = body["text"]
        return f"p-{number}" in replies

    async def ask(number: int) -> str:
        await send(worker.settings, [asked(number)])
        await until_async(lambda: told(number))
        return replies[f"p-{number}"]

    async def change(text: str) -> None:
        path.write_text(f'name = "Shop"\n[texts]\nbusiness_hours = "{text}"\n')
        code, _, errors = await worker.run("business", "set", "business-1", str(path))
        assert code == 0, errors

    assert "Open" not in await ask(0), "without a text there is none"
    await change("Open until five, {{ business.name }}.")
    number = 0

    async def has(text: str) -> bool:
        nonlocal number
        number += 1
        return (await ask(number)).endswith(text)

    await until_async(lambda: has("\n\nOpen until five, Shop."))
    await change("Open until six.")
    await until_async(lambda: has("\n\nOpen until six."))
    before = dict(replies)
    assert await has("\n\nOpen until six."), "and so it stays"
    assert {name: replies[name] for name in before} == before, "what was said was said"
    assert await worker.stop() == 0
