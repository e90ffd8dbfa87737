"""Executors of the steps that reach outside: the order service, e-mail and Slack."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from streamapp.actions.base import CallContext, ExternalExecutor, StepContext
from streamapp.actions.capabilities import EMAIL, ORDER, SLACK
from streamapp.actions.clients import MailSender, OwnServices, SlackSender
from streamapp.actions.executors import CANCELLATION_REASON
from streamapp.actions.http_executor import HttpExecutor, undoing
from streamapp.saga.ids import row_id
from streamapp.saga.model import Message
from streamapp.services import slack
from streamapp.services.email import MAX_CONNECTIONS
from streamapp.services.errors import Retryable
from streamapp.services.excerpt import excerpt


def encode(value: Mapping[str, Any]) -> bytes:
    """The bytes of a request."""
    # The standard library's: a quantity may be a whole number beyond 64 bits.
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def about_message(message: Message) -> dict[str, Any]:
    """What every request to a service of the business begins with."""
    return {
        "processing_id": message.processing_id,
        "lead_id": message.lead_id,
        "business_id": message.business_id,
        "tenant_id": message.tenant_id,
    }


def identity(answer: Mapping[str, Any], service: str, what: str) -> str | int:
    """The id under ``{what}_id`` of what a service has made.

    An answer of success that names none is none that can be used, and no refusal either: the
    thing may exist, so it is asked for again under its key (``Retryable``, in doubt).
    """
    found = answer.get(f"{what}_id")
    if isinstance(found, bool) or not isinstance(found, str | int) or found == "":
        raise Retryable(f"{service}: the answer names no {what}{_error_in(answer)}", in_doubt=True)
    return found


def _error_in(answer: Mapping[str, Any]) -> str:
    """What an answer of success says of an error, for an error's text."""
    error = answer.get("error")
    return f": {excerpt(str(error))}" if error else ""


class OrderService(HttpExecutor):
    """Creates an order at the order service; undone by cancelling it under the key of its
    creation, which works also when nobody knows whether it was created."""

    name = "order_service"
    service = ORDER
    key_honoured = True
    compensable = True

    def describe(self, context: StepContext) -> str:
        return f"POST {self.service} /orders"

    def request(self, context: StepContext) -> bytes:
        params = context.step.params
        return encode(
            about_message(context.message)
            | {name: params[name] for name in ("product", "quantity", "urgency", "draft")}
            | {"entities": context.message.entities}
        )

    async def call(self, request: bytes, context: CallContext) -> dict[str, Any]:
        answer = await self.client(context).post("/orders", request, key=context.key)
        return {"order_id": identity(answer, "order", "order")}

    def compensation_request(
        self, context: StepContext, forward_key: str, output: Mapping[str, Any] | None
    ) -> bytes:
        return encode({"creation_key": forward_key, "reason": CANCELLATION_REASON})

    async def compensate(self, request: bytes, context: CallContext) -> dict[str, Any]:
        """Cancel the order. Raises ``NothingThere`` for a 404.

        An answer of success with an ``error`` inside, or with ``cancelled: false``, is none: an
        order that may stand must not be told to be cancelled.
        """
        creation_key = json.loads(request)["creation_key"]
        path = f"/orders/{quote(creation_key, safe='')}/cancel"
        with undoing():
            answer = await self.client(context).post(path, request, key=context.key)
        if answer.get("error") or answer.get("cancelled") is False:
            raise Retryable(
                f"order: the answer tells of no cancellation{_error_in(answer)}", in_doubt=True
            )
        return {"cancelled": True}


class EmailExecutor(ExternalExecutor):
    """One e-mail. It cannot be called back, so no action may require it."""

    name = "email"
    service = EMAIL
    key_honoured = False  # the same Message-ID, but most servers deliver it twice
    max_concurrent = MAX_CONNECTIONS

    def describe(self, context: StepContext) -> str:
        return f"e-mail to {context.step.params['to']}"

    def __init__(self, mailer: MailSender) -> None:
        self._mailer = mailer

    def request(self, context: StepContext) -> bytes:
        message, step = context.message, context.step
        message_id = row_id(
            "message", message.processing_id, context.run, step.action, step.sub_step
        )
        return encode(
            {
                "to": step.params["to"],
                "subject": step.params["subject"],
                "body": step.params["body"],
                "message_id": message_id,
            }
        )

    async def call(self, request: bytes, context: CallContext) -> dict[str, Any]:
        mail = json.loads(request)
        await self._mailer.send(
            mail["to"],
            mail["subject"],
            mail["body"],
            key=context.key,
            message_id=mail["message_id"],
        )
        return {"message_id": mail["message_id"]}


class SlackExecutor(ExternalExecutor):
    """One message in a team's channel. It cannot be called back, so no action may require it.

    The request names the team, not the address of its channel, which is a secret.
    """

    name = "slack"
    service = SLACK
    key_honoured = False  # the key stands in the text, for people to see
    max_concurrent = slack.MAX_CONNECTIONS

    def describe(self, context: StepContext) -> str:
        return f"Slack, channel of {context.step.params['team']}"

    def __init__(self, sender: SlackSender, own: OwnServices | None = None) -> None:
        self._sender = sender
        self._own = own

    async def ready(self, message: Message) -> bool:
        if self._own is not None:
            await self._own.known(message.business_id)
        return True

    def request(self, context: StepContext) -> bytes:
        params = context.step.params
        return encode({"team": params["team"], "text": params["text"]})

    async def call(self, request: bytes, context: CallContext) -> dict[str, Any]:
        note = json.loads(request)
        team, business_id = note["team"], context.step.message.business_id
        webhook = self._own.webhook(team, business_id) if self._own is not None else None
        await self._sender.send(team, note["text"], key=context.key, webhook=webhook)
        return {"sent": True}
