"""Rows of the own-database steps, and the rows that undo them."""

from streamapp.actions.executors import CANCELLATION_REASON
from streamapp.actions.planner import plan_for_error
from streamapp.actions.registry import ActionRegistry
from streamapp.saga.ids import row_id
from streamapp.saga.operations import (
    CancelTask,
    InsertActivity,
    InsertTask,
    RestoreLeadStatus,
    SendMessage,
    SetLeadStatus,
)
from tests.actions import building


def test_ids_come_from_message_run_action_and_sub_step(registry: ActionRegistry) -> None:
    (step,) = building.plan(registry, ["create_order"], run=3).steps
    task, activity = building.operations(registry, step, run=3)
    assert isinstance(task, InsertTask)
    assert isinstance(activity, InsertActivity)
    assert task.task_id == row_id("task", "p-1", 3, "create_order", "task")
    assert activity.activity_id == row_id("activity", "p-1", 3, "create_order", "task")
    assert activity.metadata["task_id"] == task.task_id


def test_called_again_it_gives_the_same_rows(registry: ActionRegistry) -> None:
    made = building.plan(registry, sorted(registry.names), reply="Hello")
    for step in made.steps:
        assert building.operations(registry, step) == building.operations(registry, step)


def test_every_task_is_cancelled_under_its_own_id(registry: ActionRegistry) -> None:
    made = building.plan(registry, sorted(registry.names))
    for step in made.steps:
        inserted = [
            operation.task_id
            for operation in building.operations(registry, step)
            if isinstance(operation, InsertTask)
        ]
        undone = building.compensation(registry, step)
        assert undone == [CancelTask(task_id, CANCELLATION_REASON) for task_id in inserted]


def test_review_sets_the_status_and_puts_it_back(registry: ActionRegistry) -> None:
    (step,) = building.plan(registry, ["flag_for_review"]).steps
    rows = building.operations(registry, step)
    assert rows[0] == SetLeadStatus("needs_review")
    task = rows[1]
    assert isinstance(task, InsertTask)
    output = {"previous_status": "new", "status": "needs_review"}
    assert building.compensation(registry, step, output) == [
        RestoreLeadStatus(expected="needs_review", previous="new"),
        CancelTask(task.task_id, CANCELLATION_REASON),
    ]


def test_nothing_to_put_back_for_a_lead_that_is_not_known(registry: ActionRegistry) -> None:
    (step,) = building.plan(registry, ["flag_for_review"]).steps
    for output in ({}, {"previous_status": None, "status": "needs_review"}):
        assert [type(row) for row in building.compensation(registry, step, output)] == [CancelTask]


def test_the_reply_goes_to_the_customer_and_is_not_undone(registry: ActionRegistry) -> None:
    (step,) = building.plan(registry, [], reply="Hello", run=2).steps
    assert building.operations(registry, step, run=2) == [
        SendMessage(row_id("message", "p-1", 2, "reply"), "491512345678", "Hello")
    ]
    assert building.compensation(registry, step) == []


def test_an_error_of_the_ai_is_a_row_of_the_history_and_no_more(registry: ActionRegistry) -> None:
    made = plan_for_error("Timeout", "took too long")
    (step,) = made.steps
    about = building.message(intent="", text="", entities={})
    (row,) = building.operations(registry, step, about=about)
    assert row == InsertActivity(
        activity_id=row_id("activity", "p-1", 0, "log_ai_error"),
        activity_type="ai_error",
        description="Timeout: took too long",
        channel="web",
        message_content=None,
        metadata={"error_type": "Timeout", "error_message": "took too long"},
    )
    assert (made.handler, made.reply, made.escalate) == ("AI_ERROR", None, False)
    assert building.compensation(registry, step) == []
