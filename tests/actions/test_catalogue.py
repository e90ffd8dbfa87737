"""What each action of the catalogue comes to: team, type, priority, due time, requirement."""

import pytest

from streamapp.actions.base import Phase
from streamapp.actions.catalogue import CATALOGUE
from streamapp.actions.registry import ActionRegistry, UnknownAction
from streamapp.actions.topics import TOPICS
from streamapp.intents.registry import default_registry
from streamapp.saga.operations import InsertActivity
from tests.actions import building

HOUR = 3600.0

# action -> task type, assignee type and id, priority, due in hours, required, phase
TASKS = {
    "create_order": ("order_processing", "team", "order_processing_team", "normal", 48, True, 1),
    "create_support_ticket": ("support_ticket", "team", "support_team", "high", 24, True, 1),
    "flag_for_review": ("manual_review", "role", "agent", "normal", 8, True, 1),
    "notify_sales": ("sales_notification", "team", "sales_team", "high", 24, False, 2),
    "notify_sales_manager": (
        "sales_manager_notification",
        "role",
        "sales_manager",
        "high",
        24,
        False,
        2,
    ),
    "notify_supervisor": ("supervisor_notification", "role", "supervisor", "high", 1, False, 2),
    "notify_support_team": ("support_notification", "team", "support_team", "high", 24, False, 2),
    "notify_fulfillment_team": (
        "fulfillment_notification",
        "team",
        "fulfillment_team",
        "high",
        24,
        False,
        2,
    ),
    "notify_agent": ("agent_notification", "role", "agent", "high", 8, False, 2),
    "assign_to_sales": ("assign_to_sales", "team", "sales_team", "normal", 24, True, 1),
    "request_clarification": ("request_clarification", "team", "sales_team", "normal", 8, True, 1),
    "schedule_followup": ("schedule_followup", "team", "support_team", "normal", 24, True, 1),
    "immediate_followup": ("immediate_followup", "team", "support_team", "high", 1, True, 1),
    "prepare_custom_quote": ("prepare_custom_quote", "team", "sales_team", "high", 24, True, 1),
    "consider_compensation": ("consider_compensation", "role", "supervisor", "high", 24, True, 1),
    "requires_human_intervention": (
        "requires_human_intervention",
        "role",
        "agent",
        "high",
        8,
        True,
        1,
    ),
    "check_inventory": ("check_inventory", "team", "fulfillment_team", "normal", 4, False, 0),
    "fetch_order_details": (
        "fetch_order_details",
        "team",
        "fulfillment_team",
        "normal",
        4,
        False,
        0,
    ),
    "fetch_product_pricing": ("fetch_product_pricing", "team", "sales_team", "normal", 4, False, 0),
    "fetch_category_pricing": (
        "fetch_category_pricing",
        "team",
        "sales_team",
        "normal",
        4,
        False,
        0,
    ),
    "notify_procurement_team": (
        "procurement_notification",
        "team",
        "procurement_team",
        "high",
        24,
        False,
        2,
    ),
    "notify_scheduling_team": (
        "scheduling_notification",
        "team",
        "scheduling_team",
        "high",
        24,
        False,
        2,
    ),
    "assign_to_support": ("assign_to_support", "team", "support_team", "normal", 24, True, 1),
    "assign_to_technical_team": (
        "assign_to_technical_team",
        "team",
        "technical_team",
        "normal",
        24,
        True,
        1,
    ),
    "request_time_confirmation": (
        "request_time_confirmation",
        "team",
        "scheduling_team",
        "normal",
        8,
        True,
        1,
    ),
    "prepare_comparison": ("prepare_comparison", "team", "sales_team", "normal", 24, True, 1),
    "find_immediate_slot": ("find_immediate_slot", "team", "scheduling_team", "high", 1, True, 1),
    "fetch_product_inventory": (
        "fetch_product_inventory",
        "team",
        "fulfillment_team",
        "normal",
        4,
        False,
        0,
    ),
    "check_location_specific_inventory": (
        "check_location_specific_inventory",
        "team",
        "fulfillment_team",
        "normal",
        4,
        False,
        0,
    ),
    "check_future_availability": (
        "check_future_availability",
        "team",
        "procurement_team",
        "normal",
        4,
        False,
        0,
    ),
    "validate_quantity_available": (
        "validate_quantity_available",
        "team",
        "fulfillment_team",
        "normal",
        4,
        False,
        0,
    ),
    "check_delivery_zones": (
        "check_delivery_zones",
        "team",
        "fulfillment_team",
        "normal",
        4,
        False,
        0,
    ),
    "check_calendar_availability": (
        "check_calendar_availability",
        "team",
        "scheduling_team",
        "normal",
        4,
        False,
        0,
    ),
    "check_agent_availability": (
        "check_agent_availability",
        "team",
        "scheduling_team",
        "normal",
        4,
        False,
        0,
    ),
    "validate_time_slot": ("validate_time_slot", "team", "scheduling_team", "normal", 4, False, 0),
    "create_calendar_event": (
        "create_calendar_event",
        "team",
        "scheduling_team",
        "normal",
        4,
        True,
        1,
    ),
    "send_calendar_invite": (
        "send_calendar_invite",
        "team",
        "scheduling_team",
        "normal",
        4,
        True,
        1,
    ),
    "send_price_list": ("send_price_list", "team", "support_team", "normal", 4, False, 3),
    "send_general_price_list": (
        "send_general_price_list",
        "team",
        "support_team",
        "normal",
        4,
        False,
        3,
    ),
    "send_availability_status": (
        "send_availability_status",
        "team",
        "support_team",
        "normal",
        4,
        False,
        3,
    ),
    "send_availability_form": (
        "send_availability_form",
        "team",
        "support_team",
        "normal",
        4,
        False,
        3,
    ),
    "send_product_catalog": ("send_product_catalog", "team", "support_team", "normal", 4, False, 3),
    "send_service_details": ("send_service_details", "team", "support_team", "normal", 4, False, 3),
    "send_business_hours": ("send_business_hours", "team", "support_team", "normal", 4, False, 3),
    "send_location_details": (
        "send_location_details",
        "team",
        "support_team",
        "normal",
        4,
        False,
        3,
    ),
    "send_store_locator": ("send_store_locator", "team", "support_team", "normal", 4, False, 3),
    "send_contact_details": ("send_contact_details", "team", "support_team", "normal", 4, False, 3),
    "send_return_policy": ("send_return_policy", "team", "support_team", "normal", 4, False, 3),
    "send_terms_conditions": (
        "send_terms_conditions",
        "team",
        "support_team",
        "normal",
        4,
        False,
        3,
    ),
    "send_shipping_info": ("send_shipping_info", "team", "support_team", "normal", 4, False, 3),
    "send_payment_options": ("send_payment_options", "team", "support_team", "normal", 4, False, 3),
    "send_warranty_info": ("send_warranty_info", "team", "support_team", "normal", 4, False, 3),
    "send_technical_specs": ("send_technical_specs", "team", "support_team", "normal", 4, False, 3),
    "send_faq": ("send_faq", "team", "support_team", "normal", 4, False, 3),
}

