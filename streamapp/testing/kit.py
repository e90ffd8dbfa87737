"""Runs handlers and actions: by themselves, on the real journal, and with kills."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

from pydantic import SecretStr

from streamapp.actions.base import Capabilities, ExternalExecutor, OwnExecutor, StepContext
from streamapp.actions.clients import Clients
from streamapp.actions.defaults import default_actions
from streamapp.actions.extension import Action, register
from streamapp.actions.planner import make_plan
from streamapp.actions.registry import ActionRegistry
from streamapp.intents.base import Decision, IntentHandler, Thresholds
from streamapp.intents.registry import Registry, Routed, default_registry
from streamapp.resilience.circuit_breaker import CircuitBreakers
from streamapp.saga.executor import SagaConfig, SagaExecutor
from streamapp.saga.ids import idempotency_key
from streamapp.saga.letters import Letters
from streamapp.saga.model import Message, Plan, SagaState, SagaStatus, Source, Step
from streamapp.saga.operations import Operation
from streamapp.saga.retry import RetrySchedule
from streamapp.settings import Settings, load
from streamapp.storage.connection import Pool, create_pool
from streamapp.storage.journal import PostgresJournal
from streamapp.storage.owners import raise_epoch
from streamapp.testing.kills import Kill, kills_of, live_and_die
from streamapp.testing.outcome import Outcome, read_outcome
from streamapp.testing.standins import NEVER_OPENS, Observer, Place, deliver

SETTINGS = load({"STREAMAPP_CONSUMER_GROUP": "testing", "STREAMAPP_INPUT_TOPIC": "testing"})


def message(
    intent: str = "UNKNOWN",
    *,
    confidence: float = 0.95,
    entities: Mapping[str, Any] | None = None,
    text: str = "",
    processing_id: str = "message-1",
    lead_id: str = "lead-1",
) -> Message:
    """A message of a business's lead, who can be replied to."""
    return Message(
        processing_id=processing_id,
        lead_id=lead_id,
        business_id="business-1",
        tenant_id="tenant-1",
        intent=intent,
        confidence=confidence,
        entities=dict(entities or {}),
        text=text,
        reply_to="491700000000",
    )


