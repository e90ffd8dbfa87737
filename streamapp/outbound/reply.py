"""A reply to a customer, as it lies on the outbound topic."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from streamapp.pipeline.json_document import NotJson, load
from streamapp.pipeline.outcomes import Record

MAX_ID = 256  # characters
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class InvalidReply(ValueError):
    """The record is no reply; ``message_id`` where it names one."""

    def __init__(self, message: str, message_id: str | None = None) -> None:
        super().__init__(message)
        self.message_id = message_id


@dataclass(frozen=True, slots=True)
class Reply:
    """``recipient`` is empty where nobody knows the customer's number; ``created_at`` is the
    producer's time."""

    message_id: str
    lead_id: str
    business_id: str
    tenant_id: str
    recipient: str
    text: str
    in_reply_to: str | None
    created_at: datetime


def decode(record: Record, *, max_bytes: int) -> Reply:
    """The reply in a record. Raises ``InvalidReply``."""
    if record.value is None:
        raise InvalidReply("the value is null")
    if len(record.value) > max_bytes:
        raise InvalidReply(f"the value is larger than {max_bytes} bytes")
    try:
        document, broken = load(record.value)
    except NotJson as error:
        raise InvalidReply(str(error)) from None
    if not isinstance(document, dict):
        raise InvalidReply("the value is no JSON object")
    named = document.get("message_id")
    message_id = named if _is_id(named) else None
    if broken is not None:
        raise InvalidReply(f"the value {broken}", message_id)
    try:
        reply = _reply(document)
    except ValueError as error:
        raise InvalidReply(str(error), message_id) from None
    if record.key is None or record.key != reply.lead_id.encode():
        raise InvalidReply("the key is not the lead id", message_id)
    return reply


def _reply(document: dict[str, Any]) -> Reply:
    for name in ("message_id", "lead_id", "business_id", "tenant_id"):
        if not _is_id(document.get(name)):
            raise ValueError(f"{name} must be a text of 1 to {MAX_ID} characters")
    text, recipient, answers = (document.get(n) for n in ("text", "to", "in_reply_to"))
    if type(text) is not str or not text.strip():
        raise ValueError("text must be a text that is not empty")
    if recipient is not None and type(recipient) is not str:
        raise ValueError("to must be a text or null")
    if answers is not None and not _is_id(answers):
        raise ValueError(f"in_reply_to must be a text of 1 to {MAX_ID} characters, or null")
    return Reply(
        document["message_id"],
        document["lead_id"],
        document["business_id"],
        document["tenant_id"],
        (recipient or "").strip(),
        text,
        answers,
        _time(document.get("created_at")),
    )


def _is_id(value: Any) -> bool:
    return type(value) is str and 1 <= len(value) <= MAX_ID and not _CONTROL.search(value)


def _time(value: Any) -> datetime:
    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError("created_at must be a time in ISO 8601") from None
    if found.tzinfo is None or not 1970 < found.year < 9999:
        raise ValueError("created_at must be a time with its zone, of our days")
    return found
