"""Random messages, random services and whatever may happen to workers, against a small model.

Two leads, a few messages each, worked off in the order of the log by one owner after the other. An
owner dies or freezes at any moment (before and after each write and each call); one that froze
wakes up later and goes on, under an epoch that is not its own any more. COMMITs are lost, before
the server has made them or after it. Copies of a record come from elsewhere, also while it is
worked on, and records that say something else under its id. The local table knows what it happens
to know.

``STREAMAPP_TEST_MODEL_EXAMPLES`` asks for a longer run.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import replace
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

from streamapp.pipeline.dead_letter import parse_headers
from streamapp.pipeline.orchestrator import Pipeline
from streamapp.pipeline.outcomes import Outcome, Reason, Record
from streamapp.saga.model import Fenced, SagaState
from streamapp.saga.parking import Parking
from streamapp.storage.owners import raise_epoch
from tests.pipeline.records import result
from tests.saga.model import (
    MAX_MESSAGES,
    MAX_WAIT,
    ModelPlant,
    Sent,
    plans,
    scripts,
    sent,
)
from tests.saga.model_checks import Checks
from tests.saga.model_worker import Worker, at_hand, working
from tests.support.bench import Bench, running_bench, running_journal
from tests.support.proxy import AtCommit, Proxy, proxy_to
from tests.support.sagas import GROUP, TOPIC, Call

EXAMPLES = int(os.environ.get("STREAMAPP_TEST_MODEL_EXAMPLES", "40"))
LEADS = ("a", "b")
ENDS = ("COMPLETED", "COMPENSATED", "STUCK")

leads = st.sampled_from(LEADS)
moments = st.one_of(st.integers(1, 4), st.integers(1, 6), st.integers(1, 16))
messages = st.tuples(leads, plans, scripts)
happenings = st.sampled_from(
    [
        *("", "dies", "freezes") * 2,
        "loses the request",
        "loses the reply",
        "a copy comes",
        "another payload comes",
    ]
)


class Sagas(RuleBasedStateMachine):
    """The log, the owners of its partition, and what is checked after everything that happens."""

    bench: ClassVar[Bench]
    plant: ClassVar[ModelPlant]
    proxy: ClassVar[Proxy]
    pipeline: ClassVar[Pipeline]  # of one to whom nothing happens
    elsewhere: ClassVar[int]  # the epoch of the other partition, from which copies come
    runner: ClassVar[asyncio.Runner]
    number: ClassVar[int] = 0
    offset: ClassVar[int] = 0

    @initialize(first=st.lists(messages, min_size=1, max_size=MAX_MESSAGES - 1))
    def begin(self, first: list[Any]) -> None:
        Sagas.number += 1
        self.log: list[Sent] = []
        self.frozen: list[Worker] = []
        self.checks = Checks(self.bench, self.log)
        service = self.bench.service
        service.script.clear()
        for kept in (service.calls, service.effects, service.cancelled):
            kept.clear()
        service.before, service.after = self.arrived, self.answered
        for known in (self.plant.around.known, self.plant.around.letters, self.plant.around.events):
            known.clear()
        self.runner.run(self._begin())
        for message in first:
            self.a_message_comes(message)

    async def _begin(self) -> None:
        await self.bench.pool.executemany(
            "insert into leads values ($1, 'business-1', 'tenant-1', 'new')",
            [(self.lead(name),) for name in LEADS],
        )

    def lead(self, name: str) -> str:
        return f"lead-{Sagas.number}-{name}"

    # What may happen

    @precondition(lambda self: len(self.log) < MAX_MESSAGES)
    @rule(given=messages)
    def a_message_comes(self, given: Any) -> None:
        lead, plan, script = given
        Sagas.offset += 1
        name = f"p-{Sagas.number}-{len(self.log)}"
        message = sent(len(self.log), name, self.lead(lead), Sagas.offset, plan, script)
        self.log.append(message)
        self.plant.handler.plans[name] = tuple(step.action for step in message.steps)
        for action, given in message.script.items():
            self.bench.service.plan(action.lstrip("-"), *given, undo=action.startswith("-"))

    @precondition(lambda self: self.left())
    @rule(happening=happenings, moment=moments, both=st.booleans(), marks=st.booleans())
    def a_worker_works(self, happening: str, moment: int, both: bool, marks: bool) -> None:
        chosen = [lead for lead in LEADS if self.left(lead)]
        worker = Worker(self, happening, moment)
        self.runner.run(self.passage(worker, chosen if both else chosen[-1:], marks))
        assert happening or not self.left(chosen[-1])

    @precondition(lambda self: self.frozen)
    @rule()
    def a_frozen_worker_wakes(self) -> None:
        self.runner.run(self.waking(self.frozen.pop(0)))

    @rule(data=st.data(), kind=st.sampled_from(["itself", "a copy", "another payload"]))
    def another_record_comes(self, data: st.DataObject, kind: str) -> None:
        ended = [message for message in self.log if message.status]
        if kind == "itself" and ended:
            message = data.draw(st.sampled_from(ended))
            # What would be planned by now does not matter.
            self.plant.handler.plans[message.name] = ()
            self.runner.run(self.between(self.again(message)))
        elif kind == "a copy":
            # Its own record may still be on its way, but it never comes out of turn.
            firsts = [message for lead in LEADS for message in self.left(lead)[:1]]
            message = data.draw(st.sampled_from(ended + firsts))
            self.runner.run(self.between(self.copy(message)))
        else:
            message = data.draw(st.sampled_from(self.log))
            self.runner.run(self.between(self.another_payload(message)))

    @precondition(lambda self: any(message.status == "STUCK" for message in self.log))
    @rule(data=st.data(), dies_at=st.sampled_from([0, 0, 1, 2, 3, 4, 5, 6]))
    def a_stuck_saga_is_resumed(self, data: st.DataObject, dies_at: int) -> None:
        message = data.draw(st.sampled_from([m for m in self.log if m.status == "STUCK"]))
        self.runner.run(self.resume(Worker(self, "dies", dies_at), message))

    def teardown(self) -> None:
        if not hasattr(self, "log"):
            return
        for worker in self.frozen:
            self.runner.run(self.waking(worker))
        self.frozen = []
        if self.left():
            self.runner.run(self.passage(Worker(self), LEADS, marks=True))
            assert not self.left()
        around = self.plant.around
        assert len(around.of("received")) == len(around.of("delivered")), "one outcome each"

    # How it happens

    def left(self, lead: str | None = None) -> list[Sent]:
        """What is not finished, in the order of the log."""
        wanted = None if lead is None else self.lead(lead)
        return [m for m in self.log if m.status is None and wanted in (None, m.lead)]

    def record(self, message: Sent, offset: int, partition: int = 0, text: str = "") -> Record:
        payload = result(processing_id=message.name, lead_id=message.lead, original_message=text)
        key = message.lead.encode()
        return Record(
            TOPIC, partition, offset, 1_700_000_000_000, key, json.dumps(payload).encode()
        )

    async def passage(self, worker: Worker, chosen: Any, marks: bool) -> None:
        pipeline = self.plant.build(worker.executor())
        worker.begin(*(self.lane(worker, pipeline, self.left(lead), marks) for lead in chosen))
        await worker.settled()
        self.proxy.at_commit = AtCommit.FORWARD
        if worker.frozen:
            self.frozen.append(worker)
        if worker.frozen or any(lane.cancelled() for lane in worker.lanes):
            await self.bench.take_over()
        await self.checks.check()

    async def lane(
        self, worker: Worker, pipeline: Pipeline, messages: list[Sent], marks: bool
    ) -> None:
        """One lead's messages, one after the other; without an end of one there is no next."""
        working.set(worker)
        for message in messages:
            at_hand.set(message)
            message.disturbed |= worker.happening in ("dies", "freezes")
            try:
                if message.resumed:
                    await self.orphan(worker, message)
                    continue
                record = self.record(message, message.offset)
                delivered = await pipeline.process(record, worker, self.bench.place)
            except Fenced:
                assert worker.woken, "the living owner was fenced"
                continue  # with the next one, which it believes to be its own as well
            if worker.woken:
                continue  # its last write was made before it froze
            assert delivered.outcome is not Outcome.RELEASED
            state = await self.bench.load(message.name)
            assert state.status in ENDS
            message.status = state.status
            if delivered.outcome is not Outcome.DUPLICATE:
                expected = state.status == "COMPLETED"
                assert (delivered.outcome is Outcome.PROCESSED) == expected
            if marks and delivered.seen is not None:
                self.plant.around.known[0, message.name] = delivered.seen

    async def orphan(self, worker: Worker, message: Sent) -> None:
        """A resumption was interrupted: the record is long acknowledged and comes no more."""
        state = await self.bench.load(message.name)
        if state.status not in ENDS:
            epoch = self.epoch_of(worker, state)
            await worker.executor().run(state, epoch, self.bench.place, claim=False)
        if not worker.woken:
            message.status = state.status

    async def waking(self, worker: Worker) -> None:
        """It goes on where it stood, and into its leads' next messages, and moves nothing."""
        before = await self.checks.everything()
        calls = len(self.bench.service.calls)
        await worker.wake()
        assert await self.checks.everything() == before
        late = self.bench.service.calls[calls:]
        del self.bench.service.calls[calls:]
        for call in late:  # sent in the gap between the check and the call, as STARTED says it
            rows = await self.bench.pool.fetch(
                "select key, request from saga_steps where processing_id = $1 and ordinal = $2 "
                "and direction = $3",
                call.processing_id,
                call.ordinal,
                call.direction,
            )
            assert [(row["key"], row["request"]) for row in rows] == [(call.key, call.request)]
        await self.checks.check()

    async def between(self, happening: Coroutine[Any, Any, None]) -> None:
        await happening
        await self.checks.check()

    async def again(self, message: Sent) -> None:
        before, calls = await self.checks.everything(), len(self.bench.service.calls)
        delivered = await self.pipeline.process(
            self.record(message, message.offset), Worker(self), self.bench.place
        )
        assert delivered.outcome is Outcome.DUPLICATE
        assert await self.checks.everything() == before
        assert len(self.bench.service.calls) == calls

    async def copy(self, message: Sent) -> None:
        """The same record out of another partition: a duplicate, unless it comes first."""
        Sagas.offset += 1
        known = await self.bench.journal.load(message.name)
        record = self.record(message, Sagas.offset, partition=1)
        worker = Worker(self)
        worker._epoch = self.elsewhere
        before, calls = await self.checks.everything(message), self.checks.calls_of(message)
        delivered = await self.pipeline.process(record, worker, self.bench.place)
        if known is not None:
            assert delivered.outcome is Outcome.DUPLICATE
            assert await self.checks.everything(message) == before
            assert self.checks.calls_of(message) == calls
        elif message.status is None:
            message.status = (await self.bench.load(message.name)).status
            assert message.status in ENDS

    async def another_payload(self, message: Sent) -> None:
        """Dead-lettered, and nothing of the first is touched."""
        if await self.bench.journal.load(message.name) is None:
            return  # it would be the first
        Sagas.offset += 1
        record = self.record(message, Sagas.offset, text="something else")
        before, calls = await self.checks.everything(message), self.checks.calls_of(message)
        delivered = await self.pipeline.process(record, Worker(self), self.bench.place)
        assert delivered.outcome is Outcome.DEAD_LETTERED
        assert await self.checks.everything(message) == before
        assert self.checks.calls_of(message) == calls
        letter = parse_headers(self.plant.around.letters[-1].headers)
        assert letter is not None
        assert (letter.reason, letter.processing_id) == (Reason.PAYLOAD_MISMATCH, message.name)

    def epoch_of(self, worker: Worker, state: SagaState) -> int:
        """A saga is of the partition of the record that came first, be it a copy."""
        return worker._epoch if state.source.partition == 0 else self.elsewhere

    async def resume(self, worker: Worker, message: Sent) -> None:
        message.disturbed = message.resumed = True
        message.status = None
        self.checks.goes_on(message)

        async def lane() -> None:
            working.set(worker)
            state = await self.bench.load(message.name)
            await worker.executor().resume(state, self.epoch_of(worker, state), self.bench.place)

        worker.begin(lane())
        await worker.settled()
        if worker.lanes[0].cancelled():
            await self.bench.take_over()
        state = await self.bench.load(message.name)
        message.status = state.status if state.status in ENDS else None
        await self.checks.check()

    # At the service

    async def arrived(self, call: Call) -> None:
        """STARTED is durable, as this very call: so no step that is DONE is called again."""
        worker = working.get(None)
        if worker is None or not worker.woken:
            row = await self.bench.step(call.ordinal, call.direction, call.processing_id)
            assert (row["status"], row["attempts"]) == ("STARTED", call.attempt)
            assert (row["key"], bytes(row["request"])) == (call.key, call.request)
            status = (await self.bench.saga(call.processing_id))["status"]
            assert status == ("RUNNING" if call.direction == "forward" else "COMPENSATING")
        if worker is not None:
            await worker.reach()

    async def answered(self, call: Call) -> None:
        if (worker := working.get(None)) is not None:
            await worker.reach()


