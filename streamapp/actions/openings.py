"""What a reply begins with, before the texts that the plan sends.

In this order, the first that there is:

1. the business's own text for the handler (``reply_{intent}``),
2. the AI's ``suggested_response``, where all of this holds: the business allows it, the AI is sure
   of the intent (above the high threshold), and the handler's reply is generic, or there is none.
   A handler that does something tells what it does, which the AI cannot know,
3. the handler's reply.
"""

from __future__ import annotations

from dataclasses import dataclass

from streamapp.actions.base import Capabilities
from streamapp.actions.templates import MAX_TEXT, is_template
from streamapp.actions.topics import reply_topic
from streamapp.actions.wording import own_text
from streamapp.intents.base import Decision, Thresholds
from streamapp.saga.model import Message

BUSINESS = "the text of the business"
SUGGESTED = "the suggested_response of the AI"
HANDLER = "the handler's own words"


@dataclass(frozen=True, slots=True)
class Opening:
    """``text`` as it is, or the plain one for a ``template`` that fails; ``source`` says whose."""

    topic: str
    source: str
    text: str | None
    template: str | None = None


def opening(
    message: Message,
    handler: str,
    decision: Decision,
    capabilities: Capabilities,
    thresholds: Thresholds,
    suggested_response: str | None,
) -> Opening:
    """Choose. Pure: same message, same settings, same words."""
    topic = reply_topic(handler)
    own = own_text(topic, message, capabilities)
    if own is not None:
        if is_template(own):
            return Opening(topic, BUSINESS, decision.reply, own)
        return Opening(topic, BUSINESS, own)
    if (
        capabilities.suggested_response
        and message.confidence > thresholds.high
        and (decision.generic or decision.reply is None)
    ):
        text = usable(suggested_response)
        if text is not None:
            return Opening(topic, SUGGESTED, text)
    return Opening(topic, HANDLER, decision.reply)


def usable(suggested_response: str | None) -> str | None:
    """The AI's reply as it may be sent: a text of a message's size; else None."""
    text = "".join(
        character
        for character in (suggested_response or "")
        if character in "\n\t" or character.isprintable()
    ).strip()
    return text if 0 < len(text) <= MAX_TEXT else None
