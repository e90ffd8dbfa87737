"""How actions expand: drafts, priorities, services, texts."""

from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.actions.base import Capabilities, Phase
from streamapp.actions.clients import Clients
from streamapp.actions.defaults import default_actions
from streamapp.actions.kinds import HumanTask
from streamapp.actions.registry import ActionRegistry
from streamapp.saga.operations import InsertTask, RaisePriority
from tests.actions import building
from tests.actions.building import ALL, NOTHING

HOUR = 3600.0


def names(registry: ActionRegistry, action: str, capabilities: Capabilities) -> list[str]:
    made = building.plan(registry, [action], capabilities=capabilities)
    return [f"{step.name}:{step.executor}" for step in made.steps]


class TestServices:
    def test_without_services_there_are_tasks_only(self, registry: ActionRegistry) -> None:
        assert names(registry, "create_order", NOTHING) == ["create_order.task:task"]
        assert names(registry, "notify_sales", NOTHING) == ["notify_sales.task:task"]

    def test_with_services_there_is_a_sub_step_for_each_effect(
        self, registry: ActionRegistry
    ) -> None:
        assert names(registry, "create_order", ALL) == [
            "create_order.task:task",
            "create_order.service:order_service",
        ]
        assert names(registry, "notify_sales", ALL) == [
            "notify_sales.task:task",
            "notify_sales.email:email",
        ]

    def test_a_team_without_address_gets_no_email(self, registry: ActionRegistry) -> None:
        assert names(registry, "notify_agent", ALL) == ["notify_agent.task:task"]

    def test_an_address_without_email_service_is_not_used(self, registry: ActionRegistry) -> None:
        some = replace(ALL, services=frozenset({"order"}))
        assert names(registry, "notify_sales", some) == ["notify_sales.task:task"]

    def test_the_order_service_is_required_the_email_is_not(self, registry: ActionRegistry) -> None:
        made = building.plan(registry, ["create_order", "notify_sales"], capabilities=ALL)
        assert {step.name: step.required for step in made.steps} == {
            "create_order.task": True,
            "create_order.service": True,
            "notify_sales.task": False,
            "notify_sales.email": False,
        }


class TestOrder:
    @pytest.mark.parametrize(
        ("confidence", "actions", "draft"),
        [
            (0.95, ["create_order"], False),
            (0.81, ["create_order"], False),
            (0.8, ["create_order"], True),
            (0.6, ["create_order"], True),
            (0.95, ["create_order", "request_clarification"], True),
        ],
    )
    def test_a_draft_unless_sure(
        self, registry: ActionRegistry, confidence: float, actions: list[str], draft: bool
    ) -> None:
        about = building.message(confidence=confidence)
        made = building.plan(registry, actions, about=about, capabilities=ALL)
        task = building.tasks(registry, made, about=about)["create_order.task"]
        assert task.metadata["draft"] is draft
        assert task.metadata["requires_confirmation"] is draft
        assert task.description.startswith("Draft") is draft
        service = next(step for step in made.steps if step.sub_step == "service")
        assert service.params["draft"] is draft

    @pytest.mark.parametrize("priority", ["priority_high", "priority_critical"])
    def test_an_urgent_order_is_due_earlier(self, registry: ActionRegistry, priority: str) -> None:
        made = building.plan(registry, ["create_order", priority])
        task = building.tasks(registry, made)["create_order.task"]
        expected = {"priority_high": ("high", 4 * HOUR), "priority_critical": ("critical", HOUR)}
        assert (task.priority, task.due_in) == expected[priority]

    @pytest.mark.parametrize(
        ("entities", "told"),
        [
            ({"product": "Widget X", "quantity": "1,000 kg"}, "1000 units of Widget X"),
            ({"product": "Widget X", "quantity": 1}, "1 unit of Widget X"),
            ({"product": "Widget X", "quantity": "10-20"}, "Widget X, quantity not named"),
            ({"product": {"a": 1}, "quantity": 3}, "3 units of a product not named"),
            ({}, "a product not named, quantity not named"),
        ],
    )
    def test_the_order_is_told_as_far_as_it_is_known(
        self, registry: ActionRegistry, entities: dict[str, Any], told: str
    ) -> None:
        about = building.message(entities=entities)
        made = building.plan(registry, ["create_order"], about=about)
        task = building.tasks(registry, made, about=about)["create_order.task"]
        assert f"{told}." in task.description


class TestSupportTicket:
    def test_critical_with_priority_critical(self, registry: ActionRegistry) -> None:
        made = building.plan(registry, ["create_support_ticket", "priority_critical"])
        task = building.tasks(registry, made)["create_support_ticket"]
        assert (task.priority, task.due_in) == ("critical", HOUR)

    def test_what_the_handler_found_out_is_in_the_metadata(self, registry: ActionRegistry) -> None:
        made = building.plan(
            registry,
            ["create_support_ticket"],
            metadata={"severity": "normal", "category": None, "order_id": "A-1", "other": 1},
        )
        task = building.tasks(registry, made)["create_support_ticket"]
        assert task.metadata["severity"] == "normal"
        assert task.metadata["order_id"] == "A-1"
        assert not {"category", "other"} & set(task.metadata)


