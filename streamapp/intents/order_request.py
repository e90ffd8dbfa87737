"""ORDER_REQUEST: the customer wants to buy."""

from __future__ import annotations

from streamapp.intents.base import Decision, IntentHandler, Thresholds
from streamapp.intents.entities import (
    Number,
    amount,
    is_urgent,
    lookup,
    name_for_reply,
    number_for_reply,
)
from streamapp.saga.model import Message


class OrderRequestHandler(IntentHandler):
    """Creates the order; without high confidence as a draft that asks for confirmation."""

    intent = "ORDER_REQUEST"
    priority = 10
    emits = frozenset(
        {
            "create_order",
            "notify_sales",
            "check_inventory",
            "request_clarification",
            "priority_high",
            "notify_supervisor",
        }
    )

    def decide(self, message: Message, thresholds: Thresholds) -> Decision:
        product = lookup(message.entities, "product")
        quantity = amount(lookup(message.entities, "quantity"))
        confident = message.confidence > thresholds.high
        actions = ["create_order", "notify_sales"]
        why = []
        if confident and product is not None and quantity is not None:
            actions.append("check_inventory")
            why.append("high confidence, product and quantity known: check_inventory")
        if not confident:
            actions.append("request_clarification")
            why.append("no high confidence: a draft, request_clarification, escalated")
        if is_urgent(message.entities):
            actions += ("priority_high", "notify_supervisor")
            why.append("urgency: priority_high, notify_supervisor")
        return Decision(
            actions=tuple(actions),
            escalate=not confident,
            metadata={
                "order_details": {
                    "product": product,
                    "quantity": quantity,
                    "urgency": lookup(message.entities, "urgency"),
                },
                "requires_confirmation": not confident,
            },
            reply=_reply(name_for_reply(product), quantity, confident),
            why=tuple(why),
        )


def _reply(product: str | None, quantity: Number | None, confident: bool) -> str:
    if not confident:
        return (
            "Thank you for your order request. So that we get it right, please confirm "
            "the product and the quantity you would like."
        )
    if product is None or quantity is None:
        return "Thank you for your order. Our sales team will confirm the details with you shortly."
    unit = "unit" if quantity == 1 else "units"
    return (
        f"Thank you for your order of {number_for_reply(quantity)} {unit} of {product}. "
        "We are checking availability and will confirm it shortly."
    )
