"""One external effect: its attempts, their key and bytes, their times, and when they end."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streamapp.pipeline.outcomes import Reason
from streamapp.resilience.circuit_breaker import CircuitBreakers, CircuitConfig
from streamapp.saga import attempts as module
from streamapp.saga.parking import Parking
from streamapp.services.errors import Busy, NotNow, Rejected, Retryable
from tests.support.bench import Bench, PointsJournal
from tests.support.sagas import Call, LostAnswer, Unreachable, external, mail, own, saga

DELAYS = (1.0, 5.0, 15.0)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> list[float]:
    """The waits between attempts, in seconds; none is waited for."""
    waits: list[float] = []

    async def sleep(parking: Parking, seconds: float) -> None:
        assert parking is bench.place
        waits.append(seconds)

    monkeypatch.setattr(module, "sleep", sleep)
    return waits


def about(waits: list[float]) -> list[float]:
    """Waits without the moments that the test itself took."""
    return [round(wait + 0.3) for wait in waits]


# The same request


async def test_every_attempt_carries_the_same_key_and_bytes(bench: Bench) -> None:
    bench.service.plan("a", Unreachable(), LostAnswer(), Unreachable())
    state = saga(external("a"))
    await bench.deliver(state)
    assert state.status == "COMPLETED"
    assert [call.attempt for call in bench.service.calls] == [1, 2, 3, 4]
    assert len({(call.key, call.request) for call in bench.service.calls}) == 1
    assert (await bench.step(0))["attempts"] == 4


async def test_every_attempt_is_started_durably(bench: Bench) -> None:
    rows: list[Any] = []

    async def before(call: Call) -> None:
        rows.append(await bench.step(0))

    bench.service.before = before
    bench.service.plan("a", Unreachable(), LostAnswer())
    await bench.deliver(saga(external("a")))
    assert [(row["status"], row["attempts"]) for row in rows] == [("STARTED", n) for n in (1, 2, 3)]
    assert [row["in_doubt"] for row in rows] == [False, False, True]
    assert len({row["first_attempt_at"] for row in rows}) == 1
    assert len({row["last_attempt_at"] for row in rows}) == 3


# When


async def test_attempts_follow_the_schedule(bench: Bench, waits: list[float]) -> None:
    bench.service.plan("a", *(Unreachable() for _ in range(9)))
    state = saga(external("a"))
    await bench.deliver(state, bench.executor(delays=DELAYS, max_wait=120))
    assert about(waits) == [1, 5, 15]
    assert len(bench.service.calls) == 4
    assert state.status == "COMPENSATED"
    (letter,) = await bench.letters()
    assert (letter.reason, letter.attempts) == (Reason.RETRIES_EXHAUSTED, 4)
    assert letter.message == "a: unreachable"


async def test_due_times_are_durable_before_the_wait(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[Any] = []

    async def sleep(parking: Parking, seconds: float) -> None:
        rows.append(await bench.step(0))
        assert await bench.processed() == "retrying"

    monkeypatch.setattr(module, "sleep", sleep)
    bench.service.plan("a", Unreachable(), LostAnswer())
    await bench.deliver(saga(external("a")), bench.executor(delays=DELAYS))
    assert [row["status"] for row in rows] == ["WAITING", "WAITING"]
    for row, delay in zip(rows, DELAYS, strict=False):
        waited = row["due_at"] - row["last_attempt_at"]
        assert timedelta(0) <= waited - timedelta(seconds=delay) < timedelta(seconds=5)
    assert [row["error"] for row in rows] == ["unreachable", "the answer was lost"]
    row = await bench.step(0)
    assert (row["due_at"], row["error"], row["status"]) == (None, None, "DONE")
    assert await bench.processed() == "success"


async def test_attempts_and_due_times_survive_a_restart(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(Exception):
        pass

    async def crash(parking: Parking, seconds: float) -> None:
        raise Crash

    bench.service.plan("a", *(Unreachable() for _ in range(9)))
    waits: list[float] = []
    for _ in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(module, "sleep", crash)
            with pytest.raises(Crash):
                await bench.deliver(saga(external("a")), bench.executor(delays=DELAYS))
        # The next owner waits for what is left, and no call is made before that.
        made = len(bench.service.calls)

        async def sleep(parking: Parking, seconds: float, made: int = made) -> None:
            if len(bench.service.calls) > made:
                raise Crash
            waits.append(seconds)

        await bench.take_over()
        with monkeypatch.context() as patch:
            patch.setattr(module, "sleep", sleep)
            if made < 3:
                with pytest.raises(Crash):
                    await bench.deliver(saga(external("a")), bench.executor(delays=DELAYS))
            else:
                await bench.deliver(saga(external("a")), bench.executor(delays=DELAYS))
                break
    assert [call.attempt for call in bench.service.calls] == [1, 2, 3, 4]
    assert about(waits) == [1, 5, 15]
    assert (await bench.saga())["status"] == "COMPENSATED"


async def test_a_service_may_ask_for_a_longer_wait(bench: Bench, waits: list[float]) -> None:
    bench.service.plan("a", Unreachable(7.0), Unreachable(2.0), Unreachable(3600.0))
    state = saga(external("a"))
    await bench.deliver(state, bench.executor(delays=DELAYS, max_wait=60))
    assert state.status == "COMPLETED"
    assert about(waits) == [7, 5, 60]


async def test_what_a_service_asks_for_is_bounded_before_it_is_stored(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads the row next, with other settings perhaps, waits no longer either."""
    dues: list[float] = []

    async def sleep(parking: Parking, seconds: float) -> None:
        row = await bench.step(0)
        dues.append((row["due_at"] - row["last_attempt_at"]).total_seconds())

    monkeypatch.setattr(module, "sleep", sleep)
    bench.service.plan("a", Unreachable(3600.0))
    await bench.deliver(saga(external("a")), bench.executor(delays=DELAYS, max_wait=60))
    assert len(dues) == 1
    assert 60 <= dues[0] < 65


