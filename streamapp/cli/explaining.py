"""What would be done with a message, and why: the pipeline's way up to the plan, and no further."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from streamapp.actions.base import StepContext
from streamapp.actions.capabilities import capabilities
from streamapp.actions.contents import CONTENT
from streamapp.actions.openings import opening
from streamapp.actions.planner import plan_for_error
from streamapp.actions.registry import REPLY
from streamapp.actions.texts import reply_text
from streamapp.actions.wording import fill_in
from streamapp.businesses.business import Business
from streamapp.cli.running import catalogue, planner
from streamapp.intents.base import Thresholds
from streamapp.intents.registry import Routed
from streamapp.pipeline import json_document
from streamapp.pipeline.messages import ERROR, AIError, AIResult, InvalidPayload, decode
from streamapp.pipeline.outcomes import Reason, Record
from streamapp.saga.model import Message, Plan
from streamapp.settings import PREFIX, Settings
from streamapp.storage.known import Known

PLAN = "plan"
DEAD_LETTER = "dead_letter"
NEW = Known()


@dataclass(slots=True)
class Explanation:
    """What would become of one line; the fields are those of ``--json``."""

    line: int
    outcome: str
    reason: str | None = None
    error: str | None = None
    processing_id: str | None = None
    lead_id: str | None = None
    business_id: str | None = None
    tenant_id: str | None = None
    intent: str | None = None
    confidence: float | None = None
    handler: str | None = None
    actions: list[str] = field(default_factory=list)  # in the handler's own order
    suggested: list[str] = field(default_factory=list)  # those of them that the AI proposed
    steps: list[str] = field(default_factory=list)  # in the order of execution
    escalate: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)
    reply: str | None = None
    why: list[str] = field(default_factory=list)
    thresholds: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)  # why each action is in the plan
    switched_off: list[str] = field(default_factory=list)  # by the business
    calls: dict[str, str] = field(default_factory=dict)  # what each step would do
    reply_from: str | None = None  # whose words the reply begins with
    apology: str | None = None  # what is said if all of it is undone
    duplicate: bool | None = None  # None: nobody asked the database
    saga: dict[str, Any] | None = None  # that of this message, where there is one

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


class Explainer:
    """Goes the pipeline's way up to the plan, without broker and services; what the database knows
    is given to it, or is nothing."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._thresholds = Thresholds(settings.confidence_minimum, settings.confidence_high)
        self.defaults = Business(capabilities(settings))
        self._catalogue = catalogue()
        self._planner = planner(settings, self._catalogue)

    def read(self, line: int, value: bytes) -> AIResult | AIError | InvalidPayload:
        """What one record value says; its key is taken to be the payload's ``lead_id``."""
        # Position and time of a record that does not exist; nothing that is shown depends on it.
        record = Record(self._settings.input_topic, 0, line - 1, 0, _key(value), value)
        try:
            return decode(record, max_payload_bytes=self._settings.max_payload_bytes)
        except InvalidPayload as error:
            return error

    def explain(self, line: int, value: bytes) -> Explanation:
        """Explain one record value without asking anybody."""
        return self.explain_with(line, self.read(line, value), NEW)

    def explain_with(
        self, line: int, read: AIResult | AIError | InvalidPayload, known: Known
    ) -> Explanation:
        """Explain what was ``read``, with what the database knows of it."""
        if isinstance(read, InvalidPayload):
            return _dead_letter(line, Reason.INVALID_PAYLOAD, str(read), read.processing_id)
        if isinstance(read, AIError):
            found = self._error(line, read)
            identity = sha256(read.processing_id.encode()).digest()
        else:
            try:
                found = self._result(line, read, known)
            except Exception as error:  # as the pipeline does with whatever a handler raises
                text = f"{type(error).__name__}: {error}"
                found = _dead_letter(line, Reason.HANDLER_ERROR, text, read.processing_id)
                found.lead_id = read.lead_id
                return found
            identity = read.payload_hash
        return _with_known(found, known, identity)

    def _result(self, line: int, result: AIResult, known: Known) -> Explanation:
        business = known.business or self.defaults
        allowed = self._settings.suggested_actions
        message = result.message(known.tenant_id or result.tenant_id or "")
        plan, routed = self._planner.plan(
            message,
            business.capabilities,
            suggested=result.suggested_actions,
            suggested_response=result.suggested_response,
        )
        why = list(routed.decision.why)
        if result.suggested_actions and not allowed:
            why.append(f"suggestions of the AI are not used: {PREFIX}SUGGESTED_ACTIONS is off")
        if routed.unknown_suggestions:
            why.append(f"suggested by the AI but not known: {routed.unknown_suggestions}")
        if result.tenant_id is None and not known.asked:
            why.append("tenant_id is missing: it would be looked up by lead and business")
        explanation = self._of_plan(line, plan, message, why)
        explanation.processing_id = result.processing_id
        explanation.lead_id = result.lead_id
        explanation.business_id = result.business_id
        explanation.tenant_id = known.tenant_id or result.tenant_id
        explanation.intent = result.intent
        explanation.confidence = result.confidence
        explanation.suggested = list(routed.suggested)
        explanation.thresholds = {
            "minimum": self._thresholds.minimum,
            "high": self._thresholds.high,
        }
        explanation.reasons = {action: _reason(action, routed) for action in plan.actions}
        off = business.capabilities.switched_off
        explanation.switched_off = [name for name in routed.decision.actions if name in off]
        explanation.reply_from = opening(
            message,
            routed.handler,
            routed.decision,
            business.capabilities,
            self._thresholds,
            result.suggested_response,
        ).source
        return explanation

    def _error(self, line: int, error: AIError) -> Explanation:
        plan = plan_for_error(error.error_type, error.error_message)
        message = Message("", error.lead_id, "", "", "", 0.0, {}, "")
        why = ["an error of the AI: kept in the lead's history"]
        explanation = self._of_plan(line, plan, message, why)
        explanation.lead_id = error.lead_id
        explanation.business_id = error.business_id
        explanation.tenant_id = error.tenant_id
        return explanation

    def _of_plan(self, line: int, plan: Plan, message: Message, why: list[str]) -> Explanation:
        calls = {}
        for step in plan.steps:
            executor = self._catalogue.actions.executor(step.executor, step.version)
            if executor is not None:
                calls[step.name] = executor.describe(StepContext(message, 0, step, {}))
        reply, notes = _preview(plan, message)
        apology = None
        if plan.apology is not None:
            step = plan.steps[-1]
            apology, _ = fill_in(plan.apology, StepContext(message, 0, step, {}))
        return Explanation(
            line,
            PLAN,
            handler=plan.handler,
            actions=list(plan.actions),
            steps=[step.name for step in plan.steps],
            escalate=plan.escalate,
            metadata=plan.metadata,
            reply=reply,
            why=why + notes,
            calls=calls,
            apology=apology,
        )

    def identity(self, line: int, error: AIError) -> str | None:
        """The id of an error report, where it does not depend on the place that it came in."""
        place = f"{ERROR}:{self._settings.input_topic}:0:{line - 1}"
        return None if error.processing_id == place else error.processing_id

    def too_long(self, line: int) -> Explanation:
        """A line that was not even read to its end."""
        return Explanation(
            line,
            DEAD_LETTER,
            reason=Reason.INVALID_PAYLOAD.value,
            error=f"the value has more than {self._settings.max_payload_bytes} bytes",
        )


