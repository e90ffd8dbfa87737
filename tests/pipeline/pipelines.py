"""A pipeline on a real journal; the rest of its surroundings is scripted and kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from streamapp.actions.base import Capabilities, Phase, PlanningContext, StepDraft
from streamapp.actions.executors import ActivityExecutor
from streamapp.actions.registry import ActionRegistry
from streamapp.businesses.business import Business
from streamapp.intents.base import Decision, IntentHandler, Thresholds
from streamapp.intents.registry import REVIEW, Registry
from streamapp.pipeline.orchestrator import Delivered, Pipeline, PipelineConfig
from streamapp.pipeline.outcomes import Outcome, Record
from streamapp.saga.executor import SagaExecutor
from streamapp.saga.model import Fenced, Message
from tests.pipeline.records import LIMIT, result
from tests.support.bench import Bench
from tests.support.sagas import GROUP, TOPIC


class Orders(IntentHandler):
    """Emits what a test tells it to."""

    intent = "ORDER_REQUEST"
    priority = 10
    emits = frozenset({"note", "order", "unregistered"})

    def __init__(self) -> None:
        self.actions: tuple[str, ...] = ("note", "order")
        self.metadata: dict[str, Any] = {}
        self.error: Exception | None = None

    def decide(self, message: Message, thresholds: Thresholds) -> Decision:
        if self.error is not None:
            raise self.error
        return Decision(self.actions, escalate=False, metadata=self.metadata)


class Unknown(IntentHandler):
    intent = "UNKNOWN"
    priority = 1
    emits = frozenset({REVIEW})

    def decide(self, message: Message, thresholds: Thresholds) -> Decision:
        return Decision((REVIEW,), escalate=True)


class OneStep:
    """An action of one step."""

    def __init__(self, executor: str, *, required: bool = True) -> None:
        self._executor = executor
        self._required = required

    def expand(
        self, action: str, params: Mapping[str, Any], context: PlanningContext
    ) -> Sequence[StepDraft]:
        return (StepDraft(self._executor, "", {}, self._required),)


class Surroundings:
    """Implements the ports of the pipeline, and the lease of the partition."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.known: dict[tuple[int, str], bytes] = {}
        self.known_error: Exception | None = None
        self.tenant: str | None = "tenant-1"
        self.tenant_error: Exception | None = None
        self.business = Business(Capabilities())
        self.lost = False
        self.letters: list[Record] = []
        self.events: list[tuple[Any, ...]] = []

    def look_up(self, partition: int, processing_id: str) -> bytes | None:
        if self.known_error is not None:
            raise self.known_error
        return self.known.get((partition, processing_id))

    async def resolve(self, lead_id: str, business_id: str, tenant_id: str | None) -> str | None:
        self.events.append(("asked", lead_id, business_id, tenant_id))
        if self.tenant_error is not None:
            raise self.tenant_error
        return self.tenant

    async def find(self, business_id: str) -> Business:
        return self.business

    async def publish(self, record: Record) -> None:
        self.letters.append(record)

    async def epoch(self) -> int:
        if self.lost:
            raise Fenced("the partition was taken away")
        return self._bench.epoch

    def received(self, source: str, business_id: str) -> None:
        self.events.append(("received", source, business_id))

    def looked_up(self, tier: str, result: str) -> None:
        self.events.append(("looked up", tier, result))

    def understood(self, message: Message, ai_seconds: float | None) -> None:
        self.events.append(("understood", message.processing_id, ai_seconds))

    def dead_lettered(self, reason: str) -> None:
        self.events.append(("letter", reason))

    def delivered(self, outcome: Outcome, source: str, seconds: float) -> None:
        assert seconds >= 0
        self.events.append(("delivered", str(outcome), source))

    def defect(self, where: str, error: BaseException) -> None:
        self.events.append(("defect", where, error))

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [event[1:] for event in self.events if event[0] == kind]


@dataclass
class Plant:
    """The pipeline and all that a test wants to turn or look at."""

    bench: Bench
    suggested_actions: bool = False
    handler: Orders = field(default_factory=Orders)

    def __post_init__(self) -> None:
        self.around = Surroundings(self.bench)
        self.registry = self._registry()
        self.pipeline = self.build(self.bench.executor(registry=self.registry))

    def _registry(self) -> ActionRegistry:
        registry = self.bench.registry()
        registry.register_executor(ActivityExecutor())
        registry.register_action("note", OneStep("own"), Phase.EFFECT)
        registry.register_action("order", OneStep("service"), Phase.EFFECT)
        registry.register_action(REVIEW, OneStep("own"), Phase.EFFECT)
        registry.register_action("tell", OneStep("mail", required=False), Phase.NOTIFICATION)
        return registry

    def build(self, sagas: SagaExecutor) -> Pipeline:
        return Pipeline(
            config=PipelineConfig(
                consumer_group=GROUP,
                max_payload_bytes=LIMIT,
                thresholds=Thresholds(0.5, 0.8),
                suggested_actions=self.suggested_actions,
            ),
            intents=Registry(Unknown(), (self.handler,)),
            actions=self.registry,
            sagas=sagas,
            seen=self.around,
            tenants=self.around,
            businesses=self.around,
            dead_letters=self.around,
            observer=self.around,
        )

    async def process(self, record: Record) -> Delivered:
        return await self.pipeline.process(record, self.around, self.bench.place)

    def outcomes(self) -> list[str]:
        return [outcome for outcome, _ in self.around.of("delivered")]


def record(offset: int = 0, *, partition: int = 0, **changes: Any) -> Record:
    """A record of a valid result, with changes."""
    return raw_record(json.dumps(result(**changes)).encode(), offset, partition=partition)


def raw_record(value: bytes | None, offset: int = 0, *, partition: int = 0) -> Record:
    return Record(
        TOPIC, partition, offset, 1_700_000_000_000, b"lead-1", value, (("kept", b"\xff"),)
    )
