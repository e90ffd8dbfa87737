"""Families of actions: how one row of the catalogue becomes steps.

Everything is resolved here, when the plan is made: titles, texts, teams, due times. The one
exception is what the message itself holds (intent, entities), which is stored beside the plan
and never changes: executors take it from there, so a plan does not repeat it for every task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from streamapp.actions.base import PlanningContext, StepDraft
from streamapp.actions.capabilities import EMAIL, ORDER, SLACK
from streamapp.actions.texts import details, email_body, headline, order_summary, slack_text
from streamapp.intents.entities import amount, lookup
from streamapp.saga.operations import Priority

HOUR = 3600.0

TEAM = "team"
ROLE = "role"

# An order is worked off within two days, an urgent one within half a working day.
ORDER_DUE = 48 * HOUR
URGENT_ORDER_DUE = 4 * HOUR
# A complaint is answered within a day, a critical one within the hour.
TICKET_DUE = 24 * HOUR
CRITICAL_TICKET_DUE = 1 * HOUR
REVIEW_DUE = 8 * HOUR

# What raising the priority means for the due time of every task of the saga.
PRIORITY_DUE: Mapping[Priority, float] = {"high": 24 * HOUR, "critical": 1 * HOUR}

_RANK: Mapping[Priority, int] = {"low": 0, "normal": 1, "high": 2, "critical": 3}


def priority_floor(actions: Sequence[str]) -> Priority | None:
    """The priority that a plan's ``priority_*`` actions demand of each of its tasks."""
    if "priority_critical" in actions:
        return "critical"
    if "priority_high" in actions:
        return "high"
    return None


def is_draft(context: PlanningContext) -> bool:
    """Whether an order still needs the customer's word: it was read without high confidence."""
    return (
        "request_clarification" in context.actions
        or context.message.confidence <= context.confidence_high
    )


