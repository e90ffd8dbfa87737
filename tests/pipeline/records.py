"""Records to decode: a valid one, and ways to change it."""

from __future__ import annotations

import json
from typing import Any

from streamapp.pipeline.messages import AIError, AIResult, decode
from streamapp.pipeline.outcomes import Record

LIMIT = 262_144


def result(**changes: Any) -> dict[str, Any]:
    return {
        "processing_id": "p-1",
        "lead_id": "lead-1",
        "business_id": "business-1",
        "tenant_id": "tenant-1",
        "intent": {"intent": "ORDER_REQUEST", "confidence": 0.93},
        "entities": {"product": "Widget X", "quantity": 100},
        "suggested_actions": ["notify_sales"],
        "suggested_response": "Gladly!",
        "original_message": "100 of Widget X, please",
        "processing_time_ms": 120,
        "source": "webchat",
        "reply_to": "491700000000",
    } | changes


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in result().items() if name not in names}


def envelope(payload: Any, event_type: Any = "ai.process.result", **more: Any) -> dict[str, Any]:
    return {"event_type": event_type, "payload": payload} | more


def record(value: bytes | None, key: bytes | None = b"lead-1") -> Record:
    return Record("ai-results", 3, 17, 1_700_000_000_000, key, value)


def read(document: Any, key: bytes | None = b"lead-1") -> AIResult | AIError:
    value = document if isinstance(document, bytes) else json.dumps(document).encode()
    return decode(record(value, key), max_payload_bytes=LIMIT)


def read_result(document: Any, key: bytes | None = b"lead-1") -> AIResult:
    message = read(document, key)
    assert isinstance(message, AIResult)
    return message


def raw(entities: str) -> bytes:
    """A valid result whose entities are the given JSON text."""
    rest = json.dumps(without("entities"))
    return f'{rest[:-1]}, "entities": {entities}}}'.encode()


def nested(depth: int) -> bytes:
    """A result that is nested ``depth`` deep in all."""
    return raw('{"a":' + "[" * (depth - 2) + "]" * (depth - 2) + "}")
