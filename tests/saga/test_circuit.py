"""Waiting for a circuit: bounded, summed over restarts, and no attempt is spent on it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from streamapp.resilience.circuit_breaker import CallKind, CircuitBreakers, CircuitConfig
from streamapp.saga import attempts as module
from streamapp.saga.model import Step
from streamapp.saga.parking import Parking
from streamapp.services.errors import Busy, NothingThere, Rejected
from tests.support.bench import Bench
from tests.support.sagas import LostAnswer, Unreachable, external, mail, own, saga
from tests.support.waiting import until


class Time:
    """Stands in for ``time`` where a call's start is timed; a wait for the circuit moves it on."""

    def __init__(self, breakers: CircuitBreakers, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.waits: list[float] = []
        self.reopen_after: float | None = None
        self.breakers = breakers
        for name in ("streamapp.saga.attempts.time", "streamapp.storage.journal.time"):
            monkeypatch.setattr(name, SimpleNamespace(monotonic=lambda: self.now))
        for name in ("scripted", "mail"):
            breaker = breakers.get(name)
            monkeypatch.setattr(breaker, "wait_for_change", self.wait)

    async def wait(self, timeout: float) -> None:
        self.waits.append(timeout)
        self.now += timeout
        assert self.now < 2000, "this wait has no end"
        if self.reopen_after is not None and sum(self.waits) >= self.reopen_after:
            for breaker in self.breakers.all():
                breaker.reset()


@pytest.fixture
def breakers() -> CircuitBreakers:
    breakers = CircuitBreakers(CircuitConfig(min_calls=1000))
    for name in ("scripted", "mail"):
        breakers.get(name).force_open()
    return breakers


@pytest.fixture
def time(breakers: CircuitBreakers, monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(breakers, monkeypatch)


async def test_an_open_circuit_is_waited_for_and_spends_no_attempt(
    bench: Bench, breakers: CircuitBreakers, time: Time
) -> None:
    time.reopen_after = 35.0
    state = saga(own("z"), external("a"))
    await bench.deliver(state, bench.executor(breakers=breakers, max_wait=120))
    assert state.status == "COMPLETED"
    assert sum(time.waits) == 40.0
    assert bench.place.waits == len(time.waits)  # each of them parked
    assert bench.place.in_line == 0
    row = await bench.step(1)
    assert (row["attempts"], row["circuit_wait"]) == (1, 40.0)


async def test_a_closed_circuit_costs_nothing(bench: Bench) -> None:
    await bench.deliver(saga(external("a")))
    assert bench.place.waits == 0
    assert (await bench.step(0))["circuit_wait"] == 0


async def test_the_wait_is_durable_while_it_lasts(
    bench: Bench, breakers: CircuitBreakers, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[Any] = []
    wait = time.wait

    async def look(timeout: float) -> None:
        assert bench.place.waiting
        rows.append((await bench.step(1), await bench.processed(), await bench.tasks()))
        await wait(timeout)

    monkeypatch.setattr(breakers.get("scripted"), "wait_for_change", look)
    await bench.deliver(
        saga(own("z"), external("a")), bench.executor(breakers=breakers, max_wait=25)
    )
    assert [row["circuit_wait"] for row, _, _ in rows] == [0.0, 10.0, 20.0]
    assert {(row["status"], row["attempts"]) for row, _, _ in rows} == {("WAITING", 0)}
    assert {processed for _, processed, _ in rows} == {"retrying"}
    assert rows[0][2] == {"p-1/0/z": "pending"}  # what came before is not held up
    assert time.waits == [10.0, 10.0, 5.0]


@pytest.mark.parametrize(
    ("step", "waited", "status"),
    [(external("a"), 20.0, "COMPENSATED"), (mail("a"), 5.0, "COMPLETED")],
)
async def test_it_is_waited_for_so_long_and_no_longer(
    bench: Bench, breakers: CircuitBreakers, time: Time, step: Step, waited: float, status: str
) -> None:
    state = saga(own("z"), step)
    executor = bench.executor(breakers=breakers, max_wait=20.0, max_wait_best_effort=5.0)
    await bench.deliver(state, executor)
    assert state.status == status
    assert sum(time.waits) == waited
    assert bench.service.calls == []
    (letter,) = await bench.letters()
    assert letter.reason == ("circuit_open" if status == "COMPENSATED" else "action_failed")
    assert letter.message.endswith(f"circuit {'scripted' if step.required else 'mail'} is open")
    row = await bench.step(1)
    assert (row["status"], row["circuit_wait"], row["attempts"]) == ("FAILED", waited, 0)


async def test_waits_are_summed_over_restarts(
    bench: Bench, breakers: CircuitBreakers, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = bench.executor(breakers=breakers, max_wait=25.0)
    waits = 0

    async def crash_at_every_second(timeout: float) -> None:
        nonlocal waits
        waits += 1
        if waits % 2 == 0:
            raise asyncio.CancelledError
        await time.wait(timeout)

    monkeypatch.setattr(breakers.get("scripted"), "wait_for_change", crash_at_every_second)
    for _ in range(2):
        with pytest.raises(asyncio.CancelledError):
            await bench.deliver(saga(external("a")), executor)
        await bench.take_over()
    await bench.deliver(saga(external("a")), executor)
    assert time.waits == [10.0, 10.0, 5.0]
    assert (await bench.saga())["reason"] == "circuit_open"


async def test_a_wait_between_attempts_does_not_forget_the_earlier_ones(
    bench: Bench, breakers: CircuitBreakers, time: Time
) -> None:
    time.reopen_after = 5.0
    bench.service.plan("a", LostAnswer())
    breaker = breakers.get("scripted")

    async def force_open(call: object) -> None:
        if len(bench.service.calls) == 1:
            breaker.force_open()
            time.reopen_after = None

    bench.service.after = force_open
    state = saga(external("a"))
    await bench.deliver(state, bench.executor(breakers=breakers, max_wait=12.0))
    # The attempt that was made may have had its effect, so it is undone: with a wait of its own.
    assert time.waits == [10.0, 2.0, 10.0, 2.0]
    assert state.status == "STUCK"
    row = await bench.step(0)
    assert (row["status"], row["attempts"], row["in_doubt"]) == ("FAILED", 1, True)


async def test_a_real_circuit_opens_heals_and_lets_the_saga_finish(bench: Bench) -> None:
    bench.circuit = CircuitConfig(
        window_calls=4, min_calls=2, failure_rate=1.0, open_seconds=0.05, trial_calls=1
    )
    breakers = CircuitBreakers(bench.circuit)
    bench.service.plan("a", Unreachable(), Unreachable(), Unreachable())
    state = saga(external("a"))
    await bench.deliver(state, bench.executor(breakers=breakers, max_wait=60))
    assert state.status == "COMPLETED"
    assert (await bench.step(0))["attempts"] == 4
    assert breakers.get("scripted").state == "closed"
    assert bench.place.waits >= 2
    assert (await bench.step(0))["circuit_wait"] > 0


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        ({}, CallKind.SUCCESS),
        (Rejected("no"), CallKind.SUCCESS),
        (NothingThere("no"), CallKind.SUCCESS),
        (Busy("busy"), CallKind.SUCCESS),
        (Unreachable(), CallKind.FAILURE),
        (LostAnswer(), CallKind.FAILURE),
        (KeyError("a defect"), CallKind.CANCELLED),
    ],
)
async def test_what_a_call_tells_of_its_service(
    bench: Bench, outcome: Any, kind: CallKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def sleep(parking: Parking, seconds: float) -> None:
        """Nothing waits here."""

    monkeypatch.setattr(module, "sleep", sleep)
    bench.service.plan("a", {}, outcome)
    breakers = CircuitBreakers(bench.circuit)
    breaker = breakers.get("scripted")
    executor = bench.executor(breakers=breakers)
    await bench.deliver(saga(external("a")), executor)
    before = dict(breaker.counts)
    counted: list[dict[CallKind, int]] = []

    async def count(call: object) -> None:
        counted.append(dict(breaker.counts))

    bench.service.before = count
    await bench.deliver(saga(external("a"), processing_id="p-2"), executor)
    after = counted[1] if len(counted) > 1 else breaker.counts
    assert {k: after[k] - before[k] for k in CallKind if after[k] != before[k]} == {kind: 1}


async def test_a_cancelled_call_tells_nothing_of_its_service(bench: Bench) -> None:
    breakers = CircuitBreakers(bench.circuit)
    hangs = asyncio.Event()

    async def hang(call: object) -> None:
        hangs.set()
        await asyncio.Event().wait()

    bench.service.before = hang
    run = asyncio.create_task(bench.deliver(saga(external("a")), bench.executor(breakers=breakers)))
    await until(hangs.is_set)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    counts = breakers.get("scripted").counts
    assert {kind: n for kind, n in counts.items() if n} == {CallKind.CANCELLED: 1}


async def test_a_request_that_cannot_be_made_tells_nothing_of_its_service(bench: Bench) -> None:
    breakers = CircuitBreakers(bench.circuit)
    await bench.deliver(saga(external("a", request_raises=True)), bench.executor(breakers=breakers))
    counts = breakers.get("scripted").counts
    assert {kind: n for kind, n in counts.items() if n} == {CallKind.CANCELLED: 1}
