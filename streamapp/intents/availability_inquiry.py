"""AVAILABILITY_INQUIRY: the customer asks whether something is to be had."""

from __future__ import annotations

from streamapp.intents.base import Decision, IntentHandler, Thresholds
from streamapp.intents.entities import amount, lookup, name_for_reply
from streamapp.saga.model import Message


class AvailabilityInquiryHandler(IntentHandler):
    """Looks up the stock, as closely as the product, quantity, place and date are known."""

    intent = "AVAILABILITY_INQUIRY"
    priority = 7
    emits = frozenset(
        {
            "check_inventory",
            "send_availability_status",
            "fetch_product_inventory",
            "validate_quantity_available",
            "check_location_specific_inventory",
            "check_future_availability",
            "notify_procurement_team",
        }
    )

    def decide(self, message: Message, thresholds: Thresholds) -> Decision:
        entities = message.entities
        product = lookup(entities, "product")
        quantity = amount(lookup(entities, "quantity"))
        location = lookup(entities, "location")
        date = lookup(entities, "date")
        actions = ["check_inventory", "send_availability_status"]
        why = []
        if product is not None:
            actions.append("fetch_product_inventory")
            why.append("product known: fetch_product_inventory")
            if quantity is not None:
                actions.append("validate_quantity_available")
                why.append("product and quantity known: validate_quantity_available")
            if location is not None:
                actions.append("check_location_specific_inventory")
                why.append("product and location known: check_location_specific_inventory")
        if date is not None:
            actions.append("check_future_availability")
            why.append("date known: check_future_availability")
            if product is None:
                actions.append("notify_procurement_team")
                why.append("date but no product known: notify_procurement_team")
        name = name_for_reply(product)
        return Decision(
            actions=tuple(actions),
            escalate=False,
            metadata={
                "product": product,
                "quantity": quantity,
                "location": location,
                "date": date,
            },
            reply=f"Thank you for asking{f' about {name}' if name else ''}.",
            promise="We are checking availability and will get back to you shortly.",
            why=tuple(why),
        )
