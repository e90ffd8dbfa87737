"""What the killed worker has to do: messages of one lead, whose plans visit every kind of step.

An intent of its own (``CRASH``) takes the plan from the message's entities; the actions' external
steps are calls to the ledger of effects (``tests.crash.ledger``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from streamapp.actions.base import (
    CallContext,
    ExternalExecutor,
    OwnExecutor,
    Phase,
    PlanningContext,
    StepContext,
    StepDraft,
)
from streamapp.actions.registry import ActionRegistry
from streamapp.intents.base import Decision, IntentHandler, Thresholds
from streamapp.intents.complaint import ComplaintHandler
from streamapp.intents.order_request import OrderRequestHandler
from streamapp.intents.registry import Registry
from streamapp.intents.schedule_call import ScheduleCallHandler
from streamapp.intents.unknown import UnknownHandler
from streamapp.saga.ids import row_id
from streamapp.saga.model import Message
from streamapp.saga.operations import (
    CancelTask,
    InsertTask,
    Operation,
    RestoreLeadStatus,
    SendMessage,
    SetLeadStatus,
)
from streamapp.services.errors import NothingThere
from streamapp.services.http import HttpRejected, HttpService
from tests.crash.plain import REFUSED, TOO_LARGE

EFFECTS = ("first", "middle", "last", "flaky", "refused", "clinging")
NOTES = ("note", "status", "say", "mumble")
BEST_EFFORT = ("unwelcome",)
BUSINESS = "business-1"
REFUSED_ADDRESS = "refused@example.org"  # by the mail server


class CrashHandler(IntentHandler):
    """Does what the message says."""

    intent = "CRASH"
    priority = 20
    emits = frozenset((*EFFECTS, *NOTES, *BEST_EFFORT))

    def decide(self, message: Message, thresholds: Thresholds) -> Decision:
        return Decision(tuple(message.entities["plan"]), escalate=False)


class OneStep:
    """An action of one step."""

    def __init__(self, executor: str, *, required: bool = True) -> None:
        self._executor = executor
        self._required = required

    def expand(
        self, action: str, params: Mapping[str, Any], context: PlanningContext
    ) -> Sequence[StepDraft]:
        return (StepDraft(self._executor, "", {}, self._required),)


class NoteExecutor(OwnExecutor):
    """A task; ``status`` changes the lead, ``say`` and ``mumble`` answer."""

    name = "crash.note"

    def operations(self, context: StepContext) -> Sequence[Operation]:
        action, message = context.step.action, context.message
        task = row_id("task", message.processing_id, context.run, action)
        found: list[Operation] = [
            InsertTask(task, action, action, "", "normal", "team", "team", 3600.0)
        ]
        if action == "status":
            found.append(SetLeadStatus(f"seen by {message.processing_id}"))
        if action in ("say", "mumble"):
            said = row_id("message", message.processing_id, context.run, action)
            text = REFUSED.decode() if action == "mumble" else "here you are"
            found.append(SendMessage(said, message.reply_to, text))
        return found

    def compensation(self, context: StepContext, output: Mapping[str, Any]) -> Sequence[Operation]:
        action, message = context.step.action, context.message
        found: list[Operation] = [
            CancelTask(row_id("task", message.processing_id, context.run, action), "undone")
        ]
        if output.get("previous_status") is not None:
            found.append(RestoreLeadStatus(output["status"], output["previous_status"]))
        return found


class EffectExecutor(ExternalExecutor):
    """An effect at the ledger, under its key; undone by cancelling that key."""

    name = "crash.effect"
    service = "ledger"
    key_honoured = True
    compensable = True
    max_call_time = 0.0

    def __init__(self, http: HttpService) -> None:
        self._http = http

    def request(self, context: StepContext) -> bytes:
        about = {"action": context.step.action, "processing_id": context.message.processing_id}
        return json.dumps(about).encode()

    async def call(self, request: bytes, context: CallContext) -> dict[str, Any]:
        action = context.step.step.action
        return await self._http.post(f"/effects/{action}", request, key=context.key)

    def compensation_request(
        self, context: StepContext, forward_key: str, output: Mapping[str, Any] | None
    ) -> bytes:
        return json.dumps({"forward_key": forward_key}).encode()

    async def compensate(self, request: bytes, context: CallContext) -> dict[str, Any]:
        action, key = context.step.step.action, json.loads(request)["forward_key"]
        path = f"/effects/{action}/{key}/cancel"
        try:
            return await self._http.post(path, request, key=context.key)
        except HttpRejected as error:
            if error.status == 404:
                raise NothingThere(str(error)) from error
            raise


def intents() -> Registry:
    """The handlers at work here."""
    handlers = (CrashHandler(), OrderRequestHandler(), ComplaintHandler(), ScheduleCallHandler())
    return Registry(UnknownHandler(), handlers)


def add_actions(registry: ActionRegistry, ledger: HttpService) -> None:
    """Register the actions of ``CrashHandler``."""
    registry.register_executor(NoteExecutor())
    registry.register_executor(EffectExecutor(ledger))
    for names, kind in (
        (EFFECTS, OneStep("crash.effect")),
        (BEST_EFFORT, OneStep("crash.effect", required=False)),
        (NOTES, OneStep("crash.note")),
    ):
        for name in names:
            registry.register_action(name, kind, Phase.EFFECT)


def lead_of(name: str) -> str:
    """The one lead of a run."""
    return f"lead-{name}"


def message(lead: str, processing_id: str, intent: str, entities: dict[str, Any]) -> bytes:
    return json.dumps(
        {
            "processing_id": processing_id,
            "lead_id": lead,
            "business_id": BUSINESS,
            "tenant_id": "tenant-1",
            "intent": {"intent": intent, "confidence": 0.95},
            "entities": entities,
            "original_message": "",
            "reply_to": "491700000000",
        }
    ).encode()


def refused_order(name: str) -> str:
    """The message of a run whose order is refused, and redriven in the end."""
    return f"{name}-refused-order"


def script(name: str) -> list[bytes]:
    """The input topic of one run, in order; ``name`` keeps the ids of runs apart."""

    lead = lead_of(name)

    def crash(number: str, *plan: str) -> bytes:
        return message(lead, f"{name}-{number}", "CRASH", {"plan": plan})

    def call(number: str, email: str) -> bytes:
        slot = {"preferred_date": "2030-01-02", "preferred_time": "15:00", "email": email}
        return message(lead, f"{name}-{number}", "SCHEDULE_CALL", slot)

    forward = crash("forward", "status", "first", "note", "middle", "flaky", "last", "say")
    order = {"product": "lamp", "quantity": 2, "urgency": "urgent"}
    return [
        forward,
        crash("backward", "status", "first", "middle", "note", "last", "refused"),
        message(lead, f"{name}-order", "ORDER_REQUEST", order),
        b"{no json",
        forward,
        crash("best-effort", "first", "unwelcome", "say"),
        b"{" + TOO_LARGE,
        crash("forward", "note"),  # the same id with another payload
        message(lead, refused_order(name), "ORDER_REQUEST", {**order, "product": "refused"}),
        crash("unpublishable", "note", "mumble"),
        crash("stuck", "first", "clinging", "refused"),
        call("call", "customer@example.org"),
        call("refused-call", REFUSED_ADDRESS),  # after the event was made, which goes again
        crash("after", "last", "say"),
    ]
