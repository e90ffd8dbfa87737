"""Text messages through the WhatsApp Cloud API: one attempt, and what became of it.

The API knows no idempotency key. A request that may have arrived and got no answer is therefore
``UNKNOWN``, and so is a success that names no message: whoever repeats such a one may send it
twice. Each message carries a reference of ours, which WhatsApp gives back with its statuses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from streamapp.services.errors import Retryable
from streamapp.services.http import HttpService
from streamapp.services.whatsapp_codes import Verdict, classify

NAME = "whatsapp"  # of its circuit
MAX_CHARACTERS = 4096  # of a text
MAX_CONNECTIONS = 20  # messages under way at the same time

_MAX_ID = 512  # characters of a message's id at WhatsApp
_MAX_CODE = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of one attempt. ``error`` holds no secret, but may hold a phone number;
    ``retry_after`` is the wait in seconds that was asked for."""

    verdict: Verdict
    whatsapp_id: str | None = None
    code: int | None = None
    error: str = ""
    retry_after: float | None = None


class WhatsApp:
    """Sends from the number with this id; ``http`` is the API with its version and token."""

    def __init__(self, http: HttpService, phone_number_id: str) -> None:
        self._http = http
        self._path = f"/{phone_number_id}/messages"
        self.number = phone_number_id

    async def send(self, recipient: str, text: str, *, reference: str) -> Attempt:
        """One attempt. Never raises for what the other side does."""
        body = {
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            "to": recipient,
            "type": "text",
            "text": {"preview_url": False, "body": text},
            "biz_opaque_callback_data": reference,
        }
        try:
            answer = await self._http.exchange("POST", self._path, orjson.dumps(body))
        except Retryable as error:
            verdict = Verdict.UNKNOWN if error.in_doubt else Verdict.RETRY
            return Attempt(verdict, error=str(error))
        said = _object(answer.body)
        if 200 <= answer.status < 300:
            whatsapp_id = _id_in(said)
            if whatsapp_id is None:
                error_text = f"status {answer.status}, and the answer names no message"
                return Attempt(Verdict.UNKNOWN, error=error_text)
            return Attempt(Verdict.SENT, whatsapp_id)
        error_found = said.get("error")
        told = error_found if isinstance(error_found, dict) else {}
        code = _number(told.get("code"))
        return Attempt(
            classify(answer.status, code, _number(told.get("error_subcode"))),
            code=code,
            error=self._http.shown(_text_of(answer.status, told)),
            retry_after=answer.retry_after,
        )

    async def close(self) -> None:
        """Close all connections. Messages under way fail, and so does any later one."""
        await self._http.close()


def _object(body: bytes | None) -> dict[str, Any]:
    try:
        found = orjson.loads(body or b"")
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _id_in(answer: dict[str, Any]) -> str | None:
    messages = answer.get("messages")
    first = messages[0] if isinstance(messages, list) and messages else None
    found = first.get("id") if isinstance(first, dict) else None
    if isinstance(found, str) and 0 < len(found) <= _MAX_ID and found.isprintable():
        return found
    return None


def _number(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_CODE:
        return value
    return None


def _text_of(status: int, told: dict[str, Any]) -> str:
    """An error in words: WhatsApp's own, its details before its title."""
    data = told.get("error_data")
    details = data.get("details") if isinstance(data, dict) else None
    words = details if isinstance(details, str) and details else told.get("message")
    return f"status {status}" + (f": {words}" if isinstance(words, str) and words else "")
