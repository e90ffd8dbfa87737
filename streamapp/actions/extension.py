"""Base classes for actions from other packages: one class, one action.

A package names its actions under the entry-point group ``streamapp.actions``, and a worker that
finds it installed has them (``streamapp.extensions``). Instances are made without arguments, also
by commands that only plan, so making one must have no effect: connect when you are first called.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from streamapp.actions.base import (
    Executor,
    ExternalExecutor,
    OwnExecutor,
    Phase,
    PlanningContext,
    StepContext,
    StepDraft,
)
from streamapp.actions.kinds import HOUR, TEAM, HumanTask
from streamapp.actions.registry import ActionRegistry
from streamapp.saga.operations import Operation, Priority


class Action(ABC):
    """An action that is planned by code of its own.

    Its steps may name executors of its own (``executors``), and those that come with streamapp
    (``task_for``).
    """

    name: ClassVar[str]
    phase: ClassVar[Phase]

    @abstractmethod
    def steps(self, context: PlanningContext) -> Sequence[StepDraft]:
        """The action's steps. Pure: same context, same steps."""

    def executors(self) -> Sequence[Executor]:
        """The executors that only this action brings."""
        return ()

    async def close(self) -> None:  # noqa: B027  # most have nothing to close
        """The worker ends: close connections."""


class _OneStep(Action):
    """An action with one step, which it carries out itself."""

    required: ClassVar[bool] = True  # else best effort: its failure stops nothing
    versions: ClassVar[frozenset[int]]

    def params(self, context: PlanningContext) -> dict[str, Any]:
        """What is stored with the step for whoever carries it out; nothing by default. Pure."""
        return {}

    def steps(self, context: PlanningContext) -> Sequence[StepDraft]:
        version = max(self.versions)
        return (StepDraft(self.name, "", self.params(context), self.required, version),)

    def executors(self) -> Sequence[Executor]:
        assert isinstance(self, OwnExecutor | ExternalExecutor)
        return (self,)


class OwnAction(_OneStep, OwnExecutor):
    """An action in our own database: rows, written together with their step's DONE."""

    phase = Phase.EFFECT

    @abstractmethod
    def compensation(self, context: StepContext, output: Mapping[str, Any]) -> Sequence[Operation]:
        """The rows that undo it; ``()`` where nothing has to be undone, as with history."""


class ExternalAction(_OneStep, ExternalExecutor):
    """An action outside: one call to one service, under an idempotency key."""

    phase = Phase.EFFECT


class _Planned:
    """The catalogue's view of an action (``ActionKind``)."""

    def __init__(self, action: Action) -> None:
        self._action = action

    def expand(
        self, action: str, params: Mapping[str, Any], context: PlanningContext
    ) -> Sequence[StepDraft]:
        return self._action.steps(context)


def register(registry: ActionRegistry, action: Action) -> None:
    """Add an action and its executors. Raises ``Misuse``."""
    for executor in action.executors():
        registry.register_executor(executor)
    registry.register_action(
        getattr(action, "name", ""),
        _Planned(action),
        getattr(action, "phase", None),  # type: ignore[arg-type]  # refused there, with a sentence
    )


def task_for(
    team: str,
    instruction: str,
    action: str,
    context: PlanningContext,
    *,
    priority: Priority = "normal",
    due_in: float = 24 * HOUR,
    required: bool = True,
) -> StepDraft:
    """A step that has a person of this team do it: what an action comes to where its service is
    not configured. ``due_in`` counts seconds; cancelled when the saga is compensated."""
    params = {
        "assignee": (TEAM, team),
        "priority": priority,
        "due_in": due_in,
        "instruction": instruction,
        "required": required,
    }
    (draft,) = HumanTask().expand(action, params, context)
    return draft
