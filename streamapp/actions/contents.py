"""Contents: texts of the business for a topic, which the reply ends with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from streamapp.actions.base import OwnExecutor, PlanningContext, StepContext, StepDraft
from streamapp.actions.kinds import HumanTask
from streamapp.saga.operations import Operation

CONTENT = "content"  # name of the executor


class Content:
    """The text of the row's ``topic``, appended to the reply; without one, a task for support.

    Best effort. Row: ``topic``, and those of ``HumanTask``.
    """

    def expand(
        self, action: str, params: Mapping[str, Any], context: PlanningContext
    ) -> Sequence[StepDraft]:
        text = context.capabilities.texts.get(params["topic"])
        if not text:
            return HumanTask().expand(action, params, context)
        return [StepDraft(CONTENT, "", {"topic": params["topic"], "text": text}, required=False)]


class ContentExecutor(OwnExecutor):
    """Makes the text that the reply takes from its output."""

    name = CONTENT

    def operations(self, context: StepContext) -> Sequence[Operation]:
        return ()

    def output(self, context: StepContext) -> dict[str, Any]:
        return {"text": context.step.params["text"]}
