"""The states of a delivery, their order, and what WhatsApp's status webhook says of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

MAX_ID = 512  # characters of a message's id at WhatsApp
MAX_ERROR = 300  # characters kept of a failure's words
_LATEST = 253_402_300_799  # 9999-12-31, in seconds


class Status(StrEnum):
    """Where a reply stands."""

    PENDING = "pending"  # it waits; nothing of it was sent, or what was is known to have failed
    SENDING = "sending"  # a request may be under way
    UNKNOWN = "unknown"  # it may have been sent: nobody repeats it but a person
    SENT = "sent"  # WhatsApp took it
    FAILED = "failed"  # it was not sent, or WhatsApp gave it up
    DELIVERED = "delivered"
    READ = "read"


# A status never falls. Of what WhatsApp took, a failure says more than having been taken; what
# was delivered has not failed, whatever else is told.
RANK = {
    Status.PENDING: 0,
    Status.SENDING: 0,
    Status.UNKNOWN: 0,
    Status.SENT: 1,
    Status.FAILED: 2,
    Status.DELIVERED: 3,
    Status.READ: 4,
}
TOLD = frozenset({Status.SENT, Status.FAILED, Status.DELIVERED, Status.READ})
ARRIVED = frozenset({Status.DELIVERED, Status.READ})


def lower(status: Status) -> list[Status]:
    """The statuses that this one takes the place of."""
    return [each for each in Status if RANK[each] < RANK[status]]


def reference(message_id: str, attempt: int) -> str:
    """What a message carries, for WhatsApp to give back with its statuses."""
    return f"{attempt}:{message_id}"


def of_reference(text: Any) -> tuple[str, int] | None:
    """Message id and attempt, of a reference of ours."""
    if not isinstance(text, str) or len(text) > MAX_ID or "\0" in text:
        return None
    number, found, message_id = text.partition(":")
    if not found or not message_id or not number.isascii() or not number.isdecimal():
        return None
    return (message_id, int(number)) if len(number) < 10 else None


@dataclass(frozen=True, slots=True)
class StatusUpdate:
    """One status of one message: ``referred`` is (message id, attempt) where it tells them."""

    whatsapp_id: str
    status: Status
    at: datetime | None
    referred: tuple[str, int] | None
    code: int | None
    error: str | None


def updates(document: Any) -> Iterator[StatusUpdate]:
    """The statuses in a call of the webhook, in their order; what is not understood is left out."""
    for entry in _list(document, "entry"):
        for change in _list(entry, "changes"):
            value = change.get("value")
            for told in _list(value, "statuses"):
                found = _update(told)
                if found is not None:
                    yield found


def _update(told: dict[str, Any]) -> StatusUpdate | None:
    id_, status = told.get("id"), told.get("status")
    if not isinstance(id_, str) or not 0 < len(id_) <= MAX_ID or not id_.isprintable():
        return None
    if status not in TOLD:
        return None
    errors = _list(told, "errors")
    first = errors[0] if errors else {}
    code = first.get("code")
    known = isinstance(code, int) and not isinstance(code, bool) and 0 <= code < 2**31
    return StatusUpdate(
        id_,
        Status(status),
        _time(told.get("timestamp")),
        of_reference(told.get("biz_opaque_callback_data")),
        code if known else None,
        _words(first),
    )


def _list(value: Any, name: str) -> list[dict[str, Any]]:
    found = value.get(name) if isinstance(value, dict) else None
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _time(value: Any) -> datetime | None:
    text = str(value) if isinstance(value, int | str) else ""
    if not text.isascii() or not text.isdecimal() or len(text) > 12 or int(text) > _LATEST:
        return None
    return datetime.fromtimestamp(int(text), UTC)


def _words(error: dict[str, Any]) -> str | None:
    for name in ("title", "message"):
        found = error.get(name)
        if isinstance(found, str) and found:
            return "".join(c if c.isprintable() else " " for c in found[:MAX_ERROR])
    return None
