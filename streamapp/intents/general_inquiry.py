"""GENERAL_INQUIRY: a question of one of a dozen kinds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from streamapp.intents.base import Decision, IntentHandler, Thresholds
from streamapp.intents.entities import category, is_urgent, lookup
from streamapp.intents.text import CustomerText, Keywords, UrgencyWords
from streamapp.saga.model import Message


@dataclass(frozen=True, slots=True)
class Category:
    """A kind of question: what it is known by, what is done, how soon an answer is expected.

    ``unsure`` is added where the confidence is not high.
    """

    keywords: tuple[str, ...]
    actions: tuple[str, ...]
    response_time: str
    unsure: tuple[str, ...] = ()


GENERAL: Final = "general_question"
_SUPPORT = ("assign_to_support",)

# In the order in which their keywords are looked for in the text.
CATEGORIES: Final[dict[str, Category]] = {
    "product_information": Category(
        ("product", "item", "catalog"),
        ("send_product_catalog", "track_product_interest"),
        "15-30 min",
        _SUPPORT,
    ),
    "service_information": Category(
        ("service", "offering", "what do you do"),
        ("send_service_details", "track_service_interest"),
        "15-30 min",
        _SUPPORT,
    ),
    "business_hours": Category(
        ("hours", "open", "close", "timing"), ("send_business_hours",), "immediate", _SUPPORT
    ),
    "location_store": Category(
        ("location", "address", "where", "store"),
        ("send_location_details", "send_store_locator"),
        "immediate",
    ),
    "contact_information": Category(
        ("contact", "phone", "email", "reach"), ("send_contact_details",), "immediate"
    ),
    "return_policy": Category(
        ("return", "refund", "exchange"),
        ("send_return_policy", "send_terms_conditions"),
        "30-60 min",
        _SUPPORT,
    ),
    "shipping_delivery": Category(
        ("shipping", "delivery", "courier"),
        ("send_shipping_info", "check_delivery_zones"),
        "15-30 min",
    ),
    "payment_methods": Category(
        ("payment", "pay", "credit card", "cash"), ("send_payment_options",), "immediate"
    ),
    "warranty_guarantee": Category(
        ("warranty", "guarantee", "coverage"), ("send_warranty_info",), "30-60 min"
    ),
    "technical_specifications": Category(
        ("specification", "specs", "technical", "features"),
        ("send_technical_specs", "assign_to_technical_team"),
        "1-2 h",
    ),
    "comparison_request": Category(
        ("compare", "difference", "versus", "vs"),
        ("prepare_comparison", "assign_to_sales"),
        "1-2 h",
    ),
    GENERAL: Category((), ("assign_to_support", "send_faq"), "30-60 min"),
}

_KEYWORDS: Final = {name: Keywords(row.keywords) for name, row in CATEGORIES.items()}
_URGENCY = UrgencyWords(
    ("urgent", "asap", "immediately", "emergency", "right now", "today", "quickly")
)
_FIRST = ("log_inquiry",)
_URGENT = ("priority_high", "notify_support_team")
_LAST = ("schedule_followup", "track_customer_interest")


class GeneralInquiryHandler(IntentHandler):
    """Answers by the category of the question; somebody always follows up."""

    intent = "GENERAL_INQUIRY"
    priority = 5
    emits = frozenset((*_FIRST, *_URGENT, *_LAST)).union(
        *(row.actions + row.unsure for row in CATEGORIES.values())
    )

    def decide(self, message: Message, thresholds: Thresholds) -> Decision:
        entities = message.entities
        text = CustomerText(message.text)
        confident = message.confidence > thresholds.high
        name, reason = _category(lookup(entities, "category"), text)
        row = CATEGORIES.get(name) if isinstance(name, str) else None
        if row is None:
            row = CATEGORIES[GENERAL]
            reason += f", not known: treated as {GENERAL}"
        why = [f"{reason}: {', '.join(row.actions)}"]
        actions = [*_FIRST, *row.actions]
        if not confident:
            actions += row.unsure
            why.append(", ".join(("no high confidence: escalated", *row.unsure)))
        urgent = is_urgent(entities)
        if urgent:
            why.append("urgency: priority_high, notify_support_team")
        elif (word := _URGENCY.first_in(text)) is not None:
            urgent = True
            why.append(f"urgent words in the text ({word}): priority_high, notify_support_team")
        if urgent:
            actions += _URGENT
        actions += _LAST
        return Decision(
            actions=tuple(actions),
            escalate=not confident,
            metadata={
                "inquiry_category": name,
                "topic": _or(lookup(entities, "topic"), "general"),
                "specific_question": lookup(entities, "specific_question"),
                "response_time": row.response_time,
            },
            # True whatever becomes of the rest: a follow-up is always scheduled.
            reply="Thank you for your message. Our team will follow up with you.",
            generic=True,
            why=tuple(why),
        )


def _category(entity: Any, text: CustomerText) -> tuple[Any, str]:
    """The category, and how it was found. One of the entity may be any value."""
    if entity is not None:
        name = category(entity) or entity
        return name, f"category named: {name}"
    for name, keywords in _KEYWORDS.items():
        word = keywords.first_in(text)
        if word is not None:
            return name, f"words of {name} in the text ({word})"
    return GENERAL, f"no category named or found: {GENERAL}"


def _or(value: Any, default: str) -> Any:
    return default if value is None else value
