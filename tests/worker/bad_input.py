"""Every kind of input that cannot be worked on, with the reason it is dead-lettered for."""

from __future__ import annotations

import json
from typing import Any

from tests.kafka.job import message

Bytes = bytes | None


def _changed(**changes: Any) -> bytes:
    """A message of the lead ``bad`` with other fields; None takes one away."""
    document = json.loads(message("bad-id", "bad", "UNKNOWN")) | changes
    return json.dumps(
        {name: value for name, value in document.items() if value is not None}
    ).encode()


def _raw(entities: bytes) -> bytes:
    return _changed(entities={}).replace(b'"entities": {}', b'"entities": ' + entities)


_INVALID: dict[str, tuple[Bytes, Bytes]] = {
    "not UTF-8": (b"bad", b"\xff\xfe{}"),
    "not JSON": (b"bad", b"hello"),
    "two documents": (b"bad", b"{} {}"),
    "no object": (b"bad", b"[1, 2]"),
    "no value": (b"bad", None),
    "an empty value": (b"bad", b""),
    "no key": (None, _changed()),
    "an empty key": (b"", _changed()),
    "a key that is no text": (b"\xff", _changed()),
    "the key of another lead": (b"other", _changed()),
    "no processing id": (b"bad", _changed(processing_id=None)),
    "no lead": (b"bad", _changed(lead_id=None)),
    "no business": (b"bad", _changed(business_id=None)),
    "an empty id": (b"bad", _changed(processing_id="")),
    "an id that is too long": (b"bad", _changed(processing_id="x" * 257)),
    "an id with a control character": (b"bad", _changed(processing_id="a\nb")),
    "a number for an id": (b"bad", _changed(processing_id=7)),
    "an intent that is no object": (b"bad", _changed(intent="ORDER_REQUEST")),
    "a confidence above 1": (b"bad", _changed(intent={"intent": "UNKNOWN", "confidence": 1.5})),
    "a confidence in words": (b"bad", _changed(intent={"intent": "UNKNOWN", "confidence": "hi"})),
    "entities that are no object": (b"bad", _changed(entities=[1])),
    "NaN": (b"bad", _raw(b'{"a": NaN}')),
    "NUL": (b"bad", _raw(rb'{"a": "\u0000"}')),
    "a lone surrogate": (b"bad", _raw(rb'{"a": "\ud800"}')),
    "too deep": (b"bad", b"[" * 100_000),
    "deeper than allowed": (b"bad", _raw(b'{"a": ' + b"[" * 64 + b"]" * 64 + b"}")),
    "larger than allowed": (b"bad", _changed(original_message="x" * 262_144)),
    "an unknown event": (b"bad", json.dumps({"event_type": "ai.other", "payload": {}}).encode()),
}

BAD: dict[str, tuple[Bytes, Bytes, str]] = {
    name: (key, value, "invalid_payload") for name, (key, value) in _INVALID.items()
} | {
    "an unknown tenant": (b"bad", _changed(tenant_id=None), "unknown_tenant"),
}
