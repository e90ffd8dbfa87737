"""Which actions and executors there are. Misuse is refused when they are registered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import iscoroutinefunction
from types import MappingProxyType
from typing import Any

from streamapp.actions.base import (
    ActionKind,
    Capabilities,
    Executor,
    ExternalExecutor,
    Phase,
    PlanningContext,
    StepDraft,
)
from streamapp.saga.model import Message

REPLY = "reply"  # the planner's own last step; no action may bear its name


class ActionError(Exception):
    """Root of what is wrong with actions and executors, as a sentence."""


class Misuse(ActionError):
    """A registration that cannot work."""


class UnknownAction(ActionError):
    """An action without a row in the catalogue."""


@dataclass(frozen=True, slots=True)
class _Action:
    kind: ActionKind
    params: Mapping[str, Any]
    phase: Phase


class ActionRegistry:
    """Actions by name, executors by name and version.

    Executors come first: each action is tried out when it is registered, with all services
    present and with none, so that one that names a missing executor is refused at once.
    """

    def __init__(self) -> None:
        self._actions: dict[str, _Action] = {}
        self._executors: dict[tuple[str, int], Executor] = {}

    @property
    def names(self) -> frozenset[str]:
        """Every registered action."""
        return frozenset(self._actions)

    @property
    def services(self) -> frozenset[str]:
        """Every service that an executor calls."""
        return frozenset(
            executor.service
            for executor in self._executors.values()
            if isinstance(executor, ExternalExecutor)
        )

    def register_executor(self, executor: Executor) -> None:
        """Add an executor under its name, for each of its versions. Raises ``Misuse``."""
        name = getattr(executor, "name", "")
        if not name:
            raise Misuse(f"The executor {type(executor).__name__} has no name.")
        if not executor.versions:
            raise Misuse(f"The executor {name!r} names no version.")
        if isinstance(executor, ExternalExecutor):
            _check_external(executor)
        for version in executor.versions:
            if (name, version) in self._executors:
                raise Misuse(f"The executor {name!r} is registered twice for version {version}.")
        for version in executor.versions:
            self._executors[name, version] = executor

    def register_action(
        self,
        name: str,
        kind: ActionKind,
        phase: Phase,
        params: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Add an action. Raises ``Misuse``, also for what its steps would run into."""
        if not name or name != name.strip():
            raise Misuse(f"{name!r} is no name for an action.")
        if name == REPLY:
            raise Misuse(f"The name {REPLY!r} is kept for the reply to the customer.")
        if name in self._actions:
            raise Misuse(f"The action {name!r} is registered twice.")
        if not isinstance(phase, Phase):
            raise Misuse(f"The action {name!r} has no phase: {phase!r} is none.")
        for present in {frozenset[str](), self.services}:
            trial = _trial_context(name, present)
            try:
                drafts = kind.expand(name, params, trial)
            except Exception as error:
                raise Misuse(f"The action {name!r} cannot be planned: {error!r}.") from error
            _check_drafts(name, drafts, self._executors)
        self._actions[name] = _Action(kind, params, phase)

    def trial(self, name: str, services: frozenset[str] = frozenset()) -> Sequence[StepDraft]:
        """The steps that an action has for a message that names a time for a call, where these
        services are configured, with a channel for each team and a text for each topic where there
        is any service. Raises ``UnknownAction``."""
        row = self._action(name)
        return row.kind.expand(name, row.params, _trial_context(name, services))

    def executor(self, name: str, version: int) -> Executor | None:
        """The code that runs a stored step; None where this program does not have it."""
        return self._executors.get((name, version))

    def phase(self, action: str) -> Phase:
        """When the action's turn comes. Raises ``UnknownAction``."""
        return self._action(action).phase

    def expand(self, action: str, context: PlanningContext) -> Sequence[StepDraft]:
        """The action's steps. Raises ``UnknownAction``, or ``Misuse`` for steps that no
        executor can run."""
        row = self._action(action)
        drafts = row.kind.expand(action, row.params, context)
        _check_drafts(action, drafts, self._executors)
        return drafts

    def check(self, emitted: Iterable[str]) -> None:
        """Raises ``UnknownAction`` when a handler can emit an action that has no row."""
        missing = sorted(set(emitted) - self.names)
        if missing:
            raise UnknownAction(
                f"Handlers can emit actions that are not registered: {', '.join(missing)}."
            )

    def _action(self, name: str) -> _Action:
        action = self._actions.get(name)
        if action is None:
            raise UnknownAction(f"The action {name!r} is not registered.")
        return action


def _check_external(executor: ExternalExecutor) -> None:
    kind = type(executor)
    if not getattr(executor, "service", ""):
        raise Misuse(f"The external executor {executor.name!r} names no service.")
    if not isinstance(getattr(executor, "key_honoured", None), bool):
        raise Misuse(
            f"The external executor {executor.name!r} does not say whether its service honours "
            "the idempotency key (key_honoured)."
        )
    for method in ("call", "compensate"):
        if not iscoroutinefunction(getattr(executor, method)):
            raise Misuse(f"{method} of the external executor {executor.name!r} must be async.")
    overrides = {
        name
        for name in ("compensation_request", "compensate")
        if getattr(kind, name) is not getattr(ExternalExecutor, name)
    }
    if executor.compensable and len(overrides) < 2:
        raise Misuse(
            f"The external executor {executor.name!r} calls itself compensable, but lacks "
            "compensation_request or compensate."
        )


def _check_drafts(
    action: str, drafts: Sequence[StepDraft], executors: Mapping[tuple[str, int], Executor]
) -> None:
    if len({draft.sub_step for draft in drafts}) < len(drafts):
        raise Misuse(f"The action {action!r} has two sub-steps of the same name.")
    for draft in drafts:
        executor = executors.get((draft.executor, draft.version))
        if executor is None:
            raise Misuse(
                f"The action {action!r} needs the executor {draft.executor!r} in version "
                f"{draft.version}, which is not registered."
            )
        if draft.required and isinstance(executor, ExternalExecutor) and not executor.compensable:
            raise Misuse(
                f"The action {action!r} requires the external executor {draft.executor!r}, "
                "which cannot be compensated."
            )
        if draft.required and isinstance(executor, ExternalExecutor) and not executor.key_honoured:
            raise Misuse(
                f"The action {action!r} requires the external executor {draft.executor!r}, "
                "whose service does not honour the idempotency key: repeated, it acts twice."
            )


class _Everything(dict[str, str]):
    """Every team has its channels, every topic its text: the trial must reach their sub-steps."""

    def get(self, key: str, default: Any = None) -> Any:
        return f"{key}@example.invalid"

    def __contains__(self, key: object) -> bool:
        return True


def _trial_context(action: str, services: frozenset[str]) -> PlanningContext:
    entities = {"preferred_date": "2026-01-05", "preferred_time": "10:00"}
    message = Message("trial", "trial", "trial", "trial", "UNKNOWN", 0.0, entities, "")
    everything = _Everything() if services else {}
    return PlanningContext(
        message=message,
        run=0,
        actions=(action,),
        metadata={},
        confidence_high=1.0,
        capabilities=Capabilities(services, everything, everything, everything),
    )
