"""Executors of steps in our own database: they only turn stored params into rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from streamapp.actions.base import OwnExecutor, StepContext
from streamapp.actions.texts import reply_text
from streamapp.actions.wording import TextFailed, fill_in, warn
from streamapp.saga.ids import row_id
from streamapp.saga.operations import (
    CancelTask,
    InsertActivity,
    InsertTask,
    Operation,
    RaisePriority,
    RestoreLeadStatus,
    SendMessage,
    SetLeadStatus,
)

CANCELLATION_REASON = "The message could not be worked off completely, so its work was undone."


def _id(kind: str, context: StepContext) -> str:
    step = context.step
    return row_id(kind, context.message.processing_id, context.run, step.action, step.sub_step)


def task_id(context: StepContext) -> str:
    """Id of the task that the step makes."""
    return _id("task", context)


def _subject(context: StepContext) -> dict[str, Any]:
    """What the metadata of every row tells of the message."""
    return {"intent": context.message.intent, "entities": context.message.entities}


def _described(task: Mapping[str, Any]) -> str:
    due = task["due_in"]
    within = "" if due is None else f", due in {due / 3600:g} h"
    return f"task {task['task_type']} for {task['assigned_to_id']}, {task['priority']}{within}"


def task_operations(params: Mapping[str, Any], context: StepContext) -> list[Operation]:
    """The rows of a task, as ``kinds`` describes it."""
    own_id = task_id(context)
    operations: list[Operation] = [
        InsertTask(
            task_id=own_id,
            task_type=params["task_type"],
            title=params["title"],
            description=params["description"],
            priority=params["priority"],
            assigned_to_type=params["assigned_to_type"],
            assigned_to_id=params["assigned_to_id"],
            due_in=params["due_in"],
            metadata=_subject(context) | params["metadata"],
        )
    ]
    activity = params.get("activity")
    if activity is not None:
        operations.append(
            InsertActivity(
                activity_id=_id("activity", context),
                activity_type=activity["activity_type"],
                description=activity["description"],
                channel=context.message.source,
                message_content=context.message.text or None,
                metadata=_subject(context) | {"task_id": own_id},
            )
        )
    return operations


class TaskExecutor(OwnExecutor):
    """A task, and an activity where params name one. Undone by cancelling the task; the
    activity stays, as history."""

    name = "task"

    def describe(self, context: StepContext) -> str:
        return _described(context.step.params)

    def operations(self, context: StepContext) -> Sequence[Operation]:
        return task_operations(context.step.params, context)

    def compensation(self, context: StepContext, output: Mapping[str, Any]) -> Sequence[Operation]:
        return (CancelTask(task_id(context), CANCELLATION_REASON),)


class ReviewExecutor(OwnExecutor):
    """A new status of the lead, with its task and activity. Undone by putting the status back,
    where the lead is known, and cancelling the task."""

    name = "review"

    def describe(self, context: StepContext) -> str:
        params = context.step.params
        return f"lead to {params['status']}; {_described(params['task'])}"

    def operations(self, context: StepContext) -> Sequence[Operation]:
        params = context.step.params
        return (SetLeadStatus(params["status"]), *task_operations(params["task"], context))

    def compensation(self, context: StepContext, output: Mapping[str, Any]) -> Sequence[Operation]:
        cancel = CancelTask(task_id(context), CANCELLATION_REASON)
        previous = output.get("previous_status")
        if previous is None:
            return (cancel,)
        return (RestoreLeadStatus(context.step.params["status"], previous), cancel)


class PriorityExecutor(OwnExecutor):
    """Raises the saga's tasks. Nothing to undo: the tasks themselves are cancelled."""

    name = "priority"

    def describe(self, context: StepContext) -> str:
        return f"all tasks to {context.step.params['priority']}"

    def operations(self, context: StepContext) -> Sequence[Operation]:
        params = context.step.params
        return (RaisePriority(params["priority"], params["due_within"]),)


class ActivityExecutor(OwnExecutor):
    """A row of the lead's history; history is not undone. Where params say ``about_message``, it
    tells of intent and entities as those of tasks do."""

    name = "activity"

    def describe(self, context: StepContext) -> str:
        return f"lead's history: {context.step.params['activity_type']}"

    def operations(self, context: StepContext) -> Sequence[Operation]:
        params = context.step.params
        about = _subject(context) if params.get("about_message") else {}
        return (
            InsertActivity(
                activity_id=_id("activity", context),
                activity_type=params["activity_type"],
                description=params["description"],
                channel=context.message.source,
                message_content=context.message.text or None,
                metadata=about | params["metadata"],
            ),
        )


class ReplyExecutor(OwnExecutor):
    """The reply to the customer, published after the commit. The last step, so never undone.

    Its text is the params', then those of the content steps (``contents``: ordinals) that are
    done. In version 2 the params' is a template; after it comes the ``promise``, if there is one,
    and the output keeps what was said.
    """

    name = "reply"
    versions: ClassVar[frozenset[int]] = frozenset({1, 2})

    def describe(self, context: StepContext) -> str:
        to = context.step.params["to"]
        return f"message to {to}" if to else "message to the customer, whose number is not known"

    def __init__(self, failed: TextFailed | None = None) -> None:
        self._failed = failed

    def operations(self, context: StepContext) -> Sequence[Operation]:
        text, _ = self._text(context)
        to = context.step.params["to"]
        return (SendMessage(_id("message", context), to, text),) if text else ()

    def output(self, context: StepContext) -> dict[str, Any] | None:
        params = context.step.params
        if "template" not in params:
            return None
        text, error = self._text(context)
        if error is not None:
            warn(params["topic"], context, error)
            if self._failed is not None:
                self._failed(params["topic"])
        return {"text": text}

    def _text(self, context: StepContext) -> tuple[str, str | None]:
        params = context.step.params
        contents = [
            context.outputs[ordinal]["text"]
            for ordinal in params.get("contents", ())
            if ordinal in context.outputs
        ]
        opening, error = fill_in(params, context)
        if params.get("promise"):
            opening = f"{opening} {params['promise']}"
        return reply_text(opening, contents), error