def _task(
    action: str,
    context: PlanningContext,
    *,
    task_type: str,
    title: str,
    description: str,
    assignee: tuple[str, str],
    priority: Priority,
    due_in: float,
    metadata: Mapping[str, Any] | None = None,
    activity: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """Params of the task executor.

    A task made after a ``priority_*`` step is not reached by its operation, so the plan's
    demand is applied to every task here.
    """
    floor = priority_floor(context.actions)
    if floor is not None:
        priority = max(priority, floor, key=_RANK.__getitem__)
        due_in = min(due_in, PRIORITY_DUE[floor])
    params: dict[str, Any] = {
        "task_type": task_type,
        "title": title,
        "description": description,
        "priority": priority,
        "assigned_to_type": assignee[0],
        "assigned_to_id": context.capabilities.team_names.get(assignee[1], assignee[1]),
        "due_in": due_in,
        "metadata": {"action": action, **(metadata or {})},
    }
    if activity is not None:
        params["activity"] = {"activity_type": activity[0], "description": activity[1]}
    return params


class CreateOrder:
    """A task for the order team, and the order at the order service where there is one.

    Required. Urgent orders (the plan raises the priority) are high and due earlier; an order
    that was read without high confidence is a draft.
    """

    def expand(
        self, action: str, params: Mapping[str, Any], context: PlanningContext
    ) -> Sequence[StepDraft]:
        urgent = priority_floor(context.actions) is not None
        draft = is_draft(context)
        entities = context.message.entities
        product = lookup(entities, "product")
        quantity = amount(lookup(entities, "quantity"))
        order = order_summary(product, quantity)
        instruction = (
            f"Draft, ask the customer to confirm before it is carried out: {order}."
            if draft
            else f"Process the order: {order}."
        )
        task = _task(
            action,
            context,
            task_type="order_processing",
            title=headline(context.message),
            description=details(instruction, context.message),
            assignee=(TEAM, "order_processing_team"),
            priority="high" if urgent else "normal",
            due_in=URGENT_ORDER_DUE if urgent else ORDER_DUE,
            metadata={"draft": draft, "requires_confirmation": draft},
            activity=(
                "order_initiated",
                f"Order {'drafted' if draft else 'initiated'}: {order}",
            ),
        )
        drafts = [StepDraft("task", "task", task, required=True)]
        if ORDER in context.capabilities.services:
            body = {
                "product": product,
                "quantity": quantity,
                "urgency": lookup(entities, "urgency"),
                "draft": draft,
            }
            drafts.append(StepDraft("order_service", "service", body, required=True))
        return drafts


class SupportTicket:
    """A ticket for the support team; critical when the plan says so. Required."""

    def expand(
        self, action: str, params: Mapping[str, Any], context: PlanningContext
    ) -> Sequence[StepDraft]:
        critical = "priority_critical" in context.actions
        known = {
            name: context.metadata[name]
            for name in ("severity", "category", "order_id")
            if context.metadata.get(name) is not None
        }
        task = _task(
            action,
            context,
            task_type="support_ticket",
            title=headline(context.message),
            description=details(
                "Critical complaint, answer at once." if critical else "Answer the complaint.",
                context.message,
            ),
            assignee=(TEAM, "support_team"),
            priority="critical" if critical else "high",
            due_in=CRITICAL_TICKET_DUE if critical else TICKET_DUE,
            metadata=known,
            activity=("support_ticket_created", "Support ticket opened for a complaint"),
        )
        return [StepDraft("task", "", task, required=True)]


class FlagForReview:
    """The lead waits for a person: its status says so, and an agent gets a task. Required."""

    def expand(
        self, action: str, params: Mapping[str, Any], context: PlanningContext
    ) -> Sequence[StepDraft]:
        confidence = f"{context.message.confidence:.2f}"
        task = _task(
            action,
            context,
            task_type="manual_review",
            title=headline(context.message),
            description=details(
                f"Check what the customer wants: it was read with confidence {confidence}.",
                context.message,
            ),
            assignee=(ROLE, "agent"),
            priority="normal",
            due_in=REVIEW_DUE,
            metadata={"confidence": context.message.confidence},
            activity=("flagged_for_review", f"Flagged for review (confidence {confidence})"),
        )
        return [StepDraft("review", "", {"status": "needs_review", "task": task}, required=True)]


class Notify:
    """A task for a team or role; an e-mail where it has an address, a message where it has a
    channel at Slack. Best effort.

    Row: ``task_type``, ``assignee``, ``priority``, ``due_in``, ``instruction``.
    """

    def expand(
        self, action: str, params: Mapping[str, Any], context: PlanningContext
    ) -> Sequence[StepDraft]:
        title = headline(context.message)
        task = _task(
            action,
            context,
            task_type=params["task_type"],
            title=title,
            description=details(params["instruction"], context.message),
            assignee=params["assignee"],
            priority=params["priority"],
            due_in=params["due_in"],
        )
        drafts = [StepDraft("task", "task", task, required=False)]
        team = params["assignee"][1]
        address = context.capabilities.team_emails.get(team)
        if address and EMAIL in context.capabilities.services:
            email = {
                "to": address,
                "subject": title,
                "body": email_body(params["instruction"], context.message),
            }
            drafts.append(StepDraft("email", "email", email, required=False))
        if SLACK in context.capabilities.services and team in context.capabilities.slack_teams:
            note = {"team": team, "text": slack_text(title, params["instruction"], context.message)}
            drafts.append(StepDraft("slack", "slack", note, required=False))
        return drafts


class HumanTask:
    """Something that a person does: a task of the action's own type.

    Row: ``assignee``, ``priority``, ``due_in``, ``instruction``, ``required``. Look-ups and
    contents that no service answers are best effort: the rest of the work does not wait for
    them.
    """

    def expand(
        self, action: str, params: Mapping[str, Any], context: PlanningContext
    ) -> Sequence[StepDraft]:
        task = _task(
            action,
            context,
            task_type=action,
            title=headline(context.message, what=action),
            description=details(params["instruction"], context.message),
            assignee=params["assignee"],
            priority=params["priority"],
            due_in=params["due_in"],
        )
        return [StepDraft("task", "", task, required=params["required"])]


class RaiseAll:
    """Raises the priority of every task of the saga. Required. Row: ``priority``."""

    def expand(
        self, action: str, params: Mapping[str, Any], context: PlanningContext
    ) -> Sequence[StepDraft]:
        priority: Priority = params["priority"]
        raised = {"priority": priority, "due_within": PRIORITY_DUE[priority]}
        return [StepDraft("priority", "", raised, required=True)]


class Record:
    """A row in the lead's history. Required. Row: ``activity_type``, ``description``."""

    def expand(
        self, action: str, params: Mapping[str, Any], context: PlanningContext
    ) -> Sequence[StepDraft]:
        known = {
            name: context.metadata[name]
            for name in ("inquiry_category", "topic")
            if context.metadata.get(name) is not None
        }
        activity = {
            "activity_type": params["activity_type"],
            "description": params["description"],
            "metadata": {"action": action, **known},
            "about_message": True,
        }
        return [StepDraft("activity", "", activity, required=True)]
