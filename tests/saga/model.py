"""The small model: what a message is, how its saga ends if nobody disturbs it, with which calls.

It knows nothing of journals. What deaths, freezes and lost commits add to it are invariants, which
``test_model`` checks: they hold however often a run is cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from streamapp.actions.base import Phase, PlanningContext, StepDraft
from streamapp.actions.registry import ActionRegistry
from streamapp.intents.base import Decision, Thresholds
from streamapp.saga.model import Message
from streamapp.services.errors import Busy, Rejected
from tests.pipeline.pipelines import Orders, Plant
from tests.support.sagas import LostAnswer, LostRequest, Unreachable

MAX_ATTEMPTS = 4
MAX_WAIT = 2.0  # seconds, so as many times a busy key is asked again
MAX_MESSAGES = 4  # of one example
MAX_STEPS = 5

Outcome = Any
Script = dict[str, list[Outcome]]  # by action; a minus before it: its compensation


@dataclass(frozen=True)
class Kind:
    """An action of one step."""

    executor: str
    required: bool = True
    params: dict[str, Any] = field(default_factory=dict)

    def expand(
        self, action: str, params: Mapping[str, Any], context: PlanningContext
    ) -> Sequence[StepDraft]:
        given = dict(self.params)
        if "lead_status" in given:
            given["lead_status"] = action  # a status that no other step sets
        return (StepDraft(self.executor, "", given, self.required),)


KINDS = {
    "own": Kind("own"),
    "own, best effort": Kind("own", required=False),
    "own, a reply": Kind("own", params={"reply": 1}),
    "own, the lead": Kind("own", params={"lead_status": ""}),
    "own, a defect": Kind("own", params={"raises": True}),
    "own, a defect, best effort": Kind("own", required=False, params={"raises": True}),
    "external": Kind("service"),
    "external, best effort": Kind("service", required=False),
    "mail": Kind("mail", required=False),
}
# Mostly plain steps, or no plan would come far.
kinds = st.sampled_from([*KINDS, "own", "external", "external", "external"])
plans = st.lists(kinds, min_size=1, max_size=MAX_STEPS)
outcomes = st.one_of(
    st.builds(dict),
    st.builds(Rejected, st.just("no")),
    st.builds(Unreachable),
    st.builds(LostRequest),
    st.builds(LostAnswer),
    st.builds(KeyError, st.just("a defect")),
    st.builds(Busy, st.just("being worked on")),
)
scripts = st.lists(
    st.lists(outcomes, max_size=MAX_ATTEMPTS + 1), min_size=2 * MAX_STEPS, max_size=2 * MAX_STEPS
)


@dataclass(frozen=True)
class Step:
    """A step of the model; its action is no other message's."""

    action: str
    kind: Kind

    @property
    def own(self) -> bool:
        return self.kind.executor == "own"


@dataclass(eq=False)
class Sent:
    """A message in the log, and what is known of its saga."""

    name: str
    lead: str
    offset: int
    steps: tuple[Step, ...]
    script: Script
    disturbed: bool = False  # a worker stood still or died in it, so it may be called more often
    resumed: bool = False
    status: str | None = None  # its end


def sent(slot: int, name: str, lead: str, offset: int, plan: list[str], given: Any) -> Sent:
    """The message number ``slot`` of an example."""
    steps = tuple(Step(action_of(slot, n, kind), KINDS[kind]) for n, kind in enumerate(plan))
    script: Script = {}
    for step, forward, backward in zip(steps, given[:MAX_STEPS], given[MAX_STEPS:], strict=False):
        script[step.action], script["-" + step.action] = forward, backward
    return Sent(name, lead, offset, steps, script)


def action_of(slot: int, number: int, kind: str) -> str:
    return f"{slot}.{number} {kind}"


ACTIONS = {
    action_of(slot, number, name): kind
    for slot in range(MAX_MESSAGES)
    for number in range(MAX_STEPS)
    for name, kind in KINDS.items()
}


class Planned(Orders):
    """Plans what the model's messages say."""

    emits = frozenset(ACTIONS)

    def __init__(self) -> None:
        super().__init__()
        self.plans: dict[str, tuple[str, ...]] = {}

    def decide(self, message: Message, thresholds: Thresholds) -> Decision:
        return Decision(self.plans[message.processing_id], escalate=False)


@dataclass
class ModelPlant(Plant):
    """A pipeline whose actions are the model's."""

    handler: Planned = field(default_factory=Planned)

    def _registry(self) -> ActionRegistry:
        registry = super()._registry()
        for action, kind in ACTIONS.items():
            registry.register_action(action, kind, Phase.EFFECT)
        return registry


def attempt(given: list[Outcome]) -> tuple[bool, int, bool]:
    """Whether an external step is done in the end, with how many calls, and if it is in doubt."""
    left, attempts, asked, calls, in_doubt = list(given), 0, 0, 0, False
    while True:
        outcome = left.pop(0) if left else {}
        calls += 1
        if isinstance(outcome, dict):
            return True, calls, in_doubt
        if isinstance(outcome, Rejected):
            return False, calls, in_doubt
        if isinstance(outcome, Busy):
            in_doubt = True
            if asked >= MAX_WAIT:
                return False, calls, in_doubt
            asked += 1
            continue
        in_doubt |= not isinstance(outcome, Unreachable)
        attempts += 1
        if attempts == MAX_ATTEMPTS:
            return False, calls, in_doubt


def undisturbed(message: Sent) -> tuple[str, list[str]]:
    """How a saga ends that nobody disturbs, and the calls that it makes."""
    calls: list[str] = []
    to_undo: list[Step] = []
    for step in message.steps:
        in_doubt = False
        if step.own:
            done = not step.kind.params.get("raises")
        else:
            done, count, in_doubt = attempt(message.script[step.action])
            calls += [step.action] * count
        if done or in_doubt:
            to_undo.append(step)
        if not done and step.kind.required:
            break
    else:
        return "COMPLETED", calls
    for step in reversed(to_undo):
        if step.kind.executor == "service":
            done, count, _ = attempt(message.script["-" + step.action])
            calls += ["-" + step.action] * count
            if not done:
                return "STUCK", calls
    return "COMPENSATED", calls
