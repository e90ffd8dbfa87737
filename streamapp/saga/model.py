"""The saga as data: its plan, its rows, and the writes that change it.

Nothing here does I/O. ``saga.executor`` decides which write comes next,
``storage.journal`` makes it durable.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID

from streamapp.pipeline.outcomes import Headers, Reason
from streamapp.saga.ids import Direction
from streamapp.saga.operations import Operation
from streamapp.saga.write_ids import new_write_id
from streamapp.values import value

PLAN_VERSION = 1
UNREADABLE_PLAN = 0  # stands for a plan of another form: nothing of it may be run or undone


class SagaStatus(StrEnum):
    """Where a run stands."""

    RUNNING = "RUNNING"
    COMPENSATING = "COMPENSATING"
    COMPLETED = "COMPLETED"
    COMPENSATED = "COMPENSATED"
    STUCK = "STUCK"
    RESOLVED = "RESOLVED"  # was STUCK, and a person took it on: what was left may be left still


class StepStatus(StrEnum):
    """Where a step stands in one direction. No row means: not begun."""

    STARTED = "STARTED"  # an external effect may exist from here on
    WAITING = "WAITING"  # for its next attempt or for its circuit
    DONE = "DONE"
    FAILED = "FAILED"  # for good


@value
class Source:
    """The record a message came in."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int

    @property
    def position(self) -> str:
        return f"{self.topic}:{self.partition}:{self.offset}"

    @property
    def home(self) -> tuple[str, int]:
        """The partition, whose owner alone may write the saga."""
        return self.topic, self.partition


@value
class Step:
    """One step of a stored plan: at most one external effect.

    ``executor`` and ``version`` name the code that runs it, ``params`` hold all it needs,
    resolved when the plan was made, so that a deploy or an edited text changes nothing of a
    saga under way (protocol, 2).
    """

    ordinal: int
    action: str
    sub_step: str
    executor: str
    version: int
    required: bool
    params: dict[str, Any]
    suggested: bool = False

    @property
    def name(self) -> str:
        return f"{self.action}.{self.sub_step}" if self.sub_step else self.action


@value
class Message:
    """What the steps of a saga may know of the message that it works on."""

    processing_id: str
    lead_id: str
    business_id: str
    tenant_id: str
    intent: str
    confidence: float
    entities: dict[str, Any]
    text: str
    source: str = "whatsapp"
    reply_to: str | None = None


@value
class Plan:
    """What a run will do, as stored at its claim."""

    handler: str
    actions: tuple[str, ...]  # in the handler's own order
    steps: tuple[Step, ...]  # in the order of execution
    escalate: bool
    metadata: dict[str, Any]
    reply: str | None
    version: int = PLAN_VERSION
    apology: dict[str, Any] | None = None  # what the customer is told if all of it is undone


@dataclass(slots=True)
class StepRow:
    """A step's journal row in one direction."""

    ordinal: int
    direction: Direction
    status: StepStatus
    key: str | None = None
    attempts: int = 0
    in_doubt: bool = False  # some attempt may have had its effect
    circuit_wait: float = 0.0  # seconds spent waiting for the circuit so far
    due_at: datetime | None = None  # of the next attempt
    request: bytes | None = None  # as first sent; repeated byte for byte
    output: dict[str, Any] | None = None
    error: str | None = None
    first_attempt_at: datetime | None = None
    last_attempt_at: datetime | None = None
    redrives: tuple[str, ...] = ()  # ids of those that repeated this step, the last one last


@dataclass(slots=True)
class SagaState:
    """A saga as the journal knows it: its present run, and that run's steps.

    ``payload_hash`` is that of the run; ``earlier_hashes`` are those of earlier runs whose payload
    was another one.
    """

    message: Message
    run: int
    status: SagaStatus
    source: Source
    payload_hash: bytes
    plan: Plan
    key: bytes | None
    value: bytes
    headers: Headers
    steps: dict[tuple[int, Direction], StepRow] = field(default_factory=dict)
    error: str | None = None
    reason: Reason | None = None
    stuck_retries: int = 0
    created_at: datetime | None = None
    earlier_hashes: tuple[bytes, ...] = ()

    def has_had(self, payload_hash: bytes) -> bool:
        """Whether a payload is the message's, or was in an earlier run."""
        return payload_hash == self.payload_hash or payload_hash in self.earlier_hashes


@value
class OutboxRecord:
    """A record that is published after the commit; ``id`` makes a second insert harmless."""

    id: str
    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers


@value
class Settlement:
    """Dead letters that are resolved together with a saga's state, for good.

    That of ``action``, or where it is empty those of the message that came first in ``origin``:
    of the whole record and of its actions but those in ``unsettled``. Where the letter itself has
    not arrived yet (``letter_id``, ``reason``), it will be resolved when it does.
    """

    letter_id: str
    origin: Source
    reason: Reason
    action: str
    unsettled: tuple[str, ...]


@value
class CarriedOut:
    """A person's request, and what became of it; each is carried out at most once."""

    request_id: int
    kind: str
    asked_by: str
    carried_out_by: str
    result: str


ProcessingStatus = Literal["success", "failed", "retrying"]


@dataclass(slots=True)
class SagaWrite:
    """What one saga wants to be durable in one transaction, all of it or nothing.

    A claim carries the whole new ``SagaState``; one that ``revives`` a saga begins its next run,
    where the run before is COMPENSATED. Any other write says in which status and run it expects
    its saga. ``operations`` are grouped by the step whose effect they are.
    """

    state: SagaState
    epoch: int
    claim: bool
    revives: bool = False
    steps: list[StepRow] = field(default_factory=list)
    operations: list[tuple[StepRow, tuple[Operation, ...]]] = field(default_factory=list)
    status: SagaStatus | None = None  # the new one, if it changes
    processing_status: ProcessingStatus | None = None
    outbox: list[OutboxRecord] = field(default_factory=list)
    resume_in: float | None = None  # seconds until a STUCK saga is tried again
    settlement: Settlement | None = None
    request: CarriedOut | None = None
    write_id: UUID = field(
        default_factory=new_write_id
    )  # finds its own row after an unknown COMMIT

    @property
    def new(self) -> bool:
        """Whether it inserts its saga."""
        return self.claim and not self.revives

    @property
    def empty(self) -> bool:
        return not (
            self.claim
            or self.steps
            or self.status
            or self.outbox
            or self.settlement
            or self.request
        )


class Fenced(Exception):
    """The partition has another owner by now: nothing was written, nothing may be.

    ``epoch`` is the one that was refused, None where it never came to a write.
    """

    def __init__(self, message: str, epoch: int | None = None) -> None:
        super().__init__(message)
        self.epoch = epoch


class WriteRefused(Exception):
    """The content of this write cannot be stored, however often it is tried."""
