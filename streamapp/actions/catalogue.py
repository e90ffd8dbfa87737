"""The catalogue: every action there is, what it does, and when in a saga its turn comes.

One table, and no row that catches unknown names: a handler that can emit a name without a row
stops start-up (``ActionRegistry.check``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from streamapp.actions.base import ActionKind, Phase
from streamapp.actions.kinds import (
    HOUR,
    ROLE,
    TEAM,
    CreateOrder,
    FlagForReview,
    HumanTask,
    Notify,
    RaiseAll,
    SupportTicket,
)

SALES = (TEAM, "sales_team")
SUPPORT = (TEAM, "support_team")
FULFILLMENT = (TEAM, "fulfillment_team")
SALES_MANAGER = (ROLE, "sales_manager")
SUPERVISOR = (ROLE, "supervisor")
AGENT = (ROLE, "agent")


@dataclass(frozen=True, slots=True)
class Row:
    """One action: its family, the family's parameters, its phase."""

    kind: ActionKind
    phase: Phase
    params: Mapping[str, Any] = field(default_factory=dict)


_CREATE_ORDER = CreateOrder()
_SUPPORT_TICKET = SupportTicket()
_FLAG_FOR_REVIEW = FlagForReview()
_NOTIFY = Notify()
_HUMAN_TASK = HumanTask()
_RAISE_ALL = RaiseAll()


def _notify(
    task_type: str, assignee: tuple[str, str], instruction: str, due_in: float = 24 * HOUR
) -> Row:
    params = {
        "task_type": task_type,
        "assignee": assignee,
        "priority": "high",
        "due_in": due_in,
        "instruction": instruction,
    }
    return Row(_NOTIFY, Phase.NOTIFICATION, params)


def _human(
    assignee: tuple[str, str],
    instruction: str,
    *,
    priority: str = "normal",
    due_in: float = 24 * HOUR,
    phase: Phase = Phase.EFFECT,
    required: bool = True,
) -> Row:
    params = {
        "assignee": assignee,
        "priority": priority,
        "due_in": due_in,
        "instruction": instruction,
        "required": required,
    }
    return Row(_HUMAN_TASK, phase, params)


def _look_up(assignee: tuple[str, str], instruction: str) -> Row:
    """A look-up without a service: somebody looks, within half a working day."""
    return _human(assignee, instruction, due_in=4 * HOUR, phase=Phase.LOOK_UP, required=False)


def _content(instruction: str) -> Row:
    """A text that is not configured: support sends it, within half a working day."""
    return _human(SUPPORT, instruction, due_in=4 * HOUR, phase=Phase.REPLY, required=False)


CATALOGUE: Mapping[str, Row] = {
    # Effects with rules of their own
    "create_order": Row(_CREATE_ORDER, Phase.EFFECT),
    "create_support_ticket": Row(_SUPPORT_TICKET, Phase.EFFECT),
    "flag_for_review": Row(_FLAG_FOR_REVIEW, Phase.EFFECT),
    "priority_high": Row(_RAISE_ALL, Phase.EFFECT, {"priority": "high"}),
    "priority_critical": Row(_RAISE_ALL, Phase.EFFECT, {"priority": "critical"}),
    # Notifications
    "notify_sales": _notify("sales_notification", SALES, "Sales: a lead asks for you."),
    "notify_sales_manager": _notify(
        "sales_manager_notification", SALES_MANAGER, "A large enquiry needs your attention."
    ),
    # A supervisor is called in urgent cases only.
    "notify_supervisor": _notify(
        "supervisor_notification", SUPERVISOR, "An urgent case needs your attention.", 1 * HOUR
    ),
    "notify_support_team": _notify(
        "support_notification", SUPPORT, "Support: a lead asks for you."
    ),
    "notify_fulfillment_team": _notify(
        "fulfillment_notification", FULFILLMENT, "Check the order that the complaint is about."
    ),
    "notify_agent": _notify(
        "agent_notification", AGENT, "Take over: the message was not understood.", 8 * HOUR
    ),
    # Work for people
    "assign_to_sales": _human(SALES, "Take care of this lead."),
    "request_clarification": _human(
        SALES, "Ask the customer to confirm what is wanted.", due_in=8 * HOUR
    ),
    "schedule_followup": _human(SUPPORT, "Get back to the customer."),
    "immediate_followup": _human(
        SUPPORT, "Get back to the customer at once.", priority="high", due_in=1 * HOUR
    ),
    "prepare_custom_quote": _human(SALES, "Prepare a quote for this volume.", priority="high"),
    "consider_compensation": _human(
        SUPERVISOR, "Decide whether the customer is owed something.", priority="high"
    ),
    "requires_human_intervention": _human(
        AGENT, "Answer the customer in person.", priority="high", due_in=8 * HOUR
    ),
    # Look-ups
    "check_inventory": _look_up(FULFILLMENT, "Look up whether the product is in stock."),
    "fetch_order_details": _look_up(FULFILLMENT, "Look up the order that is named."),
    "fetch_product_pricing": _look_up(SALES, "Look up the price of the product."),
    "fetch_category_pricing": _look_up(SALES, "Look up the prices of the category."),
    # Content
    "send_price_list": _content("Send the customer the price list."),
    "send_general_price_list": _content("Send the customer the general price list."),
}