def _dead_letter(line: int, reason: Reason, error: str, processing_id: str | None) -> Explanation:
    return Explanation(
        line, DEAD_LETTER, reason=reason.value, error=error, processing_id=processing_id
    )


def _with_known(found: Explanation, known: Known, payload_hash: bytes) -> Explanation:
    """What the pipeline would find out in the database before it begins anything."""
    if not known.asked:
        return found
    saga = known.saga
    found.duplicate = saga is not None and payload_hash in saga.payload_hashes
    if saga is not None:
        found.saga = {"status": saga.status, "run": saga.run, "source": saga.source}
    if saga is not None and not found.duplicate:
        text = f"the id is taken by another payload, from {saga.source}"
        other = _dead_letter(found.line, Reason.PAYLOAD_MISMATCH, text, found.processing_id)
        other.saga, other.duplicate, other.lead_id = found.saga, False, found.lead_id
        return other
    if found.duplicate and saga is not None:
        found.why.insert(0, f"a duplicate of {saga.source}, {saga.status}: nothing would be done")
    elif known.unknown_tenant:
        text = f"no tenant for lead {found.lead_id} of {found.business_id}"
        other = _dead_letter(found.line, Reason.UNKNOWN_TENANT, text, found.processing_id)
        other.lead_id, other.duplicate = found.lead_id, False
        return other
    return found


def _reason(action: str, routed: Routed) -> str:
    """The lines of the decision that name an action; a handler's fixed actions need none."""
    named = re.compile(rf"(?<!\w){re.escape(action)}(?!\w)")
    lines = [line for line in routed.decision.why if named.search(line)]
    return "; ".join(lines) or f"always, for {routed.handler}"


def _preview(plan: Plan, message: Message) -> tuple[str | None, list[str]]:
    """The reply as far as it can be told before any look-up has answered, and what cannot."""
    if not plan.steps or plan.steps[-1].action != REPLY:
        return plan.reply, []
    notes = []

    def told(ordinal: int) -> str:
        step = plan.steps[ordinal]
        text, error = fill_in(step.params, StepContext(message, 0, step, {}))
        if error is not None:
            notes.append(
                f"the text {step.params['topic']} is filled in when look-ups have answered; before "
                f"that: {error}. If it fails then too, this is said instead: {text}"
            )
        return text

    last = plan.steps[-1]
    begins = told(last.ordinal) if last.params["text"] or "template" in last.params else None
    if last.params.get("promise"):
        begins = f"{begins} {last.params['promise']}"
    contents: Iterable[str] = [
        told(step.ordinal) for step in plan.steps if step.executor == CONTENT
    ]
    return reply_text(begins, contents) or plan.reply, notes


def _key(value: bytes) -> bytes:
    """The ``lead_id`` of a value where one can be read; else a key that fits no lead."""
    try:
        document, _ = json_document.load(value)
    except json_document.NotJson:
        return b""
    for body in (_member(document, "payload"), document):
        lead_id = _member(body, "lead_id")
        if isinstance(lead_id, str):
            return lead_id.encode(errors="replace")
    return b""


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None
