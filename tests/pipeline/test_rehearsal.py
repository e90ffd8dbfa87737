"""What counts as a change, how it is told, and what is not compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from streamapp.actions.base import Capabilities
from streamapp.actions.defaults import default_actions
from streamapp.actions.nothing_called import no_calls
from streamapp.intents.base import Thresholds
from streamapp.intents.registry import default_registry
from streamapp.pipeline.outcomes import Reason, Record
from streamapp.pipeline.planning import Planner
from streamapp.pipeline.rehearsal import (
    Apart,
    Kind,
    Read,
    Recorded,
    Rehearsal,
    normal,
    parse,
    plan_changes,
    read,
)
from streamapp.saga.model import Plan, Step
from streamapp.saga.serialization import plan_to_json
from tests.pipeline.records import record, result

Json = dict[str, Any]


def planner(**changes: Any) -> Planner:
    return Planner(
        default_registry(),
        default_actions(no_calls()),
        thresholds=Thresholds(**changes),
        suggested_actions=False,
    )


def decoded(value: Record) -> Read:
    return read(value, max_payload_bytes=10_000)


def add(to: Rehearsal, value: Record, known: Recorded | None) -> None:
    to.add(decoded(value), known, Capabilities())


def rehearsal(examples: int = 2, **changes: Any) -> Rehearsal:
    return Rehearsal(planner(**changes), examples=examples)


def step(ordinal: int, action: str, **more: Any) -> Step:
    fields: Json = {"sub_step": "", "executor": "task", "version": 1, "required": True}
    return Step(ordinal, action, **{**fields, "params": {"title": "old"}, **more})


def stored() -> Json:
    """A plan of two actions and a reply, as the database gives it back."""
    plan = Plan(
        handler="COMPLAINT",
        actions=("b", "a"),
        steps=(step(0, "a"), step(1, "b"), step(2, "reply", executor="reply")),
        escalate=False,
        metadata={"topic": "old"},
        reply="We call you at +49 170 1234567.",
    )
    return normal(plan_to_json(plan))


def changed(change: Callable[[Json], Any]) -> list[tuple[str, str, str, str]]:
    before, after = stored(), deepcopy(stored())
    change(after)
    return [
        (each.kind.name, each.subject, each.before, each.after)
        for each in plan_changes(before, after)
    ]


def test_equal_plans_have_no_changes() -> None:
    assert changed(lambda plan: None) == []


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (
            lambda plan: plan.update(handler="UNKNOWN"),
            ("HANDLER", "COMPLAINT to UNKNOWN", "COMPLAINT", "UNKNOWN"),
        ),
        (lambda plan: plan["actions"].append("c"), ("ACTION_ADDED", "c", "b, a", "b, a, c")),
        (lambda plan: plan["actions"].remove("a"), ("ACTION_REMOVED", "a", "b, a", "b")),
        (lambda plan: plan["actions"].sort(), ("REORDERED", "COMPLAINT", "b, a", "a, b")),
        (
            lambda plan: plan["steps"].reverse(),
            ("REORDERED", "in execution", "a, b, reply", "reply, b, a"),
        ),
        (
            lambda plan: plan["steps"][0].update(executor="email", required=False),
            ("STEPS", "a", "task 1 (required)", "email 1 (best effort)"),
        ),
        (
            lambda plan: plan["steps"][0].update(version=2, sub_step="s", suggested=True),
            ("STEPS", "a", "task 1 (required)", "task 2 (required, s, suggested)"),
        ),
        (
            lambda plan: plan["steps"][1]["params"].update(title="new"),
            ("PARAMETERS", "b: title", "old", "new"),
        ),
        (
            lambda plan: plan["steps"][1]["params"].update(due=None),
            ("PARAMETERS", "b: due", "none", "none"),
        ),
        (
            lambda plan: plan.update(reply="Write to +49 170 1234567, or a.b@example.org"),
            (
                "REPLY",
                "COMPLAINT",
                "We call you at ***67.",
                "Write to ***67, or ***@***",
            ),
        ),
        (
            lambda plan: plan.update(apology={"text": "Sorry"}),
            ("APOLOGY", "COMPLAINT", "none", '{"text": "Sorry"}'),
        ),
        (
            lambda plan: plan["steps"][2]["params"].update(title="new"),
            ("PARAMETERS", "reply: title", "old", "new"),
        ),
        (lambda plan: plan.update(escalate=True), ("ESCALATION", "COMPLAINT", "false", "true")),
        (lambda plan: plan["metadata"].clear(), ("METADATA", "topic", "old", "none")),
    ],
)
def test_each_difference_is_told(
    change: Callable[[Json], Any], wanted: tuple[str, str, str, str]
) -> None:
    assert changed(change) == [wanted]


def test_long_values_are_cut_to_where_they_begin_to_differ() -> None:
    def change(plan: Json) -> None:
        plan["steps"][0]["params"]["title"] = "x" * 1000 + "NEW" + "y" * 1000

    before, after = stored(), deepcopy(stored())
    before["steps"][0]["params"]["title"] = "x" * 1000 + "OLD" + "y" * 1000
    change(after)
    (found,) = plan_changes(before, after)
    assert found.before == "…" + "x" * 30 + "OLD" + "y" * 87 + "…"
    assert found.after == "…" + "x" * 30 + "NEW" + "y" * 87 + "…"


def test_numbers_are_equal_however_the_database_writes_them() -> None:
    sent = {"a": 1e22, "b": 1e23, "c": 10**29, "d": 5, "e": 100.0}
    came_back = (
        '{"a": 10000000000000000000000, "b": 100000000000000000000000, '
        '"c": 100000000000000000000000000000, "d": 5, "e": 100.0}'
    )
    assert parse(came_back) == normal(sent)
    assert parse('{"a": 123456789012345}') != parse('{"a": 123456789012346}')


# Whole records


def recorded(value: Record, **changes: Any) -> Recorded:
    """What a worker recorded that planned with other settings."""
    found = Recording(planner(**changes), examples=0)
    return Recorded(plan=found.plan_of(value), tenant_id="t-1")


class Recording(Rehearsal):
    def plan_of(self, value: Record) -> Json:
        plan = self._outcome(decoded(value), Recorded(tenant_id="t-1"), Capabilities())
        assert isinstance(plan, dict)
        return plan


def order(processing_id: str = "p-1", **more: Any) -> Record:
    intent = {"intent": "ORDER_REQUEST", "confidence": 0.85}
    value = json.dumps(result(processing_id=processing_id, intent=intent, **more))
    return record(value.encode())


def test_what_is_planned_alike_is_no_change() -> None:
    found = rehearsal()
    value = order(entities={"product": "Mug", "quantity": 1e23})
    add(found, value, recorded(value))
    assert (found.read, found.compared, found.changed, found.groups) == (1, 1, 0, [])


def test_messages_that_changed_alike_are_one_group_with_few_examples() -> None:
    found = rehearsal(examples=2, high=0.9)
    for number in range(5):
        value = order(f"p-{number}")
        add(found, value, recorded(value))
    assert (found.compared, found.changed) == (5, 5)
    groups = {(group.kind, group.subject): group for group in found.groups}
    clarify = groups[Kind.ACTION_ADDED, "request_clarification"]
    assert clarify.count == 5
    assert [example["message"] for example in clarify.examples] == ["p-0", "p-1"]
    assert groups[Kind.ESCALATION, "ORDER_REQUEST"].count == 5
    kinds = [group.kind for group in found.groups]
    assert kinds == sorted(kinds, key=list(Kind).index)


def test_errors_of_the_ai_are_compared_too() -> None:
    document = {
        "event_id": "e-1",
        "event_type": "ai.error",
        "payload": {"lead_id": "lead-1", "error_type": "timeout", "error_message": "slow"},
    }
    value = Record("ai-results", 0, 1, 0, b"lead-1", json.dumps(document).encode())
    was = recorded(value)
    found = rehearsal()
    add(found, value, was)
    assert (found.compared, found.changed) == (1, 0)
    assert was.plan is not None
    was.plan["steps"][0]["params"]["description"] = "other"
    add(found, value, was)
    assert [(g.kind, g.subject) for g in found.groups] == [
        (Kind.PARAMETERS, "log_ai_error: description")
    ]


def test_what_becomes_a_dead_letter_and_what_is_none_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = rehearsal()
    good, bad = order(), Record("ai-results", 2, 7, 0, b"lead-1", b"{no json")
    add(found, bad, Recorded(reason="invalid_payload"))
    assert (found.compared, found.changed) == (1, 0)
    add(found, good, Recorded(reason="handler_error"))
    add(found, bad, recorded(good))
    was = recorded(good)
    monkeypatch.setattr("streamapp.pipeline.planning.make_plan", lambda *_, **__: 1 / 0)
    add(found, good, was)
    assert [(g.kind, g.subject, g.count, g.examples) for g in found.groups] == [
        (
            Kind.DEAD_LETTERED,
            "handler_error",
            1,
            [example("p-1", "ORDER_REQUEST", "handler_error")],
        ),
        (
            Kind.DEAD_LETTERED,
            "invalid_payload",
            1,
            [example("ai-results:2:7", "ORDER_REQUEST", "invalid_payload")],
        ),
        (
            Kind.NOT_DEAD_LETTERED,
            "handler_error",
            1,
            [{"message": "p-1", "before": "handler_error", "after": "handler ORDER_REQUEST"}],
        ),
    ]


def example(message: str, handler: str, reason: str) -> Json:
    return {"message": message, "before": f"handler {handler}", "after": reason}


@pytest.mark.parametrize(
    ("known", "why"),
    [
        (None, Apart.NOTHING_RECORDED),
        (Recorded(duplicate=True), Apart.DUPLICATE),
        (Recorded(reason=Reason.UNKNOWN_TENANT.value), Apart.NOT_PLANNED),
        (Recorded(reason=Reason.PAYLOAD_MISMATCH.value), Apart.NOT_PLANNED),
        (Recorded(plan={"version": 0}), Apart.UNREADABLE),
    ],
)
def test_what_is_not_compared_is_counted_apart(known: Recorded | None, why: Apart) -> None:
    found = rehearsal()
    add(found, order(), known)
    assert (found.read, found.compared, found.changed) == (1, 0, 0)
    assert found.apart == {why: 1}
