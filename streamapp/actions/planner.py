"""Makes plans: pure, once for each run, at its claim. Nothing is planned twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streamapp.actions.base import Capabilities, Phase, PlanningContext, StepDraft
from streamapp.actions.contents import CONTENT
from streamapp.actions.registry import REPLY, ActionRegistry
from streamapp.actions.texts import TEXT_LIMIT, reply_text, shortened
from streamapp.intents.base import Decision, Thresholds
from streamapp.saga.model import Message, Plan, Step

AI_ERROR = "AI_ERROR"
LOG_AI_ERROR = "log_ai_error"


def make_plan(
    message: Message,
    handler_name: str,
    decision: Decision,
    *,
    run: int,
    registry: ActionRegistry,
    capabilities: Capabilities,
    thresholds: Thresholds,
    suggested: Sequence[str] = (),
) -> Plan:
    """The plan of one run: look-ups first, then effects, then notifications, the reply last,
    otherwise in the handler's own order. The reply is the decision's, followed by the contents that
    the plan sends.

    ``suggested`` are those of the decision's actions that are there only because the AI
    proposed them; their steps are marked. Raises ``UnknownAction`` for an action without a row.
    """
    actions = tuple(dict.fromkeys(decision.actions))
    context = PlanningContext(
        message=message,
        run=run,
        actions=actions,
        metadata=decision.metadata,
        confidence_high=thresholds.high,
        capabilities=capabilities,
    )
    drafts: list[tuple[str, StepDraft]] = [
        (action, draft)
        for action in sorted(actions, key=registry.phase)  # stable: otherwise as emitted
        for draft in registry.expand(action, context)
    ]
    opening = _opening(decision, drafts, registry)
    contents = [n for n, (_, draft) in enumerate(drafts) if draft.executor == CONTENT]
    reply = reply_text(opening, (drafts[n][1].params["text"] for n in contents)) or None
    if reply is not None:
        params: dict[str, Any] = {"to": message.reply_to, "text": opening}
        if contents:
            params["contents"] = contents
        drafts.append((REPLY, StepDraft("reply", "", params, required=True)))
    return Plan(
        handler=handler_name,
        actions=actions,
        steps=tuple(
            _step(ordinal, action, draft, suggested=action in suggested)
            for ordinal, (action, draft) in enumerate(drafts)
        ),
        escalate=decision.escalate,
        metadata=decision.metadata,
        reply=reply,
    )


def _opening(
    decision: Decision, drafts: Sequence[tuple[str, StepDraft]], registry: ActionRegistry
) -> str | None:
    """What the reply begins with: the promise is added where a person has to send something."""
    missing = any(
        registry.phase(action) is Phase.REPLY and draft.executor != CONTENT
        for action, draft in drafts
    )
    if decision.promise and missing:
        return f"{decision.reply or ''} {decision.promise}".strip()
    return decision.reply


def plan_for_error(error_type: str, error_message: str) -> Plan:
    """The plan of an ``ai.error``: a row in the lead's history, nothing else."""
    params: dict[str, Any] = {
        "activity_type": "ai_error",
        "description": shortened(f"{error_type}: {error_message}", TEXT_LIMIT),
        "metadata": {"error_type": error_type, "error_message": error_message},
    }
    draft = StepDraft("activity", "", params, required=True)
    return Plan(
        handler=AI_ERROR,
        actions=(LOG_AI_ERROR,),
        steps=(_step(0, LOG_AI_ERROR, draft),),
        escalate=False,
        metadata={"error_type": error_type},
        reply=None,
    )


def _step(ordinal: int, action: str, draft: StepDraft, *, suggested: bool = False) -> Step:
    return Step(
        ordinal=ordinal,
        action=action,
        sub_step=draft.sub_step,
        executor=draft.executor,
        version=draft.version,
        required=draft.required,
        params=draft.params,
        suggested=suggested,
    )
