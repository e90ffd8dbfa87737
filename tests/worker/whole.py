"""A worker as it is, in this process, but for Faust and Kafka."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from streamapp.app import build
from streamapp.pipeline.messages import RESULT
from streamapp.settings import load
from streamapp.worker.runtime import Runtime
from tests.crash.plain import PlainMembership, PlainProducer, PlainTable, Topics
from tests.worker.fakes import FakeEvent, FakeMessage


@asynccontextmanager
async def running_worker(
    database: str, directory: Path, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Runtime]:
    """The worker, which owns partition 0; ``accept`` hands it its records."""
    settings = load(
        {
            "STREAMAPP_DATABASE_URL": database,
            "STREAMAPP_DATA_DIR": str(directory),
            "STREAMAPP_LOG_LEVEL": "warning",
            **(environment or {}),
        }
    )
    _, worker = build(settings)
    (directory / "topics").mkdir()
    topics = Topics(directory / "topics")
    worker.membership = PlainMembership(topics)  # type: ignore[assignment]
    worker.producer = PlainProducer(  # type: ignore[assignment]
        topics, settings.dlq_topic, settings.outbound_topic
    )
    worker.table = PlainTable(directory / "seen")  # type: ignore[assignment]
    await worker.start()
    worker.intake.assigned([(settings.input_topic, 0)])
    try:
        yield worker
    finally:
        await worker.hand_over(stopping=True)
        await worker.stop()


def result(number: int, lead: str, intent: str = "ORDER_REQUEST", **changes: Any) -> FakeEvent:
    """The record of an AI's result at an offset; its processing id is ``p-<number>``."""
    payload: dict[str, Any] = {
        "processing_id": f"p-{number}",
        "lead_id": lead,
        "business_id": "business",
        "tenant_id": "tenant",
        "intent": {"intent": intent, "confidence": 0.9},
        "entities": {"product": "Desk lamp", "quantity": 3},
        "original_message": "I would like to order this. " * 8,
        **changes,
    }
    value = orjson.dumps({"event_type": RESULT, "event_id": f"e-{number}", "payload": payload})
    return FakeEvent(FakeMessage(number, key=lead.encode(), value=value, timestamp=1.7e9 + number))
