"""What a business can have a text for, and the words that ship with the program.

``send_{topic}`` tells the customer; ``reply_{intent}`` is what the reply to an intent begins with;
``apology`` is what a customer is told whose message was undone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

# Each with what a customer is promised where the text itself cannot be given.
PROMISED: Final[Mapping[str, str]] = {
    "price_list": "our price list",
    "general_price_list": "our general price list",
    "availability_status": "what is available",
    "availability_form": "a form to choose a time",
    "product_catalog": "our catalogue",
    "service_details": "the details of our services",
    "business_hours": "our business hours",
    "location_details": "our address",
    "store_locator": "the list of our stores",
    "contact_details": "our contact details",
    "return_policy": "how returns work",
    "terms_conditions": "our terms",
    "shipping_info": "how we deliver",
    "payment_options": "how to pay",
    "warranty_info": "our warranty",
    "technical_specs": "the technical specifications",
    "faq": "the answers to common questions",
}
TOPICS: Final = frozenset(PROMISED)

APOLOGY: Final = "apology"
APOLOGIES: Final[Mapping[str, str]] = {
    "en": (
        "We are sorry: we could not carry out what you asked for. "
        "Our team knows of it and will look into it."
    ),
    "de": (
        "Es tut uns leid: Wir konnten Ihr Anliegen nicht ausführen. "
        "Unser Team weiß davon und kümmert sich darum."
    ),
    "es": (
        "Lo sentimos: no hemos podido realizar lo que pidió. "
        "Nuestro equipo está informado y se ocupará de ello."
    ),
    "fr": (
        "Nous sommes désolés : nous n'avons pas pu donner suite à votre demande. "
        "Notre équipe en est informée et s'en occupe."
    ),
}
LANGUAGE: Final = "en"  # of every text that ships

_REPLY = "reply_"
_reply_topic = re.compile(r"reply_[a-z0-9_]{1,64}").fullmatch


def reply_topic(handler: str) -> str:
    """The topic of what the reply of this handler begins with."""
    return _REPLY + handler.lower()


def is_topic(name: str) -> bool:
    """Whether a business may have a text of that name; of which handlers, who writes knows."""
    return name in TOPICS or name == APOLOGY or _reply_topic(name) is not None


def promise_of(topic: str) -> str:
    """What is said in place of a text that failed: somebody has a task to send it."""
    return f"We will send you {PROMISED.get(topic, 'what you asked for')} shortly."
