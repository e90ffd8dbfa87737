"""Messages, plans and the rows that come out of them, for the tests of actions."""

from collections.abc import Mapping, Sequence
from typing import Any

from streamapp.actions.base import Capabilities, ExternalExecutor, OwnExecutor, StepContext
from streamapp.actions.planner import make_plan
from streamapp.actions.registry import ActionRegistry
from streamapp.intents.base import Decision, Thresholds
from streamapp.saga.model import Message, Plan, Step
from streamapp.saga.operations import InsertTask, Operation

NOTHING = Capabilities()
ALL = Capabilities(
    frozenset({"order", "email"}),
    {"sales_team": "sales@example.com", "supervisor": "boss@example.com"},
)


def message(
    intent: str = "ORDER_REQUEST",
    confidence: float = 0.95,
    entities: dict[str, Any] | None = None,
    text: str = "please send it",
    reply_to: str | None = "491512345678",
) -> Message:
    return Message(
        processing_id="p-1",
        lead_id="lead-1",
        business_id="b-1",
        tenant_id="t-1",
        intent=intent,
        confidence=confidence,
        entities={"product": "Widget X", "quantity": 100} if entities is None else entities,
        text=text,
        source="web",
        reply_to=reply_to,
    )


def plan(
    registry: ActionRegistry,
    actions: Sequence[str],
    *,
    about: Message | None = None,
    capabilities: Capabilities = NOTHING,
    metadata: dict[str, Any] | None = None,
    reply: str | None = None,
    promise: str | None = None,
    run: int = 0,
    suggested: Sequence[str] = (),
) -> Plan:
    return make_plan(
        about or message(),
        "HANDLER",
        Decision(
            tuple(actions), escalate=False, metadata=metadata or {}, reply=reply, promise=promise
        ),
        run=run,
        registry=registry,
        capabilities=capabilities,
        thresholds=Thresholds(),
        suggested=suggested,
    )


def context(step: Step, *, about: Message | None = None, run: int = 0) -> StepContext:
    return StepContext(about or message(), run, step, {})


def operations(
    registry: ActionRegistry, step: Step, *, about: Message | None = None, run: int = 0
) -> list[Operation]:
    executor = registry.executor(step.executor, step.version)
    assert isinstance(executor, OwnExecutor)
    return list(executor.operations(context(step, about=about, run=run)))


def compensation(
    registry: ActionRegistry, step: Step, output: Mapping[str, Any] | None = None
) -> list[Operation]:
    executor = registry.executor(step.executor, step.version)
    assert isinstance(executor, OwnExecutor)
    return list(executor.compensation(context(step), output or {}))


def external(registry: ActionRegistry, step: Step) -> ExternalExecutor:
    executor = registry.executor(step.executor, step.version)
    assert isinstance(executor, ExternalExecutor)
    return executor


def tasks(
    registry: ActionRegistry, made: Plan, *, about: Message | None = None
) -> dict[str, InsertTask]:
    """The plan's tasks by the name of their step."""
    found = {}
    for step in made.steps:
        if isinstance(registry.executor(step.executor, step.version), OwnExecutor):
            for operation in operations(registry, step, about=about):
                if isinstance(operation, InsertTask):
                    found[step.name] = operation
    return found
