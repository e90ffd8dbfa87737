"""Contents: texts of the business for a topic, which the reply ends with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from streamapp.actions.base import OwnExecutor, PlanningContext, StepContext, StepDraft
from streamapp.actions.executors import CANCELLATION_REASON, task_id, task_operations
from streamapp.actions.kinds import HumanTask
from streamapp.actions.topics import promise_of
from streamapp.actions.wording import TextFailed, fill_in, filled_in_later, own_text, warn
from streamapp.saga.operations import CancelTask, Operation

CONTENT = "content"  # name of the executor
PLAIN, TEMPLATE = 1, 2  # versions of a step


class Content:
    """The text of the row's ``topic``, appended to the reply; without one, a task for support.

    A template that fails gives way to the plain text that there is besides it, else to the promise
    to send it, together with that task. Best effort. Row: ``topic``, and those of ``HumanTask``.
    """

    def expand(
        self, action: str, params: Mapping[str, Any], context: PlanningContext
    ) -> Sequence[StepDraft]:
        topic, capabilities = params["topic"], context.capabilities
        plain = capabilities.texts.get(topic)
        own = own_text(topic, context.message, capabilities)
        if not own and not plain:
            return HumanTask().expand(action, params, context)
        told: dict[str, Any] = {"topic": topic, "text": plain}
        if own:
            told |= filled_in_later(own, capabilities)
        if "template" not in told:
            return [StepDraft(CONTENT, "", told, required=False)]
        if not plain:
            (task,) = HumanTask().expand(action, params, context)
            told |= {"text": promise_of(topic), "task": task.params}
        return [StepDraft(CONTENT, "", told, required=False, version=TEMPLATE)]


class ContentExecutor(OwnExecutor):
    """Makes the text that the reply takes from its output; where that fails, perhaps the task of
    somebody to send it. Undone by cancelling that task."""

    name = CONTENT
    versions: ClassVar[frozenset[int]] = frozenset({PLAIN, TEMPLATE})

    def __init__(self, failed: TextFailed | None = None) -> None:
        self._failed = failed

    def describe(self, context: StepContext) -> str:
        kind = "the template" if "template" in context.step.params else "the text"
        return f"{kind} of {context.step.params['topic']}, for the reply"

    def operations(self, context: StepContext) -> Sequence[Operation]:
        params = context.step.params
        if "task" not in params or fill_in(params, context)[1] is None:
            return ()
        return task_operations(params["task"], context)

    def output(self, context: StepContext) -> dict[str, Any]:
        params = context.step.params
        text, error = fill_in(params, context)
        if error is None:
            return {"text": text}
        warn(params["topic"], context, error)
        if self._failed is not None:
            self._failed(params["topic"])
        return {"text": text, "failed": True}

    def compensation(self, context: StepContext, output: Mapping[str, Any]) -> Sequence[Operation]:
        if "task" not in context.step.params or not output.get("failed"):
            return ()
        return (CancelTask(task_id(context), CANCELLATION_REASON),)
