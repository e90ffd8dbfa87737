"""The moments that the protocol's rules are about, one by one, on the real journal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from streamapp.saga import attempts as module
from streamapp.saga.ids import idempotency_key
from streamapp.saga.model import Fenced, SagaState
from streamapp.saga.parking import Parking
from streamapp.services.errors import NothingThere, Rejected
from tests.support.bench import Bench, Points, PointsJournal
from tests.support.sagas import (
    Call,
    LostRequest,
    OwnSteps,
    ServiceSteps,
    Unreachable,
    external,
    own,
    registry_of,
    saga,
)

NO = Rejected("no")


class Frozen:
    """An owner that stands still in its first call, until it is woken."""

    def __init__(self, bench: Bench, state: SagaState) -> None:
        self.epoch = bench.epoch
        self._bench = bench
        self._stands, self._woken = asyncio.Event(), asyncio.Event()
        bench.service.before = self._freeze
        self.run = asyncio.create_task(self.deliver(state))

    async def _freeze(self, call: Call) -> None:
        if not self._stands.is_set():
            self._stands.set()
            await self._woken.wait()

    async def stands(self) -> None:
        async with asyncio.timeout(20):
            await self._stands.wait()

    async def deliver(self, state: SagaState) -> None:
        """Run a saga under the epoch that it still believes in."""
        await self._bench.executor().run(state, self.epoch, self._bench.place, claim=True)

    async def wake(self) -> None:
        """Let it go on; it finds out at its next write."""
        self._woken.set()
        with pytest.raises(Fenced):
            await self.run


def first() -> SagaState:
    return saga(own("a"), external("b"), processing_id="p-1", offset=1)


def second() -> SagaState:
    return saga(own("a"), external("b"), own("c", reply=1), processing_id="p-2", offset=2)


# The fence is the partition's


async def test_a_frozen_owner_does_not_claim_the_next_message_of_its_lead(bench: Bench) -> None:
    """The next owner has done the first message and not yet begun the second: no row of the
    second tells the one that wakes up that it lost its lead."""
    frozen = Frozen(bench, first())
    await frozen.stands()
    await bench.take_over()
    assert (await bench.deliver(first())).status == "COMPLETED"
    await frozen.wake()
    with pytest.raises(Fenced):
        await frozen.deliver(second())
    assert await bench.journal.load("p-2") is None
    assert [call.processing_id for call in bench.service.calls] == ["p-1", "p-1"]
    assert set(await bench.tasks()) == {"p-1/0/a"}
    assert (await bench.deliver(second())).status == "COMPLETED"
    assert [call.processing_id for call in bench.service.calls] == ["p-1", "p-1", "p-2"]


async def test_a_frozen_owner_does_not_fence_the_living_one(bench: Bench) -> None:
    """It claims the message in which the living owner is: by a fence of the saga's own, the one
    that takes it over last would win."""
    frozen = Frozen(bench, first())
    await frozen.stands()
    await bench.take_over()
    await bench.deliver(first())
    await frozen.wake()
    in_call, go_on = asyncio.Event(), asyncio.Event()

    async def hold(call: Call) -> None:
        in_call.set()
        await go_on.wait()

    bench.service.before = hold
    living = asyncio.create_task(bench.deliver(second()))
    async with asyncio.timeout(20):
        await in_call.wait()
    before = await bench.saga("p-2")
    with pytest.raises(Fenced):
        await frozen.deliver(second())
    assert await bench.saga("p-2") == before
    go_on.set()
    assert (await living).status == "COMPLETED"
    assert len([call for call in bench.service.calls if call.processing_id == "p-2"]) == 1


@pytest.mark.parametrize("refused", [False, True])
async def test_an_answer_that_comes_after_the_takeover_moves_nothing(
    bench: Bench, refused: bool
) -> None:
    """The saga is RUNNING for both, and the living owner is in the very call whose answer, or
    refusal, the one that wakes up wants to write."""
    bench.service.plan("b", NO if refused else {"late": True})
    frozen = Frozen(bench, first())
    await frozen.stands()
    await bench.take_over()
    in_call, go_on = asyncio.Event(), asyncio.Event()

    async def hold(call: Call) -> None:
        in_call.set()
        await go_on.wait()

    bench.service.before = hold
    living = asyncio.create_task(bench.deliver(first()))
    async with asyncio.timeout(20):
        await in_call.wait()
    before = await bench.saga(), await bench.step(1)
    await frozen.wake()
    assert (await bench.saga(), await bench.step(1)) == before
    go_on.set()
    assert (await living).status == "COMPLETED"
    assert (await bench.load()).steps[1, "forward"].output == {"made": "b"}
    assert await bench.letters() == []
    assert bench.service.names() == ["b", "b"]


# Doubt


async def interrupted(bench: Bench, state: Callable[[], SagaState], at: int) -> None:
    """Die at a point of a run; the partition has a new owner then."""
    points = Points(at)

    async def reach(call: Call) -> None:
        await points.reach()

    bench.service.before = bench.service.after = reach
    executor = bench.executor(journal=PointsJournal(bench.journal, points))
    with pytest.raises(asyncio.CancelledError):
        await bench.deliver(state(), executor)
    bench.service.before = bench.service.after = None
    await bench.take_over()


async def test_a_rejection_after_an_interrupted_attempt_clears_nothing(bench: Bench) -> None:
    """The effect is there, its worker died, and the service refuses the repetition: by now it
    may refuse for a reason of today."""
    await interrupted(bench, first, at=4)  # the effect is there, its answer on the way
    assert len(bench.service.effects) == 1
    bench.service.plan("b", NO)
    assert (await bench.deliver(first())).status == "COMPENSATED"
    assert bench.service.names() == ["b", "b", "-b"]
    assert bench.service.effects == set()


async def test_an_outage_after_an_interrupted_attempt_clears_nothing(bench: Bench) -> None:
    await interrupted(bench, first, at=4)
    bench.service.plan("b", *(Unreachable() for _ in range(4)))
    assert (await bench.deliver(first())).status == "COMPENSATED"
    assert bench.service.names() == ["b"] * 5 + ["-b"]
    assert bench.service.effects == set()


# Compensating


async def test_a_compensation_that_is_done_is_not_made_again(bench: Bench) -> None:
    def state() -> SagaState:
        return saga(external("a"), external("b"), external("c"))

    bench.service.plan("c", NO)
    in_undoing_a = asyncio.Event()

    async def die(call: Call) -> None:
        if call.direction == "compensate" and call.action == "a":
            in_undoing_a.set()
            raise asyncio.CancelledError

    bench.service.before = die
    with pytest.raises(asyncio.CancelledError):
        await bench.deliver(state())
    assert in_undoing_a.is_set()
    bench.service.before = None
    await bench.take_over()
    assert (await bench.deliver(state())).status == "COMPENSATED"
    assert bench.service.names() == ["a", "b", "c", "-b", "-a", "-a"]


async def test_what_was_turning_back_does_not_go_forward_for_its_next_owner(bench: Bench) -> None:
    """Even though the service would take the step by now."""
    bench.service.plan("b", NO)
    # The claim: 1 and 2; the call: 3 and 4; the turn back: 5 and 6.
    await interrupted(bench, first, at=6)
    assert (await bench.saga())["status"] == "COMPENSATING"
    assert (await bench.deliver(first())).status == "COMPENSATED"
    assert bench.service.names() == ["b"]
    assert await bench.tasks() == {"p-1/0/a": "cancelled"}


class SlowSteps(ServiceSteps):
    """A request of theirs may be on its way for half a minute."""

    max_call_time = 30.0


async def test_a_create_that_arrives_after_its_cancel_is_undone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request that nobody answered is still on its way when its cancel finds nothing. The
    cancel asks again once no request can be on its way any more, and finds it then."""
    state = saga(external("a"))
    key = idempotency_key("p-1", 0, "a", "", "forward")
    bench.service.plan("a", LostRequest(), NO)
    bench.service.plan("a", NothingThere("never heard of it"), undo=True)

    async def sleep(parking: Parking, seconds: float) -> None:
        """Time goes by; the late request arrives in the last second that it may take."""
        row = state.steps[0, "forward"]
        assert row.last_attempt_at is not None
        if seconds > 1:
            assert bench.service.names() == ["a", "a", "-a"]
            bench.service.effects.add(key)
        row.last_attempt_at -= timedelta(seconds=max(seconds, 0))

    monkeypatch.setattr(module, "sleep", sleep)
    registry = registry_of(OwnSteps(), SlowSteps(bench.service))
    await bench.deliver(state, bench.executor(registry=registry, max_wait=120))
    assert state.status == "COMPENSATED"
    assert bench.service.names() == ["a", "a", "-a", "-a"]
    assert bench.service.effects == set()
