"""PRICING_INQUIRY: the customer asks what something costs."""

from __future__ import annotations

from streamapp.intents.base import Decision, IntentHandler, Thresholds
from streamapp.intents.entities import amount, category, lookup, name_for_reply
from streamapp.saga.model import Message

CUSTOM_QUOTE_ABOVE = 100  # units


class PricingInquiryHandler(IntentHandler):
    """Sends prices of the product, else of its category, else of all; large volumes get a
    quote of their own."""

    intent = "PRICING_INQUIRY"
    priority = 8
    emits = frozenset(
        {
            "send_price_list",
            "assign_to_sales",
            "fetch_product_pricing",
            "fetch_category_pricing",
            "send_general_price_list",
            "prepare_custom_quote",
            "notify_sales_manager",
        }
    )

    def decide(self, message: Message, thresholds: Thresholds) -> Decision:
        product = lookup(message.entities, "product")
        group = lookup(message.entities, "category")
        volume = amount(lookup(message.entities, "volume"))
        custom_quote = volume is not None and volume > CUSTOM_QUOTE_ABOVE
        actions = ["send_price_list", "assign_to_sales"]
        if product is not None:
            actions.append("fetch_product_pricing")
            why = ["product known: fetch_product_pricing"]
        elif group is not None:
            actions.append("fetch_category_pricing")
            why = ["category but no product known: fetch_category_pricing"]
        else:
            actions.append("send_general_price_list")
            why = ["neither product nor category known: send_general_price_list"]
        if custom_quote:
            actions += ("prepare_custom_quote", "notify_sales_manager")
            why.append(
                f"volume above {CUSTOM_QUOTE_ABOVE}: prepare_custom_quote, notify_sales_manager"
            )
        return Decision(
            actions=tuple(actions),
            escalate=False,
            metadata={
                "product": product,
                "category": category(group) or group,
                "volume": volume,
                "requires_custom_quote": custom_quote,
            },
            reply=_reply(name_for_reply(product), custom_quote),
            promise=None if custom_quote else "We will send you our prices shortly.",
            why=tuple(why),
        )


def _reply(product: str | None, custom_quote: bool) -> str:
    subject = f" in {product}" if product else ""
    if custom_quote:
        return (
            f"Thank you for your interest{subject}. For this volume our sales team "
            "will prepare a quote for you."
        )
    return f"Thank you for your interest{subject}."