async def test_a_clock_that_was_set_back_does_not_stretch_a_wait(
    bench: Bench, waits: list[float]
) -> None:
    bench.service.plan("a", Unreachable())

    async def before(call: Call) -> None:
        if call.attempt == 2:
            await bench.take_over()

    bench.service.before = before
    executor = bench.executor(delays=DELAYS, max_wait=60)
    with pytest.raises(Exception, match="another owner"):
        await bench.deliver(saga(external("a")), executor)
    await bench.pool.execute(
        "update saga_steps set status = 'WAITING', due_at = now() + interval '1 year'"
    )
    bench.service.before = None
    waits.clear()
    await bench.deliver(saga(external("a")), executor)
    assert about(waits) == [60]


# How it ends


async def test_a_rejection_is_final(bench: Bench) -> None:
    bench.service.plan("a", Rejected("out of stock"))
    state = saga(own("z"), external("a"), external("b"))
    await bench.deliver(state)
    assert state.status == "COMPENSATED"
    assert bench.service.names() == ["a"]
    row = await bench.step(1)
    assert (row["status"], row["error"], row["in_doubt"]) == ("FAILED", "out of stock", False)
    saga_row = await bench.saga()
    assert (saga_row["reason"], saga_row["error"]) == ("step_rejected", "a: out of stock")
    (letter,) = await bench.letters()
    assert (letter.reason, letter.action) == (Reason.STEP_REJECTED, "")
    assert bench.observer.of("step") == [("z", "done"), ("a", "failed")]


async def test_an_exception_of_a_call_is_retried_in_doubt(bench: Bench) -> None:
    bench.service.plan("a", KeyError("a defect"), TimeoutError())
    state = saga(external("a"))
    await bench.deliver(state)
    assert state.status == "COMPLETED"
    row = await bench.step(0)
    assert (row["attempts"], row["in_doubt"]) == (3, True)
    assert bench.observer.of("attempt failed") == [
        ("a", "KeyError: 'a defect'"),
        ("a", "TimeoutError: "),
    ]


@pytest.mark.parametrize("params", [{"request_raises": True}])
async def test_a_request_that_cannot_be_made_is_the_executors_defect(
    bench: Bench, params: dict[str, Any]
) -> None:
    state = saga(external("a"), external("b", **params))
    await bench.deliver(state)
    assert state.status == "COMPENSATED"
    assert bench.service.names() == ["a", "-a"]
    (letter,) = await bench.letters()
    assert letter.reason == Reason.HANDLER_ERROR
    assert "a defect of the executor" in letter.message
    row = await bench.step(1)
    assert (row["status"], row["attempts"], row["request"]) == ("FAILED", 0, None)


async def test_a_best_effort_step_that_is_exhausted_lets_the_saga_complete(bench: Bench) -> None:
    bench.service.plan("a", *(LostAnswer() for _ in range(4)))
    state = saga(mail("a"), own("b"))
    await bench.deliver(state)
    assert state.status == "COMPLETED"
    (letter,) = await bench.letters()
    assert (letter.reason, letter.action, letter.attempts) == (Reason.ACTION_FAILED, "a", 4)


# Busy


