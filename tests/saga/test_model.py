"""Random plans, random services and random deaths of workers, against a small model.

The model knows nothing of journals: it says what one undisturbed worker does. What deaths add is
checked as invariants: they hold however often a run is cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from streamapp.saga.ids import idempotency_key
from streamapp.saga.model import SagaState, SagaStatus, Step
from streamapp.saga.parking import Parking
from streamapp.services.errors import Busy, Rejected
from tests.support.bench import Bench, Points, PointsJournal, running_bench
from tests.support.sagas import (
    Call,
    LostAnswer,
    LostRequest,
    Unreachable,
    external,
    mail,
    own,
    saga,
    task_id,
)

MAX_ATTEMPTS = 4
MAX_WAIT = 2.0  # seconds, so as many times a busy key is asked again

Outcome = Any
Script = dict[str, list[Outcome]]  # by action; a minus before it: its compensation

outcomes = st.one_of(
    st.builds(dict),
    st.builds(Rejected, st.just("no")),
    st.builds(Unreachable),
    st.builds(LostRequest),
    st.builds(LostAnswer),
    st.builds(KeyError, st.just("a defect")),
    st.builds(Busy, st.just("being worked on")),
)
makers: dict[str, Callable[[str], Step]] = {
    "own": own,
    "own, best effort": lambda name: own(name, required=False),
    "own, with a defect": lambda name: own(name, raises=True),
    "own, with a defect, best effort": lambda name: own(name, required=False, raises=True),
    "external": external,
    "external, best effort": lambda name: external(name, required=False),
    "mail": mail,
}
# Mostly plain steps, or no plan would come far.
kinds = st.sampled_from([*makers, "own", "own", "external", "external", "external"])
plans = st.lists(kinds, min_size=1, max_size=5)
scripts = st.lists(st.lists(outcomes, max_size=5), min_size=10, max_size=10)
cuts = st.integers(min_value=1, max_value=14)


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


def undisturbed(steps: tuple[Step, ...], script: Script) -> tuple[str, list[str]]:
    """How a saga ends that nobody disturbs, and the calls that it makes."""
    calls: list[str] = []
    to_undo: list[Step] = []
    for step in steps:
        in_doubt = False
        if step.executor == "own":
            done = not step.params.get("raises")
        else:
            done, count, in_doubt = attempt(script[step.action])
            calls += [step.action] * count
        if done or in_doubt:
            to_undo.append(step)
        if not done and step.required:
            break
    else:
        return "COMPLETED", calls
    for step in reversed(to_undo):
        if step.executor == "service":
            done, count, _ = attempt(script["-" + step.action])
            calls += ["-" + step.action] * count
            if not done:
                return "STUCK", calls
    return "COMPENSATED", calls


class Sagas(RuleBasedStateMachine):
    """One saga of one message, and the owners of its partition, one after the other."""

    bench: ClassVar[Bench]
    runner: ClassVar[asyncio.Runner]
    number: ClassVar[int] = 0

    @initialize(plan=plans, script=scripts)
    def begin(self, plan: list[str], script: list[list[Outcome]]) -> None:
        Sagas.number += 1
        self.name = f"p-{Sagas.number}"
        self.steps = saga(*(makers[kind](f"s{n}") for n, kind in enumerate(plan))).plan.steps
        self.script: Script = {}
        for step, forward, backward in zip(self.steps, script[:5], script[5:], strict=False):
            self.script[step.action], self.script["-" + step.action] = forward, backward
        service = self.bench.service
        service.script.clear()
        service.calls.clear()
        service.effects.clear()
        for name, given in self.script.items():
            service.plan(name.lstrip("-"), *given, undo=name.startswith("-"))
        self.status: str | None = None
        self.disturbed = False

    @precondition(lambda self: self.status is None)
    @rule(cut=cuts)
    def a_worker_dies(self, cut: int) -> None:
        self.disturbed = True
        self.runner.run(self.passage(cut))

    @precondition(lambda self: self.status is None)
    @rule()
    def a_worker_finishes(self) -> None:
        self.runner.run(self.passage(0))
        assert self.status is not None

    @precondition(lambda self: self.status is not None)
    @rule()
    def the_record_comes_again(self) -> None:
        before = len(self.bench.service.calls)
        self.runner.run(self.passage(0))
        assert len(self.bench.service.calls) == before

    @precondition(lambda self: self.status == "STUCK")
    @rule(cut=st.sampled_from([0, 0, 1, 2, 3, 4, 5]))
    def it_is_resumed(self, cut: int) -> None:
        self.disturbed = True
        self.status = None
        self.runner.run(self.passage(cut, resume=True))

    def teardown(self) -> None:
        if hasattr(self, "status") and self.status is None:
            self.a_worker_finishes()

    async def passage(self, cut: int, *, resume: bool = False) -> None:
        bench, points = self.bench, Points(cut)
        await bench.take_over()
        bench.service.before = lambda call: self.on_call(call, points)
        bench.service.after = lambda call: points.reach()
        executor = bench.executor(
            journal=PointsJournal(bench.journal, points),
            max_wait=MAX_WAIT,
            max_wait_best_effort=MAX_WAIT,
        )
        try:
            if resume:
                state = await bench.load(self.name)
                await executor.resume(state, bench.epoch, bench.place)
            else:
                state = saga(*self.steps, processing_id=self.name, offset=Sagas.number)
                state = await bench.deliver(state, executor)
        except asyncio.CancelledError:
            stored = await bench.journal.load(self.name)
            ended = ("COMPLETED", "COMPENSATED", "STUCK")
            self.status = stored.status if stored and stored.status in ended else None
            return
        self.status = state.status
        await self.check(await bench.load(self.name))

    async def on_call(self, call: Call, points: Points) -> None:
        """STARTED is durable, as this very call: so no step that is DONE is called again."""
        row = await self.bench.step(call.ordinal, call.direction, self.name)
        assert (row["status"], row["attempts"]) == ("STARTED", call.attempt)
        assert (row["key"], bytes(row["request"])) == (call.key, call.request)
        status = (await self.bench.saga(self.name))["status"]
        assert status == ("RUNNING" if call.direction == "forward" else "COMPENSATING")
        await points.reach()

    async def check(self, state: SagaState) -> None:
        assert state.status == self.status
        if not self.disturbed:
            names = self.bench.service.names()
            assert (self.status, names) == undisturbed(self.steps, self.script)
        self.check_calls()
        forward = {n: row.status for (n, way), row in state.steps.items() if way == "forward"}
        done = {step.action for step in self.steps if forward.get(step.ordinal) == "DONE"}
        failed = {step.action for step in self.steps if forward.get(step.ordinal) == "FAILED"}
        required = {step.action for step in self.steps if step.required}
        of = {
            idempotency_key(self.name, 0, step.action, "", "forward"): step
            for step in self.steps
            if step.executor != "own"
        }
        in_effect = {of[key].action for key in self.bench.service.effects}
        own_done = {step.action for step in self.steps if step.executor == "own"} & done
        tasks = await self.bench.tasks()
        left = {a for a in own_done if tasks[task_id(self.name, a)] == "pending"}
        letters = [x for x in await self.bench.letters() if x.processing_id == self.name]
        about = sorted(letter.action for letter in letters)
        if self.status == SagaStatus.COMPLETED:
            assert required <= done
            assert done | failed == {step.action for step in self.steps}
            assert {step.action for step in of.values()} & done <= in_effect
            assert left == own_done
            assert about == sorted(failed)
            return
        assert len(failed & required) == 1
        assert about == sorted(["", *(failed - required)])
        if self.status == SagaStatus.COMPENSATED:
            assert in_effect <= {step.action for step in self.steps if step.executor == "mail"}
            assert left == set()

    def check_calls(self) -> None:
        calls = self.bench.service.calls
        for direction in ("forward", "compensate"):
            seen: dict[int, tuple[str, bytes]] = {}
            ordinals = [call.ordinal for call in calls if call.direction == direction]
            assert ordinals == sorted(ordinals, reverse=direction == "compensate")
            for call in calls:
                if call.direction == direction:
                    assert seen.setdefault(call.ordinal, (call.key, call.request)) == (
                        call.key,
                        call.request,
                    )
                    assert 1 <= call.attempt <= MAX_ATTEMPTS
        directions = [call.direction for call in calls]
        assert directions == sorted(directions, reverse=True)


def test_sagas_follow_the_model(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep(parking: Parking, seconds: float) -> None:
        """Nothing waits here."""

    monkeypatch.setattr("streamapp.saga.attempts.sleep", sleep)
    with asyncio.Runner() as runner:
        manager = running_bench(database)
        bench = runner.run(manager.__aenter__())
        try:
            machine = type("Bound", (Sagas,), {"bench": bench, "runner": runner})
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=90,
                    stateful_step_count=6,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(manager.__aexit__(None, None, None))