async def world(stack: AsyncExitStack, dsn: str) -> dict[str, Any]:
    """A bench whose journal reaches the database through a proxy, and who is elsewhere."""
    proxy = await stack.enter_async_context(proxy_to(dsn))
    journal = await stack.enter_async_context(running_journal(proxy.dsn))
    bench = replace(await stack.enter_async_context(running_bench(dsn)), journal=journal)
    plant = ModelPlant(bench)
    executor = bench.executor(
        registry=plant.registry, max_wait=MAX_WAIT, max_wait_best_effort=MAX_WAIT
    )
    return {
        "bench": bench,
        "plant": plant,
        "proxy": proxy,
        "pipeline": plant.build(executor),
        "elsewhere": await raise_epoch(bench.pool, GROUP, TOPIC, 1, "elsewhere"),
    }


@pytest.mark.timeout(600 + 3 * EXAMPLES)
def test_sagas_follow_the_model(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep(parking: Parking, seconds: float) -> None:
        """Nothing waits here."""

    monkeypatch.setattr("streamapp.saga.attempts.sleep", sleep)
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        parts = runner.run(world(stack, database))
        try:
            run_state_machine_as_test(
                type("Bound", (Sagas,), {**parts, "runner": runner}),
                settings=settings(
                    max_examples=EXAMPLES,
                    stateful_step_count=8,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(stack.aclose())
