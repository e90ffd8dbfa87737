"""The handler by itself: it is pure, so nothing is needed."""

import pytest
from shop_loyalty.actions import NoteReward, RedeemPoints
from shop_loyalty.intents import RewardRequestHandler

from streamapp.testing import Kit, message

KIT = Kit(handlers=[RewardRequestHandler], actions=[NoteReward, RedeemPoints])
CARD = {"cardNumber": "C-7", "points": "1,200 points", "product": "Mug"}


def test_with_card_points_and_confidence_the_reward_is_ordered() -> None:
    routed = KIT.route(message("REWARD_REQUEST", entities=CARD))
    assert routed.handler == "REWARD_REQUEST"
    assert routed.decision.actions == ("note_reward", "redeem_points", "create_order")
    assert routed.decision.metadata == {"card_number": "C-7", "points": 1200, "gift": False}
    assert routed.decision.reply == "Your reward Mug is on its way."
    assert not routed.decision.escalate


@pytest.mark.parametrize(
    ("entities", "confidence"),
    [({"points": 10}, 0.95), ({"card_number": "C-7"}, 0.95), (CARD, 0.8), ({}, 0.6)],
)
def test_else_a_person_looks_at_it(entities: dict[str, object], confidence: float) -> None:
    decision = KIT.route(
        message("REWARD_REQUEST", entities=entities, confidence=confidence)
    ).decision
    assert decision.actions[:2] == ("note_reward", "assign_to_sales")
    assert decision.escalate


@pytest.mark.parametrize(
    ("text", "gift"),
    [
        ("It is a GIFT", True),
        ("presents, please", True),
        ("for a  friend", True),
        ("gifted", False),
    ],
)
def test_a_gift_is_heard_in_the_text(text: str, gift: bool) -> None:
    decision = KIT.route(message("REWARD_REQUEST", entities=CARD, text=text)).decision
    assert decision.metadata["gift"] is gift
    assert ("assign_to_sales" in decision.actions) is gift


def test_it_leaves_other_intents_alone() -> None:
    assert KIT.route(message("PRICING_INQUIRY")).handler == "PRICING_INQUIRY"
