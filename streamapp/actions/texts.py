"""Titles and texts of tasks and e-mails. Plain, bounded, and safe in a single-line field."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from streamapp.intents.entities import Number, name_for_reply, number_for_reply
from streamapp.saga.model import Message

TITLE_LIMIT = 200
TEXT_LIMIT = 2_000

_NOT_PRINTED = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def one_line(text: str, limit: int) -> str:
    """The text on one line, without control characters (a title becomes an e-mail's subject)."""
    return shortened(_NOT_PRINTED.sub(" ", text[: limit * 4]).strip(), limit)


def shortened(text: str, limit: int) -> str:
    """At most ``limit`` characters, the last an ellipsis where something was cut."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def headline(message: Message, what: str | None = None) -> str:
    """A task's title: "New ORDER_REQUEST from lead", with what is asked for put first."""
    title = f"New {one_line(message.intent, TITLE_LIMIT // 2)} from lead"
    return f"{what.replace('_', ' ').capitalize()}: {title}" if what else title


def details(instruction: str, message: Message) -> str:
    """A task's description: what to do, then what the customer wrote."""
    written = shortened(message.text.strip(), TEXT_LIMIT)
    return f"{instruction}\n\nThe customer wrote: {written}" if written else instruction


def email_body(instruction: str, message: Message) -> str:
    """The text of a team's e-mail: as the task, and where to look."""
    return (
        f"{details(instruction, message)}\n\n"
        f"Lead: {message.lead_id}\n"
        f"Business: {message.business_id}\n"
        f"Message: {message.processing_id}\n"
    )


def order_summary(product: Any, quantity: Number | None) -> str:
    """What is ordered, as far as it can be told: "100 units of Widget X"."""
    name = name_for_reply(product) or "a product not named"
    if quantity is None:
        return f"{name}, quantity not named"
    unit = "unit" if quantity == 1 else "units"
    return f"{number_for_reply(quantity)} {unit} of {name}"


def reply_text(opening: str | None, contents: Iterable[str]) -> str:
    """What the customer is told: the opening, then each content as a paragraph of its own."""
    parts = (part.strip() for part in (opening or "", *contents))
    return "\n\n".join(part for part in parts if part)


def slack_text(title: str, instruction: str, message: Message) -> str:
    """A note in a team's channel: as the task, and where to look."""
    return f"*{escaped(title)}*\n{escaped(email_body(instruction, message))}"


def escaped(text: str) -> str:
    """The text so that Slack takes nothing in it for a mention or a link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
