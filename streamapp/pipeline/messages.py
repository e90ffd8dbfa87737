"""What a record of the input topic says: a result of the AI, or an error of it.

Both come bare or in an envelope. An **envelope** is an object with ``event_type`` and
``payload``; its payload must be an object, and only the payload is read further. Anything else
is **bare**, whatever other fields it has; a bare object may carry ``event_type`` (without
``payload``) to say that it is an ``ai.error``, without one it is a result. A null
``event_type`` is a missing one, so an envelope without it is read as bare and refused for the
ids that it lacks. Fields that nobody knows are let be: the record's own bytes are what is stored.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Any

from streamapp.pipeline import json_document
from streamapp.pipeline.dead_letter import origin_of
from streamapp.pipeline.outcomes import Record
from streamapp.saga.model import Message
from streamapp.values import value

RESULT = "ai.process.result"
ERROR = "ai.error"
UNKNOWN_INTENT = "UNKNOWN"
DEFAULT_SOURCE = "whatsapp"
MAX_ID_LENGTH = 256

_is_id = re.compile(rf"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{MAX_ID_LENGTH}}}").fullmatch


class InvalidPayload(Exception):
    """A record that breaks the input contract.

    The message names the rule, never the content. ``processing_id`` is set where the record
    has a valid one that could be read.
    """

    def __init__(self, message: str, processing_id: str | None = None) -> None:
        super().__init__(message)
        self.processing_id = processing_id


@value
class AIResult:
    """A valid result of the AI. ``ignored_suggestions`` counts what was no action name."""

    processing_id: str
    lead_id: str
    business_id: str
    tenant_id: str | None
    intent: str
    confidence: float
    entities: dict[str, Any]
    text: str
    suggested_actions: tuple[str, ...]
    ignored_suggestions: int
    suggested_response: str | None
    processing_time_ms: float | None
    source: str
    reply_to: str | None
    payload_hash: bytes  # of what decides the effects, and of nothing else

    def message(self, tenant_id: str) -> Message:
        """What the saga works on, for the tenant that was given or found."""
        return Message(
            processing_id=self.processing_id,
            lead_id=self.lead_id,
            business_id=self.business_id,
            tenant_id=tenant_id,
            intent=self.intent,
            confidence=self.confidence,
            entities=self.entities,
            text=self.text,
            source=self.source,
            reply_to=self.reply_to,
        )


@value
class AIError:
    """A valid error report of the AI. ``processing_id`` is its identity: of the event where it
    has an id, else of the record in which it came first."""

    processing_id: str
    lead_id: str
    business_id: str | None
    tenant_id: str | None
    error_type: str
    error_message: str


def decode(record: Record, *, max_payload_bytes: int) -> AIResult | AIError:
    """The message in a record.

    Raises ``InvalidPayload``, and nothing else whatever the bytes are.
    """
    value = record.value
    if value is None:
        raise InvalidPayload("the value is null")
    if len(value) > max_payload_bytes:
        raise InvalidPayload(
            f"the value has {len(value)} bytes, at most {max_payload_bytes} are allowed"
        )
    try:
        document, broken = json_document.load(value)
    except json_document.NotJson as error:
        raise InvalidPayload(str(error)) from None
    if type(document) is not dict:
        raise InvalidPayload("the value is no JSON object")
    kind = document.get("event_type")
    body = document
    if kind is not None and "payload" in document:
        body = document["payload"]
    try:
        if broken is not None:
            raise InvalidPayload(broken)
        if type(body) is not dict:
            raise InvalidPayload("the payload of the envelope is no object")
        if kind is None or kind == RESULT:
            return _result(body, record.key)
        if kind == ERROR:
            return _error(body, record.key, _error_identity(document, record))
        raise InvalidPayload("event_type is unknown")
    except InvalidPayload as invalid:
        invalid.processing_id = _readable_id(document, body, record)
        raise


def _result(body: dict[str, Any], key: bytes | None) -> AIResult:
    processing_id = _id(body, "processing_id")
    lead_id = _lead_id(body, key)
    business_id = _id(body, "business_id")
    tenant_id = _optional_id(body, "tenant_id")
    intent, confidence = _intent(body.get("intent"))
    entities = body.get("entities")
    if entities is None:
        entities = {}
    elif type(entities) is not dict:
        raise InvalidPayload("entities is no object")
    text = _text(body, "original_message", "")
    suggested, ignored = _suggestions(body.get("suggested_actions"))
    return AIResult(
        processing_id=processing_id,
        lead_id=lead_id,
        business_id=business_id,
        tenant_id=tenant_id,
        intent=intent,
        confidence=confidence,
        entities=entities,
        text=text,
        suggested_actions=suggested,
        ignored_suggestions=ignored,
        suggested_response=_text_if_any(body.get("suggested_response")),
        processing_time_ms=_milliseconds(body.get("processing_time_ms")),
        source=_text_if_any(body.get("source")) or DEFAULT_SOURCE,
        reply_to=_id_if_any(body.get("reply_to")),
        payload_hash=sha256(
            json_document.canonical([lead_id, business_id, tenant_id, intent, entities, text])
        ).digest(),
    )


def _error(body: dict[str, Any], key: bytes | None, identity: str) -> AIError:
    return AIError(
        processing_id=identity,
        lead_id=_lead_id(body, key),
        business_id=_optional_id(body, "business_id"),
        tenant_id=_optional_id(body, "tenant_id"),
        error_type=_text(body, "error_type", "unknown"),
        error_message=_text(body, "error_message", ""),
    )


def _error_identity(document: dict[str, Any], record: Record) -> str:
    return _identity(_optional_id(document, "event_id") or origin_of(record).position)


def _identity(event: str) -> str:
    """The identity of an error report, apart from those of messages and no longer than they."""
    identity = f"{ERROR}:{event}"
    if len(identity) <= MAX_ID_LENGTH:
        return identity
    return f"{ERROR}:sha256:{sha256(event.encode()).hexdigest()}"


def _readable_id(document: dict[str, Any], body: Any, record: Record) -> str | None:
    if document.get("event_type") == ERROR:
        return _identity(_id_if_any(document.get("event_id")) or origin_of(record).position)
    return _id_if_any(body.get("processing_id")) if type(body) is dict else None


def _id(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None:
        raise InvalidPayload(f"{name} is missing")
    if type(value) is str and _is_id(value):
        return value
    raise InvalidPayload(
        f"{name} is no text of 1 to {MAX_ID_LENGTH} characters without control characters"
    )


def _optional_id(body: dict[str, Any], name: str) -> str | None:
    return None if body.get(name) is None else _id(body, name)


def _id_if_any(value: Any) -> str | None:
    return value if type(value) is str and _is_id(value) else None


def _lead_id(body: dict[str, Any], key: bytes | None) -> str:
    lead_id = _id(body, "lead_id")
    if key is None:
        raise InvalidPayload("the record has no key")
    # A lone surrogate has been refused by now, so every id can be encoded.
    if key != lead_id.encode():
        raise InvalidPayload("the record's key differs from lead_id")
    return lead_id


def _intent(given: Any) -> tuple[str, float]:
    if given is None:
        return UNKNOWN_INTENT, 0.0
    if type(given) is not dict:
        raise InvalidPayload("intent is no object")
    name = given.get("intent")
    if name is None:
        name = UNKNOWN_INTENT
    elif type(name) is not str:
        raise InvalidPayload("the name of the intent is no text")
    confidence = given.get("confidence")
    if confidence is None:
        confidence = 0.0
    elif type(confidence) not in (float, int) or not 0 <= confidence <= 1:
        raise InvalidPayload("confidence is no number from 0 to 1")
    return name.strip() or UNKNOWN_INTENT, float(confidence)


def _text(body: dict[str, Any], name: str, missing: str) -> str:
    value = body.get(name)
    if value is None:
        return missing
    if type(value) is not str:
        raise InvalidPayload(f"{name} is no text")
    return value


def _text_if_any(value: Any) -> str | None:
    return value if type(value) is str else None


def _suggestions(given: Any) -> tuple[tuple[str, ...], int]:
    if not given and (given is None or type(given) is list):
        return (), 0
    if type(given) is not list:
        return (), 1
    names = tuple(name for name in given if type(name) is str)
    return names, len(given) - len(names)


def _milliseconds(given: Any) -> float | None:
    if type(given) in (float, int) and given >= 0:
        return float(given)
    return None