@dataclass(frozen=True)
class Kit:
    """What is under test, beside all that ships.

    ``handlers`` and ``actions`` are called without arguments and give one each: classes, or a
    ``functools.partial`` of one where it takes arguments. For ``run_with_kills`` they must be
    found by name in their modules, as the processes that are killed make their own. Without
    ``actions`` of its own a method plans the message by its handler.

    Raises what registration raises: ``RegistrationError``, ``Misuse``.
    """

    handlers: Sequence[Callable[[], IntentHandler]] = ()
    actions: Sequence[Callable[[], Action]] = ()
    thresholds: Thresholds = field(default_factory=Thresholds)

    def registries(self) -> tuple[Registry, ActionRegistry, list[Action]]:
        """All handlers and actions, ours with no service, checked as at a worker's start."""
        intents, registry = default_registry(), default_actions(Clients())
        made = [make() for make in self.actions]
        for action in made:
            register(registry, action)
            for executor in action.executors():
                if isinstance(executor, ExternalExecutor):
                    # A far side keeps no request for later: what is not there will not come.
                    executor.max_call_time = 0.0
        for handler in self.handlers:
            intents.register(handler())
        registry.check(intents.all_emitted())
        return intents, registry, made

    # By itself

    def route(self, about: Message) -> Routed:
        """The handler's decision after the rules of routing. Fails where it differs when it is
        asked again."""
        intents, _, _ = self.registries()
        routed = intents.route(about, self.thresholds)
        again = intents.route(replace(about, entities=dict(about.entities)), self.thresholds)
        assert routed == again, f"the handler is not pure: {routed} and then {again}"
        return routed

    def plan(self, about: Message, actions: Sequence[str] | None = None) -> Plan:
        """The plan, as it is stored. Fails where it differs when it is made again."""
        _, registry, _ = self.registries()
        first, again = (self._plan(registry, about, actions) for _ in range(2))
        assert first == again, f"planning is not pure: {first} and then {again}"
        return first

    def forward(
        self, about: Message, actions: Sequence[str] | None = None
    ) -> dict[str, list[Operation] | bytes]:
        """What each step of the plan would do, by its name: rows of our own database, or the
        request's bytes. Nothing is called."""
        return self._made(about, actions, None)

    def backward(
        self,
        about: Message,
        actions: Sequence[str] | None = None,
        outputs: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> dict[str, list[Operation] | bytes]:
        """What would undo each step that can be undone. ``outputs`` are those of the steps, by
        name; an external step without one is in doubt."""
        return self._made(about, actions, outputs or {})

    def _made(
        self,
        about: Message,
        actions: Sequence[str] | None,
        outputs: Mapping[str, Mapping[str, Any]] | None,
    ) -> dict[str, list[Operation] | bytes]:
        _, registry, _ = self.registries()
        found: dict[str, list[Operation] | bytes] = {}
        for step in self.plan(about, actions).steps:
            first, again = (_effect(registry, about, step, outputs) for _ in range(2))
            assert first == again, f"{step.name} is not pure: {first!r} and then {again!r}"
            if first is not None:
                found[step.name] = first
        return found

    def _plan(
        self, registry: ActionRegistry, about: Message, actions: Sequence[str] | None
    ) -> Plan:
        if actions is None:
            routed = self.route(about)
            handler, decision = routed.handler, routed.decision
        else:
            handler, decision = "testing", Decision(tuple(actions), escalate=False)
        return make_plan(
            about,
            handler,
            decision,
            run=0,
            registry=registry,
            capabilities=Capabilities(),
            thresholds=self.thresholds,
        )

    # On the real journal

    async def run(self, dsn: str, about: Message, actions: Sequence[str] | None = None) -> Outcome:
        """Run the message's saga to its end, or go on with one that was left on its way.

        ``dsn`` is a migrated database's. The lead is made with the status ``new`` where it is
        missing. Attempts follow each other without a wait.
        """
        settings = SETTINGS.model_copy(update={"database_url": SecretStr(dsn)})
        _, registry, made = self.registries()
        state = _saga(about, self._plan(registry, about, actions))
        async with _journal(settings) as journal:
            pool = await create_pool(settings)
            try:
                await _make_lead(pool, about)
                group, topic = settings.consumer_group, settings.input_topic
                epoch = await raise_epoch(pool, group, topic, 0, "testing")
                await deliver(_executor(settings, journal, registry), state, epoch, Place())
                return await read_outcome(
                    pool, about.processing_id, settings.dlq_topic, settings.outbound_topic
                )
            finally:
                pool.terminate()
                for action in made:
                    await action.close()

    async def run_with_kills(
        self, dsn: str, about: Message, actions: Sequence[str] | None = None
    ) -> list[Kill]:
        """Run it once undisturbed, and then once for each point at which a worker may die: a
        process of its own is ended there by SIGKILL, and another one goes on.

        Each run has ids of its own. Fails where the end differs from the undisturbed one. Gives
        the kills, so that a test can tell that there were some.
        """
        undisturbed = _numbered(about, 0)
        kills = await kills_of(self, dsn, undisturbed, actions)
        wanted = await self.run(dsn, undisturbed, actions)
        for number, kill in enumerate(kills, start=1):
            other = _numbered(about, number)
            await live_and_die(self, dsn, other, actions, kill)
            found = await self.run(dsn, other, actions)
            assert found.shape == wanted.shape, (
                f"killed at {kill.point} (pass {kill.number}) it ends otherwise: "
                f"{found.shape}, not {wanted.shape}"
            )
        return kills


def _effect(
    registry: ActionRegistry,
    about: Message,
    step: Step,
    outputs: Mapping[str, Mapping[str, Any]] | None,
) -> list[Operation] | bytes | None:
    """What a step does, or what undoes it where ``outputs`` are given; None: nothing can."""
    executor = registry.executor(step.executor, step.version)
    assert executor is not None  # the plan was made with this registry
    context = StepContext(about, 0, step, {}, outputs or {})
    if outputs is None:
        if isinstance(executor, OwnExecutor):
            return list(executor.operations(context))
        return executor.request(context)
    if isinstance(executor, OwnExecutor):
        return list(executor.compensation(context, outputs.get(step.name, {}))) or None
    if not executor.compensable:
        return None
    key = idempotency_key(about.processing_id, 0, step.action, step.sub_step, "forward")
    return executor.compensation_request(context, key, outputs.get(step.name))


def _numbered(about: Message, number: int) -> Message:
    return replace(
        about,
        processing_id=f"{about.processing_id}-{number}",
        lead_id=f"{about.lead_id}-{number}",
    )


def _saga(about: Message, plan: Plan) -> SagaState:
    return SagaState(
        message=about,
        run=0,
        status=SagaStatus.RUNNING,
        source=Source(SETTINGS.input_topic, 0, 0, int(time.time() * 1000)),
        payload_hash=sha256(about.processing_id.encode()).digest(),
        plan=plan,
        key=about.lead_id.encode(),
        value=b"{}",
        headers=(),
    )


@asynccontextmanager
async def _journal(settings: Settings) -> AsyncIterator[PostgresJournal]:
    journal = PostgresJournal(settings, lambda error: None)
    await journal.start()
    try:
        yield journal
    finally:
        await journal.stop()


def _executor(
    settings: Settings, journal: PostgresJournal, registry: ActionRegistry
) -> SagaExecutor:
    return SagaExecutor(
        journal=journal,
        registry=registry,
        breakers=CircuitBreakers(NEVER_OPENS),
        config=SagaConfig(
            schedule=RetrySchedule((0.0, 0.0, 0.0)),
            max_wait_required=10.0,
            max_wait_best_effort=10.0,
            stuck_delays=settings.stuck_delays,
            stuck_give_up=settings.stuck_give_up,
            outbound_topic=settings.outbound_topic,
        ),
        letters=Letters(settings.consumer_group, settings.dlq_topic),
        observer=Observer(),
    )


async def _make_lead(pool: Pool, about: Message) -> None:
    await pool.execute(
        "INSERT INTO leads (lead_id, business_id, tenant_id, status) VALUES ($1, $2, $3, 'new') "
        "ON CONFLICT DO NOTHING",
        about.lead_id,
        about.business_id,
        about.tenant_id,
    )
