"""Calendar: the event of a call at the calendar service, and its invitations by e-mail.

``POST {calendar}/events`` gives ``{"event_id": ...}``; it is undone by ``DELETE
{calendar}/events/{idempotency key of the creation}``, which works also when nobody knows whether
the event was created (404: nothing to undo). An invitation is undone by withdrawing it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parseaddr
from typing import Any
from urllib.parse import quote

from streamapp.actions.base import (
    CallContext,
    ExternalExecutor,
    PlanningContext,
    StepContext,
    StepDraft,
)
from streamapp.actions.capabilities import CALENDAR, EMAIL
from streamapp.actions.clients import START_MARGIN, MailSender
from streamapp.actions.external import about_message, encode, identity
from streamapp.actions.http_executor import HttpExecutor, undoing
from streamapp.actions.invitation import DURATION, Invitation, Method, document
from streamapp.actions.kinds import HumanTask
from streamapp.actions.slots import requested_start
from streamapp.actions.texts import one_line
from streamapp.intents.entities import lookup, name_for_reply
from streamapp.saga.ids import row_id
from streamapp.services.email import MAX_CONNECTIONS, usable_address
from streamapp.services.errors import NothingThere, Rejected

SUMMARY = "Call"
_WISH = ("preferred_date", "preferred_time", "purpose")


class CreateEvent:
    """An event at the calendar service, else a task. Required. Row: as of ``HumanTask``."""

    def expand(
        self, action: str, params: Mapping[str, Any], context: PlanningContext
    ) -> Sequence[StepDraft]:
        if CALENDAR not in context.capabilities.services:
            return HumanTask().expand(action, params, context)
        start = requested_start(context.message.entities, context.capabilities.timezone)
        event = {
            "starts_at": start and start.isoformat(),
            "minutes": int(DURATION.total_seconds()) // 60,
        }
        return [StepDraft("calendar_event", "", event, required=True)]


class SendInvite:
    """Invitations to the customer, where the entity ``email`` names an address, and to the row's
    ``team``, where it has one; a task where nobody can be invited or the time is not known.

    Required. Row: ``team``, and those of ``HumanTask``. Customers get no text of theirs back: the
    address may be another's.
    """

    def expand(
        self, action: str, params: Mapping[str, Any], context: PlanningContext
    ) -> Sequence[StepDraft]:
        capabilities, entities = context.capabilities, context.message.entities
        start = requested_start(entities, capabilities.timezone)
        attendees = {
            "customer": lookup(entities, "email"),
            "team": capabilities.team_emails.get(params["team"]),
        }
        drafts = []
        if start is not None and EMAIL in capabilities.services:
            purpose = name_for_reply(lookup(entities, "purpose"))
            for name, address in attendees.items():
                if not isinstance(address, str) or not usable_address(address.strip()):
                    continue
                told = f"{SUMMARY}: {purpose}" if name == "team" and purpose else SUMMARY
                invite = {
                    "to": address.strip(),
                    "start": start.isoformat(),
                    "summary": one_line(told, 200),
                }
                drafts.append(StepDraft("invite", name, invite, required=True))
        return drafts or HumanTask().expand(action, params, context)


class CalendarEventExecutor(HttpExecutor):
    """Creates an event at the calendar service; undone by deleting it under its creation's key."""

    name = "calendar_event"
    service = CALENDAR
    key_honoured = True
    compensable = True

    def describe(self, context: StepContext) -> str:
        return f"POST {self.service} /events, {context.step.params['starts_at'] or 'time not read'}"

    def request(self, context: StepContext) -> bytes:
        entities = context.message.entities
        wish = {name: lookup(entities, name) for name in _WISH}
        return encode(
            about_message(context.message) | wish | context.step.params | {"entities": entities}
        )

    async def call(self, request: bytes, context: CallContext) -> dict[str, Any]:
        answer = await self.client(context).post("/events", request, key=context.key)
        return {"event_id": identity(answer, "calendar", "event")}

    def compensation_request(
        self, context: StepContext, forward_key: str, output: Mapping[str, Any] | None
    ) -> bytes:
        return encode({"creation_key": forward_key})

    async def compensate(self, request: bytes, context: CallContext) -> dict[str, Any]:
        """Delete the event. Raises ``NothingThere`` for a 404."""
        creation_key = json.loads(request)["creation_key"]
        with undoing():
            await self.client(context).delete(
                f"/events/{quote(creation_key, safe='')}", key=context.key
            )
        return {"deleted": True}


class InviteExecutor(ExternalExecutor):
    """One invitation by e-mail; undone by a mail that withdraws it, which mail programs take as
    the end of what they know under its uid, and of nothing otherwise.

    ``timeout`` is the limit of one delivery in seconds, as the client has it.
    """

    name = "invite"
    service = EMAIL
    key_honoured = True  # calendars take a second invitation of the same uid for the first
    compensable = True
    max_concurrent = MAX_CONNECTIONS

    def describe(self, context: StepContext) -> str:
        return f"e-mail with an invitation to {context.step.params['to']}"

    def __init__(self, mailer: MailSender, mail_from: str, timeout: float | None = None) -> None:
        self._mailer = mailer
        self._organizer = parseaddr(mail_from)[1]
        if timeout is not None:
            self.max_call_time = timeout + START_MARGIN

    def request(self, context: StepContext) -> bytes:
        return encode(self._mail(context, "REQUEST", "Invitation", "You are invited to a call."))

    def compensation_request(
        self, context: StepContext, forward_key: str, output: Mapping[str, Any] | None
    ) -> bytes:
        mail = self._mail(context, "CANCEL", "Cancelled", "The call will not take place.")
        return encode(mail | {"invited": output is not None})

    async def call(self, request: bytes, context: CallContext) -> dict[str, Any]:
        return await self._send(request, context)

    async def compensate(self, request: bytes, context: CallContext) -> dict[str, Any]:
        """Withdraw it. Raises ``NothingThere`` where the withdrawal is refused of an invitation
        that is not known to have been taken: whom mail cannot reach, none has reached."""
        try:
            return await self._send(request, context)
        except Rejected as error:
            if json.loads(request)["invited"]:
                raise
            raise NothingThere(str(error)) from error

    def _mail(
        self, context: StepContext, method: Method, subject: str, told: str
    ) -> dict[str, Any]:
        message, step, run = context.message, context.step, context.run
        start = datetime.fromisoformat(step.params["start"])
        ids = (message.processing_id, run, step.action)
        invitation = Invitation(
            uid=row_id("event", *ids),
            summary=step.params["summary"],
            start=start,
            organizer=self._organizer,
            attendee=step.params["to"],
        )
        when = f"{start:%Y-%m-%d %H:%M} UTC"
        return {
            "to": step.params["to"],
            "subject": f"{subject}: {invitation.summary}, {when}",
            "body": f"{told}\n\n{invitation.summary}\n{when}\n",
            "message_id": row_id(f"invite {method}", *ids, step.sub_step),
            # Made once: the request's bytes are stored with STARTED.
            "calendar": document(invitation, method, datetime.now(UTC)),
        }

    async def _send(self, request: bytes, context: CallContext) -> dict[str, Any]:
        mail = json.loads(request)
        await self._mailer.send(
            mail["to"],
            mail["subject"],
            mail["body"],
            key=context.key,
            message_id=mail["message_id"],
            calendar=mail["calendar"],
        )
        return {"message_id": mail["message_id"]}
