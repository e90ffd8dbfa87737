"""PRICING_INQUIRY."""

from __future__ import annotations

from typing import Any

import pytest

from streamapp.intents.pricing_inquiry import PricingInquiryHandler
from tests.intents.support import decide, route

HANDLER = PricingInquiryHandler()
ALWAYS = ("send_price_list", "assign_to_sales")
QUOTE = ("prepare_custom_quote", "notify_sales_manager")


@pytest.mark.parametrize(
    ("entities", "more"),
    [
        ({}, ("send_general_price_list",)),
        ({"product": "Widget X"}, ("fetch_product_pricing",)),
        ({"category": "widgets"}, ("fetch_category_pricing",)),
        ({"category": "widgets", "product": "Widget X"}, ("fetch_product_pricing",)),
        ({"category": "widgets", "product": ""}, ("fetch_category_pricing",)),
        ({"category": " ", "product": None}, ("send_general_price_list",)),
        ({"category": 7}, ("fetch_category_pricing",)),
        ({"volume": 100}, ("send_general_price_list",)),
        ({"volume": 100.5}, ("send_general_price_list", *QUOTE)),
        ({"volume": 101}, ("send_general_price_list", *QUOTE)),
        ({"volume": "101 units", "product": "x"}, ("fetch_product_pricing", *QUOTE)),
        ({"volume": "150+"}, ("send_general_price_list", *QUOTE)),
        ({"volume": "100-200"}, ("send_general_price_list",)),
        ({"volume": -500}, ("send_general_price_list",)),
        ({"volume": True}, ("send_general_price_list",)),
        ({"volume": "9" * 31}, ("send_general_price_list",)),
        ({"quantity": 500}, ("send_general_price_list",)),
    ],
)
def test_actions(entities: dict[str, Any], more: tuple[str, ...]) -> None:
    decision = decide(HANDLER, 0.9, entities)
    assert decision.actions == ALWAYS + more
    assert not decision.escalate
    custom_quote = more[-1:] == QUOTE[-1:]
    assert decision.metadata["requires_custom_quote"] == custom_quote
    assert ("quote" in (decision.reply or "")) == custom_quote


def test_metadata() -> None:
    entities = {"product": "Widget X", "category": "Big Widgets", "volume": "1,000 units"}
    assert decide(HANDLER, 0.9, entities).metadata == {
        "product": "Widget X",
        "category": "big_widgets",
        "volume": 1000,
        "requires_custom_quote": True,
    }
    assert decide(HANDLER, 0.9, {"category": [1], "volume": "some"}).metadata == {
        "product": None,
        "category": [1],
        "volume": None,
        "requires_custom_quote": False,
    }


def test_the_reply_names_the_product_when_it_is_known() -> None:
    assert "interest in Widget X." in (decide(HANDLER, 0.9, {"product": "Widget X"}).reply or "")
    assert "interest." in (decide(HANDLER, 0.9, {"product": ["Widget X"]}).reply or "")


@pytest.mark.parametrize(
    ("confidence", "handler", "flagged"),
    [
        (0.49, "UNKNOWN", True),
        (0.5, "PRICING_INQUIRY", True),
        (0.79, "PRICING_INQUIRY", True),
        (0.8, "PRICING_INQUIRY", False),
        (0.81, "PRICING_INQUIRY", False),
    ],
)
def test_routed_at_and_around_the_thresholds(
    confidence: float, handler: str, flagged: bool
) -> None:
    routed = route("PRICING_INQUIRY", confidence)
    assert routed.handler == handler
    assert routed.decision.escalate == flagged
    assert ("flag_for_review" in routed.decision.actions) == flagged


def test_why_tells_which_prices() -> None:
    for entities, told in (
        ({"product": "x"}, "product known"),
        ({"category": "x"}, "no product known"),
        ({}, "neither product nor category"),
        ({"volume": 101}, "volume above 100"),
    ):
        assert told in "; ".join(decide(HANDLER, 0.9, entities).why)


def test_what_it_stands_for() -> None:
    assert (HANDLER.intent, HANDLER.priority) == ("PRICING_INQUIRY", 8)