# Actions that make no task, whatever is configured.
NO_TASK = {
    "priority_high",
    "priority_critical",
    "log_inquiry",
    "track_customer_interest",
    "track_product_interest",
    "track_service_interest",
}


def test_the_tables_of_catalogue_and_test_have_the_same_rows() -> None:
    assert set(CATALOGUE) == set(TASKS) | NO_TASK
    assert len(CATALOGUE) == 60


def test_every_content_has_a_topic_that_a_business_can_have_a_text_for() -> None:
    topics = {name: row.params["topic"] for name, row in CATALOGUE.items() if row.phase == 3}
    assert {name.removeprefix("send_") for name in topics} == set(topics.values()) == TOPICS


@pytest.mark.parametrize("action", TASKS)
def test_the_task_of_each_action(registry: ActionRegistry, action: str) -> None:
    made = building.plan(registry, [action])
    (task,) = building.tasks(registry, made).values()
    task_type, to_type, to_id, priority, hours, required, phase = TASKS[action]
    assert (task.task_type, task.assigned_to_type, task.assigned_to_id) == (
        task_type,
        to_type,
        to_id,
    )
    assert (task.priority, task.due_in) == (priority, hours * HOUR)
    assert [step.required for step in made.steps] == [required]
    assert registry.phase(action) is Phase(phase)


@pytest.mark.parametrize("action", TASKS)
def test_every_task_names_the_message_it_is_about(registry: ActionRegistry, action: str) -> None:
    (task,) = building.tasks(registry, building.plan(registry, [action])).values()
    assert task.title.endswith("New ORDER_REQUEST from lead")
    assert task.metadata["intent"] == "ORDER_REQUEST"
    assert task.metadata["entities"] == {"product": "Widget X", "quantity": 100}
    assert task.metadata["action"] == action
    assert "please send it" in task.description


@pytest.mark.parametrize(
    ("action", "activity"),
    [
        ("create_order", "order_initiated"),
        ("create_support_ticket", "support_ticket_created"),
        ("flag_for_review", "flagged_for_review"),
        ("notify_sales", None),
    ],
)
def test_activities(registry: ActionRegistry, action: str, activity: str | None) -> None:
    made = building.plan(registry, [action])
    rows = [
        operation
        for operation in building.operations(registry, made.steps[0])
        if isinstance(operation, InsertActivity)
    ]
    assert [row.activity_type for row in rows] == ([activity] if activity else [])
    for row in rows:
        assert row.channel == "web"
        assert row.message_content == "please send it"
        assert row.metadata["intent"] == "ORDER_REQUEST"


def test_everything_that_handlers_emit_has_a_row(registry: ActionRegistry) -> None:
    registry.check(default_registry().all_emitted())
    assert default_registry().all_emitted() == set(CATALOGUE)


def test_there_is_no_row_for_unknown_names(registry: ActionRegistry) -> None:
    with pytest.raises(UnknownAction, match="'send_anything'"):
        building.plan(registry, ["send_anything"])
