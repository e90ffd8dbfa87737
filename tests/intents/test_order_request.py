"""ORDER_REQUEST."""

from __future__ import annotations

from typing import Any

import pytest

from streamapp.intents.order_request import OrderRequestHandler
from tests.intents.support import decide, route

HANDLER = OrderRequestHandler()
FULL = {"product": "Widget X", "quantity": 100}
ALWAYS = ("create_order", "notify_sales")


@pytest.mark.parametrize(
    ("confidence", "entities", "more"),
    [
        (0.81, FULL, ("check_inventory",)),
        (1.0, FULL, ("check_inventory",)),
        (0.8000001, FULL, ("check_inventory",)),
        (0.8, FULL, ("request_clarification",)),
        (0.79, FULL, ("request_clarification",)),
        (0.5, FULL, ("request_clarification",)),
        (0.9, {}, ()),
        (0.9, {"product": "Widget X"}, ()),
        (0.9, {"quantity": 100}, ()),
        (0.9, FULL | {"product": " "}, ()),
        (0.9, FULL | {"quantity": 0}, ()),
        (0.9, FULL | {"quantity": -5}, ()),
        (0.9, FULL | {"quantity": "a few"}, ()),
        (0.9, FULL | {"quantity": "1,000 boxes"}, ("check_inventory",)),
        (0.9, FULL | {"product": ["Widget X"]}, ("check_inventory",)),
        (
            0.9,
            FULL | {"urgency": "ASAP"},
            ("check_inventory", "priority_high", "notify_supervisor"),
        ),
        (0.9, {"urgency": "urgent"}, ("priority_high", "notify_supervisor")),
        (0.9, {"urgency": "immediate"}, ("priority_high", "notify_supervisor")),
        (0.9, {"urgency": "low"}, ()),
        (
            0.6,
            {"urgency": " Immediate "},
            ("request_clarification", "priority_high", "notify_supervisor"),
        ),
    ],
)
def test_actions(confidence: float, entities: dict[str, Any], more: tuple[str, ...]) -> None:
    decision = decide(HANDLER, confidence, entities)
    assert decision.actions == ALWAYS + more
    assert decision.escalate == (confidence <= 0.8)
    assert decision.metadata["requires_confirmation"] == (confidence <= 0.8)


def test_urgent_words_in_the_text_do_not_count() -> None:
    assert decide(HANDLER, 0.9, {}, "urgent!").actions == ALWAYS


def test_metadata() -> None:
    decision = decide(HANDLER, 0.9, {"product": "Widget X", "quantity": "5 kg", "urgency": "low"})
    assert decision.metadata == {
        "order_details": {"product": "Widget X", "quantity": 5, "urgency": "low"},
        "requires_confirmation": False,
    }


@pytest.mark.parametrize(
    ("entities", "words"),
    [
        (FULL, "100 units of Widget X"),
        (FULL | {"quantity": 100.0}, "100 units of Widget X"),
        (FULL | {"quantity": "1e3"}, "1000 units of Widget X"),
        (FULL | {"quantity": "1,00,000 units"}, "100000 units of Widget X"),
        (FULL | {"quantity": 2.5}, "2.5 units of Widget X"),
        (FULL | {"quantity": 1}, "1 unit of Widget X"),
        (FULL | {"product": "  Widget \n X "}, "100 units of Widget X"),
    ],
)
def test_the_reply_names_what_was_ordered(entities: dict[str, Any], words: str) -> None:
    assert f" {words}. " in (decide(HANDLER, 0.9, entities).reply or "")
    assert words not in (decide(HANDLER, 0.8, entities).reply or "")


@pytest.mark.parametrize(
    "entities",
    [{}, {"product": "Widget X"}, {"quantity": 100}, FULL | {"product": "w" * 5000}],
)
def test_the_reply_does_without_what_is_not_known(entities: dict[str, Any]) -> None:
    reply = decide(HANDLER, 0.9, entities).reply or ""
    assert "None" not in reply
    assert "100" not in reply
    assert "Widget" not in reply
    assert len(reply) < 500


def test_routed_at_and_around_the_thresholds() -> None:
    below = route("ORDER_REQUEST", 0.49, FULL)
    assert below.handler == "UNKNOWN"
    at_minimum = route("ORDER_REQUEST", 0.5, FULL)
    assert at_minimum.handler == "ORDER_REQUEST"
    assert at_minimum.decision.actions == (*ALWAYS, "request_clarification", "flag_for_review")
    at_high = route("ORDER_REQUEST", 0.8, FULL)
    assert at_high.decision.actions == (*ALWAYS, "request_clarification")
    assert at_high.decision.escalate
    above = route("ORDER_REQUEST", 0.81, FULL)
    assert above.decision.actions == (*ALWAYS, "check_inventory")
    assert not above.decision.escalate


def test_why_tells_what_led_to_the_actions() -> None:
    why = " ".join(decide(HANDLER, 0.9, FULL | {"urgency": "asap"}).why)
    assert "check_inventory" in why
    assert "priority_high" in why
    assert "request_clarification" in " ".join(decide(HANDLER, 0.7).why)


def test_what_it_stands_for() -> None:
    assert (HANDLER.intent, HANDLER.priority) == ("ORDER_REQUEST", 10)