class TestPriority:
    @pytest.mark.parametrize(
        ("action", "priority", "within"),
        [("priority_high", "high", 24 * HOUR), ("priority_critical", "critical", HOUR)],
    )
    def test_raises_the_tasks_of_the_saga(
        self, registry: ActionRegistry, action: str, priority: str, within: float
    ) -> None:
        (step,) = building.plan(registry, [action]).steps
        assert building.operations(registry, step) == [RaisePriority(priority, within)]  # type: ignore[arg-type]
        assert step.required

    @pytest.mark.parametrize("order", list(permutations(["schedule_followup", "priority_high"])))
    def test_reaches_tasks_made_before_and_after(
        self, registry: ActionRegistry, order: tuple[str, ...]
    ) -> None:
        made = building.plan(registry, [*order, "assign_to_sales", "send_price_list"])
        found = building.tasks(registry, made).values()
        assert {task.priority for task in found} == {"high"}
        assert len(found) == 3

    def test_never_lowers_and_never_delays(self, registry: ActionRegistry) -> None:
        made = building.plan(registry, ["priority_high", "notify_supervisor", "flag_for_review"])
        found = building.tasks(registry, made)
        assert found["notify_supervisor.task"].due_in == HOUR
        assert (found["flag_for_review"].priority, found["flag_for_review"].due_in) == (
            "high",
            8 * HOUR,
        )

    def test_leaves_what_is_more_urgent_by_itself(self, registry: ActionRegistry) -> None:
        row = {
            "assignee": ("team", "x"),
            "priority": "critical",
            "due_in": 60.0,
            "instruction": "Now.",
            "required": True,
        }
        registry.register_action("act_now", HumanTask(), Phase.EFFECT, row)
        made = building.plan(registry, ["act_now", "priority_high"])
        task = building.tasks(registry, made)["act_now"]
        assert (task.priority, task.due_in) == ("critical", 60.0)

    def test_critical_beats_high(self, registry: ActionRegistry) -> None:
        made = building.plan(
            registry, ["priority_high", "priority_critical", "schedule_followup", "notify_sales"]
        )
        for task in building.tasks(registry, made).values():
            assert (task.priority, task.due_in) == ("critical", HOUR)

    def test_leaves_a_plan_without_it_alone(self, registry: ActionRegistry) -> None:
        made = building.plan(registry, ["schedule_followup"])
        assert building.tasks(registry, made)["schedule_followup"].priority == "normal"


class TestTexts:
    def test_titles(self, registry: ActionRegistry) -> None:
        made = building.plan(registry, ["create_order", "notify_sales", "request_clarification"])
        assert {name: task.title for name, task in building.tasks(registry, made).items()} == {
            "create_order.task": "New ORDER_REQUEST from lead",
            "request_clarification": "Request clarification: New ORDER_REQUEST from lead",
            "notify_sales.task": "New ORDER_REQUEST from lead",
        }

    @given(st.text(min_size=1, max_size=400))
    def test_whatever_the_intent_a_title_is_one_short_line(self, intent: str) -> None:
        registry = default_actions(Clients())
        about = building.message(intent=intent)
        made = building.plan(registry, ["assign_to_sales"], about=about)
        title = building.tasks(registry, made, about=about)["assign_to_sales"].title
        assert len(title) < 200
        assert len(title.splitlines()) == 1
        assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in title)

    def test_long_texts_are_cut(self, registry: ActionRegistry) -> None:
        about = building.message(text="a" * 100_000)
        made = building.plan(registry, ["assign_to_sales"], about=about)
        task = building.tasks(registry, made, about=about)["assign_to_sales"]
        assert len(task.description) < 2_200
        assert task.description.endswith("a…")

    @pytest.mark.parametrize("capabilities", [NOTHING, None], ids=["none", "all services"])
    def test_a_plan_does_not_repeat_the_entities_for_every_task(
        self, registry: ActionRegistry, capabilities: Capabilities | None
    ) -> None:
        about = building.message(
            entities=dict.fromkeys(("note", "location", "purpose"), "n" * 50_000)
        )
        services = Capabilities(registry.services)
        made = building.plan(
            registry, list(CATALOGUE_ACTIONS), about=about, capabilities=capabilities or services
        )
        assert sum(len(str(step.params)) for step in made.steps) < 50_000
        for task in building.tasks(registry, made, about=about).values():
            assert isinstance(task, InsertTask)
            assert task.metadata["entities"] == about.entities


CATALOGUE_ACTIONS = default_actions(Clients()).names
