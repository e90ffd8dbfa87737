"""The catalogue: every action there is, what it does, and when in a saga its turn comes.

One table, and no row that catches unknown names: a handler that can emit a name without a row
stops start-up (``ActionRegistry.check``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from streamapp.actions.base import ActionKind, Phase
from streamapp.actions.calendar import CreateEvent, SendInvite
from streamapp.actions.capabilities import CALENDAR, INVENTORY, ORDER, PRICING
from streamapp.actions.contents import Content
from streamapp.actions.kinds import (
    HOUR,
    ROLE,
    TEAM,
    CreateOrder,
    FlagForReview,
    HumanTask,
    Notify,
    RaiseAll,
    Record,
    SupportTicket,
)
from streamapp.actions.lookups import LookUp

SALES = (TEAM, "sales_team")
SUPPORT = (TEAM, "support_team")
FULFILLMENT = (TEAM, "fulfillment_team")
PROCUREMENT = (TEAM, "procurement_team")
SCHEDULING = (TEAM, "scheduling_team")
TECHNICAL = (TEAM, "technical_team")
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
_LOOK_UP = LookUp()
_CREATE_EVENT = CreateEvent()
_SEND_INVITE = SendInvite()
_CONTENT = Content()
_RECORD = Record()


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


def _task(
    assignee: tuple[str, str], instruction: str, priority: str, due_in: float, required: bool
) -> dict[str, Any]:
    """The parameters of ``HumanTask``."""
    return {
        "assignee": assignee,
        "priority": priority,
        "due_in": due_in,
        "instruction": instruction,
        "required": required,
    }


def _human(
    assignee: tuple[str, str],
    instruction: str,
    *,
    priority: str = "normal",
    due_in: float = 24 * HOUR,
) -> Row:
    params = _task(assignee, instruction, priority, due_in, required=True)
    return Row(_HUMAN_TASK, Phase.EFFECT, params)


def _look_up(
    service: str, fields: tuple[str, ...], assignee: tuple[str, str], instruction: str
) -> Row:
    """Without the service somebody looks, within half a working day."""
    params = _task(assignee, instruction, "normal", 4 * HOUR, required=False)
    return Row(_LOOK_UP, Phase.LOOK_UP, {"service": service, "fields": fields, **params})


def _calendar(kind: ActionKind, instruction: str) -> Row:
    """What no service does, the scheduling team does within half a working day."""
    params = _task(SCHEDULING, instruction, "normal", 4 * HOUR, required=True)
    return Row(kind, Phase.EFFECT, {"team": SALES[1], **params})


def _content(topic: str, instruction: str) -> Row:
    """A text that is not configured is sent by support, within half a working day."""
    params = _task(SUPPORT, instruction, "normal", 4 * HOUR, required=False)
    return Row(_CONTENT, Phase.REPLY, {"topic": topic, **params})


def _record(activity_type: str, description: str) -> Row:
    params = {"activity_type": activity_type, "description": description}
    return Row(_RECORD, Phase.EFFECT, params)


_PRODUCT = ("product", "quantity", "category")
_STOCK = ("product", "quantity", "category", "location", "date")
_SLOT = ("preferred_date", "preferred_time", "purpose")

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
    "notify_procurement_team": _notify(
        "procurement_notification", PROCUREMENT, "Procurement: a lead asks what will be available."
    ),
    "notify_scheduling_team": _notify(
        "scheduling_notification", SCHEDULING, "Arrange a call: the customer names no time."
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
    "assign_to_support": _human(SUPPORT, "Answer the customer."),
    "assign_to_technical_team": _human(TECHNICAL, "Answer the technical question."),
    "request_time_confirmation": _human(
        SCHEDULING, "Ask the customer to confirm the time of the call.", due_in=8 * HOUR
    ),
    "prepare_comparison": _human(SALES, "Prepare the comparison that the customer asks for."),
    "find_immediate_slot": _human(
        SCHEDULING, "Find a time for the call at once.", priority="high", due_in=1 * HOUR
    ),
    # Look-ups
    "check_inventory": _look_up(
        INVENTORY, _STOCK, FULFILLMENT, "Look up whether the product is in stock."
    ),
    "fetch_product_inventory": _look_up(
        INVENTORY, _STOCK, FULFILLMENT, "Look up how much of the product there is."
    ),
    "validate_quantity_available": _look_up(
        INVENTORY, _STOCK, FULFILLMENT, "Look up whether the quantity is in stock."
    ),
    "check_location_specific_inventory": _look_up(
        INVENTORY, _STOCK, FULFILLMENT, "Look up the stock at the place that is named."
    ),
    "check_future_availability": _look_up(
        INVENTORY, _STOCK, PROCUREMENT, "Look up what will be there on the date that is named."
    ),
    "fetch_product_pricing": _look_up(
        PRICING, (*_PRODUCT, "volume"), SALES, "Look up the price of the product."
    ),
    "fetch_category_pricing": _look_up(
        PRICING, (*_PRODUCT, "volume"), SALES, "Look up the prices of the category."
    ),
    "fetch_order_details": _look_up(
        ORDER, ("order_id",), FULFILLMENT, "Look up the order that is named."
    ),
    "check_delivery_zones": _look_up(
        ORDER, ("location", "product"), FULFILLMENT, "Look up whether we deliver there."
    ),
    "check_calendar_availability": _look_up(
        CALENDAR, _SLOT, SCHEDULING, "Look up when a call is possible."
    ),
    "check_agent_availability": _look_up(
        CALENDAR, _SLOT, SCHEDULING, "Look up who is free for the call."
    ),
    "validate_time_slot": _look_up(
        CALENDAR, _SLOT, SCHEDULING, "Look up whether the time that is named is free."
    ),
    # Calendar
    "create_calendar_event": _calendar(_CREATE_EVENT, "Put the call into the calendar."),
    "send_calendar_invite": _calendar(_SEND_INVITE, "Invite the customer to the call."),
    # Contents
    "send_price_list": _content("price_list", "Send the customer the price list."),
    "send_general_price_list": _content(
        "general_price_list", "Send the customer the general price list."
    ),
    "send_availability_status": _content(
        "availability_status", "Tell the customer what is available."
    ),
    "send_availability_form": _content(
        "availability_form", "Ask the customer when a call would suit."
    ),
    "send_product_catalog": _content("product_catalog", "Send the customer the catalogue."),
    "send_service_details": _content("service_details", "Tell the customer of our services."),
    "send_business_hours": _content("business_hours", "Tell the customer when we are open."),
    "send_location_details": _content("location_details", "Tell the customer where we are."),
    "send_store_locator": _content("store_locator", "Send the customer the list of our stores."),
    "send_contact_details": _content("contact_details", "Tell the customer how to reach us."),
    "send_return_policy": _content("return_policy", "Tell the customer how returns work."),
    "send_terms_conditions": _content("terms_conditions", "Send the customer our terms."),
    "send_shipping_info": _content("shipping_info", "Tell the customer how we deliver."),
    "send_payment_options": _content("payment_options", "Tell the customer how to pay."),
    "send_warranty_info": _content("warranty_info", "Tell the customer of our warranty."),
    "send_technical_specs": _content(
        "technical_specs", "Send the customer the technical specifications."
    ),
    "send_faq": _content("faq", "Send the customer the answers to common questions."),
    # The lead's history
    "log_inquiry": _record("inquiry_logged", "The customer asked a question"),
    "track_customer_interest": _record("customer_interest", "The customer shows interest"),
    "track_product_interest": _record("product_interest", "The customer asks about products"),
    "track_service_interest": _record("service_interest", "The customer asks about services"),
}
