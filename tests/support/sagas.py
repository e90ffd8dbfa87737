"""Small sagas for tests: plans of own and scripted external steps, and what they leave behind."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from streamapp.actions.base import (
    CallContext,
    Executor,
    ExternalExecutor,
    OwnExecutor,
    StepContext,
)
from streamapp.actions.registry import ActionRegistry
from streamapp.saga.ids import Direction
from streamapp.saga.model import Message, Plan, SagaState, SagaStatus, Source, Step
from streamapp.saga.operations import (
    CancelTask,
    InsertActivity,
    InsertTask,
    Operation,
    RestoreLeadStatus,
    SendMessage,
    SetLeadStatus,
)
from streamapp.services.errors import Rejected, Retryable

TOPIC = "ai-results"
GROUP = "streamapp"
OUTBOUND = "whatsapp-outbound"
DLQ = "ai-results-dlq"


class LostAnswer(Retryable):
    """The request arrived and had its effect, but its answer did not come."""

    arrived = True

    def __init__(self) -> None:
        super().__init__("the answer was lost", in_doubt=True)


class LostRequest(Retryable):
    """The request did not arrive, but nobody can know that."""

    def __init__(self) -> None:
        super().__init__("no answer", in_doubt=True)


class Unreachable(Retryable):
    """The request was certainly not sent."""

    def __init__(self, retry_after: float | None = None) -> None:
        super().__init__("unreachable", in_doubt=False, retry_after=retry_after)


def message(processing_id: str = "p-1", lead_id: str = "lead-1") -> Message:
    return Message(
        processing_id=processing_id,
        lead_id=lead_id,
        business_id="business-1",
        tenant_id="tenant-1",
        intent="ORDER_REQUEST",
        confidence=0.9,
        entities={"quantity": 3},
        text="three, please",
        reply_to="491700000000",
    )


def own(action: str, *, required: bool = True, **params: Any) -> Step:
    """A step in our own database; ``OwnSteps`` tells what its params do."""
    return Step(0, action, "", "own", 1, required, params)


def external(action: str, *, required: bool = True, version: int = 1, **params: Any) -> Step:
    """A step at the scripted service, which can be compensated."""
    return Step(0, action, "", "service", version, required, params)


def mail(action: str, **params: Any) -> Step:
    """A best-effort step that cannot be undone."""
    return Step(0, action, "", "mail", 1, False, params)


def saga(
    *steps: Step,
    processing_id: str = "p-1",
    lead_id: str = "lead-1",
    partition: int = 0,
    offset: int = 0,
    run: int = 0,
) -> SagaState:
    """A new saga with a plan of these steps, in this order."""
    about = message(processing_id, lead_id)
    plan = Plan(
        handler="HANDLER",
        actions=tuple(dict.fromkeys(step.action for step in steps)),
        steps=tuple(replace(step, ordinal=n) for n, step in enumerate(steps)),
        escalate=False,
        metadata={},
        reply=None,
    )
    return SagaState(
        message=about,
        run=run,
        status=SagaStatus.RUNNING,
        source=Source(TOPIC, partition, offset, 1_700_000_000_000),
        payload_hash=b"hash of " + processing_id.encode(),
        plan=plan,
        key=lead_id.encode(),
        value=b'{"raw": "bytes"}',
        headers=(("kept", b"as it is"),),
    )


class OwnSteps(OwnExecutor):
    """A task each. Params: ``lead_status`` to set, ``reply`` to send, ``priority``, ``raises`` for
    a defect and ``refused`` for a row that the database refuses; ``undo_raises`` and
    ``undo_refused`` are the same for the compensation."""

    name = "own"

    def __init__(self) -> None:
        self.seen_outputs: dict[str, Mapping[int, Mapping[str, Any]]] = {}

    def operations(self, context: StepContext) -> Sequence[Operation]:
        params, step = context.step.params, context.step
        self.seen_outputs[step.action] = dict(context.outputs)
        if params.get("raises"):
            raise KeyError("a defect of the executor")
        found: list[Operation] = [
            InsertTask(
                task_id=task_id(context.message.processing_id, step.action, context.run),
                task_type=step.action,
                title=step.action,
                description="\0" if params.get("refused") else "",
                priority=params.get("priority", "normal"),
                assigned_to_type="team",
                assigned_to_id="team",
                due_in=3600.0,
            )
        ]
        if "lead_status" in params:
            found.append(SetLeadStatus(params["lead_status"]))
        if "reply" in params:
            found.append(SendMessage(f"reply-{context.message.processing_id}", None, "text"))
        return found

    def compensation(self, context: StepContext, output: Mapping[str, Any]) -> Sequence[Operation]:
        params, step = context.step.params, context.step
        if params.get("undo_raises"):
            raise KeyError("a defect of the compensation")
        identity = task_id(context.message.processing_id, step.action, context.run)
        found: list[Operation] = [CancelTask(identity, "undone")]
        if params.get("undo_refused"):
            found.append(InsertActivity(identity, "undone", "\0"))
        if output.get("previous_status") is not None:
            found.append(RestoreLeadStatus(params["lead_status"], output["previous_status"]))
        return found


def task_id(processing_id: str, action: str, run: int = 0) -> str:
    return f"{processing_id}/{run}/{action}"


@dataclass(frozen=True, slots=True)
class Call:
    """A request as it reached the scripted service."""

    processing_id: str
    ordinal: int
    action: str
    direction: Direction
    key: str
    request: bytes
    attempt: int


Hook = Callable[[Call], Awaitable[None]]


class HookFailed(BaseException):
    """A hook's assertion failed. The saga under test handles every ``Exception`` of a call, and
    would hide it."""


async def _tell(hook: Hook | None, call: Call) -> None:
    if hook is not None:
        try:
            await hook(call)
        except AssertionError as error:
            raise HookFailed(f"{call}: {error}") from error


@dataclass
class Service:
    """What happens behind the scripted executors.

    ``script`` holds the outcomes to come by action and direction: a dictionary is the answer,
    an exception is raised; what is not scripted succeeds. ``before`` is awaited when a request
    has arrived, ``after`` when its effect is there but its answer on the way. Requests are
    deduplicated by key, as real services do: ``effects`` are the keys in effect. What has been
    cancelled is not created any more, as services are asked to keep it.
    """

    script: dict[tuple[str, Direction], deque[dict[str, Any] | BaseException]] = field(
        default_factory=lambda: defaultdict(deque)
    )
    calls: list[Call] = field(default_factory=list)
    effects: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)
    before: Hook | None = None
    after: Hook | None = None

    def plan(
        self, action: str, *outcomes: dict[str, Any] | BaseException, undo: bool = False
    ) -> None:
        """Script the next outcomes of an action, or of its compensation."""
        self.script[action, "compensate" if undo else "forward"].extend(outcomes)

    def names(self) -> list[str]:
        """The calls in order; those of compensations begin with a minus."""
        return [("-" if c.direction == "compensate" else "") + c.action for c in self.calls]

    async def serve(
        self, request: bytes, context: CallContext, direction: Direction
    ) -> dict[str, Any]:
        step = context.step.step
        call = Call(
            context.step.message.processing_id,
            step.ordinal,
            step.action,
            direction,
            context.key,
            request,
            context.attempt,
        )
        self.calls.append(call)
        await _tell(self.before, call)
        if direction == "forward" and call.key in self.cancelled:
            raise Rejected("it was cancelled")
        outcomes = self.script[step.action, direction]
        outcome = outcomes.popleft() if outcomes else {"made": step.action}
        arrived = not isinstance(outcome, BaseException) or getattr(outcome, "arrived", False)
        if arrived:
            if direction == "forward":
                self.effects.add(call.key)
            else:
                self.cancelled.add(forward_key := json.loads(request)["forward_key"])
                self.effects.discard(forward_key)
        await _tell(self.after, call)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


class ServiceSteps(ExternalExecutor):
    """Calls the scripted service. Params: ``request_raises`` and ``undo_request_raises`` for
    defects, ``request_refused`` for a request that cannot be stored."""

    name = "service"
    service = "scripted"
    key_honoured = True
    compensable = True
    max_call_time = 0.0

    def __init__(self, service: Service) -> None:
        self._service = service
        self.made = 0  # requests, each unlike the others: a repetition must use the stored one

    def request(self, context: StepContext) -> bytes:
        if context.step.params.get("request_raises"):
            raise ValueError("a defect of the executor")
        if context.step.params.get("request_refused"):
            return cast(bytes, "no bytes")
        self.made += 1
        return json.dumps({"action": context.step.action, "made": self.made}).encode()

    async def call(self, request: bytes, context: CallContext) -> dict[str, Any]:
        return await self._service.serve(request, context, "forward")

    def compensation_request(
        self, context: StepContext, forward_key: str, output: Mapping[str, Any] | None
    ) -> bytes:
        if context.step.params.get("undo_request_raises"):
            raise ValueError("a defect of the compensation")
        self.made += 1
        return json.dumps(
            {
                "forward_key": forward_key,
                "output": None if output is None else dict(output),
                "made": self.made,
            }
        ).encode()

    async def compensate(self, request: bytes, context: CallContext) -> dict[str, Any]:
        return await self._service.serve(request, context, "compensate")


class NewServiceSteps(ServiceSteps):
    """The same in a version of its own."""

    versions = frozenset({2})


class MailSteps(ExternalExecutor):
    """Calls the scripted service, and cannot be undone."""

    name = "mail"
    service = "mail"
    key_honoured = False

    def __init__(self, service: Service) -> None:
        self._service = service

    def request(self, context: StepContext) -> bytes:
        return b"a mail"

    async def call(self, request: bytes, context: CallContext) -> dict[str, Any]:
        return await self._service.serve(request, context, "forward")


def registry_of(*executors: Executor) -> ActionRegistry:
    registry = ActionRegistry()
    for executor in executors:
        registry.register_executor(executor)
    return registry
