"""Each of the sixty actions, carried out on a real database through the journal: the effect that
its table names, with every service there is, and with none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from streamapp.saga.model import Message, SagaStatus
from tests.actions import building
from tests.actions.outside import FULL, Outside, nothing, outside
from tests.support.bench import Bench
from tests.support.sagas import OUTBOUND

Effects = frozenset[str]

# notification: type of its task, whom it is for
NOTIFY = {
    "notify_sales": ("sales_notification", "sales_team"),
    "notify_sales_manager": ("sales_manager_notification", "sales_manager"),
    "notify_supervisor": ("supervisor_notification", "supervisor"),
    "notify_support_team": ("support_notification", "support_team"),
    "notify_fulfillment_team": ("fulfillment_notification", "fulfillment_team"),
    "notify_procurement_team": ("procurement_notification", "procurement_team"),
    "notify_scheduling_team": ("scheduling_notification", "scheduling_team"),
    "notify_agent": ("agent_notification", "agent"),
}
HUMAN = {
    "assign_to_sales": "sales_team",
    "assign_to_support": "support_team",
    "assign_to_technical_team": "technical_team",
    "request_clarification": "sales_team",
    "request_time_confirmation": "scheduling_team",
    "schedule_followup": "support_team",
    "immediate_followup": "support_team",
    "prepare_custom_quote": "sales_team",
    "prepare_comparison": "sales_team",
    "consider_compensation": "supervisor",
    "requires_human_intervention": "agent",
    "find_immediate_slot": "scheduling_team",
}
# look-up: its service, who looks where there is none
LOOK_UP = {
    "check_inventory": ("inventory", "fulfillment_team"),
    "fetch_product_inventory": ("inventory", "fulfillment_team"),
    "check_location_specific_inventory": ("inventory", "fulfillment_team"),
    "check_future_availability": ("inventory", "procurement_team"),
    "validate_quantity_available": ("inventory", "fulfillment_team"),
    "fetch_product_pricing": ("pricing", "sales_team"),
    "fetch_category_pricing": ("pricing", "sales_team"),
    "fetch_order_details": ("order", "fulfillment_team"),
    "check_delivery_zones": ("order", "fulfillment_team"),
    "check_calendar_availability": ("calendar", "scheduling_team"),
    "check_agent_availability": ("calendar", "scheduling_team"),
    "validate_time_slot": ("calendar", "scheduling_team"),
}
CONTENT = (
    *("send_price_list", "send_general_price_list", "send_availability_status"),
    *("send_availability_form", "send_product_catalog", "send_service_details"),
    *("send_business_hours", "send_location_details", "send_store_locator"),
    *("send_contact_details", "send_return_policy", "send_terms_conditions"),
    *("send_shipping_info", "send_payment_options", "send_warranty_info"),
    *("send_technical_specs", "send_faq"),
)
RECORD = {
    "log_inquiry": "inquiry_logged",
    "track_customer_interest": "customer_interest",
    "track_product_interest": "product_interest",
    "track_service_interest": "service_interest",
}
ORDER = {"task order_processing for order_processing_team", "activity order_initiated"}
TICKET = {"task support_ticket for support_team", "activity support_ticket_created"}
REVIEW = {
    "task manual_review for agent",
    "activity flagged_for_review",
    "lead: new to needs_review",
}


def with_services() -> dict[str, set[str]]:
    found = {
        "create_order": ORDER | {"POST /order/orders"},
        "create_support_ticket": TICKET,
        "flag_for_review": REVIEW,
        "priority_high": {"task for team, high"},
        "priority_critical": {"task for team, critical"},
        "create_calendar_event": {"POST /calendar/events"},
        "send_calendar_invite": {
            "invite to customer@example.com",
            "invite to sales_team@example.org",
        },
    }
    for name, (type_, team) in NOTIFY.items():
        mail = f"mail to {team}@example.org"
        found[name] = {f"task {type_} for {team}", mail, f"POST /slack/{team}"}
    for name, team in HUMAN.items():
        found[name] = {f"task {name} for {team}"}
    for name, (service, _) in LOOK_UP.items():
        found[name] = {f"POST /{service}/lookups/{name}"}
    for name in CONTENT:
        found[name] = {f"reply: text of {name.removeprefix('send_')}"}
    for name, activity in RECORD.items():
        found[name] = {f"activity {activity}"}
    return found


def without() -> dict[str, set[str]]:
    found = with_services()
    found["create_order"] = ORDER
    for name in ("create_calendar_event", "send_calendar_invite"):
        found[name] = {f"task {name} for scheduling_team"}
    for name, (type_, team) in NOTIFY.items():
        found[name] = {f"task {type_} for {team}"}
    for name, (_, team) in LOOK_UP.items():
        found[name] = {f"task {name} for {team}"}
    for name in CONTENT:
        found[name] = {f"task {name} for support_team"}
    return found


async def effects(bench: Bench, far: Outside, name: str) -> set[str]:
    """Carry one action out, and tell all that is there then and was not before."""
    lead = f"lead of {name}"
    about: Message = replace(building.message(entities=FULL), processing_id=name, lead_id=lead)
    await bench.pool.execute(
        "insert into leads (lead_id, business_id, tenant_id, status) "
        "values ($1, 'b-1', 't-1', 'new')",
        lead,
    )
    far.asked.clear()
    far.mailbox.envelopes.clear()
    # A priority has nothing to raise in a saga of its own.
    priority = name.startswith("priority_")
    actions = ["assign_to_sales", name] if priority else [name]
    state = await far.run(bench, actions, about=about)
    assert state.status is SagaStatus.COMPLETED, (name, state.error)
    assert not await bench.letters()
    found = set()
    for row in await bench.pool.fetch("select * from tasks where lead_id = $1", lead):
        what = f" {row['task_type']} for {row['assigned_to_id']}"
        found.add(f"task for team, {row['priority']}" if priority else f"task{what}")
        about_it = orjson.loads(row["metadata"])
        assert (about_it["intent"], about_it["entities"]) == ("ORDER_REQUEST", FULL)
    for row in await bench.pool.fetch("select * from lead_activities where lead_id = $1", lead):
        found.add(f"activity {row['activity_type']}")
        assert orjson.loads(row["metadata"])["entities"] == FULL
    status = await bench.pool.fetchval("select status from leads where lead_id = $1", lead)
    if status != "new":
        found.add(f"lead: new to {status}")
    for request in far.asked:
        found.add(request.what)
        if request.what.startswith("POST /slack"):
            assert "New ORDER_REQUEST from lead" in request.body["text"]
        else:
            assert request.key, name
            check_body(request.body, name, lead)
    for mail in far.mailbox.messages:
        kind = (
            "invite"
            if any(p.get_content_type() == "text/calendar" for p in mail.walk())
            else "mail"
        )
        found.add(f"{kind} to {mail['To']}")
    for row in await bench.pool.fetch(
        "select value from outbox where topic = $1 and key = $2", OUTBOUND, lead.encode()
    ):
        found.add(f"reply: {orjson.loads(row['value'])['text']}")
    return found


def check_body(body: dict[str, Any], name: str, lead: str) -> None:
    """What every request to a service of the business tells."""
    assert (body["processing_id"], body["lead_id"]) == (name, lead)
    assert (body["business_id"], body["tenant_id"]) == ("b-1", "t-1")
    assert body["entities"] == FULL


async def test_with_every_service(bench: Bench) -> None:
    wanted = with_services()
    assert len(wanted) == 60
    async with outside() as far:
        assert far.registry.names == set(wanted)
        assert {name: await effects(bench, far, name) for name in wanted} == wanted


async def test_with_none(bench: Bench) -> None:
    wanted = without()
    async with outside(nothing) as far:
        assert {name: await effects(bench, far, name) for name in wanted} == wanted
        assert not far.asked
        assert not far.mailbox.envelopes
