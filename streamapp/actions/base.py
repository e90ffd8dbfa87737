"""What an action is: a row of the catalogue, expanded into steps, run by executors.

Planning (``ActionKind.expand``) is pure and happens once, at the claim. Executors run the
stored steps; they know nothing of Kafka, Faust or the journal.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Mapping, Sequence
from dataclasses import field
from enum import IntEnum
from typing import Any, ClassVar, Protocol

from streamapp.actions.topics import LANGUAGE
from streamapp.saga.model import Message, Step
from streamapp.saga.operations import Operation
from streamapp.values import value


class Phase(IntEnum):
    """Order of execution inside a saga; within a phase, as the handler emitted."""

    LOOK_UP = 0
    EFFECT = 1
    NOTIFICATION = 2
    REPLY = 3


@value
class Capabilities:
    """What is configured when a plan is made: optional services, channels of teams, texts."""

    services: frozenset[str] = frozenset()  # circuit names: "order", "email", ...
    team_emails: Mapping[str, str] = field(default_factory=dict)  # team -> address
    slack_teams: Container[str] = frozenset()  # teams that have a channel
    texts: Mapping[str, str] = field(default_factory=dict)  # topic -> what customers are told
    timezone: str = "UTC"  # of the times that customers name
    # What the business itself says, topic -> language -> text, which may be a template; it goes
    # before ``texts``. ``language`` is what it speaks with whom it knows no better.
    templates: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    language: str = LANGUAGE
    about: Mapping[str, Any] = field(default_factory=dict)  # the business, as templates see it
    team_names: Mapping[str, str] = field(default_factory=dict)  # as tasks are assigned
    switched_off: frozenset[str] = frozenset()  # actions that are not done
    apologises: bool = True  # to whom it was undone for
    suggested_response: bool = False  # whether the AI's may be used


@value
class PlanningContext:
    """All that expanding an action may look at: same context, same steps."""

    message: Message
    run: int
    actions: tuple[str, ...]  # the whole plan, in the handler's order
    metadata: Mapping[str, Any]
    confidence_high: float  # the setting
    capabilities: Capabilities


@value
class StepDraft:
    """A step before it has its place in the plan."""

    executor: str
    sub_step: str
    params: dict[str, Any]
    required: bool
    version: int = 1


class ActionKind(Protocol):
    """A family of actions: turns one row of the catalogue into steps."""

    def expand(
        self, action: str, params: Mapping[str, Any], context: PlanningContext
    ) -> Sequence[StepDraft]: ...


@value
class StepContext:
    """What an executor may know when its step runs.

    ``outputs`` are those of the DONE steps before it, by ordinal; ``results`` are the same by the
    steps' names ("check_inventory"), which is where the answers of look-ups are found.
    """

    message: Message
    run: int
    step: Step
    outputs: Mapping[int, Mapping[str, Any]]
    results: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@value
class CallContext:
    """What an external call may know besides its request."""

    step: StepContext
    key: str  # the idempotency key, the same in every attempt
    attempt: int  # counts from 1


class OwnExecutor(ABC):
    """Effects in our own database, committed together with their step's DONE."""

    name: ClassVar[str]
    versions: ClassVar[frozenset[int]] = frozenset({1})

    def describe(self, context: StepContext) -> str:
        """What the step does, in a few words for people."""
        return f"our own database: {self.name}"

    @abstractmethod
    def operations(self, context: StepContext) -> Sequence[Operation]:
        """The rows of this step. Pure: called again it gives the same."""

    def output(self, context: StepContext) -> dict[str, Any] | None:
        """What the saga keeps of this step for those after it; nothing by default. Pure."""
        return None

    def compensation(self, context: StepContext, output: Mapping[str, Any]) -> Sequence[Operation]:
        """The rows that undo a DONE step; nothing by default."""
        return ()


class ExternalExecutor(ABC):
    """One effect outside, journalled as STARTED with key and request before it begins."""

    name: ClassVar[str]
    versions: ClassVar[frozenset[int]] = frozenset({1})
    service: ClassVar[str]  # name of its circuit
    # Whether a repetition under the same key has no second effect. Has no default: an interrupted
    # call is repeated, so whoever writes one has to know. False is for best effort alone.
    key_honoured: ClassVar[bool]
    compensable: ClassVar[bool] = False
    max_concurrent: int = 1000  # calls to the service at once; others wait before they start
    max_call_time: float = 60.0  # seconds; after it no request of a call is on its way any more

    def describe(self, context: StepContext) -> str:
        """What the step would call, in a few words for people."""
        return f"a call to {self.service}"

    async def ready(self, message: Message) -> bool:
        """Whether there is what a call for this message needs. Asked before every attempt, and may
        wait; without it the step waits for a worker that has it."""
        return True

    def circuit(self, message: Message) -> str:
        """Name of the circuit of a call for this message, of what ``ready`` found. There are few:
        the service's, and those of businesses that have such a service of their own."""
        return self.service

    @abstractmethod
    def request(self, context: StepContext) -> bytes:
        """The request's bytes, stored with STARTED and repeated as they are."""

    @abstractmethod
    async def call(self, request: bytes, context: CallContext) -> dict[str, Any]:
        """Carry it out; the answer becomes the step's output.

        Raises ``Rejected``, ``Busy`` or ``Retryable`` (``streamapp.services.errors``).
        """

    def compensation_request(
        self, context: StepContext, forward_key: str, output: Mapping[str, Any] | None
    ) -> bytes:
        """The bytes of the undoing request; ``output`` is None for a step in doubt."""
        raise NotImplementedError(f"{self.name} declares no compensation")

    async def compensate(self, request: bytes, context: CallContext) -> dict[str, Any]:
        """Undo it: idempotent, and content with nothing to undo. Raises as ``call`` does."""
        raise NotImplementedError(f"{self.name} declares no compensation")


Executor = OwnExecutor | ExternalExecutor
