"""Misuse is refused at registration, with a sentence."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from streamapp.actions.base import (
    ActionKind,
    CallContext,
    ExternalExecutor,
    OwnExecutor,
    Phase,
    PlanningContext,
    StepContext,
    StepDraft,
)
from streamapp.actions.registry import ActionRegistry, Misuse, UnknownAction
from streamapp.saga.operations import Operation
from tests.actions import building


class Own(OwnExecutor):
    name = "own"

    def operations(self, context: StepContext) -> Sequence[Operation]:
        return ()


class Newer(Own):
    versions = frozenset({2})


class Nameless(OwnExecutor):
    name = ""

    def operations(self, context: StepContext) -> Sequence[Operation]:
        return ()


class NoVersion(Own):
    versions = frozenset()


class Outside(ExternalExecutor):
    name = "outside"
    service = "somewhere"
    key_honoured = True

    def request(self, context: StepContext) -> bytes:
        return b""

    async def call(self, request: bytes, context: CallContext) -> dict[str, Any]:
        return {}


class Undoable(Outside):
    name = "undoable"
    compensable = True

    def compensation_request(
        self, context: StepContext, forward_key: str, output: Mapping[str, Any] | None
    ) -> bytes:
        return b""

    async def compensate(self, request: bytes, context: CallContext) -> dict[str, Any]:
        return {}


class OnlySaysSo(Outside):
    compensable = True


class HalfUndoable(OnlySaysSo):
    async def compensate(self, request: bytes, context: CallContext) -> dict[str, Any]:
        return {}


class Homeless(Outside):
    service = ""


class Undeclared(ExternalExecutor):
    name = "undeclared"
    service = "somewhere"

    def request(self, context: StepContext) -> bytes:
        return b""

    async def call(self, request: bytes, context: CallContext) -> dict[str, Any]:
        return {}


class Blocking(Outside):
    name = "blocking"

    def call(self, request: bytes, context: CallContext) -> dict[str, Any]:  # type: ignore[override]
        return {}


class Keyless(Undoable):
    name = "keyless"
    key_honoured = False


class Failing:
    """Cannot be planned."""

    def expand(
        self, action: str, params: Mapping[str, Any], context: PlanningContext
    ) -> Sequence[StepDraft]:
        raise KeyError("colour")


class Kind:
    """Gives the drafts it was made with; those of services only where there are any."""

    def __init__(self, *drafts: StepDraft, service: StepDraft | None = None) -> None:
        self.drafts = drafts
        self.service = service

    def expand(
        self, action: str, params: Mapping[str, Any], context: PlanningContext
    ) -> Sequence[StepDraft]:
        if self.service is not None and context.capabilities.services:
            return (*self.drafts, self.service)
        return self.drafts


OWN = StepDraft("own", "", {}, required=True)


@pytest.fixture
def empty() -> ActionRegistry:
    registry = ActionRegistry()
    registry.register_executor(Own())
    registry.register_executor(Outside())
    registry.register_executor(Undoable())
    registry.register_executor(Keyless())
    return registry


@pytest.mark.parametrize(
    ("executor", "sentence"),
    [
        (Own(), "registered twice"),
        (Nameless(), "has no name"),
        (NoVersion(), "names no version"),
        (Homeless(), "names no service"),
        (OnlySaysSo(), "lacks compensation_request or compensate"),
        (HalfUndoable(), "lacks compensation_request or compensate"),
        (Undeclared(), "does not say whether its service honours the idempotency key"),
        (Blocking(), "call of the external executor 'blocking' must be async"),
    ],
)
def test_executors_that_cannot_work(
    empty: ActionRegistry, executor: OwnExecutor | ExternalExecutor, sentence: str
) -> None:
    with pytest.raises(Misuse, match=sentence):
        empty.register_executor(executor)


@pytest.mark.parametrize(
    ("name", "kind", "sentence"),
    [
        ("", Kind(OWN), "no name"),
        (" a", Kind(OWN), "no name"),
        ("reply", Kind(OWN), "kept for the reply"),
        ("a", Kind(StepDraft("missing", "", {}, True)), "'missing' in version 1"),
        ("a", Kind(StepDraft("own", "", {}, True, version=9)), "'own' in version 9"),
        ("a", Kind(OWN, OWN), "two sub-steps"),
        ("a", Kind(StepDraft("outside", "", {}, True)), "cannot be compensated"),
        ("a", Kind(StepDraft("keyless", "", {}, True)), "repeated, it acts twice"),
        ("a", Failing(), r"cannot be planned: KeyError\('colour'\)"),
        ("a", Kind(OWN, service=StepDraft("outside", "x", {}, True)), "cannot be compensated"),
    ],
)
def test_actions_that_cannot_work(
    empty: ActionRegistry, name: str, kind: ActionKind, sentence: str
) -> None:
    with pytest.raises(Misuse, match=sentence):
        empty.register_action(name, kind, Phase.EFFECT)
    assert empty.names == frozenset()


@pytest.mark.parametrize(
    "draft",
    [
        StepDraft("outside", "", {}, False),
        StepDraft("undoable", "", {}, True),
        StepDraft("keyless", "", {}, False),
        OWN,
    ],
)
def test_actions_that_can(empty: ActionRegistry, draft: StepDraft) -> None:
    empty.register_action("a", Kind(draft), Phase.EFFECT)
    assert empty.names == {"a"}
    assert empty.phase("a") is Phase.EFFECT


def test_an_action_without_a_phase_is_refused(empty: ActionRegistry) -> None:
    with pytest.raises(Misuse, match="has no phase"):
        empty.register_action("a", Kind(OWN), "effect")  # type: ignore[arg-type]


def test_an_action_is_registered_once(empty: ActionRegistry) -> None:
    empty.register_action("a", Kind(OWN), Phase.EFFECT)
    with pytest.raises(Misuse, match="registered twice"):
        empty.register_action("a", Kind(OWN), Phase.EFFECT)


def test_steps_are_checked_again_when_a_plan_is_made(empty: ActionRegistry) -> None:
    kind = Kind(OWN)
    empty.register_action("a", kind, Phase.EFFECT)
    kind.drafts = (StepDraft("outside", "", {}, required=True),)
    with pytest.raises(Misuse, match="cannot be compensated"):
        building.plan(empty, ["a"])


def test_executors_are_found_by_name_and_version(empty: ActionRegistry) -> None:
    newer = Newer()
    empty.register_executor(newer)
    assert isinstance(empty.executor("own", 1), Own)
    assert empty.executor("own", 2) is newer
    assert empty.executor("own", 3) is None
    assert empty.executor("other", 1) is None


def test_start_up_stops_for_an_action_without_a_row(empty: ActionRegistry) -> None:
    empty.register_action("a", Kind(OWN), Phase.EFFECT)
    empty.check(frozenset({"a"}))
    with pytest.raises(UnknownAction, match="not registered: b, c"):
        empty.check(frozenset({"c", "a", "b"}))
