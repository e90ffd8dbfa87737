"""What is stored with a saga: its plan as JSON, and error texts in a form that can be stored."""

from __future__ import annotations

from typing import Any

from streamapp.saga.model import PLAN_VERSION, Plan, Step

MAX_ERROR = 2000  # characters


class UnknownPlanVersion(Exception):
    """The stored plan has a form that this code does not know."""


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """The plan as a JSON object; ``plan_from_json`` gives back an equal plan."""
    return {
        "version": plan.version,
        "handler": plan.handler,
        "actions": list(plan.actions),
        "steps": [
            {
                "ordinal": step.ordinal,
                "action": step.action,
                "sub_step": step.sub_step,
                "executor": step.executor,
                "version": step.version,
                "required": step.required,
                "params": step.params,
                "suggested": step.suggested,
            }
            for step in plan.steps
        ],
        "escalate": plan.escalate,
        "metadata": plan.metadata,
        "reply": plan.reply,
        "apology": plan.apology,
    }


def plan_from_json(stored: dict[str, Any]) -> Plan:
    """The plan that was stored. Raises ``UnknownPlanVersion`` for one of another form."""
    version = stored["version"]
    if version != PLAN_VERSION:
        raise UnknownPlanVersion(
            f"The stored plan has version {version}; this code knows version {PLAN_VERSION}."
        )
    return Plan(
        handler=stored["handler"],
        actions=tuple(stored["actions"]),
        steps=tuple(Step(**step) for step in stored["steps"]),
        escalate=stored["escalate"],
        metadata=stored["metadata"],
        reply=stored["reply"],
        version=version,
        apology=stored.get("apology"),  # plans of earlier programs have none
    )


def error_text(error: object) -> str:
    """The text of an error as PostgreSQL can hold it, bounded: it may come from anywhere."""
    return str(error).replace("\0", "?")[:MAX_ERROR].encode(errors="replace").decode()
