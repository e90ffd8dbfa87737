"""REWARD_REQUEST: the customer wants a reward for points."""

from __future__ import annotations

from streamapp.intents.base import Decision, IntentHandler, Thresholds
from streamapp.intents.entities import amount, lookup, name_for_reply
from streamapp.intents.text import CustomerText, Keywords
from streamapp.saga.model import Message

GIFT = Keywords(("gift", "present", "for a friend"))


class RewardRequestHandler(IntentHandler):
    """Notes the wish; with a card and enough confidence takes the points and orders the reward."""

    intent = "REWARD_REQUEST"
    priority = 8
    emits = frozenset({"note_reward", "redeem_points", "create_order", "assign_to_sales"})

    def decide(self, message: Message, thresholds: Thresholds) -> Decision:
        card = lookup(message.entities, "card_number")
        points = amount(lookup(message.entities, "points"))
        reward = name_for_reply(lookup(message.entities, "product"))
        gift = GIFT.found_in(CustomerText(message.text))
        sure = bool(card and points) and message.confidence > thresholds.high
        actions = ["note_reward"]
        actions += ["redeem_points", "create_order"] if sure else ["assign_to_sales"]
        if gift:
            actions.append("assign_to_sales")
        return Decision(
            actions=tuple(actions),
            escalate=not sure,
            metadata={"card_number": card, "points": points, "gift": gift},
            reply=(
                f"Your reward{f' {reward}' if reward else ''} is on its way."
                if sure
                else "Thank you! Somebody will look at your points and write to you."
            ),
            why=(f"card, points and confidence: {'enough' if sure else 'not enough'}",),
        )
