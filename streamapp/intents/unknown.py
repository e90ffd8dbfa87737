"""UNKNOWN: nobody knows what the customer wants, or the AI is not sure enough."""

from __future__ import annotations

from streamapp.intents.base import Decision, IntentHandler, Thresholds
from streamapp.intents.text import CustomerText, UrgencyWords
from streamapp.saga.model import Message

_URGENCY = UrgencyWords(("urgent", "emergency"))


class UnknownHandler(IntentHandler):
    """Hands the message to a person. It is the fallback for what no handler accepts."""

    intent = "UNKNOWN"
    priority = 1
    emits = frozenset(
        {
            "flag_for_review",
            "notify_agent",
            "requires_human_intervention",
            "priority_high",
            "notify_supervisor",
        }
    )

    def decide(self, message: Message, thresholds: Thresholds) -> Decision:
        actions = ["flag_for_review", "notify_agent", "requires_human_intervention"]
        why = ["needs a person: escalated"]
        word = _URGENCY.first_in(CustomerText(message.text))
        if word is not None:
            actions += ("priority_high", "notify_supervisor")
            why.append(f"urgent words in the text ({word}): priority_high, notify_supervisor")
        return Decision(
            actions=tuple(actions),
            escalate=True,
            metadata={
                "reason": self._reason(message, thresholds),
                "original_intent": message.intent,
                "confidence": message.confidence,
            },
            reply=(
                "Thank you for your message. A member of our team will read it and "
                "get back to you soon."
            ),
            generic=True,
            why=tuple(why),
        )

    def _reason(self, message: Message, thresholds: Thresholds) -> str:
        if message.confidence < thresholds.minimum:
            return "low_confidence"
        return "unknown_intent" if message.intent == self.intent else "no_handler"
