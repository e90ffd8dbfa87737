"""What the tables of intents and actions say, written down once more: no code of the handlers, no
code that they use. Slow and plain, so that it can be read beside the tables."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

MINIMUM, HIGH = 0.5, 0.8

NUMBER = re.compile(
    r"^\s*([+-]?(?:[0-9]{1,3}(?:,[0-9]{2,3})*,[0-9]{3}|[0-9]+)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)"
    r"(?:\+?\s*[^\W\d_].*|\+)?\s*$",
    re.DOTALL,
)

FURTHER_FORMS = {
    "catalog": ["catalogue"],
    "open": ["opening", "opened"],
    "close": ["closing", "closed"],
    "hours": ["hour"],
    "pay": ["paying", "paid"],
    "return": ["returning", "returned"],
    "refund": ["refunded", "refundable"],
    "exchange": ["exchanged"],
    "shipping": ["shipped", "shipment"],
    "delivery": ["delivered"],
    "features": ["feature"],
    "specs": ["spec"],
    "compare": ["compared", "comparison", "comparing"],
    "urgent": ["urgently"],
}

# category: keywords, actions between, added at confidence <= high, response time
GENERAL: dict[str, tuple[list[str], list[str], list[str], str]] = {
    "product_information": (
        ["product", "item", "catalog"],
        ["send_product_catalog", "track_product_interest"],
        ["assign_to_support"],
        "15-30 min",
    ),
    "service_information": (
        ["service", "offering", "what do you do"],
        ["send_service_details", "track_service_interest"],
        ["assign_to_support"],
        "15-30 min",
    ),
    "business_hours": (
        ["hours", "open", "close", "timing"],
        ["send_business_hours"],
        ["assign_to_support"],
        "immediate",
    ),
    "location_store": (
        ["location", "address", "where", "store"],
        ["send_location_details", "send_store_locator"],
        [],
        "immediate",
    ),
    "contact_information": (
        ["contact", "phone", "email", "reach"],
        ["send_contact_details"],
        [],
        "immediate",
    ),
    "return_policy": (
        ["return", "refund", "exchange"],
        ["send_return_policy", "send_terms_conditions"],
        ["assign_to_support"],
        "30-60 min",
    ),
    "shipping_delivery": (
        ["shipping", "delivery", "courier"],
        ["send_shipping_info", "check_delivery_zones"],
        [],
        "15-30 min",
    ),
    "payment_methods": (
        ["payment", "pay", "credit card", "cash"],
        ["send_payment_options"],
        [],
        "immediate",
    ),
    "warranty_guarantee": (
        ["warranty", "guarantee", "coverage"],
        ["send_warranty_info"],
        [],
        "30-60 min",
    ),
    "technical_specifications": (
        ["specification", "specs", "technical", "features"],
        ["send_technical_specs", "assign_to_technical_team"],
        [],
        "1-2 h",
    ),
    "comparison_request": (
        ["compare", "difference", "versus", "vs"],
        ["prepare_comparison", "assign_to_sales"],
        [],
        "1-2 h",
    ),
    "general_question": ([], ["assign_to_support", "send_faq"], [], "30-60 min"),
}
GENERAL_URGENCY = [
    "urgent",
    "asap",
    "immediately",
    "emergency",
    "right now",
    "today",
    "quickly",
]


@dataclass
class Given:
    """What a handler sees of a message."""

    intent: str
    confidence: float
    entities: dict[str, Any] = field(default_factory=dict)
    text: str = ""

    @property
    def sure(self) -> bool:
        return self.confidence > HIGH

    def get(self, name: str) -> Any:
        """The entity in snake case, else in camel case; None where it is not present."""
        head, *tail = name.split("_")
        camel = head + "".join(part[0].upper() + part[1:] for part in tail)
        for key in (name, camel):
            if present(self.entities.get(key)):
                return self.entities[key]
        return None

    def amount(self, name: str) -> int | float | None:
        value = number(self.get(name))
        return value if value is not None and value > 0 else None

    @property
    def urgent_entity(self) -> bool:
        return constant(self.get("urgency")) in ("urgent", "immediate", "asap")


@dataclass
class Expected:
    """What has to come of it."""

    handler: str
    actions: list[str]
    escalate: bool
    metadata: dict[str, Any]


def present(value: Any) -> bool:
    if value is None or value is False:
        return False
    if isinstance(value, str):
        return value.strip() != ""
    return not (isinstance(value, dict | list) and len(value) == 0)


def number(value: Any) -> int | float | None:
    if isinstance(value, bool) or value is None or isinstance(value, dict | list):
        return None
    if isinstance(value, int):
        return value if len(str(abs(value))) <= 30 else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    match = NUMBER.match(value)
    if match is None or re.match(r"\s*[+-]?0[xX][0-9a-fA-F]", value):
        return None
    text = match[1].replace(",", "")
    whole = re.split(r"[.eE]", text.lstrip("+-"))[0]
    if len(whole) > 30:
        return None
    if text.lstrip("+-") == whole:
        return int(text)
    return float(text) if math.isfinite(float(text)) else None


def constant(value: Any) -> str | None:
    return value.strip().casefold() if isinstance(value, str) else None


def category(value: Any) -> Any:
    """A category as it is kept: a constant, or whatever else it is."""
    if not isinstance(value, str):
        return value
    words = value.strip().casefold().replace("-", " ")
    parts = words.split()
    # A hyphen at an end is no white space to be trimmed: it is an underscore.
    head = "_" if words[:1].isspace() else ""
    tail = "_" if words[-1:].isspace() and parts else ""
    return head + "_".join(parts) + tail if parts else "_"


# Texts


def plain(text: str) -> str:
    return " ".join(text.casefold().split())


def forms(word: str) -> set[str]:
    found = set()
    for form in (word, *FURTHER_FORMS.get(word, ())):
        found |= {form, form + "s", form + "es"}
        if form[-1] == "y":
            found.add(form[:-1] + "ies")
    return found


def in_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def places(text: str, word: str) -> list[int]:
    """Where the word stands in a plain text, as a word of its own, in any of its forms."""
    found = []
    for form in forms(word):
        at = text.find(form)
        while at >= 0:
            end = at + len(form)
            free_before = at == 0 or not in_word(text[at - 1])
            free_after = end == len(text) or not in_word(text[end])
            if free_before and free_after:
                found.append(at)
            at = text.find(form, at + 1)
    return found


def says(text: str, words: list[str]) -> bool:
    return any(places(plain(text), word) for word in words)


def negated(before: str) -> bool:
    for gap in (" ", "-"):
        for article in ("", "a ", "a-", "an ", "an-"):
            for no in ("not", "non", "isn't", "isn\u2019t", "isnt", "nothing"):
                phrase = no + gap + article
                if before.endswith(phrase):
                    rest = before[: -len(phrase)]
                    if not rest or not in_word(rest[-1]):
                        return True
    return False


def urges(text: str, words: list[str]) -> bool:
    whole = plain(text)
    return any(not negated(whole[:at]) for word in words for at in places(whole, word))


# Handlers


def order_request(given: Given) -> Expected:
    actions = ["create_order", "notify_sales"]
    product, quantity = given.get("product"), given.amount("quantity")
    if given.sure and product is not None and quantity is not None:
        actions += ["check_inventory"]
    if not given.sure:
        actions += ["request_clarification"]
    if given.urgent_entity:
        actions += ["priority_high", "notify_supervisor"]
    details = {"product": product, "quantity": quantity, "urgency": given.get("urgency")}
    metadata = {"order_details": details, "requires_confirmation": not given.sure}
    return Expected("ORDER_REQUEST", actions, not given.sure, metadata)


def complaint(given: Given) -> Expected:
    critical = constant(given.get("severity")) in ("critical", "urgent") or urges(
        given.text, ["urgent", "immediately", "emergency"]
    )
    order = given.get("order_id")
    actions = ["create_support_ticket", "notify_support_team"]
    if critical:
        actions += ["notify_supervisor", "priority_critical", "immediate_followup"]
    else:
        actions += ["priority_high", "schedule_followup"]
    if order is not None:
        actions += ["fetch_order_details", "notify_fulfillment_team"]
    if critical:
        actions += ["consider_compensation"]
    metadata = {
        "severity": "critical" if critical else "normal",
        "category": category(given.get("category")),
        "order_id": order,
        "requires_immediate_action": critical,
    }
    return Expected("COMPLAINT", actions, True, metadata)


def pricing_inquiry(given: Given) -> Expected:
    product, group, volume = given.get("product"), given.get("category"), given.amount("volume")
    actions = ["send_price_list", "assign_to_sales"]
    if product is not None:
        actions += ["fetch_product_pricing"]
    elif group is not None:
        actions += ["fetch_category_pricing"]
    else:
        actions += ["send_general_price_list"]
    custom = volume is not None and volume > 100
    if custom:
        actions += ["prepare_custom_quote", "notify_sales_manager"]
    metadata = {
        "product": product,
        "category": category(group),
        "volume": volume,
        "requires_custom_quote": custom,
    }
    return Expected("PRICING_INQUIRY", actions, False, metadata)


def availability_inquiry(given: Given) -> Expected:
    product, date = given.get("product"), given.get("date")
    actions = ["check_inventory", "send_availability_status"]
    if product is not None:
        actions += ["fetch_product_inventory"]
    if product is not None and given.amount("quantity") is not None:
        actions += ["validate_quantity_available"]
    if product is not None and given.get("location") is not None:
        actions += ["check_location_specific_inventory"]
    if date is not None:
        actions += ["check_future_availability"]
    if date is not None and product is None:
        actions += ["notify_procurement_team"]
    return Expected("AVAILABILITY_INQUIRY", actions, False, {})


def schedule_call(given: Given) -> Expected:
    date, time = given.get("preferred_date"), given.get("preferred_time")
    neither = date is None and time is None
    actions = ["check_calendar_availability", "assign_to_sales"]
    if neither:
        actions += ["send_availability_form", "notify_scheduling_team"]
    else:
        actions += ["validate_time_slot", "check_agent_availability"]
        if given.sure:
            actions += ["create_calendar_event", "send_calendar_invite"]
        else:
            actions += ["request_time_confirmation"]
    if given.urgent_entity:
        actions += ["priority_high", "find_immediate_slot"]
    metadata = {
        "requested_slot": {"preferred_date": date, "preferred_time": time},
        "requires_confirmation": neither,
    }
    return Expected("SCHEDULE_CALL", actions, not given.sure, metadata)


def general_inquiry(given: Given) -> Expected:
    named = given.get("category")
    if named is not None:
        kept = category(named)
    else:
        kept = next((n for n, row in GENERAL.items() if says(given.text, row[0])), None)
        kept = kept or "general_question"
    known = isinstance(kept, str) and kept in GENERAL
    _, between, unsure, response_time = GENERAL[kept if known else "general_question"]
    actions = ["log_inquiry", *between]
    if not given.sure:
        actions += unsure
    if given.urgent_entity or urges(given.text, GENERAL_URGENCY):
        actions += ["priority_high", "notify_support_team"]
    actions += ["schedule_followup", "track_customer_interest"]
    topic = given.get("topic")
    metadata = {
        "inquiry_category": kept,
        "topic": "general" if topic is None else topic,
        "response_time": response_time,
    }
    return Expected("GENERAL_INQUIRY", actions, not given.sure, metadata)


def unknown(given: Given) -> Expected:
    actions = ["flag_for_review", "notify_agent", "requires_human_intervention"]
    if urges(given.text, ["urgent", "emergency"]):
        actions += ["priority_high", "notify_supervisor"]
    metadata = {"original_intent": given.intent, "confidence": given.confidence}
    return Expected("UNKNOWN", actions, True, metadata)


HANDLERS = {
    "ORDER_REQUEST": order_request,
    "COMPLAINT": complaint,
    "PRICING_INQUIRY": pricing_inquiry,
    "AVAILABILITY_INQUIRY": availability_inquiry,
    "SCHEDULE_CALL": schedule_call,
    "GENERAL_INQUIRY": general_inquiry,
}


def expected(given: Given) -> Expected:
    """The plan, after the rules of routing."""
    handle = HANDLERS.get(given.intent)
    if handle is None or given.confidence < MINIMUM:
        handle = unknown
    found = handle(given)
    if given.confidence < HIGH:
        found.escalate = True
        if "flag_for_review" not in found.actions:
            found.actions.append("flag_for_review")
    return found
