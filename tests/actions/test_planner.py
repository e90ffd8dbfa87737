"""The order of execution, the reply, and what a plan holds."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.actions.base import Capabilities
from streamapp.actions.catalogue import CATALOGUE
from streamapp.actions.clients import Clients
from streamapp.actions.defaults import default_actions
from streamapp.actions.registry import ActionRegistry
from streamapp.saga.serialization import plan_from_json, plan_to_json
from tests.actions import building
from tests.actions.building import ALL

REGISTRY = default_actions(Clients())


def test_look_ups_then_effects_then_notifications_then_the_reply(registry: ActionRegistry) -> None:
    made = building.plan(
        registry,
        ["send_price_list", "notify_sales", "create_order", "check_inventory", "priority_high"],
        reply="Hello",
        capabilities=ALL,
    )
    assert [step.name for step in made.steps] == [
        "check_inventory",
        "create_order.task",
        "create_order.service",
        "priority_high",
        "notify_sales.task",
        "notify_sales.email",
        "send_price_list",
        "reply",
    ]
    assert [step.ordinal for step in made.steps] == list(range(8))
    assert made.actions == (
        "send_price_list",
        "notify_sales",
        "create_order",
        "check_inventory",
        "priority_high",
    )


@given(st.lists(st.sampled_from(sorted(CATALOGUE)), unique=True))
def test_otherwise_as_emitted(actions: list[str]) -> None:
    made = building.plan(REGISTRY, actions)
    order = [step.action for step in made.steps]
    expected = [
        action for phase in range(4) for action in actions if CATALOGUE[action].phase == phase
    ]
    assert order == expected


@given(st.lists(st.sampled_from(sorted(CATALOGUE))), st.none() | st.text())
def test_a_plan_is_pure_unique_and_storable(actions: list[str], reply: str | None) -> None:
    made = building.plan(REGISTRY, actions, reply=reply)
    assert made == building.plan(REGISTRY, actions, reply=reply)
    assert made.actions == tuple(dict.fromkeys(actions))
    assert len({step.name for step in made.steps}) == len(made.steps)
    assert plan_from_json(json.loads(json.dumps(plan_to_json(made)))) == made


@pytest.mark.parametrize("reply", [None, "", "  \n"])
def test_nothing_to_say_sends_nothing(registry: ActionRegistry, reply: str | None) -> None:
    assert building.plan(registry, ["notify_sales"], reply=reply).steps[-1].action == "notify_sales"


def test_the_reply_is_required_and_last(registry: ActionRegistry) -> None:
    made = building.plan(registry, ["send_price_list"], reply="Hello")
    last = made.steps[-1]
    assert (last.action, last.executor, last.required) == ("reply", "reply", True)
    assert last.params == {"to": "491512345678", "text": "Hello"}
    assert made.reply == "Hello"


@pytest.mark.parametrize(
    ("texts", "actions", "reply"),
    [
        ({}, ["send_faq"], "Hello. It will come."),
        ({"faq": "All of it."}, ["send_faq"], "Hello.\n\nAll of it."),
        (
            {"faq": "All of it."},
            ["send_price_list", "send_faq"],
            "Hello. It will come.\n\nAll of it.",
        ),
        ({}, ["assign_to_sales"], "Hello."),
        ({}, ["create_calendar_event", "send_calendar_invite"], "Hello."),
    ],
)
def test_the_reply_promises_only_what_is_still_to_come(
    registry: ActionRegistry, texts: dict[str, str], actions: list[str], reply: str
) -> None:
    made = building.plan(
        registry,
        actions,
        capabilities=Capabilities(texts=texts),
        reply="Hello.",
        promise="It will come.",
    )
    assert made.reply == reply


def test_contents_alone_are_a_reply(registry: ActionRegistry) -> None:
    made = building.plan(registry, ["send_faq"], capabilities=Capabilities(texts={"faq": "All."}))
    assert made.reply == "All."
    assert made.steps[-1].executor == "reply"


def test_suggested_steps_are_marked(registry: ActionRegistry) -> None:
    made = building.plan(
        registry, ["create_order", "assign_to_sales"], suggested=["assign_to_sales"]
    )
    assert {step.action: step.suggested for step in made.steps} == {
        "create_order": False,
        "assign_to_sales": True,
    }
