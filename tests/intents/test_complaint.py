"""COMPLAINT."""

from __future__ import annotations

from typing import Any

import pytest

from streamapp.intents.complaint import ComplaintHandler
from tests.intents.support import decide, route

HANDLER = ComplaintHandler()
NORMAL = ("create_support_ticket", "notify_support_team", "priority_high", "schedule_followup")
CRITICAL = (
    "create_support_ticket",
    "notify_support_team",
    "notify_supervisor",
    "priority_critical",
    "immediate_followup",
)
ORDER = ("fetch_order_details", "notify_fulfillment_team")


@pytest.mark.parametrize(
    ("entities", "text", "critical"),
    [
        ({}, "", False),
        ({}, "It broke", False),
        ({"severity": "critical"}, "", True),
        ({"severity": " URGENT "}, "", True),
        ({"severity": "high"}, "", False),
        ({"severity": ["critical"]}, "", False),
        ({"severity": "non-critical"}, "", False),
        ({}, "This is URGENT", True),
        ({}, "I need it urgently", True),
        ({}, "Call me immediately!", True),
        ({}, "an emergency", True),
        ({}, "two emergencies", True),
        ({}, "immediate", False),
        ({}, "asap", False),
        ({}, "insurgents", False),
        ({}, "a non-urgent matter", False),
        ({}, "this isn\u2019t an emergency", False),
        ({}, "nothing urgent, not an emergency", False),
        ({"severity": "critical"}, "not urgent", True),
        ({"severity": "low"}, "urgent", True),
        ({"urgency": "urgent"}, "", False),
    ],
)
@pytest.mark.parametrize("order_id", [None, "o-1"])
def test_actions(entities: dict[str, Any], text: str, critical: bool, order_id: str | None) -> None:
    decision = decide(HANDLER, 0.9, entities | {"order_id": order_id}, text)
    order = ORDER if order_id else ()
    last = ("consider_compensation",) if critical else ()
    assert decision.actions == (CRITICAL if critical else NORMAL) + order + last
    assert decision.escalate
    assert decision.metadata == {
        "severity": "critical" if critical else "normal",
        "category": None,
        "order_id": order_id,
        "requires_immediate_action": critical,
    }
    assert ("highest priority" in (decision.reply or "")) == critical


@pytest.mark.parametrize(
    ("entities", "order_id"),
    [
        ({"orderId": "o-2"}, "o-2"),
        ({"order_id": "o-1", "orderId": "o-2"}, "o-1"),
        ({"order_id": " ", "orderId": "o-2"}, "o-2"),
        ({"order_id": 4711}, 4711),
        ({"order_id": [], "orderId": {}}, None),
    ],
)
def test_order_ids(entities: dict[str, Any], order_id: Any) -> None:
    decision = decide(HANDLER, 0.9, entities)
    assert decision.metadata["order_id"] == order_id
    assert set(ORDER).issubset(decision.actions) == (order_id is not None)


@pytest.mark.parametrize(
    ("given", "expected"),
    [(" Late - Delivery ", "late_delivery"), ("", None), (5, 5), (["a"], ["a"])],
)
def test_the_category_is_kept(given: Any, expected: Any) -> None:
    assert decide(HANDLER, 0.9, {"category": given}).metadata["category"] == expected


def test_routed_at_and_around_the_thresholds() -> None:
    assert route("COMPLAINT", 0.4999).handler == "UNKNOWN"
    assert route("COMPLAINT", 0.5).decision.actions == (*NORMAL, "flag_for_review")
    assert route("COMPLAINT", 0.7999).decision.actions == (*NORMAL, "flag_for_review")
    for confidence in (0.8, 0.81, 1.0):
        routed = route("COMPLAINT", confidence)
        assert routed.handler == "COMPLAINT"
        assert routed.decision.actions == NORMAL
        assert routed.decision.escalate


def test_why_tells_what_made_it_critical() -> None:
    assert "severity: critical" in decide(HANDLER, 0.9, {"severity": "critical"}).why
    assert any("text" in line for line in decide(HANDLER, 0.9, {}, "urgent").why)
    assert any("order id" in line for line in decide(HANDLER, 0.9, {"order_id": "1"}).why)


def test_what_it_stands_for() -> None:
    assert (HANDLER.intent, HANDLER.priority) == ("COMPLAINT", 10)