async def test_a_busy_key_is_asked_again_and_spends_no_attempt(
    bench: Bench, waits: list[float]
) -> None:
    bench.service.plan("a", *(Busy("being worked on") for _ in range(5)), Unreachable())
    state = saga(external("a"))
    await bench.deliver(state, bench.executor(delays=DELAYS, max_wait=60))
    assert state.status == "COMPLETED"
    assert about(waits) == [1] * 5 + [1]
    assert [call.attempt for call in bench.service.calls] == [1] * 6 + [2]
    row = await bench.step(0)
    assert (row["attempts"], row["in_doubt"]) == (2, True)
    assert len({call.key for call in bench.service.calls}) == 1


async def test_a_key_that_stays_busy_fails_the_step_in_doubt(
    bench: Bench, waits: list[float]
) -> None:
    bench.service.plan("a", *(Busy("being worked on") for _ in range(50)))
    state = saga(external("a"))
    await bench.deliver(state, bench.executor(delays=DELAYS, max_wait=3.0))
    assert state.status == "COMPENSATED"
    assert about(waits) == [1] * 3
    assert bench.service.names() == ["a"] * 4 + ["-a"]
    assert (await bench.saga())["reason"] == "retries_exhausted"


# A limit on the rate


async def test_a_request_that_was_held_back_spends_no_attempt_and_is_not_in_doubt(
    bench: Bench, waits: list[float]
) -> None:
    bench.service.plan("a", NotNow("later", 7.0), NotNow("later", 100.0), Unreachable())
    state = saga(external("a"))
    await bench.deliver(state, bench.executor(delays=DELAYS, max_wait=60))
    assert state.status == "COMPLETED"
    assert about(waits) == [7, 60, 1]
    assert [call.attempt for call in bench.service.calls] == [1, 1, 1, 2]
    row = await bench.step(0)
    assert (row["attempts"], row["in_doubt"], row["circuit_wait"]) == (2, False, 67.0)


async def test_one_that_is_held_back_too_long_fails_and_leaves_nothing_to_undo(
    bench: Bench, waits: list[float]
) -> None:
    bench.service.plan("a", *(NotNow("later", 2.0) for _ in range(50)))
    state = saga(external("a"))
    await bench.deliver(state, bench.executor(delays=DELAYS, max_wait=3.0))
    assert state.status == "COMPENSATED"
    assert about(waits) == [2] * 2
    assert bench.service.names() == ["a"] * 3
    assert (await bench.saga())["reason"] == "retries_exhausted"


async def test_holding_back_says_nothing_of_the_services_health(
    bench: Bench, waits: list[float]
) -> None:
    breakers = CircuitBreakers(CircuitConfig(min_calls=1, failure_rate=0.1))
    bench.service.plan("a", *(NotNow("later", 1.0) for _ in range(5)))
    state = saga(external("a"))
    await bench.deliver(state, bench.executor(breakers=breakers, delays=DELAYS, max_wait=60))
    assert state.status == "COMPLETED"
    assert breakers.get("scripted").snapshot()["failures"] == 0


# The two seconds between STARTED and the call


class Late:
    """A journal whose first STARTED was committed long ago, as after a frozen process."""

    def __init__(self, journal: PointsJournal, late: int) -> None:
        self._journal = journal
        self._late = late
        self.writes = journal.writes

    async def write(self, write: Any) -> Any:
        written = await self._journal.write(write)
        if any(row.status == "STARTED" for row in write.steps) and self._late:
            self._late -= 1
            object.__setattr__(written, "at", written.at - module.CALL_WITHIN - 0.1)
        return written

    async def load(self, processing_id: str) -> Any:
        return await self._journal.load(processing_id)


async def test_a_call_that_would_begin_too_late_is_started_anew(bench: Bench) -> None:
    journal = Late(PointsJournal(bench.journal), late=2)
    state = saga(external("a"))
    await bench.deliver(state, bench.executor(journal=journal))
    assert state.status == "COMPLETED"
    assert len(journal.writes) == 4
    (call,) = bench.service.calls
    assert call.attempt == 1
    started = [write.steps[0] for write in journal.writes[:3]]
    assert {(row.status, row.key, row.request, row.attempts) for row in started} == {
        ("STARTED", call.key, call.request, 1)
    }


async def test_who_lost_the_partition_while_frozen_does_not_call(bench: Bench) -> None:
    class Frozen(Late):
        async def write(self, write: Any) -> Any:
            written = await super().write(write)
            await bench.take_over()
            return written

    journal = Frozen(PointsJournal(bench.journal), late=1)
    with pytest.raises(Exception, match="another owner"):
        await bench.deliver(saga(external("a")), bench.executor(journal=journal))
    assert bench.service.calls == []


async def test_errors_of_a_service_are_told(bench: Bench) -> None:
    bench.service.plan("a", Retryable("slow today", in_doubt=False))
    await bench.deliver(saga(external("a")))
    assert bench.observer.of("attempt failed") == [("a", "slow today")]
    assert bench.observer.of("step") == [("a", "done")]
