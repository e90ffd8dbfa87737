"""Messages for handlers, as short as a test wants them."""

from __future__ import annotations

from typing import Any

from streamapp.intents.base import Decision, IntentHandler, Thresholds
from streamapp.intents.registry import Routed, default_registry
from streamapp.saga.model import Message

THRESHOLDS = Thresholds(minimum=0.5, high=0.8)


def message(
    intent: str = "ORDER_REQUEST",
    confidence: float = 0.9,
    entities: dict[str, Any] | None = None,
    text: str = "",
) -> Message:
    return Message(
        processing_id="p-1",
        lead_id="lead-1",
        business_id="business-1",
        tenant_id="tenant-1",
        intent=intent,
        confidence=confidence,
        entities=entities or {},
        text=text,
    )


def decide(
    handler: IntentHandler,
    confidence: float = 0.9,
    entities: dict[str, Any] | None = None,
    text: str = "",
) -> Decision:
    """The handler's own decision, checked for what holds for every handler."""
    given = message(handler.intent, confidence, entities, text)
    decision = handler.decide(given, THRESHOLDS)
    assert handler.emits.issuperset(decision.actions)
    assert len(set(decision.actions)) == len(decision.actions)
    assert decision == handler.decide(given, THRESHOLDS)
    assert decision.reply
    return decision


def route(
    intent: str,
    confidence: float = 0.9,
    entities: dict[str, Any] | None = None,
    text: str = "",
) -> Routed:
    return default_registry().route(message(intent, confidence, entities, text), THRESHOLDS)
