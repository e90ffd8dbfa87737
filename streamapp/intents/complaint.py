"""COMPLAINT: something went wrong for the customer."""

from __future__ import annotations

from streamapp.intents.base import Decision, IntentHandler, Thresholds
from streamapp.intents.entities import category, constant, lookup
from streamapp.intents.text import CustomerText, UrgencyWords
from streamapp.saga.model import Message

_CRITICAL = frozenset({"critical", "urgent"})
_AT_ONCE = ("notify_supervisor", "priority_critical", "immediate_followup")
_IN_TIME = ("priority_high", "schedule_followup")
_URGENCY = UrgencyWords(("urgent", "immediately", "emergency"))


class ComplaintHandler(IntentHandler):
    """Opens a support ticket; a critical complaint is followed up at once."""

    intent = "COMPLAINT"
    priority = 10
    emits = frozenset(
        {
            "create_support_ticket",
            "notify_support_team",
            "priority_high",
            "notify_supervisor",
            "priority_critical",
            "immediate_followup",
            "schedule_followup",
            "fetch_order_details",
            "notify_fulfillment_team",
            "consider_compensation",
        }
    )

    def decide(self, message: Message, thresholds: Thresholds) -> Decision:
        entities = message.entities
        topic = lookup(entities, "category")
        order_id = lookup(entities, "order_id")
        why = ["a complaint: escalated"]
        critical = constant(lookup(entities, "severity")) in _CRITICAL
        if critical:
            why.append("severity: critical")
        elif (word := _URGENCY.first_in(CustomerText(message.text))) is not None:
            critical = True
            why.append(f"urgent words in the text ({word}): critical")
        if critical:
            why.append(f"critical: {', '.join((*_AT_ONCE, 'consider_compensation'))}")
        else:
            why.append(f"not critical: {', '.join(_IN_TIME)}")
        actions = ["create_support_ticket", "notify_support_team"]
        if critical:
            actions += _AT_ONCE
        else:
            actions += _IN_TIME
        if order_id is not None:
            actions += ("fetch_order_details", "notify_fulfillment_team")
            why.append("order id known: fetch_order_details, notify_fulfillment_team")
        if critical:
            actions.append("consider_compensation")
        return Decision(
            actions=tuple(actions),
            escalate=True,
            metadata={
                "severity": "critical" if critical else "normal",
                "category": category(topic) or topic,
                "order_id": order_id,
                "requires_immediate_action": critical,
            },
            reply=_reply(critical),
            why=tuple(why),
        )


def _reply(critical: bool) -> str:
    if critical:
        return (
            "We are very sorry for the trouble. Your complaint has our highest priority and "
            "our support team will contact you right away."
        )
    return (
        "We are sorry for the trouble. We have opened a support ticket and our team will "
        "get back to you soon."
    )
