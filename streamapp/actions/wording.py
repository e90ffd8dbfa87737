"""Which words a message is answered with: chosen when the plan is made, filled in when it is done.

What is chosen is stored with the plan: a text edited meanwhile changes nothing of it. Only what the
saga finds out on its way (the answers of look-ups) is put in at the end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from streamapp.actions.base import Capabilities, StepContext
from streamapp.actions.templates import TemplateError, is_template, render
from streamapp.actions.topics import APOLOGIES, APOLOGY, LANGUAGE
from streamapp.intents.entities import constant, lookup
from streamapp.saga.model import Message

log = logging.getLogger("streamapp.texts")

TextFailed = Callable[[str], None]  # is told the topic of a text that could not be made


def languages(message: Message, capabilities: Capabilities) -> tuple[str, ...]:
    """In which languages to answer, the best first: what the entity ``language`` says ("de-AT",
    then "de"), then what the business speaks."""
    wanted = (constant(lookup(message.entities, "language")) or "").replace("_", "-")
    found = (wanted, wanted.partition("-")[0], capabilities.language)
    return tuple(dict.fromkeys(language for language in found if language))


def in_language(texts: Mapping[str, str], wanted: tuple[str, ...]) -> str | None:
    """The text in the first of these languages that it has."""
    return next((texts[language] for language in wanted if language in texts), None)


def own_text(topic: str, message: Message, capabilities: Capabilities) -> str | None:
    """What the business itself says of a topic, be it a template."""
    return in_language(capabilities.templates.get(topic, {}), languages(message, capabilities))


def apology(message: Message, capabilities: Capabilities) -> dict[str, Any] | None:
    """What the plan keeps for the case that it is undone."""
    if not capabilities.apologises:
        return None
    wanted = (*languages(message, capabilities), LANGUAGE)
    found: dict[str, Any] = {"text": in_language(APOLOGIES, wanted)}
    own = own_text(APOLOGY, message, capabilities)
    return found if own is None else found | filled_in_later(own, capabilities)


def filled_in_later(text: str, capabilities: Capabilities) -> dict[str, Any]:
    """Params for ``fill_in``: of a text without anything to fill in, the text itself."""
    if not is_template(text):
        return {"text": text}
    return {"template": text, "about": dict(capabilities.about)}


def fill_in(params: Mapping[str, Any], context: StepContext) -> tuple[str, str | None]:
    """The text of stored params, and why it is the plain one where its template failed."""
    if "template" not in params:
        return params["text"], None
    try:
        return _filled(params, context), None
    except TemplateError as error:
        return params["text"], str(error)


def _filled(params: Mapping[str, Any], context: StepContext) -> str:
    text = render(
        params["template"],
        {
            "business": params.get("about", {}),
            "entities": context.message.entities,
            "results": context.results,
            "default": params["text"],
        },
    )
    if not text:
        raise TemplateError("the text is empty")
    return text


def warn(topic: str, context: StepContext, error: str) -> None:
    """Say that a text failed; neither its values nor the customer are named."""
    log.warning(
        "the text %s of business %s failed, the plain one is used: %s",
        topic,
        context.message.business_id,
        error,
    )
