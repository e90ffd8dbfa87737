"""Makes plans: pure, once for each run, at its claim. Nothing is planned twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streamapp.actions.base import Capabilities, Phase, PlanningContext, StepDraft
from streamapp.actions.contents import CONTENT
from streamapp.actions.openings import Opening, opening
from streamapp.actions.registry import REPLY, ActionRegistry
from streamapp.actions.texts import TEXT_LIMIT, reply_text, shortened
from streamapp.actions.wording import apology, filled_in_later
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
    suggested_response: str | None = None,
) -> Plan:
    """The plan of one run: look-ups first, then effects, then notifications, the reply last,
    otherwise in the handler's own order, without what the business has switched off. The reply is
    what ``opening`` chooses, followed by the contents that the plan sends.

    ``suggested`` are those of the decision's actions that are there only because the AI
    proposed them; their steps are marked. ``suggested_response`` is the AI's own reply. Raises
    ``UnknownAction`` for an action without a row.
    """
    actions = tuple(
        action
        for action in dict.fromkeys(decision.actions)
        if action not in capabilities.switched_off
    )
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
    chosen = opening(message, handler_name, decision, capabilities, thresholds, suggested_response)
    promise = decision.promise if _somebody_has_to_send(drafts, registry) else None
    contents = [n for n, (_, draft) in enumerate(drafts) if draft.executor == CONTENT]
    begins = " ".join(part for part in (chosen.text, promise) if part)
    reply = reply_text(begins, (drafts[n][1].params["text"] for n in contents)) or None
    if reply is not None or chosen.template is not None:
        drafts.append((REPLY, _reply(message, chosen, promise, contents, capabilities)))
        reply = reply or chosen.template
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
        # Who is sent the message again knows already that it came to nothing before.
        apology=apology(message, capabilities) if reply is not None and run == 0 else None,
    )


def _somebody_has_to_send(
    drafts: Sequence[tuple[str, StepDraft]], registry: ActionRegistry
) -> bool:
    """Whether a content is missing, so that the handler's promise holds."""
    return any(
        registry.phase(action) is Phase.REPLY and draft.executor != CONTENT
        for action, draft in drafts
    )


def _reply(
    message: Message,
    chosen: Opening,
    promise: str | None,
    contents: list[int],
    capabilities: Capabilities,
) -> StepDraft:
    params: dict[str, Any] = {"to": message.reply_to}
    if chosen.template is None:
        params["text"] = " ".join(part for part in (chosen.text, promise) if part) or None
    else:
        params |= {"topic": chosen.topic, "text": chosen.text or ""}
        params |= filled_in_later(chosen.template, capabilities)
        if promise:
            params["promise"] = promise
    if contents:
        params["contents"] = contents
    return StepDraft(REPLY, "", params, required=True, version=2 if chosen.template else 1)


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
