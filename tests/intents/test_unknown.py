"""UNKNOWN."""

from __future__ import annotations

import pytest

from streamapp.intents.unknown import UnknownHandler
from tests.intents.support import decide, route

HANDLER = UnknownHandler()
ALWAYS = ("flag_for_review", "notify_agent", "requires_human_intervention")
URGENT = ("priority_high", "notify_supervisor")


@pytest.mark.parametrize(
    ("text", "urgent"),
    [
        ("", False),
        ("hello", False),
        ("urgent", True),
        ("I need it URGENTLY", True),
        ("emergencies", True),
        ("immediately", False),
        ("asap", False),
        ("not urgent", False),
        ("non-urgent", False),
    ],
)
@pytest.mark.parametrize("confidence", [0.0, 0.49, 0.5, 0.8, 0.81, 1.0])
def test_actions(text: str, urgent: bool, confidence: float) -> None:
    decision = decide(HANDLER, confidence, {"severity": "critical", "urgency": "urgent"}, text)
    assert decision.actions == ALWAYS + (URGENT if urgent else ())
    assert decision.escalate
    assert any("urgent" in line for line in decision.why) == urgent


@pytest.mark.parametrize(
    ("intent", "confidence", "reason"),
    [
        ("UNKNOWN", 0.9, "unknown_intent"),
        ("UNKNOWN", 0.5, "unknown_intent"),
        ("UNKNOWN", 0.49, "low_confidence"),
        ("COMPLAINT", 0.49, "low_confidence"),
        ("SOMETHING_NEW", 0.9, "no_handler"),
        ("complaint", 0.9, "no_handler"),
    ],
)
def test_metadata(intent: str, confidence: float, reason: str) -> None:
    routed = route(intent, confidence)
    assert routed.handler == "UNKNOWN"
    assert routed.decision.metadata == {
        "reason": reason,
        "original_intent": intent,
        "confidence": confidence,
    }


def test_its_own_flag_keeps_its_place_below_high() -> None:
    routed = route("UNKNOWN", 0.3, text="urgent")
    assert routed.decision.actions == ALWAYS + URGENT


def test_what_it_stands_for() -> None:
    assert (HANDLER.intent, HANDLER.priority) == ("UNKNOWN", 1)
